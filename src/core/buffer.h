#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace thimble {

// Memory on 2 MB pages where the kernel gives them (transparent huge pages): reading weights from 2 MB pages is about
// 1.7 x as fast as from 4 KiB pages. Aligned to at least 64 bytes; fresh memory is zero. From 2 MB on, a page takes
// memory only once it is written to.
class ByteBuffer {
 public:
  ByteBuffer() = default;
  explicit ByteBuffer(size_t bytes) : ByteBuffer(bytes, 0) {}
  // The first `small` bytes (rounded up to a page) on ordinary pages: for memory of which often only the beginning is
  // used, so that it doesn't take 2 MB for that.
  ByteBuffer(size_t bytes, size_t small);
  ByteBuffer(ByteBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        mapping_(std::exchange(other.mapping_, nullptr)),
        mapped_(std::exchange(other.mapped_, 0)),
        borrowed_(std::exchange(other.borrowed_, false)) {}
  ByteBuffer& operator=(ByteBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(mapping_, other.mapping_);
    std::swap(mapped_, other.mapped_);
    std::swap(borrowed_, other.borrowed_);
    return *this;
  }
  ~ByteBuffer();

  // A part of another buffer, which must outlive it.
  ByteBuffer part(size_t first, size_t bytes) const {
    ByteBuffer out;
    out.data_ = data_ + first;
    out.size_ = bytes;
    out.borrowed_ = true;
    return out;
  }

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  void* mapping_ = nullptr;  // null: from the heap
  size_t mapped_ = 0;
  bool borrowed_ = false;
};

// An array of plain values in a ByteBuffer.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t count) : bytes_(count * sizeof(T)), count_(count) {}
  explicit Buffer(ByteBuffer&& bytes) : bytes_(std::move(bytes)), count_(bytes_.size() / sizeof(T)) {}
  Buffer(Buffer&& other) noexcept : bytes_(std::move(other.bytes_)), count_(std::exchange(other.count_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {  // so that what was moved from is empty
    std::swap(bytes_, other.bytes_);
    std::swap(count_, other.count_);
    return *this;
  }

  T* data() const { return reinterpret_cast<T*>(bytes_.data()); }
  size_t size() const { return count_; }
  bool empty() const { return count_ == 0; }
  T& operator[](size_t i) const { return data()[i]; }
  T* begin() const { return data(); }
  T* end() const { return data() + count_; }
  std::span<T> span() const { return {data(), count_}; }
  operator std::span<T>() const { return span(); }

 private:
  ByteBuffer bytes_;
  size_t count_ = 0;
};

}  // namespace thimble
