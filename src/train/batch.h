#pragma once

#include <cstdint>
#include <vector>

#include "kernels/attention_plan.h"

namespace thimble {

// Tokens that go through the model together: packed rows, without padding.
struct TrainBatch {
  std::vector<int32_t> tokens;   // [rows of activations]
  AttentionPlan plan;            // a segment for every packed row
  std::vector<int32_t> targets;  // [tokens] the token that each position should predict
  std::vector<float> weights;    // [tokens] of its loss; 0 = not trained
  std::vector<int32_t> rows;     // [tokens] whose loss that is: an index into the data
  std::vector<int32_t> lengths;  // [tokens] how many tokens that row goes through the model with

  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
  double weight() const {  // what losses of a step are normalised by
    double sum = 0;
    for (const float w : weights) sum += w;
    return sum;
  }
};

// Calls visit(number of the trained token, its position, its row) for the batch's trained tokens, in order.
template <class Visit>
void for_trained(const TrainBatch& batch, const Visit& visit) {
  size_t at = 0;
  for (size_t i = 0; i < batch.weights.size(); ++i)
    if (batch.weights[i] != 0) visit(at++, i, batch.rows[i]);
}

}  // namespace thimble
