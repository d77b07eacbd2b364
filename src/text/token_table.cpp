#include "text/token_table.h"

#include <bit>
#include <limits>

#include "core/error.h"
#include "text/text_hash.h"

namespace thimble {

void TokenTable::reserve(size_t tokens, size_t bytes) {
  records_.reserve(bytes + tokens * (sizeof(Head) + kUnit / 2));
  if (tokens * 2 > slots_.size()) grow(std::bit_ceil(tokens * 2));
}

bool TokenTable::is_at(size_t at, std::string_view text) const {
  return head(at).size == text.size() && same_text(records_.data() + at + sizeof(Head), text.data(), text.size());
}

size_t TokenTable::place(std::string_view text, uint32_t hash) const {
  const size_t mask = slots_.size() - 1;
  for (size_t i = hash & mask;; i = (i + 1) & mask) {
    const Slot slot = slots_[i];
    if (slot.record == 0 || (slot.hash == hash && is_at((slot.record - size_t{1}) * kUnit, text))) return i;
  }
}

void TokenTable::grow(size_t slots) {
  std::vector<Slot> old(slots);
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (slot.record == 0) continue;
    size_t i = slot.hash & (slots_.size() - 1);
    while (slots_[i].record != 0) i = (i + 1) & (slots_.size() - 1);
    slots_[i] = slot;
  }
}

bool TokenTable::add(std::string_view text, int32_t id) {
  if ((count_ + 1) * 2 > slots_.size()) grow(slots_.empty() ? 64 : slots_.size() * 2);
  const auto hash = static_cast<uint32_t>(hash_text(text));
  Slot& slot = slots_[place(text, hash)];
  if (slot.record != 0) return false;
  const size_t at = records_.size();
  if (at / kUnit >= std::numeric_limits<uint32_t>::max() || text.size() > std::numeric_limits<uint32_t>::max())
    throw Error("the vocabulary's tokens are together longer than 32 GB; the file is damaged");
  records_.resize(at + record_size(text.size()));
  const Head head{id, static_cast<uint32_t>(text.size())};
  std::memcpy(records_.data() + at, &head, sizeof head);
  std::memcpy(records_.data() + at + sizeof head, text.data(), text.size());
  slot = {hash, static_cast<uint32_t>(at / kUnit + 1)};
  ++count_;
  return true;
}

int32_t TokenTable::find(std::string_view text) const {
  size_t hint = records_.size();
  return find(text, hint);
}

int32_t TokenTable::find(std::string_view text, size_t& hint) const {
  if (slots_.empty()) return -1;
  size_t at = hint;
  if (at >= records_.size() || !is_at(at, text)) {
    const Slot slot = slots_[place(text, static_cast<uint32_t>(hash_text(text)))];
    if (slot.record == 0) return -1;
    at = (slot.record - size_t{1}) * kUnit;
  }
  hint = at + record_size(text.size());
  return head(at).id;
}

}  // namespace thimble
