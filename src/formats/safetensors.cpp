#include "formats/safetensors.h"

#include <fmt/core.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "core/atomic_file.h"
#include "core/buffer.h"
#include "core/error.h"
#include "core/mapped_file.h"
#include "core/paths.h"
#include "formats/json_text.h"

namespace thimble {
namespace {

using nlohmann::json;

constexpr uint64_t kLargestHeader = 100'000'000;  // as the reference implementation has it
constexpr uint64_t kMostDimensions = 8;
constexpr const char* kIndexName = "model.safetensors.index.json";

struct KnownType {
  std::string_view name;
  uint64_t bits;
};
constexpr KnownType kTypes[] = {{"BOOL", 8}, {"U8", 8},   {"I8", 8},   {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8},
                                {"F4", 4},   {"I16", 16}, {"U16", 16}, {"F16", 16},    {"BF16", 16},   {"I32", 32},
                                {"U32", 32}, {"F32", 32}, {"C64", 64}, {"F64", 64},    {"I64", 64},    {"U64", 64}};

uint64_t non_negative(const json& value, const std::string& where) {
  if (!value.is_number_unsigned())
    throw Error(fmt::format("{}: must be a whole number that is not negative; the file is damaged", where));
  return value.get<uint64_t>();
}

struct Range {
  uint64_t begin = 0, end = 0;
};

Range read_entry(const std::string& where, const json& info, SafetensorsEntry& entry) {
  if (!info.is_object()) throw Error(fmt::format("{}: must be a JSON object; the file is damaged", where));
  for (const auto& [key, value] : info.items())
    if (key != "dtype" && key != "shape" && key != "data_offsets")
      throw Error(
          fmt::format("{}: has an unknown field '{}'; the file is damaged or newer than this program", where, key));
  if (!info.contains("dtype") || !info["dtype"].is_string() || !info.contains("shape") || !info["shape"].is_array() ||
      !info.contains("data_offsets") || !info["data_offsets"].is_array() || info["data_offsets"].size() != 2)
    throw Error(fmt::format("{}: must have a dtype, a shape and two data_offsets; the file is damaged", where));
  entry.dtype = info["dtype"].get<std::string>();
  const auto* type =
      std::find_if(std::begin(kTypes), std::end(kTypes), [&](const KnownType& t) { return t.name == entry.dtype; });
  if (type == std::end(kTypes))
    throw Error(fmt::format("{}: dtype '{}' is unknown; save the model as F32, F16 or BF16", where, entry.dtype));
  if (info["shape"].size() > kMostDimensions)
    throw Error(fmt::format("{}: has {} dimensions, at most {} are read; the file is damaged", where,
                            info["shape"].size(), kMostDimensions));
  uint64_t bits = type->bits;
  for (const json& size : info["shape"]) {
    const uint64_t d = non_negative(size, where + ": shape");
    if (d > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) || __builtin_mul_overflow(bits, d, &bits))
      throw Error(fmt::format("{}: the shape overflows; the file is damaged", where));
    entry.shape.push_back(static_cast<int64_t>(d));
  }
  const Range range{non_negative(info["data_offsets"][0], where + ": data_offsets"),
                    non_negative(info["data_offsets"][1], where + ": data_offsets")};
  if (range.end < range.begin || bits % 8 != 0 || range.end - range.begin != bits / 8)
    throw Error(fmt::format("{}: data_offsets {} to {} don't match its shape and type ({} bytes); the file is damaged",
                            where, range.begin, range.end, bits / 8));
  return range;
}

std::string read_header(std::span<const std::byte> bytes, const std::string& place) {
  uint64_t length = 0;
  if (bytes.size() < sizeof length)
    throw Error(fmt::format("{}: is too short for a safetensors file; it is truncated, fetch it again", place));
  std::memcpy(&length, bytes.data(), sizeof length);
  if (length > kLargestHeader)
    throw Error(
        fmt::format("{}: byte 0: a header of {} bytes is larger than the {} that are allowed; this is no "
                    "safetensors file or a damaged one",
                    place, length, kLargestHeader));
  if (length > bytes.size() - sizeof length)
    throw Error(fmt::format("{}: byte 8: the file ends inside its header of {} bytes; it is truncated, fetch it again",
                            place, length));
  std::string header(reinterpret_cast<const char*>(bytes.data()) + sizeof length, static_cast<size_t>(length));
  if (header.empty() || header.front() != '{')
    throw Error(fmt::format("{}: byte 8: the header does not begin with '{{'; this is no safetensors file", place));
  return header;
}

std::optional<DType> weight_type_of(std::string_view name) {
  if (name != "F32" && name != "F16" && name != "BF16") return std::nullopt;
  return dtype_from_name(name);
}

Tensor as_tensor(const SafetensorsEntry& entry, const std::shared_ptr<const void>& owner, const std::string& place) {
  const auto type = entry.weight_type();
  if (!type)
    throw Error(
        fmt::format("{}: tensor '{}' has dtype {}, which can't serve as a weight; save the model as F32, F16 "
                    "or BF16",
                    place, entry.name, entry.dtype));
  Tensor tensor{*type, entry.shape, entry.bytes.data(), owner};
  if (reinterpret_cast<uintptr_t>(tensor.data) % static_cast<uintptr_t>(dtype_info(*type).block_bytes) != 0) {
    auto copy = std::make_shared<ByteBuffer>(entry.bytes.size());
    std::memcpy(copy->data(), entry.bytes.data(), entry.bytes.size());
    tensor.data = copy->data();
    tensor.owner = std::move(copy);
  }
  return tensor;
}

}  // namespace

std::optional<DType> SafetensorsEntry::weight_type() const {
  for (const int64_t d : shape)
    if (d == 0) return std::nullopt;  // nothing to compute with
  return weight_type_of(dtype);
}

SafetensorsFile parse_safetensors(std::span<const std::byte> bytes, const std::string& place) {
  const std::string text = read_header(bytes, place);
  const json header = parse_json_object(text, place + ": header");
  const std::span<const std::byte> data = bytes.subspan(sizeof(uint64_t) + text.size());

  SafetensorsFile file;
  std::vector<std::pair<Range, SafetensorsEntry>> entries;
  for (const auto& [name, info] : header.items()) {
    if (name == "__metadata__") {
      if (!info.is_object()) throw Error(fmt::format("{}: __metadata__ must be a JSON object", place));
      for (const auto& [key, value] : info.items()) {
        if (!value.is_string()) throw Error(fmt::format("{}: __metadata__ '{}' must be a string", place, key));
        file.metadata[key] = value.get<std::string>();
      }
      continue;
    }
    SafetensorsEntry entry;
    entry.name = name;
    const Range range = read_entry(fmt::format("{}: tensor '{}'", place, name), info, entry);
    entries.emplace_back(range, std::move(entry));
  }
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first.begin, a.first.end) < std::pair(b.first.begin, b.first.end);
  });
  uint64_t expected = 0;
  for (auto& [range, entry] : entries) {
    if (range.begin != expected)
      throw Error(
          fmt::format("{}: tensor '{}' begins at data byte {} where {} was expected: tensors overlap or leave a "
                      "hole; the file is damaged",
                      place, entry.name, range.begin, expected));
    if (range.end > data.size())
      throw Error(
          fmt::format("{}: tensor '{}' ends at data byte {}, beyond the file's {}; it is truncated, fetch it "
                      "again",
                      place, entry.name, range.end, data.size()));
    expected = range.end;
    entry.bytes = data.subspan(range.begin, range.end - range.begin);
    file.tensors.push_back(std::move(entry));
  }
  if (expected != data.size())
    throw Error(
        fmt::format("{}: has {} bytes after its last tensor; the file is damaged", place, data.size() - expected));
  return file;
}

std::map<std::string, Tensor> read_safetensors(const std::filesystem::path& path, SkipEntry skip) {
  auto mapped = std::make_shared<MappedFile>(path);
  const SafetensorsFile file = parse_safetensors(mapped->bytes(), path.string());
  std::map<std::string, Tensor> tensors;
  for (const SafetensorsEntry& entry : file.tensors)
    if (skip == nullptr || !skip(entry)) tensors[entry.name] = as_tensor(entry, mapped, path.string());
  return tensors;
}

std::map<std::string, Tensor> read_safetensors_folder(const std::filesystem::path& folder, SkipEntry skip) {
  const auto index_path = folder / kIndexName;
  if (!path_exists(index_path)) {
    const auto single = folder / "model.safetensors";
    if (!path_exists(single))
      throw Error(fmt::format("{}: has neither model.safetensors nor {}; give a folder that holds a model",
                              folder.string(), kIndexName));
    return read_safetensors(single, skip);
  }
  const std::string place = index_path.string();
  const json index = parse_json_object(read_file(index_path), place);
  if (!index.contains("weight_map") || !index["weight_map"].is_object() || index["weight_map"].empty())
    throw Error(fmt::format("{}: has no weight_map; fetch the file again", place));
  std::map<std::string, std::set<std::string>> shards;
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    if (!name.ends_with(".safetensors") || name.find('/') != std::string::npos || name.find('\0') != std::string::npos)
      throw Error(fmt::format("{}: weight_map '{}' must name a .safetensors file of the same folder", place, tensor));
    shards[name].insert(tensor);
  }
  std::map<std::string, Tensor> tensors;
  for (const auto& [name, wanted] : shards) {
    const auto path = folder / name;
    auto mapped = std::make_shared<MappedFile>(path);
    std::set<std::string> missing = wanted;
    for (const SafetensorsEntry& entry : parse_safetensors(mapped->bytes(), path.string()).tensors) {
      if (missing.erase(entry.name) == 0)
        throw Error(
            fmt::format("{}: holds tensor '{}', which {} does not place there; the shards don't belong "
                        "together, fetch them again",
                        path.string(), entry.name, kIndexName));
      if (skip == nullptr || !skip(entry)) tensors[entry.name] = as_tensor(entry, mapped, path.string());
    }
    if (!missing.empty())
      throw Error(fmt::format("{}: lacks tensor '{}', which {} places there; fetch the file again", path.string(),
                              *missing.begin(), kIndexName));
  }
  return tensors;
}

void write_safetensors(const std::filesystem::path& path, std::span<const TensorSource> tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<const TensorSource*> order;
  for (const TensorSource& tensor : tensors) {
    if (!weight_type_of(dtype_info(tensor.type).name))
      throw Error(fmt::format("{}: tensor '{}' is {}; safetensors files hold F32, F16 or BF16", path.string(),
                              tensor.name, dtype_info(tensor.type).name));
    order.push_back(&tensor);
  }
  std::sort(order.begin(), order.end(), [](const TensorSource* a, const TensorSource* b) {
    const int width_a = dtype_info(a->type).block_bytes, width_b = dtype_info(b->type).block_bytes;
    return width_a != width_b ? width_a > width_b : a < b;  // as given among equals: they stand in one array
  });
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const TensorSource* tensor : order) {
    int64_t elements = 1;
    for (const int64_t d : tensor->shape) elements *= d;
    const uint64_t end = offset + dtype_bytes(tensor->type, elements);
    if (header.contains(tensor->name) || tensor->name == "__metadata__")
      throw Error(fmt::format("{}: tensor '{}' would be written twice; give every tensor its own name", path.string(),
                              tensor->name));
    header[tensor->name] = {
        {"dtype", dtype_info(tensor->type).name}, {"shape", tensor->shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');

  AtomicFile out(path);
  const uint64_t length = text.size();
  out.write(&length, sizeof length);
  out.write(text);
  const uint64_t start = out.position();
  for (const TensorSource* tensor : order)
    tensor->produce([&](const void* data, size_t bytes) { out.write(data, bytes); });
  assert(out.position() - start == offset);
  (void)start;
  out.commit();
}

}  // namespace thimble
