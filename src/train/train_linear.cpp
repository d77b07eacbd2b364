// Linear layers with what the adapter adds to them. Apart from train_ops.cpp because dropout has its own path.

#include <algorithm>
#include <cmath>

#include "core/random.h"
#include "core/thread_pool.h"
#include "kernels/bias.h"
#include "kernels/dora.h"
#include "kernels/elementwise.h"
#include "train/train_ops.h"

namespace thimble {
namespace {

uint32_t drawn(uint64_t key, int64_t place) {
  return static_cast<uint32_t>(random_bits(key, static_cast<uint64_t>(place)) >> 32);
}

// to = from with elements zeroed by chance and the others scaled up, or added to `to`. Which ones depends on the
// key and the place alone, so that backward drops the same without storing them.
void drop_elements(uint64_t key, float share, const float* from, int64_t count, float* to, bool accumulate) {
  constexpr int64_t kPiece = 1 << 14;
  const auto limit = static_cast<uint32_t>(static_cast<double>(share) * 4294967296.0);
  const float scale = 1 / (1 - share);
  threads().parallel_for((count + kPiece - 1) / kPiece, [&](int64_t piece, int) {
    for (int64_t i = piece * kPiece; i < std::min(count, (piece + 1) * kPiece); ++i) {
      const float value = drawn(key, i) < limit ? 0.0f : from[i] * scale;
      to[i] = accumulate ? to[i] + value : value;
    }
  });
}

}  // namespace

// Beside dropout, whose random bits it shares.
void TrainOps::add_noise(Value& embedded) const {
  const uint64_t key = options_.dropout_seed * 0x9fb21c651e98df25u + dropout_step_ * 0xd1342543de82ef95u;
  threads().parallel_for(embedded.rows, [&](int64_t r, int) {
    const auto length = static_cast<double>(batch_->lengths[static_cast<size_t>(r)]);
    const double cells = length * static_cast<double>(embedded.cols);
    const float scale = options_.neftune / static_cast<float>(std::sqrt(cells));
    float* row = embedded.row(r);
    for (int64_t c = 0; c < embedded.cols; ++c)
      row[c] += scale * (static_cast<float>(drawn(key, r * embedded.cols + c)) * 0x1p-31f - 1.0f);
  });
}

ValuePtr TrainOps::plain_linear(const Linear& layer, const ValuePtr& x) {
  ValuePtr y = make(x->rows, layer.out());
  const Tensor weight = factor(layer.weight);
  float* const dweight = gradients(layer.weight);
  linear_forward(options_.precision, product_input(*x), weight, y->values.data());
  y->needs_grad = x->needs_grad || dweight != nullptr;
  if (!records(*y)) return y;
  x->product_reads |= dweight != nullptr;
  tape_.record("linear", [this, x, y, weight, dweight] {
    const GemmInput dy{y->grad.data(), y->rows, y->cols};
    if (dweight != nullptr) linear_backward_weight(options_.precision, dy, product_input(*x), dweight, true);
    if (!x->needs_grad) return;
    const auto [dx, accumulate] = x->grad_target();
    linear_backward_input(options_.precision, dy, weight, dx, accumulate);
  });
  return y;
}

void TrainOps::add_bias(const Linear& layer, const ValuePtr& y) {
  if (layer.bias.empty()) return;
  bias_forward(values(layer.bias), y->rows, y->cols, y->values.data());
  if (float* const dbias = gradients(layer.bias); dbias != nullptr && recording_)
    tape_.record("linear", [y, dbias] { bias_backward(y->grad.data(), y->rows, y->cols, dbias); });
}

ValuePtr TrainOps::adapted_linear(const LoraLayer& layer, const ValuePtr& x) {
  ValuePtr y = make(x->rows, layer.linear->out());
  ValuePtr t = make(x->rows, layer.rank);
  const Tensor& weight = layer.linear->weight;
  lora_forward(options_.precision, product_input(*x), weight, trained_.lora->low_rank(layer), y->values.data(),
               t->values.data());
  y->needs_grad = true;
  if (recording_) {
    x->product_reads = true;
    t->backward_reads = t->keep_exact = true;
    tape_.record("linear", [this, x, y, t, &layer, &weight] {
      const GemmInput in = product_input(*x);
      const auto [dx, accumulate] = x->needs_grad ? x->grad_target() : Value::Target{nullptr, false};
      lora_backward(options_.precision, {y->grad.data(), y->rows, y->cols}, in, weight, trained_.lora->low_rank(layer),
                    t->values.data(), dx, accumulate, layer.da, layer.db);
    });
  }
  return y;
}

ValuePtr TrainOps::adapted_linear_with_dropout(const LoraLayer& layer, const ValuePtr& x) {
  const Tensor& weight = layer.linear->weight;
  const int64_t rows = x->rows, in = weight.cols(), out = weight.rows(), rank = layer.rank;
  const float share = trained_.lora->config().dropout;
  const float scale = trained_.lora->config().scale();
  const uint64_t key = options_.dropout_seed + dropout_step_ * 0xd1342543de82ef95u +
                       static_cast<uint64_t>(layer.linear->index + 1) * 0x2545f4914f6cdd1du;
  const auto dropped = [this, x, key, share] {
    Buffer<float> to = pool_.take(x->rows, x->cols);
    drop_elements(key, share, x->ensure_values(), x->count(), to.data(), false);
    return to;
  };

  ValuePtr y = make(rows, out);
  ValuePtr t = make(rows, rank);  // scaled
  linear_forward(options_.precision, product_input(*x), weight, y->values.data());
  Buffer<float> input = dropped();
  linear_forward(options_.precision, {input.data(), rows, in}, f32_matrix(layer.a, rank, in), t->values.data());
  pool_.give(std::move(input));
  scale_values(t->values.data(), t->count(), scale);
  linear_forward(options_.precision, {t->values.data(), rows, rank}, f32_matrix(layer.b, out, rank), y->values.data(),
                 true);
  y->needs_grad = true;
  if (!recording_) return y;
  x->product_reads = true;
  t->backward_reads = t->keep_exact = true;
  tape_.record("linear", [=, this, &layer, &weight] {
    const GemmPrecision precision = options_.precision;
    const GemmInput dy{y->grad.data(), rows, out};
    Buffer<float> u = pool_.take(rows, rank);  // scale · dy · b
    linear_backward_input(precision, dy, f32_matrix(layer.b, out, rank), u.data());
    scale_values(u.data(), rows * rank, scale);
    Buffer<float> input_again = dropped();
    linear_backward_weight(precision, {u.data(), rows, rank}, {input_again.data(), rows, in}, layer.da, true);
    linear_backward_weight(precision, dy, {t->values.data(), rows, rank}, layer.db, true);
    if (x->needs_grad) {
      const auto [dx, accumulate] = x->grad_target();
      linear_backward_input(precision, dy, weight, dx, accumulate);
      linear_backward_input(precision, {u.data(), rows, rank}, f32_matrix(layer.a, rank, in), input_again.data());
      drop_elements(key, share, input_again.data(), rows * in, dx, true);
    }
    pool_.give(std::move(u));
    pool_.give(std::move(input_again));
  });
  return y;
}

// DoRA: the layer's outputs, brought to their magnitudes.
ValuePtr TrainOps::stretched(const LoraLayer& layer, const ValuePtr& z) {
  const auto norms = std::make_shared<std::vector<float>>(static_cast<size_t>(z->cols));
  dora_norms(options_.precision, layer.linear->weight, layer.squares, trained_.lora->low_rank(layer), norms->data());
  ValuePtr y = make(z->rows, z->cols);
  dora_forward(z->values.data(), layer.magnitude, norms->data(), z->rows, z->cols, y->values.data());
  y->needs_grad = true;
  if (!recording_) return y;
  z->backward_reads = true;
  tape_.record("linear", [y, z, norms, &layer] {
    dora_backward(z->ensure_values(), layer.magnitude, norms->data(), y->rows, y->cols, y->grad.data(),
                  layer.dmagnitude);
    z->put_grad(std::move(y->grad));
  });
  return y;
}

std::vector<Act> TrainOps::linear(const Act& x_act, std::span<const Linear* const> layers) {
  const OpTimer timer(op_seconds_, "linear");
  const ValuePtr x = value_ptr(x_act);
  std::vector<Act> out;
  for (const Linear* layer : layers) {
    const LoraLayer* adapted = trained_.lora != nullptr ? trained_.lora->find(*layer) : nullptr;
    ValuePtr y = adapted == nullptr ? plain_linear(*layer, x)
                 : drops()          ? adapted_linear_with_dropout(*adapted, x)
                                    : adapted_linear(*adapted, x);
    if (adapted != nullptr && adapted->magnitude != nullptr) y = stretched(*adapted, y);
    add_bias(*layer, y);
    out.push_back(y);
  }
  return out;
}

}  // namespace thimble
