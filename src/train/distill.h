#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/progress.h"
#include "kernels/distillation.h"
#include "models/model.h"
#include "train/pack.h"
#include "train/train_ops.h"

namespace thimble {

// A model to learn from, and what is put on it; neither changes.
struct Teacher {
  std::shared_ptr<const Model> model;
  std::unique_ptr<Lora> adapter;  // null: none
};

// On-policy distillation (GKD, Agarwal et al. 2023, arXiv 2306.13649): a share of the rows is learned with the
// student's own answer instead of the row's, so that the teacher judges what the student says, not what others wrote.
struct OnPolicyConfig {
  double share = 0;       // of the rows, drawn anew in every epoch
  float temperature = 1;  // of the student's answers; 0: its likeliest tokens
  int max_new_tokens = 128;
};

// Learning from a teacher's distribution at every trained token, not from the token alone (kernels/distillation.h).
struct DistillConfig {
  Divergence divergence = Divergence::kForwardKl;
  float beta = 0.5f;
  float temperature = 1;
  float weight = 1;  // of the divergence; the gold cross-entropy has the rest of 1
  // Runs beside the student, of the same vocabulary; must outlive the training. Null: rows carry what was saved.
  const Model* teacher = nullptr;
  Trained teacher_adapter;
  OnPolicyConfig on_policy;  // needs a teacher, an adapter that is trained, and TrainRow::answer
};

// The loss of batches of these rows. The teacher sees the student's own batch, shared beginnings included.
class Distiller {
 public:
  Distiller(const DistillConfig& config, std::span<const TrainRow> rows, GemmPrecision precision);
  HeadLoss loss_of(const TrainBatch& batch);  // to be used before the batch is gone

 private:
  DistillConfig config_;
  std::span<const TrainRow> rows_;
  std::unique_ptr<TrainOps> teacher_;
};

// An adapter as it was stored, for a model that is not trained. Throws Error where it is for another model.
std::unique_ptr<Lora> stored_lora(const Model& model, const LoraAdapter& adapter);

// The teacher's `top` likeliest tokens at every trained token of the rows, TrainRow::teacher of each. Batched, shared
// beginnings computed once, at most 64 MB of logits at a time.
std::vector<std::vector<std::vector<TeacherToken>>> likeliest_tokens(const Model& teacher, const Trained& adapter,
                                                                     std::span<const TrainRow> rows, int top,
                                                                     GemmPrecision precision, int64_t token_budget,
                                                                     const ProgressFn& progress = {});

// The same as a file, a JSON line a row: {"row": its number, "tokens": the trained ones, "top": [[[token, log
// probability], ...], ...]}. Reading fills the rows' `teacher`. Throws Error, naming file and row, where a row is not
// in the file or was saved with another answer, or the file is broken.
std::string teacher_to_jsonl(std::span<const TrainRow> rows,
                             std::span<const std::vector<std::vector<TeacherToken>>> teacher);
void read_teacher(const std::filesystem::path& file, std::span<TrainRow> rows, std::span<TrainRow> dev_rows = {});

}  // namespace thimble
