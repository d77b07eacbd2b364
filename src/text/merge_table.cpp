#include "text/merge_table.h"

#include <bit>
#include <cassert>

namespace thimble {

void MergeTable::reserve(size_t pairs) {
  if (pairs * 2 > slots_.size()) grow(std::bit_ceil(pairs * 2));
}

void MergeTable::add(int32_t left, int32_t right, Merge merge) {
  assert(left >= 0 && right >= 0 && merge.rank != kNone);
  if ((used_ + 1) * 2 > slots_.size()) grow(slots_.empty() ? 64 : slots_.size() * 2);
  const uint64_t key = key_of(left, right);
  size_t i = home(key);
  while (slots_[i].key != key && slots_[i].key != kFree) i = (i + 1) & (slots_.size() - 1);
  used_ += slots_[i].key == kFree;
  slots_[i] = {key, merge};
}

void MergeTable::grow(size_t slots) {
  std::vector<Slot> old(slots);
  old.swap(slots_);
  shift_ = 64 - std::countr_zero(slots_.size());
  for (const Slot& slot : old) {
    if (slot.key == kFree) continue;
    size_t i = home(slot.key);
    while (slots_[i].key != kFree) i = (i + 1) & (slots_.size() - 1);
    slots_[i] = slot;
  }
}

}  // namespace thimble
