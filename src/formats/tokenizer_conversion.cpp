#include "formats/tokenizer_conversion.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <tuple>
#include <unordered_map>

#include "core/error.h"
#include "formats/json_text.h"
#include "formats/splitting_rules.h"

namespace thimble {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

enum TokenType : int32_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

constexpr std::string_view kMark = "\xe2\x96\x81";  // what SentencePiece writes for a space

bool is_byte_token(std::string_view token) {
  return token.size() == 6 && token.starts_with("<0x") && token.ends_with('>');
}

bool mentions(const json& value, std::string_view type) {  // a step of this type anywhere inside
  if (value.is_object() && value.value("type", "") == type) return true;
  if (!value.is_structured()) return false;
  return std::any_of(value.begin(), value.end(), [&](const json& inner) { return mentions(inner, type); });
}

const json& field(const json& object, const char* key) {
  static const json none;
  const auto found = object.find(key);
  return found == object.end() ? none : *found;
}

// "<s>" or {"content": "<s>", ...}
std::string token_text(const json& config, const char* key) {
  const json& value = field(config, key);
  if (value.is_string()) return value.get<std::string>();
  return value.is_object() ? value.value("content", "") : "";
}

// Whether the post-processor puts `token` before (or behind) every text; nullopt where it has no template.
std::optional<bool> template_adds(const json& processor, const std::string& token, bool before) {
  if (!processor.is_object()) return std::nullopt;
  if (processor.value("type", "") == "Sequence") {
    for (const json& inner : field(processor, "processors"))
      if (const auto found = template_adds(inner, token, before)) return found;
    return std::nullopt;
  }
  const json& single = field(processor, "single");
  if (processor.value("type", "") != "TemplateProcessing" || !single.is_array() || single.empty()) return std::nullopt;
  const json& end = before ? single.front() : single.back();
  return end.is_object() && field(field(end, "SpecialToken"), "id") == token;
}

[[noreturn]] void fail(const std::string& what) {
  throw Error(fmt::format("tokenizer.json: {}; merge to a safetensors folder instead", what));
}

struct Tokens {
  std::vector<std::string> texts;
  std::vector<int32_t> types;

  void place(int64_t id, const std::string& text, int32_t type) {
    if (id < 0 || id >= static_cast<int64_t>(texts.size()))
      fail(fmt::format("token '{}' has id {}, beyond the model's {} rows", text, id, texts.size()));
    texts[static_cast<size_t>(id)] = text;
    types[static_cast<size_t>(id)] = type;
  }
};

Tokens read_tokens(const json& tokenizer, const json& model, bool byte_fallback, int rows) {
  Tokens tokens;
  for (int id = 0; id < rows; ++id) tokens.texts.push_back(fmt::format("[PAD{}]", id));
  tokens.types.assign(static_cast<size_t>(rows), kUnused);
  for (const auto& [text, id] : field(model, "vocab").items()) {
    if (!id.is_number_integer()) fail("a token's id is not a number");
    tokens.place(id.get<int64_t>(), text, byte_fallback && is_byte_token(text) ? kByte : kNormal);
  }
  const std::string unk = token_text(model, "unk_token");
  for (const json& added : field(tokenizer, "added_tokens")) {
    if (!added.is_object() || !field(added, "id").is_number_integer() || !field(added, "content").is_string())
      fail("an added token has no id or content");
    const std::string text = added["content"].get<std::string>();
    const bool special = added.value("special", false);
    tokens.place(added["id"].get<int64_t>(), text,
                 !special                       ? kUserDefined
                 : byte_fallback && text == unk ? kUnknown
                                                : kControl);
  }
  return tokens;
}

struct Merge {
  std::string left, right;
};
std::vector<Merge> read_merges(const json& model) {
  std::vector<Merge> merges;
  for (const json& item : field(model, "merges")) {  // "left right", or ["left", "right"]
    if (item.is_string()) {
      const std::string& text = item.get_ref<const std::string&>();
      const size_t space = text.find(' ', 1);
      if (space == std::string::npos) fail(fmt::format("merge '{}' is not two tokens", text));
      merges.push_back({text.substr(0, space), text.substr(space + 1)});
    } else if (item.is_array() && item.size() == 2 && item[0].is_string() && item[1].is_string()) {
      merges.push_back({item[0].get<std::string>(), item[1].get<std::string>()});
    } else {
      fail("a merge is not two tokens");
    }
  }
  return merges;
}

// SentencePiece merges the pair whose result scores highest: a token's score is the rank of the merge that makes it.
std::vector<float> scores_from_merges(const Tokens& tokens, const std::vector<Merge>& merges) {
  std::unordered_map<std::string, float> rank;
  for (size_t i = 0; i < merges.size(); ++i) rank.emplace(merges[i].left + merges[i].right, -static_cast<float>(i + 1));
  std::vector<float> scores;
  for (size_t id = 0; id < tokens.texts.size(); ++id) {
    const auto found = rank.find(tokens.texts[id]);
    const bool merged = tokens.types[id] == kNormal && found != rank.end();
    scores.push_back(merged ? found->second : tokens.types[id] == kNormal ? -1e6f : 0.0f);
  }
  return scores;
}

void add_special_ids(const Vocabulary& vocabulary, const json& tokenizer, const json& config, const Tokens& tokens,
                     std::vector<GgufEntry>& out) {
  const auto id_of = [&](const std::string& text) -> std::optional<uint32_t> {
    const auto found = std::find(tokens.texts.begin(), tokens.texts.end(), text);
    if (text.empty() || found == tokens.texts.end()) return std::nullopt;
    return static_cast<uint32_t>(found - tokens.texts.begin());
  };
  const auto bos = id_of(token_text(config, "bos_token"));
  auto eos = id_of(token_text(config, "eos_token"));
  if (!eos && !vocabulary.end_ids.empty()) eos = static_cast<uint32_t>(vocabulary.end_ids.front());
  const auto add = [&](const char* key, const std::optional<uint32_t>& id) {
    if (id) out.push_back({key, *id});
  };
  add("tokenizer.ggml.bos_token_id", bos);
  add("tokenizer.ggml.eos_token_id", eos);
  add("tokenizer.ggml.unknown_token_id", id_of(token_text(config, "unk_token")));
  add("tokenizer.ggml.padding_token_id", id_of(token_text(config, "pad_token")));
  for (const int id : vocabulary.end_ids)
    if (!eos || static_cast<uint32_t>(id) != *eos) {
      add("tokenizer.ggml.eot_token_id", static_cast<uint32_t>(id));
      break;
    }
  const auto adds = [&](const char* token, const char* option, bool before) {
    const std::string text = token_text(config, token);
    if (text.empty()) return false;
    if (const auto by_template = template_adds(field(tokenizer, "post_processor"), text, before)) return *by_template;
    const json& flag = field(config, option);
    return flag.is_boolean() && flag.get<bool>();
  };
  out.push_back({"tokenizer.ggml.add_bos_token", adds("bos_token", "add_bos_token", true)});
  out.push_back({"tokenizer.ggml.add_eos_token", adds("eos_token", "add_eos_token", false)});
}

void add_templates(const Vocabulary& vocabulary, std::vector<GgufEntry>& out) {
  if (!vocabulary.chat_template.empty()) out.push_back({"tokenizer.chat_template", vocabulary.chat_template});
  std::vector<std::string> names;
  for (const auto& [name, text] : vocabulary.named_templates) {
    names.push_back(name);
    out.push_back({"tokenizer.chat_template." + name, text});
  }
  if (!names.empty()) out.push_back({"tokenizer.chat_templates", GgufArray{names}});
}

ordered_json added_token(int id, const std::string& text, bool special) {
  return {{"id", id},        {"content", text},     {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

ordered_json template_of(const Vocabulary& v, bool bos, bool eos) {
  ordered_json single = ordered_json::array(), pair = ordered_json::array(), tokens = ordered_json::object();
  const auto special = [&](int id, int type) {
    const std::string& text = v.tokens[static_cast<size_t>(id)];
    tokens[text] = {{"id", text}, {"ids", {id}}, {"tokens", {text}}};
    return ordered_json{{"SpecialToken", {{"id", text}, {"type_id", type}}}};
  };
  const auto text = [](const char* name, int type) {
    return ordered_json{{"Sequence", {{"id", name}, {"type_id", type}}}};
  };
  for (int type = 0; type < 2; ++type) {
    ordered_json part = ordered_json::array();
    if (bos) part.push_back(special(*v.bos, type));
    part.push_back(text(type == 0 ? "A" : "B", type));
    if (eos) part.push_back(special(*v.eos, type));
    if (type == 0) single = part;
    for (auto& step : part) pair.push_back(step);
  }
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", tokens}};
}

ordered_json merges_from_scores(const Vocabulary& v) {
  std::unordered_map<std::string_view, int> ids;
  for (size_t id = 0; id < v.tokens.size(); ++id) ids.emplace(v.tokens[id], static_cast<int>(id));
  struct Candidate {
    float score;
    int result, left, right;
  };
  std::vector<Candidate> all;
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    if (!v.types.empty() && v.types[id] != kNormal && v.types[id] != kUserDefined) continue;
    const std::string_view text = v.tokens[id];
    for (size_t cut = 1; cut < text.size(); ++cut) {
      const auto left = ids.find(text.substr(0, cut)), right = ids.find(text.substr(cut));
      if (left != ids.end() && right != ids.end())
        all.push_back({v.scores[id], static_cast<int>(id), left->second, right->second});
    }
  }
  std::sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) {  // as transformers' converter does
    return std::tuple(-a.score, a.result, a.left, a.right) < std::tuple(-b.score, b.result, b.left, b.right);
  });
  ordered_json out = ordered_json::array();
  for (const Candidate& c : all)
    out.push_back({v.tokens[static_cast<size_t>(c.left)], v.tokens[static_cast<size_t>(c.right)]});
  return out;
}

std::string dumped(const ordered_json& value) {
  try {
    return value.dump(1) + "\n";
  } catch (const json::exception&) {
    throw Error("a token of the vocabulary is not valid UTF-8, which JSON can't hold; merge to GGUF instead");
  }
}

}  // namespace

std::vector<GgufEntry> gguf_tokenizer(const Vocabulary& vocabulary, int rows) {
  const json tokenizer = parse_json_object(vocabulary.tokenizer_json, "tokenizer.json");
  const json config = vocabulary.tokenizer_config_json.empty()
                          ? json::object()
                          : parse_json_object(vocabulary.tokenizer_config_json, "tokenizer_config.json");
  const json& model = field(tokenizer, "model");
  if (!model.is_object() || model.value("type", "BPE") != "BPE" || !field(model, "vocab").is_object())
    fail("its model is not BPE, which GGUF could not hold in the same way");
  const json& byte_fallback_field = field(model, "byte_fallback");
  const bool byte_fallback = byte_fallback_field.is_boolean() && byte_fallback_field.get<bool>();
  const json &splitting = field(tokenizer, "pre_tokenizer"), &normalizer = field(tokenizer, "normalizer");
  const Tokens tokens = read_tokens(tokenizer, model, byte_fallback, rows);
  const std::vector<Merge> merges = read_merges(model);

  std::vector<GgufEntry> out;
  out.push_back({"tokenizer.ggml.tokens", GgufArray{tokens.texts}});
  out.push_back({"tokenizer.ggml.token_type", GgufArray{tokens.types}});
  if (byte_fallback) {
    out.push_back({"tokenizer.ggml.model", std::string("llama")});
    out.push_back({"tokenizer.ggml.pre", std::string("default")});
    out.push_back({"tokenizer.ggml.scores", GgufArray{scores_from_merges(tokens, merges)}});
    const bool prefix = mentions(normalizer, "Prepend") ||
                        (mentions(splitting, "Metaspace") && splitting.value("prepend_scheme", "always") != "never");
    out.push_back({"tokenizer.ggml.add_space_prefix", prefix});
  } else {
    const auto rule = splitting_rule_name(splitting);
    if (!rule) fail("GGUF has no name that is known here for the way it splits text");
    if (!normalizer.is_null() && normalizer.value("type", "") != "NFC") fail("GGUF can't hold its normalizer");
    std::vector<std::string> pairs;
    for (const Merge& merge : merges) pairs.push_back(merge.left + " " + merge.right);
    out.push_back({"tokenizer.ggml.model", std::string("gpt2")});
    out.push_back({"tokenizer.ggml.pre", *rule});
    out.push_back({"tokenizer.ggml.merges", GgufArray{std::move(pairs)}});
  }
  add_special_ids(vocabulary, tokenizer, config, tokens, out);
  add_templates(vocabulary, out);
  return out;
}

std::string tokenizer_json(const Vocabulary& v) {
  const bool byte_level = v.model == "gpt2";
  if (!byte_level && v.model != "llama")
    throw Error(fmt::format("a tokenizer.json can't be made of GGUF's tokenizer '{}'; merge to GGUF instead", v.model));
  const auto splitting = byte_level ? splitting_rule_json(v.pre) : std::optional<json>(json(nullptr));
  if (!splitting)
    throw Error(
        fmt::format("a tokenizer.json can't be made for GGUF's splitting rule '{}'; merge to GGUF instead", v.pre));
  ordered_json added = ordered_json::array(), vocab = ordered_json::object();
  json ids = json::object();
  std::set<std::string_view> seen;
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    const int32_t type = v.types.empty() ? kNormal : v.types[id];
    if (type == kUnused || !seen.insert(v.tokens[id]).second) continue;
    ids[v.tokens[id]] = id;
    if (type == kControl || type == kUnknown || type == kUserDefined)
      added.push_back(added_token(static_cast<int>(id), v.tokens[id], type != kUserDefined));
  }
  ordered_json merges = ordered_json::array();
  if (byte_level) {
    for (const std::string& merge : v.merges) {
      const size_t space = merge.find(' ', 1);
      if (space == std::string::npos) throw Error(fmt::format("merge '{}' of the GGUF file is not two tokens", merge));
      merges.push_back({merge.substr(0, space), merge.substr(space + 1)});
    }
  } else {
    if (v.scores.empty()) throw Error("the GGUF file's tokenizer has no scores; it is incomplete");
    merges = merges_from_scores(v);
  }
  const bool llama3 = v.pre == "llama-bpe" || v.pre == "llama3" || v.pre == "llama-v3";
  const bool bos = v.add_bos.value_or(!byte_level || llama3) && v.bos, eos = v.add_eos.value_or(false) && v.eos;
  const bool prefix = v.add_space_prefix.value_or(true);
  ordered_json out = {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}, {"added_tokens", added}};
  ordered_json spaces = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kMark}};
  ordered_json marks = {{"type", "Replace"}, {"pattern", {{"String", kMark}}}, {"content", " "}};
  if (byte_level) {
    out["normalizer"] =
        v.pre == "qwen2" || v.pre == "deepseek-r1-qwen" ? ordered_json{{"type", "NFC"}} : ordered_json();
    out["decoder"] = ordered_json(splitting_rule_json("gpt-2").value());
  } else {
    ordered_json steps = ordered_json::array(), decoders = ordered_json::array();
    if (prefix) steps.push_back({{"type", "Prepend"}, {"prepend", kMark}});
    steps.push_back(spaces);
    out["normalizer"] = {{"type", "Sequence"}, {"normalizers", steps}};
    decoders = {marks, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}};
    if (prefix) decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
    out["decoder"] = {{"type", "Sequence"}, {"decoders", decoders}};
  }
  out["pre_tokenizer"] = ordered_json(*splitting);
  out["post_processor"] = bos || eos ? template_of(v, bos, eos) : ordered_json();
  const bool has_unk = !byte_level && v.unk.has_value();
  out["model"] = {{"type", "BPE"},
                  {"dropout", nullptr},
                  {"unk_token", has_unk ? ordered_json(v.tokens[static_cast<size_t>(*v.unk)]) : ordered_json()},
                  {"continuing_subword_prefix", nullptr},
                  {"end_of_word_suffix", nullptr},
                  {"fuse_unk", !byte_level},
                  {"byte_fallback", !byte_level},
                  {"ignore_merges", llama3}};
  out["model"]["vocab"] = ordered_json(ids);
  out["model"]["merges"] = std::move(merges);
  return dumped(out);
}

std::string tokenizer_config_json(const Vocabulary& v, int context) {
  ordered_json out = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                      {"model_max_length", context},
                      {"clean_up_tokenization_spaces", false}};
  const auto add = [&](const char* key, const std::optional<int>& id) {
    if (id) out[key] = v.tokens[static_cast<size_t>(*id)];
  };
  add("bos_token", v.bos);
  add("eos_token", v.eos);
  add("unk_token", v.unk);
  add("pad_token", v.pad);
  if (!v.chat_template.empty()) {
    if (v.named_templates.empty()) {
      out["chat_template"] = v.chat_template;
    } else {
      out["chat_template"] = {{{"name", "default"}, {"template", v.chat_template}}};
      for (const auto& [name, text] : v.named_templates)
        out["chat_template"].push_back({{"name", name}, {"template", text}});
    }
  }
  return dumped(out);
}

}  // namespace thimble
