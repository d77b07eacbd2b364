#include <fmt/core.h>

#include <algorithm>

#include "cli/bench_report.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "cli/terminal.h"
#include "core/cpu.h"
#include "core/error.h"
#include "core/machine.h"
#include "core/memory.h"
#include "core/thread_pool.h"

namespace thimble {
namespace {

std::vector<BenchmarkTest> tests_of(const BenchOptions& options) {
  std::vector<BenchmarkTest> tests;
  int decoded = 0;
  for (const int count : options.prompts)
    if (count > 0) tests.push_back({BenchmarkKind::kPrefill, count, 0, 1});
  for (const int count : options.generate) {
    if (count == 1) throw Error("bench: --generate 1: the first token belongs to the prompt; decode at least 2");
    if (count > 0) tests.push_back({BenchmarkKind::kDecode, count, 0, 1});
    if (decoded == 0) decoded = count;
  }
  if (decoded == 0) decoded = 64;  // else as many as the first decoding test, so that rates can be compared
  for (const int depth : options.depths)
    if (depth > 0) tests.push_back({BenchmarkKind::kDepth, decoded, depth, 1});
  for (const int sequences : options.batch)
    if (sequences > 0) tests.push_back({BenchmarkKind::kBatch, decoded, 0, sequences});
  if (tests.empty()) throw Error("bench: nothing to measure; give --prompts, --generate, --depths or --batch");
  return tests;
}

}  // namespace

int bench_command(const BenchOptions& options) {
  const std::vector<BenchmarkTest> tests = tests_of(options);
  ModelOptions model = options.model;
  model.context = std::max(model.context, std::max(benchmark_context(tests) + 1, benchmark_room(tests)));
  if (!model.draft.empty()) throw Error("bench: measures a model by itself; leave --draft out");
  model.speculate = false;  // what can be guessed depends on the text, and these texts repeat themselves
  int widest = 1;
  for (const BenchmarkTest& test : tests) widest = std::max(widest, test.sequences);
  Session session = open_session(model, widest);

  BenchReport report{.model = options.model.model,
                     .processor = describe_machine().name,
                     .threads = threads().size(),
                     .cpu = std::string(cpu_level_name(cpu_level())),
                     .precision = options.model.precision,
                     .repeat = options.repeat,
                     .work = {},
                     .results = {},
                     .limits = {},
                     .start_up = {},
                     .loaded_memory = resident_memory(),
                     .peak_memory = 0};
  Benchmark benchmark(*session.engine, session.adapter, tests);
  if (options.start_up)
    report.start_up.emplace(options.model, session.engine->tokenizer(), session.engine->model().model().config.context);
  ProgressLine line;
  benchmark.warm_up();
  for (int round = 0; round < options.repeat; ++round) {
    line.show({"measuring", static_cast<double>(round), static_cast<double>(options.repeat), "rounds", ""});
    benchmark.run_tests();
    if (round == 0) report.peak_memory = peak_memory();  // measuring the limits takes memory that the model doesn't
    benchmark.measure_limits();
    if (report.start_up) report.start_up->measure();
  }
  line.clear();
  report.work = benchmark.work();
  report.results = benchmark.results();
  report.limits = benchmark.limits();

  if (options.json)
    fmt::print("{}\n", bench_json(report));
  else
    fmt::print("{}", options.markdown ? bench_markdown(report) : bench_text(report));
  return kOk;
}

}  // namespace thimble
