#include "formats/model_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "core/mapped_file.h"
#include "formats/llama_names.h"
#include "formats/temporary_folder.h"
#include "formats/tiny_model.h"
#include "stories.h"

namespace thimble {
namespace {

using ::testing::HasSubstr;
using test::error_of;

std::vector<TensorSource> gguf_tensors_of(const ModelFile& file) {
  std::vector<TensorSource> out;
  for (const auto& [name, tensor] : file.tensors) {
    TensorSource source = stored_source(*llama_name_to_gguf(name), tensor);
    if (const int heads = permuted_heads(name, file.config); heads > 0) {
      source.produce = [tensor, heads, head_dim = file.config.head_dim](const WriteBytes& write) {
        std::vector<std::byte> rows(tensor.bytes());
        rows_to_gguf(tensor.data, rows.data(), heads, head_dim, tensor.bytes() / static_cast<size_t>(tensor.shape[0]));
        write(rows.data(), rows.size());
      };
    }
    out.push_back(std::move(source));
  }
  return out;
}

struct TinyGguf {
  test::TemporaryFolder folder;
  std::filesystem::path path = folder / "tiny.gguf";
  ModelFile source;

  explicit TinyGguf(const std::vector<GgufEntry>& metadata = test::tiny_metadata(),
                    const std::vector<TensorSource>& more = {}) {
    test::write_tiny_folder(folder / "hf");
    source = open_model(folder / "hf");
    auto tensors = gguf_tensors_of(source);
    tensors.insert(tensors.end(), more.begin(), more.end());
    write_gguf(path, metadata, tensors);
  }
};

TEST(LlamaNames, TranslateBothWays) {
  for (const char* name : {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight",
                           "model.layers.0.self_attn.q_proj.weight", "model.layers.12.mlp.down_proj.bias"}) {
    const auto gguf = llama_name_to_gguf(name);
    ASSERT_TRUE(gguf.has_value()) << name;
    EXPECT_EQ(llama_name_from_gguf(*gguf), name);
  }
  EXPECT_EQ(llama_name_to_gguf("model.layers.12.self_attn.o_proj.weight"), "blk.12.attn_output.weight");
  for (const char* name : {"blk.x.attn_q.weight", "blk..attn_q.weight", "blk.-1.attn_q.weight", "blk.01.attn_q.weight",
                           "blk.0.ffn_gate_exps.weight", "blk.0.attn_q.scale", "blk.0", "", "blk.0.attn_q",
                           "blk.99999999999999999999.attn_q.weight"})
    EXPECT_FALSE(llama_name_from_gguf(name).has_value()) << name;
}

TEST(ModelFile, GivesGgufAndSafetensorsTheSameTensorsAndFingerprint) {
  const TinyGguf tiny;
  const ModelFile gguf = open_model(tiny.path);
  EXPECT_EQ(gguf.format, "gguf");
  EXPECT_EQ(tiny.source.format, "safetensors");
  ASSERT_EQ(gguf.tensors.size(), tiny.source.tensors.size());
  for (const auto& [name, tensor] : tiny.source.tensors) {
    const Tensor& other = gguf.tensors.at(name);
    ASSERT_EQ(tensor.shape, other.shape) << name;
    EXPECT_EQ(std::memcmp(tensor.data, other.data, tensor.bytes()), 0) << name;
  }
  EXPECT_EQ(gguf.fingerprint, tiny.source.fingerprint);
  EXPECT_EQ(gguf.fingerprint.size(), 64u);
  EXPECT_EQ(gguf.config.head_dim, 16);
  EXPECT_TRUE(gguf.config.tied_embeddings);
}

// llama.cpp's converter: weights.reshape(heads, 2, head_dim / 2, in).swapaxes(1, 2).reshape(shape)
TEST(ModelFile, UndoesTheRowOrderOfLlamaCppsConverter) {
  const uint8_t gguf[8] = {0, 4, 1, 5, 2, 6, 3, 7};  // one head of eight rows of one byte
  uint8_t out[8];
  rows_from_gguf(reinterpret_cast<const std::byte*>(gguf), reinterpret_cast<std::byte*>(out), 1, 8, 1);
  for (uint8_t i = 0; i < 8; ++i) EXPECT_EQ(out[i], i);
  uint8_t back[8];
  rows_to_gguf(reinterpret_cast<const std::byte*>(out), reinterpret_cast<std::byte*>(back), 1, 8, 1);
  EXPECT_EQ(std::memcmp(back, gguf, 8), 0);
}

TEST(ModelFile, TheFingerprintTellsWeightsApart) {
  const test::TemporaryFolder folder;
  test::write_tiny_folder(folder / "a");
  test::write_tiny_folder(folder / "b");
  test::write_tiny_folder(folder / "c", test::kTinyConfig, DType::kBF16);
  EXPECT_EQ(open_model(folder / "a").fingerprint, open_model(folder / "b").fingerprint);
  EXPECT_NE(open_model(folder / "a").fingerprint, open_model(folder / "c").fingerprint);
  std::string bytes = read_file(folder / "b" / "model.safetensors");
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  write_file(folder / "b" / "model.safetensors", bytes);
  EXPECT_NE(open_model(folder / "a").fingerprint, open_model(folder / "b").fingerprint);
}

TEST(ModelFile, RefusesEveryTruncationOfASmallGguf) {
  const TinyGguf tiny;
  const std::string bytes = read_file(tiny.path);
  write_file(tiny.folder / "cut.gguf", bytes);
  int tried = 0;
  for (size_t length = (bytes.size() - 64) / 64 * 64; length > 0; length -= 64, ++tried) {
    std::filesystem::resize_file(tiny.folder / "cut.gguf", length);
    ASSERT_THAT(error_of([&] { open_model(tiny.folder / "cut.gguf"); }), HasSubstr("cut.gguf")) << length;
  }
  EXPECT_GT(tried, 1000);
}

TEST(ModelFile, RefusesGgufMetadataThatWouldChangeTheComputation) {
  struct Case {
    GgufEntry entry;
    const char* says;
  };
  const Case cases[] = {
      {{"general.architecture", std::string("qwen3moe")}, "architecture 'qwen3moe' is not supported"},
      {{"llama.expert_count", uint32_t{8}}, "mixtures of experts"},
      {{"llama.attention.sliding_window", uint32_t{512}}, "sliding windows"},
      {{"llama.logit_scale", 2.0f}, "'llama.logit_scale' is unknown"},
      {{"llama.attention.causal", false}, "only causal"},
      {{"llama.rope.scaling.type", std::string("yarn")}, "'yarn'"},
      {{"llama.rope.dimension_count", uint32_t{8}}, "not the size of a head"},
      {{"llama.attention.value_length", uint32_t{8}}, "differs from the key length"},
      {{"llama.attention.head_count", uint32_t{0}}, "from 1 to"},
      {{"llama.attention.head_count", uint32_t{8}}, "rows where the metadata asks for"},
      {{"llama.attention.head_count", std::string("4")}, "is not an integer"},
      {{"llama.block_count", uint32_t{1}}, "is not part of a llama model"},
      {{"llama.vocab_size", uint32_t{41}}, "differs from the embedding's 40 rows"},
      {{"llama.feed_forward_length", GgufArray{std::vector<int32_t>{96, 64}}}, "differs from layer to layer"},
      {{"tokenizer.ggml.tokens", GgufArray{std::vector<std::string>(41, "x")}}, "only 40 rows"},
      {{"tokenizer.ggml.bos_token_id", uint32_t{5}}, "beyond the vocabulary of 0 tokens"},
      {{"tokenizer.ggml.token_type", GgufArray{std::vector<int32_t>{1}}}, "one int32 for each"},
  };
  for (const Case& c : cases) {
    auto metadata = test::tiny_metadata();
    std::erase_if(metadata, [&](const GgufEntry& e) { return e.key == c.entry.key; });
    metadata.push_back(c.entry);
    const TinyGguf tiny(metadata);
    EXPECT_THAT(error_of([&] { open_model(tiny.path); }), HasSubstr(c.says)) << c.entry.key;
  }
  for (const GgufEntry& entry : test::tiny_metadata()) {  // without each of the entries
    if (entry.key == "llama.rope.freq_base") continue;    // it has a default
    auto metadata = test::tiny_metadata();
    std::erase_if(metadata, [&](const GgufEntry& e) { return e.key == entry.key; });
    const TinyGguf tiny(metadata);
    EXPECT_NE(error_of([&] { open_model(tiny.path); }), "") << entry.key;
  }
}

TEST(ModelFile, RefusesTensorsThatTheFamilyDoesNotKnow) {
  const std::vector<float> values(64, 1.0f);
  const auto one = [&](const char* name) {
    return TensorSource{name, DType::kF32, {64}, [&](const WriteBytes& w) { w(values.data(), 256); }};
  };
  EXPECT_THAT(error_of([&] { open_model(TinyGguf(test::tiny_metadata(), {one("blk.0.ssm_a")}).path); }),
              HasSubstr("'blk.0.ssm_a' is not part"));
  EXPECT_THAT(error_of([&] { open_model(TinyGguf(test::tiny_metadata(), {one("blk.1.attn_q.bias")}).path); }),
              HasSubstr("self_attn.q_proj.bias' is not part"));
}

TEST(ModelFile, TakesRopeFactorsOutOfGguf) {
  std::vector<float> factors(8, 2.0f);
  const TensorSource source{"rope_freqs.weight", DType::kF32, {8},
                            [&](const WriteBytes& w) { w(factors.data(), 32); }};
  const TinyGguf tiny(test::tiny_metadata(), {source});
  const ModelFile file = open_model(tiny.path);
  EXPECT_EQ(file.config.rope_factors, factors);
  EXPECT_EQ(file.tensors.count("rope_freqs.weight"), 0u);
  factors[3] = 0;
  EXPECT_THAT(error_of([&] { open_model(TinyGguf(test::tiny_metadata(), {source}).path); }),
              HasSubstr("each value must be positive"));
}

TEST(ModelFile, SaysWhatAFolderLacks) {
  const test::TemporaryFolder folder;
  EXPECT_THAT(error_of([&] { open_model(folder / "absent"); }), HasSubstr("does not exist"));
  EXPECT_THAT(error_of([&] { open_model(folder.path()); }), HasSubstr("has no config.json"));
  write_file(folder / "m.gguf", "");
  EXPECT_THAT(error_of([&] { open_model(folder.path()); }), HasSubstr("m.gguf"));
  EXPECT_THAT(error_of([&] { open_model(folder / "m.gguf"); }), HasSubstr("is not a GGUF file"));
  write_file(folder / "config.json", test::kTinyConfig);
  EXPECT_THAT(error_of([&] { open_model(folder.path()); }), HasSubstr("has neither model.safetensors nor"));
}

TEST(ModelFile, DropsAStoredHeadOnlyWhereItIsTheEmbedding) {
  const test::TemporaryFolder folder;
  test::write_tiny_folder(folder / "a");
  write_safetensors(folder / "a" / "model.safetensors", test::tiny_weights(DType::kF32, false));
  EXPECT_THAT(error_of([&] { open_model(folder / "a"); }), HasSubstr("lm_head.weight differs"));
  auto weights = test::tiny_weights();
  weights.push_back(weights.front());
  weights.back().name = "lm_head.weight";
  write_safetensors(folder / "a" / "model.safetensors", weights);
  EXPECT_EQ(open_model(folder / "a").tensors.count("lm_head.weight"), 0u);
}

TEST(ModelFile, ReadsTemplatesWhereverTheyStand) {
  const test::TemporaryFolder folder;
  write_file(folder / "tokenizer_config.json", R"({"chat_template": "one"})");
  EXPECT_EQ(open_vocabulary(folder.path()).chat_template, "one");
  write_file(folder / "tokenizer_config.json",
             R"({"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]})");
  EXPECT_EQ(open_vocabulary(folder.path()).chat_template, "d");
  EXPECT_EQ(open_vocabulary(folder.path()).named_templates.at("tool_use"), "t");
  write_file(folder / "chat_template.jinja", "file");
  EXPECT_EQ(open_vocabulary(folder.path()).chat_template, "file");
  write_file(folder / "config.json", R"({"eos_token_id": 2})");
  EXPECT_EQ(open_vocabulary(folder.path()).end_ids, std::vector<int>{2});
  write_file(folder / "generation_config.json", R"({"eos_token_id": [2, 7]})");
  EXPECT_EQ(open_vocabulary(folder.path()).end_ids, (std::vector<int>{2, 7}));
  write_file(folder / "generation_config.json", R"({"eos_token_id": "x"})");
  EXPECT_THAT(error_of([&] { open_vocabulary(folder.path()); }), HasSubstr("eos_token_id"));
}

TEST(ModelFile, OpensVocabularyOnlyGgufFiles) {
  const auto path = test::data("tokenizers") / "ggml-vocab-llama-spm.gguf";
  THIMBLE_REQUIRE_DATA(path);
  const Vocabulary vocabulary = open_vocabulary(path);
  EXPECT_EQ(vocabulary.model, "llama");
  EXPECT_EQ(vocabulary.tokens.size(), 32000u);
  EXPECT_EQ(vocabulary.scores.size(), 32000u);
  EXPECT_EQ(vocabulary.bos, 1);
  EXPECT_THAT(error_of([&] { open_model(path); }), HasSubstr("holds only a vocabulary"));
}

TEST(ModelFile, OpensTheStoriesModel) {
  THIMBLE_REQUIRE_STORIES();
  const ModelFile file = open_model(test::stories_model());
  EXPECT_EQ(file.config.hidden, 64);
  EXPECT_EQ(file.config.layers, 5);
  EXPECT_EQ(file.tensors.size(), 47u);
  EXPECT_EQ(file.vocabulary.end_ids, std::vector<int>{2});
  EXPECT_FALSE(file.vocabulary.tokenizer_json.empty());
}

}  // namespace
}  // namespace thimble
