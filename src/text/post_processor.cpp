#include <fmt/core.h>

#include "text/tokenizer_components.h"
#include "text/tokenizer_parts.h"

namespace thimble {
namespace {

namespace dom = simdjson::dom;

int32_t checked_id(const JsonComponent& component, int64_t id, const TokenizerParts& parts) {
  if (id < 0 || static_cast<size_t>(id) >= parts.tokens.size() || parts.tokens[id].empty())
    component.refuse(fmt::format("the id {} is not in the vocabulary", id));
  return static_cast<int32_t>(id);
}

// {"single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], ...}
void read_template(const JsonComponent& component, TokenizerParts& parts) {
  component.allow({"type", "single", "pair", "special_tokens"});
  const JsonComponent specials = component.component("special_tokens");
  std::vector<int32_t> before, after;
  bool behind = false;
  for (const dom::element entry : component.array("single")) {
    const JsonComponent part(entry, component.place() + ": single");
    part.allow({"Sequence", "SpecialToken"});
    if (part.has("Sequence")) {
      if (part.component("Sequence").text("id") != "A" || behind)
        component.refuse("'single' must hold the sequence A once");
      behind = true;
      continue;
    }
    const JsonComponent special = specials.component(part.component("SpecialToken").text("id"));
    for (const dom::element id : special.array("ids")) {
      int64_t value = -1;
      if (id.get(value) != simdjson::SUCCESS) special.refuse("'ids' must hold integers");
      (behind ? after : before).push_back(checked_id(special, value, parts));
    }
  }
  if (!behind) component.refuse("'single' must hold the sequence A once");
  parts.prefix.insert(parts.prefix.begin(), before.begin(), before.end());
  parts.suffix.insert(parts.suffix.end(), after.begin(), after.end());
}

// ["[SEP]", 102]
int32_t named_id(const JsonComponent& component, std::string_view key, const TokenizerParts& parts) {
  const dom::array pair = component.array(key);
  int64_t id = -1;
  if (pair.size() != 2 || pair.at(1).get(id) != simdjson::SUCCESS)
    component.refuse(fmt::format("'{}' must be a token and its id", key));
  return checked_id(component, id, parts);
}

}  // namespace

void read_post_processor(const JsonComponent& component, TokenizerParts& parts) {
  const std::string type = component.text("type");
  if (type == "Sequence") {
    component.allow({"type", "processors"});
    for (const dom::element member : component.array("processors"))
      read_post_processor(JsonComponent(member, component.place()), parts);
  } else if (type == "ByteLevel") {
    component.allow({"type", "add_prefix_space", "trim_offsets", "use_regex"});  // concerns offsets only
  } else if (type == "TemplateProcessing") {
    read_template(component, parts);
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    component.allow({"type", "sep", "cls", "trim_offsets", "add_prefix_space"});
    parts.prefix.insert(parts.prefix.begin(), named_id(component, "cls", parts));
    parts.suffix.push_back(named_id(component, "sep", parts));
  } else {
    component.refuse(fmt::format("the type '{}' is not supported", type));
  }
}

}  // namespace thimble
