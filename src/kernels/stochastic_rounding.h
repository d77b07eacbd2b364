#pragma once

#include <cstdint>

namespace thimble {

// out[i] = x[i] rounded to one of the two bfloat16 around it, up with a chance that is its share of the way, so that
// many small steps add up where rounding to nearest would lose each of them (Gupta et al. 2015, arXiv 1502.02551).
// The chance is drawn from the key and first + i alone: the same arguments give the same bits on any number of threads.
void round_stochastically(const float* x, int64_t count, uint64_t key, int64_t first, uint16_t* out);

}  // namespace thimble
