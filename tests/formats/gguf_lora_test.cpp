#include "formats/gguf_lora.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "core/mapped_file.h"
#include "core/random.h"
#include "formats/adapter_mix.h"
#include "formats/gguf.h"
#include "formats/temporary_folder.h"

namespace thimble {
namespace {

ModelConfig base() {
  ModelConfig c;
  c.family = "llama";
  c.hidden = 16;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 4;
  return c;
}

LoraAdapter adapter(int rank, uint64_t seed, std::initializer_list<const char*> layers = {"q_proj", "o_proj"}) {
  LoraAdapter out;
  out.rank = rank;
  out.alpha = 6;
  out.base_name = "some/base";
  Random random(seed);
  for (const char* layer : layers) {
    LoraModule& m = out.modules[std::string("model.layers.0.self_attn.") + layer];
    m.in = 16;
    m.out = 16;
    for (int i = 0; i < rank * 16; ++i) m.a.push_back(random.normal()), m.b.push_back(random.normal());
  }
  return out;
}

// What an adapter adds to a layer: scale · b · a, [out, in].
std::vector<double> added(const LoraAdapter& adapter, const std::string& name) {
  const auto found = adapter.modules.find(name);
  std::vector<double> out(16 * 16);
  if (found == adapter.modules.end()) return out;
  for (int64_t o = 0; o < 16; ++o)
    for (int64_t i = 0; i < 16; ++i)
      for (int64_t r = 0; r < adapter.rank; ++r)
        out[static_cast<size_t>(o * 16 + i)] += double{adapter.scale()} *
                                                found->second.b[static_cast<size_t>(o * adapter.rank + r)] *
                                                found->second.a[static_cast<size_t>(r * 16 + i)];
  return out;
}

TEST(GgufLora, GoesThroughTheFileUnchanged) {
  const test::TemporaryFolder folder;
  for (const bool rslora : {false, true}) {
    LoraAdapter out = adapter(3, 1);
    out.rslora = rslora;
    out.manifest = "{}";
    write_gguf_lora(folder.path() / "a.gguf", out, base());
    const LoraAdapter in = read_gguf_lora(folder.path() / "a.gguf", base());
    EXPECT_EQ(in.rank, 3);
    EXPECT_FLOAT_EQ(in.scale(), out.scale());
    EXPECT_EQ(in.manifest, "{}");
    EXPECT_EQ(in.base_name, "some/base");
    ASSERT_EQ(in.modules.size(), 2u);
    for (const auto& [name, module] : out.modules) {
      EXPECT_EQ(in.modules.at(name).a, module.a);
      EXPECT_EQ(in.modules.at(name).b, module.b);
    }
  }
}

TEST(GgufLora, QueryRowsStandAsTheBasesDoAndOthersAsTheyAre) {
  const test::TemporaryFolder folder;
  const LoraAdapter out = adapter(3, 1);
  write_gguf_lora(folder.path() / "a.gguf", out, base());
  const MappedFile mapped(folder.path() / "a.gguf");
  const GgufFile file = parse_gguf(mapped.bytes(), "a.gguf");
  EXPECT_EQ(file.string("general.type"), "adapter");
  EXPECT_EQ(file.string("adapter.type"), "lora");
  EXPECT_EQ(file.number("adapter.lora.alpha"), 6);
  for (const GgufTensor& t : file.tensors) {
    const auto* values = reinterpret_cast<const float*>(t.data);
    if (t.name == "blk.0.attn_q.weight.lora_b") {
      EXPECT_EQ(t.shape, (std::vector<int64_t>{16, 3}));
      const auto& b = out.modules.at("model.layers.0.self_attn.q_proj").b;
      // Row 1 of a head is the partner of its row 0: transformers' row head_dim / 2.
      for (int r = 0; r < 3; ++r) EXPECT_EQ(values[3 + r], b[static_cast<size_t>(2 * 3 + r)]);
    } else if (t.name == "blk.0.attn_output.weight.lora_b") {
      const auto& b = out.modules.at("model.layers.0.self_attn.o_proj").b;
      EXPECT_TRUE(std::equal(b.begin(), b.end(), values));
    } else {
      EXPECT_THAT(t.name, testing::EndsWith(".lora_a"));
      EXPECT_EQ(t.shape, (std::vector<int64_t>{3, 16}));
    }
  }
}

TEST(GgufLora, RefusesWhatItCantHold) {
  const test::TemporaryFolder folder;
  const auto file = folder.path() / "a.gguf";
  LoraAdapter dora = adapter(2, 1);
  dora.dora = true;
  EXPECT_THROW(write_gguf_lora(file, dora, base()), Error);
  LoraAdapter unknown = adapter(2, 1, {"z_proj"});
  EXPECT_THROW(write_gguf_lora(file, unknown, base()), Error);
  write_gguf_lora(file, adapter(2, 1), base());
  ModelConfig other = base();
  other.heads = 8;
  EXPECT_THROW(read_gguf_lora(file, other), Error);
  const std::vector<GgufEntry> model = {{"general.architecture", std::string("llama")},
                                        {"general.type", std::string("model")}};
  write_gguf(file, model, {});
  EXPECT_THROW(read_gguf_lora(file, base()), Error);
}

TEST(AdapterMix, ConcatenatedIsTheExactWeightedSum) {
  const std::vector<LoraAdapter> both = {adapter(2, 1), adapter(5, 2, {"q_proj", "v_proj"})};
  const std::vector<double> weights = {0.75, -2};
  const LoraAdapter mixed = concatenate_adapters(both, weights);
  EXPECT_EQ(mixed.rank, 7);
  EXPECT_EQ(mixed.modules.size(), 3u);
  for (const auto& [name, unused] : mixed.modules) {
    const auto sum = added(mixed, name), first = added(both[0], name), second = added(both[1], name);
    for (size_t i = 0; i < sum.size(); ++i) EXPECT_NEAR(sum[i], 0.75 * first[i] - 2 * second[i], 1e-4) << name;
  }
}

TEST(AdapterMix, LinearAddsMatricesByTheRootsOfTheirWeights) {
  const std::vector<LoraAdapter> both = {adapter(2, 1), adapter(2, 2)};
  const LoraAdapter mixed = add_adapters(both, std::vector<double>{0.75, 0.5});
  EXPECT_EQ(mixed.rank, 2);
  EXPECT_FLOAT_EQ(mixed.scale(), 1);
  for (const auto& [name, module] : mixed.modules)
    for (size_t i = 0; i < module.a.size(); ++i) {
      EXPECT_NEAR(module.a[i], std::sqrt(0.75 * 3) * both[0].modules.at(name).a[i] +
                                   std::sqrt(0.5 * 3) * both[1].modules.at(name).a[i], 1e-5);
      EXPECT_NEAR(module.b[i], std::sqrt(0.75 * 3) * both[0].modules.at(name).b[i] +
                                   std::sqrt(0.5 * 3) * both[1].modules.at(name).b[i], 1e-5);
    }
}

TEST(AdapterMix, RefusesWhatDoesNotAddUp) {
  std::vector<LoraAdapter> both = {adapter(2, 1), adapter(3, 2)};
  EXPECT_THROW(concatenate_adapters(both, std::vector<double>{1}), Error);
  EXPECT_THROW(concatenate_adapters({}, {}), Error);
  EXPECT_THROW(add_adapters(both, std::vector<double>{1, 1}), Error) << "ranks";
  both[1] = adapter(2, 2);
  EXPECT_THROW(add_adapters(both, std::vector<double>{1, -1}), Error);
  both[1].modules.begin()->second.in = 8;
  EXPECT_THROW(concatenate_adapters(both, std::vector<double>{1, 1}), Error);
  both[1] = adapter(2, 2);
  both[1].dora = true;
  EXPECT_THROW(concatenate_adapters(both, std::vector<double>{1, 1}), Error);
}

}  // namespace
}  // namespace thimble
