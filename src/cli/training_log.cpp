#include "cli/training_log.h"

#include <fmt/core.h>

#include "calls/json.h"
#include "train/history.h"

namespace thimble {

void TrainingLog::step(const HistoryPoint& p) {
  const bool evaluated = p.dev_loss || p.metric;
  if (json_) {
    Json line = point_to_json(p);
    line["event"] = evaluated ? "evaluation" : "step";
    fmt::print("{}\n", line.dump());
    std::fflush(stdout);
    return;
  }
  if (!evaluated && (is_terminal(stderr) || seconds_since(last_line_) < 60)) return;
  last_line_ = Clock::now();
  line_.clear();
  fmt::print(out_, "step {:>5}", p.step);
  if (p.dev_loss) fmt::print(out_, "  dev loss {:.4f}", *p.dev_loss);
  if (p.metric) fmt::print(out_, "  exact {:.1f} %", 100 * *p.metric);
  if (p.dev_accuracy) fmt::print(out_, "  told apart {:.1f} %, margin {:+.3f}", 100 * *p.dev_accuracy, *p.dev_margin);
  if (p.step > 0) {
    fmt::print(out_, "  training loss {:.4f} (this step {:.4f})  gradient {:.2g}  rate {:.2g}  {:.0f} tokens/s",
               p.smoothed_loss, p.loss, p.gradient_norm, p.learning_rate, p.tokens_per_second);
    if (p.peak_share) fmt::print(out_, ", {:.0f} % of peak", 100 * *p.peak_share);
    if (p.sampled_tokens) fmt::print(out_, "  {} tokens sampled", human_count(static_cast<double>(*p.sampled_tokens)));
    fmt::print(out_, "  {}, {} left", human_seconds(p.seconds), human_seconds(p.seconds_left));
  }
  fmt::print(out_, "\n");
  std::fflush(out_);
}

void TrainingLog::say(const std::string& what) {
  line_.clear();
  fmt::print(stderr, "{}\n", what);
}

void TrainingLog::warn(const std::string& what) {
  say(fmt::format("{} {}", styled(stderr, Style::kYellow, "warning:"), what));
}

}  // namespace thimble
