#include "train/train_ops.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "core/cpu.h"
#include "core/error.h"
#include "kernels/attention.h"
#include "kernels/attention_backward.h"
#include "kernels/attention_bf16.h"
#include "kernels/cross_entropy.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/gelu.h"
#include "kernels/layer_norm.h"
#include "kernels/rms_norm.h"
#include "kernels/swiglu.h"
#include "tensor/quantize.h"

namespace thimble {
namespace {

CrossEntropy cross_entropy_of(const HeadRows& rows) {
  CrossEntropy args;
  args.precision = rows.precision;
  args.hidden = rows.hidden;
  args.rows = rows.rows;
  args.targets = rows.targets.data();
  args.head = rows.head;
  args.dhidden = rows.dhidden;
  return args;
}

// A token's gradient is its weight times that of its own loss, so the head runs once for losses and gradients, unless
// its own gradient is wanted too: that is a sum over tokens.
HeadLoss combined(const LossOfTokens& loss) {
  return [&loss](const HeadRows& rows) {
    std::vector<float> losses(static_cast<size_t>(rows.rows)), weights(losses.size());
    CrossEntropy args = cross_entropy_of(rows);
    args.row_losses = losses.data();
    cross_entropy(args);
    const double value = loss(losses, weights);
    const int64_t cols = rows.head->cols();
    for (int64_t i = 0; rows.dhidden != nullptr && i < rows.rows * cols; ++i)
      rows.dhidden[i] *= weights[static_cast<size_t>(i / cols)];
    if (rows.dhead == nullptr) return value;
    args.row_weights = weights.data();
    args.dhidden = nullptr;
    args.dhead = rows.dhead;
    cross_entropy(args);
    return value;
  };
}

}  // namespace

HeadLoss cross_entropy_loss(std::vector<float>* losses) {
  return [losses](const HeadRows& rows) {
    CrossEntropy args = cross_entropy_of(rows);
    args.row_weights = rows.weights.data();
    args.dhead = rows.dhead;
    if (losses != nullptr) {
      losses->resize(static_cast<size_t>(rows.rows));
      args.row_losses = losses->data();
    }
    return cross_entropy(args);
  };
}

TrainOps::TrainOps(const Model& model, const Trained& trained, Options options)
    : model_(model), trained_(trained), options_(options) {
  if (!has_bf16_products(cpu_level())) options_.precision = GemmPrecision::kF32;
}

TrainOps::~TrainOps() { tape_.clear(); }  // before the pool that its values go back to

ValuePtr TrainOps::make(int64_t rows, int64_t cols) {
  auto value = std::make_shared<Value>(pool_);
  value->rows = rows;
  value->cols = cols;
  value->values = pool_.take(rows, cols);
  if (recording_) made_in_block_.push_back(value);
  return value;
}

const float* TrainOps::values(const Tensor& stored) {
  if (const TrainedTensor* trained = trained_.find(stored)) return trained->values.data();
  Buffer<float>& copy = frozen_[stored.data];
  if (copy.empty()) copy = dequantize(stored);
  return copy.data();
}

float* TrainOps::gradients(const Tensor& stored) const {
  const TrainedTensor* trained = trained_.find(stored);
  return trained == nullptr ? nullptr : trained->gradients.data();
}

Tensor TrainOps::factor(const Tensor& stored) const {
  const TrainedTensor* trained = trained_.find(stored);
  return trained == nullptr ? stored : trained->factor();
}

// In bf16 the rounded copy is made once for all products that read x.
GemmInput TrainOps::product_input(Value& x) {
  if (options_.precision == GemmPrecision::kF32) return {x.ensure_values(), x.rows, x.cols};
  const uint16_t* rounded = x.ensure_bf16();
  return {x.values.empty() ? nullptr : x.values.data(), x.rows, x.cols, rounded};
}

Act TrainOps::embed(const Param& table) {
  const OpTimer timer(op_seconds_, "embed");
  const int64_t vocab = table.value.rows();
  for (const int32_t token : batch_->tokens)
    if (token < 0 || token >= vocab)
      throw Error(
          fmt::format("training row has token {}, but the model's vocabulary has {} entries; encode the data "
                      "with this model's tokenizer",
                      token, vocab));
  const Act y = embed_rows(table, batch_->tokens.data());
  if (dropping_ && options_.neftune > 0) add_noise(value_of(y));
  return y;
}

Act TrainOps::embed_rows(const Param& table, const int32_t* ids) {
  ValuePtr y = make(batch_->size(), table.value.cols());
  const TrainedTensor* trained = trained_.find(table.value);
  embedding_forward(trained == nullptr ? table.value : trained->exact(), ids, y->rows, y->values.data());
  y->needs_grad = trained != nullptr;
  if (records(*y))
    tape_.record("embed", [y, ids, trained] {
      embedding_backward(y->grad.data(), ids, y->rows, y->cols, trained->gradients.data());
    });
  return y;
}

Act TrainOps::embed_positions(const Param& table) {
  const OpTimer timer(op_seconds_, "embed");
  if (context_ > table.value.rows())
    throw Error(fmt::format("a training row is longer than the model's {} positions; leave it out or cut it",
                            table.value.rows()));
  return embed_rows(table, positions_.data());
}

Act TrainOps::rms_norm(const Act& x_act, const Param& weight, float eps) {
  const OpTimer timer(op_seconds_, "norm");
  const ValuePtr x = value_ptr(x_act);
  const float* w = values(weight.value);
  float* dw = gradients(weight.value);
  ValuePtr y = make(x->rows, x->cols);
  rms_norm_forward(x->ensure_values(), w, x->rows, x->cols, eps, y->values.data());
  y->needs_grad = x->needs_grad || dw != nullptr;
  if (!records(*y)) return y;
  x->backward_reads = true;
  y->remake = [x, w, eps, to = y.get()] {
    rms_norm_forward(x->ensure_values(), w, x->rows, x->cols, eps, to->values.data());
  };
  tape_.record("norm", [x, y, w, dw, eps] {
    const auto [dx, accumulate] = x->grad_target();
    rms_norm_backward(x->ensure_values(), w, y->grad.data(), x->rows, x->cols, eps, dx, accumulate, dw);
  });
  return y;
}

Act TrainOps::layer_norm(const Act& x_act, const Param& weight, const Param& bias, float eps) {
  const OpTimer timer(op_seconds_, "norm");
  const ValuePtr x = value_ptr(x_act);
  const float* w = values(weight.value);
  const float* b = values(bias.value);
  float* dw = gradients(weight.value);
  float* db = gradients(bias.value);
  ValuePtr y = make(x->rows, x->cols);
  layer_norm_forward(x->ensure_values(), w, b, x->rows, x->cols, eps, y->values.data());
  y->needs_grad = x->needs_grad || dw != nullptr || db != nullptr;
  if (!records(*y)) return y;
  x->backward_reads = true;
  y->remake = [x, w, b, eps, to = y.get()] {
    layer_norm_forward(x->ensure_values(), w, b, x->rows, x->cols, eps, to->values.data());
  };
  tape_.record("norm", [x, y, w, dw, db, eps] {
    const auto [dx, accumulate] = x->grad_target();
    layer_norm_backward(x->ensure_values(), w, y->grad.data(), x->rows, x->cols, eps, dx, accumulate, dw, db);
  });
  return y;
}

Act TrainOps::rope(Act x_act, const Rope& rope) {
  const OpTimer timer(op_seconds_, "rope");
  const ValuePtr x = value_ptr(x_act);
  RopeTable& table = rope_tables_[&rope];
  if (table.positions() < context_)
    table = RopeTable(rope.inverse_frequencies, std::max(context_, 2 * table.positions()));
  const int heads = static_cast<int>(x->cols / rope.head_dim);
  const auto y = std::make_shared<Value>(pool_);
  y->rows = x->rows;
  y->cols = x->cols;
  y->values = std::move(x->values);  // nobody's backward reads what comes before the turn
  y->needs_grad = x->needs_grad;
  if (recording_) made_in_block_.push_back(y);
  rope_forward(y->values.data(), y->rows, heads, positions_.data(), table, y->values.data());
  if (!records(*y)) return y;
  tape_.record("rope", [this, x, y, heads, key = &rope] {
    rope_backward(y->grad.data(), y->rows, heads, positions_.data(), rope_tables_.at(key), y->grad.data());
    x->put_grad(std::move(y->grad));
  });
  return y;
}

Act TrainOps::attention(const Act& q_act, const Act& k_act, const Act& v_act, int, const AttentionShape& shape) {
  const OpTimer timer(op_seconds_, "attention");
  const ValuePtr q = value_ptr(q_act), k = value_ptr(k_act), v = value_ptr(v_act);
  ValuePtr y = make(q->rows, q->cols);
  ValuePtr lse = make(q->rows, shape.heads);
  const bool in_bf16 = options_.precision == GemmPrecision::kBF16 && has_attention_bf16(shape);
  if (in_bf16) {
    if (!tiles_) tiles_.emplace(batch_->plan, k->rows);
    attention_bf16_forward(*tiles_, {q->ensure_bf16(), k->ensure_bf16(), v->ensure_bf16()}, shape, y->values.data(),
                           lse->values.data());
  } else {
    const KeyValueRows keys{k->ensure_values(), v->ensure_values(), k->cols};
    attention_forward(q->ensure_values(), keys, batch_->plan, shape, y->values.data(), lse->values.data());
  }
  y->needs_grad = q->needs_grad || k->needs_grad || v->needs_grad;
  if (!records(*y)) return y;
  // Backward sets small differences of large sums against each other: it must read what forward multiplied, and the
  // sums unrounded.
  for (const ValuePtr& read : {q, k, v}) (in_bf16 ? read->product_reads : read->backward_reads) = true;
  for (const ValuePtr& read : {y, lse}) read->backward_reads = true;
  for (const ValuePtr& exact : {q, k, v, y, lse}) exact->keep_exact = true;
  tape_.record("attention", [this, q, k, v, y, lse, shape, in_bf16] {
    Buffer<float> dq = pool_.take(q->rows, q->cols), dk = pool_.take(k->rows, k->cols),
                  dv = pool_.take(v->rows, v->cols);
    if (in_bf16)
      attention_bf16_backward(*tiles_, {q->ensure_bf16(), k->ensure_bf16(), v->ensure_bf16()}, shape,
                              y->ensure_values(), lse->values.data(), y->grad.data(), dq.data(), dk.data(), dv.data());
    else
      attention_backward(GemmPrecision::kF32, q->ensure_values(), k->ensure_values(), v->ensure_values(),
                         y->ensure_values(), lse->values.data(), y->grad.data(), k->rows, batch_->plan, shape,
                         dq.data(), dk.data(), dv.data());
    q->put_grad(std::move(dq));
    k->put_grad(std::move(dk));
    v->put_grad(std::move(dv));
  });
  return y;
}

Act TrainOps::swiglu(const Act& gate_act, const Act& up_act) {
  const OpTimer timer(op_seconds_, "swiglu");
  const ValuePtr gate = value_ptr(gate_act), up = value_ptr(up_act);
  ValuePtr y = make(gate->rows, gate->cols);
  swiglu_forward(gate->ensure_values(), up->ensure_values(), y->count(), y->values.data());
  y->needs_grad = gate->needs_grad || up->needs_grad;
  if (!records(*y)) return y;
  gate->backward_reads = up->backward_reads = true;
  y->remake = [gate, up, to = y.get()] {
    swiglu_forward(gate->ensure_values(), up->ensure_values(), to->count(), to->values.data());
  };
  tape_.record("swiglu", [this, gate, up, y] {
    Buffer<float> dup = pool_.take(up->rows, up->cols);
    swiglu_backward(gate->ensure_values(), up->ensure_values(), y->grad.data(), y->count(), y->grad.data(), dup.data());
    gate->put_grad(std::move(y->grad));
    up->put_grad(std::move(dup));
  });
  return y;
}

Act TrainOps::gelu(const Act& x_act) {
  const OpTimer timer(op_seconds_, "gelu");
  const ValuePtr x = value_ptr(x_act);
  ValuePtr y = make(x->rows, x->cols);
  gelu_forward(x->ensure_values(), y->count(), y->values.data());
  y->needs_grad = x->needs_grad;
  if (!records(*y)) return y;
  x->backward_reads = true;
  y->remake = [x, to = y.get()] { gelu_forward(x->ensure_values(), to->count(), to->values.data()); };
  tape_.record("gelu", [x, y] {
    gelu_backward(x->ensure_values(), y->grad.data(), y->count(), y->grad.data());
    x->put_grad(std::move(y->grad));
  });
  return y;
}

Act TrainOps::add(const Act& a_act, const Act& b_act) {
  const OpTimer timer(op_seconds_, "add");
  const ValuePtr a = value_ptr(a_act), b = value_ptr(b_act);
  ValuePtr y = make(a->rows, a->cols);
  add_values(a->ensure_values(), b->ensure_values(), y->count(), y->values.data());
  y->needs_grad = a->needs_grad || b->needs_grad;
  if (!records(*y)) return y;
  y->keep_exact = true;  // the residual stream: its rounding would add up over the layers
  tape_.record("add", [this, a, b, y] {
    if (a->needs_grad && b->needs_grad) {
      Buffer<float> da = pool_.take(y->rows, y->cols);
      copy_values(y->grad.data(), y->count(), da.data());
      a->put_grad(std::move(da));
      b->put_grad(std::move(y->grad));
    } else {
      (a->needs_grad ? a : b)->put_grad(std::move(y->grad));
    }
  });
  return y;
}

// Keeps of a block's value only what its backward pass reads and cannot make again from something that is kept.
void TrainOps::shed(Value& value) {
  if (value.remake) {
    value.drop_values();
    value.drop_bf16();
    return;
  }
  if (!value.backward_reads) {
    if (options_.precision == GemmPrecision::kF32 && value.product_reads) return;
    if (value.product_reads)
      value.ensure_bf16();
    else
      value.drop_bf16();
    value.drop_values();
    return;
  }
  if (options_.precision == GemmPrecision::kBF16 && !value.keep_exact) {
    value.ensure_bf16();
    value.drop_values();
  } else {
    value.drop_bf16();
  }
}

Act TrainOps::run_block(const Act& x, const std::function<Act(const Act&)>& body) {
  made_in_block_.clear();
  Act y = body(x);
  for (const auto& weak : made_in_block_)
    if (const auto value = weak.lock(); value != nullptr && value != y) shed(*value);
  made_in_block_.clear();
  return y;
}

Act TrainOps::block(const Act& x, const std::function<Act(const Act&)>& body) {
  if (!recording_) return body(x);
  if (block_++ >= options_.recomputed_blocks) return run_block(x, body);

  recording_ = false;
  const ValuePtr y = value_ptr(body(x));
  recording_ = true;
  if (!y->needs_grad) return y;
  value_of(x).backward_reads = true;
  tape_.record("block", [this, x = value_ptr(x), y, body] {
    Tape outer = std::move(tape_);
    tape_ = Tape();
    recording_ = true;
    // Sheds as a kept block does, so that backward reads the same numbers.
    const ValuePtr again = value_ptr(run_block(x, body));
    recording_ = false;
    again->grad = std::move(y->grad);
    tape_.run_backward(op_seconds_);
    tape_ = std::move(outer);
  });
  return y;
}

ValuePtr TrainOps::forward(const TrainBatch& batch) {
  assert(batch.plan.rows() == batch.size());
  tape_.clear();  // of a batch that failed on its way
  made_in_block_.clear();
  pool_.begin_batch(batch.size());
  batch_ = &batch;
  tiles_.reset();
  positions_ = batch.plan.positions();
  context_ = 0;
  block_ = 0;
  for (const int32_t position : positions_) context_ = std::max(context_, position + 1);
  ValuePtr hidden = value_ptr(model_.forward(*this));
  recording_ = false;
  return hidden;
}

double TrainOps::loss_and_gradients(const TrainBatch& batch, double normalizer, const HeadLoss& loss,
                                    uint64_t dropout_step) {
  recording_ = trained_.any();
  dropping_ = true;
  dropout_step_ = dropout_step;
  const double result = head_loss(forward(batch), batch, loss, normalizer, true);
  tape_.run_backward(op_seconds_);
  return result;
}

double TrainOps::loss(const TrainBatch& batch, double normalizer, const HeadLoss& loss) {
  recording_ = dropping_ = false;
  return head_loss(forward(batch), batch, loss, normalizer, false);
}

double TrainOps::loss_and_gradients(const TrainBatch& batch, double normalizer, uint64_t dropout_step) {
  return loss_and_gradients(batch, normalizer, cross_entropy_loss(), dropout_step);
}
double TrainOps::loss(const TrainBatch& batch, double normalizer) {
  return loss(batch, normalizer, cross_entropy_loss());
}
double TrainOps::loss_and_gradients(const TrainBatch& batch, const LossOfTokens& loss, uint64_t dropout_step) {
  return loss_and_gradients(batch, 1, combined(loss), dropout_step);
}
double TrainOps::loss(const TrainBatch& batch, const LossOfTokens& loss) {
  return this->loss(batch, 1, combined(loss));
}

Buffer<float> TrainOps::trained_hidden(const TrainBatch& batch) {
  recording_ = dropping_ = false;
  const ValuePtr hidden = forward(batch);
  Buffer<float> out(static_cast<size_t>(hidden->count()));
  float* to = out.data();
  for (int64_t r = 0; r < batch.size(); ++r)
    if (batch.weights[static_cast<size_t>(r)] != 0) to = std::copy_n(hidden->row(r), hidden->cols, to);
  return out;
}

Buffer<float> TrainOps::logits(const TrainBatch& batch) {
  recording_ = dropping_ = false;
  const ValuePtr hidden = forward(batch);
  Buffer<float> out(static_cast<size_t>(hidden->rows * model_.head->out()));
  linear_forward(options_.precision, {hidden->values.data(), hidden->rows, hidden->cols},
                 factor(model_.head->weight), out.data());
  return out;
}

// Logits are computed for the trained rows alone, and never all at once.
double TrainOps::head_loss(const ValuePtr& hidden, const TrainBatch& batch, const HeadLoss& of_head,
                           double normalizer, bool backward) {
  const OpTimer timer(op_seconds_, "head and loss");
  const int64_t vocab = model_.head->out(), cols = hidden->cols;
  std::vector<int64_t> trained;
  std::vector<int32_t> targets;
  std::vector<float> weights;
  for (int64_t r = 0; r < batch.size(); ++r) {
    const auto at = static_cast<size_t>(r);
    if (batch.weights[at] == 0) continue;
    if (batch.targets[at] < 0 || batch.targets[at] >= vocab)
      throw Error(
          fmt::format("training row has token {}, but the model predicts {} tokens; encode the data with this "
                      "model's tokenizer",
                      batch.targets[at], vocab));
    trained.push_back(r);
    targets.push_back(batch.targets[at]);
    weights.push_back(static_cast<float>(batch.weights[at] / normalizer));
  }
  const int64_t rows = static_cast<int64_t>(trained.size());
  if (rows == 0) return 0;

  const bool with_gradient = backward && hidden->needs_grad;
  Buffer<float> gathered = pool_.take(rows, cols);
  Buffer<float> gathered_grad = with_gradient ? pool_.take(rows, cols) : Buffer<float>();
  for (int64_t i = 0; i < rows; ++i)
    std::copy_n(hidden->row(trained[static_cast<size_t>(i)]), cols, gathered.data() + i * cols);
  const Tensor head = factor(model_.head->weight);
  const double loss = of_head({.precision = options_.precision,
                                 .hidden = gathered.data(),
                                 .rows = rows,
                                 .targets = targets,
                                 .weights = weights,
                                 .head = &head,
                                 .dhidden = with_gradient ? gathered_grad.data() : nullptr,
                               .dhead = backward ? gradients(model_.head->weight) : nullptr});
  if (with_gradient) {
    hidden->grad = pool_.take(hidden->rows, hidden->cols);
    std::fill_n(hidden->grad.data(), hidden->count(), 0.0f);
    for (int64_t i = 0; i < rows; ++i)
      std::copy_n(gathered_grad.data() + i * cols, cols, hidden->grad.data() + trained[static_cast<size_t>(i)] * cols);
    hidden->drop_values();
  }
  pool_.give(std::move(gathered));
  pool_.give(std::move(gathered_grad));
  return loss;
}

}  // namespace thimble
