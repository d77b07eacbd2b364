#include "formats/folder_model.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/paths.h"
#include "formats/json_text.h"

namespace thimble {
namespace {

using nlohmann::json;

void read_templates(const json& config, const std::string& place, Vocabulary& out) {
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return;
  if (found->is_string()) {
    out.chat_template = found->get<std::string>();
    return;
  }
  if (!found->is_array()) throw Error(fmt::format("{}: chat_template must be a string or a list", place));
  for (const json& item : *found) {  // [{"name": "default", "template": "..."}, {"name": "tool_use", ...}]
    if (!item.is_object() || !item.contains("name") || !item["name"].is_string() || !item.contains("template") ||
        !item["template"].is_string())
      throw Error(fmt::format("{}: each chat_template of the list must have a name and a template", place));
    if (item["name"] == "default") {
      out.chat_template = item["template"].get<std::string>();
    } else {
      out.named_templates[item["name"].get<std::string>()] = item["template"].get<std::string>();
    }
  }
}

// eos_token_id may be a number or a list of them.
std::vector<int> read_end_ids(const std::filesystem::path& path) {
  if (!path_exists(path)) return {};
  const json config = parse_json_object(read_file(path), path.string());
  const auto found = config.find("eos_token_id");
  if (found == config.end() || found->is_null()) return {};
  std::vector<int> ids;
  for (const json& id : found->is_array() ? *found : json::array({*found})) {
    if (!id.is_number_integer() || id < 0 || id > (1 << 24))
      throw Error(fmt::format("{}: eos_token_id must be a token's id or a list of ids", path.string()));
    ids.push_back(id.get<int>());
  }
  return ids;
}

}  // namespace

Vocabulary folder_vocabulary(const std::filesystem::path& folder) {
  Vocabulary out;
  if (const auto path = folder / "tokenizer.json"; path_exists(path)) out.tokenizer_json = read_file(path);
  if (const auto path = folder / "tokenizer_config.json"; path_exists(path)) {
    out.tokenizer_config_json = read_file(path);
    read_templates(parse_json_object(out.tokenizer_config_json, path.string()), path.string(), out);
  }
  if (const auto path = folder / "chat_template.jinja"; path_exists(path))
    out.chat_template = read_file(path);
  out.end_ids = read_end_ids(folder / "generation_config.json");
  if (out.end_ids.empty()) out.end_ids = read_end_ids(folder / "config.json");
  return out;
}

}  // namespace thimble
