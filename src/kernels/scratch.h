#pragma once

#include <cstddef>
#include <utility>

#include "core/buffer.h"

namespace thimble {

namespace detail {
ByteBuffer take_scratch(size_t bytes);
void keep_scratch(ByteBuffer buffer);
}  // namespace detail

// A kernel's temporary memory. Each thread keeps what was given back and hands it out again, because fresh pages
// cost more than the small kernels that use them. Contents are unspecified; aligned to 64 bytes.
template <class T>
class Scratch {
 public:
  explicit Scratch(size_t count) : bytes_(detail::take_scratch(count * sizeof(T))) {}
  ~Scratch() { detail::keep_scratch(std::move(bytes_)); }
  Scratch(Scratch&&) noexcept = default;
  Scratch& operator=(Scratch&&) noexcept = default;

  T* data() const { return reinterpret_cast<T*>(bytes_.data()); }
  T& operator[](size_t i) const { return data()[i]; }

 private:
  ByteBuffer bytes_;
};

}  // namespace thimble
