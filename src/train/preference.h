#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/progress.h"
#include "train/pack.h"
#include "train/preference_loss.h"
#include "train/train_ops.h"

namespace thimble {

// How well answers are told apart.
struct PreferenceMeasure {
  double loss = 0;      // mean over pairs, or over single answers, by weight; with the cross-entropy that is added
  double accuracy = 0;  // share of pairs whose right answer has the higher reward; of single answers, of those whose
                        // reward is on its side of the drift's
  double margin = 0;    // mean reward of what is right less that of what is wrong
};

// Preference tuning of a set of rows: neighbours 2i and 2i + 1 are a right and a wrong answer to the same (pairs), or
// every row is an answer of its own, wanted or not (KTO). The log-probability of an answer is the sum of its tokens'
// losses, so the derivative of a loss of log-probabilities is but a weight on those: one recorded pass serves, and a
// prompt that both answers share is computed once. The weights of rows' tokens count in the cross-entropy alone.
class Preference {
 public:
  Preference(const PreferenceConfig& config, std::span<const TrainRow> rows, int64_t token_budget);

  // The answers' log-probabilities as the model stands now, which is to be before its first step: whatever is trained,
  // an adapter that goes on from another or all weights, that is what rewards compare with. False where cancelled.
  bool measure_reference(TrainOps& ops, const ProgressFn& progress = {}, const std::atomic<bool>* cancelled = nullptr);

  // To be called before a step's first micro-batch (or before several that are one loss). For KTO it measures the
  // drift: the step's prompts with other rows' answers.
  void begin(TrainOps& ops, std::span<const MicroBatch> step);
  // The batch's share of the step's mean loss. Must be used before the batch is gone, and not after the next begin().
  LossOfTokens loss_of(const TrainBatch& batch);
  // Over what went through the losses since begin().
  PreferenceMeasure measured() const;

  // Begin, all rows without gradients, measured.
  PreferenceMeasure evaluate(TrainOps& ops);

 private:
  double combine(const TrainBatch& batch, std::span<const float> losses, std::span<float> weights);
  double cross_entropy(const TrainBatch& batch, std::span<const float> losses, std::span<float> weights) const;

  PreferenceConfig config_;
  std::span<const TrainRow> rows_;
  int64_t token_budget_;
  std::vector<double> reference_;             // [rows]
  std::vector<TrainRow> mismatched_;          // KTO: each row's prompt with another row's answer
  std::vector<double> mismatched_reference_;  // [rows]

  // Of the step that is on its way.
  double count_ = 0;         // the weights of pairs, or of single answers
  double right_tokens_ = 0;  // the weights of the right answers' tokens
  double drift_ = 0;
  double loss_ = 0, told_apart_ = 0, wanted_reward_ = 0, unwanted_reward_ = 0;
  int64_t wanted_ = 0, unwanted_ = 0;
};

// The sum of each row's trained tokens' log-probabilities, in the order of the rows, computed in batches.
std::vector<double> answer_log_probs(TrainOps& ops, std::span<const TrainRow> rows, int64_t token_budget,
                                     const std::function<bool(int64_t tokens)>& go_on = {});

}  // namespace thimble
