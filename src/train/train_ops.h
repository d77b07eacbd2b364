#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kernels/attention_tiles.h"
#include "kernels/gemm.h"
#include "kernels/rope.h"
#include "models/model.h"
#include "models/ops.h"
#include "train/batch.h"
#include "train/tape.h"
#include "train/trainable.h"

namespace thimble {

// A number of blocks that no model has.
inline constexpr int kAllBlocks = 1 << 30;

// A loss that is no plain sum: made from the losses of a batch's trained tokens, in the batch's order. Returns its
// value and writes its derivative with respect to each of them, which is the weight of that token's gradient.
using LossOfTokens = std::function<double(std::span<const float> losses, std::span<float> weights)>;

// What a loss of any kind is made from: the trained rows of a batch as they stand before the head.
struct HeadRows {
  GemmPrecision precision = GemmPrecision::kBF16;
  const float* hidden = nullptr;  // [rows, hidden]
  int64_t rows = 0;
  std::span<const int32_t> targets;  // [rows]
  std::span<const float> weights;    // [rows], over the normalizer
  const Tensor* head = nullptr;      // [vocab, hidden]
  float* dhidden = nullptr;          // [rows, hidden], to be written; null where nothing below is trained
  float* dhead = nullptr;            // [vocab, hidden], to be added to; null where the head is frozen
};
using HeadLoss = std::function<double(const HeadRows& rows)>;

// The weighted sum of the tokens' cross-entropies, which `losses` gets one by one, not weighted; null: not wanted.
HeadLoss cross_entropy_loss(std::vector<float>* losses = nullptr);

// Computes a model's calls with the training kernels and records what backward needs. Made once for a run; every
// batch goes through one of the calls below. Gradients are made only for what is trained and for the activations above
// the lowest of it.
class TrainOps final : public Ops {
 public:
  struct Options {
    GemmPrecision precision = GemmPrecision::kBF16;  // kF32 where the machine has no bfloat16 products
    // Of so many of the first blocks only the input stays in memory between the forward and the backward pass, and
    // their inside runs a second time (Chen et al. 2016, arXiv 1604.06174); of the others what backward reads. The
    // first, because the others' memory is free again when their turn comes. Gradients are the same to the bit.
    int recomputed_blocks = 0;
    uint64_t dropout_seed = 0;
    // Noise on embeddings while training, uniform within neftune / sqrt(row's length · width) (Jain et al. 2023, arXiv
    // 2310.05914); drawn once for tokens that rows share, by the length of the first of them. 0: none.
    float neftune = 0;
  };
  // Where nothing is trained, losses are the base model's.
  TrainOps(const Model& model, const Trained& trained, Options options);
  ~TrainOps() override;

  // Weighted sum of the batch's token losses over `normalizer` (the weights of the whole optimizer step), added to
  // the parameters' gradients. dropout_step makes the dropped elements differ between micro-batches.
  double loss_and_gradients(const TrainBatch& batch, double normalizer, uint64_t dropout_step = 0);
  double loss(const TrainBatch& batch, double normalizer);  // the same without gradients and dropout
  double loss_and_gradients(const TrainBatch& batch, const LossOfTokens& loss, uint64_t dropout_step = 0);
  double loss(const TrainBatch& batch, const LossOfTokens& loss);
  double loss_and_gradients(const TrainBatch& batch, double normalizer, const HeadLoss& loss,
                            uint64_t dropout_step = 0);
  double loss(const TrainBatch& batch, double normalizer, const HeadLoss& loss);
  Buffer<float> trained_hidden(const TrainBatch& batch);  // [trained tokens, hidden] before the head, in their order
  Buffer<float> logits(const TrainBatch& batch);            // [tokens, vocab], for tests

  GemmPrecision precision() const { return options_.precision; }
  size_t buffer_bytes() const { return pool_.allocated_bytes(); }
  void set_op_seconds(OpSeconds* seconds) { op_seconds_ = seconds; }  // for the benchmark; null: not measured

  using Ops::linear;
  Act embed(const Param& table) override;
  Act embed_positions(const Param& table) override;
  Act rms_norm(const Act& x, const Param& weight, float eps) override;
  Act layer_norm(const Act& x, const Param& weight, const Param& bias, float eps) override;
  std::vector<Act> linear(const Act& x, std::span<const Linear* const> layers) override;
  Act rope(Act x, const Rope& rope) override;
  Act attention(const Act& q, const Act& k, const Act& v, int layer, const AttentionShape& shape) override;
  Act swiglu(const Act& gate, const Act& up) override;
  Act gelu(const Act& x) override;
  Act add(const Act& a, const Act& b) override;
  Act block(const Act& x, const std::function<Act(const Act&)>& body) override;

 private:
  ValuePtr make(int64_t rows, int64_t cols);
  bool records(const Value& output) const { return recording_ && output.needs_grad; }
  const float* values(const Tensor& stored);    // of a norm's weight or a bias, trained or not
  float* gradients(const Tensor& stored) const;  // null where it is not trained
  Tensor factor(const Tensor& stored) const;     // what products read in its place
  GemmInput product_input(Value& x);
  bool drops() const { return dropping_ && trained_.lora != nullptr && trained_.lora->config().dropout > 0; }
  ValuePtr stretched(const LoraLayer& layer, const ValuePtr& z);
  ValuePtr adapted_linear(const LoraLayer& layer, const ValuePtr& x);
  ValuePtr adapted_linear_with_dropout(const LoraLayer& layer, const ValuePtr& x);
  ValuePtr plain_linear(const Linear& layer, const ValuePtr& x);
  void add_bias(const Linear& layer, const ValuePtr& y);
  Act embed_rows(const Param& table, const int32_t* ids);
  void add_noise(Value& embedded) const;
  void shed(Value& value);
  Act run_block(const Act& x, const std::function<Act(const Act&)>& body);
  ValuePtr forward(const TrainBatch& batch);
  double head_loss(const ValuePtr& hidden, const TrainBatch& batch, const HeadLoss& loss, double normalizer,
                   bool backward);

  const Model& model_;
  const Trained trained_;
  Options options_;
  BufferPool pool_;
  std::map<const std::byte*, Buffer<float>> frozen_;  // norms' weights and biases as f32, by where they are stored
  std::map<const Rope*, RopeTable> rope_tables_;

  // Of the batch that is on its way through.
  const TrainBatch* batch_ = nullptr;
  std::optional<AttentionTiles> tiles_;  // of its plan, for attention in bf16
  std::vector<int32_t> positions_;
  int32_t context_ = 0;  // largest position + 1
  int block_ = 0;  // of the forward pass
  uint64_t dropout_step_ = 0;
  bool dropping_ = false;
  bool recording_ = false;
  Tape tape_;
  OpSeconds* op_seconds_ = nullptr;
  std::vector<std::weak_ptr<Value>> made_in_block_;
};

}  // namespace thimble
