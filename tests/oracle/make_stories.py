#!/usr/bin/env python3
"""Turns the llama2.c model stories260K into a Hugging Face folder: make_stories.py INPUT OUTPUT

INPUT holds stories260K.bin (weights, llama2.c's version 0) and tok512.bin (its tokenizer); OUTPUT gets config.json,
model.safetensors, tokenizer.json and tokenizer_config.json. Needs nothing but the standard library.
"""

import array
import json
import os
import struct
import sys
from pathlib import Path


def permuted(rows, heads, row_length):
    """llama2.c rotates neighbouring elements of a head, transformers the two halves: reorders the output rows."""
    size = len(rows) // row_length // heads
    out = array.array("f")
    for head in range(heads):
        for side in range(2):
            for i in range(size // 2):
                at = (head * size + 2 * i + side) * row_length
                out.extend(rows[at:at + row_length])
    return out


def read_model(path):
    data = path.read_bytes()
    dim, hidden, layers, heads, kv_heads, vocab, context = struct.unpack_from("<7i", data)
    values = array.array("f")
    values.frombytes(data[28:])
    if sys.byteorder == "big":
        values.byteswap()
    assert vocab > 0, "an unshared classifier is not expected here"
    head_dim = dim // heads
    at = 0

    def take(count):
        nonlocal at
        at += count
        assert at <= len(values), "the file is truncated"
        return values[at - count:at]

    tensors = {"model.embed_tokens.weight": ((vocab, dim), take(vocab * dim))}

    def per_layer(name, shape, heads_to_permute=0):
        size = 1
        for d in shape:
            size *= d
        for layer in range(layers):
            rows = take(size)
            if heads_to_permute:
                rows = permuted(rows, heads_to_permute, shape[1])
            tensors[f"model.layers.{layer}.{name}.weight"] = (shape, rows)

    per_layer("input_layernorm", (dim,))
    per_layer("self_attn.q_proj", (heads * head_dim, dim), heads)
    per_layer("self_attn.k_proj", (kv_heads * head_dim, dim), kv_heads)
    per_layer("self_attn.v_proj", (kv_heads * head_dim, dim))
    per_layer("self_attn.o_proj", (dim, heads * head_dim))
    per_layer("post_attention_layernorm", (dim,))
    per_layer("mlp.gate_proj", (hidden, dim))
    per_layer("mlp.down_proj", (dim, hidden))
    per_layer("mlp.up_proj", (hidden, dim))
    tensors["model.norm.weight"] = ((dim,), take(dim))
    assert len(values) - at == context * head_dim, "two tables of rotations should remain"

    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab, "hidden_size": dim,
        "intermediate_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "max_position_embeddings": context, "hidden_act": "silu",
        "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "tie_word_embeddings": True, "attention_bias": False,
        "mlp_bias": False, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32",
    }
    return config, tensors


def safetensors(tensors):
    header, body, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name, (shape, values) in tensors.items():
        if sys.byteorder == "big":
            values.byteswap()
        data = values.tobytes()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + len(data)]}
        body.append(data)
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(body)


def read_pieces(path):
    """llama2.c stores SentencePiece's pieces with the mark for a space turned into a space; turned back here."""
    data = path.read_bytes()
    at, pieces = 4, []
    while at < len(data):
        score, length = struct.unpack_from("<fi", data, at)
        text = data[at + 8:at + 8 + length].decode()
        pieces.append((text.strip("\n") if len(pieces) in (1, 2) else text.replace(" ", "\u2581"), score))
        at += 8 + length
    assert [p for p, _ in pieces[:4]] == ["<unk>", "<s>", "</s>", "<0x00>"], pieces[:4]
    return pieces


def tokenizer(pieces):
    vocab = {piece: i for i, (piece, _) in enumerate(pieces)}
    merges = []
    for i, (piece, score) in enumerate(pieces[259:], 259):
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocab and right in vocab:
                merges.append((-score, i, vocab[left], vocab[right], f"{left} {right}"))
    special = [{"id": i, "content": pieces[i][0], "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": True} for i in range(3)]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u2581"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                     {"SpecialToken": {"id": "<s>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": vocab, "merges": [m[-1] for m in sorted(merges)]},
    }


def main():
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    config, tensors = read_model(source / "stories260K.bin")
    files = {
        "config.json": json.dumps(config, indent=2).encode(),
        "tokenizer.json": json.dumps(tokenizer(read_pieces(source / "tok512.bin")), indent=1).encode(),
        "tokenizer_config.json": json.dumps({
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
            "unk_token": "<unk>", "add_bos_token": True, "add_eos_token": False,
            "clean_up_tokenization_spaces": False, "model_max_length": config["max_position_embeddings"]},
            indent=2).encode(),
        "model.safetensors": safetensors(tensors),
    }
    target.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():  # renamed into place: test programs may run this at the same time
        part = target / f"{name}.{os.getpid()}.tmp"
        part.write_bytes(data)
        part.replace(target / name)


if __name__ == "__main__":
    main()
