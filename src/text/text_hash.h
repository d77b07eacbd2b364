#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace thimble {

inline uint64_t load_bytes(const char* at, size_t n) {
  uint64_t bytes = 0;
  std::memcpy(&bytes, at, n);
  return bytes;
}

inline uint64_t mix_hash(uint64_t h, uint64_t bytes) {
  h = (h ^ bytes) * 0x9E3779B97F4A7C15ull;
  return h ^ h >> 32;
}

// A hash for tables in memory, made for short texts: nothing but loads of fixed size and multiplications.
inline uint64_t hash_text(std::string_view text) {
  const char* at = text.data();
  const size_t n = text.size();
  uint64_t h = n;
  if (n >= 8) {
    for (size_t i = 0; i + 8 < n; i += 8) h = mix_hash(h, load_bytes(at + i, 8));
    return mix_hash(h, load_bytes(at + n - 8, 8));
  }
  if (n >= 4) return mix_hash(h, load_bytes(at, 4) | load_bytes(at + n - 4, 4) << 32);
  if (n == 0) return h;
  return mix_hash(h, load_bytes(at, 1) | load_bytes(at + n / 2, 1) << 8 | load_bytes(at + n - 1, 1) << 16);
}

// Whether two texts of n bytes are the same; what memcmp says, without a call.
inline bool same_text(const char* a, const char* b, size_t n) {
  if (n >= 8) {
    for (size_t i = 0; i + 8 < n; i += 8)
      if (load_bytes(a + i, 8) != load_bytes(b + i, 8)) return false;
    return load_bytes(a + n - 8, 8) == load_bytes(b + n - 8, 8);
  }
  if (n >= 4) return load_bytes(a, 4) == load_bytes(b, 4) && load_bytes(a + n - 4, 4) == load_bytes(b + n - 4, 4);
  return n == 0 || (a[0] == b[0] && a[n / 2] == b[n / 2] && a[n - 1] == b[n - 1]);
}

}  // namespace thimble
