#include "text/token_table.h"

#include <bit>

#include "text/text_hash.h"

namespace thimble {

void TokenTable::reserve(size_t tokens, size_t bytes) {
  entries_.reserve(tokens);
  texts_.reserve(bytes);
  if (tokens * 2 > slots_.size()) grow(std::bit_ceil(tokens * 2));
}

size_t TokenTable::place(std::string_view text, uint32_t hash) const {
  size_t i = hash & (slots_.size() - 1);
  while (slots_[i].entry != 0 && (slots_[i].hash != hash || this->text(slots_[i].entry - 1) != text))
    i = (i + 1) & (slots_.size() - 1);
  return i;
}

void TokenTable::grow(size_t slots) {
  std::vector<Slot> old(slots);
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (slot.entry == 0) continue;
    size_t i = slot.hash & (slots_.size() - 1);
    while (slots_[i].entry != 0) i = (i + 1) & (slots_.size() - 1);
    slots_[i] = slot;
  }
}

bool TokenTable::add(std::string_view text, int32_t id) {
  if ((entries_.size() + 1) * 2 > slots_.size()) grow(slots_.empty() ? 64 : slots_.size() * 2);
  const auto hash = static_cast<uint32_t>(hash_text(text));
  Slot& slot = slots_[place(text, hash)];
  if (slot.entry != 0) return false;
  entries_.push_back({texts_.size(), text.size(), id});
  texts_ += text;
  slot = {hash, static_cast<uint32_t>(entries_.size())};
  return true;
}

int32_t TokenTable::find(std::string_view text) const {
  if (slots_.empty()) return -1;
  const Slot& slot = slots_[place(text, static_cast<uint32_t>(hash_text(text)))];
  return slot.entry == 0 ? -1 : entries_[slot.entry - 1].id;
}

}  // namespace thimble
