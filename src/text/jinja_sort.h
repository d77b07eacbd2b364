#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace thimble::jinja {

// A stable merge sort. std::sort may read out of bounds where an order contradicts itself, as that of nan does.
template <class T, class Less>
void merge_sort(std::vector<T>& items, const Less& less) {
  std::vector<T> merged(items.size());
  for (size_t width = 1; width < items.size(); width *= 2) {
    for (size_t begin = 0; begin < items.size(); begin += 2 * width) {
      const size_t middle = std::min(begin + width, items.size()), end = std::min(begin + 2 * width, items.size());
      size_t left = begin, right = middle;
      for (size_t i = begin; i < end; ++i) {
        const bool take_right = left == middle || (right < end && less(items[right], items[left]));
        merged[i] = items[take_right ? right++ : left++];
      }
    }
    items.swap(merged);
  }
}

}  // namespace thimble::jinja
