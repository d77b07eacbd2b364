#include "serve/responses_api_store.h"

#include <algorithm>
#include <utility>

#include "serve/service.h"

namespace thimble {

void ResponseStore::put(StoredResponse stored) {
  const size_t bytes = json_text(stored.response).size() + json_text(stored.items).size();
  if (bytes > kMostBytes) return;
  Kept kept{std::make_shared<const StoredResponse>(std::move(stored)), bytes};
  const std::scoped_lock lock(mutex_);
  kept_.push_front(std::move(kept));
  bytes_ += bytes;
  while (kept_.size() > kMostKept || bytes_ > kMostBytes) {
    bytes_ -= kept_.back().bytes;
    kept_.pop_back();
  }
}

std::shared_ptr<const StoredResponse> ResponseStore::find(const std::string& id, const std::string& owner) const {
  const std::scoped_lock lock(mutex_);
  for (const Kept& kept : kept_)
    if (kept.stored->owner == owner && kept.stored->response["id"] == id) return kept.stored;
  return nullptr;
}

std::optional<Json> ResponseStore::find_item(const std::string& id, const std::string& owner) const {
  const std::scoped_lock lock(mutex_);
  for (const Kept& kept : kept_) {
    if (kept.stored->owner != owner) continue;
    for (const Json* items : {&kept.stored->response["output"], &kept.stored->items})
      for (const Json& item : *items)
        if (item["id"] == id) return item;
  }
  return std::nullopt;
}

bool ResponseStore::drop(const std::string& id, const std::string& owner) {
  const std::scoped_lock lock(mutex_);
  const auto found = std::find_if(kept_.begin(), kept_.end(), [&](const Kept& kept) {
    return kept.stored->owner == owner && kept.stored->response["id"] == id;
  });
  if (found == kept_.end()) return false;
  bytes_ -= found->bytes;
  kept_.erase(found);
  return true;
}

}  // namespace thimble
