#!/usr/bin/env python3
"""Writes a GGUF model with random weights in the dimensions of a known model, for measuring speed and memory only.

  make_shape.py 0.5b|1.5b|3b OUT.gguf --vocabulary MODEL.gguf [--type q4_0|q8_0|bf16]

The architecture is llama (Qwen2.5's sizes without its biases), so that every program here runs it by the same code as
real models. The tokenizer is the given model's, filled up to the vocabulary's size with tokens that no text has. What
the weights are does not change the speed of a product. The embedding, which is also the head, has the type that
llama-quantize would give it. Needs the packages gguf and numpy.
"""

import argparse

import gguf
import numpy as np

SHAPES = {
    "0.5b": {"hidden": 896, "layers": 24, "heads": 14, "kv_heads": 2, "ffn": 4864, "vocab": 151936},
    "1.5b": {"hidden": 1536, "layers": 28, "heads": 12, "kv_heads": 2, "ffn": 8960, "vocab": 151936},
    "3b": {"hidden": 2048, "layers": 36, "heads": 16, "kv_heads": 2, "ffn": 11008, "vocab": 151936},
}
CONTEXT = 32768
TYPES = {"q4_0": gguf.GGMLQuantizationType.Q4_0, "q8_0": gguf.GGMLQuantizationType.Q8_0,
         "bf16": gguf.GGMLQuantizationType.BF16}
Q6_K, Q8_0 = gguf.GGMLQuantizationType.Q6_K, gguf.GGMLQuantizationType.Q8_0


def half(value, count):
    return np.full((count, 1), value, np.float16).view(np.uint8)


def random_rows(random, kind, rows, cols):
    """[rows, bytes of a row]: uniform codes, with scales that keep a row's sums near 1."""
    scale = 1 / np.sqrt(cols)
    codes = lambda blocks, width: random.integers(0, 256, (blocks, width), np.uint8)
    if kind == gguf.GGMLQuantizationType.BF16:
        values = random.standard_normal((rows, cols), np.float32) * np.float32(scale)
        return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    if kind == Q6_K:  # 128 bytes of low and 64 of high bits, 16 scales, one scale of them
        blocks = rows * cols // 256
        sub_scales = np.full((blocks, 16), 32, np.uint8)
        data = np.hstack([codes(blocks, 192), sub_scales, half(scale / 600, blocks)])
    elif kind == Q8_0:
        blocks = rows * cols // 32
        data = np.hstack([half(scale / 74, blocks), codes(blocks, 32)])
    else:
        blocks = rows * cols // 32
        data = np.hstack([half(scale / 4.6, blocks), codes(blocks, 16)])
    return data.reshape(rows, -1)


def add_vocabulary(writer, source, size):
    fields = gguf.GGUFReader(source).fields
    read = lambda key: fields[f"tokenizer.ggml.{key}"].contents()
    tokens, types = read("tokens"), read("token_type")
    unused = int(gguf.TokenType.UNUSED)
    writer.add_tokenizer_model(read("model"))
    writer.add_tokenizer_pre(read("pre"))
    writer.add_token_list(tokens + [f"<{i}>" for i in range(len(tokens), size)])
    writer.add_token_types(types + [unused] * (size - len(types)))
    writer.add_token_merges(read("merges"))
    writer.add_bos_token_id(read("bos_token_id"))
    writer.add_eos_token_id(read("eos_token_id"))
    writer.add_add_bos_token(False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("out")
    parser.add_argument("--vocabulary", required=True)
    parser.add_argument("--type", choices=TYPES, default="q4_0")
    args = parser.parse_args()
    shape, kind = SHAPES[args.shape], TYPES[args.type]
    random = np.random.default_rng(1)
    hidden, ffn = shape["hidden"], shape["ffn"]
    kv_width = shape["kv_heads"] * hidden // shape["heads"]

    writer = gguf.GGUFWriter(args.out, "llama")
    writer.add_name(f"random {args.shape}")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(hidden)
    writer.add_block_count(shape["layers"])
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["kv_heads"])
    writer.add_rope_dimension_count(hidden // shape["heads"])
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(shape["vocab"])
    add_vocabulary(writer, args.vocabulary, shape["vocab"])

    def add(name, rows, cols, kind=kind):
        writer.add_tensor(name, random_rows(random, kind, rows, cols), raw_dtype=kind)

    def add_norm(name):
        writer.add_tensor(name, np.ones(hidden, np.float32))

    head = kind if args.type != "q4_0" else Q6_K if hidden % 256 == 0 else Q8_0
    add("token_embd.weight", shape["vocab"], hidden, head)
    for i in range(shape["layers"]):
        add_norm(f"blk.{i}.attn_norm.weight")
        add(f"blk.{i}.attn_q.weight", hidden, hidden)
        add(f"blk.{i}.attn_k.weight", kv_width, hidden)
        add(f"blk.{i}.attn_v.weight", kv_width, hidden)
        add(f"blk.{i}.attn_output.weight", hidden, hidden)
        add_norm(f"blk.{i}.ffn_norm.weight")
        add(f"blk.{i}.ffn_gate.weight", ffn, hidden)
        add(f"blk.{i}.ffn_up.weight", ffn, hidden)
        add(f"blk.{i}.ffn_down.weight", hidden, ffn)
    add_norm("output_norm.weight")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
