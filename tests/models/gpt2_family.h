#pragma once

// GPT-2 (Radford et al. 2019), described here alone: a second family that needs no change anywhere in src shows that
// the seam holds. Learned positions, LayerNorm, GELU, biases; q, k and v as separate layers stored [out, in], as
// tests/oracle/train_oracle.py writes them.

#include <cmath>

#include "models/model.h"

namespace thimble::test {

inline void build_gpt2(const ModelFile& file, Model& model) {
  struct Layer {
    const Param *norm1, *bias1, *norm2, *bias2;
    const Linear *q, *k, *v, *o, *in, *out;
  };
  const ModelConfig& c = model.config;
  const Param& tokens = model.add_param(file, "wte.weight", {c.vocab, c.hidden});
  const Param& positions = model.add_param(file, "wpe.weight", {c.context, c.hidden});
  std::vector<Layer> layers;
  for (int i = 0; i < c.layers; ++i) {
    const std::string at = "h." + std::to_string(i) + ".";
    const auto param = [&](const char* name) { return &model.add_param(file, at + name, {c.hidden}); };
    const auto linear = [&](const char* name, int64_t out, int64_t in) {
      return &model.add_linear(file, at + name, out, in, true);
    };
    layers.push_back({param("ln_1.weight"), param("ln_1.bias"), param("ln_2.weight"), param("ln_2.bias"),
                      linear("attn.q_proj", c.hidden, c.hidden), linear("attn.k_proj", c.hidden, c.hidden),
                      linear("attn.v_proj", c.hidden, c.hidden), linear("attn.out_proj", c.hidden, c.hidden),
                      linear("mlp.fc_in", c.ffn, c.hidden), linear("mlp.fc_out", c.hidden, c.ffn)});
  }
  const Param& last = model.add_param(file, "ln_f.weight", {c.hidden});
  const Param& last_bias = model.add_param(file, "ln_f.bias", {c.hidden});
  model.head = &model.linears.emplace_back(Linear{"lm_head", tokens.value, {}, static_cast<int>(model.linears.size())});

  const AttentionShape shape{c.heads, c.heads, c.head_dim, 1.0f / std::sqrt(static_cast<float>(c.head_dim))};
  const float eps = c.norm_eps;
  model.forward = [=, &tokens, &positions, &last, &last_bias](Ops& ops) {
    Act x = ops.add(ops.embed(tokens), ops.embed_positions(positions));
    for (size_t i = 0; i < layers.size(); ++i) {
      x = ops.block(x, [&ops, &layer = layers[i], i, eps, shape](const Act& in) {
        const Act normed = ops.layer_norm(in, *layer.norm1, *layer.bias1, eps);
        const Linear* qkv_layers[] = {layer.q, layer.k, layer.v};
        const auto qkv = ops.linear(normed, qkv_layers);
        const Act heads = ops.attention(qkv[0], qkv[1], qkv[2], static_cast<int>(i), shape);
        const Act h = ops.add(in, ops.linear(heads, *layer.o));
        const Act inner = ops.gelu(ops.linear(ops.layer_norm(h, *layer.norm2, *layer.bias2, eps), *layer.in));
        return ops.add(h, ops.linear(inner, *layer.out));
      });
    }
    return ops.layer_norm(x, last, last_bias, eps);
  };
}

}  // namespace thimble::test
