#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "kernels/attention_plan.h"
#include "tensor/tensor.h"

namespace thimble {

// Values flowing through a model: [rows, cols] floats, row-major; one row a token. Handles are shared: inference
// drops a buffer with its last handle, training keeps what its tape needs.
struct Activation {
  int64_t rows = 0;
  int64_t cols = 0;
  Buffer<float> values;
  Buffer<float> grad;  // training only: d loss / d values, empty until first written

  float* row(int64_t r) const { return values.data() + r * cols; }
};
using Act = std::shared_ptr<Activation>;

// A stored tensor that is not a linear layer: a norm's weight, an embedding table, learned positions.
struct Param {
  std::string name;  // as in the safetensors file: "model.norm.weight"
  Tensor value;
  int index = -1;  // among the model's params: what backends key their own copies by
};

// A linear layer: y[rows, out] = x[rows, in] · weightᵀ + bias, plus what the row's adapter adds.
struct Linear {
  std::string name;  // the module's path, as adapters know it: "model.layers.0.self_attn.q_proj"
  Tensor weight;     // [out, in]
  Tensor bias;       // [out], or empty
  int index = -1;    // among the model's linears

  int64_t in() const { return weight.cols(); }
  int64_t out() const { return weight.rows(); }
};

struct Rope {
  int head_dim = 0;
  std::vector<float> inverse_frequencies;  // [head_dim / 2]; element i turns with element i + head_dim / 2
};

// What a model family computes with. Inference runs each call at once on fast kernels and a key-value cache;
// training computes the same and records a tape. Ops are coarse, so that a virtual call costs nothing.
// The batch (token ids, positions, plan, adapter of each row) is the backend's: a family never sees it.
class Ops {
 public:
  virtual ~Ops() = default;

  virtual Act embed(const Param& table) = 0;            // [vocab, hidden] -> [rows, hidden] of the batch's tokens
  virtual Act embed_positions(const Param& table) = 0;  // [context, hidden] -> [rows, hidden] of their positions
  virtual Act rms_norm(const Act& x, const Param& weight, float eps) = 0;
  virtual Act layer_norm(const Act& x, const Param& weight, const Param& bias, float eps) = 0;
  // Several layers over the same input (q, k and v; gate and up): one pass over x. Results in the order given.
  virtual std::vector<Act> linear(const Act& x, std::span<const Linear* const> layers) = 0;
  Act linear(const Act& x, const Linear& layer) {
    const Linear* one = &layer;
    return linear(x, std::span<const Linear* const>(&one, 1)).front();
  }
  // Rotates every head of x [rows, heads * head_dim] by its row's position. May reuse x's buffer.
  virtual Act rope(Act x, const Rope& rope) = 0;
  // q [rows, heads * head_dim], k and v [rows, kv_heads * head_dim] -> [rows, heads * head_dim]. The keys and
  // values become part of `layer`'s state for their sequences.
  virtual Act attention(const Act& q, const Act& k, const Act& v, int layer, const AttentionShape& shape) = 0;
  virtual Act swiglu(const Act& gate, const Act& up) = 0;  // silu(gate) * up
  virtual Act gelu(const Act& x) = 0;                      // the tanh form, as GPT-2 has it
  virtual Act add(const Act& a, const Act& b) = 0;
  // Runs one layer as a block that depends on x alone, so that training can drop its inside and run it again: after
  // the call, so body takes by value what ends with the family's loop.
  virtual Act block(const Act& x, const std::function<Act(const Act&)>& body) = 0;
};

}  // namespace thimble
