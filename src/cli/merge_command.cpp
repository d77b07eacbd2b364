#include <fmt/core.h>

#include <optional>

#include "cli/commands.h"
#include "cli/terminal.h"
#include "core/error.h"
#include "data/job.h"
#include "formats/adapter.h"
#include "formats/merge.h"
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

}  // namespace

int merge_command(const MergeOptions& options) {
  std::filesystem::path folder = options.adapter;
  if (std::filesystem::exists(folder / "thimble.toml")) {
    const auto run = newest_run(folder);
    if (!run) throw Error(fmt::format("{}: has no finished run; train one with `thimble tune`", folder.string()));
    if (const auto whole = run_model(*run); !whole.empty()) {
      write_whole(whole, options);
      return kOk;
    }
    folder = *run / "adapter";
  }
  const LoraAdapter adapter = read_adapter(folder);
  std::optional<JobManifest> manifest;
  if (!adapter.manifest.empty()) manifest = parse_manifest(adapter.manifest, (folder / "thimble_job.json").string());
  std::string base = options.model;
  if (base.empty() && manifest) base = manifest->base;
  if (base.empty()) throw Error(fmt::format("{}: names no base model; give it with --model", folder.string()));
  const ModelFile model = open_model(resolve_model(base));
  if (manifest && manifest->base_fingerprint != model.fingerprint)
    throw Error(fmt::format("{}: the adapter was trained on another base model ('{}', fingerprint {:.12}) than {} "
                            "(fingerprint {:.12}); give the base that it belongs to with --model",
                            folder.string(), manifest->base, manifest->base_fingerprint, model.path.string(),
                            model.fingerprint));
  write(model, adapter, options);
  return kOk;
}

}  // namespace thimble
