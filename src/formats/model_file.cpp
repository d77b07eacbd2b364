#include "formats/model_file.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/mapped_file.h"
#include "core/paths.h"
#include "core/sha256.h"
#include "formats/folder_model.h"
#include "formats/gguf.h"
#include "formats/gguf_model.h"
#include "formats/llama_names.h"
#include "formats/safetensors.h"

namespace thimble {
namespace {

namespace fs = std::filesystem;

// What old checkpoints carry besides weights; transformers ignores the same ones.
bool is_buffer(const SafetensorsEntry& entry) {
  const std::string_view name = entry.name;
  return name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias");
}

// Every tensor must be one that the family's description takes: a bias that the config denies, or a layer beyond
// its count, would otherwise be left out in silence.
void check_llama_tensors(const ModelFile& file) {
  const ModelConfig& c = file.config;
  for (const auto& [name, tensor] : file.tensors) {
    const auto gguf = llama_name_to_gguf(name);
    const bool bias = name.ends_with(".bias");
    const bool attention = name.find(".self_attn.") != std::string::npos, mlp = name.find(".mlp.") != std::string::npos;
    bool known = gguf.has_value() && (!bias || (attention && c.attention_bias) || (mlp && c.mlp_bias));
    if (known && gguf->starts_with("blk.")) known = std::stoll(gguf->substr(4, 9)) < c.layers;
    if (!known)
      throw Error(fmt::format("{}: tensor '{}' is not part of a llama model as its config describes it; choose another "
                              "model or mend its config", file.path.string(), name));
  }
}

// Some exports of models with tied embeddings store the head as well.
void drop_tied_head(ModelFile& file) {
  const auto head = file.tensors.find("lm_head.weight");
  const auto embedding = file.tensors.find("model.embed_tokens.weight");
  if (!file.config.tied_embeddings || head == file.tensors.end() || embedding == file.tensors.end()) return;
  const Tensor &a = head->second, &b = embedding->second;
  if (a.type != b.type || a.shape != b.shape || std::memcmp(a.data, b.data, a.bytes()) != 0)
    throw Error(fmt::format("{}: lm_head.weight differs from the embedding though tie_word_embeddings is true; set it "
                            "to false in config.json if the head is meant", file.path.string()));
  file.tensors.erase(head);
}

std::string fingerprint(const std::map<std::string, Tensor>& tensors) {
  constexpr size_t kSamples = 16, kSample = 256;
  Sha256 hash;
  for (const auto& [name, tensor] : tensors) {
    std::string head = fmt::format("{}:{}", name, dtype_info(tensor.type).name);
    for (const int64_t d : tensor.shape) head += fmt::format(",{}", d);
    hash.update(head.c_str(), head.size() + 1);
    const size_t bytes = tensor.bytes();
    if (bytes <= kSamples * kSample) {
      hash.update(tensor.data, bytes);
      continue;
    }
    for (size_t s = 0; s < kSamples; ++s)  // the first and the last bytes, and windows evenly between
      hash.update(tensor.data + (bytes - kSample) * s / (kSamples - 1), kSample);
  }
  return hash.finish();
}

ModelFile open_gguf(const fs::path& path) {
  auto mapped = std::make_shared<MappedFile>(path);
  GgufFile gguf = parse_gguf(mapped->bytes(), path.string());
  ModelFile file;
  file.path = path;
  file.format = "gguf";
  file.config = gguf_config(gguf);
  file.tensors = gguf_tensors(gguf, mapped, file.config);
  file.manifest = gguf.string("thimble.job").value_or("");
  file.vocabulary = gguf_vocabulary(std::move(gguf));
  let_go_of_mapped(mapped->bytes());  // what was copied out of it is not needed there
  return file;
}

ModelFile open_folder(const fs::path& folder, const fs::path& only) {
  const fs::path config = folder / "config.json";
  if (!path_exists(config)) {
    std::error_code ignored;
    for (const auto& item : fs::directory_iterator(folder, ignored))
      if (item.path().extension() == ".gguf")
        throw Error(fmt::format("{}: has no config.json; give the .gguf file itself, such as {}", folder.string(),
                                item.path().string()));
    throw Error(fmt::format("{}: has no config.json; give a .gguf file or a folder with config.json and "
                            "model.safetensors", folder.string()));
  }
  ModelFile file;
  file.path = folder;
  file.format = "safetensors";
  file.config = parse_model_config(read_file(config), config.string());
  file.vocabulary = folder_vocabulary(folder);
  if (const fs::path job = folder / "thimble_job.json"; path_exists(job)) file.manifest = read_file(job);
  file.tensors = only.empty() ? read_safetensors_folder(folder, is_buffer) : read_safetensors(only, is_buffer);
  return file;
}

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

bool starts_with_gguf(const fs::path& path) {
  const MappedFile file(path);
  return file.bytes().size() >= 4 && std::memcmp(file.bytes().data(), "GGUF", 4) == 0;
}

}  // namespace

ModelFile open_model(const fs::path& path) {
  if (!path_exists(path)) throw Error(fmt::format("{}: does not exist; check the path", path.string()));
  ModelFile file;
  if (is_folder(path)) {
    file = open_folder(path, {});
  } else if (path.extension() == ".safetensors") {
    file = open_folder(folder_of(path), path);
  } else {
    file = open_gguf(path);
  }
  if (file.config.family == "llama") {
    drop_tied_head(file);
    check_llama_tensors(file);
  }
  file.fingerprint = fingerprint(file.tensors);
  return file;
}

Vocabulary open_vocabulary(const fs::path& path) {
  if (!path_exists(path)) throw Error(fmt::format("{}: does not exist; check the path", path.string()));
  if (is_folder(path)) return folder_vocabulary(path);
  if (!starts_with_gguf(path)) return folder_vocabulary(folder_of(path));
  const MappedFile mapped(path);
  return gguf_vocabulary(parse_gguf(mapped.bytes(), path.string()));
}

}  // namespace thimble
