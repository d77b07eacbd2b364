#include "serve/model_shelf.h"

#include <fmt/core.h>

#include <algorithm>
#include <future>

#include "core/clock.h"
#include "core/error.h"
#include "eval/evaluate.h"
#include "formats/adapter.h"
#include "formats/gguf_lora.h"
#include "formats/pull.h"
#include "serve/api_error.h"

namespace thimble {
namespace {

// A model is named as it was pulled, or by its file or folder.
std::string name_of(const std::string& what, const std::filesystem::path& path) {
  const auto pulled = pulled_models();
  if (std::find(pulled.begin(), pulled.end(), what) != pulled.end()) return what;
  const auto last = path.has_filename() ? path : path.parent_path();
  return last.extension() == ".gguf" ? last.stem().string() : last.filename().string();
}

PromptStyle style_of(const ServedBase& base, const std::optional<JobManifest>& manifest) {
  const Vocabulary& vocabulary = base.prepared->model().vocabulary;
  if (!manifest) return {base.tokenizer, vocabulary, true, false, std::nullopt, {}};
  return {base.tokenizer, vocabulary, manifest->tools_in_prompt, manifest->plan, manifest->system, manifest->tools};
}

std::string gigabytes(size_t bytes) { return fmt::format("{:.2f} GB", static_cast<double>(bytes) * 1e-9); }

}  // namespace

size_t ModelShelf::memory() const {
  size_t total = 0;
  std::vector<const ServedBase*> seen;
  for (const auto& model : list()) {
    if (std::find(seen.begin(), seen.end(), model->base.get()) != seen.end()) continue;
    seen.push_back(model->base.get());
    total += model->base->prepared->bytes() + model->base->engine->cache().bytes();
  }
  return total;
}

void ModelShelf::check_budget(size_t more, const std::string& what) const {
  if (options_.memory_bytes == 0) return;
  const size_t used = memory();
  if (used + more > options_.memory_bytes)
    throw ApiError(507, fmt::format("{} needs {}, but {} of the {} for models are taken; close another model, or give "
                                    "a larger --memory",
                                    what, gigabytes(more), gigabytes(used), gigabytes(options_.memory_bytes)),
                   "", "insufficient_memory");
}

std::shared_ptr<ServedBase> ModelShelf::open_base(const std::string& name, const std::filesystem::path& path) {
  const auto same = std::filesystem::weakly_canonical(path);
  for (const auto& model : list())
    if (model->base->path == same) return model->base;
  auto model = load_model(path);
  size_t stored = 0;
  for (const Linear& layer : model->linears) stored += layer.weight.bytes();
  check_budget(stored, name);  // before it is packed
  auto tokenizer = std::async(std::launch::async, [&] { return Tokenizer::from(model->vocabulary); });
  std::shared_ptr<PreparedModel> prepared;
  std::shared_ptr<Engine> engine;
  EngineOptions options = options_.engine;
  options.cache_tokens = std::max<int64_t>(options.cache_tokens, 16);
  std::optional<Tokenizer> made;
  thread_.run([&] {  // packing takes all cores, as steps do
    prepared = PreparedModel::taking(model, options_.precision);
    made = tokenizer.get();
    engine = std::make_shared<Engine>(prepared, *made, options);
  });
  check_budget(prepared->bytes() + engine->cache().bytes(), name);
  std::optional<JobManifest> manifest;
  if (!model->manifest.empty()) manifest = parse_manifest(model->manifest, path.string());
  auto constraints = std::make_unique<ConstraintCache>([t = *made] { return token_table(t); });
  return std::make_shared<ServedBase>(ServedBase{name, same, model->fingerprint, std::move(prepared), std::move(engine),
                                                 *made, std::move(constraints), std::move(manifest)});
}

std::shared_ptr<ServedModel> ModelShelf::with_adapter(const std::string& name, std::shared_ptr<ServedBase> base,
                                                      const std::filesystem::path& path) {
  const bool gguf = path.extension() == ".gguf";
  const LoraAdapter adapter = gguf ? read_gguf_lora(path, base->prepared->model().config) : read_adapter(path);
  std::optional<JobManifest> manifest;
  if (!adapter.manifest.empty()) {
    manifest = parse_manifest(adapter.manifest, path.string() + "/thimble_job.json");
    check_base(*manifest, path.string(), base->path.string(), base->fingerprint);
  }
  size_t bytes = 0;
  for (const auto& [module, pair] : adapter.modules) bytes += (pair.a.size() + pair.b.size()) * 2;
  check_budget(bytes, name);
  int number = 0;
  thread_.run([&] { number = base->prepared->add_adapter(adapter); });
  std::shared_ptr<const int> held(new int(number), [base, &thread = thread_](const int* n) {
    thread.post([base, number = *n] { base->prepared->drop_adapter(number); });
    delete n;
  });
  PromptStyle style = style_of(*base, manifest);
  return std::make_shared<ServedModel>(ServedModel{name, std::move(base), std::move(held),
                                                   std::filesystem::weakly_canonical(path), std::move(manifest),
                                                   std::move(style), std::nullopt, unix_time()});
}

void ModelShelf::put(std::shared_ptr<const ServedModel> model) {
  const std::scoped_lock lock(mutex_);
  for (auto& known : models_) {
    if (known->name != model->name) continue;
    known = std::move(model);
    return;
  }
  models_.push_back(std::move(model));
}

std::shared_ptr<const ServedModel> ModelShelf::open_job(const Job& job) {
  const auto run = newest_run(job.folder);
  const auto whole = run ? run_model(*run) : std::filesystem::path();
  const auto base_path = resolve_model(job.base);
  if (!run)
    throw Error(fmt::format("{}: has no finished run; train one with `thimble tune {}`, or serve its base alone: "
                            "`thimble serve {}`",
                            job.folder.string(), job.folder.string(), job.base));
  const std::string base_name = name_of(job.base, base_path);
  if (base_name == job.name)
    throw Error(fmt::format("{}: the use case has the name of its base model, '{}'; give it another name in "
                            "thimble.toml",
                            job.folder.string(), job.name));
  std::shared_ptr<ServedModel> tuned;
  if (whole.empty()) {
    tuned = with_adapter(job.name, open_base(base_name, base_path), *run / "adapter");
  } else {
    auto base = open_base(job.name, whole);
    tuned = std::make_shared<ServedModel>(ServedModel{job.name, base, nullptr, base->path, base->manifest,
                                                      style_of(*base, base->manifest), std::nullopt, unix_time()});
  }
  tuned->job = job.folder;
  return tuned;
}

std::string ModelShelf::open(const std::string& what) {
  const std::scoped_lock lock(opening_);
  const auto add_base = [this](const std::shared_ptr<ServedBase>& base, const std::string& name) {
    for (const auto& known : list())
      if (known->name == name && known->base != base)
        throw Error(fmt::format("two models would have the name '{}': {} and {}; rename one of the files", name,
                                known->source.string(), base->path.string()));
    put(std::make_shared<ServedModel>(ServedModel{name, base, nullptr, base->path, base->manifest,
                                                  style_of(*base, base->manifest), std::nullopt, unix_time()}));
  };
  if (std::filesystem::exists(std::filesystem::path(what) / "thimble.toml")) {
    const Job job = load_job(what);
    for (const auto& known : list())
      if (known->name == job.name && known->job != job.folder)
        throw Error(fmt::format("two models would have the name '{}': {} and {}; rename one in its thimble.toml",
                                job.name, known->source.string(), job.folder.string()));
    const auto tuned = open_job(job);
    put(tuned);
    if (tuned->adapter) add_base(tuned->base, tuned->base->name);
    return job.name;
  }
  const auto path = resolve_model(what);
  const auto name = name_of(what, path);
  add_base(open_base(name, path), name);
  return name;
}

std::string ModelShelf::open_adapter(const std::string& name, const std::filesystem::path& path,
                                     const std::string& base_name) {
  const std::scoped_lock lock(opening_);
  std::shared_ptr<ServedBase> base;
  if (!base_name.empty()) {
    base = find(base_name)->base;
  } else {
    std::vector<std::shared_ptr<ServedBase>> bases;
    for (const auto& model : list())
      if (std::find(bases.begin(), bases.end(), model->base) == bases.end()) bases.push_back(model->base);
    if (bases.size() != 1)
      throw ApiError(400, fmt::format("adapter '{}': {} base models are open; say which one it belongs to", name,
                                      bases.size()),
                     "base");
    base = bases.front();
  }
  for (const auto& known : list())
    if (known->name == name && !known->adapter)
      throw ApiError(409, fmt::format("'{}' is a base model; give the adapter another name", name), "name");
  put(with_adapter(name, base, path));
  return name;
}

void ModelShelf::close(const std::string& name) {
  const auto model = find(name);
  const std::scoped_lock lock(mutex_);
  std::erase(models_, model);
}

std::shared_ptr<const ServedModel> ModelShelf::find(const std::string& name) const {
  const std::scoped_lock lock(mutex_);
  if (name.empty() && !models_.empty()) return models_.front();
  std::string names;
  for (const auto& model : models_) {
    if (model->name == name) return model;
    names += (names.empty() ? "" : ", ") + model->name;
  }
  throw ApiError(404, fmt::format("The model '{}' is not served here; there are: {}.", name, names), "model",
                 "model_not_found");
}

std::vector<std::shared_ptr<const ServedModel>> ModelShelf::list() const {
  const std::scoped_lock lock(mutex_);
  return models_;
}

std::vector<std::string> ModelShelf::refresh() {
  const std::scoped_lock lock(opening_);
  std::vector<std::string> told;
  for (const auto& model : list()) {
    if (!model->job) continue;
    try {
      const auto run = newest_run(*model->job);
      if (!run || std::filesystem::weakly_canonical(run_result(*run)) == model->source) continue;
      put(open_job(load_job(*model->job)));
      told.push_back(fmt::format("{}: now serves {}", model->name, run->string()));
    } catch (const Error& e) {
      told.push_back(fmt::format("{}: stays with {}: {}", model->name, model->source.string(), e.what()));
    }
  }
  return told;
}

}  // namespace thimble
