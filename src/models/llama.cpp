// The Llama family: Llama 2 and 3, TinyLlama, SmolLM and SmolLM2 (Touvron et al. 2023, arXiv 2302.13971).

#include <cmath>

#include <fmt/format.h>

#include "models/families.h"
#include "models/rope_frequencies.h"

namespace thimble {
namespace {

struct Layer {
  const Param *input_norm, *post_norm;
  const Linear *q, *k, *v, *o;
  const Linear *gate, *up, *down;
};

}  // namespace

void build_llama(const ModelFile& file, Model& model) {
  const ModelConfig& c = model.config;
  const int64_t q_width = int64_t{c.heads} * c.head_dim;
  const int64_t kv_width = int64_t{c.kv_heads} * c.head_dim;

  const Param& embedding = model.add_param(file, "model.embed_tokens.weight", {c.vocab, c.hidden});
  std::vector<Layer> layers;
  for (int i = 0; i < c.layers; ++i) {
    const std::string at = fmt::format("model.layers.{}.", i);
    const auto linear = [&](const char* name, int64_t out, int64_t in, bool bias) {
      return &model.add_linear(file, at + name, out, in, bias);
    };
    layers.push_back({
        .input_norm = &model.add_param(file, at + "input_layernorm.weight", {c.hidden}),
        .post_norm = &model.add_param(file, at + "post_attention_layernorm.weight", {c.hidden}),
        .q = linear("self_attn.q_proj", q_width, c.hidden, c.attention_bias),
        .k = linear("self_attn.k_proj", kv_width, c.hidden, c.attention_bias),
        .v = linear("self_attn.v_proj", kv_width, c.hidden, c.attention_bias),
        .o = linear("self_attn.o_proj", c.hidden, q_width, c.attention_bias),
        .gate = linear("mlp.gate_proj", c.ffn, c.hidden, c.mlp_bias),
        .up = linear("mlp.up_proj", c.ffn, c.hidden, c.mlp_bias),
        .down = linear("mlp.down_proj", c.hidden, c.ffn, c.mlp_bias),
    });
  }
  const Param& final_norm = model.add_param(file, "model.norm.weight", {c.hidden});
  if (c.tied_embeddings) {
    model.head = &model.linears.emplace_back(
        Linear{"lm_head", embedding.value, {}, static_cast<int>(model.linears.size())});
  } else {
    model.head = &model.add_linear(file, "lm_head", c.vocab, c.hidden, false);
  }

  const Rope rope{c.head_dim, rope_frequencies(c)};
  const AttentionShape shape{c.heads, c.kv_heads, c.head_dim, 1.0f / std::sqrt(static_cast<float>(c.head_dim))};
  const float eps = c.norm_eps;

  model.forward = [layers, rope, shape, eps, &embedding, &final_norm](Ops& ops) {
    Act x = ops.embed(embedding);
    for (size_t i = 0; i < layers.size(); ++i) {
      const Layer& layer = layers[i];
      x = ops.block(x, [&, i](const Act& in) {  // training runs it again after the loop
        const Act normed = ops.rms_norm(in, *layer.input_norm, eps);
        const Linear* qkv_layers[] = {layer.q, layer.k, layer.v};
        auto qkv = ops.linear(normed, qkv_layers);
        const Act q = ops.rope(std::move(qkv[0]), rope);
        const Act k = ops.rope(std::move(qkv[1]), rope);
        const Act heads = ops.attention(q, k, qkv[2], static_cast<int>(i), shape);
        const Act h = ops.add(in, ops.linear(heads, *layer.o));

        const Linear* mlp_layers[] = {layer.gate, layer.up};
        const auto gated = ops.linear(ops.rms_norm(h, *layer.post_norm, eps), mlp_layers);
        return ops.add(h, ops.linear(ops.swiglu(gated[0], gated[1]), *layer.down));
      });
    }
    return ops.rms_norm(x, final_norm, eps);
  };
}

}  // namespace thimble
