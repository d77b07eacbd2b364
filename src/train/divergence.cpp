#include "train/divergence.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace thimble {
namespace {

constexpr size_t kWindow = 32;
constexpr size_t kFew = 8;
constexpr size_t kInARow = 5;

}  // namespace

double DivergenceWatch::Series::highest() const { return *std::max_element(known.begin(), known.end()); }

double DivergenceWatch::Series::mean() const {
  return known.empty() ? 0 : std::accumulate(known.begin(), known.end(), 0.0) / static_cast<double>(known.size());
}

bool DivergenceWatch::Series::add(double value, double margin) {
  const double allowed = known.size() < kFew ? 3 * margin : margin;
  if (!known.empty() && value > highest() + allowed) {
    standing_out.push_back(value);
    return standing_out.size() >= kInARow;
  }
  standing_out.push_back(value);
  known.insert(known.end(), standing_out.begin(), standing_out.end());
  standing_out.clear();
  while (known.size() > kWindow) known.pop_front();
  return false;
}

std::optional<DivergenceWatch::Finding> DivergenceWatch::add(double loss, double gradient_norm) {
  if (loss_.add(loss, std::max(1.0, 0.5 * loss_.mean()))) return Finding{false, loss, loss_.highest()};
  const double log_norm = std::log(std::max(gradient_norm, 1e-12));
  if (log_norm_.add(log_norm, std::log(100.0))) return Finding{true, gradient_norm, std::exp(log_norm_.highest())};
  return std::nullopt;
}

}  // namespace thimble
