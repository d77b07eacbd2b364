#include "serve/metrics_text.h"

#include <fmt/core.h>

#include <algorithm>

namespace thimble {
namespace {

std::string escaped(std::string_view text, bool quotes) {
  std::string out;
  for (const char c : text) {
    if (c == '\\') out += "\\\\";
    else if (c == '\n') out += "\\n";
    else if (c == '"' && quotes) out += "\\\"";
    else out += c;
  }
  return out;
}

// The shortest text that reads back as the same number.
std::string number(double value) { return fmt::format("{}", value); }

}  // namespace

void Histogram::observe(double value, int64_t times) {
  const auto bucket = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  counts_[static_cast<size_t>(bucket)] += times;
  count_ += times;
  sum_ += value * static_cast<double>(times);
}

void MetricsText::family(std::string_view name, Kind kind, std::string_view help) {
  name_ = name;
  const char* type = kind == Kind::kCounter ? "counter" : kind == Kind::kGauge ? "gauge" : "histogram";
  text_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, escaped(help, false), name, type);
}

void MetricsText::line(std::string_view suffix, const MetricLabels& labels, double value) {
  text_ += name_;
  text_ += suffix;
  char before = '{';
  for (const auto& [name, label] : labels) {
    text_ += fmt::format("{}{}=\"{}\"", before, name, escaped(label, true));
    before = ',';
  }
  text_ += fmt::format("{} {}\n", labels.empty() ? "" : "}", number(value));
}

void MetricsText::sample(const MetricLabels& labels, double value) { line("", labels, value); }

void MetricsText::histogram(const MetricLabels& labels, const Histogram& histogram) {
  int64_t below = 0;
  for (size_t i = 0; i < histogram.counts().size(); ++i) {
    below += histogram.counts()[i];
    const std::string bound = i < histogram.bounds().size() ? number(histogram.bounds()[i]) : "+Inf";
    MetricLabels with = labels;
    with.emplace_back("le", bound);
    line("_bucket", with, static_cast<double>(below));
  }
  line("_sum", labels, histogram.sum());
  line("_count", labels, static_cast<double>(histogram.count()));
}

void MetricsText::gauge(std::string_view name, std::string_view help, double value) {
  family(name, Kind::kGauge, help);
  sample({}, value);
}

void MetricsText::counter(std::string_view name, std::string_view help, double value) {
  family(name, Kind::kCounter, help);
  sample({}, value);
}

}  // namespace thimble
