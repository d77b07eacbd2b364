#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace thimble {

// Which pairs of symbols merge into which symbol, and how early (lower ranks first): a flat hash table, since
// merging does little else than look-ups.
class MergeTable {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Merge {
    uint32_t rank = kNone;
    int32_t symbol = -1;
  };

  // Room for so many pairs.
  void reserve(size_t pairs);

  // A pair that is there already gets the new merge, as in Hugging Face's tokenizers.
  void add(int32_t left, int32_t right, Merge merge);
  size_t size() const { return used_; }

  Merge find(int32_t left, int32_t right) const {
    if (slots_.empty()) return {};
    const uint64_t key = key_of(left, right);
    for (size_t i = home(key);; i = (i + 1) & (slots_.size() - 1)) {
      if (slots_[i].key == key) return slots_[i].merge;
      if (slots_[i].key == kFree) return {};
    }
  }

 private:
  static constexpr uint64_t kFree = UINT64_MAX;
  struct Slot {
    uint64_t key = kFree;
    Merge merge;
  };

  static uint64_t key_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t home(uint64_t key) const { return (key * 0x9E3779B97F4A7C15ull) >> shift_; }
  void grow(size_t slots);

  std::vector<Slot> slots_;  // a power of two, at most half full
  int shift_ = 64;
  size_t used_ = 0;
};

}  // namespace thimble
