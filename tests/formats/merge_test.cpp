#include "formats/merge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/mapped_file.h"
#include "formats/gguf.h"
#include "formats/temporary_folder.h"
#include "formats/tiny_model.h"
#include "formats/tokenizer_conversion.h"
#include "stories.h"
#include "tensor/quantize.h"

namespace thimble {
namespace {

using nlohmann::json;
using test::error_of;
using ::testing::HasSubstr;

LoraModule random_module(int64_t in, int64_t out, int rank, uint64_t seed) {
  LoraModule module;
  module.in = in;
  module.out = out;
  Random random(seed);
  for (int64_t i = 0; i < rank * in; ++i) module.a.push_back(0.1f * random.normal());
  for (int64_t i = 0; i < rank * out; ++i) module.b.push_back(0.1f * random.normal());
  return module;
}

LoraAdapter example() {
  LoraAdapter adapter;
  adapter.rank = 3;
  adapter.alpha = 6;
  adapter.modules["model.layers.0.self_attn.q_proj"] = random_module(64, 64, 3, 1);
  adapter.modules["model.layers.1.self_attn.k_proj"] = random_module(64, 32, 3, 2);
  adapter.modules["model.layers.1.mlp.down_proj"] = random_module(96, 64, 3, 3);
  return adapter;
}

// What merging must give, computed in double.
std::vector<float> expected(const ModelFile& base, const LoraAdapter& adapter, const std::string& module) {
  const Buffer<float> weight = dequantize(base.tensors.at(module + ".weight"));
  std::vector<float> out(weight.begin(), weight.end());
  const auto found = adapter.modules.find(module);
  if (found == adapter.modules.end()) return out;
  const LoraModule& m = found->second;
  for (int64_t o = 0; o < m.out; ++o)
    for (int64_t i = 0; i < m.in; ++i) {
      double sum = 0;
      for (int64_t r = 0; r < adapter.rank; ++r)
        sum += double{m.b[static_cast<size_t>(o * adapter.rank + r)]} * m.a[static_cast<size_t>(r * m.in + i)];
      out[static_cast<size_t>(o * m.in + i)] += static_cast<float>(adapter.scale() * sum);
    }
  for (int64_t o = 0; o < m.out && !m.magnitude.empty(); ++o) {
    float* row = out.data() + o * m.in;
    double square = 0;
    for (int64_t i = 0; i < m.in; ++i) square += static_cast<double>(row[i]) * row[i];
    for (int64_t i = 0; i < m.in; ++i)
      row[i] *= static_cast<float>(m.magnitude[static_cast<size_t>(o)] / std::sqrt(square));
  }
  return out;
}

class Merge : public testing::Test {
 protected:
  void SetUp() override {
    test::write_tiny_folder(folder_ / "base");
    base_ = open_model(folder_ / "base");
  }
  void expect_merged(const ModelFile& merged, float tolerance) {
    for (const auto& [name, tensor] : base_.tensors) {
      const std::string module = name.substr(0, name.rfind('.'));
      const auto want = expected(base_, adapter_, module);
      const Buffer<float> got = dequantize(merged.tensors.at(name));
      ASSERT_EQ(got.size(), want.size()) << name;
      for (size_t i = 0; i < want.size(); ++i)
        ASSERT_NEAR(got[i], want[i], tolerance * (1 + std::fabs(want[i]))) << name;
    }
  }

  test::TemporaryFolder folder_;
  ModelFile base_;
  LoraAdapter adapter_ = example();
};

TEST_F(Merge, AddsTheAdapterInEveryFormAndType) {
  const std::pair<DType, float> types[] = {{DType::kF32, 1e-6f}, {DType::kF16, 1e-3f}, {DType::kBF16, 8e-3f}};
  for (const auto& [type, tolerance] : types) {
    const std::string name(dtype_info(type).name);
    merge_to_safetensors(base_, adapter_, folder_ / ("hf-" + name), type);
    expect_merged(open_model(folder_ / ("hf-" + name)), tolerance);
    merge_to_gguf(base_, adapter_, folder_ / (name + ".gguf"), type);
    const ModelFile gguf = open_model(folder_ / (name + ".gguf"));
    expect_merged(gguf, tolerance);
    EXPECT_EQ(gguf.tensors.at("model.norm.weight").type, DType::kF32);
    EXPECT_EQ(gguf.config.norm_eps, base_.config.norm_eps);
    EXPECT_EQ(gguf.config.head_dim, 16);
    // and from GGUF on
    merge_to_safetensors(gguf, LoraAdapter{}, folder_ / ("again-" + name), type);
    expect_merged(open_model(folder_ / ("again-" + name)), 2 * tolerance);
  }
  merge_to_gguf(base_, adapter_, folder_ / "q8.gguf", DType::kQ8_0);
  const ModelFile q8 = open_model(folder_ / "q8.gguf");
  EXPECT_EQ(q8.tensors.at("model.layers.0.mlp.up_proj.weight").type, DType::kQ8_0);
  expect_merged(q8, 5e-3f);
}

TEST_F(Merge, StretchesRowsToDorasMagnitudes) {
  adapter_.dora = true;
  Random random(9);
  for (auto& [name, module] : adapter_.modules)
    for (int64_t o = 0; o < module.out; ++o) module.magnitude.push_back(1 + 0.5f * random.normal());
  merge_to_safetensors(base_, adapter_, folder_ / "dora", DType::kF32);
  expect_merged(open_model(folder_ / "dora"), 1e-6f);
  merge_to_gguf(base_, adapter_, folder_ / "dora.gguf", DType::kF32);
  expect_merged(open_model(folder_ / "dora.gguf"), 1e-6f);
}

TEST_F(Merge, WithoutModulesKeepsEveryBit) {
  merge_to_gguf(base_, LoraAdapter{}, folder_ / "a.gguf", DType::kF32);
  EXPECT_EQ(open_model(folder_ / "a.gguf").fingerprint, base_.fingerprint);
  merge_to_safetensors(open_model(folder_ / "a.gguf"), LoraAdapter{}, folder_ / "b", DType::kF32);
  EXPECT_EQ(open_model(folder_ / "b").fingerprint, base_.fingerprint);
}

// Rows of the test model are 64 and 96 long: whole blocks of 32, not of 256.
TEST_F(Merge, WritesEveryTypeAndWhatFitsWhereRowsAreNotWholeBlocks) {
  struct Case {
    DType type, matrices, head;
    float tolerance;
  };
  constexpr DType kBF16 = DType::kBF16, kQ8_0 = DType::kQ8_0, kQ5_0 = DType::kQ5_0, kQ5_1 = DType::kQ5_1;
  const Case cases[] = {
      {kBF16, kBF16, kBF16, 8e-3f},         {kQ8_0, kQ8_0, kQ8_0, 5e-3f},
      {DType::kQ4_0, DType::kQ4_0, kQ8_0, 0.12f}, {DType::kQ4_1, DType::kQ4_1, kQ8_0, 0.12f},
      {kQ5_0, kQ5_0, kQ8_0, 0.06f},         {kQ5_1, kQ5_1, kQ8_0, 0.06f},
      {DType::kQ4_K, kQ5_0, kQ8_0, 0.06f},  {DType::kQ5_K, kQ5_1, kQ8_0, 0.06f},
      {DType::kQ6_K, kQ8_0, kQ8_0, 5e-3f}};
  adapter_ = LoraAdapter{};
  for (const Case& c : cases) {
    const auto file = folder_ / (std::string(dtype_info(c.type).name) + ".gguf");
    merge_to_gguf(base_, adapter_, file, c.type);
    const ModelFile made = open_model(file);
    for (const auto& [name, tensor] : made.tensors) {
      const DType want = tensor.shape.size() < 2                ? DType::kF32
                         : name == "model.embed_tokens.weight" ? c.head
                                                                : c.matrices;
      EXPECT_EQ(tensor.type, want) << dtype_info(c.type).name << " " << name;
    }
    expect_merged(made, c.tolerance);
  }
  merge_to_gguf(base_, adapter_, folder_ / "head.gguf", DType::kQ4_0, DType::kF16);
  const ModelFile made = open_model(folder_ / "head.gguf");
  EXPECT_EQ(made.tensors.at("model.embed_tokens.weight").type, DType::kF16);
  EXPECT_EQ(made.tensors.at("model.layers.0.mlp.up_proj.weight").type, DType::kQ4_0);
}

// Query and key rows are kept in another order in GGUF; quantising what is quantised again would move them.
TEST_F(Merge, CopiesWeightsThatAreOfTheTypeAlready) {
  for (const DType type : {DType::kQ4_1, DType::kQ5_0, DType::kQ8_0}) {
    const std::string name(dtype_info(type).name);
    merge_to_gguf(base_, LoraAdapter{}, folder_ / (name + "-1.gguf"), type, type);
    const ModelFile once = open_model(folder_ / (name + "-1.gguf"));
    merge_to_gguf(once, LoraAdapter{}, folder_ / (name + "-2.gguf"), type, type);
    const ModelFile twice = open_model(folder_ / (name + "-2.gguf"));
    for (const auto& [tensor, stored] : once.tensors)
      EXPECT_EQ(std::memcmp(stored.data, twice.tensors.at(tensor).data, stored.bytes()), 0) << name << " " << tensor;
  }
}

TEST_F(Merge, RefusesWeightsThatAreNotFinite) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    const auto values = [bad](const WriteBytes& write) {
      std::vector<float> row(64 * 96, 0.5f);
      row[64 * 7 + 5] = bad;
      write(row.data(), row.size() * sizeof(float));
    };
    auto weights = test::tiny_weights();
    for (TensorSource& weight : weights)
      if (weight.name == "model.layers.1.mlp.up_proj.weight") weight.produce = values;
    write_safetensors(folder_ / "base" / "model.safetensors", weights);
    const ModelFile broken = open_model(folder_ / "base");
    for (const DType type : {DType::kF32, DType::kQ4_0, DType::kQ6_K}) {
      EXPECT_THAT(error_of([&] { merge_to_gguf(broken, LoraAdapter{}, folder_ / "x.gguf", type); }),
                  HasSubstr("tensor 'model.layers.1.mlp.up_proj.weight', row 7: a value is not finite"));
      EXPECT_FALSE(std::filesystem::exists(folder_ / "x.gguf"));
    }
  }
}

TEST_F(Merge, KeepsTheJobOfAModelThatIsOnlyConverted) {
  adapter_.manifest = R"({"job": 1})";
  merge_to_gguf(base_, adapter_, folder_ / "a.gguf", DType::kF16);
  merge_to_gguf(open_model(folder_ / "a.gguf"), LoraAdapter{}, folder_ / "b.gguf", DType::kQ8_0);
  merge_to_safetensors(base_, adapter_, folder_ / "hf", DType::kBF16);
  merge_to_gguf(open_model(folder_ / "hf"), LoraAdapter{}, folder_ / "c.gguf", DType::kQ8_0);
  for (const char* name : {"b.gguf", "c.gguf"}) {
    const MappedFile mapped(folder_ / name);
    const GgufFile file = parse_gguf(mapped.bytes(), name);
    EXPECT_EQ(file.string("thimble.job"), adapter_.manifest) << name;
    EXPECT_EQ(file.integer("general.file_type"), 7) << name;
    EXPECT_EQ(file.integer("general.quantization_version"), 2) << name;
  }
}

TEST_F(Merge, CarriesTheManifestAlong) {
  adapter_.manifest = R"({"job": 1})";
  merge_to_safetensors(base_, adapter_, folder_ / "hf", DType::kBF16);
  EXPECT_EQ(read_file(folder_ / "hf" / "thimble_job.json"), adapter_.manifest);
  merge_to_gguf(base_, adapter_, folder_ / "a.gguf", DType::kF16);
  const MappedFile mapped(folder_ / "a.gguf");
  EXPECT_EQ(parse_gguf(mapped.bytes(), "a").string("thimble.job"), adapter_.manifest);
}

TEST_F(Merge, PartsATiedHeadThatTheAdapterChanges) {
  adapter_.modules = {{"lm_head", random_module(64, 40, 3, 5)}};
  merge_to_gguf(base_, adapter_, folder_ / "a.gguf", DType::kF32);
  merge_to_safetensors(base_, adapter_, folder_ / "b", DType::kF32);
  for (const ModelFile& merged : {open_model(folder_ / "a.gguf"), open_model(folder_ / "b")}) {
    EXPECT_FALSE(merged.config.tied_embeddings);
    EXPECT_NE(dequantize(merged.tensors.at("lm_head.weight"))[0],
              dequantize(merged.tensors.at("model.embed_tokens.weight"))[0]);
  }
}

TEST_F(Merge, KeepsLlama3ScalingInBothForms) {
  json config = json::parse(test::kTinyConfig);
  config["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", 8.0},
                            {"low_freq_factor", 1.0},
                            {"high_freq_factor", 4.0},
                            {"original_max_position_embeddings", 8192}};
  test::write_tiny_folder(folder_ / "scaled", config.dump());
  const ModelFile base = open_model(folder_ / "scaled");
  merge_to_gguf(base, adapter_, folder_ / "a.gguf", DType::kF32);
  const ModelFile gguf = open_model(folder_ / "a.gguf");
  EXPECT_EQ(gguf.config.rope_factors, llama3_factors(*base.config.rope_scaling, 10000.0f, 16));
  merge_to_safetensors(gguf, LoraAdapter{}, folder_ / "b", DType::kF32);
  EXPECT_EQ(open_model(folder_ / "b").config.rope_scaling->factor, 8.0f);
}

TEST_F(Merge, RefusesAdaptersThatDoNotFit) {
  const auto refusal = [&](const LoraAdapter& adapter) {
    return error_of([&] { merge_to_gguf(base_, adapter, folder_ / "x.gguf", DType::kF16); });
  };
  adapter_.modules["model.layers.9.mlp.up_proj"] = random_module(64, 96, 3, 1);
  EXPECT_THAT(refusal(adapter_), HasSubstr("no linear layer 'model.layers.9.mlp.up_proj'"));
  adapter_ = example();
  adapter_.modules["model.layers.0.mlp.up_proj"] = random_module(64, 95, 3, 1);
  EXPECT_THAT(refusal(adapter_), HasSubstr("is 95 x 64 where the model has 96 x 64"));
  adapter_ = example();
  adapter_.modules["model.layers.0.self_attn.q_proj"].b[5] = 1e6f;
  EXPECT_THAT(refusal(adapter_), HasSubstr("too large for F16"));
  EXPECT_EQ(error_of([&] { merge_to_gguf(base_, adapter_, folder_ / "x.gguf", DType::kBF16); }), "");
  std::filesystem::remove(folder_ / "x.gguf");
  adapter_.modules["model.layers.0.self_attn.q_proj"].b[5] = std::numeric_limits<float>::infinity();
  EXPECT_THAT(refusal(adapter_), HasSubstr("not finite"));
  EXPECT_THAT(error_of([&] { merge_to_safetensors(base_, adapter_, folder_ / "x", DType::kBF16); }),
              HasSubstr("not finite"));
  for (const auto& item : std::filesystem::directory_iterator(folder_.path()))
    EXPECT_EQ(item.path().filename(), "base") << "left behind";
}

TEST_F(Merge, RefusesTargetsThatItWouldOverwriteAndTypesThatTheFormHasNot) {
  merge_to_safetensors(base_, adapter_, folder_ / "x", DType::kBF16);
  EXPECT_THAT(error_of([&] { merge_to_safetensors(base_, adapter_, folder_ / "x", DType::kBF16); }),
              HasSubstr("holds something already"));
  EXPECT_THAT(error_of([&] { merge_to_safetensors(base_, adapter_, folder_ / "y", DType::kQ8_0); }),
              HasSubstr("not Q8_0"));
  merge_to_gguf(base_, adapter_, folder_ / "x.gguf", DType::kF32);
  const ModelFile gguf = open_model(folder_ / "x.gguf");
  EXPECT_THAT(error_of([&] { merge_to_gguf(gguf, adapter_, folder_ / "x.gguf", DType::kF32); }),
              HasSubstr("is the base model itself"));
}

TEST_F(Merge, TakesASentencePieceTokenizerThereAndBack) {
  THIMBLE_REQUIRE_STORIES();
  const ModelFile stories = open_model(test::stories_model());
  merge_to_gguf(stories, LoraAdapter{}, folder_ / "s.gguf", DType::kQ8_0);
  const ModelFile gguf = open_model(folder_ / "s.gguf");
  EXPECT_EQ(gguf.tensors.at("model.layers.0.mlp.down_proj.weight").type, DType::kF16);  // rows of 172
  const Vocabulary& v = gguf.vocabulary;
  EXPECT_EQ(v.model, "llama");
  EXPECT_EQ(v.tokens.size(), 512u);
  EXPECT_EQ(v.types[0], 2);
  EXPECT_EQ(v.types[1], 3);
  EXPECT_EQ(v.types[3], 6);
  EXPECT_EQ(v.bos, 1);
  EXPECT_EQ(v.eos, 2);
  EXPECT_EQ(v.add_bos, true);
  EXPECT_EQ(v.add_space_prefix, true);
  merge_to_safetensors(gguf, LoraAdapter{}, folder_ / "back", DType::kF32);
  const json before = json::parse(stories.vocabulary.tokenizer_json);
  const json after = json::parse(read_file(folder_ / "back" / "tokenizer.json"));
  EXPECT_EQ(before["model"]["vocab"], after["model"]["vocab"]);
  EXPECT_EQ(before["normalizer"], after["normalizer"]);
  EXPECT_EQ(before["decoder"], after["decoder"]);
  EXPECT_EQ(before["post_processor"], after["post_processor"]);
  json pairs = json::array();
  for (const json& pair : after["model"]["merges"])
    pairs.push_back(pair[0].get<std::string>() + " " + pair[1].get<std::string>());
  EXPECT_EQ(before["model"]["merges"], pairs);
}

Vocabulary byte_level_vocabulary() {
  Vocabulary v;
  v.model = "gpt2";
  v.pre = "smollm";
  v.tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "ab", "<tool>"};
  v.types = {3, 3, 3, 1, 1, 1, 4};
  v.merges = {"a b"};
  v.bos = 1;
  v.eos = 2;
  v.add_bos = false;
  v.end_ids = {2, 0};
  v.chat_template = "{{ messages }}";
  v.named_templates = {{"tool_use", "{{ tools }}"}};
  return v;
}

TEST(TokenizerConversion, TakesAByteLevelTokenizerThereAndBack) {
  const Vocabulary v = byte_level_vocabulary();
  Vocabulary json_side;
  json_side.tokenizer_json = tokenizer_json(v);
  json_side.tokenizer_config_json = tokenizer_config_json(v, 2048);
  json_side.chat_template = v.chat_template;
  json_side.named_templates = v.named_templates;
  json_side.end_ids = v.end_ids;
  GgufFile file;
  file.metadata = gguf_tokenizer(json_side, 8);
  EXPECT_EQ(
      *file.strings("tokenizer.ggml.tokens"),
      (std::vector<std::string>{"<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "ab", "<tool>", "[PAD7]"}));
  const auto& types = std::get<GgufArray>(*file.find("tokenizer.ggml.token_type"));
  EXPECT_EQ(std::get<std::vector<int32_t>>(types.items), (std::vector<int32_t>{3, 3, 3, 1, 1, 1, 4, 5}));
  EXPECT_EQ(*file.strings("tokenizer.ggml.merges"), v.merges);
  EXPECT_EQ(file.string("tokenizer.ggml.pre"), "smollm");
  EXPECT_EQ(file.integer("tokenizer.ggml.bos_token_id"), 1);
  EXPECT_EQ(file.integer("tokenizer.ggml.eos_token_id"), 2);
  EXPECT_EQ(file.integer("tokenizer.ggml.eot_token_id"), 0);
  EXPECT_EQ(file.boolean("tokenizer.ggml.add_bos_token"), false);
  EXPECT_EQ(file.string("tokenizer.chat_template"), v.chat_template);
  EXPECT_EQ(file.string("tokenizer.chat_template.tool_use"), "{{ tools }}");
}

TEST(TokenizerConversion, RefusesWhatTheOtherFormCanNotSay) {
  Vocabulary v = byte_level_vocabulary();
  v.pre = "some-new-rule";
  EXPECT_THAT(error_of([&] { tokenizer_json(v); }), HasSubstr("'some-new-rule'"));
  v = byte_level_vocabulary();
  v.tokens[3] = "\xff";
  EXPECT_THAT(error_of([&] { tokenizer_json(v); }), HasSubstr("not valid UTF-8"));
  v.model = "bert";
  EXPECT_THAT(error_of([&] { tokenizer_json(v); }), HasSubstr("'bert'"));
  const auto refusal = [](const std::string& text) {
    Vocabulary json_side;
    json_side.tokenizer_json = text;
    return error_of([&] { gguf_tokenizer(json_side, 2); });
  };
  EXPECT_THAT(refusal(R"({"model": {"type": "Unigram"}})"), HasSubstr("not BPE"));
  EXPECT_THAT(refusal(R"({"model": {"type": "BPE", "vocab": {"a": 5}, "merges": []}})"),
              HasSubstr("beyond the model's"));
  EXPECT_THAT(refusal(R"({"model": {"vocab": {"a": 0}, "merges": []}, "pre_tokenizer": {"type": "Whitespace"}})"),
              HasSubstr("the way it splits text"));
  EXPECT_THAT(refusal(R"({"model": {"vocab": {"a": 0}, "merges": ["ab"]}})"), HasSubstr("not two tokens"));
}

}  // namespace
}  // namespace thimble
