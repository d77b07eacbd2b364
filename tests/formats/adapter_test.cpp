#include "formats/adapter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "core/random.h"
#include "formats/safetensors.h"
#include "formats/temporary_folder.h"
#include "test_data.h"

namespace thimble {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using test::error_of;

LoraAdapter example() {
  LoraAdapter adapter;
  adapter.rank = 2;
  adapter.alpha = 8;
  adapter.base_name = "smollm2-135m-instruct";
  adapter.manifest = R"({"any": "thing"})";
  Random random(1);
  for (const char* name : {"model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"}) {
    LoraModule module;
    module.in = 6;
    module.out = 4;
    for (int i = 0; i < 12; ++i) module.a.push_back(random.normal());
    for (int i = 0; i < 8; ++i) module.b.push_back(random.normal());
    adapter.modules[name] = module;
  }
  return adapter;
}

TEST(Adapter, ReadsBackWhatItWrites) {
  const test::TemporaryFolder folder;
  const LoraAdapter written = example();
  write_adapter(folder / "new" / "adapter", written);
  const LoraAdapter read = read_adapter(folder / "new" / "adapter");
  EXPECT_EQ(read.rank, 2);
  EXPECT_EQ(read.alpha, 8);
  EXPECT_EQ(read.scale(), 4);
  EXPECT_EQ(read.base_name, written.base_name);
  EXPECT_EQ(read.manifest, written.manifest);
  ASSERT_EQ(read.modules.size(), 2u);
  for (const auto& [name, module] : written.modules) {
    EXPECT_EQ(read.modules.at(name).a, module.a);
    EXPECT_EQ(read.modules.at(name).b, module.b);
    EXPECT_EQ(read.modules.at(name).in, 6);
    EXPECT_EQ(read.modules.at(name).out, 4);
  }
}

TEST(Adapter, KeepsMagnitudesAndLayerNumbers) {
  const test::TemporaryFolder folder;
  LoraAdapter written = example();
  written.dora = true;
  written.layers = {0};
  float length = 1;
  for (auto& [name, module] : written.modules) module.magnitude = {length++, 0.5f, 0.25f, 2};
  write_adapter(folder.path(), written);
  const LoraAdapter read = read_adapter(folder.path());
  EXPECT_TRUE(read.dora);
  EXPECT_EQ(read.layers, written.layers);
  ASSERT_EQ(read.modules.size(), 2u);
  for (const auto& [name, module] : written.modules) EXPECT_EQ(read.modules.at(name).magnitude, module.magnitude);
}

TEST(Adapter, ScalesByTheRootOfTheRankWhereRslora) {
  LoraAdapter adapter = example();
  adapter.rank = 16;
  EXPECT_EQ(adapter.scale(), 0.5f);
  adapter.rslora = true;
  EXPECT_EQ(adapter.scale(), 2.0f);
}

// tests/golden/formats/peft was written by peft itself (tests/oracle/make_adapter_golden.py): rank 2, alpha 6,
// values counting up from 0 by 0.25 in the order of the names.
TEST(Adapter, ReadsWhatPeftWrites) {
  const LoraAdapter adapter = read_adapter(test::golden("formats/peft"));
  EXPECT_EQ(adapter.rank, 2);
  EXPECT_EQ(adapter.scale(), 3.0f);
  ASSERT_EQ(adapter.modules.size(), 2u);
  const LoraModule& q = adapter.modules.at("model.layers.0.self_attn.q_proj");
  EXPECT_EQ(q.in, 8);
  EXPECT_EQ(q.out, 8);
  EXPECT_EQ(q.a.front(), 0.0f);
  EXPECT_EQ(q.a.back(), 15 * 0.25f);
  EXPECT_EQ(q.b.front(), 16 * 0.25f);
}

class Forged : public testing::Test {
 protected:
  void SetUp() override {
    write_adapter(folder_.path(), example());
    config_ = json::parse(read_file(folder_ / "adapter_config.json"));
  }
  std::string refusal(const json& changes) {
    json config = config_;
    config.update(changes);
    write_file(folder_ / "adapter_config.json", config.dump());
    return error_of([&] { read_adapter(folder_.path()); });
  }
  test::TemporaryFolder folder_;
  json config_;
};

TEST_F(Forged, FieldsThatChangeTheComputationAreRefused) {
  const std::pair<json, const char*> cases[] = {
      {{{"peft_type", "IA3"}}, "'peft_type' must be LORA"},
      {{{"task_type", "SEQ_CLS"}}, "must be CAUSAL_LM"},
      {{{"bias", "all"}}, "'bias' must be none"},
      {{{"use_dora", true}}, "has 4 outputs and 0 magnitudes"},
      {{{"use_dora", "yes"}}, "'use_dora' must be true or false"},
      {{{"layers_to_transform", {"3"}}}, "'layers_to_transform' must be"},
      {{{"rank_pattern", {{"q_proj", 4}}}}, "'rank_pattern'"},
      {{{"alpha_pattern", {{"q_proj", 4}}}}, "'alpha_pattern'"},
      {{{"modules_to_save", {"lm_head"}}}, "'modules_to_save'"},
      {{{"init_lora_weights", "pissa"}}, "changes the base model's weights"},
      {{{"some_future_field", 1}}, "'some_future_field' is 1"},
      {{{"r", 0}}, "'r' must be"},
      {{{"r", 1e9}}, "'r' must be"},
      {{{"r", 3}}, "has rank 2 where adapter_config.json says 3"},
      {{{"lora_alpha", "8"}}, "'lora_alpha' must be a number"},
      {{{"use_rslora", 1}}, "'use_rslora' must be true or false"},
  };
  for (const auto& [changes, says] : cases) EXPECT_THAT(refusal(changes), HasSubstr(says)) << changes.dump();
  EXPECT_EQ(refusal({{"some_future_field", nullptr}, {"lora_dropout", 0.1}, {"init_lora_weights", "gaussian"}}), "");
}

TEST_F(Forged, WeightsThatAreNotPlainLoraAreRefused) {
  const std::vector<float> values(12, 1.0f);
  const auto with = [&](std::vector<std::pair<std::string, std::vector<int64_t>>> tensors, const float* data) {
    std::vector<TensorSource> sources;
    for (auto& [name, shape] : tensors)
      sources.push_back({name, DType::kF32, shape, [=](const WriteBytes& w) { w(data, 48); }});
    write_safetensors(folder_ / "adapter_model.safetensors", sources);
    return error_of([&] { read_adapter(folder_.path()); });
  };
  EXPECT_THAT(with({}, nullptr), HasSubstr("holds no tensors"));
  EXPECT_THAT(with({{"base_model.model.m.lora_A.weight", {2, 6}}}, values.data()), HasSubstr("'m' lacks its lora_B"));
  EXPECT_THAT(with({{"m.lora_A.weight", {2, 6}}}, values.data()), HasSubstr("not part of a plain LoRA"));
  EXPECT_THAT(with({{"base_model.model.m.lora_magnitude_vector", {2, 6}}}, values.data()),
              HasSubstr("not part of a plain LoRA"));
  EXPECT_THAT(with({{"base_model.model.m.lora_A.weight", {12}}}, values.data()), HasSubstr("two dimensions"));
  const std::vector<float> broken(12, std::numeric_limits<float>::quiet_NaN());
  EXPECT_THAT(with({{"base_model.model.m.lora_A.weight", {2, 6}}}, broken.data()), HasSubstr("not finite"));
}

TEST(Adapter, SaysWhatAFolderLacks) {
  const test::TemporaryFolder folder;
  EXPECT_THAT(error_of([&] { read_adapter(folder / "absent"); }), HasSubstr("does not exist"));
  EXPECT_THAT(error_of([&] { read_adapter(folder.path()); }), HasSubstr("has no adapter_config.json"));
  write_adapter(folder.path(), example());
  std::filesystem::remove(folder / "adapter_model.safetensors");
  EXPECT_THAT(error_of([&] { read_adapter(folder.path()); }), HasSubstr("adapter_model.safetensors"));
}

}  // namespace
}  // namespace thimble
