#include "train/preference_loss.h"

#include <algorithm>
#include <cmath>

namespace thimble {
namespace {

double sigmoid(double x) { return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x)); }
double log_sigmoid(double x) { return std::min(x, 0.0) - std::log1p(std::exp(-std::abs(x))); }

// log(p / (1 - p)) of a probability a token given by its logarithm, and its slope
struct LogOdds {
  double value, slope;
};
LogOdds log_odds(double log_p) {
  // An answer that is certain in single precision would have infinite odds.
  const double rest = -std::expm1(std::min(log_p, -1e-7));
  return {log_p - std::log(rest), 1 / rest};
}

double a_token(double sum, const AnswerScore& answer) {
  return sum / static_cast<double>(std::max<int64_t>(answer.tokens, 1));
}

}  // namespace

PairLoss pair_loss(const PreferenceConfig& config, const AnswerScore& chosen, const AnswerScore& rejected) {
  PairLoss out;
  switch (config.loss) {
    case PreferenceLoss::kDpo: {
      out.chosen_reward = config.beta * (chosen.log_prob - chosen.reference);
      out.rejected_reward = config.beta * (rejected.log_prob - rejected.reference);
      const double margin = out.chosen_reward - out.rejected_reward, smoothing = config.label_smoothing;
      out.loss = -(1 - smoothing) * log_sigmoid(margin) - smoothing * log_sigmoid(-margin);
      out.chosen_slope = config.beta * (smoothing * sigmoid(margin) - (1 - smoothing) * sigmoid(-margin));
      out.rejected_slope = -out.chosen_slope;
      return out;
    }
    case PreferenceLoss::kIpo: {
      const double right = a_token(chosen.log_prob - chosen.reference, chosen);
      const double wrong = a_token(rejected.log_prob - rejected.reference, rejected);
      const double distance = right - wrong - 1 / (2 * config.beta);
      out.loss = distance * distance;
      out.chosen_slope = a_token(2 * distance, chosen);
      out.rejected_slope = a_token(-2 * distance, rejected);
      out.chosen_reward = config.beta * right;
      out.rejected_reward = config.beta * wrong;
      return out;
    }
    case PreferenceLoss::kOrpo: {
      const double right = a_token(chosen.log_prob, chosen), wrong = a_token(rejected.log_prob, rejected);
      const LogOdds right_odds = log_odds(right), wrong_odds = log_odds(wrong);
      const double ratio = right_odds.value - wrong_odds.value;
      out.loss = -config.lambda * log_sigmoid(ratio);
      const double slope = -config.lambda * sigmoid(-ratio);
      out.chosen_slope = a_token(slope * right_odds.slope, chosen);
      out.rejected_slope = a_token(-slope * wrong_odds.slope, rejected);
      out.chosen_reward = config.lambda * right;
      out.rejected_reward = config.lambda * wrong;
      return out;
    }
    case PreferenceLoss::kKto:
      break;
  }
  return out;
}

AnswerLoss answer_loss(const PreferenceConfig& config, const AnswerScore& answer, bool wanted, double drift) {
  const double ratio = answer.log_prob - answer.reference;
  const double sign = wanted ? 1 : -1, weight = wanted ? config.desirable_weight : config.undesirable_weight;
  const double gain = sigmoid(sign * config.beta * (ratio - drift));
  return {.loss = weight * (1 - gain),
          .slope = -weight * sign * config.beta * gain * (1 - gain),
          .reward = config.beta * ratio};
}

}  // namespace thimble
