#include "formats/merge.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/mapped_file.h"
#include "core/paths.h"
#include "formats/gguf.h"
#include "formats/json_text.h"
#include "formats/merged_tensors.h"
#include "formats/safetensors.h"
#include "formats/tokenizer_conversion.h"

namespace thimble {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr const char* kTokenizerFiles[] = {"tokenizer.json",         "tokenizer_config.json", "special_tokens_map.json",
                                           "generation_config.json", "chat_template.jinja",   "tokenizer.model",
                                           "added_tokens.json",      "vocab.json",            "merges.txt"};
constexpr const char* kJobKey = "thimble.job";
constexpr const char* kJobFile = "thimble_job.json";

std::string torch_name(DType type) {
  return type == DType::kF32 ? "float32" : type == DType::kF16 ? "float16" : "bfloat16";
}

std::string merged_config(const ModelFile& base, const LoraAdapter& adapter, DType type) {
  ordered_json config;
  if (base.format == "safetensors") {
    config = ordered_json::parse(read_file(base.path / "config.json"));
    config.erase("dtype");
  } else {
    config = ordered_json::parse(model_config_json(base.config, torch_name(type)));
    const Vocabulary& v = base.vocabulary;
    if (v.bos) config["bos_token_id"] = *v.bos;
    if (v.eos) config["eos_token_id"] = *v.eos;
    if (v.pad) config["pad_token_id"] = *v.pad;
  }
  config["torch_dtype"] = torch_name(type);
  if (unties_head(base, adapter)) config["tie_word_embeddings"] = false;
  return config.dump(2) + "\n";
}

void write_tokenizer(const ModelFile& base, const fs::path& folder) {
  const Vocabulary& v = base.vocabulary;
  if (base.format == "safetensors") {
    for (const char* name : kTokenizerFiles)
      if (path_exists(base.path / name)) write_file(folder / name, read_file(base.path / name));
    return;
  }
  if (v.tokens.empty()) return;
  write_file(folder / "tokenizer.json", tokenizer_json(v));
  write_file(folder / "tokenizer_config.json", tokenizer_config_json(v, base.config.context));
  if (!v.end_ids.empty()) {
    ordered_json generation = {{"eos_token_id", v.end_ids}};
    if (v.bos) generation["bos_token_id"] = *v.bos;
    if (v.pad) generation["pad_token_id"] = *v.pad;
    write_file(folder / "generation_config.json", generation.dump(2) + "\n");
  }
}

// Written beside and renamed, so that `folder` is whole or not there.
class NewFolder {
 public:
  explicit NewFolder(fs::path target) : target_(fs::absolute(target).lexically_normal()) {
    if (!target_.has_filename()) target_ = target_.parent_path();
    if (path_exists(target_) && (!is_folder(target_) || !fs::is_empty(target_)))
      throw Error(fmt::format("{}: holds something already; remove it or give another folder", target_.string()));
    temporary_ = target_.string() + fmt::format(".{}.tmp", ::getpid());
    std::error_code reason;
    fs::create_directories(temporary_, reason);
    if (reason) throw Error(fmt::format("{}: can't be created ({})", temporary_.string(), reason.message()));
  }
  ~NewFolder() {
    std::error_code ignored;
    fs::remove_all(temporary_, ignored);
  }
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

  const fs::path& path() const { return temporary_; }
  void commit() {
    std::error_code reason;
    fs::rename(temporary_, target_, reason);  // an empty folder gives way
    if (reason) throw Error(fmt::format("{}: can't be put in place ({})", target_.string(), reason.message()));
  }

 private:
  fs::path target_, temporary_;
};

std::vector<GgufEntry> metadata_from_config(const ModelFile& base, DType type) {
  const ModelConfig& c = base.config;
  const auto u32 = [](int v) { return static_cast<uint32_t>(v); };
  const std::string name = fs::absolute(base.path).lexically_normal().filename().string();
  std::vector<GgufEntry> out = {
      {"general.architecture", std::string("llama")},
      {"general.type", std::string("model")},
      {"general.name", name.empty() ? std::string("model") : name},
      {"general.file_type", gguf_file_type(type)},
      {"general.quantization_version", uint32_t{2}},
      {"llama.vocab_size", u32(c.vocab)},
      {"llama.context_length", u32(c.context)},
      {"llama.embedding_length", u32(c.hidden)},
      {"llama.block_count", u32(c.layers)},
      {"llama.feed_forward_length", u32(c.ffn)},
      {"llama.attention.head_count", u32(c.heads)},
      {"llama.attention.head_count_kv", u32(c.kv_heads)},
      {"llama.attention.key_length", u32(c.head_dim)},
      {"llama.attention.value_length", u32(c.head_dim)},
      {"llama.attention.layer_norm_rms_epsilon", c.norm_eps},
      {"llama.rope.dimension_count", u32(c.head_dim)},
      {"llama.rope.freq_base", c.rope_theta},
  };
  if (c.rope_scaling && c.rope_scaling->type == "linear") {
    out.push_back({"llama.rope.scaling.type", std::string("linear")});
    out.push_back({"llama.rope.scaling.factor", c.rope_scaling->factor});
  }
  if (!base.vocabulary.tokenizer_json.empty())
    for (GgufEntry& entry : gguf_tokenizer(base.vocabulary, c.vocab)) out.push_back(std::move(entry));
  return out;
}

// The base's own, without what says how it was quantised; another job than the base's takes its place.
std::vector<GgufEntry> metadata_of_gguf(const ModelFile& base, DType type, bool adapted) {
  const MappedFile mapped(base.path);
  std::vector<GgufEntry> out = parse_gguf(mapped.bytes(), base.path.string()).metadata;
  std::erase_if(out, [&](const GgufEntry& e) {
    return e.key == "general.file_type" || e.key == "general.quantization_version" ||
           e.key.starts_with("quantize.") || (adapted && e.key == kJobKey);
  });
  out.push_back({"general.quantization_version", uint32_t{2}});
  out.push_back({"general.file_type", gguf_file_type(type)});
  return out;
}

}  // namespace

void merge_to_safetensors(const ModelFile& base, const LoraAdapter& adapter, const fs::path& folder, DType type,
                          const ProgressFn& progress) {
  if (is_quantized(type))
    throw Error(fmt::format("{}: safetensors folders hold f32, f16 or bf16, not {}; write a .gguf file for that",
                            folder.string(), dtype_info(type).name));
  const auto tensors = merged_tensors(base, adapter, {type, type, type}, false, progress);
  NewFolder out(folder);
  write_file(out.path() / "config.json", merged_config(base, adapter, type));
  write_tokenizer(base, out.path());
  if (!adapter.manifest.empty()) write_file(out.path() / kJobFile, adapter.manifest);
  write_safetensors(out.path() / "model.safetensors", tensors, {{"format", "pt"}});
  out.commit();
}

void merge_to_gguf(const ModelFile& base, const LoraAdapter& adapter, const fs::path& file, DType type,
                   std::optional<DType> head, const ProgressFn& progress) {
  if (path_exists(file) && fs::equivalent(file, base.path))
    throw Error(fmt::format("{}: is the base model itself; give another name", file.string()));
  auto tensors = merged_tensors(base, adapter, {type, DType::kF32, head}, true, progress);
  const bool adapted = !adapter.modules.empty() || !adapter.manifest.empty();
  auto metadata =
      base.format == "gguf" ? metadata_of_gguf(base, type, adapted) : metadata_from_config(base, type);
  if (const fs::path job = base.path / kJobFile; !adapted && base.format == "safetensors" && path_exists(job))
    metadata.push_back({kJobKey, read_file(job)});
  if (!adapter.manifest.empty()) metadata.push_back({kJobKey, adapter.manifest});

  std::vector<float> factors = base.config.rope_factors;
  if (base.config.rope_scaling && base.config.rope_scaling->type == "llama3")
    factors = llama3_factors(*base.config.rope_scaling, base.config.rope_theta, base.config.head_dim);
  if (!factors.empty())
    tensors.push_back({"rope_freqs.weight", DType::kF32, {static_cast<int64_t>(factors.size())},
                       [factors](const WriteBytes& write) { write(factors.data(), factors.size() * sizeof(float)); }});
  write_gguf(file, metadata, tensors);
}

}  // namespace thimble
