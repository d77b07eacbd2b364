#include <fmt/core.h>
#include <fmt/format.h>

#include "calls/json.h"
#include "cli/commands.h"
#include "cli/terminal.h"
#include "core/error.h"
#include "core/paths.h"
#include "serve/api_keys.h"

namespace thimble {
namespace {

std::filesystem::path file_of(const KeysOptions& options) {
  const auto file = options.file.empty() ? default_keys_file() : options.file;
  if (file.empty()) throw Error("neither XDG_CONFIG_HOME nor HOME is set: say where keys are kept with --file");
  return file;
}

std::string limit_text(int limit) { return limit > 0 ? fmt::format("{}", limit) : "any"; }

}  // namespace

int keys_add_command(const KeysOptions& options) {
  const auto file = file_of(options);
  ApiKey key;
  key.name = options.name;
  key.models = options.models;
  key.requests_per_minute = options.requests_per_minute;
  key.tokens_per_minute = options.tokens_per_minute;
  const NewKey made = add_key(file, key);
  fmt::print("{}\n", made.text);
  fmt::print(stderr, "This is {}'s key. It is not kept and can't be shown again; {} has its digest.\n", options.name,
             file.string());
  return kOk;
}

int keys_list_command(const KeysOptions& options) {
  const auto file = file_of(options);
  const ApiKeys keys = path_exists(file) ? read_keys(file) : ApiKeys();
  if (keys.empty() && !options.json)
    fmt::print(stderr, "{} has no keys; `thimble keys add NAME` makes one\n", file.string());
  for (const auto& key : keys) {
    if (options.json) {
      fmt::print("{}\n", Json{{"name", key->name},
                              {"created", key->created},
                              {"models", key->models},
                              {"requests_per_minute", key->requests_per_minute},
                              {"tokens_per_minute", key->tokens_per_minute}}
                             .dump());
      continue;
    }
    fmt::print("{}  made {}, models: {}, requests a minute: {}, tokens a minute: {}\n",
               styled(stdout, Style::kBold, fmt::format("{:<16}", key->name)), key->created,
               key->models.empty() ? "all" : fmt::format("{}", fmt::join(key->models, ", ")),
               limit_text(key->requests_per_minute), limit_text(key->tokens_per_minute));
  }
  return kOk;
}

int keys_remove_command(const KeysOptions& options) {
  const auto file = file_of(options);
  remove_key(file, options.name);
  fmt::print(stderr, "{}'s key is removed; a running server lets it in no more after a second\n", options.name);
  return kOk;
}

}  // namespace thimble
