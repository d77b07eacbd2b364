#include "formats/merged_tensors.h"

#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>

#include "core/error.h"
#include "core/thread_pool.h"
#include "formats/llama_names.h"
#include "tensor/quantize.h"

namespace thimble {
namespace {

constexpr float kLargestF16 = 65504.0f;

// One tensor on its way out; rows are written in `target` order and taken from `tensor` in Hugging Face's.
struct Merging {
  std::string name;
  Tensor tensor;
  const LoraModule* module = nullptr;
  int64_t rank = 0;
  float scale = 0;
  int64_t rows = 0, cols = 0;
  DType type = DType::kF32;
  int head_dim = 0;  // > 0: rows go out in GGUF's order

  int64_t source_row(int64_t row) const {
    if (head_dim == 0) return row;
    const int64_t in_head = row % head_dim;
    return row - in_head + (in_head % 2) * (head_dim / 2) + in_head / 2;
  }
  size_t stored_row_bytes() const { return tensor.bytes() / static_cast<size_t>(rows); }

  // The row in f32, with scale · b[row] · a added.
  void merge_row(int64_t row, float* out, float* delta) const {
    dequantize_row(tensor.type, tensor.data + static_cast<size_t>(row) * stored_row_bytes(), cols, out);
    if (module == nullptr) return;
    std::fill(delta, delta + cols, 0.0f);
    const float* b = module->b.data() + row * rank;
    for (int64_t r = 0; r < rank; ++r) {
      const float* a = module->a.data() + r * cols;
      for (int64_t i = 0; i < cols; ++i) delta[i] += b[r] * a[i];
    }
    for (int64_t i = 0; i < cols; ++i) out[i] += scale * delta[i];
  }
};

bool fits(const float* values, int64_t n, float most) {
  bool good = true;
  for (int64_t i = 0; i < n; ++i) good &= std::fabs(values[i]) <= most;  // false for NaN too
  return good;
}

void write_merged(const Merging& m, const WriteBytes& write) {
  if (m.module == nullptr && m.head_dim == 0 && m.type == m.tensor.type) return write(m.tensor.data, m.tensor.bytes());
  const size_t out_row = dtype_bytes(m.type, m.cols);
  const int64_t chunk = std::clamp<int64_t>((int64_t{4} << 20) / std::max<int64_t>(m.cols, 1), 1, m.rows);
  std::vector<std::byte> bytes(static_cast<size_t>(chunk) * out_row);
  ThreadPool& pool = threads();
  std::vector<std::vector<float>> scratch(static_cast<size_t>(pool.size()),
                                          std::vector<float>(static_cast<size_t>(2 * m.cols)));
  const float most = m.type == DType::kF16 ? kLargestF16 : std::numeric_limits<float>::max();
  for (int64_t first = 0; first < m.rows; first += chunk) {
    const int64_t count = std::min(chunk, m.rows - first);
    std::atomic<bool> good = true;
    pool.parallel_for(count, [&](int64_t i, int thread) {
      float* row = scratch[static_cast<size_t>(thread)].data();
      m.merge_row(m.source_row(first + i), row, row + m.cols);
      if (!fits(row, m.cols, most)) good = false;
      quantize_row(m.type, row, m.cols, bytes.data() + static_cast<size_t>(i) * out_row);
    });
    if (!good)
      throw Error(
          fmt::format("tensor '{}': a merged value is not finite or too large for {}; write bf16 or f32, or "
                      "check the adapter",
                      m.name, dtype_info(m.type).name));
    write(bytes.data(), static_cast<size_t>(count) * out_row);
  }
}

void check_fits_model(const ModelFile& base, const LoraAdapter& adapter) {
  for (const auto& [name, module] : adapter.modules) {
    const bool tied_head = name == "lm_head" && base.config.tied_embeddings;
    const auto found = base.tensors.find(tied_head ? "model.embed_tokens.weight" : name + ".weight");
    if (found == base.tensors.end() || (name == "model.embed_tokens"))
      throw Error(fmt::format("adapter: the model has no linear layer '{}'; it was made for another base model", name));
    if (found->second.shape != std::vector<int64_t>{module.out, module.in})
      throw Error(
          fmt::format("adapter: module '{}' is {} x {} where the model has {} x {}; it was made for another base "
                      "model",
                      name, module.out, module.in, found->second.rows(), found->second.cols()));
  }
}

}  // namespace

bool unties_head(const ModelFile& base, const LoraAdapter& adapter) {
  return base.config.tied_embeddings && adapter.modules.count("lm_head") != 0;
}

std::vector<TensorSource> merged_tensors(const ModelFile& base, const LoraAdapter& adapter, const MergeTarget& target,
                                         const ProgressFn& progress) {
  if (base.config.family != "llama")
    throw Error(fmt::format("{}: models of family '{}' can't be merged yet; only llama's can", base.path.string(),
                            base.config.family));
  check_fits_model(base, adapter);
  std::vector<std::pair<std::string, Tensor>> tensors(base.tensors.begin(), base.tensors.end());
  if (unties_head(base, adapter)) tensors.emplace_back("lm_head.weight", base.tensors.at("model.embed_tokens.weight"));

  double total = 0;
  for (const auto& [name, tensor] : tensors) total += static_cast<double>(tensor.elements());
  const auto done = std::make_shared<double>(0);
  std::vector<TensorSource> out;
  for (const auto& [name, tensor] : tensors) {
    Merging m{.name = name, .tensor = tensor};
    const std::string module = name.substr(0, name.rfind('.'));
    if (const auto found = adapter.modules.find(module); found != adapter.modules.end() && name.ends_with(".weight")) {
      m.module = &found->second;
      m.rank = adapter.rank;
      m.scale = adapter.scale();
    }
    const bool matrix = tensor.shape.size() > 1;
    m.rows = tensor.rows();
    m.cols = tensor.cols();
    m.type = matrix ? target.matrices : target.vectors;
    if (m.cols % dtype_info(m.type).block != 0) m.type = DType::kF16;
    if (target.gguf && permuted_heads(name, base.config) > 0) {
      m.head_dim = base.config.head_dim;
      if (!matrix) std::swap(m.rows, m.cols);  // a bias: rows of one element
    }
    const auto written = [=, elements = static_cast<double>(tensor.elements())] {
      *done += elements;
      if (progress) progress({"merging", *done, total, "weights", name});
    };
    out.push_back(
        {target.gguf ? *llama_name_to_gguf(name) : name, m.type, tensor.shape, [m, written](const WriteBytes& write) {
           write_merged(m, write);
           written();
         }});
  }
  return out;
}

}  // namespace thimble
