#include "formats/merged_tensors.h"

#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>

#include "core/error.h"
#include "core/thread_pool.h"
#include "formats/llama_names.h"
#include "kernels/dora.h"
#include "tensor/quantize.h"

namespace thimble {
namespace {

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
  const std::byte* stored_row(int64_t row) const {
    return tensor.data + static_cast<size_t>(row) * (tensor.bytes() / static_cast<size_t>(rows));
  }

  // The row in f32, with scale · b[row] · a added and, with DoRA, stretched to the row's magnitude.
  void merge_row(int64_t row, float* out, float* delta) const {
    dequantize_row(tensor.type, stored_row(row), cols, out);
    if (module == nullptr) return;
    std::fill(delta, delta + cols, 0.0f);
    const float* b = module->b.data() + row * rank;
    for (int64_t r = 0; r < rank; ++r) {
      const float* a = module->a.data() + r * cols;
      for (int64_t i = 0; i < cols; ++i) delta[i] += b[r] * a[i];
    }
    for (int64_t i = 0; i < cols; ++i) out[i] += scale * delta[i];
    if (module->magnitude.empty()) return;
    double square = 0;
    for (int64_t i = 0; i < cols; ++i) square += static_cast<double>(out[i]) * out[i];
    const float gain = dora_gain(module->magnitude[static_cast<size_t>(row)], static_cast<float>(std::sqrt(square)));
    for (int64_t i = 0; i < cols; ++i) out[i] *= gain;
  }
};

// The first row that holds such a value, over all threads; -1: none.
class FirstRow {
 public:
  void note(int64_t row) {
    int64_t known = row_;
    while ((known < 0 || row < known) && !row_.compare_exchange_weak(known, row)) {
    }
  }
  int64_t row() const { return row_; }

 private:
  std::atomic<int64_t> row_ = -1;
};

void check_values(const Merging& m, const FirstRow& not_finite, const FirstRow& too_large) {
  const char* made = m.module != nullptr ? "a merged value" : "a value";
  if (not_finite.row() >= 0)
    throw Error(fmt::format("tensor '{}', row {}: {} is not finite; check the {}", m.name, not_finite.row(), made,
                            m.module != nullptr ? "adapter and the model" : "model: its file is damaged or what made "
                                                                            "it went wrong"));
  if (too_large.row() >= 0)
    throw Error(fmt::format("tensor '{}', row {}: {} is too large for {}; write bf16 or f32, or check the {}", m.name,
                            too_large.row(), made, dtype_info(m.type).name, m.module != nullptr ? "adapter" : "model"));
}

void write_merged(const Merging& m, const WriteBytes& write) {
  const bool copied = m.module == nullptr && m.type == m.tensor.type;
  const size_t out_row = dtype_bytes(m.type, m.cols);
  const int64_t chunk = std::clamp<int64_t>((int64_t{4} << 20) / std::max<int64_t>(m.cols, 1), 1, m.rows);
  std::vector<std::byte> bytes(static_cast<size_t>(chunk) * out_row);
  ThreadPool& pool = threads();
  std::vector<std::vector<float>> scratch(static_cast<size_t>(pool.size()),
                                          std::vector<float>(static_cast<size_t>(2 * m.cols)));
  const float most = largest_value(m.type);
  for (int64_t first = 0; first < m.rows; first += chunk) {
    const int64_t count = std::min(chunk, m.rows - first);
    FirstRow not_finite, too_large;
    pool.parallel_for(count, [&](int64_t i, int thread) {
      float* row = scratch[static_cast<size_t>(thread)].data();
      const int64_t source = m.source_row(first + i);
      m.merge_row(source, row, row + m.cols);
      bool finite = true, small = true;
      for (int64_t c = 0; c < m.cols; ++c) {
        finite &= std::isfinite(row[c]);
        small &= std::fabs(row[c]) <= most;
      }
      if (!finite) not_finite.note(source);
      if (finite && !small) too_large.note(source);
      std::byte* out = bytes.data() + static_cast<size_t>(i) * out_row;
      if (copied)
        std::memcpy(out, m.stored_row(source), out_row);
      else
        quantize_row(m.type, row, m.cols, out);
    });
    check_values(m, not_finite, too_large);
    write(bytes.data(), static_cast<size_t>(count) * out_row);
  }
}

}  // namespace

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

bool unties_head(const ModelFile& base, const LoraAdapter& adapter) {
  return base.config.tied_embeddings && adapter.modules.count("lm_head") != 0;
}

std::vector<TensorSource> merged_tensors(const ModelFile& base, const LoraAdapter& adapter, const StoredTypes& types,
                                         bool gguf, const ProgressFn& progress) {
  if (base.config.family != "llama")
    throw Error(fmt::format("{}: models of family '{}' can't be merged or converted yet; only llama's can",
                            base.path.string(), base.config.family));
  check_fits_model(base, adapter);
  std::vector<std::pair<std::string, Tensor>> tensors(base.tensors.begin(), base.tensors.end());
  if (unties_head(base, adapter)) tensors.emplace_back("lm_head.weight", base.tensors.at("model.embed_tokens.weight"));

  double total = 0;
  for (const auto& [name, tensor] : tensors) total += static_cast<double>(tensor.elements());
  const auto done = std::make_shared<double>(0);
  const bool tied = base.config.tied_embeddings && !unties_head(base, adapter);
  const std::string stage = adapter.modules.empty() ? "writing" : "merging";
  std::vector<TensorSource> out;
  for (const auto& [name, tensor] : tensors) {
    Merging m{.name = name, .tensor = tensor};
    const std::string module = name.substr(0, name.rfind('.'));
    if (const auto found = adapter.modules.find(module); found != adapter.modules.end() && name.ends_with(".weight")) {
      m.module = &found->second;
      m.rank = adapter.rank;
      m.scale = adapter.scale();
    }
    m.rows = tensor.rows();
    m.cols = tensor.cols();
    m.type = stored_type(name, tensor, tied, types).type;
    if (gguf && permuted_heads(name, base.config) > 0) {
      m.head_dim = base.config.head_dim;
      if (tensor.shape.size() < 2) std::swap(m.rows, m.cols);  // a bias: rows of one element
    }
    const auto written = [=, elements = static_cast<double>(tensor.elements())] {
      *done += elements;
      if (progress) progress({stage, *done, total, "weights", name});
    };
    out.push_back(
        {gguf ? *llama_name_to_gguf(name) : name, m.type, tensor.shape, [m, written](const WriteBytes& write) {
           write_merged(m, write);
           written();
         }});
  }
  return out;
}

}  // namespace thimble
