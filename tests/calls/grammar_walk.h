#pragma once

#include <string>
#include <vector>

#include "calls/constraint.h"
#include "core/random.h"

namespace thimble::test {

// A vocabulary of the 256 bytes, some longer tokens and a stop token (the last id); id 256 is a special token.
inline TokenTable byte_tokens() {
  TokenTable table;
  for (int byte = 0; byte < 256; ++byte) table.bytes.emplace_back(1, static_cast<char>(byte));
  table.bytes.emplace_back("<|im_start|>");
  for (const char* text :
       {"<tool", "_call>", "{\"name", "\": ", "\", \"", "\"}", "}}\n", "arguments", "10", "the ", "é", " "}) {
    table.bytes.emplace_back(text);
  }
  table.bytes.emplace_back("<|im_end|>");
  table.special.assign(table.bytes.size(), false);
  table.special[256] = true;
  table.stop_ids = {static_cast<int32_t>(table.bytes.size()) - 1};
  return table;
}

// What a model that knows nothing would write: a random allowed token at each step, biased towards closing strings and
// stopping so that walks end. Empty where no token is allowed (dead end, a fault) or the walk is too long.
struct Walk {
  std::string text;
  bool finished = false;
  bool dead_end = false;
};

inline Walk random_walk(Constraint& constraint, const TokenTable& table, Random& random, size_t longest) {
  Walk walk;
  std::vector<uint32_t> bits((table.bytes.size() + 31) / 32);
  const auto stop = table.stop_ids.front();
  std::vector<int32_t> allowed;
  for (size_t step = 0; step < longest; ++step) {
    constraint.mask(bits);
    allowed.clear();
    for (size_t id = 0; id < table.bytes.size(); ++id) {
      if (bits[id / 32] >> (id % 32) & 1) allowed.push_back(static_cast<int32_t>(id));
    }
    if (allowed.empty()) {
      walk.dead_end = true;
      return walk;
    }
    int32_t token = allowed[random.below(allowed.size())];
    const auto can = [&](int32_t id) { return (bits[static_cast<size_t>(id) / 32] >> (id % 32) & 1) != 0; };
    if (random.below(3) == 0) {  // towards an end
      for (const int32_t end : {static_cast<int32_t>('"'), static_cast<int32_t>('}'), static_cast<int32_t>(']')}) {
        if (can(end)) token = end;
      }
      if (can(stop)) token = stop;
    }
    if (!constraint.accept(token)) {
      walk.dead_end = true;
      return walk;
    }
    if (token == stop) {
      walk.finished = true;
      return walk;
    }
    walk.text += table.bytes[static_cast<size_t>(token)];
  }
  return walk;
}

// Whether the grammar takes this text whole, byte by byte.
inline bool takes(Constraint& constraint, const std::string& text) {
  for (const char c : text) {
    if (!constraint.accept(static_cast<unsigned char>(c))) return false;
  }
  return constraint.may_stop();
}

}  // namespace thimble::test
