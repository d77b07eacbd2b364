#!/usr/bin/env python3
"""A merged GGUF file, and a GGUF LoRA on its base, in llama.cpp, and the same adapter on its base in Thimble:
logits and greedy texts, both in f32.

  llama_merge.py --thimble build/thimble --model MODEL.gguf [--prompts 20]

Needs llama-cpp-python, peft and the rest of tests/oracle/requirements.txt; `make peers` sees to both.
"""

import argparse
import pathlib
import sys
import tempfile

import llama_cpp
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests" / "oracle"))
import adapter_oracle  # noqa: E402
import prompts  # noqa: E402
import reference_model  # noqa: E402
from figures import Figures  # noqa: E402
from thimble_program import Thimble  # noqa: E402

GENERATED = 64


class LlamaCpp:
    def __init__(self, path, threads, lora=None):
        # Its key-value cache is f16 unless told otherwise, and that alone moves logits by 0.02; so may flash attention.
        self.model = llama_cpp.Llama(str(path), lora_path=lora and str(lora), n_ctx=1024, n_batch=1024, n_ubatch=1024,
                                     logits_all=True, verbose=False,
                                     n_threads=threads, n_threads_batch=threads, n_gpu_layers=0, flash_attn=False,
                                     type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32)

    def logits(self, ids):
        """[tokens, vocab]"""
        self.model.reset()
        self.model.eval(ids)
        return np.array(self.model.scores[:len(ids)], dtype=np.float32)

    def greedy(self, ids, count):
        out = [int(self.logits(ids)[-1].argmax())]
        while len(out) < count:
            self.model.eval(out[-1:])
            out.append(int(self.model.scores[len(ids) + len(out) - 1].argmax()))
        return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--thimble", required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--prompts", type=int, default=len(prompts.LENGTHS))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    figures, thimble, model = Figures(), Thimble(options.thimble), options.model.resolve()
    tokenizer = reference_model.load_tokenizer(model)
    texts = prompts.make(tokenizer, lengths=prompts.LENGTHS[::-1][::-(-len(prompts.LENGTHS) // options.prompts)][::-1])
    with tempfile.TemporaryDirectory() as work:
        folder = pathlib.Path(work)
        adapter_oracle.random_adapter(reference_model.load(model), folder / "adapter")
        merged = folder / "merged.gguf"
        thimble.call("merge", folder / "adapter", "--model", model, "--out", merged, "--type", "f32")
        llama = LlamaCpp(merged, options.threads)
        largest, tokens, generated = 0.0, [], []
        for text in texts:
            ids, ours = thimble.logits(model, text, folder / "adapter")
            largest = max(largest, float(np.abs(ours.numpy() - llama.logits(ids)).max()))
            tokens.append((ids, llama.model.tokenize(text.encode(), add_bos=False, special=True)))
            theirs = tokenizer.decode(llama.greedy(ids, GENERATED), skip_special_tokens=False)
            generated.append((thimble.greedy(model, text, GENERATED, folder / "adapter"), theirs))
        base, lora = folder / "base.gguf", folder / "lora.gguf"
        thimble.call("quantize", model, base, "--type", "f32")
        thimble.call("merge", folder / "adapter", "--model", model, "--out", lora, "--adapter-only")
        llama = LlamaCpp(base, options.threads, lora)
        from_lora = 0.0
        for text in texts:
            ids, ours = thimble.logits(model, text, folder / "adapter")
            from_lora = max(from_lora, float(np.abs(ours.numpy() - llama.logits(ids)).max()))
        figures.at_most(f"GGUF LoRA in llama.cpp, {len(texts)} prompts: largest difference of a logit", from_lora, 2e-3)
        figures.all_equal(f"merged GGUF in llama.cpp, {len(texts)} prompts: tokens", tokens)
        figures.at_most(f"merged GGUF in llama.cpp, {len(texts)} prompts: largest difference of a logit", largest, 2e-3)
        figures.all_equal(f"merged GGUF in llama.cpp, {len(texts)} prompts: {GENERATED} greedy tokens", generated)
    figures.finish()


if __name__ == "__main__":
    main()
