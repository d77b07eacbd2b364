#include <fmt/core.h>

#include <optional>
#include <span>
#include <vector>

#include "cli/commands.h"
#include "cli/terminal.h"
#include "core/error.h"
#include "data/job.h"
#include "formats/adapter.h"
#include "formats/adapter_mix.h"
#include "formats/gguf_lora.h"
#include "formats/merge.h"
#include "formats/merged_tensors.h"
#include "formats/pull.h"

namespace thimble {

namespace {

void write(const ModelFile& model, const LoraAdapter& adapter, const MergeOptions& options) {
  const DType type = *dtype_from_name(options.type);
  if (options.out.extension() == ".gguf") merge_to_gguf(model, adapter, options.out, type);
  else merge_to_safetensors(model, adapter, options.out, type);
  fmt::print("{}\n", options.out.string());
}

// A run that trained the whole model has nothing to merge: the model is written in the form and type asked for.
void write_whole(const std::filesystem::path& path, const MergeOptions& options) {
  if (!options.model.empty())
    throw Error(fmt::format("--model: {} is a whole model and has no base; leave the option out", path.string()));
  const ModelFile model = open_model(path);
  LoraAdapter only_manifest;
  only_manifest.manifest = model.manifest;
  write(model, only_manifest, options);
}

bool is_gguf(const std::filesystem::path& path) { return path.extension() == ".gguf"; }

// Where the adapter of what the user names stands: a folder, a file, or a job's newest run.
std::filesystem::path adapter_of(const std::filesystem::path& named) {
  if (!std::filesystem::exists(named / "thimble.toml")) return named;
  const auto run = newest_run(named);
  if (!run) throw Error(fmt::format("{}: has no finished run; train one with `thimble tune`", named.string()));
  return run_result(*run);
}

std::optional<JobManifest> manifest_of(const LoraAdapter& adapter, const std::filesystem::path& path) {
  if (adapter.manifest.empty()) return std::nullopt;
  return parse_manifest(adapter.manifest, path.string() + ": thimble_job.json");
}

void check_base(const LoraAdapter& adapter, const std::filesystem::path& path, const ModelFile& model) {
  const auto manifest = manifest_of(adapter, path);
  if (manifest && manifest->base_fingerprint != model.fingerprint)
    throw Error(fmt::format("{}: the adapter was trained on another base model ('{}', fingerprint {:.12}) than {} "
                            "(fingerprint {:.12}); give the base that it belongs to with --model",
                            path.string(), manifest->base, manifest->base_fingerprint, model.path.string(),
                            model.fingerprint));
}

// A manifest says how one job asks its model; of several jobs' adapters the mixture is nobody's.
std::string common_manifest(std::span<const LoraAdapter> adapters) {
  for (const LoraAdapter& adapter : adapters)
    if (adapter.manifest != adapters.front().manifest) {
      fmt::print(stderr, "note: the adapters are of different jobs; what is written has no thimble_job.json\n");
      return "";
    }
  return adapters.front().manifest;
}

}  // namespace

int merge_command(const MergeOptions& options) {
  std::vector<std::filesystem::path> paths;
  for (const std::string& named : options.adapters) {
    paths.push_back(adapter_of(named));
    if (paths.back() == std::filesystem::path(named) || paths.back().filename() == "adapter") continue;
    if (options.adapters.size() > 1 || !options.weights.empty() || options.adapter_only)
      throw Error(fmt::format("{}: this run trained a whole model, which is no adapter to be mixed or written as one",
                              named));
    write_whole(paths.back(), options);
    return kOk;
  }
  // Folders first: their manifests name the base, without which a GGUF file's rows can't be put in order.
  std::vector<LoraAdapter> adapters(paths.size());
  std::string base = options.model;
  for (size_t i = 0; i < paths.size(); ++i) {
    if (is_gguf(paths[i])) continue;
    adapters[i] = read_adapter(paths[i]);
    if (const auto manifest = manifest_of(adapters[i], paths[i]); manifest && base.empty()) base = manifest->base;
  }
  if (base.empty()) throw Error(fmt::format("{}: names no base model; give it with --model", paths.front().string()));
  const ModelFile model = open_model(resolve_model(base));
  for (size_t i = 0; i < paths.size(); ++i) {
    if (is_gguf(paths[i])) adapters[i] = read_gguf_lora(paths[i], model.config);
    check_base(adapters[i], paths[i], model);
  }
  LoraAdapter adapter;
  if (adapters.size() == 1 && options.weights.empty()) {
    adapter = std::move(adapters.front());
  } else {
    std::vector<double> weights = options.weights;
    if (weights.empty()) weights.assign(adapters.size(), 1);
    adapter = options.mix == "linear" ? add_adapters(adapters, weights) : concatenate_adapters(adapters, weights);
    adapter.manifest = common_manifest(adapters);
  }
  if (!options.adapter_only) {
    write(model, adapter, options);
    return kOk;
  }
  check_fits_model(model, adapter);
  if (is_gguf(options.out)) write_gguf_lora(options.out, adapter, model.config);
  else write_adapter(options.out, adapter);
  fmt::print("{}\n", options.out.string());
  return kOk;
}

}  // namespace thimble
