#include <fmt/core.h>
#include <fmt/ranges.h>
#include <simdjson.h>

#include <algorithm>
#include <map>

#include "core/error.h"
#include "text/tokenizer_components.h"
#include "text/tokenizer_parts.h"
#include "text/utf8.h"

namespace thimble {
namespace {

namespace dom = simdjson::dom;

constexpr int64_t kMostTokens = 1 << 24;

void place_token(TokenizerParts& parts, std::string_view token, int64_t id) {
  if (id < 0 || id >= kMostTokens)
    throw Error(fmt::format("tokenizer.json: token '{}' has the id {}; ids are 0 to {}", token, id, kMostTokens - 1));
  if (token.empty()) throw Error(fmt::format("tokenizer.json: the token of id {} is empty", id));
  if (static_cast<size_t>(id) >= parts.tokens.size()) parts.tokens.resize(id + 1);
  std::string& slot = parts.tokens[id];
  if (!slot.empty() && slot != token)
    throw Error(fmt::format("tokenizer.json: id {} belongs to both '{}' and '{}'", id, slot, token));
  slot = token;
}

void read_added_tokens(const JsonComponent& top, TokenizerParts& parts) {
  if (!top.has("added_tokens")) return;
  for (const dom::element entry : top.array("added_tokens")) {
    const JsonComponent token(entry, "added_tokens");
    token.allow({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
    AddedToken added;
    added.content = token.text("content");
    const int64_t id = token.integer("id");
    place_token(parts, added.content, id);
    added.id = static_cast<int32_t>(id);
    added.special = token.flag("special", false);
    added.single_word = token.flag("single_word", false);
    added.lstrip = token.flag("lstrip", false);
    added.rstrip = token.flag("rstrip", false);
    added.normalized = token.flag("normalized", !added.special);
    parts.added.push_back(std::move(added));
  }
}

void read_merges(const JsonComponent& model, Bpe& bpe) {
  size_t index = 0;
  bpe.reserve_merges(model.array("merges").size());
  for (const dom::element entry : model.array("merges")) {
    std::string_view left, right;
    if (entry.is_string()) {  // "Ġ t"
      const std::string_view pair = entry.get_string();
      const size_t space = pair.find(' ');
      if (space == std::string_view::npos || pair.find(' ', space + 1) != std::string_view::npos)
        throw Error(
            fmt::format("tokenizer.json: model: merge {} ('{}') is not two tokens with a space between", index, pair));
      left = pair.substr(0, space);
      right = pair.substr(space + 1);
    } else {  // ["Ġ", "t"]
      dom::array pair;
      if (entry.get(pair) != simdjson::SUCCESS || pair.size() != 2 || pair.at(0).get(left) != simdjson::SUCCESS ||
          pair.at(1).get(right) != simdjson::SUCCESS)
        throw Error(fmt::format("tokenizer.json: model: merge {} is not a pair of tokens", index));
    }
    bpe.add_merge(left, right);
    ++index;
  }
}

void read_model(const JsonComponent& model, TokenizerParts& parts) {
  const std::string type = model.has("type") ? model.text("type") : model.has("merges") ? "BPE" : "";
  if (type != "BPE")
    throw Error(
        fmt::format("tokenizer.json: model type '{}' is not supported; use a model with a BPE tokenizer", type));
  model.allow({"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
               "byte_fallback", "ignore_merges", "vocab", "merges"});
  if (model.has("dropout") && model.number("dropout") != 0)
    throw Error("tokenizer.json: model: dropout makes tokens random and is not supported; set it to null");

  std::vector<int32_t> candidates;
  for (const auto [token, value] : model.object("vocab")) {
    int64_t id = -1;
    if (value.get(id) != simdjson::SUCCESS)
      throw Error(fmt::format("tokenizer.json: model: the id of '{}' is no integer", token));
    place_token(parts, token, id);
    candidates.push_back(static_cast<int32_t>(id));
  }
  std::sort(candidates.begin(), candidates.end());
  Bpe::Options options;
  options.continuing_subword_prefix = model.text_or("continuing_subword_prefix", "");
  options.end_of_word_suffix = model.text_or("end_of_word_suffix", "");
  options.fuse_unk = model.flag("fuse_unk", false);
  options.byte_fallback = model.flag("byte_fallback", false);
  options.ignore_merges = model.flag("ignore_merges", false);
  const std::string unk = model.text_or("unk_token", "");
  if (!unk.empty()) {
    const auto found =
        std::find_if(candidates.begin(), candidates.end(), [&](int32_t id) { return parts.tokens[id] == unk; });
    if (found == candidates.end())
      throw Error(fmt::format("tokenizer.json: model: unk_token '{}' is not in the vocabulary", unk));
    options.unk = *found;
    parts.unk = *found;
  }
  parts.model = std::make_unique<Bpe>(parts.tokens, candidates, options);
  read_merges(model, *parts.model);
  parts.model->finish();
}

std::optional<int32_t> find_token(const TokenizerParts& parts, std::string_view token) {
  const auto found = std::find(parts.tokens.begin(), parts.tokens.end(), token);
  if (token.empty() || found == parts.tokens.end()) return std::nullopt;
  return static_cast<int32_t>(found - parts.tokens.begin());
}

// tokenizer_config.json's "bos_token": "<s>" or {"content": "<s>", ...} or null.
void name_special_tokens(const std::string& config, TokenizerParts& parts) {
  dom::parser parser;
  dom::object object;
  if (parser.parse(config).get(object) != simdjson::SUCCESS)
    throw Error("tokenizer_config.json is not a JSON object; restore it or remove it");
  const auto find = [&](const char* key, std::optional<int32_t>& out) {
    dom::element value;
    std::string_view content;
    if (object[key].get(value) != simdjson::SUCCESS || value.is_null()) return;
    if (value.get(content) != simdjson::SUCCESS && value["content"].get(content) != simdjson::SUCCESS)
      throw Error(fmt::format("tokenizer_config.json: '{}' is neither a token nor null", key));
    if (const auto id = find_token(parts, content)) out = id;
  };
  find("bos_token", parts.bos);
  find("eos_token", parts.eos);
  find("unk_token", parts.unk);
  find("pad_token", parts.pad);
}

}  // namespace

TokenizerParts read_tokenizer_json(const Vocabulary& vocabulary) {
  TokenizerParts parts;
  dom::parser parser;
  dom::element root;
  if (const auto error = parser.parse(vocabulary.tokenizer_json).get(root))
    throw Error(fmt::format("tokenizer.json is not JSON: {}", simdjson::error_message(error)));
  const JsonComponent top(root, "tokenizer.json");
  top.allow({"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
             "decoder", "model"});
  if (!top.has("model")) throw Error("tokenizer.json has no 'model'");
  read_model(top.component("model"), parts);
  read_added_tokens(top, parts);
  if (top.has("normalizer")) add_normalizers(top.component("normalizer"), parts.normalizer);
  if (top.has("pre_tokenizer")) add_pre_tokenizers(top.component("pre_tokenizer"), parts.pre_tokenizer);
  if (top.has("post_processor")) read_post_processor(top.component("post_processor"), parts);
  if (top.has("decoder")) {
    add_decoders(top.component("decoder"), parts.decoder);
  } else {
    parts.decoder.add(TokenDecoder::JoinWithSpaces{});
  }
  if (!vocabulary.tokenizer_config_json.empty()) name_special_tokens(vocabulary.tokenizer_config_json, parts);
  const auto given = [&](const std::optional<int>& id, std::optional<int32_t>& out) {
    if (id) out = *id;
  };
  given(vocabulary.bos, parts.bos);
  given(vocabulary.eos, parts.eos);
  given(vocabulary.unk, parts.unk);
  given(vocabulary.pad, parts.pad);
  return parts;
}

}  // namespace thimble
