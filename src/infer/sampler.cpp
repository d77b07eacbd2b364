#include "infer/sampler.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <numeric>

namespace thimble {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Tries before the mask is made. Where a text must end, the way to end it is seldom the likeliest token but rarely
// below the 40th; a draw looks at the whole row, so that a few cost as much as most masks.
constexpr int kLikeliest = 64, kDraws = 4;

// The most likely allowed token; the first allowed one where a broken model gives none a likelihood.
int32_t most_likely(std::span<const float> row, std::span<const uint32_t> allowed) {
  if (const int32_t best = argmax(row, allowed); best >= 0) return best;
  size_t first = 0;
  while (first < row.size() && !is_allowed(allowed, static_cast<int64_t>(first))) ++first;
  assert(first < row.size());
  return static_cast<int32_t>(first);
}

double mass_of(std::span<const Candidate> candidates, double top) {
  double total = 0;
  for (const Candidate& c : candidates) total += std::exp(c.logit - top);
  return total;
}

}  // namespace

void forbid(std::vector<uint32_t>& allowed, size_t vocab, std::span<const int32_t> tokens) {
  std::vector<uint32_t> left = allowed;
  const size_t words = (vocab + 31) / 32;
  if (left.empty()) left.assign(words, ~0u);
  std::fill(left.begin() + static_cast<std::ptrdiff_t>(words), left.end(), 0u);
  if (vocab % 32 != 0) left[words - 1] &= (1u << (vocab % 32)) - 1;
  for (const int32_t token : tokens)
    if (static_cast<size_t>(token) < vocab) left[static_cast<size_t>(token / 32)] &= ~(1u << (token % 32));
  if (std::any_of(left.begin(), left.end(), [](uint32_t word) { return word != 0; })) allowed = std::move(left);
}

Sampler::Sampler(SamplingOptions options, SequenceBreakers breakers)
    : options_(std::move(options)),
      breakers_(std::move(breakers)),
      penalizes_(options_.penalizes()),
      history_(static_cast<size_t>(options_.repeat_window)),
      random_(options_.seed) {}

void Sampler::prime(std::span<const int32_t> prompt) {
  if (penalizes_) history_.prime(prompt);
}
void Sampler::accept(int32_t token) {
  if (penalizes_) history_.accept(token);
}
void Sampler::take_back(size_t count) {
  if (penalizes_) history_.take_back(count);
}

int32_t Sampler::sample(std::span<const float> logits, std::span<const uint32_t> allowed) {
  const std::span<const float> row = adjust(logits);
  if (options_.temperature <= 0) return most_likely(row, allowed);
  const double uniform = random_.uniform();
  stretch_tops(row, allowed, tops_);
  const float top = *std::max_element(tops_.begin(), tops_.end());
  if (!std::isfinite(top)) return most_likely(row, allowed);
  if (!filter(row, allowed, top)) return draw_from_row(row, allowed, top, uniform);
  double left = uniform * weigh();
  int32_t token = -1;
  for (size_t i = 0; i < candidates_.size() && left >= 0; ++i) {
    if (weights_[i] <= 0) continue;  // too unlikely for a double
    token = candidates_[i].token;
    left -= weights_[i];
  }
  return token;
}

int32_t Sampler::sample(std::span<const float> logits, const std::function<bool(int32_t)>& allows,
                        const std::function<std::span<const uint32_t>()>& mask) {
  if (options_.temperature <= 0) {
    const std::span<const float> row = adjust(logits);
    if (const int32_t token = most_likely(row, {}); allows(token)) return token;
    for (const Candidate& c : top_k(row, kLikeliest))
      if (c.logit > -kInfinity && allows(c.token)) return c.token;
  } else if (!options_.filters()) {
    for (int i = 0; i < kDraws; ++i)
      if (const int32_t token = sample(logits, {}); allows(token)) return token;
  }
  const std::span<const uint32_t> allowed = mask();
  const bool any = std::any_of(allowed.begin(), allowed.end(), [](uint32_t word) { return word != 0; });
  return any ? sample(logits, allowed) : -1;
}

std::vector<TokenProbability> Sampler::distribution(std::span<const float> logits, std::span<const uint32_t> allowed) {
  const std::span<const float> row = adjust(logits);
  stretch_tops(row, allowed, tops_);
  const float top = *std::max_element(tops_.begin(), tops_.end());
  if (options_.temperature <= 0 || !std::isfinite(top)) return {{most_likely(row, allowed), 1.0}};
  if (!filter(row, allowed, top)) {
    candidates_.clear();
    collect(row, allowed, tops_, -kInfinity, kInfinity, candidates_);
  }
  const double total = weigh();
  std::vector<TokenProbability> out;
  for (size_t i = 0; i < candidates_.size(); ++i)
    if (weights_[i] > 0) out.push_back({candidates_[i].token, weights_[i] / total});
  return out;
}

// Steps 1 to 4: bias and penalties, on a copy of the logits where there are any.
std::span<const float> Sampler::adjust(std::span<const float> logits) {
  if (!penalizes_ && options_.logit_bias.empty()) return logits;
  row_.assign(logits.begin(), logits.end());
  for (const TokenBias& b : options_.logit_bias) row_[static_cast<size_t>(b.token)] += b.bias;
  if (options_.repeat_penalty != 1)
    for (const auto& [token, count] : history_.recent()) {
      float& logit = row_[static_cast<size_t>(token)];
      logit = logit > 0 ? logit / options_.repeat_penalty : logit * options_.repeat_penalty;
    }
  if (options_.presence_penalty != 0 || options_.frequency_penalty != 0)
    for (const auto& [token, count] : history_.answer())
      row_[static_cast<size_t>(token)] -=
          options_.presence_penalty + options_.frequency_penalty * static_cast<float>(count);
  if (options_.dry_multiplier > 0) {
    const std::span<const int32_t> tokens = history_.tokens();
    const auto window = static_cast<size_t>(options_.dry_window);
    apply_dry(window > 0 && window < tokens.size() ? tokens.last(window) : tokens,
              {options_.dry_multiplier, options_.dry_base, options_.dry_allowed_length}, breakers_, row_);
  }
  return row_;
}

// Keeps the fewest candidates, smallest keys first and of equal keys the lower ids, whose weights exp(logit - top)
// reach `mass`, in the order in which they stand. Halves the search for the last of them, so that nothing is sorted.
template <class Key>
void Sampler::keep_mass(double top, double mass, const Key& key) {
  if (candidates_.empty()) return;
  const auto before = [](const Ranked& a, const Ranked& b) {
    return a.key != b.key ? a.key < b.key : a.token < b.token;
  };
  ranked_.clear();
  for (const Candidate& c : candidates_) ranked_.push_back({key(c), c.token, std::exp(c.logit - top)});
  auto first = ranked_.begin(), last = ranked_.end();
  while (last - first > 1) {
    const auto middle = first + (last - first) / 2;
    std::nth_element(first, middle, last, before);
    double lower = 0;
    for (auto r = first; r != middle; ++r) lower += r->weight;
    if (lower >= mass) {
      last = middle;
    } else {
      mass -= lower;
      first = middle;
    }
  }
  const Ranked boundary = *first;
  std::erase_if(candidates_, [&](const Candidate& c) { return before(boundary, {key(c), c.token, 0}); });
}

// Steps 5 to 8: leaves in candidates_ what may be drawn; false where that is the whole row, which is then not listed.
// `top` is the row's largest logit. Without top-k the filters work on what can get through them: first the tokens
// near the best (or the most typical) logit are collected, further and further around it until they hold enough of the
// whole row's probability.
bool Sampler::filter(std::span<const float> row, std::span<const uint32_t> allowed, float top) {
  const bool typical = options_.typical < 1, top_p = options_.top_p < 1, min_p = options_.min_p > 0;
  bool listed = options_.top_k > 0;
  if (listed) candidates_ = top_k(row, options_.top_k, allowed, tops_);
  if (!listed && !typical && !top_p && !min_p) return false;

  double total = 0;  // the weight of all that is left so far
  if (!listed && (typical || top_p)) {
    stretch_weights(row, allowed, top, 1, sums_);
    total = std::accumulate(sums_.begin(), sums_.end(), 0.0);
  }
  // Doubles the reach until it holds the mass, then takes half of the last step back where that does as well: listing
  // and ranking candidates costs far more than weighing them.
  const auto collect_around = [&](float center, bool both_sides, double mass) {
    const auto high = [&](float reach) { return both_sides ? center + reach : kInfinity; };
    const auto holds = [&](float reach) {
      return weight_within(row, allowed, tops_, top, center - reach, high(reach)) >= mass;
    };
    float reach = 0.5f;
    while (reach < 256 && !holds(reach)) reach *= 2;
    for (float back = reach / 4; back > reach / 32; back /= 2)
      if (holds(reach - back)) reach -= back;
    for (; reach <= 512; reach *= 2) {  // once, but for rounding
      candidates_.clear();
      collect(row, allowed, tops_, center - reach, high(reach), candidates_);
      if (mass_of(candidates_, top) >= mass) return;
    }
  };
  if (typical) {
    double center = 0;  // -log p is as far from the entropy as the logit is from its mean
    if (listed) {
      total = mass_of(candidates_, top);
      for (const Candidate& c : candidates_) center += std::exp(c.logit - top) / total * c.logit;
    } else {
      center = mean_logit(row, allowed, top);
      collect_around(static_cast<float>(center), true, options_.typical * total);
    }
    keep_mass(top, options_.typical * total, [&](const Candidate& c) { return std::abs(c.logit - center); });
    listed = true;
  }
  if (top_p) {
    if (listed)
      total = mass_of(candidates_, top);
    else
      collect_around(top, false, options_.top_p * total);
    keep_mass(top, options_.top_p * total, [](const Candidate& c) { return -static_cast<double>(c.logit); });
    listed = true;
  }
  if (min_p) {
    if (!listed) {
      candidates_.clear();
      collect(row, allowed, tops_, top + std::log(options_.min_p) - 0.01f, kInfinity, candidates_);
    }
    float best = -kInfinity;
    for (const Candidate& c : candidates_) best = std::max(best, c.logit);
    std::erase_if(candidates_,
                  [&](const Candidate& c) { return std::exp(static_cast<double>(c.logit) - best) < options_.min_p; });
  }
  return true;
}

// Step 9: the candidates' weights at the temperature; gives their sum.
double Sampler::weigh() {
  float best = -kInfinity;
  for (const Candidate& c : candidates_) best = std::max(best, c.logit);
  weights_.clear();
  double total = 0;
  for (const Candidate& c : candidates_) {
    weights_.push_back(std::exp((static_cast<double>(c.logit) - best) / options_.temperature));
    total += weights_.back();
  }
  return total;
}

// Steps 9 and 10 where every token may be drawn: finds the stretch where the running sum of weights passes the drawn
// number, then the token in it.
int32_t Sampler::draw_from_row(std::span<const float> row, std::span<const uint32_t> allowed, float top,
                               double uniform) {
  const float scale = std::min(1 / options_.temperature, 1e30f);  // a difference of 0 stays 0
  stretch_weights(row, allowed, top, scale, sums_);
  double left = uniform * std::accumulate(sums_.begin(), sums_.end(), 0.0);
  size_t stretch = 0, likely = 0;
  for (; stretch < sums_.size() && left >= sums_[stretch]; ++stretch) {
    left -= sums_[stretch];
    if (sums_[stretch] > 0) likely = stretch;
  }
  if (stretch == sums_.size()) stretch = likely;  // the sum was rounded
  int32_t token = -1;
  const size_t end = std::min(row.size(), (stretch + 1) * kStretch);
  for (size_t i = stretch * kStretch; i < end && (left >= 0 || token < 0); ++i) {
    if (!is_allowed(allowed, static_cast<int64_t>(i)) || !(row[i] > -kInfinity)) continue;
    const double weight = std::exp(static_cast<double>((row[i] - top) * scale));
    if (weight <= 0) continue;
    token = static_cast<int32_t>(i);
    left -= weight;
  }
  return token;
}

}  // namespace thimble
