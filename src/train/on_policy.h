#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "infer/engine.h"
#include "kernels/gemm.h"
#include "train/distill.h"
#include "train/lora.h"
#include "train/pack.h"

namespace thimble {

// The student's answers to the prompts of training rows, by the engine that answers everywhere else. The base is packed
// once, in f32 where the training is; the adapter is packed anew for every step (about a hundredth of the work), and
// what the engine remembers of earlier ones is forgotten. Which rows are answered and how follows from seed, epoch, row
// and weights alone, so that a resumed run draws what the interrupted one would have drawn.
class StudentAnswers {
 public:
  // The adapter, which must outlive this, is read anew by every call of answer(). Throws Error where the packed model
  // does not fit into memory.
  StudentAnswers(const Model& model, const Lora& adapter, const OnPolicyConfig& config, GemmPrecision precision,
                 std::span<const TrainRow> rows, int batch_rows, uint64_t seed);

  struct Step {
    std::vector<TrainRow> rows;  // the planned ones in the order of the data, some with the student's answer
    int64_t sampled_tokens = 0;
  };
  // The rows (indices into the data) of a step of an epoch; nothing where it was cancelled on the way. An answer's
  // tokens and the end token count what the last token of the row's own answer counts; a longer one is cut and has no
  // end.
  std::optional<Step> answer(std::span<const MicroBatch> planned, int64_t epoch,
                             const std::atomic<bool>* cancelled = nullptr);

 private:
  const Lora& adapter_;
  OnPolicyConfig config_;
  std::span<const TrainRow> rows_;
  uint64_t seed_;
  std::shared_ptr<PreparedModel> prepared_;
  int number_;  // of the adapter
  Engine engine_;
};

// Positions that the loss of the row needs, with its own answer or the longest that the student may give.
int64_t most_computed_tokens(const TrainRow& row, const OnPolicyConfig& config, int64_t context);

// What the packed model and its cache will take, in bytes.
size_t student_bytes(const Model& model, const OnPolicyConfig& config, GemmPrecision precision,
                     std::span<const TrainRow> rows, int batch_rows);

}  // namespace thimble
