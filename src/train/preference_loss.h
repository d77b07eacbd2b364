#pragma once

#include <cstdint>

namespace thimble {

// Losses that learn from what is better and what is worse. All are functions of answers' log-probabilities, log p, the
// sum over an answer's tokens; with what the model before the first step gave, log p_ref, a reward is
// beta · (log p - log p_ref). Values and gradients are those of TRL's trainers.
enum class PreferenceLoss {
  kDpo,   // -log sigmoid(reward of the right answer - of the wrong one) (Rafailov et al. 2023, arXiv 2305.18290)
  kIpo,   // (difference of the log-ratios a token - 1 / (2 beta))^2 (Azar et al. 2023, arXiv 2310.12036)
  kOrpo,  // the right answer's cross-entropy - lambda · log sigmoid(log odds ratio), of log p a token; needs no
          // reference (Hong et al. 2024, arXiv 2403.07691)
  kKto,   // of single answers that are wanted or not (Ethayarajh et al. 2024, arXiv 2402.01306)
};

struct PreferenceConfig {
  PreferenceLoss loss = PreferenceLoss::kDpo;
  double beta = 0.1;           // DPO, IPO, KTO: how strongly the reference holds
  double label_smoothing = 0;  // DPO: share of pairs that are taken to be the wrong way round (conservative DPO)
  double sft_weight = 0;       // DPO, IPO: of the right answers' cross-entropy, added (TRL's rpo_alpha)
  double lambda = 0.1;         // ORPO: of the odds ratio beside the cross-entropy (TRL's beta)
  double desirable_weight = 1, undesirable_weight = 1;  // KTO

  bool pairs() const { return loss != PreferenceLoss::kKto; }
  bool has_reference() const { return loss != PreferenceLoss::kOrpo; }
  // Of the right answers' cross-entropy, a mean over their tokens in the optimizer step.
  double cross_entropy() const { return loss == PreferenceLoss::kOrpo ? 1 : sft_weight; }
};

// One answer as the model rates it.
struct AnswerScore {
  double log_prob = 0;   // summed over its tokens
  double reference = 0;  // likewise, before the first step
  int64_t tokens = 0;
};

// A pair's loss, without the cross-entropy, and its derivatives with respect to the two log_prob.
struct PairLoss {
  double loss = 0;
  double chosen_slope = 0, rejected_slope = 0;
  double chosen_reward = 0, rejected_reward = 0;
};
PairLoss pair_loss(const PreferenceConfig& config, const AnswerScore& chosen, const AnswerScore& rejected);

// A single answer's. `drift` is how far the model has moved from the reference on the whole: the mean of log p -
// log p_ref over answers that were written to other prompts, not below 0; no gradient flows through it.
struct AnswerLoss {
  double loss = 0;
  double slope = 0;
  double reward = 0;
};
AnswerLoss answer_loss(const PreferenceConfig& config, const AnswerScore& answer, bool wanted, double drift);

}  // namespace thimble
