#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "infer/activation_pool.h"
#include "infer/kv_cache.h"
#include "infer/prepared_model.h"
#include "models/ops.h"

namespace thimble {

// One forward pass: what is computed, for whom, and where its keys go.
struct InferBatch {
  std::vector<int32_t> tokens;    // [rows]
  std::vector<int32_t> slots;     // [rows], in the cache
  std::vector<int32_t> adapters;  // [rows], 0: the base model
  AttentionPlan plan;

  // Adds the last `count` tokens of a sequence, which the cache has room for already; gives their first row.
  int32_t add(const KvCache& cache, KvCache::Sequence sequence, int32_t count, int adapter);
};

// Ops that compute at once, on packed weights and the cache.
class InferOps : public Ops {
 public:
  InferOps(const PreparedModel& model, const KvCache& cache, const InferBatch& batch, ActivationPool& pool);

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
  Act block(const Act& x, const std::function<Act(const Act&)>& body) override { return body(x); }

  // The head's logits of chosen rows of the last hidden states: [rows.size(), vocab].
  Act logits(const Act& hidden, std::span<const int32_t> rows);

 private:
  Act make(int64_t rows, int64_t cols) { return pool_.get(rows, cols); }
  int64_t rows() const { return static_cast<int64_t>(batch_.tokens.size()); }
  void add_adapters(const Act& x, std::span<const int32_t> adapters, std::span<const Linear* const> layers,
                    std::span<const Act> outputs);

  const PreparedModel& model_;
  const KvCache& cache_;
  const InferBatch& batch_;
  ActivationPool& pool_;
  std::vector<int32_t> positions_;
};

}  // namespace thimble
