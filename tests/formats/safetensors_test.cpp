#include "formats/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "core/atomic_file.h"
#include "formats/temporary_folder.h"

namespace thimble {
namespace {

using ::testing::HasSubstr;
using test::error_of;

std::span<const std::byte> as_bytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::string file_of(const std::string& header, size_t data) {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + std::string(data, '\1');
}

std::string refusal(const std::string& bytes) {
  return error_of([&] { parse_safetensors(as_bytes(bytes), "forged.safetensors"); });
}

TensorSource source(const std::string& name, DType type, std::vector<int64_t> shape, std::string bytes) {
  return {name, type, std::move(shape), [bytes](const WriteBytes& w) {
            for (const char& c : bytes) w(&c, 1);  // in pieces
          }};
}

TEST(Safetensors, ReadsBackWhatItWrites) {
  const test::TemporaryFolder folder;
  const std::vector<TensorSource> tensors = {
      source("half", DType::kF16, {3}, "abcdef"),
      source("wide", DType::kF32, {1, 2}, "12345678"),
      source("brain", DType::kBF16, {1}, "xy"),
  };
  write_safetensors(folder / "a.safetensors", tensors, {{"format", "pt"}});
  const std::string bytes = read_file(folder / "a.safetensors");
  const SafetensorsFile file = parse_safetensors(as_bytes(bytes), "a");
  ASSERT_EQ(file.tensors.size(), 3u);
  EXPECT_EQ(file.tensors[0].name, "wide");  // wider types first: all stand aligned
  EXPECT_EQ(file.metadata.at("format"), "pt");
  const auto read = read_safetensors(folder / "a.safetensors");
  EXPECT_EQ(read.at("half").type, DType::kF16);
  EXPECT_EQ(read.at("wide").shape, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(std::memcmp(read.at("half").data, "abcdef", 6), 0);
  EXPECT_EQ(std::memcmp(read.at("brain").data, "xy", 2), 0);
}

TEST(Safetensors, RefusesEveryTruncation) {
  const test::TemporaryFolder folder;
  std::vector<TensorSource> tensors;
  for (int i = 0; i < 8; ++i)
    tensors.push_back(source("tensor." + std::to_string(i), DType::kF32, {16}, std::string(64, 'x')));
  write_safetensors(folder / "a.safetensors", tensors);
  const std::string bytes = read_file(folder / "a.safetensors");
  for (size_t length = 0; length < bytes.size(); length += length < 64 ? 1 : 64)
    EXPECT_NE(refusal(bytes.substr(0, length)), "") << length << " bytes";
  EXPECT_EQ(refusal(bytes), "");
  EXPECT_THAT(refusal(bytes + "x"), HasSubstr("1 bytes after its last tensor"));
}

TEST(Safetensors, RefusesForgedHeaders) {
  struct Case {
    std::string bytes;
    const char* says;
  };
  const std::string t = R"("t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  const Case cases[] = {
      {"", "too short"},
      {std::string(8, '\xff'), "larger than the 100000000"},
      {std::string("\x40\0\0\0\0\0\0\0{}", 10), "ends inside its header"},
      {file_of("", 0), "does not begin with '{'"},
      {file_of(" {}", 0), "does not begin with '{'"},
      {file_of("{", 0), "is not valid JSON"},
      {file_of("{\"\xff\":1}", 0), "is not valid JSON"},
      {file_of("{} x", 0), "is not valid JSON"},
      {file_of("{" + t + "," + t + "}", 8), "'t' appears twice"},
      {file_of(R"({"t":1})", 0), "must be a JSON object"},
      {file_of(R"({"t":{"dtype":"F32","shape":[2]}})", 8), "must have a dtype"},
      {file_of(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}})", 8), "unknown field 'x'"},
      {file_of(R"({"t":{"dtype":"Q9","shape":[2],"data_offsets":[0,8]}})", 8), "dtype 'Q9' is unknown"},
      {file_of(R"({"t":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8), "not negative"},
      {file_of(R"({"t":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", 8), "whole number"},
      {file_of(R"({"t":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8]}})", 8), "9 dimensions"},
      {file_of(R"({"t":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}})", 8), "overflows"},
      {file_of(R"({"t":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]}})", 8), "overflows"},
      {file_of(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8), "don't match"},
      {file_of(R"({"t":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8), "don't match"},
      {file_of(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 7), "beyond the file's 7"},
      {file_of(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12), "leave a hole"},
      {file_of("{" + t + R"(,"u":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12), "overlap"},
      {file_of("{" + t + R"(,"u":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}})", 20), "hole"},
      {file_of(R"({"__metadata__":{"a":1}})", 0), "must be a string"},
      {file_of(R"({"__metadata__":[]})", 0), "must be a JSON object"},
  };
  for (const Case& c : cases) EXPECT_THAT(refusal(c.bytes), HasSubstr(c.says)) << c.bytes;
  EXPECT_EQ(refusal(file_of("{}", 0)), "");
  EXPECT_EQ(refusal(file_of("{" + t + "}     ", 8)), "");
}

TEST(Safetensors, ListsOtherTypesButRefusesThemAsWeights) {
  const test::TemporaryFolder folder;
  write_file(folder / "a.safetensors",
             file_of(R"({"ids":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})", 8));
  const std::string bytes = read_file(folder / "a.safetensors");
  const auto file = parse_safetensors(as_bytes(bytes), "a");
  EXPECT_EQ(file.tensors.at(0).dtype, "I64");
  EXPECT_FALSE(file.tensors.at(0).weight_type().has_value());
  EXPECT_THAT(error_of([&] { read_safetensors(folder / "a.safetensors"); }), HasSubstr("dtype I64, which can't serve"));
}

TEST(Safetensors, AlignsTensorsThatTheFileDoesNot) {
  const test::TemporaryFolder folder;
  std::string data(8, '\0');
  const float value = 2.5f;
  std::memcpy(data.data(), &value, 4);
  const std::string header = R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  const uint64_t length = header.size() + 1;  // odd
  write_file(folder / "a.safetensors", std::string(reinterpret_cast<const char*>(&length), 8) + header + " " + data);
  const Tensor tensor = read_safetensors(folder / "a.safetensors").at("t");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data) % 4, 0u);
  EXPECT_EQ(reinterpret_cast<const float*>(tensor.data)[0], 2.5f);
}

class Shards : public testing::Test {
 protected:
  void SetUp() override {
    write_safetensors(folder_ / "model-1.safetensors", std::vector{source("a", DType::kF32, {1}, "aaaa")});
    write_safetensors(folder_ / "model-2.safetensors", std::vector{source("b", DType::kF32, {1}, "bbbb")});
  }
  std::string refusal_of_index(const std::string& index) {
    write_file(folder_ / "model.safetensors.index.json", index);
    return error_of([&] { read_safetensors_folder(folder_.path()); });
  }
  test::TemporaryFolder folder_;
};

TEST_F(Shards, AreReadTogether) {
  EXPECT_EQ(refusal_of_index(R"({"metadata":{},"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}})"),
            "");
  EXPECT_EQ(read_safetensors_folder(folder_.path()).size(), 2u);
}

TEST_F(Shards, RefuseIndexesThatPointOutsideInCirclesOrNowhere) {
  EXPECT_THAT(refusal_of_index(R"({"weight_map":{"a":"../model-1.safetensors"}})"), HasSubstr("same folder"));
  EXPECT_THAT(refusal_of_index(R"({"weight_map":{"a":"/etc/passwd"}})"), HasSubstr("same folder"));
  EXPECT_THAT(refusal_of_index(R"({"weight_map":{"a":"model.safetensors.index.json"}})"), HasSubstr("same folder"));
  EXPECT_THAT(refusal_of_index(R"({"weight_map":{"a":1}})"), HasSubstr("same folder"));
  EXPECT_THAT(refusal_of_index(R"({"weight_map":{"a":"model-9.safetensors"}})"), HasSubstr("can't be opened"));
  EXPECT_THAT(refusal_of_index(R"({"weight_map":{}})"), HasSubstr("no weight_map"));
  EXPECT_THAT(refusal_of_index(R"({"weight_map":{"a":"model-1.safetensors","c":"model-2.safetensors"}})"),
              HasSubstr("holds tensor 'b'"));
  EXPECT_THAT(refusal_of_index(R"({"weight_map":{"a":"model-1.safetensors","b":"model-1.safetensors"}})"),
              HasSubstr("lacks tensor 'b'"));
  std::filesystem::create_symlink("loop.safetensors", folder_ / "loop.safetensors");
  EXPECT_THAT(refusal_of_index(R"({"weight_map":{"a":"loop.safetensors"}})"), HasSubstr("can't be opened"));
}

TEST(Safetensors, WritesNothingThatItCanNotHold) {
  const test::TemporaryFolder folder;
  const auto write = [&](std::vector<TensorSource> tensors) {
    return error_of([&] { write_safetensors(folder / "a.safetensors", tensors); });
  };
  EXPECT_THAT(write({source("q", DType::kQ8_0, {32}, std::string(34, 'x'))}), HasSubstr("'q' is Q8_0"));
  EXPECT_THAT(write({source("t", DType::kF32, {1}, "aaaa"), source("t", DType::kF32, {1}, "aaaa")}),
              HasSubstr("'t' would be written twice"));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace thimble
