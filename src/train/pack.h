#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/distillation.h"
#include "train/batch.h"

namespace thimble {

// One encoded row of training data.
struct TrainRow {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> trained;  // [tokens] 1: the model learns to write this token from those before it
  int row = 0;                   // its number in the data file, for messages
  std::vector<float> weights;    // [tokens] of the trained tokens' losses, above 0; empty: 1 each
  double weight = 1;             // preference tuning: what the answer, or the pair of which it is the first, counts
  bool wanted = true;            // false: preference tuning makes this answer less likely
  std::vector<std::vector<TeacherToken>> teacher{};  // distillation from a file: of each trained token, in their order
  size_t answer = 0;  // on-policy distillation: where the answer begins, what stands before it is the prompt
};

// Positions that a row's loss needs: those before its last trained token. What follows is never computed.
int64_t computed_tokens(const TrainRow& row);
int64_t trained_tokens(const TrainRow& row);
double trained_weight(const TrainRow& row);  // the sum of its trained tokens' weights

// Rows (indices into the data) that go through the model together, as a tree of what they share (prefix_tree.h).
struct MicroBatch {
  std::vector<int> rows;
  int64_t tokens = 0;  // computed: what several rows begin with counts once
};

// The micro-batches whose gradients one optimizer step adds up.
struct StepPlan {
  std::vector<MicroBatch> micro_batches;
  int64_t tokens = 0;
  int64_t trained = 0;
  double weight = 0;  // of the trained tokens: what the step's loss is normalised by
};

// Packing of one pass over the data: rows shuffled by seed and epoch, batch_rows of them a step (the last step of
// an epoch takes what is left), a step's rows packed into micro-batches of at most token_budget tokens beside what
// they share. No row is split and nothing is padded; a row longer than the budget goes alone unless others begin like
// it. Sharing never looks beyond a step, so shuffling stays what it was. The same arguments give the same plan.
// `together` neighbours in the data (a right and a wrong answer, say) are one row to batch_rows, to the shuffle and to
// the micro-batches. Throws Error, naming the row, where one has no trained token or unequal lengths of tokens and
// trained.
std::vector<StepPlan> pack_epoch(std::span<const TrainRow> rows, int batch_rows, int64_t token_budget, uint64_t seed,
                                 int epoch, int together = 1);
// The same of some of the rows alone, by their index.
std::vector<StepPlan> pack_epoch_of(std::span<const int> chosen, std::span<const TrainRow> rows, int batch_rows,
                                    int64_t token_budget, uint64_t seed, int epoch);

// All rows as one step, packed in the same way.
StepPlan pack_step(std::span<const TrainRow> rows, int64_t token_budget);

// The same packing in the order of the data and with no notion of steps, for evaluation.
std::vector<MicroBatch> pack_in_order(std::span<const TrainRow> rows, int64_t token_budget, int together = 1);

TrainBatch make_batch(std::span<const TrainRow> rows, const MicroBatch& micro_batch);

}  // namespace thimble
