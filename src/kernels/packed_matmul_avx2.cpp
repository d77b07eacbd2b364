#include "kernels/packed_layout.h"

namespace thimble::packed {
TileKernel avx2_kernel(PackedKind, int) { return nullptr; }
Quantizer avx2_quantizer() { return plain_quantizer(); }
}  // namespace thimble::packed
