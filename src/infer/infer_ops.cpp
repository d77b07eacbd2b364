#include "infer/infer_ops.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/gelu.h"
#include "kernels/kv_store.h"
#include "kernels/layer_norm.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/swiglu.h"

namespace thimble {

int32_t InferBatch::add(const KvCache& cache, KvCache::Sequence sequence, int32_t count, int adapter) {
  const auto first = static_cast<int32_t>(tokens.size());
  cache.tokens(sequence, count, tokens);
  cache.slots(sequence, count, slots);
  cache.plan(sequence, count, first, plan.segments);
  adapters.insert(adapters.end(), static_cast<size_t>(count), adapter);
  return first;
}

InferOps::InferOps(const PreparedModel& model, const KvCache& cache, const InferBatch& batch, ActivationPool& pool)
    : model_(model), cache_(cache), batch_(batch), pool_(pool), positions_(batch.plan.positions()) {
  assert(batch.slots.size() == batch.tokens.size() && batch.adapters.size() == batch.tokens.size());
  assert(positions_.size() == batch.tokens.size());
}

Act InferOps::embed(const Param& table) {
  Act out = make(rows(), table.value.cols());
  model_.table_rows(table, batch_.tokens.data(), rows(), out->values.data());
  return out;
}

Act InferOps::embed_positions(const Param& table) {
  Act out = make(rows(), table.value.cols());
  model_.table_rows(table, positions_.data(), rows(), out->values.data());
  return out;
}

Act InferOps::rms_norm(const Act& x, const Param& weight, float eps) {
  Act out = make(x->rows, x->cols);
  rms_norm_forward(x->values.data(), model_.param(weight), x->rows, x->cols, eps, out->values.data());
  return out;
}

Act InferOps::layer_norm(const Act& x, const Param& weight, const Param& bias, float eps) {
  Act out = make(x->rows, x->cols);
  layer_norm_forward(x->values.data(), model_.param(weight), model_.param(bias), x->rows, x->cols, eps,
                     out->values.data());
  return out;
}

std::vector<Act> InferOps::linear(const Act& x, std::span<const Linear* const> layers) {
  std::vector<Act> out;
  std::vector<PackedMatmul> products;
  for (const Linear* layer : layers) {
    out.push_back(make(x->rows, layer->out()));
    products.push_back({&model_.weight(*layer), out.back()->values.data(), model_.bias(*layer), false});
  }
  packed_matmul(x->values.data(), x->rows, products);
  add_adapters(x, batch_.adapters, layers, out);
  return out;
}

namespace {

// DoRA: y = (y - bias) · gains + bias for rows of outputs that have their bias already; b has its gains folded in.
void stretch(const Buffer<float>& gains, const float* bias, int64_t rows, float* y) {
  const auto out = static_cast<int64_t>(gains.size());
  const float* gain = gains.data();
  for (int64_t r = 0; r < rows && out > 0; ++r, y += out) {
    if (bias == nullptr)
      for (int64_t o = 0; o < out; ++o) y[o] *= gain[o];
    else
      for (int64_t o = 0; o < out; ++o) y[o] = (y[o] - bias[o]) * gain[o] + bias[o];
  }
}

}  // namespace

// adapters [rows of x]. Rows of one adapter stand together, because a sequence's rows do; each run is two small products
// a layer.
void InferOps::add_adapters(const Act& x, std::span<const int32_t> adapters, std::span<const Linear* const> layers,
                            std::span<const Act> outputs) {
  if (model_.adapters() == 0) return;
  for (int64_t first = 0; first < x->rows;) {
    const int32_t number = adapters[static_cast<size_t>(first)];
    int64_t last = first;
    while (last < x->rows && adapters[static_cast<size_t>(last)] == number) ++last;
    const int64_t count = last - first;
    if (number > 0) {
      std::vector<PackedMatmul> down;
      std::vector<Act> low;
      for (const Linear* layer : layers) {
        const auto& pair = model_.adapter(number, *layer);
        low.push_back(pair.empty() ? nullptr : make(count, pair.a.out()));
        if (!pair.empty()) down.push_back({&pair.a, low.back()->values.data(), nullptr, false});
      }
      if (!down.empty()) packed_matmul(x->row(first), count, down);
      for (size_t i = 0; i < layers.size(); ++i) {
        if (!low[i]) continue;
        stretch(model_.adapter(number, *layers[i]).gains, model_.bias(*layers[i]), count, outputs[i]->row(first));
        const PackedMatmul up{&model_.adapter(number, *layers[i]).b, outputs[i]->row(first), nullptr, true};
        packed_matmul(low[i]->values.data(), count, std::span(&up, 1));
      }
    }
    first = last;
  }
}

Act InferOps::rope(Act x, const Rope& rope) {
  rope_forward(x->values.data(), x->rows, static_cast<int>(x->cols / rope.head_dim), positions_.data(),
               model_.rope_table(rope), x->values.data());
  return x;
}

Act InferOps::attention(const Act& q, const Act& k, const Act& v, int layer, const AttentionShape& shape) {
  const KvLayout& layout = cache_.layout();
  std::byte* keys = cache_.keys(layer);
  std::byte* values = cache_.values(layer);
  store_keys(layout, k->values.data(), k->rows, batch_.slots.data(), keys);
  store_values(layout, v->values.data(), v->rows, batch_.slots.data(), values);
  Act out = make(q->rows, q->cols);
  attention_forward(q->values.data(), KeyValueCache{layout, keys, values}, batch_.plan, shape, out->values.data(),
                    nullptr);
  return out;
}

Act InferOps::swiglu(const Act& gate, const Act& up) {
  Act out = make(gate->rows, gate->cols);
  swiglu_forward(gate->values.data(), up->values.data(), gate->rows * gate->cols, out->values.data());
  return out;
}

Act InferOps::gelu(const Act& x) {
  Act out = make(x->rows, x->cols);
  gelu_forward(x->values.data(), x->rows * x->cols, out->values.data());
  return out;
}

Act InferOps::add(const Act& a, const Act& b) {
  Act out = make(a->rows, a->cols);
  add_values(a->values.data(), b->values.data(), a->rows * a->cols, out->values.data());
  return out;
}

Act InferOps::logits(const Act& hidden, std::span<const int32_t> rows) {
  Act chosen = make(static_cast<int64_t>(rows.size()), hidden->cols);
  std::vector<int32_t> adapters;
  for (size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(chosen->row(static_cast<int64_t>(i)), hidden->row(rows[i]),
                static_cast<size_t>(hidden->cols) * sizeof(float));
    adapters.push_back(batch_.adapters[static_cast<size_t>(rows[i])]);
  }
  const Linear& head = *model_.model().head;
  Act out = make(chosen->rows, head.out());
  packed_matmul(chosen->values.data(), chosen->rows, model_.weight(head), out->values.data(), model_.bias(head));
  const Linear* const layer = &head;
  add_adapters(chosen, adapters, std::span(&layer, 1), std::span(&out, 1));
  return out;
}

}  // namespace thimble
