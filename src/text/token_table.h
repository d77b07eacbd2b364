#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace thimble {

// Which token a text is: a flat hash table whose texts lie in one block. A vocabulary is read when a program starts, and
// a map of 49,152 strings takes longer to build than all the rest.
class TokenTable {
 public:
  // Room for so many tokens of so many bytes together.
  void reserve(size_t tokens, size_t bytes);
  // A text that is there already keeps its token, and false is returned.
  bool add(std::string_view text, int32_t id);
  int32_t find(std::string_view text) const;  // -1 where it is none

  size_t size() const { return entries_.size(); }
  // By the order in which they were added.
  std::string_view text(size_t entry) const {
    return std::string_view(texts_).substr(entries_[entry].begin, entries_[entry].size);
  }
  int32_t id(size_t entry) const { return entries_[entry].id; }

 private:
  struct Slot {
    uint32_t hash = 0;
    uint32_t entry = 0;  // counted from 1; 0: free
  };
  struct Entry {
    size_t begin, size;
    int32_t id;
  };

  // The slot of a text, or the free one where it belongs.
  size_t place(std::string_view text, uint32_t hash) const;
  void grow(size_t slots);

  std::vector<Slot> slots_;  // a power of two, at most half full
  std::vector<Entry> entries_;
  std::string texts_;
};

}  // namespace thimble
