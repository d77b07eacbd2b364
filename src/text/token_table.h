#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace thimble {

// Which token a text is: a flat hash table whose texts lie in one block. A vocabulary is read when a program starts,
// and a map of 49,152 strings takes longer to build than all the rest.
class TokenTable {
 public:
  // Room for so many tokens of so many bytes together.
  void reserve(size_t tokens, size_t bytes);
  // A text that is there already keeps its token, and false is returned.
  bool add(std::string_view text, int32_t id);
  int32_t find(std::string_view text) const;  // -1 where it is none
  // The same, looking first behind the token that was found with this hint before (0 at the beginning): for texts
  // that are sought in the order in which they were added.
  int32_t find(std::string_view text, size_t& hint) const;

  size_t size() const { return count_; }
  // Calls each(text, id) for all in the order in which they were added.
  template <class Each>
  void for_each(Each&& each) const {
    for (size_t at = 0; at < records_.size(); at += record_size(head(at).size)) each(text(at), head(at).id);
  }

 private:
  struct Slot {
    uint32_t hash = 0;
    uint32_t record = 0;  // where its record is, in units of kUnit, counted from 1; 0: free
  };
  // A record is its head, its text, and zeros up to a multiple of kUnit: one place in memory for all of a token.
  struct Head {
    int32_t id;
    uint32_t size;
  };
  static constexpr size_t kUnit = 8;

  static size_t record_size(size_t text_size) { return (sizeof(Head) + text_size + kUnit - 1) / kUnit * kUnit; }
  Head head(size_t at) const {
    Head head;
    std::memcpy(&head, records_.data() + at, sizeof head);
    return head;
  }
  std::string_view text(size_t at) const { return {records_.data() + at + sizeof(Head), head(at).size}; }
  bool is_at(size_t at, std::string_view text) const;
  // The slot of a text, or the free one where it belongs.
  size_t place(std::string_view text, uint32_t hash) const;
  void grow(size_t slots);

  std::vector<Slot> slots_;  // a power of two, at most half full
  std::vector<char> records_;
  size_t count_ = 0;
};

}  // namespace thimble
