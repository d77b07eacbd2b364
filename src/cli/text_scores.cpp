#include "cli/text_scores.h"

#include <fmt/core.h>

#include "cli/terminal.h"
#include "core/atomic_file.h"
#include "core/error.h"

namespace thimble {

std::string read_text(const std::filesystem::path& file) {
  std::string text = read_file(file);
  if (text.empty()) throw Error(fmt::format("{}: is empty; give a text file", file.string()));
  return text;
}

Perplexity perplexity_with_progress(const Session& session, const std::string& text, const ChunkOptions& options) {
  ProgressLine line;
  return measure_perplexity(*session.engine, session.adapter, text, options, line.fn());
}

Divergence divergence_with_progress(const Session& session, const Session& reference, const std::string& text,
                                    const ChunkOptions& options) {
  ProgressLine line;
  return measure_divergence(*session.engine, session.adapter, *reference.engine, text, options, line.fn());
}

namespace {

void print_line(const char* name, const std::string& value) {
  fmt::print("{} {}\n", styled(stdout, Style::kBold, fmt::format("{:<14}", name)), value);
}

}  // namespace

void print_text(const Perplexity& score, const std::filesystem::path& file) {
  print_line("text", fmt::format("{}: {} tokens; {} of {} chunks of {} read, {} tokens scored in {}", file.string(),
                                 human_count(static_cast<double>(score.text_tokens)), score.chunks, score.text_chunks,
                                 score.context, human_count(static_cast<double>(score.scored)),
                                 human_seconds(score.seconds)));
}

void print_perplexity(const char* name, const Perplexity& score) {
  print_line(name, fmt::format("{:.4f} ± {:.4f}", score.perplexity.value, score.perplexity.error));
}

void print_divergence(const Divergence& d) {
  print_line("ratio", fmt::format("{:.5f} ± {:.5f}", d.ratio.value, d.ratio.error));
  print_line("KL divergence", fmt::format("{:.6f} ± {:.6f} nats a token", d.kl.value, d.kl.error));
  print_line("same top token", fmt::format("{:.2f} ± {:.2f} %", 100 * d.same_top.value, 100 * d.same_top.error));
}

Json text_json(const Perplexity& score, const std::filesystem::path& file) {
  return {{"text", file.string()},
          {"text_tokens", score.text_tokens},
          {"context", score.context},
          {"chunks", score.chunks},
          {"text_chunks", score.text_chunks},
          {"scored", score.scored},
          {"seconds", score.seconds}};
}

Json estimate_json(const Estimate& estimate) { return {{"value", estimate.value}, {"error", estimate.error}}; }

void add_divergence(Json& out, const Divergence& divergence) {
  out["ratio"] = estimate_json(divergence.ratio);
  out["kl"] = estimate_json(divergence.kl);
  out["same_top"] = estimate_json(divergence.same_top);
}

}  // namespace thimble
