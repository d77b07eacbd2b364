#include "formats/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "core/mapped_file.h"
#include "formats/forged_gguf.h"
#include "formats/temporary_folder.h"

namespace thimble {
namespace {

using ::testing::HasSubstr;
using test::error_of;
using test::GgufBytes;

std::string refusal(const GgufBytes& forged) {
  return error_of([&] { parse_gguf(forged.bytes(), "forged.gguf"); });
}

std::span<const std::byte> as_bytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::string valid_file(const std::filesystem::path& path) {
  const std::vector<GgufEntry> metadata = {
      {"general.architecture", std::string("llama")},
      {"a.u8", uint8_t{200}},
      {"a.i8", int8_t{-3}},
      {"a.u16", uint16_t{60000}},
      {"a.i16", int16_t{-30000}},
      {"a.u32", uint32_t{4000000000u}},
      {"a.i32", int32_t{-5}},
      {"a.f32", 1.5f},
      {"a.bool", true},
      {"a.u64", uint64_t{1} << 40},
      {"a.i64", int64_t{-1}},
      {"a.f64", 2.25},
      {"list.strings", GgufArray{std::vector<std::string>{"x", "", "\xe2\x96\x81y"}}},
      {"list.bools", GgufArray{std::vector<bool>{true, false, true}}},
      {"list.f32", GgufArray{std::vector<float>{1, 2, 3}}},
      {"list.nested", GgufArray{std::vector<GgufArray>{{std::vector<int32_t>{1, 2}}, {std::vector<int32_t>{}}}}},
  };
  static const std::vector<float> norm = {1, 2, 3};
  static const std::vector<std::byte> quantised(2 * 34, std::byte{7});
  const std::vector<TensorSource> tensors = {
      {"norm", DType::kF32, {3}, [](const WriteBytes& w) { w(norm.data(), 12); }},
      {"weight", DType::kQ8_0, {2, 32}, [](const WriteBytes& w) { w(quantised.data(), quantised.size()); }},
  };
  write_gguf(path, metadata, tensors);
  return read_file(path);
}

TEST(Gguf, ReadsBackEveryTypeThatItWrites) {
  const test::TemporaryFolder folder;
  const std::string bytes = valid_file(folder / "a.gguf");
  const GgufFile file = parse_gguf(as_bytes(bytes), "a.gguf");
  EXPECT_EQ(file.version, 3u);
  EXPECT_EQ(file.metadata.size(), 16u);
  EXPECT_EQ(file.integer("a.u8"), 200);
  EXPECT_EQ(file.integer("a.i8"), -3);
  EXPECT_EQ(file.integer("a.u16"), 60000);
  EXPECT_EQ(file.integer("a.i16"), -30000);
  EXPECT_EQ(file.integer("a.u32"), 4000000000);
  EXPECT_EQ(file.integer("a.i32"), -5);
  EXPECT_EQ(file.integer("a.u64"), int64_t{1} << 40);
  EXPECT_EQ(file.integer("a.i64"), -1);
  EXPECT_EQ(file.number("a.f32"), 1.5);
  EXPECT_EQ(file.number("a.f64"), 2.25);
  EXPECT_EQ(file.boolean("a.bool"), true);
  EXPECT_EQ(file.string("general.architecture"), "llama");
  EXPECT_EQ(file.integer("absent"), std::nullopt);
  ASSERT_NE(file.strings("list.strings"), nullptr);
  EXPECT_THAT(*file.strings("list.strings"), testing::ElementsAre("x", "", "\xe2\x96\x81y"));
  const auto& bools = std::get<GgufArray>(*file.find("list.bools"));
  EXPECT_EQ(std::get<std::vector<bool>>(bools.items), (std::vector<bool>{true, false, true}));
  const auto& nested = std::get<GgufArray>(*file.find("list.nested"));
  EXPECT_EQ(std::get<std::vector<GgufArray>>(nested.items).at(0).size(), 2u);
  ASSERT_EQ(file.tensors.size(), 2u);
  EXPECT_EQ(file.tensors[0].shape, std::vector<int64_t>{3});
  EXPECT_EQ(reinterpret_cast<const float*>(file.tensors[0].data)[2], 3.0f);
  EXPECT_EQ(file.tensors[1].shape, (std::vector<int64_t>{2, 32}));
  EXPECT_EQ(file.tensors[1].type, DType::kQ8_0);
  EXPECT_EQ(file.tensors[1].data[67], std::byte{7});
  EXPECT_EQ((file.tensors[1].data - as_bytes(bytes).data()) % 32, 0);
}

TEST(Gguf, KeepsAnotherAlignment) {
  const test::TemporaryFolder folder;
  const float one = 1;
  const std::vector<TensorSource> tensors = {
      {"a", DType::kF32, {1}, [&](const WriteBytes& w) { w(&one, 4); }},
      {"b", DType::kF32, {1}, [&](const WriteBytes& w) { w(&one, 4); }},
  };
  write_gguf(folder / "a.gguf", {}, tensors, 256);
  const std::string bytes = read_file(folder / "a.gguf");
  const GgufFile file = parse_gguf(as_bytes(bytes), "a.gguf");
  EXPECT_EQ(file.alignment, 256u);
  EXPECT_EQ(file.tensors[1].data - file.tensors[0].data, 256);
}

TEST(Gguf, TypedAccessNamesTheKeyThatHoldsSomethingElse) {
  const test::TemporaryFolder folder;
  const std::string bytes = valid_file(folder / "a.gguf");
  const GgufFile file = parse_gguf(as_bytes(bytes), "a.gguf");
  EXPECT_THAT(error_of([&] { file.integer("a.f32"); }), HasSubstr("'a.f32' is not an integer"));
  EXPECT_THAT(error_of([&] { file.integer("a.bool"); }), HasSubstr("'a.bool' is not an integer"));
  EXPECT_THAT(error_of([&] { file.number("general.architecture"); }), HasSubstr("is not a number"));
  EXPECT_THAT(error_of([&] { file.string("a.u8"); }), HasSubstr("'a.u8' is not a string"));
  EXPECT_THAT(error_of([&] { file.boolean("a.u8"); }), HasSubstr("'a.u8' is not a boolean"));
  EXPECT_THAT(error_of([&] { file.strings("list.f32"); }), HasSubstr("'list.f32' is not an array of strings"));
}

TEST(Gguf, RefusesEveryTruncation) {
  const test::TemporaryFolder folder;
  const std::string bytes = valid_file(folder / "a.gguf");
  // The last tensor's padding may be missing; anything before may not.
  const size_t data_end = bytes.size() - (96 - 68);
  for (size_t length = 0; length < data_end; length += length < 1000 ? 1 : 64) {
    const std::string cut = bytes.substr(0, length);
    EXPECT_NE(error_of([&] { parse_gguf(as_bytes(cut), "cut.gguf"); }), "") << length << " bytes";
  }
  EXPECT_NO_THROW(parse_gguf(as_bytes(bytes).first(data_end), "whole.gguf"));
}

TEST(Gguf, RefusesOtherFilesVersionsAndByteOrders) {
  EXPECT_THAT(error_of([] { parse_gguf(as_bytes("PK\3\4........"), "a.zip"); }), HasSubstr("is not a GGUF file"));
  EXPECT_THAT(error_of([] { parse_gguf({}, "empty.gguf"); }), HasSubstr("is not a GGUF file"));
  EXPECT_THAT(refusal(GgufBytes(0, 0, 1)), HasSubstr("version 1"));
  EXPECT_THAT(refusal(GgufBytes(0, 0, 4)), HasSubstr("version 4"));
  EXPECT_THAT(refusal(GgufBytes(0, 0, 0x03000000)), HasSubstr("big-endian"));
  EXPECT_EQ(refusal(GgufBytes(0, 0, 2)), "");
}

TEST(Gguf, RefusesForgedCountsAndLengths) {
  constexpr uint64_t kHuge = ~uint64_t{0};
  EXPECT_THAT(refusal(GgufBytes(kHuge, 0)), HasSubstr("more than the file's"));
  EXPECT_THAT(refusal(GgufBytes(0, kHuge)), HasSubstr("more than the file's"));
  EXPECT_THAT(refusal(GgufBytes(0, 1).u64(kHuge).data(64)), HasSubstr("metadata key of 18446744073709551615 bytes"));
  EXPECT_THAT(refusal(GgufBytes(0, 1).entry("k", 8).u64(kHuge).data(64)), HasSubstr("ends inside a string"));
  for (const uint32_t element : {0u, 1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u, 9u, 10u, 11u, 12u})
    EXPECT_THAT(refusal(GgufBytes(0, 1).entry("k", 9).u32(element).u64(kHuge / 2).data(64)),
                HasSubstr("ends inside an array"))
        << "element type " << element;
  EXPECT_THAT(refusal(GgufBytes(0, 1).entry("k", 9).u32(99).u64(0).data(64)), HasSubstr("array type 99 is unknown"));
  EXPECT_THAT(refusal(GgufBytes(0, 1).entry("k", 13).u64(0).data(64)), HasSubstr("metadata type 13 is unknown"));
  EXPECT_THAT(refusal(GgufBytes(0, 1).entry("k", 7).u8(2).data(64)), HasSubstr("a boolean holds 2"));
  GgufBytes deep(0, 1);
  deep.entry("k", 9);
  for (int i = 0; i < 6; ++i) deep.u32(9).u64(1);
  EXPECT_THAT(refusal(deep.u32(0).u64(0).data(64)), HasSubstr("nested too deeply"));
}

TEST(Gguf, RefusesDuplicates) {
  EXPECT_THAT(refusal(GgufBytes(0, 2).entry("k", 0).u8(1).entry("k", 0).u8(2).data(64)),
              HasSubstr("metadata key 'k' appears twice"));
  EXPECT_THAT(refusal(GgufBytes(2, 0).tensor("t", {1}, 0, 0).tensor("t", {1}, 0, 32).data(64)),
              HasSubstr("tensor 't' appears twice"));
}

TEST(Gguf, RefusesForgedTensors) {
  constexpr uint64_t kHuge = ~uint64_t{0};
  const auto one = [] { return GgufBytes(1, 0); };
  EXPECT_THAT(refusal(one().tensor("t", {}, 0, 0).data(64)), HasSubstr("0 dimensions"));
  EXPECT_THAT(refusal(one().tensor("t", {1, 1, 1, 1, 1}, 0, 0).data(64)), HasSubstr("5 dimensions"));
  EXPECT_THAT(refusal(one().tensor("t", {0}, 0, 0).data(64)), HasSubstr("dimension 0 is 0"));
  EXPECT_THAT(refusal(one().tensor("t", {kHuge}, 0, 0).data(64)), HasSubstr("which no file can hold"));
  EXPECT_THAT(refusal(one().tensor("t", {uint64_t{1} << 32, uint64_t{1} << 32}, 0, 0).data(64)),
              HasSubstr("which no file can hold"));
  EXPECT_THAT(refusal(one().tensor("t", {32, 2}, 10, 0).data(64)), HasSubstr("type Q2_K can't be read"));
  EXPECT_THAT(refusal(one().tensor("t", {32, 2}, 12345, 0).data(64)), HasSubstr("type 12345 can't be read"));
  EXPECT_THAT(refusal(one().tensor("t", {33, 2}, 8, 0).data(96)), HasSubstr("not whole blocks of 32 (Q8_0)"));
  EXPECT_THAT(refusal(one().tensor("t", {4}, 0, 8).data(64)), HasSubstr("not a multiple of the alignment 32"));
  EXPECT_THAT(refusal(one().tensor("t", {4}, 0, kHuge - 31).data(64)), HasSubstr("beyond the end of the file"));
  EXPECT_THAT(refusal(one().tensor("t", {17}, 0, 0).data(64)), HasSubstr("beyond the end of the file"));
  EXPECT_THAT(refusal(GgufBytes(2, 0).tensor("a", {16}, 0, 0).tensor("b", {1}, 0, 32).data(64)),
              HasSubstr("'a' and 'b' overlap"));
  EXPECT_THAT(refusal(GgufBytes(2, 0).tensor("a", {1}, 0, 0).tensor("b", {1}, 0, 0).data(64)), HasSubstr("overlap"));
}

TEST(Gguf, RefusesSenselessAlignments) {
  for (const uint32_t alignment : {0u, 1u, 4u, 24u, 1u << 30}) {
    EXPECT_THAT(refusal(GgufBytes(0, 1).entry("general.alignment", 4).u32(alignment).data(64)),
                HasSubstr("general.alignment is"))
        << alignment;
  }
}

TEST(Gguf, WritesNothingWhereATensorComesTwice) {
  const test::TemporaryFolder folder;
  const TensorSource one{"t", DType::kF32, {1}, [](const WriteBytes&) {}};
  EXPECT_THAT(error_of([&] { write_gguf(folder / "a.gguf", {}, std::vector<TensorSource>{one, one}); }),
              HasSubstr("'t' would be written twice"));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace thimble
