#include "infer/sampler.h"

#include <fmt/core.h>

#include <algorithm>
#include <cassert>
#include <cmath>

#include "core/error.h"

namespace thimble {

void check(const SamplingOptions& o) {
  if (!(o.temperature >= 0 && o.temperature <= 100))
    throw Error(fmt::format("temperature {}: must be between 0 (greedy) and 100", o.temperature));
  if (o.top_k < 0) throw Error(fmt::format("top-k {}: must be 0 (off) or more", o.top_k));
  if (!(o.top_p > 0 && o.top_p <= 1)) throw Error(fmt::format("top-p {}: must be above 0 and at most 1", o.top_p));
  if (!(o.min_p >= 0 && o.min_p <= 1)) throw Error(fmt::format("min-p {}: must be between 0 and 1", o.min_p));
}

int32_t Sampler::sample(std::span<const float> logits, std::span<const uint32_t> allowed) {
  if (options_.temperature <= 0) {
    int32_t best = -1;
    for (size_t i = 0; i < logits.size(); ++i)
      if ((best < 0 || logits[i] > logits[static_cast<size_t>(best)]) && permitted(allowed, i)) best = static_cast<int32_t>(i);
    assert(best >= 0);
    return best;
  }
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i)
    if (permitted(allowed, i)) candidates_.emplace_back(logits[i], static_cast<int32_t>(i));
  assert(!candidates_.empty());

  // Most likely first; equal logits in the order of their ids, so that the result does not depend on the sort.
  const auto likelier = [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  };
  size_t keep = candidates_.size();
  if (options_.top_k > 0) keep = std::min(keep, static_cast<size_t>(options_.top_k));
  std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(keep), candidates_.end(),
                    likelier);
  candidates_.resize(keep);

  const double best = candidates_.front().first;
  double total = 0;
  std::vector<double> weights(keep);
  for (size_t i = 0; i < keep; ++i)
    total += weights[i] = std::exp((candidates_[i].first - best) / options_.temperature);
  if (options_.top_p < 1) {
    double mass = 0;
    size_t n = 0;
    while (n < keep && mass < options_.top_p * total) mass += weights[n++];
    keep = std::max<size_t>(n, 1);
  }
  if (options_.min_p > 0) {
    size_t n = 1;
    while (n < keep && weights[n] >= options_.min_p) ++n;  // weights are relative to the best already
    keep = n;
  }
  total = 0;
  for (size_t i = 0; i < keep; ++i) total += weights[i];
  double draw = random_.uniform() * total;
  for (size_t i = 0; i < keep; ++i) {
    draw -= weights[i];
    if (draw < 0) return candidates_[i].second;
  }
  return candidates_[keep - 1].second;
}

}  // namespace thimble
