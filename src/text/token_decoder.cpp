#include "text/token_decoder.h"

#include <optional>

#include "core/error.h"
#include "text/byte_level.h"
#include "text/utf8.h"

namespace thimble {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// "<0x0A>" -> 0x0A
std::optional<char> fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  const int high = hex_digit(token[3]), low = hex_digit(token[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<char>(high * 16 + low);
}

// No token grows by more.
constexpr size_t kMostGrowth = 1 << 20;

std::string replace_all(const Pattern& pattern, std::string_view content, std::string_view text) {
  return pattern.replace_all(text, content, kMostGrowth);
}

size_t count_leading(std::string_view text, std::string_view what, size_t most) {
  size_t n = 0;
  while (n < most && text.substr(n * what.size()).starts_with(what)) ++n;
  return n;
}

size_t count_trailing(std::string_view text, std::string_view what, size_t most) {
  size_t n = 0;
  while (n < most && text.ends_with(what)) {
    text.remove_suffix(what.size());
    ++n;
  }
  return n;
}

bool is_one_character(std::string_view text) {
  size_t at = 0;
  return !text.empty() && (decode_utf8(text, at), at == text.size());
}

}  // namespace

void TokenDecoder::add(Step step) {
  const bool fused = !fused_.empty() && (fused_.back() || std::holds_alternative<Fuse>(steps_.back()) ||
                                         std::holds_alternative<ByteLevel>(steps_.back()));
  const bool streams = std::holds_alternative<Replace>(step) || std::holds_alternative<Strip>(step) ||
                       std::holds_alternative<Fuse>(step);
  if (fused && !streams)
    throw Error("tokenizer.json: decoder: only Replace, Strip and Fuse may come after Fuse or ByteLevel");
  if (const auto* strip = std::get_if<Strip>(&step); strip != nullptr && !is_one_character(strip->content))
    throw Error("tokenizer.json: decoder: Strip's content must be one character");
  steps_.push_back(std::move(step));
  fused_.push_back(fused);
}

TokenDecoder::Stream::Stream(const TokenDecoder& decoder) : decoder_(&decoder), states_(decoder.steps_.size()) {}

void TokenDecoder::Stream::push(std::string_view token, std::string& out) { feed(0, std::string(token), out); }

void TokenDecoder::Stream::finish(std::string& out) {
  for (size_t step = 0; step < states_.size(); ++step) flush(step, out);
}

void TokenDecoder::Stream::feed(size_t step, std::string token, std::string& out) {
  if (step == states_.size()) {
    out += token;
    return;
  }
  State& state = states_[step];
  const Step& kind = decoder_->steps_[step];
  if (const auto* replace = std::get_if<Replace>(&kind)) {
    // In a fused text a longer pattern could match across parts: keep all of it until the end.
    if (decoder_->fused_[step] && !is_one_character(replace->pattern.literal_text())) {
      state.held += token;
    } else {
      feed(step + 1, replace_all(replace->pattern, replace->content, token), out);
    }
  } else if (std::holds_alternative<ByteFallback>(kind)) {
    feed_fallback(step, state, std::move(token), out);
  } else if (std::holds_alternative<Fuse>(kind)) {
    feed(step + 1, std::move(token), out);
  } else if (const auto* strip = std::get_if<Strip>(&kind)) {
    feed_strip(step, *strip, state, std::move(token), out);
  } else if (std::holds_alternative<ByteLevel>(kind)) {
    feed_bytes(step, state, std::move(token), out);
  } else if (const auto* metaspace = std::get_if<Metaspace>(&kind)) {
    const bool drop = state.tokens++ == 0 && metaspace->drop_first;
    feed(step + 1, replace_all(Pattern::literal(metaspace->replacement), drop ? "" : " ", token), out);
  } else if (const auto* end = std::get_if<WordEnd>(&kind)) {
    if (state.tokens++ > 0) feed(step + 1, replace_all(Pattern::literal(end->suffix), " ", state.held), out);
    state.held = std::move(token);
  } else {
    feed(step + 1, state.tokens++ > 0 ? token.insert(0, 1, ' ') : std::move(token), out);
  }
}

void TokenDecoder::Stream::flush(size_t step, std::string& out) {
  State& state = states_[step];
  const Step& kind = decoder_->steps_[step];
  if (const auto* replace = std::get_if<Replace>(&kind)) {
    if (!state.held.empty()) feed(step + 1, replace_all(replace->pattern, replace->content, state.held), out);
  } else if (std::holds_alternative<ByteFallback>(kind)) {
    flush_fallback(step, state, out);
  } else if (const auto* strip = std::get_if<Strip>(&kind)) {
    // What is held are only characters to strip, up to `stop` of them.
    if (decoder_->fused_[step]) {
      const size_t cut = count_trailing(state.held, strip->content, strip->stop) * strip->content.size();
      feed(step + 1, state.held.substr(0, state.held.size() - cut), out);
    }
  } else if (std::holds_alternative<ByteLevel>(kind)) {
    if (!state.held.empty()) feed(step + 1, replace_invalid_utf8(state.held), out);
  } else if (const auto* end = std::get_if<WordEnd>(&kind)) {
    if (state.tokens > 0) feed(step + 1, replace_all(Pattern::literal(end->suffix), "", state.held), out);
  }
  state.held.clear();
}

void TokenDecoder::Stream::feed_fallback(size_t step, State& state, std::string token, std::string& out) {
  if (const auto byte = fallback_byte(token)) {
    state.held.push_back(*byte);
    return;
  }
  flush_fallback(step, state, out);
  feed(step + 1, std::move(token), out);
}

// One byte too many makes all of its run unreadable, so that a run can't be given out before it ends.
void TokenDecoder::Stream::flush_fallback(size_t step, State& state, std::string& out) {
  if (state.held.empty()) return;
  const std::string run = std::move(state.held);
  state.held.clear();
  if (is_valid_utf8(run)) return feed(step + 1, run, out);
  for (size_t i = 0; i < run.size(); ++i) feed(step + 1, std::string(kReplacement), out);
}

void TokenDecoder::Stream::feed_strip(size_t step, const Strip& strip, State& state, std::string token,
                                      std::string& out) {
  const size_t width = strip.content.size();
  if (!decoder_->fused_[step]) {
    token.erase(0, count_leading(token, strip.content, strip.start) * width);
    token.resize(token.size() - count_trailing(token, strip.content, strip.stop) * width);
    return feed(step + 1, std::move(token), out);
  }
  if (state.at_start && !token.empty()) {
    const size_t n = count_leading(token, strip.content, strip.start - state.stripped);
    state.stripped += n;
    token.erase(0, n * width);
    state.at_start = token.empty() && state.stripped < strip.start;
  }
  state.held += token;
  const size_t keep = count_trailing(state.held, strip.content, strip.stop) * width;
  std::string certain = state.held.substr(0, state.held.size() - keep);
  state.held.erase(0, certain.size());
  if (!certain.empty()) feed(step + 1, std::move(certain), out);
}

void TokenDecoder::Stream::feed_bytes(size_t step, State& state, std::string token, std::string& out) {
  const auto bytes = byte_level_to_bytes(token);
  state.held += bytes ? *bytes : token;
  // Give out all but an unfinished character.
  size_t certain = 0;
  while (certain < state.held.size()) {
    const Utf8Step next = utf8_step(std::string_view(state.held).substr(certain));
    if (next.unfinished) break;
    certain += next.length;
  }
  if (certain == 0) return;
  std::string text = state.held.substr(0, certain);
  state.held.erase(0, certain);
  feed(step + 1, is_valid_utf8(text) ? std::move(text) : replace_invalid_utf8(text), out);
}

std::string TokenDecoder::bytes_of(std::string_view token) const {
  std::string text;
  if (joins_bytes()) {
    if (!append_bytes(token, text)) text = token;
    return text;
  }
  text = token;
  for (const Step& step : steps_) {
    if (const auto* replace = std::get_if<Replace>(&step)) {
      if (is_valid_utf8(text)) text = replace_all(replace->pattern, replace->content, text);
    } else if (std::holds_alternative<ByteFallback>(step)) {
      if (const auto byte = fallback_byte(text)) return std::string(1, *byte);
    } else if (std::holds_alternative<ByteLevel>(step)) {
      if (auto bytes = byte_level_to_bytes(text)) text = std::move(*bytes);
    } else if (const auto* metaspace = std::get_if<Metaspace>(&step)) {
      text = replace_all(Pattern::literal(metaspace->replacement), " ", text);
    } else if (const auto* end = std::get_if<WordEnd>(&step)) {
      text = replace_all(Pattern::literal(end->suffix), " ", text);
    }
  }
  return text;
}

}  // namespace thimble
