"""Llama models as transformers computes them in f32, read from a GGUF file (dequantised by the `gguf` package, not by
transformers' own reader, so that this is a second opinion on both) or from a folder; and Hugging Face's tokenizer."""

import pathlib

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

import tokenizer_models

logging.set_verbosity_error()
logging.disable_progress_bar()

NAMES = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
         "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
OUTER = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
         "output.weight": "lm_head.weight"}


def halves(weight, heads):
    """GGUF stores rows of q and k so that neighbouring elements rotate; transformers rotates the two halves of a head."""
    size = weight.shape[0] // heads
    return weight.reshape(heads, size // 2, 2, -1).swapaxes(1, 2).reshape(weight.shape)


def from_gguf(path):
    reader = gguf.GGUFReader(path)

    def get(key, default=None):
        field = reader.fields.get("llama." + key)
        return default if field is None else field.contents()

    heads = get("attention.head_count")
    kv_heads = get("attention.head_count_kv", heads)
    tensors = {}
    for tensor in reader.tensors:
        weight = np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        if tensor.name in OUTER:
            tensors[OUTER[tensor.name]] = weight
            continue
        _, layer, kind, _ = tensor.name.split(".")
        if kind in ("attn_q", "attn_k"):
            weight = halves(weight, heads if kind == "attn_q" else kv_heads)
        tensors[f"model.layers.{layer}.{NAMES[kind]}.weight"] = weight
    tied = "lm_head.weight" not in tensors
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=tensors["model.embed_tokens.weight"].shape[0], hidden_size=get("embedding_length"),
        intermediate_size=get("feed_forward_length"), num_hidden_layers=get("block_count"), num_attention_heads=heads,
        num_key_value_heads=kv_heads, max_position_embeddings=get("context_length"),
        rms_norm_eps=get("attention.layer_norm_rms_epsilon"), rope_theta=get("rope.freq_base", 10000.0),
        tie_word_embeddings=tied))
    if tied:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    model.load_state_dict({name: torch.from_numpy(weight) for name, weight in tensors.items()}, strict=True)
    return model


def load(path):
    """The model in f32, evaluating."""
    path = pathlib.Path(path)
    model = (from_gguf(path) if path.suffix == ".gguf"
             else AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32))
    return model.float().eval()


def load_tokenizer(path):
    """Of a folder, or of a GGUF file with SmolLM2's kind of vocabulary."""
    path = pathlib.Path(path)
    if path.suffix != ".gguf":
        return Tokenizer.from_file(str(path / "tokenizer.json"))
    return tokenizer_models.byte_level(tokenizer_models.read_gguf(path), pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True),
         pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]))


@torch.no_grad()
def logits(model, ids):
    """[tokens, vocab]"""
    return model(input_ids=torch.tensor([ids])).logits[0].float()


@torch.no_grad()
def greedy(model, ids, count):
    """`count` tokens after ids, going on after ends of text."""
    out, cache, step = [], None, torch.tensor([ids])
    for _ in range(count):
        answer = model(input_ids=step, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = answer.past_key_values
        out.append(int(answer.logits[0, -1].argmax()))
        step = torch.tensor([out[-1:]])
    return out
