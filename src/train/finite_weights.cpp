#include "train/finite_weights.h"

#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/thread_pool.h"
#include "tensor/quantize.h"

namespace thimble {
namespace {

void check(const std::string& name, const Tensor& tensor) {
  const int64_t rows = tensor.rows(), cols = tensor.cols();
  std::atomic<int64_t> broken = rows;
  std::vector<std::vector<float>> scratch(static_cast<size_t>(threads().size()),
                                          std::vector<float>(static_cast<size_t>(cols)));
  threads().parallel_for(rows, [&](int64_t row, int thread) {
    std::vector<float>& values = scratch[static_cast<size_t>(thread)];
    dequantize_row(tensor.type, tensor.row(row), cols, values.data());
    bool finite = true;
    for (const float v : values) finite &= std::isfinite(v);
    if (finite) return;
    int64_t known = broken;
    while (row < known && !broken.compare_exchange_weak(known, row)) {
    }
  });
  if (broken < rows)
    throw Error(fmt::format("base model: tensor '{}', row {}, holds a value that is not a finite number; its file is "
                            "damaged or what made it went wrong, fetch or make it again",
                            name, broken.load()));
}

}  // namespace

void refuse_broken_weights(const Model& model) {
  for (const Param& param : model.params) check(param.name, param.value);
  for (const Linear& linear : model.linears) {
    const bool is_table = std::any_of(model.params.begin(), model.params.end(),
                                      [&](const Param& p) { return p.value.data == linear.weight.data; });
    if (!is_table) check(linear.name + ".weight", linear.weight);
    if (!linear.bias.empty()) check(linear.name + ".bias", linear.bias);
  }
}

}  // namespace thimble
