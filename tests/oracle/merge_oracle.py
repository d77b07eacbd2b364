#!/usr/bin/env python3
"""Merged models against peft, transformers and, where it can be imported, llama.cpp (llama-cpp-python).

  merge_oracle.py PROGRAM [--stories FOLDER] [--model MODEL.gguf]

PROGRAM is build/thimble. --stories holds stories260K.bin and tok512.bin; --model is the default model's file. An
adapter with random B is made by peft, merged by PROGRAM to a folder and to GGUF files, and the logits of what
transformers and llama.cpp load from there are compared with peft's own. Tokenizers are compared on mixed text.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import peft
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).parent
PROMPTS = ["Once upon a time, there was a", "Lily's mom said, \"Let's go\"", "The big red ball"]
TEXTS = ["Hello world", "  two  spaces\n\nand lines\t", "caf\u00e9 \u4f60\u597d \U0001f600 1234567 x=y+1;",
         "I'll they've don't", "<|im_start|>user\nhi<|im_end|>\n", "", " ", "a" * 300]
failures = []


def check(what, good, detail=""):
    print(f"{'ok  ' if good else 'FAIL'} {what} {detail}")
    if not good:
        failures.append(what)


def merge(program, adapter, model, out, kind):
    subprocess.run([program, "merge", str(adapter), "--model", str(model), "--out", str(out), "--type", kind],
                   check=True, stdout=subprocess.DEVNULL)
    return out


@torch.no_grad()
def logits(model, ids):
    return model(torch.tensor([ids])).logits[0].float()


def random_adapter(model, folder, scale):
    torch.manual_seed(5)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear",
                                                         task_type="CAUSAL_LM"))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, scale)
    wrapped.save_pretrained(folder)
    return wrapped.eval()


def compare(what, model, expected, prompts, limit):
    worst = max((logits(model, ids) - e).abs().max().item() for ids, e in zip(prompts, expected))
    check(what, worst <= limit, f"largest difference of logits {worst:.2e}")


def with_llama_cpp(what, path, expected, prompts, limit):
    try:
        import llama_cpp
    except ImportError:
        print(f"skip {what}: llama-cpp-python is not installed")
        return
    # its key-value cache is f16 unless told otherwise (0 is GGML_TYPE_F32), which alone moves logits by 0.02
    model = llama_cpp.Llama(str(path), n_ctx=512, logits_all=True, verbose=False, n_threads=2, type_k=0, type_v=0)
    worst = 0.0
    for ids, e in zip(prompts, expected):
        model.reset()
        model.eval(ids)
        worst = max(worst, (torch.tensor(model.scores[:len(ids)]) - e).abs().max().item())
    check(what, worst <= limit, f"largest difference of logits {worst:.2e}")


def llama_cpp_tokens(path, tokenizer):
    try:
        import llama_cpp
    except ImportError:
        return
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    for text in TEXTS[:4] + TEXTS[5:]:
        want = tokenizer(text)["input_ids"]
        got = model.tokenize(text.encode(), add_bos=bool(want) and want[0] == tokenizer.bos_token_id, special=False)
        check(f"llama.cpp tokenizes {text[:20]!r}", got == want, "" if got == want else f"{got} not {want}")


def same_tokens(what, a, b):
    differing = [text for text in TEXTS if a(text)["input_ids"] != b(text)["input_ids"]]
    check(what, not differing, f"differ: {differing}" if differing else "")


def stories(program, data, work):
    source = work / "stories"
    subprocess.run([sys.executable, str(HERE / "make_stories.py"), str(data), str(source)], check=True)
    tokenizer = AutoTokenizer.from_pretrained(source)
    prompts = [tokenizer(p)["input_ids"] for p in PROMPTS]
    adapted = random_adapter(AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32), work / "adapter", 0.05)
    expected = [logits(adapted, ids) for ids in prompts]

    folder = merge(program, work / "adapter", source, work / "merged", "f32")
    compare("stories: merged folder by transformers",
            AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), expected, prompts, 1e-4)
    gguf = merge(program, work / "adapter", source, work / "merged.gguf", "f32")
    compare("stories: merged GGUF by transformers",
            AutoModelForCausalLM.from_pretrained(work, gguf_file=gguf.name, dtype=torch.float32), expected, prompts, 1e-4)
    with_llama_cpp("stories: merged GGUF by llama.cpp", gguf, expected, prompts, 2e-3)
    llama_cpp_tokens(gguf, tokenizer)
    again = merge(program, work / "adapter", gguf, work / "again", "bf16")
    same_tokens("stories: tokenizer there and back", tokenizer, AutoTokenizer.from_pretrained(again))


def real_model(program, path, work):
    """The default model: its GGUF file as transformers' own GGUF reader understands it is the reference."""
    base = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    adapted = random_adapter(base, work / "real-adapter", 0.02)
    folder = merge(program, work / "real-adapter", path, work / "real", "f32")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [tokenizer(p)["input_ids"] for p in PROMPTS]
    expected = [logits(adapted, ids) for ids in prompts]
    compare("real model: merged folder by transformers",
            AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), expected, prompts, 1e-3)
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    check("real model: chat template", "<|im_start|>user\nhi<|im_end|>" in chat, repr(chat))
    check("real model: ends of text", tokenizer.eos_token == "<|im_end|>", tokenizer.eos_token)
    gguf = merge(program, work / "real-adapter", path, work / "real.gguf", "f32")
    with_llama_cpp("real model: merged GGUF by llama.cpp", gguf, expected, prompts, 2e-3)
    llama_cpp_tokens(gguf, tokenizer)
    from_folder = merge(program, work / "real-adapter", folder, work / "from_folder.gguf", "q8_0")
    llama_cpp_tokens(from_folder, tokenizer)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--stories", type=Path)
    parser.add_argument("--model", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as work:
        if options.stories:
            stories(options.program, options.stories, Path(work))
        if options.model:
            real_model(options.program, options.model, Path(work))
    if failures:
        sys.exit(f"{len(failures)} comparisons failed: {', '.join(failures)}")


if __name__ == "__main__":
    main()
