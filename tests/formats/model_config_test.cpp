#include "formats/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "formats/temporary_folder.h"
#include "formats/tiny_model.h"

namespace thimble {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using test::error_of;

ModelConfig with(const json& changes, const char* base = test::kTinyConfig) {
  json config = json::parse(base);
  config.merge_patch(changes);
  return parse_model_config(config.dump(), "config.json");
}

std::string refusal(const json& changes, const char* base = test::kTinyConfig) {
  return error_of([&] { with(changes, base); });
}

constexpr const char* kGpt2 = R"({"model_type": "gpt2", "vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4,
  "n_positions": 64, "layer_norm_epsilon": 1e-05})";

TEST(ModelConfig, ReadsTheLlamaFamily) {
  const ModelConfig c = with(json::object());
  EXPECT_EQ(c.family, "llama");
  EXPECT_EQ(c.vocab, 40);
  EXPECT_EQ(c.hidden, 64);
  EXPECT_EQ(c.layers, 2);
  EXPECT_EQ(c.heads, 4);
  EXPECT_EQ(c.kv_heads, 2);
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_EQ(c.ffn, 96);
  EXPECT_EQ(c.context, 128);
  EXPECT_EQ(c.norm_eps, 1e-5f);
  EXPECT_TRUE(c.tied_embeddings);
  EXPECT_EQ(with({{"head_dim", 32}}).head_dim, 32);
  EXPECT_EQ(with({{"num_key_value_heads", nullptr}}).kv_heads, 4);
}

TEST(ModelConfig, ReadsGpt2) {
  const ModelConfig c = parse_model_config(kGpt2, "config.json");
  EXPECT_EQ(c.family, "gpt2");
  EXPECT_EQ(c.ffn, 128);
  EXPECT_EQ(c.head_dim, 8);
  EXPECT_EQ(c.kv_heads, 4);
  EXPECT_TRUE(c.tied_embeddings);
}

TEST(ModelConfig, ReadsRopeInEverySpelling) {
  const json llama3 = {{"rope_type", "llama3"}, {"factor", 32.0}, {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 8192}};
  json with_theta = llama3;
  with_theta["rope_theta"] = 500000.0;
  for (const json& changes : {json{{"rope_scaling", llama3}, {"rope_theta", 500000.0}},
                              json{{"rope_parameters", with_theta}, {"rope_theta", nullptr}}}) {
    const ModelConfig c = with(changes);
    EXPECT_EQ(c.rope_theta, 500000.0f);
    ASSERT_TRUE(c.rope_scaling.has_value());
    EXPECT_EQ(c.rope_scaling->type, "llama3");
    EXPECT_EQ(c.rope_scaling->factor, 32.0f);
    EXPECT_EQ(c.rope_scaling->original_context, 8192);
  }
  EXPECT_EQ(with({{"rope_scaling", {{"type", "linear"}, {"factor", 2.0}}}}).rope_scaling->factor, 2.0f);
  EXPECT_FALSE(with({{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 1e4}}}}).rope_scaling.has_value());
}

TEST(ModelConfig, RefusesWhatItDoesNotCompute) {
  EXPECT_THAT(refusal({{"model_type", "mamba"}}), HasSubstr("model_type 'mamba' is not supported"));
  EXPECT_THAT(refusal({{"model_type", nullptr}}), HasSubstr("model_type ''"));
  EXPECT_THAT(refusal({{"hidden_act", "gelu"}}), HasSubstr("'hidden_act' is \"gelu\"; only \"silu\""));
  EXPECT_THAT(refusal({{"sliding_window", 4096}}), HasSubstr("sliding windows"));
  EXPECT_EQ(refusal({{"sliding_window", 4096}, {"use_sliding_window", false}}), "");
  EXPECT_THAT(refusal({{"quantization_config", {{"bits", 4}}}}), HasSubstr("'quantization_config'"));
  EXPECT_THAT(refusal({{"num_local_experts", 8}}), HasSubstr("mixtures of experts"));
  EXPECT_THAT(refusal({{"auto_map", {{"AutoModel", "x.y"}}}}), HasSubstr("own code"));
  EXPECT_THAT(refusal({{"partial_rotary_factor", 0.5}}), HasSubstr("partial_rotary_factor"));
  EXPECT_THAT(refusal({{"layer_types", {"sliding_attention"}}}), HasSubstr("layer_types"));
  EXPECT_THAT(refusal({{"rope_scaling", {{"type", "yarn"}, {"factor", 2.0}}}}), HasSubstr("'yarn'"));
  EXPECT_THAT(refusal({{"rope_scaling", {{"type", "linear"}}}}), HasSubstr("'factor' is missing"));
  EXPECT_THAT(refusal({{"rope_scaling", {{"type", "linear"}, {"factor", 2.0}, {"beta", 1}}}}), HasSubstr("'beta'"));
  EXPECT_THAT(refusal({{"activation_function", "relu"}}, kGpt2), HasSubstr("activation_function"));
  EXPECT_THAT(refusal({{"scale_attn_by_inverse_layer_idx", true}}, kGpt2), HasSubstr("inverse_layer"));
}

TEST(ModelConfig, RefusesSenselessSizes) {
  EXPECT_THAT(refusal({{"hidden_size", nullptr}}), HasSubstr("'hidden_size' is missing"));
  EXPECT_THAT(refusal({{"hidden_size", 0}}), HasSubstr("from 1 to"));
  EXPECT_THAT(refusal({{"hidden_size", -1}}), HasSubstr("from 1 to"));
  EXPECT_THAT(refusal({{"hidden_size", 1e30}}), HasSubstr("from 1 to"));
  EXPECT_THAT(refusal({{"hidden_size", "64"}}), HasSubstr("from 1 to"));
  EXPECT_THAT(refusal({{"num_key_value_heads", 3}}), HasSubstr("evenly"));
  EXPECT_THAT(refusal({{"head_dim", 15}}), HasSubstr("in pairs"));
  EXPECT_THAT(refusal({{"num_hidden_layers", 1000000}}), HasSubstr("more than any model"));
  EXPECT_THAT(refusal({{"rms_norm_eps", -1.0}}), HasSubstr("epsilon"));
  EXPECT_THAT(refusal({{"rope_theta", 0.0}}), HasSubstr("theta"));
  EXPECT_THAT(error_of([] { parse_model_config("[]", "c"); }), HasSubstr("JSON object"));
  EXPECT_THAT(error_of([] { parse_model_config(R"({"a":1,"a":2})", "c"); }), HasSubstr("'a' appears twice"));
  EXPECT_THAT(error_of([] { parse_model_config(std::string(100000, '['), "c"); }), HasSubstr("nested deeper"));
}

TEST(ModelConfig, WritesAConfigThatReadsBack) {
  ModelConfig c = with({{"rope_scaling", {{"rope_type", "llama3"}, {"factor", 8.0}, {"low_freq_factor", 1.0},
                                          {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 8192}}}});
  const std::string text = model_config_json(c, "bfloat16");
  const ModelConfig back = parse_model_config(text, "config.json");
  EXPECT_EQ(back.hidden, c.hidden);
  EXPECT_EQ(back.norm_eps, c.norm_eps);
  EXPECT_EQ(back.rope_scaling->factor, 8.0f);
  EXPECT_THAT(text, HasSubstr("1e-05"));
}

TEST(ModelConfig, FindsTheLlama3RuleBehindGgufsFactors) {
  const RopeScaling rule{"llama3", 32, 1, 4, 8192};
  const auto factors = llama3_factors(rule, 500000.0f, 64);
  EXPECT_EQ(factors.front(), 1.0f);
  EXPECT_EQ(factors.back(), 32.0f);
  const auto found = llama3_scaling(factors, 500000.0f, 64);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->factor, 32.0f);
  EXPECT_FALSE(llama3_scaling(std::vector<float>(32, 3.0f), 500000.0f, 64).has_value());
}

}  // namespace
}  // namespace thimble
