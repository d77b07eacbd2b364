#include <fmt/core.h>
#include <sys/resource.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <vector>

#include "core/memory.h"
#include "serve/service.h"

namespace thimble {
namespace {

using Kind = MetricsText::Kind;

// What a busy core of a server processor takes, its share of the package included: where nothing measures, the only way
// to a figure, and named an estimate.
constexpr double kWattsOfBusyCore = 8;

double processor_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

void write_process(MetricsText& out, Service& service) {
  const double busy = processor_seconds();
  out.counter("process_cpu_seconds_total", "Processor time, user and system.", busy);
  out.gauge("process_resident_memory_bytes", "What is in memory.", static_cast<double>(resident_memory()));
  out.gauge("process_start_time_seconds", "Since 1970.", static_cast<double>(service.started));
  std::error_code none;
  const auto files = std::distance(std::filesystem::directory_iterator("/proc/self/fd", none), {});
  if (!none) out.gauge("process_open_fds", "Open files and connections.", static_cast<double>(files));
  if (service.energy.available())
    out.counter("thimble_energy_joules_total",
                "Energy of the machine's processors since the server started, as they measure it (RAPL); other "
                "processes' included.",
                service.energy.joules());
  else
    out.counter("thimble_energy_estimate_joules_total",
                fmt::format("An estimate, not a measurement: processor time at {} W a core.", kWattsOfBusyCore),
                busy * kWattsOfBusyCore);
}

void write_models(MetricsText& out, const Service& service) {
  const auto models = service.shelf.list();
  std::vector<std::shared_ptr<ServedBase>> bases;
  for (const auto& model : models)
    if (std::find(bases.begin(), bases.end(), model->base) == bases.end()) bases.push_back(model->base);
  const auto by_base = [&](const char* name, Kind kind, const char* help, auto value) {
    out.family(name, kind, help);
    for (const auto& base : bases) out.sample({{"model_name", base->name}}, static_cast<double>(value(*base)));
  };
  const auto use = [&](const ServedBase& base) { return service.engines.use(base.engine.get()); };
  by_base("vllm:num_requests_running", Kind::kGauge, "Answers in the batch.",
          [&](const ServedBase& base) { return use(base).running; });
  by_base("vllm:num_requests_waiting", Kind::kGauge, "Answers that wait for a place in the batch.",
          [&](const ServedBase& base) { return use(base).waiting; });
  by_base("vllm:kv_cache_usage_perc", Kind::kGauge, "Share of the cache that running answers hold, from 0 to 1.",
          [&](const ServedBase& base) {
            return static_cast<double>(use(base).cache_held) / static_cast<double>(base.engine->cache().capacity());
          });
  by_base("thimble_kv_cache_filled_ratio", Kind::kGauge,
          "Share of the cache that holds something, beginnings that are remembered included.",
          [&](const ServedBase& base) {
            return static_cast<double>(use(base).cache_used) / static_cast<double>(base.engine->cache().capacity());
          });
  by_base("thimble_kv_cache_bytes", Kind::kGauge, "Size of the cache, full or not.",
          [](const ServedBase& base) { return base.engine->cache().bytes(); });
  by_base("thimble_model_bytes", Kind::kGauge, "Packed weights and adapters in memory.",
          [](const ServedBase& base) { return base.prepared->bytes(); });
  by_base("thimble_constraint_compilations_total", Kind::kCounter, "Grammars made of tools and schemas.",
          [](const ServedBase& base) { return base.constraints->compiled(); });
  by_base("thimble_constraint_compile_seconds_total", Kind::kCounter, "Time that took.",
          [](const ServedBase& base) { return base.constraints->compile_seconds(); });
  by_base("thimble_constraint_cache_hits_total", Kind::kCounter, "Requests whose grammar was there.",
          [](const ServedBase& base) { return base.constraints->hits(); });
  out.gauge("thimble_adapters_loaded", "Adapters that are served.",
            static_cast<double>(std::count_if(models.begin(), models.end(), [](const auto& m) { return m->adapter; })));
}

}  // namespace

void metrics(Service& service, const Exchange& exchange) {
  check_all_models(exchange, "read the metrics of all");
  MetricsText out;
  service.metrics.write(out);
  write_models(out, service);
  const EngineThread::Load load = service.engines.load();
  out.gauge("thimble_answers_open", "Answers that were asked for and are not done, over all models.",
            static_cast<double>(load.open));
  out.counter("thimble_engine_steps_total", "Forward passes.", static_cast<double>(load.steps));
  out.counter("thimble_engine_busy_seconds_total", "Time spent in them.", load.busy_s);
  if (service.contents != nullptr) {
    out.counter("thimble_contents_stored_total", "Requests that were stored with their contents.",
                static_cast<double>(service.contents->stored()));
    out.counter("thimble_contents_lost_total", "Requests that should have been, but the disk was full or too slow.",
                static_cast<double>(service.contents->lost()));
  }
  write_process(out, service);
  Exchange(exchange).respond({.status = 200, .type = MetricsText::kType, .body = out.take()});
}

}  // namespace thimble
