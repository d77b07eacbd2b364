#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace thimble {

using MetricLabels = std::vector<std::pair<std::string_view, std::string_view>>;

// How often a quantity fell below each of some bounds. Not thread-safe.
class Histogram {
 public:
  explicit Histogram(std::span<const double> bounds) : bounds_(bounds), counts_(bounds.size() + 1) {}  // ascending

  void observe(double value, int64_t times = 1);
  std::span<const double> bounds() const { return bounds_; }
  // [bounds + 1], not cumulative: the last is of what lies above all bounds.
  std::span<const int64_t> counts() const { return counts_; }
  int64_t count() const { return count_; }
  double sum() const { return sum_; }

 private:
  std::span<const double> bounds_;
  std::vector<int64_t> counts_;
  int64_t count_ = 0;
  double sum_ = 0;
};

// Writes Prometheus' text format, version 0.0.4 (Prometheus documentation, "Exposition formats"): a family, then its
// samples.
class MetricsText {
 public:
  static constexpr const char* kType = "text/plain; version=0.0.4; charset=utf-8";

  enum class Kind { kCounter, kGauge, kHistogram };
  void family(std::string_view name, Kind kind, std::string_view help);
  void sample(const MetricLabels& labels, double value);
  void histogram(const MetricLabels& labels, const Histogram& histogram);
  // A family of one sample.
  void gauge(std::string_view name, std::string_view help, double value);
  void counter(std::string_view name, std::string_view help, double value);

  std::string take() { return std::move(text_); }

 private:
  void line(std::string_view suffix, const MetricLabels& labels, double value);

  std::string name_;  // of the family
  std::string text_;
};

}  // namespace thimble
