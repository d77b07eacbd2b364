#include "cli/session.h"

#include <fmt/core.h>

#include <csignal>
#include <future>

#include "core/atomic_file.h"
#include "core/error.h"
#include "formats/adapter.h"
#include "formats/gguf_lora.h"
#include "formats/pull.h"

namespace thimble {

Session open_session(const ModelOptions& options, int batch) {
  const auto path = resolve_model(options.model);
  auto model = load_model(path);
  // Made by one thread, beside the packing of the weights by all of them.
  auto tokenizer = std::async(std::launch::async, [&model] { return Tokenizer::from(model->vocabulary); });
  auto prepared =
      PreparedModel::taking(model, options.precision == "f32" ? MatmulPrecision::kF32 : MatmulPrecision::kFast);
  Session session;
  if (!options.adapter.empty()) {
    const bool gguf = std::filesystem::path(options.adapter).extension() == ".gguf";
    const LoraAdapter adapter = gguf ? read_gguf_lora(options.adapter, model->config) : read_adapter(options.adapter);
    if (!adapter.manifest.empty()) {
      session.manifest = parse_manifest(adapter.manifest, options.adapter + "/thimble_job.json");
      check_base(*session.manifest, options.adapter, path.string(), model->fingerprint);
    }
    session.adapter = prepared->add_adapter(adapter);
  }
  EngineOptions engine;
  engine.cache_tokens = options.context > 0 ? options.context : std::min<int64_t>(model->config.context, 8192);
  engine.max_batch = batch;
  engine.speculate = options.speculate;
  if (!options.draft.empty())
    engine.draft = PreparedModel::taking(load_model(resolve_model(options.draft)), prepared->precision());
  if (!options.kv_type.empty()) engine.kv_type = kv_type_from_name(options.kv_type);
  session.engine = std::make_unique<Engine>(prepared, tokenizer.get(), engine);
  return session;
}

namespace {

volatile std::sig_atomic_t interrupted = 0;

void on_interrupt(int) {
  if (interrupted != 0) {  // a second press: the usual end
    std::signal(SIGINT, SIG_DFL);
    std::raise(SIGINT);
  }
  interrupted = 1;
}

}  // namespace

Interrupt::Interrupt() {
  interrupted = 0;
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  ::sigaction(SIGINT, &action, nullptr);
}

Interrupt::~Interrupt() { std::signal(SIGINT, SIG_DFL); }
bool Interrupt::pressed() { return interrupted != 0; }
void Interrupt::reset() { interrupted = 0; }

}  // namespace thimble
