#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "formats/adapter.h"
#include "kernels/packed_matmul.h"
#include "kernels/rope.h"
#include "models/model.h"

namespace thimble {

// A model laid out for inference: weights packed for the kernels, small parameters in f32, adapters beside it.
// Shared by any number of engines; adapters are added before use, and changed while no engine computes.
class PreparedModel {
 public:
  struct LowRankPair {
    PackedWeight a;  // [rank, in]
    PackedWeight b;  // [out, rank], scale and gains folded in
    Buffer<float> gains;  // [out] of DoRA (kernels/dora.h): what the layer's own outputs are multiplied by; else empty
    bool empty() const { return a.empty(); }
  };

  // Packs on all threads. Throws Error, with both numbers, where the packed weights don't fit into free memory.
  explicit PreparedModel(std::shared_ptr<const Model> model, MatmulPrecision precision = MatmulPrecision::kFast)
      : PreparedModel(std::move(model), nullptr, precision) {}
  // The same for a model that nobody trains or merges: what it stores is let go once that is packed, so that weights
  // never stand in memory twice, and its file may change or go. Shapes stay.
  static std::shared_ptr<PreparedModel> taking(const std::shared_ptr<Model>& model,
                                               MatmulPrecision precision = MatmulPrecision::kFast) {
    return std::shared_ptr<PreparedModel>(new PreparedModel(model, model.get(), precision));
  }

  // Returns the adapter's number for requests: 1, 2, ... Throws Error where a module or shape doesn't fit.
  int add_adapter(const LoraAdapter& adapter);
  // Gives its memory back; no request may name it any more. Its number is not given again.
  void drop_adapter(int number) { put(number, {}); }
  // Puts another in an adapter's place; engines that remember requests of it must forget them (Engine::forget).
  void replace_adapter(int number, const LoraAdapter& adapter);
  int adapters() const { return static_cast<int>(adapters_.size()); }

  const Model& model() const { return *model_; }
  MatmulPrecision precision() const { return precision_; }
  const PackedWeight& weight(const Linear& layer) const { return weights_[static_cast<size_t>(layer.index)]; }
  const float* bias(const Linear& layer) const { return biases_[static_cast<size_t>(layer.index)].data(); }
  const float* param(const Param& param) const { return params_[static_cast<size_t>(param.index)].data(); }
  // Rows `ids` [count] of an embedding table, [count, cols].
  void table_rows(const Param& table, const int32_t* ids, int64_t count, float* out) const;
  const LowRankPair& adapter(int number, const Linear& layer) const {
    return adapters_[static_cast<size_t>(number - 1)][static_cast<size_t>(layer.index)];
  }
  const RopeTable& rope_table(const Rope& rope) const;  // made once a set of frequencies
  size_t bytes() const;                                 // packed weights, parameters and adapters. Any thread

 private:
  PreparedModel(std::shared_ptr<const Model> model, Model* taken, MatmulPrecision precision);
  std::vector<LowRankPair> packed(const LoraAdapter& adapter) const;

  void put(int number, std::vector<LowRankPair> pairs);

  std::shared_ptr<const Model> model_;
  MatmulPrecision precision_;
  std::vector<PackedWeight> weights_;   // by Linear::index
  std::vector<Buffer<float>> biases_;   // by Linear::index; empty where there is none
  std::vector<Buffer<float>> params_;   // by Param::index; empty for tables
  std::vector<Tensor> tables_;          // by Param::index; empty for others, and for the one that the head packs
  std::vector<std::vector<LowRankPair>> adapters_;
  std::atomic<size_t> adapter_bytes_{0};
  mutable std::vector<std::pair<std::vector<float>, std::unique_ptr<RopeTable>>> rope_tables_;
};

}  // namespace thimble
