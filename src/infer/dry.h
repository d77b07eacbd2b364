#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace thimble {

// Where repetitions begin anew, for DRY: behind texts such as "\n" or ":", whatever tokens wrote them.
class SequenceBreakers {
 public:
  using BytesOf = std::function<std::string_view(int32_t token)>;

  SequenceBreakers() = default;
  SequenceBreakers(BytesOf bytes_of, std::vector<std::string> texts);
  SequenceBreakers(Tokenizer tokenizer, std::vector<std::string> texts);

  bool alone(int32_t token) const;  // whether it holds a whole breaker
  // How many of the last tokens stand after the token in which the last breaker ends.
  size_t since_last(std::span<const int32_t> tokens) const;

 private:
  bool ends_in_last(std::span<const int32_t> tokens) const;

  BytesOf bytes_of_;
  std::vector<std::string> texts_;
};

struct DrySettings {
  float multiplier = 0, base = 1.75f;
  int allowed_length = 2;
};

// Lowers the logit of every token that would go on with a repetition: where the last n >= allowed_length of `tokens`,
// all after the last breaker, stand earlier too, the token that followed there loses
// multiplier * base^(n - allowed_length), for the longest such n. Tokens that break by themselves lose nothing. As in
// text-generation-webui (where p-e-w proposed it, pull request 5677) and llama.cpp. Linear in the number of tokens.
void apply_dry(std::span<const int32_t> tokens, const DrySettings& settings, const SequenceBreakers& breakers,
               std::span<float> logits);

}  // namespace thimble
