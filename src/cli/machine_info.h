#pragma once

namespace thimble {

// `thimble info --cpu`: what this machine has, and which kernels Thimble chooses for it. Returns the exit status.
int machine_info(bool json);

}  // namespace thimble
