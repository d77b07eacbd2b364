#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>

#include "text/text_hash.h"

namespace thimble {

// The tokens of words seen before, one a thread, of a fixed size: a newer word takes the place of an older one with
// the same slot. A slot is one cache line. Long words and those of many tokens are not kept.
class WordCache {
 public:
  static constexpr size_t kBytes = 24, kIds = 8;
  static constexpr size_t kSlots = 1 << 14;  // 1 MiB

  // A word with zeros behind it, so that comparing and hashing take no loop.
  struct Key {
    uint64_t bytes[kBytes / 8];
  };
  struct alignas(64) Slot {
    Key key;
    int32_t ids[kIds];
    uint32_t owner;  // the vocabulary; 0: free
    uint8_t size;    // of the word
    uint8_t count;   // of its tokens

    bool holds(uint32_t wanted_owner, const Key& wanted, size_t wanted_size) const {
      return ((key.bytes[0] ^ wanted.bytes[0]) | (key.bytes[1] ^ wanted.bytes[1]) | (key.bytes[2] ^ wanted.bytes[2]) |
              (owner ^ wanted_owner) | (size ^ wanted_size)) == 0;
    }

    void put(uint32_t new_owner, const Key& new_key, size_t new_size, std::span<const int32_t> tokens) {
      if (tokens.size() > kIds) return;
      key = new_key;
      owner = new_owner;
      size = static_cast<uint8_t>(new_size);
      count = static_cast<uint8_t>(tokens.size());
      std::memcpy(ids, tokens.data(), tokens.size_bytes());
    }
  };
  static_assert(sizeof(Slot) == 64);

  // The key of a word of 1 to kBytes bytes. What lies behind the word is read, too, where `readable` is large enough.
  static Key key_of(const char* word, size_t size, size_t readable) {
    Key key{};
    if (readable < kBytes) {
      std::memcpy(&key, word, size);
      return key;
    }
    const auto load = [&](size_t i) {
      const uint64_t bytes = load_bytes(word + i * 8, 8);
      return size >= i * 8 + 8 ? bytes : bytes & ((uint64_t{1} << (size - i * 8) * 8) - 1);
    };
    key.bytes[0] = load(0);
    if (size > 8) key.bytes[1] = load(1);
    if (size > 16) key.bytes[2] = load(2);
    return key;
  }

  // The slot that the word is in or would be put in.
  Slot& slot(uint32_t owner, const Key& key, size_t size) const {
    uint64_t h = mix_hash(owner, key.bytes[0]);
    if (size > 8) h = mix_hash(mix_hash(h, key.bytes[1]), key.bytes[2]);
    return slots_[h & (kSlots - 1)];
  }

  static WordCache& of_this_thread() {
    thread_local WordCache cache;
    return cache;
  }

 private:
  // Zeros that take no memory until they are written: most threads see few words.
  WordCache() : memory_(std::calloc(kSlots + 1, sizeof(Slot)), std::free) {
    if (memory_ == nullptr) throw std::bad_alloc();
    void* start = memory_.get();
    size_t size = (kSlots + 1) * sizeof(Slot);
    slots_ = static_cast<Slot*>(std::align(alignof(Slot), kSlots * sizeof(Slot), start, size));
  }

  std::unique_ptr<void, void (*)(void*)> memory_;
  Slot* slots_ = nullptr;
};

}  // namespace thimble
