#!/usr/bin/env python3
"""The same training step as bench_train, in PyTorch with bf16 weights and autocast (LoRA with PEFT): tokens a second
and peak memory.

  train_peft.py MODEL.gguf|FOLDER [--method lora|full] [--rows 4] [--length 512] [--rank 16] [--steps 3] [--threads 2]
    [--compile]
"""

import argparse
import pathlib
import resource
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM


def load(source):
    path = pathlib.Path(source)
    if path.suffix != ".gguf":
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)
    read = LlamaForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.bfloat16)
    config = {k: v for k, v in read.config.to_dict().items() if k != "quantization_config"}
    model = LlamaForCausalLM(LlamaConfig(**config)).to(torch.bfloat16)
    model.load_state_dict(read.state_dict())
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--method", choices=["lora", "full"], default="lora")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load(args.model)
    if args.method == "lora":
        model = get_peft_model(model, LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules="all-linear"))
    model.train()
    step_model = torch.compile(model) if args.compile else model
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    tokens = torch.randint(0, model.config.vocab_size, (args.rows, args.length))
    best = float("inf")
    for step in range(args.steps + 1):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            loss = step_model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds = time.perf_counter() - start
        if step > 0:  # the first one warms up
            best = min(best, seconds)
        print(f"step {step}: {seconds:.3f} s, {args.rows * args.length / seconds:.0f} tokens/s", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1.024e-3
    trained = f"rank {args.rank}" if args.method == "lora" else "all weights"
    print(f"{args.rows} x {args.length} tokens, {trained}: {args.rows * args.length / best:.0f} tokens/s, "
          f"peak memory {peak:.0f} MB")


if __name__ == "__main__":
    main()
