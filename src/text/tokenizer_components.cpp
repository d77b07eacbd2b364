#include "text/tokenizer_components.h"

#include <fmt/core.h>

#include <algorithm>

#include "text/tokenizer_parts.h"

namespace thimble {
namespace {

namespace dom = simdjson::dom;

// What Hugging Face counts as punctuation: ASCII's, and the P categories of an old Unicode (unicode_categories).
constexpr std::string_view kPunctuation =
    R"((?![\x{61d}\x{9fd}\x{a76}\x{c77}\x{c84}\x{1b7d}-\x{1b7e}\x{2e43}-\x{2e4f}\x{2e52}-\x{2e5d}\x{10ead})"
    R"(\x{10f55}-\x{10f59}\x{10f86}-\x{10f89}\x{1144b}-\x{1144f}\x{1145a}-\x{1145b}\x{1145d}\x{11660}-\x{1166c})"
    R"(\x{116b9}\x{1183b}\x{11944}-\x{11946}\x{119e2}\x{11a3f}-\x{11a46}\x{11a9a}-\x{11a9c}\x{11a9e}-\x{11aa2})"
    R"(\x{11c41}-\x{11c45}\x{11c70}-\x{11c71}\x{11ef7}-\x{11ef8}\x{11fff}\x{12ff1}-\x{12ff2}\x{16e97}-\x{16e9a})"
    R"(\x{16fe2}\x{1e95e}-\x{1e95f}\x{1b4e}-\x{1b4f}\x{1b7f}\x{10d6e}\x{113d4}-\x{113d8}\x{11b00}-\x{11b09}\x{11be1})"
    R"(\x{11f43}-\x{11f4f}\x{16d6d}-\x{16d6f}\x{1e5ff}])[!-\/:-@\[-`{-~\p{P}\x{166d}\x{111c9}])";

template <class Add>
void for_each_member(const JsonComponent& component, std::string_view key, Add&& add) {
  component.allow({"type", key});
  for (const dom::element member : component.array(key)) add(JsonComponent(member, component.place()));
}

[[noreturn]] void refuse_type(const JsonComponent& component, const std::string& type) {
  component.refuse(fmt::format("the type '{}' is not supported", type));
}

PreTokenizer::Behavior behavior_of(const JsonComponent& component) {
  using Behavior = PreTokenizer::Behavior;
  const std::string name = component.text_or("behavior", "Isolated");
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "Contiguous") return Behavior::kContiguous;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  component.refuse(fmt::format("the behavior '{}' is unknown", name));
}

// Older files say add_prefix_space in place of prepend_scheme.
PreTokenizer::Metaspace::Prepend prepend_of(const JsonComponent& component) {
  using Prepend = PreTokenizer::Metaspace::Prepend;
  const std::string scheme =
      component.text_or("prepend_scheme", component.flag("add_prefix_space", true) ? "always" : "never");
  if (scheme == "always") return Prepend::kAlways;
  if (scheme == "first") return Prepend::kFirst;
  if (scheme == "never") return Prepend::kNever;
  component.refuse(fmt::format("the prepend_scheme '{}' is unknown", scheme));
}

void allow_metaspace(const JsonComponent& component) {
  component.allow({"type", "replacement", "str_rep", "add_prefix_space", "prepend_scheme", "split"});
}

}  // namespace

void add_normalizers(const JsonComponent& component, Normalizer& out) {
  using Form = Normalizer::Form;
  const std::string type = component.text("type");
  if (type == "Sequence") {
    for_each_member(component, "normalizers", [&](const JsonComponent& member) { add_normalizers(member, out); });
  } else if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    component.allow({"type"});
    const bool composed = type.back() == 'C', compatible = type[2] == 'K';
    out.add(Normalizer::Unicode{composed ? (compatible ? Form::kNfkc : Form::kNfc)
                                         : (compatible ? Form::kNfkd : Form::kNfd)});
  } else if (type == "Lowercase") {
    component.allow({"type"});
    out.add(Normalizer::Lowercase{});
  } else if (type == "StripAccents") {
    component.allow({"type"});
    out.add(Normalizer::StripAccents{});
  } else if (type == "Strip") {
    component.allow({"type", "strip_left", "strip_right"});
    out.add(Normalizer::Strip{component.flag("strip_left"), component.flag("strip_right")});
  } else if (type == "Replace") {
    component.allow({"type", "pattern", "content"});
    out.add(Normalizer::Replace{component.pattern("pattern"), component.text("content")});
  } else if (type == "Prepend") {
    component.allow({"type", "prepend"});
    out.add(Normalizer::Prepend{component.text("prepend")});
  } else if (type == "ByteLevel") {
    component.allow({"type"});
    out.add(Normalizer::ByteLevel{});
  } else {
    refuse_type(component, type);
  }
}

void add_pre_tokenizers(const JsonComponent& component, PreTokenizer& out) {
  using Behavior = PreTokenizer::Behavior;
  const std::string type = component.text("type");
  if (type == "Sequence") {
    for_each_member(component, "pretokenizers", [&](const JsonComponent& member) { add_pre_tokenizers(member, out); });
  } else if (type == "Split") {
    component.allow({"type", "pattern", "behavior", "invert"});
    out.add(PreTokenizer::Split{component.pattern("pattern"), behavior_of(component), component.flag("invert", false)});
  } else if (type == "Digits") {
    component.allow({"type", "individual_digits"});
    const bool individual = component.flag("individual_digits", false);
    out.add(
        PreTokenizer::Split{Pattern::regex(kDigitPattern), individual ? Behavior::kIsolated : Behavior::kContiguous});
  } else if (type == "ByteLevel") {
    component.allow({"type", "add_prefix_space", "trim_offsets", "use_regex"});
    out.add(PreTokenizer::ByteLevel{component.flag("add_prefix_space"), component.flag("use_regex", true)});
  } else if (type == "Metaspace") {
    allow_metaspace(component);
    out.add(PreTokenizer::Metaspace{component.character("replacement"), prepend_of(component),
                                    component.flag("split", true)});
  } else if (type == "Punctuation") {
    component.allow({"type", "behavior"});
    out.add(PreTokenizer::Split{Pattern::regex(kPunctuation), behavior_of(component)});
  } else if (type == "Whitespace") {
    component.allow({"type"});
    // Of Rust's regex, whose \w also holds the joiners but not Latin-1's superscripts.
    constexpr std::string_view kWords =
        R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200c}\x{200d}]+|[^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200c}\x{200d}\s]+)";
    out.add(PreTokenizer::Split{Pattern::regex(kWords), Behavior::kRemoved, true});
  } else if (type == "WhitespaceSplit") {
    component.allow({"type"});
    out.add(PreTokenizer::Split{Pattern::regex(R"(\s)"), Behavior::kRemoved});
  } else if (type == "CharDelimiterSplit") {
    component.allow({"type", "delimiter"});
    out.add(PreTokenizer::Split{Pattern::literal(component.character("delimiter")), Behavior::kRemoved});
  } else if (type == "BertPreTokenizer") {
    component.allow({"type"});
    out.add(PreTokenizer::Split{Pattern::regex(R"(\s)"), Behavior::kRemoved});
    out.add(PreTokenizer::Split{Pattern::regex(kPunctuation), Behavior::kIsolated});
  } else {
    refuse_type(component, type);
  }
}

void add_decoders(const JsonComponent& component, TokenDecoder& out) {
  const std::string type = component.text("type");
  if (type == "Sequence") {
    for_each_member(component, "decoders", [&](const JsonComponent& member) { add_decoders(member, out); });
  } else if (type == "ByteLevel") {
    component.allow({"type", "add_prefix_space", "trim_offsets", "use_regex"});
    out.add(TokenDecoder::ByteLevel{});
  } else if (type == "ByteFallback") {
    component.allow({"type"});
    out.add(TokenDecoder::ByteFallback{});
  } else if (type == "Fuse") {
    component.allow({"type"});
    out.add(TokenDecoder::Fuse{});
  } else if (type == "Replace") {
    component.allow({"type", "pattern", "content"});
    out.add(TokenDecoder::Replace{component.pattern("pattern"), component.text("content")});
  } else if (type == "Strip") {
    component.allow({"type", "content", "start", "stop"});
    const int64_t start = component.integer("start"), stop = component.integer("stop");
    if (start < 0 || stop < 0) component.refuse("start and stop must not be negative");
    out.add(TokenDecoder::Strip{component.character("content"), static_cast<size_t>(start), static_cast<size_t>(stop)});
  } else if (type == "Metaspace") {
    allow_metaspace(component);
    const bool drop = prepend_of(component) != PreTokenizer::Metaspace::Prepend::kNever;
    out.add(TokenDecoder::Metaspace{component.character("replacement"), drop});
  } else if (type == "BPEDecoder") {
    component.allow({"type", "suffix"});
    out.add(TokenDecoder::WordEnd{component.text("suffix")});
  } else {
    refuse_type(component, type);
  }
}

}  // namespace thimble
