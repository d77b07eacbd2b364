#include "train/preference.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace thimble {
namespace {

size_t first_trained(const TrainRow& row) {
  return static_cast<size_t>(std::find(row.trained.begin() + 1, row.trained.end(), 1) - row.trained.begin());
}

bool same_prompt(const TrainRow& a, const TrainRow& b) {
  const size_t length = first_trained(a);
  return length == first_trained(b) && std::equal(a.tokens.begin(), a.tokens.begin() + static_cast<int64_t>(length),
                                                  b.tokens.begin());
}

// Each row's prompt with the answer of the nearest row before it, around the beginning, that answers another prompt;
// cut where it would be longer than any row.
std::vector<TrainRow> mismatch(std::span<const TrainRow> rows) {
  std::vector<TrainRow> out;
  size_t longest = 0;
  for (const TrainRow& row : rows) longest = std::max(longest, row.tokens.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    size_t other = i;
    do other = (other + rows.size() - 1) % rows.size();
    while (other != i && same_prompt(rows[other], rows[i]));
    TrainRow row = rows[i];
    const size_t prompt = first_trained(row);
    row.tokens.resize(prompt);
    row.trained.resize(prompt);
    row.weights.clear();
    for (size_t t = first_trained(rows[other]); t < rows[other].tokens.size() && row.tokens.size() < longest; ++t) {
      row.tokens.push_back(rows[other].tokens[t]);
      row.trained.push_back(rows[other].trained[t]);
    }
    out.push_back(std::move(row));
  }
  return out;
}

}  // namespace

std::vector<double> answer_log_probs(TrainOps& ops, std::span<const TrainRow> rows, int64_t token_budget,
                                     const std::function<bool(int64_t tokens)>& go_on) {
  std::vector<double> sums(rows.size());
  for (const MicroBatch& micro : pack_in_order(rows, token_budget)) {
    if (go_on && !go_on(micro.tokens)) break;
    const TrainBatch batch = make_batch(rows, micro);
    ops.loss(batch, [&](std::span<const float> losses, std::span<float>) {
      for_trained(batch, [&](size_t at, size_t, int row) { sums[static_cast<size_t>(row)] -= losses[at]; });
      return 0.0;
    });
  }
  return sums;
}

Preference::Preference(const PreferenceConfig& config, std::span<const TrainRow> rows, int64_t token_budget)
    : config_(config), rows_(rows), token_budget_(token_budget), reference_(rows.size()) {
  if (config.loss == PreferenceLoss::kKto) mismatched_ = mismatch(rows);
  mismatched_reference_.resize(mismatched_.size());
}

bool Preference::measure_reference(TrainOps& ops, const ProgressFn& progress, const std::atomic<bool>* cancelled) {
  if (!config_.has_reference()) return true;
  double total = 0, done = 0;
  for (const auto rows : {rows_, std::span<const TrainRow>(mismatched_)})
    for (const MicroBatch& micro : pack_in_order(rows, token_budget_)) total += static_cast<double>(micro.tokens);
  bool whole = true;
  const auto go_on = [&](int64_t tokens) {
    if (cancelled != nullptr && cancelled->load()) whole = false;
    if (whole && progress)
      progress({"reference", done, total, "tokens", "what the model answers before its first step"});
    done += static_cast<double>(tokens);
    return whole;
  };
  reference_ = answer_log_probs(ops, rows_, token_budget_, go_on);
  mismatched_reference_ = answer_log_probs(ops, mismatched_, token_budget_, go_on);
  return whole;
}

void Preference::begin(TrainOps& ops, std::span<const MicroBatch> step) {
  count_ = right_tokens_ = drift_ = 0;
  loss_ = told_apart_ = wanted_reward_ = unwanted_reward_ = 0;
  wanted_ = unwanted_ = 0;
  std::vector<TrainRow> others;
  for (const MicroBatch& micro : step)
    for (const int index : micro.rows) {
      const TrainRow& row = rows_[static_cast<size_t>(index)];
      if (row.wanted || !config_.pairs()) count_ += row.weight;
      if (row.wanted) right_tokens_ += trained_weight(row);
      if (config_.pairs()) continue;
      others.push_back(mismatched_[static_cast<size_t>(index)]);
      drift_ -= mismatched_reference_[static_cast<size_t>(index)];
    }
  if (others.empty()) return;
  for (const double log_prob : answer_log_probs(ops, others, token_budget_)) drift_ += log_prob;
  drift_ = std::max(0.0, drift_ / static_cast<double>(others.size()));
}

LossOfTokens Preference::loss_of(const TrainBatch& batch) {
  return [this, &batch](std::span<const float> losses, std::span<float> weights) {
    return combine(batch, losses, weights);
  };
}

// What each row's answer counts, its derivative by the row's log-probability, goes to all its tokens alike.
double Preference::combine(const TrainBatch& batch, std::span<const float> losses, std::span<float> weights) {
  std::map<int, AnswerScore> answers;
  for_trained(batch, [&](size_t at, size_t, int row) {
    AnswerScore& answer = answers[row];
    answer.log_prob -= losses[at];
    answer.reference = reference_[static_cast<size_t>(row)];
    ++answer.tokens;
  });
  std::map<int, double> slopes;
  double sum = 0;
  for (const auto& [row, answer] : answers) {
    const double weight = rows_[static_cast<size_t>(row)].weight;
    if (!config_.pairs()) {
      const bool wanted = rows_[static_cast<size_t>(row)].wanted;
      const AnswerLoss part = answer_loss(config_, answer, wanted, drift_);
      slopes[row] = weight * part.slope;
      sum += weight * part.loss;
      const bool above = part.reward > config_.beta * drift_;
      told_apart_ += above == wanted ? 1 : 0;
      (wanted ? wanted_reward_ : unwanted_reward_) += part.reward;
      ++(wanted ? wanted_ : unwanted_);
    } else if (row % 2 == 0) {
      const PairLoss part = pair_loss(config_, answer, answers.at(row + 1));
      slopes[row] = weight * part.chosen_slope;
      slopes[row + 1] = weight * part.rejected_slope;
      sum += weight * part.loss;
      told_apart_ += part.chosen_reward > part.rejected_reward ? 1 : 0;
      wanted_reward_ += part.chosen_reward;
      unwanted_reward_ += part.rejected_reward;
      ++wanted_, ++unwanted_;
    }
  }
  for_trained(batch, [&](size_t at, size_t, int row) { weights[at] = static_cast<float>(-slopes.at(row) / count_); });
  const double loss = sum / count_ + cross_entropy(batch, losses, weights);
  loss_ += loss;
  return loss;
}

double Preference::cross_entropy(const TrainBatch& batch, std::span<const float> losses,
                                 std::span<float> weights) const {
  if (config_.cross_entropy() == 0 || !config_.pairs()) return 0;
  double sum = 0;
  for_trained(batch, [&](size_t at, size_t token, int row) {
    if (!rows_[static_cast<size_t>(row)].wanted) return;
    const double weight = config_.cross_entropy() * batch.weights[token] / right_tokens_;
    weights[at] += static_cast<float>(weight);
    sum += weight * losses[at];
  });
  return sum;
}

PreferenceMeasure Preference::measured() const {
  const auto mean = [](double sum, int64_t count) { return count == 0 ? 0 : sum / static_cast<double>(count); };
  return {loss_, mean(told_apart_, config_.pairs() ? wanted_ : wanted_ + unwanted_),
          mean(wanted_reward_, wanted_) - mean(unwanted_reward_, unwanted_)};
}

PreferenceMeasure Preference::evaluate(TrainOps& ops) {
  const auto plan = pack_in_order(rows_, token_budget_, config_.pairs() ? 2 : 1);
  begin(ops, plan);
  for (const MicroBatch& micro : plan) {
    const TrainBatch batch = make_batch(rows_, micro);
    ops.loss(batch, loss_of(batch));
  }
  return measured();
}

}  // namespace thimble
