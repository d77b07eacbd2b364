#pragma once

#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "calls/json.h"

namespace thimble {

// What is kept of a response so that it can be asked for, and gone on from, by its id.
struct StoredResponse {
  Json response;        // as it was answered
  Json items;           // all that it answered to: earlier exchanges too, oldest first, each with its id
  std::string owner{};  // the name of the key that asked; empty: none was needed
};

// The last responses of this server, in memory only: gone when it ends, the oldest when there are too many. To others
// than its owner a response is as good as not there. Thread-safe.
class ResponseStore {
 public:
  static constexpr size_t kMostKept = 1000;
  static constexpr size_t kMostBytes = size_t{64} << 20;  // of JSON text

  void put(StoredResponse stored);
  std::shared_ptr<const StoredResponse> find(const std::string& id, const std::string& owner) const;  // nullptr: none
  // An item of any kept response, its input and output; nothing where there is none of that id.
  std::optional<Json> find_item(const std::string& id, const std::string& owner) const;
  bool drop(const std::string& id, const std::string& owner);  // whether there was one

 private:
  struct Kept {
    std::shared_ptr<const StoredResponse> stored;
    size_t bytes = 0;
  };
  mutable std::mutex mutex_;
  std::list<Kept> kept_;  // the newest first
  size_t bytes_ = 0;
};

}  // namespace thimble
