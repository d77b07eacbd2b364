#include "infer/model_work.h"

#include <algorithm>
#include <array>

namespace thimble {

ModelWork work_of(const PreparedModel& model, double kv_token_bytes) {
  ModelWork work;
  work.kv_token_bytes = kv_token_bytes;
  std::array<double, 3> by_arithmetic{};
  for (const Linear& layer : model.model().linears) {
    const double parameters = static_cast<double>(layer.out()) * static_cast<double>(layer.in());
    work.weight_bytes += static_cast<double>(model.weight(layer).bytes());
    if (&layer == model.model().head) {
      work.head_parameters += parameters;
      continue;
    }
    work.layer_parameters += parameters;
    const Arithmetic arithmetic = packed_arithmetic(layer.weight.type, model.precision() == MatmulPrecision::kF32);
    by_arithmetic[static_cast<size_t>(arithmetic)] += parameters;
  }
  const auto most = std::max_element(by_arithmetic.begin(), by_arithmetic.end());
  work.arithmetic = static_cast<Arithmetic>(most - by_arithmetic.begin());
  return work;
}

Work prefill_work(const ModelWork& model, int64_t tokens) {
  return {2 * (model.layer_parameters * static_cast<double>(tokens) + model.head_parameters), model.weight_bytes};
}

Work decode_work(const ModelWork& model, int64_t sequences, int64_t depth, int64_t steps) {
  const auto n = static_cast<double>(steps), rows = static_cast<double>(sequences);
  // Step i reads what stands before it, and itself: depth + i + 1 positions.
  const double positions = n * static_cast<double>(depth) + n * (n + 1) / 2;
  return {2 * (model.layer_parameters + model.head_parameters) * rows * n,
          model.weight_bytes * n + model.kv_token_bytes * rows * positions};
}

}  // namespace thimble
