#include "cli/bench_report.h"

#include <fmt/core.h>

#include <algorithm>

#include "calls/json.h"
#include "cli/terminal.h"

namespace thimble {
namespace {

std::string title(const BenchmarkTest& test) {
  switch (test.kind) {
    case BenchmarkKind::kPrefill:
      return fmt::format("prefill of {} tokens", test.tokens);
    case BenchmarkKind::kDecode:
      return fmt::format("decode of {} tokens", test.tokens);
    case BenchmarkKind::kDepth:
      return fmt::format("decode of {} tokens after {}", test.tokens, test.depth);
    case BenchmarkKind::kBatch:
      return test.sequences == 1 ? fmt::format("decode of {} tokens, 1 sequence", test.tokens)
                                 : fmt::format("decode of {} tokens, {} sequences", test.tokens, test.sequences);
  }
  return {};
}

std::string rate_text(double rate) { return rate < 100 ? fmt::format("{:.1f}", rate) : human_count(rate); }

LimitShare share(const BenchReport& report, const BenchmarkResult& result) {
  return share_of_limit(result, report.work.arithmetic, report.limits);
}

std::string limits_text(const MachinePeaks& limits) {
  return fmt::format("int8 {:.0f}, bf16 {:.0f}, f32 {:.0f} Gop/s; reading {:.1f} GB/s", limits.int8_gops,
                     limits.bf16_gops, limits.f32_gops, limits.read_gbytes);
}

std::string bytes_text(size_t bytes) { return human_bytes(static_cast<double>(bytes)); }

double lowest(const std::vector<double>& values) { return *std::min_element(values.begin(), values.end()); }
double highest(const std::vector<double>& values) { return *std::max_element(values.begin(), values.end()); }

}  // namespace

std::string bench_json(const BenchReport& report) {
  Json out{{"model", report.model},
           {"threads", report.threads},
           {"cpu", report.cpu},
           {"processor", report.processor},
           {"precision", report.precision},
           {"repeat", report.repeat},
           {"limits",
            {{"int8_gops", report.limits.int8_gops},
             {"bf16_gops", report.limits.bf16_gops},
             {"f32_gops", report.limits.f32_gops},
             {"read_gbytes_per_second", report.limits.read_gbytes}}},
           {"counted",
            {{"layer_parameters", report.work.layer_parameters},
             {"head_parameters", report.work.head_parameters},
             {"weight_bytes", report.work.weight_bytes},
             {"kv_token_bytes", report.work.kv_token_bytes}}},
           {"results", Json::array()}};
  for (const BenchmarkResult& result : report.results) {
    const LimitShare of = share(report, result);
    Json line{{"test", benchmark_name(result.test.kind)},
              {"tokens", result.test.tokens},
              {"tokens_per_second", result.rate()},
              {"lowest", lowest(result.rates)},
              {"highest", highest(result.rates)},
              {"share_of_limit", of.share},
              {"limit", of.limit}};
    if (result.test.kind == BenchmarkKind::kDepth) line["depth"] = result.test.depth;
    if (result.test.kind == BenchmarkKind::kBatch) line["sequences"] = result.test.sequences;
    out["results"].push_back(std::move(line));
  }
  if (report.start_up)
    out["start_up"] = {{"prompt_tokens", report.start_up->prompt_tokens()},
                       {"first_token_seconds", median(report.start_up->seconds())},
                       {"lowest", lowest(report.start_up->seconds())},
                       {"highest", highest(report.start_up->seconds())},
                       {"peak_memory_bytes", report.start_up->peak_memory()}};
  out["loaded_memory_bytes"] = report.loaded_memory;
  out["peak_memory_bytes"] = report.peak_memory;
  return out.dump();
}

std::string bench_text(const BenchReport& report) {
  size_t width = 24;
  for (const BenchmarkResult& result : report.results) width = std::max(width, title(result.test).size());
  std::string out;
  for (const BenchmarkResult& result : report.results) {
    const LimitShare of = share(report, result);
    const std::string rate = fmt::format("{:>9}", rate_text(result.rate()));
    out += fmt::format("{:<{}} {} tokens/s", title(result.test), width, styled(stdout, Style::kBold, rate));
    if (result.rates.size() > 1)
      out += fmt::format("  {:>15}",
                         fmt::format("{} - {}", rate_text(lowest(result.rates)), rate_text(highest(result.rates))));
    out += fmt::format("  {:>4.0f} % of {}\n", 100 * of.share, of.limit);
  }
  const auto line = [&](const std::string& name, const std::string& value) {
    out += fmt::format("{:<{}} {}\n", name, width, value);
  };
  if (report.start_up)
    line("first token, new process", fmt::format("{:>9.3f} s after {} tokens", median(report.start_up->seconds()),
                                                 report.start_up->prompt_tokens()));
  line("memory loaded / peak",
       fmt::format("{} / {}", bytes_text(report.loaded_memory), bytes_text(report.peak_memory)));
  line("this machine's limits", limits_text(report.limits));
  return out;
}

std::string bench_markdown(const BenchReport& report) {
  std::string out = "| what | tokens/s | lowest - highest | of the machine's limit |\n| --- | --- | --- | --- |\n";
  for (const BenchmarkResult& result : report.results) {
    const LimitShare of = share(report, result);
    out += fmt::format("| {} | {} | {} - {} | {:.0f} % of {} |\n", title(result.test), rate_text(result.rate()),
                       rate_text(lowest(result.rates)), rate_text(highest(result.rates)), 100 * of.share, of.limit);
  }
  if (report.start_up)
    out += fmt::format("| first token of a new process, {} tokens | {:.2f} s | {:.2f} - {:.2f} s | |\n",
                       report.start_up->prompt_tokens(), median(report.start_up->seconds()),
                       lowest(report.start_up->seconds()), highest(report.start_up->seconds()));
  out += fmt::format("| memory after loading / at most | {} / {} | | |\n", bytes_text(report.loaded_memory),
                     bytes_text(report.peak_memory));
  out += fmt::format("\n{}, {} threads, {}, medians of {} rounds{}. Limits measured in the same run: {}.\n",
                     report.model, report.threads, report.cpu, report.repeat,
                     report.processor.empty() ? "" : ", " + report.processor, limits_text(report.limits));
  return out;
}

}  // namespace thimble
