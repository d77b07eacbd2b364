#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace thimble {

// Who may use the server, and how much of it. The key itself is kept nowhere: 256 random bits can be neither listed in
// advance nor tried one by one, so their plain SHA-256 says nothing about them; salt and slow hashes are for passwords,
// which people choose, and would cost every request.
struct ApiKey {
  std::string name{};                 // letters, digits, and . _ - behind the first
  std::string sha256{};               // of the key's text: 64 lower-case hexadecimal digits
  std::string created{};              // 2026-01-31
  std::vector<std::string> models{};  // empty: all
  int requests_per_minute = 0;      // 0: as many as come
  int tokens_per_minute = 0;        // prompt and answer together; 0: as many as come

  bool may_use(std::string_view model) const;
};

using ApiKeys = std::vector<std::shared_ptr<const ApiKey>>;

// $XDG_CONFIG_HOME/thimble/keys.jsonl, or ~/.config/thimble/keys.jsonl; empty where neither is known.
std::filesystem::path default_keys_file();

// Reads a file of keys: JSON lines with the fields above; models and limits may be missing. Throws Error with the line
// where a field is unknown or wrong or a name comes twice, and where others than its owner may write the file.
ApiKeys read_keys(const std::filesystem::path& file);

struct NewKey {
  std::string text;  // "thk-" and 43 characters; shown once
  ApiKey key;
};

// Makes a key and adds it to the file, which is made where there is none, for its owner alone. Throws Error where the
// name is taken or no name, or a limit is negative.
NewKey add_key(const std::filesystem::path& file, ApiKey key);

void remove_key(const std::filesystem::path& file, std::string_view name);  // throws Error where there is none

// The key of this text, or nullptr; takes as long for a wrong one as for a right one.
std::shared_ptr<const ApiKey> find_key(const ApiKeys& keys, std::string_view text);

}  // namespace thimble
