#pragma once

#include <cstdint>

#include "infer/prepared_model.h"
#include "kernels/kernel_choice.h"

namespace thimble {

// What a forward pass costs at least, from which a rate's share of the machine's limits follows. Counted are the
// products with weights (two operations an element, a row) and the bytes of packed weights and stored keys and values
// that must be read. Not counted: attention's own products, norms, the embedding's rows, adapters.
struct ModelWork {
  double layer_parameters = 0;  // of all linear layers but the head
  double head_parameters = 0;
  double weight_bytes = 0;                   // packed, head included: what one decoded token reads
  double kv_token_bytes = 0;                 // keys and values of one position, all layers
  Arithmetic arithmetic = Arithmetic::kF32;  // of most of the layers' parameters
};
ModelWork work_of(const PreparedModel& model, double kv_token_bytes);

struct Work {
  double operations = 0;
  double bytes = 0;
};
// Reading a prompt: every position through the layers, the last one through the head; weights read once.
Work prefill_work(const ModelWork& model, int64_t tokens);
// `steps` decoding steps of `sequences` side by side, the first of which sees `depth` earlier positions of its own.
Work decode_work(const ModelWork& model, int64_t sequences, int64_t depth, int64_t steps);

}  // namespace thimble
