#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "data/encode.h"
#include "data/job.h"
#include "infer/engine.h"
#include "serve/constraint_cache.h"
#include "serve/engine_thread.h"

namespace thimble {

struct ShelfOptions {
  MatmulPrecision precision = MatmulPrecision::kFast;
  EngineOptions engine;       // of every base model; draft is none
  size_t memory_bytes = 0;    // that weights, adapters and caches may take together; 0: what is free
};

// A base model in memory with its engine, shared by all that is made of it.
struct ServedBase {
  std::string name;
  std::filesystem::path path;
  std::string fingerprint;
  std::shared_ptr<PreparedModel> prepared;  // changed on the engine thread only
  std::shared_ptr<Engine> engine;
  Tokenizer tokenizer;
  std::unique_ptr<ConstraintCache> constraints;
  std::optional<JobManifest> manifest;  // of a model that a job was trained into
};

// What a request's `model` names: a base model, alone or with an adapter, and how it wants to be asked.
struct ServedModel {
  std::string name;
  std::shared_ptr<ServedBase> base;
  std::shared_ptr<const int> adapter;  // the engine's number; its memory goes with the last who holds it. Null: none
  std::filesystem::path source;        // the adapter's folder, or the model
  std::optional<JobManifest> manifest;
  PromptStyle style;
  std::optional<std::filesystem::path> job;  // the use case's folder
  int64_t created = 0;                       // Unix time

  int adapter_number() const { return adapter ? *adapter : 0; }
};

// The models that are served, by name. Thread-safe; what find() gave stays usable when its name goes or changes.
class ModelShelf {
 public:
  ModelShelf(EngineThread& thread, ShelfOptions options) : thread_(thread), options_(std::move(options)) {}

  // Opens a use-case folder (its newest run, and its base under the base's name), or a model by path or pulled name.
  // Gives the name of what was opened. Throws Error where it can't be opened, the name is taken by something else, or
  // the memory budget doesn't hold it.
  std::string open(const std::string& what);
  // A PEFT folder or a GGUF LoRA file beside one of the open models. `base` may be empty where the manifest or a single
  // base says which. Replaces an adapter of that name.
  std::string open_adapter(const std::string& name, const std::filesystem::path& path, const std::string& base = "");
  void close(const std::string& name);  // throws ApiError 404; requests that run are finished

  // Throws ApiError 404 that lists the names. Empty: the model that was opened first.
  std::shared_ptr<const ServedModel> find(const std::string& name) const;
  std::vector<std::shared_ptr<const ServedModel>> list() const;  // in the order of opening
  size_t memory() const;                                         // weights, adapters and caches

  // Looks whether use cases have a newer run, and opens it; requests that run finish with the old one. Gives what was
  // found or went wrong, a sentence each.
  std::vector<std::string> refresh();

 private:
  std::shared_ptr<ServedBase> open_base(const std::string& name, const std::filesystem::path& path);
  std::shared_ptr<const ServedModel> open_job(const Job& job);
  std::shared_ptr<ServedModel> with_adapter(const std::string& name, std::shared_ptr<ServedBase> base,
                                            const std::filesystem::path& path);
  void put(std::shared_ptr<const ServedModel> model);
  void check_budget(size_t more, const std::string& what) const;

  EngineThread& thread_;
  ShelfOptions options_;
  std::mutex opening_;  // one at a time
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<const ServedModel>> models_;
};

}  // namespace thimble
