#include "serve/api_keys.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <nlohmann/json.hpp>
#include <set>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/paths.h"
#include "core/sha256.h"
#include "formats/json_text.h"

namespace thimble {
namespace {

namespace fs = std::filesystem;

constexpr size_t kLongestName = 64;
constexpr int kMostPerMinute = 1'000'000'000;

bool is_name(std::string_view text) {
  const auto alphanumeric = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  return !text.empty() && text.size() <= kLongestName && alphanumeric(text.front()) &&
         std::all_of(text.begin(), text.end(),
                     [&](char c) { return alphanumeric(c) || c == '.' || c == '_' || c == '-'; });
}

bool is_digest(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == text.npos;
}

ApiKey read_key(std::string_view line, const std::string& place) {
  const nlohmann::json row = parse_json_object(line, place);
  ApiKey key;
  for (const auto& [field, value] : row.items()) {
    const auto refuse = [&, &name = field](const char* what) {
      throw Error(fmt::format("{}: field \"{}\" must be {}", place, name, what));
    };
    const auto text = [&](std::string& to) {
      if (!value.is_string()) refuse("a text");
      to = value.get<std::string>();
    };
    const auto limit = [&](int& to) {
      if (!value.is_number_integer() || value < 0 || value > kMostPerMinute) refuse("an integer from 0 to 1e9");
      to = value.get<int>();
    };
    if (field == "name") {
      text(key.name);
    } else if (field == "sha256") {
      text(key.sha256);
    } else if (field == "created") {
      text(key.created);
    } else if (field == "models") {
      if (!value.is_array()) refuse("a list of models' names");
      for (const auto& model : value) {
        if (!model.is_string()) refuse("a list of models' names");
        key.models.push_back(model.get<std::string>());
      }
      if (key.models.empty()) refuse("missing (all models) or name one at least");
    } else if (field == "requests_per_minute") {
      limit(key.requests_per_minute);
    } else if (field == "tokens_per_minute") {
      limit(key.tokens_per_minute);
    } else {
      throw Error(fmt::format("{}: field \"{}\" is unknown", place, field));
    }
  }
  if (!is_name(key.name)) throw Error(fmt::format("{}: field \"name\" is missing or no name", place));
  if (!is_digest(key.sha256)) {
    throw Error(
        fmt::format("{}: field \"sha256\" is missing or not 64 lower-case hexadecimal digits; make the key anew "
                    "with `thimble keys add`",
                    place));
  }
  return key;
}

std::string written(const ApiKey& key) {
  nlohmann::ordered_json row = {{"name", key.name}, {"sha256", key.sha256}, {"created", key.created}};
  if (!key.models.empty()) row["models"] = key.models;
  if (key.requests_per_minute > 0) row["requests_per_minute"] = key.requests_per_minute;
  if (key.tokens_per_minute > 0) row["tokens_per_minute"] = key.tokens_per_minute;
  return row.dump() + "\n";
}

void write_keys(const fs::path& file, const ApiKeys& keys) {
  std::string text;
  for (const auto& key : keys) text += written(*key);
  write_file(file, text);
  std::error_code failed;
  fs::permissions(file, fs::perms::owner_read | fs::perms::owner_write, failed);
}

// Two commands at once must not lose one another's key. The folder is what stays when the file is replaced.
class Turn {
 public:
  explicit Turn(const fs::path& file) {
    const fs::path folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
    std::error_code failed;
    fs::create_directories(folder, failed);
    folder_ = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder_ < 0) throw Error(fmt::format("{}: can't be opened: {}", folder.string(), std::strerror(errno)));
    flock(folder_, LOCK_EX);
  }
  ~Turn() { close(folder_); }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  int folder_;
};

// 256 random bits in base64url, behind a beginning by which scanners of leaked secrets know them.
std::string new_key_text() {
  static constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  unsigned char bytes[32];
  if (RAND_bytes(bytes, sizeof(bytes)) != 1) throw Error("the system has no random numbers for a key; try again later");
  std::string text = "thk-";
  unsigned bits = 0, held = 0;
  for (const unsigned char byte : bytes) {
    bits = bits << 8 | byte;
    for (held += 8; held >= 6; held -= 6) text += digits[bits >> (held - 6) & 63];
  }
  text += digits[bits << (6 - held) & 63];
  return text;
}

std::string today() {
  const std::time_t now = std::time(nullptr);
  std::tm t{};
  gmtime_r(&now, &t);
  return fmt::format("{:04}-{:02}-{:02}", t.tm_year + 1900, t.tm_mon + 1, t.tm_mday);
}

}  // namespace

bool ApiKey::may_use(std::string_view model) const {
  return models.empty() || std::find(models.begin(), models.end(), model) != models.end();
}

fs::path default_keys_file() {
  if (const char* config = std::getenv("XDG_CONFIG_HOME"); config != nullptr && *config != '\0') {
    return fs::path(config) / "thimble" / "keys.jsonl";
  }
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home == '\0') return {};
  return fs::path(home) / ".config" / "thimble" / "keys.jsonl";
}

ApiKeys read_keys(const fs::path& file) {
  struct stat status{};
  if (stat(file.c_str(), &status) == 0 && (status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    throw Error(fmt::format("{}: others than its owner may write it, and so let anybody in; run chmod 600 on it",
                            file.string()));
  }
  const std::string text = read_file(file);
  ApiKeys keys;
  std::set<std::string> names;
  int number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = std::string_view(text).substr(at, end - at);
    at = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    const std::string place = fmt::format("{}, line {}", file.string(), number);
    ApiKey key = read_key(line, place);
    if (!names.insert(key.name).second) throw Error(fmt::format("{}: the name \"{}\" comes twice", place, key.name));
    keys.push_back(std::make_shared<const ApiKey>(std::move(key)));
  }
  return keys;
}

NewKey add_key(const fs::path& file, ApiKey key) {
  if (!is_name(key.name)) {
    throw Error(
        fmt::format("\"{}\" is no name for a key: take up to {} letters, digits and . _ -, the first a letter or "
                    "digit",
                    key.name, kLongestName));
  }
  for (const int limit : {key.requests_per_minute, key.tokens_per_minute}) {
    if (limit < 0 || limit > kMostPerMinute) throw Error("a limit a minute must be from 0 (none) to 1e9");
  }
  const Turn turn(file);
  ApiKeys keys = path_exists(file) ? read_keys(file) : ApiKeys();
  for (const auto& other : keys) {
    if (other->name == key.name) {
      throw Error(
          fmt::format("{}: there is a key named \"{}\"; remove it first (thimble keys remove {}) or take another "
                      "name",
                      file.string(), key.name, key.name));
    }
  }
  NewKey made{new_key_text(), std::move(key)};
  made.key.sha256 = sha256(made.text.data(), made.text.size());
  made.key.created = today();
  keys.push_back(std::make_shared<const ApiKey>(made.key));
  write_keys(file, keys);
  return made;
}

void remove_key(const fs::path& file, std::string_view name) {
  const Turn turn(file);
  ApiKeys keys = read_keys(file);
  if (std::erase_if(keys, [&](const auto& key) { return key->name == name; }) == 0) {
    throw Error(fmt::format("{}: there is no key named \"{}\"; `thimble keys list` shows all", file.string(), name));
  }
  write_keys(file, keys);
}

std::shared_ptr<const ApiKey> find_key(const ApiKeys& keys, std::string_view text) {
  const std::string digest = sha256(text.data(), text.size());
  std::shared_ptr<const ApiKey> found;
  for (const auto& key : keys) {
    if (CRYPTO_memcmp(digest.data(), key->sha256.data(), digest.size()) == 0) found = key;
  }
  return found;
}

}  // namespace thimble
