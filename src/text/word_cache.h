#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace thimble {

// The tokens of words seen before, one a thread, of a fixed size: a newer word takes the place of an older one with
// the same slot. A slot is one cache line. Long words and those of many tokens are not kept.
class WordCache {
 public:
  static constexpr size_t kKey = 23, kIds = 8;
  static constexpr size_t kSlots = 1 << 14;  // 1 MiB

  struct alignas(64) Slot {
    uint32_t owner = 0;  // the vocabulary; 0: free
    uint8_t key_size = 0, count = 0;
    char key[kKey];
    int32_t ids[kIds];
  };
  static_assert(sizeof(Slot) == 64);

  static bool fits(std::string_view word) { return word.size() <= kKey; }

  // The slot that the word is in or would be put in.
  Slot& slot(uint32_t owner, std::string_view word) { return slots_[hash(owner, word) & (kSlots - 1)]; }

  static bool holds(const Slot& slot, uint32_t owner, std::string_view word) {
    return slot.owner == owner && slot.key_size == word.size() && std::memcmp(slot.key, word.data(), word.size()) == 0;
  }

  static void put(Slot& slot, uint32_t owner, std::string_view word, const int32_t* ids, size_t count) {
    if (count > kIds) return;
    slot.owner = owner;
    slot.key_size = static_cast<uint8_t>(word.size());
    slot.count = static_cast<uint8_t>(count);
    std::memcpy(slot.key, word.data(), word.size());
    std::memcpy(slot.ids, ids, count * sizeof(int32_t));
  }

  static WordCache& of_this_thread() {
    thread_local WordCache cache;
    return cache;
  }

 private:
  static uint64_t hash(uint32_t owner, std::string_view word) {
    uint64_t h = owner * 0x9E3779B97F4A7C15ull + word.size();
    const char* at = word.data();
    size_t left = word.size();
    for (; left >= 8; at += 8, left -= 8) h = mix(h, at, 8);
    if (left > 0) h = mix(h, at, left);
    return h ^ h >> 32;
  }
  static uint64_t mix(uint64_t h, const char* at, size_t n) {
    uint64_t bytes = 0;
    std::memcpy(&bytes, at, n);
    h = (h ^ bytes) * 0xBF58476D1CE4E5B9ull;
    return h ^ h >> 29;
  }

  std::vector<Slot> slots_{kSlots};
};

}  // namespace thimble
