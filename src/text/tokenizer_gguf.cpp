#include <fmt/core.h>

#include <algorithm>
#include <unordered_map>

#include "core/error.h"
#include "text/gguf_rules.h"
#include "text/tokenizer_parts.h"
#include "text/utf8.h"

namespace thimble {
namespace {

enum TokenType : int32_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

constexpr std::string_view kMark = "\xE2\x96\x81";  // "▁"

void read_tokens(const Vocabulary& vocabulary, TokenizerParts& parts, std::vector<int32_t>& candidates) {
  const size_t n = vocabulary.tokens.size();
  if (!vocabulary.types.empty() && vocabulary.types.size() != n)
    throw Error(fmt::format("tokenizer.ggml.token_type has {} entries for {} tokens; the file is damaged",
                            vocabulary.types.size(), n));
  parts.tokens = vocabulary.tokens;
  // Many short texts are checked faster as one: where that is valid, only a token's beginning can be wrong.
  std::string all;
  for (const std::string& token : parts.tokens) all += token;
  const bool all_valid = is_valid_utf8(all);
  for (size_t id = 0; id < n; ++id) {
    const std::string& token = parts.tokens[id];
    const bool inside = !token.empty() && (static_cast<unsigned char>(token[0]) & 0xC0) == 0x80;
    if (inside || (!all_valid && !is_valid_utf8(token)))
      throw Error(fmt::format("tokenizer.ggml.tokens: token {} is not UTF-8; the file is damaged", id));
    const int32_t type = vocabulary.types.empty() ? kNormal : vocabulary.types[id];
    if (type < kNormal || type > kByte)
      throw Error(fmt::format("tokenizer.ggml.token_type: token {} has the unknown type {}", id, type));
    const bool special = type == kControl || type == kUnknown;
    if (special || type == kUserDefined) {
      AddedToken added;
      added.id = static_cast<int32_t>(id);
      added.content = token;
      added.special = special;
      parts.added.push_back(added);
    }
    if (!special) candidates.push_back(static_cast<int32_t>(id));
  }
}

void read_special_ids(const Vocabulary& vocabulary, TokenizerParts& parts) {
  const auto read = [&](const std::optional<int>& id, const char* name, std::optional<int32_t>& out) {
    if (!id) return;
    if (*id < 0 || static_cast<size_t>(*id) >= parts.tokens.size())
      throw Error(
          fmt::format("tokenizer.ggml.{}_token_id is {}, beyond the vocabulary of {} tokens; the file is damaged", name,
                      *id, parts.tokens.size()));
    out = *id;
  };
  read(vocabulary.bos, "bos", parts.bos);
  read(vocabulary.eos, "eos", parts.eos);
  read(vocabulary.unk, "unknown", parts.unk);
  read(vocabulary.pad, "padding", parts.pad);
}

void add_ends(const Vocabulary& vocabulary, bool default_bos, TokenizerParts& parts) {
  if (vocabulary.add_bos.value_or(default_bos)) {
    if (!parts.bos)
      throw Error("tokenizer.ggml.add_bos_token is set, but the file names no tokenizer.ggml.bos_token_id");
    parts.prefix.push_back(*parts.bos);
  }
  if (vocabulary.add_eos.value_or(false)) {
    if (!parts.eos)
      throw Error("tokenizer.ggml.add_eos_token is set, but the file names no tokenizer.ggml.eos_token_id");
    parts.suffix.push_back(*parts.eos);
  }
}

// Text never becomes a control token, save one that merges make from text: Hugging Face's BPE makes it then, too.
std::vector<int32_t> with_merged_controls(const Vocabulary& vocabulary, const TokenizerParts& parts,
                                          std::vector<int32_t> candidates) {
  std::unordered_map<std::string, int32_t> controls;
  std::vector<bool> lengths;  // of their names: few merges are as long, and only those are looked at
  for (const AddedToken& token : parts.added) {
    if (!token.special) continue;
    controls.emplace(token.content, token.id);
    lengths.resize(std::max(lengths.size(), token.content.size() + 1));
    lengths[token.content.size()] = true;
  }
  for (const std::string& merge : vocabulary.merges) {
    const size_t space = merge.find(' ', 1);
    if (space == std::string::npos || merge.size() > lengths.size() || !lengths[merge.size() - 1]) continue;
    const auto found = controls.find(std::string(merge).erase(space, 1));
    if (found == controls.end()) continue;
    candidates.push_back(found->second);
    controls.erase(found);
  }
  return candidates;
}

void read_byte_level(const Vocabulary& vocabulary, TokenizerParts& parts, const std::vector<int32_t>& plain) {
  const std::vector<int32_t> candidates = with_merged_controls(vocabulary, parts, plain);
  if (vocabulary.merges.empty()) throw Error("the GGUF file has no tokenizer.ggml.merges, which its tokenizer needs");
  const GgufRule rule = add_gguf_rule(vocabulary.pre, parts.normalizer, parts.pre_tokenizer);
  Bpe::Options options;
  options.ignore_merges = rule.ignore_merges;
  parts.model = std::make_unique<Bpe>(parts.tokens, candidates, options);
  parts.model->reserve_merges(vocabulary.merges.size());
  for (const std::string& merge : vocabulary.merges) {
    const size_t space = merge.find(' ', 1);
    if (space == std::string::npos)
      throw Error(fmt::format("tokenizer.ggml.merges: '{}' is not two tokens with a space between", merge));
    const std::string_view text = merge;
    parts.model->add_merge(text.substr(0, space), text.substr(space + 1));
  }
  parts.model->finish();
  parts.decoder.add(TokenDecoder::ByteLevel{});
  add_ends(vocabulary, rule.add_bos, parts);
}

// Phi-3's control tokens take the white space behind them along; GGUF files don't say so.
void strip_behind_phi3_tokens(TokenizerParts& parts) {
  const auto has = [&](std::string_view name) {
    return std::any_of(parts.added.begin(), parts.added.end(), [&](const AddedToken& t) { return t.content == name; });
  };
  if (!has("<|placeholder1|>") || !has("<|assistant|>")) return;
  for (AddedToken& token : parts.added)
    token.rstrip = token.content != "<unk>" && token.content != "<s>" && token.content != "<|endoftext|>";
}

void read_sentence_piece(const Vocabulary& vocabulary, TokenizerParts& parts, const std::vector<int32_t>& candidates) {
  if (vocabulary.scores.size() != parts.tokens.size())
    throw Error(fmt::format("tokenizer.ggml.scores has {} entries for {} tokens; the file is damaged",
                            vocabulary.scores.size(), parts.tokens.size()));
  const auto nan = std::find_if(vocabulary.scores.begin(), vocabulary.scores.end(), [](float s) { return s != s; });
  if (nan != vocabulary.scores.end())
    throw Error(fmt::format("tokenizer.ggml.scores: the score of token {} is no number; the file is damaged",
                            nan - vocabulary.scores.begin()));
  const bool prefix = vocabulary.add_space_prefix.value_or(true);
  if (prefix) parts.normalizer.add(Normalizer::Prepend{std::string(kMark)});
  parts.normalizer.add(Normalizer::Replace{Pattern::literal(" "), std::string(kMark)});
  Bpe::Options options;
  options.byte_fallback = true;
  options.fuse_unk = true;
  options.unk = parts.unk.value_or(-1);
  parts.model = std::make_unique<Bpe>(parts.tokens, candidates, options);
  parts.model->add_scored_merges(vocabulary.scores);
  parts.model->finish();
  parts.decoder.add(TokenDecoder::Replace{Pattern::literal(std::string(kMark)), " "});
  parts.decoder.add(TokenDecoder::ByteFallback{});
  parts.decoder.add(TokenDecoder::Fuse{});
  if (prefix) parts.decoder.add(TokenDecoder::Strip{" ", 1, 0});
  strip_behind_phi3_tokens(parts);
  add_ends(vocabulary, true, parts);
}

}  // namespace

TokenizerParts read_gguf_tokenizer(const Vocabulary& vocabulary) {
  TokenizerParts parts;
  std::vector<int32_t> candidates;
  read_tokens(vocabulary, parts, candidates);
  read_special_ids(vocabulary, parts);
  if (vocabulary.model == "gpt2") {
    read_byte_level(vocabulary, parts, candidates);
  } else if (vocabulary.model == "llama") {
    read_sentence_piece(vocabulary, parts, candidates);
  } else {
    throw Error(
        fmt::format("the GGUF file's tokenizer is '{}', which is not supported; use a model with a byte-level "
                    "BPE ('gpt2') or SentencePiece-style BPE ('llama') tokenizer",
                    vocabulary.model));
  }
  return parts;
}

}  // namespace thimble
