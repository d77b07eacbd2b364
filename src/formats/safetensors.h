#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "formats/tensor_source.h"
#include "tensor/tensor.h"

namespace thimble {

// A tensor as a safetensors header lists it. `dtype` is the header's name ("F32", "I64"); only F32, F16 and BF16
// can serve as weights.
struct SafetensorsEntry {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;  // empty for a scalar
  std::span<const std::byte> bytes;

  std::optional<DType> weight_type() const;  // nullopt where it can't be a weight
};

struct SafetensorsFile {
  std::vector<SafetensorsEntry> tensors;         // in the order of their bytes
  std::map<std::string, std::string> metadata;  // __metadata__
};

// Reads the header as strictly as the reference implementation: at most 100 MB, valid JSON that begins with '{',
// no duplicate names, ranges that match shape and type, follow each other without holes or overlaps and end with
// the file. Entries point into `bytes`. Throws Error.
SafetensorsFile parse_safetensors(std::span<const std::byte> bytes, const std::string& place);

// A whole file's tensors by name, kept mapped; a tensor that stands misaligned for its type is copied. Types other
// than F32, F16 and BF16 throw Error naming the tensor, unless `skip` says that the entry may be left out.
using SkipEntry = bool (*)(const SafetensorsEntry&);
std::map<std::string, Tensor> read_safetensors(const std::filesystem::path& path, SkipEntry skip = nullptr);

// The same over all files of a folder: model.safetensors, or the shards that model.safetensors.index.json names,
// each of which must hold what the index says and nothing else.
std::map<std::string, Tensor> read_safetensors_folder(const std::filesystem::path& folder, SkipEntry skip = nullptr);

// Writes through AtomicFile; tensors must be F32, F16 or BF16 (Error otherwise) and stream one after the other,
// wider types first so that all stand aligned.
void write_safetensors(const std::filesystem::path& path, std::span<const TensorSource> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace thimble
