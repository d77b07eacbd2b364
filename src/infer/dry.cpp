#include "infer/dry.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

namespace thimble {
namespace {

// repeats[k] = how many of the last tokens stand also k tokens earlier, for 1 <= k < tokens.size(): the Z-algorithm,
// backwards.
std::vector<size_t> repeats_of_the_end(std::span<const int32_t> tokens) {
  const size_t n = tokens.size();
  const auto from_end = [&](size_t i) { return tokens[n - 1 - i]; };
  std::vector<size_t> repeats(n);
  size_t left = 0, right = 0;  // the match that reaches furthest back: tokens [left, right) from the end
  for (size_t k = 1; k < n; ++k) {
    size_t length = k < right ? std::min(right - k, repeats[k - left]) : 0;
    while (k + length < n && from_end(length) == from_end(k + length)) ++length;
    repeats[k] = length;
    if (k + length > right) left = k, right = k + length;
  }
  return repeats;
}

}  // namespace

SequenceBreakers::SequenceBreakers(BytesOf bytes_of, std::vector<std::string> texts)
    : bytes_of_(std::move(bytes_of)), texts_(std::move(texts)) {}

SequenceBreakers::SequenceBreakers(Tokenizer tokenizer, std::vector<std::string> texts)
    : SequenceBreakers(
          [tokenizer = std::move(tokenizer)](int32_t t) -> std::string_view { return tokenizer.token_bytes(t); },
          std::move(texts)) {}

bool SequenceBreakers::alone(int32_t token) const {
  return std::any_of(texts_.begin(), texts_.end(),
                     [&](const std::string& text) { return bytes_of_(token).find(text) != std::string_view::npos; });
}

bool SequenceBreakers::ends_in_last(std::span<const int32_t> tokens) const {
  if (alone(tokens.back())) return true;
  const std::string_view last = bytes_of_(tokens.back());
  for (const std::string& text : texts_) {
    const size_t outside = text.size() - 1;  // at most so much of it stands in earlier tokens, and in this one
    if (outside == 0 || last.find(text.back()) == std::string_view::npos) continue;
    std::string before;
    for (size_t i = tokens.size() - 1; i > 0 && before.size() < outside; --i)
      before.insert(0, bytes_of_(tokens[i - 1]));
    if (before.size() > outside) before.erase(0, before.size() - outside);
    if (before.append(last.substr(0, outside)).find(text) != std::string::npos) return true;
  }
  return false;
}

size_t SequenceBreakers::since_last(std::span<const int32_t> tokens) const {
  if (texts_.empty()) return tokens.size();
  size_t after = 0;
  while (after < tokens.size() && !ends_in_last(tokens.first(tokens.size() - after))) ++after;
  return after;
}

void apply_dry(std::span<const int32_t> tokens, const DrySettings& settings, const SequenceBreakers& breakers,
               std::span<float> logits) {
  const auto allowed = static_cast<size_t>(settings.allowed_length);
  const size_t limit = breakers.since_last(tokens);
  if (limit < allowed || tokens.size() <= allowed) return;
  const std::vector<size_t> repeats = repeats_of_the_end(tokens);
  std::unordered_map<int32_t, size_t> longest;  // of the repetitions that a token would go on with
  for (size_t k = 1; k < tokens.size(); ++k) {
    const size_t length = std::min(repeats[k], limit);
    if (length < allowed) continue;
    size_t& known = longest[tokens[tokens.size() - k]];
    known = std::max(known, length);
  }
  constexpr double kMost = 1e30;  // so that the logit stays a number
  for (const auto& [token, length] : longest) {
    if (breakers.alone(token)) continue;
    const double penalty = settings.multiplier * std::pow(static_cast<double>(settings.base), length - allowed);
    logits[static_cast<size_t>(token)] -= static_cast<float>(std::min(penalty, kMost));
  }
}

}  // namespace thimble
