#include "formats/gguf.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <unordered_set>

#include "core/error.h"

namespace thimble {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF is read in place: little-endian machines only");

constexpr size_t kLongestName = 65535;  // of keys and tensors, in bytes
constexpr int kDeepestArray = 4;
constexpr uint32_t kMostDimensions = 4;

// Names of ggml_type ids, to say what a tensor is that can't be read.
constexpr std::string_view kGgmlTypes[] = {
    "F32",     "F16",    "Q4_0",    "Q4_1",   "Q4_2",   "Q4_3", "Q5_0",     "Q5_1",     "Q8_0",     "Q8_1",
    "Q2_K",    "Q3_K",   "Q4_K",    "Q5_K",   "Q6_K",   "Q8_K", "IQ2_XXS",  "IQ2_XS",   "IQ3_XXS",  "IQ1_S",
    "IQ4_NL",  "IQ3_S",  "IQ2_S",   "IQ4_XS", "I8",     "I16",  "I32",      "I64",      "F64",      "IQ1_M",
    "BF16",    "Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8", "TQ1_0", "TQ2_0"};

class Reader {
 public:
  Reader(std::span<const std::byte> bytes, const std::string& place) : bytes_(bytes), place_(place) {}

  size_t position() const { return at_; }
  size_t left() const { return bytes_.size() - at_; }

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(fmt::format("{}: byte {}: {}", place_, at_, what));
  }
  void need(uint64_t bytes, const char* what) const {
    if (bytes > left())
      fail(fmt::format("the file ends inside {}; it is truncated or damaged, fetch it again", what));
  }
  template <class T>
  T value(const char* what) {
    need(sizeof(T), what);
    T out;
    std::memcpy(&out, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return out;
  }
  std::string string(const char* what, uint64_t longest = std::numeric_limits<uint64_t>::max()) {
    const auto length = value<uint64_t>(what);
    if (length > longest) {
      at_ -= sizeof(uint64_t);
      fail(fmt::format("{} of {} bytes is longer than the {} that are allowed; the file is damaged", what, length,
                       longest));
    }
    need(length, what);
    std::string out(reinterpret_cast<const char*>(bytes_.data() + at_), static_cast<size_t>(length));
    at_ += static_cast<size_t>(length);
    return out;
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& place_;
  size_t at_ = 0;
};

bool read_bool(Reader& in) {
  const auto byte = in.value<uint8_t>("a boolean");
  if (byte > 1) in.fail(fmt::format("a boolean holds {}, only 0 and 1 are allowed; the file is damaged", byte));
  return byte == 1;
}

template <class T>
GgufArray read_numbers(Reader& in, uint64_t count) {
  if (count > in.left() / sizeof(T)) in.need(std::numeric_limits<uint64_t>::max(), "an array");
  std::vector<T> list(static_cast<size_t>(count));
  for (T& item : list) item = in.value<T>("an array");
  return {std::move(list)};
}

GgufArray read_array(Reader& in, int depth) {
  if (depth > kDeepestArray) in.fail("arrays are nested too deeply; the file is damaged");
  const auto type = in.value<uint32_t>("an array's type");
  const auto count = in.value<uint64_t>("an array's length");
  const auto fits = [&](uint64_t smallest) {
    if (count > in.left() / smallest) in.need(std::numeric_limits<uint64_t>::max(), "an array");
  };
  switch (static_cast<GgufType>(type)) {
    case GgufType::kU8:
      return read_numbers<uint8_t>(in, count);
    case GgufType::kI8:
      return read_numbers<int8_t>(in, count);
    case GgufType::kU16:
      return read_numbers<uint16_t>(in, count);
    case GgufType::kI16:
      return read_numbers<int16_t>(in, count);
    case GgufType::kU32:
      return read_numbers<uint32_t>(in, count);
    case GgufType::kI32:
      return read_numbers<int32_t>(in, count);
    case GgufType::kF32:
      return read_numbers<float>(in, count);
    case GgufType::kU64:
      return read_numbers<uint64_t>(in, count);
    case GgufType::kI64:
      return read_numbers<int64_t>(in, count);
    case GgufType::kF64:
      return read_numbers<double>(in, count);
    case GgufType::kBool: {
      fits(1);
      std::vector<bool> list;
      list.reserve(static_cast<size_t>(count));
      for (uint64_t i = 0; i < count; ++i) list.push_back(read_bool(in));
      return {std::move(list)};
    }
    case GgufType::kString: {
      fits(sizeof(uint64_t));
      std::vector<std::string> list;
      list.reserve(static_cast<size_t>(count));
      for (uint64_t i = 0; i < count; ++i) list.push_back(in.string("a string of an array"));
      return {std::move(list)};
    }
    case GgufType::kArray: {
      fits(sizeof(uint32_t) + sizeof(uint64_t));
      std::vector<GgufArray> list;
      list.reserve(static_cast<size_t>(count));
      for (uint64_t i = 0; i < count; ++i) list.push_back(read_array(in, depth + 1));
      return {std::move(list)};
    }
  }
  in.fail(fmt::format("array type {} is unknown; the file is damaged or newer than GGUF version 3", type));
}

GgufValue read_value(Reader& in, uint32_t type) {
  switch (static_cast<GgufType>(type)) {
    case GgufType::kU8:
      return in.value<uint8_t>("a value");
    case GgufType::kI8:
      return in.value<int8_t>("a value");
    case GgufType::kU16:
      return in.value<uint16_t>("a value");
    case GgufType::kI16:
      return in.value<int16_t>("a value");
    case GgufType::kU32:
      return in.value<uint32_t>("a value");
    case GgufType::kI32:
      return in.value<int32_t>("a value");
    case GgufType::kF32:
      return in.value<float>("a value");
    case GgufType::kBool:
      return read_bool(in);
    case GgufType::kString:
      return in.string("a string");
    case GgufType::kArray:
      return read_array(in, 1);
    case GgufType::kU64:
      return in.value<uint64_t>("a value");
    case GgufType::kI64:
      return in.value<int64_t>("a value");
    case GgufType::kF64:
      return in.value<double>("a value");
  }
  in.fail(fmt::format("metadata type {} is unknown; the file is damaged or newer than GGUF version 3", type));
}

struct TensorInfo {
  GgufTensor tensor;
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

TensorInfo read_tensor_info(Reader& in, const std::string& place) {
  TensorInfo info;
  info.tensor.name = in.string("a tensor's name", kLongestName);
  const auto dimensions = in.value<uint32_t>("a tensor's dimensions");
  const auto fail = [&](const std::string& what) {
    throw Error(fmt::format("{}: tensor '{}': {}", place, info.tensor.name, what));
  };
  if (dimensions < 1 || dimensions > kMostDimensions)
    fail(fmt::format("has {} dimensions, 1 to {} are allowed; the file is damaged", dimensions, kMostDimensions));
  uint64_t elements = 1;
  for (uint32_t i = 0; i < dimensions; ++i) {
    const auto size = in.value<uint64_t>("a tensor's dimensions");
    constexpr auto kMost = static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) / 8;
    if (size == 0 || size > kMost / elements)
      fail(fmt::format("dimension {} is {}, which no file can hold; the file is damaged", i, size));
    elements *= size;
    info.tensor.shape.insert(info.tensor.shape.begin(), static_cast<int64_t>(size));
  }
  const auto type = in.value<uint32_t>("a tensor's type");
  const auto known = dtype_from_ggml(type);
  if (!known) {
    const std::string name = type < std::size(kGgmlTypes) ? std::string(kGgmlTypes[type]) : fmt::format("{}", type);
    fail(fmt::format("type {} can't be read; use a file with F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, "
                     "Q5_K or Q6_K weights", name));
  }
  info.tensor.type = *known;
  const int block = dtype_info(*known).block;
  if (info.tensor.shape.back() % block != 0)
    fail(fmt::format("rows of {} elements are not whole blocks of {} ({}); the file is damaged",
                     info.tensor.shape.back(), block, dtype_info(*known).name));
  info.bytes = dtype_bytes(*known, static_cast<int64_t>(elements));
  info.offset = in.value<uint64_t>("a tensor's offset");
  return info;
}

uint64_t read_alignment(const GgufFile& file) {
  const auto alignment = file.integer("general.alignment");
  if (!alignment) return 32;
  if (*alignment < 8 || *alignment > (1 << 20) || !std::has_single_bit(static_cast<uint64_t>(*alignment)))
    throw Error(fmt::format("{}: general.alignment is {}, it must be a power of two from 8 to 1048576; the file is "
                            "damaged", file.place, *alignment));
  return static_cast<uint64_t>(*alignment);
}

// Places the tensors in the data section and checks that they neither overlap nor leave it.
void place_tensors(GgufFile& file, std::vector<TensorInfo>& infos, std::span<const std::byte> bytes, uint64_t start) {
  const uint64_t data_size = bytes.size() > start ? bytes.size() - start : 0;
  for (const TensorInfo& info : infos) {
    if (info.offset % file.alignment != 0)
      throw Error(fmt::format("{}: tensor '{}': offset {} is not a multiple of the alignment {}; the file is damaged",
                              file.place, info.tensor.name, info.offset, file.alignment));
    if (info.offset > data_size || info.bytes > data_size - info.offset)
      throw Error(fmt::format("{}: tensor '{}': its {} bytes at offset {} lie beyond the end of the file; the file is "
                              "truncated, fetch it again", file.place, info.tensor.name, info.bytes, info.offset));
  }
  std::vector<const TensorInfo*> order;
  for (const TensorInfo& info : infos) order.push_back(&info);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i]->offset < order[i - 1]->offset + order[i - 1]->bytes)
      throw Error(fmt::format("{}: tensors '{}' and '{}' overlap; the file is damaged", file.place,
                              order[i - 1]->tensor.name, order[i]->tensor.name));
  }
  for (TensorInfo& info : infos) {
    info.tensor.data = bytes.data() + start + info.offset;
    file.tensors.push_back(std::move(info.tensor));
  }
}

}  // namespace

GgufFile parse_gguf(std::span<const std::byte> bytes, const std::string& place) {
  GgufFile file;
  file.place = place;
  Reader in(bytes, place);
  if (bytes.size() < 4 || std::memcmp(bytes.data(), "GGUF", 4) != 0)
    throw Error(fmt::format("{}: is not a GGUF file (it does not begin with 'GGUF'); check the path", place));
  in.value<uint32_t>("the header");
  file.version = in.value<uint32_t>("the header");
  if ((file.version & 0xffffu) == 0 && file.version != 0)
    throw Error(fmt::format("{}: is a big-endian GGUF file; convert it for little-endian machines", place));
  if (file.version != 2 && file.version != 3)
    throw Error(fmt::format("{}: has GGUF version {}; versions 2 and 3 can be read, convert the file again", place,
                            file.version));
  const auto tensor_count = in.value<uint64_t>("the header");
  const auto entry_count = in.value<uint64_t>("the header");
  constexpr uint64_t kSmallestEntry = 8 + 4 + 1, kSmallestTensor = 8 + 4 + 8 + 4 + 8;
  if (entry_count > in.left() / kSmallestEntry || tensor_count > in.left() / kSmallestTensor)
    throw Error(fmt::format("{}: the header counts {} tensors and {} metadata entries, more than the file's {} bytes "
                            "can hold; it is truncated or damaged", place, tensor_count, entry_count, bytes.size()));

  std::unordered_set<std::string> names;
  file.metadata.reserve(static_cast<size_t>(entry_count));
  for (uint64_t i = 0; i < entry_count; ++i) {
    GgufEntry entry;
    entry.key = in.string("a metadata key", kLongestName);
    if (!names.insert(entry.key).second)
      throw Error(fmt::format("{}: metadata key '{}' appears twice; the file is damaged", place, entry.key));
    entry.value = read_value(in, in.value<uint32_t>("a metadata type"));
    file.metadata.push_back(std::move(entry));
  }
  file.alignment = read_alignment(file);

  names.clear();
  std::vector<TensorInfo> infos;
  infos.reserve(static_cast<size_t>(tensor_count));
  for (uint64_t i = 0; i < tensor_count; ++i) {
    infos.push_back(read_tensor_info(in, place));
    if (!names.insert(infos.back().tensor.name).second)
      throw Error(fmt::format("{}: tensor '{}' appears twice; the file is damaged", place, infos.back().tensor.name));
  }
  const uint64_t start = (in.position() + file.alignment - 1) / file.alignment * file.alignment;
  place_tensors(file, infos, bytes, start);
  return file;
}

}  // namespace thimble
