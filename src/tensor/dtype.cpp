#include "tensor/dtype.h"

#include <array>
#include <cctype>

namespace thimble {
namespace {
// Ids and sizes from the GGUF specification (ggml/docs/gguf.md, ggml_type).
constexpr std::array<DTypeInfo, kDTypeCount> kInfo = {{
    {"F32", 1, 4, 0},
    {"F16", 1, 2, 1},
    {"BF16", 1, 2, 30},
    {"Q8_0", 32, 34, 8},
    {"Q4_0", 32, 18, 2},
    {"Q4_1", 32, 20, 3},
    {"Q5_0", 32, 22, 6},
    {"Q5_1", 32, 24, 7},
    {"Q4_K", 256, 144, 12},
    {"Q5_K", 256, 176, 13},
    {"Q6_K", 256, 210, 14},
}};
}  // namespace

const DTypeInfo& dtype_info(DType type) { return kInfo[static_cast<size_t>(type)]; }

std::optional<DType> dtype_from_ggml(uint32_t ggml_type) {
  for (int i = 0; i < kDTypeCount; ++i)
    if (kInfo[static_cast<size_t>(i)].ggml_type == ggml_type) return static_cast<DType>(i);
  return std::nullopt;
}

std::optional<DType> dtype_from_name(std::string_view name) {
  for (int i = 0; i < kDTypeCount; ++i) {
    const std::string_view known = kInfo[static_cast<size_t>(i)].name;
    if (known.size() != name.size()) continue;
    bool same = true;
    for (size_t c = 0; c < name.size(); ++c)
      same = same && std::toupper(static_cast<unsigned char>(name[c])) == known[c];
    if (same) return static_cast<DType>(i);
  }
  return std::nullopt;
}

}  // namespace thimble
