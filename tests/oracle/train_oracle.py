#!/usr/bin/env python3
"""Training against PyTorch, transformers and PEFT: writes cases that tests/train/oracle_test.cpp compares with.

A case is a folder: model/ (as transformers names it), adapter/ (as PEFT saves it, with B random, not zero),
batch.json (rows, which tokens are trained, the loss, settings and the losses of some AdamW steps),
expected.safetensors (logits of every row, gradient of every LoRA matrix) and, where all weights are trained too,
full.json and full.safetensors (the same of the base model: its gradients, and the losses of AdamW steps).

  train_oracle.py                          writes the committed cases to tests/golden/train
  train_oracle.py --live TEST_PROGRAM      makes fresh cases with another seed (and, with --model, of
                                           trained models) and runs the comparison on them
"""

import argparse
import copy
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

torch.set_num_threads(2)

LLAMA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
GPT2_TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc_in", "fc_out"]
STEPS = 50
LONG_RUN = 200  # of the 260 K model


def random_rows(vocab, lengths, generator):
    rows = []
    for length in lengths:
        tokens = torch.randint(0, vocab, (length,), generator=generator).tolist()
        start = max(1, length // 3)
        trained = [0] * start + [1] * (length - start)
        if length > 8:
            trained[-3] = 0  # a hole: trained spans need not be contiguous
        rows.append({"tokens": tokens, "trained": trained})
    return rows


def shake(model, generator):
    """Norm weights and biases away from one and zero, so that a forgotten one is seen."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 1:
                p.add_(torch.randn(p.shape, generator=generator) * 0.1)


class SplitGpt2Layer(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads = c.n_head
        self.ln_1 = torch.nn.LayerNorm(c.n_embd, eps=c.layer_norm_epsilon)
        self.ln_2 = torch.nn.LayerNorm(c.n_embd, eps=c.layer_norm_epsilon)
        self.attn = torch.nn.ModuleDict(
            {n: torch.nn.Linear(c.n_embd, c.n_embd) for n in ["q_proj", "k_proj", "v_proj", "out_proj"]})
        self.mlp = torch.nn.ModuleDict({
            "fc_in": torch.nn.Linear(c.n_embd, 4 * c.n_embd),
            "fc_out": torch.nn.Linear(4 * c.n_embd, c.n_embd)})

    def forward(self, x):
        n, width = x.shape[-2:]
        normed = self.ln_1(x)
        q, k, v = (self.attn[name](normed).view(-1, n, self.heads, width // self.heads).transpose(1, 2)
                   for name in ["q_proj", "k_proj", "v_proj"])
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn["out_proj"](y.transpose(1, 2).reshape(x.shape))
        h = torch.nn.functional.gelu(self.mlp["fc_in"](self.ln_2(x)), approximate="tanh")
        return x + self.mlp["fc_out"](h)


class SplitGpt2(torch.nn.Module):
    """GPT-2 with q, k, v as separate layers stored [out, in]; checked against transformers' own below."""

    def __init__(self, c):
        super().__init__()
        self.wte = torch.nn.Embedding(c.vocab_size, c.n_embd)
        self.wpe = torch.nn.Embedding(c.n_positions, c.n_embd)
        self.h = torch.nn.ModuleList([SplitGpt2Layer(c) for _ in range(c.n_layer)])
        self.ln_f = torch.nn.LayerNorm(c.n_embd, eps=c.layer_norm_epsilon)

    def forward(self, input_ids):
        x = self.wte(input_ids) + self.wpe(torch.arange(input_ids.shape[-1]))
        for layer in self.h:
            x = layer(x)
        return self.ln_f(x) @ self.wte.weight.T


def split_gpt2(hf):
    model = SplitGpt2(hf.config)
    theirs = hf.transformer
    with torch.no_grad():
        for name in ["wte", "wpe", "ln_f"]:
            getattr(model, name).load_state_dict(getattr(theirs, name).state_dict())
        for mine, layer in zip(model.h, theirs.h):
            mine.ln_1.load_state_dict(layer.ln_1.state_dict())
            mine.ln_2.load_state_dict(layer.ln_2.state_dict())
            weights = layer.attn.c_attn.weight.T.chunk(3)  # Conv1D stores [in, out]
            biases = layer.attn.c_attn.bias.chunk(3)
            for name, w, b in zip(["q_proj", "k_proj", "v_proj"], weights, biases):
                mine.attn[name].weight.copy_(w)
                mine.attn[name].bias.copy_(b)
            for linear, conv in [(mine.attn["out_proj"], layer.attn.c_proj), (mine.mlp["fc_in"], layer.mlp.c_fc),
                                 (mine.mlp["fc_out"], layer.mlp.c_proj)]:
                linear.weight.copy_(conv.weight.T)
                linear.bias.copy_(conv.bias)
    ids = torch.arange(12)[None] % hf.config.vocab_size
    with torch.no_grad():
        difference = (model(ids) - hf(ids).logits).abs().max().item()
    assert difference < 1e-4, f"the split GPT-2 differs from transformers' by {difference}"
    return model


def logits_of(model, tokens):
    out = model(input_ids=torch.tensor([tokens]))
    return (out.logits if hasattr(out, "logits") else out)[0]


def batch_loss(model, rows):
    total, count = 0.0, 0
    for row in rows:
        logits = logits_of(model, row["tokens"])[:-1]
        targets = torch.tensor(row["tokens"][1:])
        keep = torch.tensor(row["trained"][1:], dtype=torch.bool)
        total = total + torch.nn.functional.cross_entropy(logits[keep].float(), targets[keep], reduction="sum")
        count += int(keep.sum())
    return total / count


# A tokenizer that no case uses: a model folder has one.
TOKENIZER = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
             "pre_tokenizer": None, "post_processor": None, "decoder": None,
             "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                       "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": {"a": 0},
                       "merges": []}}


def difference_in_bf16(model, rows, floor=0.0):
    """What bfloat16 costs PyTorch itself: the largest difference of a gradient under autocast from those there are,
    relative to its norm, or to `floor` of the largest norm where that is more: a key's bias has no gradient but noise."""
    exact = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    least = floor * max(g.norm().item() for g in exact.values())
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        batch_loss(model, rows).backward()
    return max((p.grad - exact[name]).norm().item() / max(exact[name].norm().item(), least)
               for name, p in model.named_parameters() if name in exact)


def run_losses(model, rows, learning_rate, steps):
    losses = []
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        step_loss = batch_loss(model, rows)
        step_loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        losses.append(step_loss.item())
    return losses


def write_full(folder, base, rows, learning_rate, steps):
    """All weights trained, without an adapter."""
    model = copy.deepcopy(base)
    loss = batch_loss(model, rows)
    loss.backward()
    save_file({name: p.grad.clone() for name, p in model.named_parameters()}, folder / "full.safetensors")
    bf16_difference = difference_in_bf16(model, rows, 1e-2)
    losses = run_losses(model, rows, learning_rate, steps)
    (folder / "full.json").write_text(json.dumps({
        "loss": loss.item(), "bf16_difference": bf16_difference, "losses": losses,
        "learning_rate": learning_rate}) + "\n")
    print(f"{folder}: all weights, after {steps} steps {losses[-1]:.4f}; bf16 costs PyTorch {bf16_difference:.3g}")


def write_case(folder, base, rows, targets, rank, alpha, generator, rslora=False, config=None, learning_rate=1e-3,
               spread=0.1, steps=STEPS, dora=False, layers=None,
               full=True):
    if folder.exists():
        shutil.rmtree(folder)
    (folder / "model").mkdir(parents=True)
    if config is None:
        base.save_pretrained(folder / "model", safe_serialization=True)
        (folder / "model" / "generation_config.json").unlink(missing_ok=True)
    else:
        (folder / "model" / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        save_file({k: v.contiguous() for k, v in base.state_dict().items()}, folder / "model" / "model.safetensors")
    if not (folder / "model" / "tokenizer.json").exists():
        (folder / "model" / "tokenizer.json").write_text(json.dumps(TOKENIZER) + "\n")

    model = get_peft_model(copy.deepcopy(base), LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=targets, bias="none", use_rslora=rslora, use_dora=dora,
        layers_to_transform=layers))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.copy_(torch.randn(p.shape, generator=generator) * spread)
            elif "lora_A" in name:
                p.copy_(torch.randn(p.shape, generator=generator) * p.shape[1] ** -0.5)
            elif "lora_magnitude" in name:
                p.mul_(1 + 0.2 * torch.randn(p.shape, generator=generator))
    model.save_pretrained(folder / "adapter", safe_serialization=True)
    (folder / "adapter" / "README.md").unlink(missing_ok=True)

    expected = {}
    for i, row in enumerate(rows):
        with torch.no_grad():
            expected[f"logits.{i}"] = logits_of(model, row["tokens"]).contiguous()
    loss = batch_loss(model, rows)
    loss.backward()
    for name, p in model.named_parameters():
        if p.grad is not None:
            key = name.removeprefix("base_model.model.").replace(".default.weight", "")
            expected["grad." + key] = p.grad.clone()
    save_file(expected, folder / "expected.safetensors")

    bf16_difference = difference_in_bf16(model, rows)
    losses = run_losses(model, rows, learning_rate, steps)
    (folder / "batch.json").write_text(json.dumps({
        "rows": rows, "loss": loss.item(), "bf16_difference": bf16_difference, "losses": losses, "learning_rate": learning_rate, "weight_decay": 0.01,
        "clip": 1.0}) + "\n")
    print(f"{folder}: loss {loss.item():.4f}, after {steps} steps {losses[-1]:.4f}, {len(expected)} tensors; "
          f"bf16 costs PyTorch {bf16_difference:.3g}")
    if full:
        write_full(folder, base, rows, learning_rate / 3, steps)


def llama_case(folder, seed):
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=300, hidden_size=64, intermediate_size=112, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
                         tie_word_embeddings=True, initializer_range=0.05, rope_theta=10000.0)
    base = LlamaForCausalLM(config).float().eval()
    shake(base, generator)
    rows = random_rows(300, [17, 5, 33, 2], generator)
    write_case(folder, base, rows, LLAMA_TARGETS, 4, 8, generator)


def llama_bias_case(folder, seed):
    """Untied head, biases, rank-stabilised scale, only some layers adapted."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=61, hidden_size=48, intermediate_size=80, num_hidden_layers=2,
                         num_attention_heads=3, num_key_value_heads=3, max_position_embeddings=64,
                         tie_word_embeddings=False, initializer_range=0.05, attention_bias=True, mlp_bias=True)
    base = LlamaForCausalLM(config).float().eval()
    shake(base, generator)
    rows = random_rows(61, [9, 21], generator)
    write_case(folder, base, rows, ["v_proj", "down_proj"], 3, 6, generator, rslora=True)


def llama_dora_case(folder, seed):
    """Magnitudes and biases, in the second of two layers."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=61, hidden_size=48, intermediate_size=80, num_hidden_layers=2,
                         num_attention_heads=3, num_key_value_heads=3, max_position_embeddings=64,
                         tie_word_embeddings=True, initializer_range=0.05, attention_bias=True, mlp_bias=False)
    base = LlamaForCausalLM(config).float().eval()
    shake(base, generator)
    rows = random_rows(61, [23, 8, 5], generator)
    write_case(folder, base, rows, LLAMA_TARGETS, 4, 8, generator, dora=True, layers=[1], full=False)


def gpt2_case(folder, seed):
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    config = GPT2Config(vocab_size=120, n_embd=32, n_head=4, n_layer=2, n_positions=64, initializer_range=0.06,
                        attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)
    hf = GPT2LMHeadModel(config).float().eval()
    shake(hf, generator)
    base = split_gpt2(hf).eval()
    rows = random_rows(120, [14, 6, 25], generator)
    written = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 120, "n_embd": 32, "n_head": 4,
               "n_layer": 2, "n_positions": 64, "n_inner": None, "layer_norm_epsilon": config.layer_norm_epsilon,
               "activation_function": "gelu_new", "tie_word_embeddings": True}
    write_case(folder, base, rows, GPT2_TARGETS, 4, 8, generator, config=written)


def real_case(folder, source, seed):
    """A trained model: a folder as transformers reads it, or a .gguf file (dequantised)."""
    generator = torch.Generator().manual_seed(seed)
    path = pathlib.Path(source)
    if path.suffix == ".gguf":
        read = LlamaForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
        base = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in read.config.to_dict().items()
                                               if k != "quantization_config"})).eval()
        base.load_state_dict(read.state_dict())
    else:
        base = LlamaForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    rows = []
    for length in [64, 30, 101, 7]:  # the model's own text: on noise a trained model's gradients are ill-conditioned
        tokens = [1]
        while len(tokens) < length:
            with torch.no_grad():
                chances = logits_of(base, tokens)[-1].softmax(-1)
            tokens.append(int(torch.multinomial(chances, 1, generator=generator)))
        rows.append({"tokens": tokens, "trained": [0] * (length // 3) + [1] * (length - length // 3)})
    large = sum(p.numel() for p in base.parameters()) > 1e7
    write_case(folder, base, rows, LLAMA_TARGETS, 8, 16, generator, spread=0.02, steps=5 if large else LONG_RUN,
               learning_rate=1e-4 if large else 1e-3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--live", metavar="TEST_PROGRAM", help="path of the built test_train")
    parser.add_argument("--model", metavar="PATH", action="append", default=[],
                        help="also a trained Llama model: a folder (make_stories.py makes a small one) or a .gguf file")
    parser.add_argument("--seed", type=int, default=30)
    args = parser.parse_args()
    if not args.live:
        golden = pathlib.Path(__file__).parent.parent / "golden" / "train"
        llama_case(golden / "llama", 1)
        llama_bias_case(golden / "llama_bias", 2)
        gpt2_case(golden / "gpt2", 3)
        llama_dora_case(golden / "llama_dora", 4)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        cases = pathlib.Path(temporary)
        llama_case(cases / "llama", args.seed)
        llama_bias_case(cases / "llama_bias", args.seed + 1)
        gpt2_case(cases / "gpt2", args.seed + 2)
        llama_dora_case(cases / "llama_dora", args.seed + 4)
        for i, source in enumerate(args.model):
            real_case(cases / f"model_{i}", source, args.seed + 3)
        return subprocess.run([args.live, "--gtest_filter=*Oracle*"],
                              env={**os.environ, "THIMBLE_TRAIN_CASES": str(cases)}).returncode


if __name__ == "__main__":
    sys.exit(main())
