#include "serve/constraint_cache.h"

#include <algorithm>

#include "calls/json.h"
#include "calls/tool.h"
#include "core/clock.h"

namespace thimble {

std::shared_ptr<const ConstraintSet> ConstraintCache::get(std::span<const Tool> tools,
                                                          const ConstraintOptions& options) {
  std::string key = tools_to_text(tools) + '\n' + std::to_string(static_cast<int>(options.mode)) + ' ' +
                    std::to_string(options.most_calls) + (options.plan ? " plan" : "");
  if (options.text_schema != nullptr) key += '\n' + write_json(*options.text_schema);
  std::shared_ptr<const ConstraintFactory> factory;
  {
    const std::scoped_lock lock(mutex_);
    const auto found = std::find_if(kept_.begin(), kept_.end(), [&](const auto& entry) { return entry.first == key; });
    if (found != kept_.end()) {
      kept_.splice(kept_.begin(), kept_, found);
      ++hits_;
      return found->second;
    }
    if (!factory_) factory_ = std::make_shared<ConstraintFactory>(tokens_());
    factory = factory_;
  }
  const auto start = Clock::now();
  auto compiled = std::make_shared<const ConstraintSet>(factory->compile(tools, options));
  ++compiled_;
  compile_s_ += seconds_since(start);
  const std::scoped_lock lock(mutex_);
  kept_.emplace_front(std::move(key), compiled);
  if (kept_.size() > kKept) kept_.pop_back();
  return compiled;
}

}  // namespace thimble
