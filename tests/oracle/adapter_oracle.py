#!/usr/bin/env python3
"""Adapters both ways between Thimble and peft, and merged models, by logits and greedy texts in f32.

  adapter_oracle.py PROGRAM [--model MODEL.gguf] [--stories FOLDER] [--prompts 20]

PROGRAM is build/thimble. An adapter that PROGRAM trains on a tiny job is loaded by peft on transformers' model; one
that peft makes (B random, not zero) is loaded by PROGRAM; the trained one is merged to a folder and to a GGUF file,
and transformers computes what is in them; so it does with a model whose weights PROGRAM trained all.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import peft
import torch
from safetensors.torch import load_file

import prompts
import reference_model
from figures import Figures
from thimble_program import Thimble

HERE = pathlib.Path(__file__).parent
GENERATED = 32
LENGTHS = [10, 12, 14, 16, 18, 20, 23, 26, 30, 34, 38, 43, 48, 55, 65, 80, 100, 130, 180, 250]


def write_job(folder, base, rank, learning_rate, method="lora", layers=None):
    """Thirty rows with two tools, learned into the weights."""
    def tool(name, description, **properties):
        return {"type": "function", "function": {"name": name, "description": description, "parameters": {
            "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}}}

    rooms = ["kitchen", "hall", "attic", "office", "cellar"]
    tools = [tool("set_lamp", "Switch a lamp.", room={"type": "string"}, on={"type": "boolean"}),
             tool("set_heating", "Set a room's temperature.", room={"type": "string"}, degrees={"type": "integer"})]
    rows = []
    for i, room in enumerate(rooms):
        for on, words in ((True, "on in"), (False, "off in")):
            for form in (f"lamp {words} the {room}", f"please turn the lamp {words} the {room}"):
                rows.append((form, "set_lamp", {"room": room, "on": on}))
        for degrees, form in ((16 + i, f"{16 + i} degrees in the {room}"), (20 + i, f"heat the {room} to {20 + i}")):
            rows.append((form, "set_heating", {"room": room, "degrees": degrees}))
    folder.mkdir()
    (folder / "tools.json").write_text(json.dumps(tools))
    (folder / "train.jsonl").write_text("".join(
        json.dumps({"query": query, "calls": [{"name": name, "arguments": arguments}]}) + "\n"
        for query, name, arguments in rows))
    (folder / "thimble.toml").write_text(
        f'name = "lamps"\nbase = {json.dumps(str(base))}\ntools_in_prompt = false\nsystem = "Home"\n\n[train]\n'
        + ("" if method == "full" else f'rank = {rank}\nalpha = {2 * rank}\n') +
        f'learning_rate = {learning_rate}\nepochs = 2\nbatch_rows = 5\n'
        f'dev_share = 0.1\nevaluations = 1\nmethod = "{method}"\n' + (f"layers = {layers}\n" if layers else ""))


def trained(thimble, job, what="adapter"):
    thimble.call("tune", job)
    found = sorted(job.glob(f"runs/*/{what}"))
    if len(found) != 1:
        sys.exit(f"{job}: one run with {what} was expected, found {found}")
    return found[0]


def random_adapter(model, folder, dora):
    torch.manual_seed(5)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear",
                                                         task_type="CAUSAL_LM", use_dora=dora))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.02)
        elif "lora_magnitude" in name:
            parameter.data.mul_(1 + 0.1 * torch.randn(parameter.shape))
    wrapped.save_pretrained(folder)
    return wrapped.eval()


def largest(pairs):
    return max((a - b).abs().max().item() for a, b in pairs)


def compare(figures, thimble, name, path, work, lengths, story=False, learning_rate=1e-3, method="lora",
            layers=None):
    tokenizer = reference_model.load_tokenizer(path)
    texts = prompts.make(tokenizer, story, lengths)
    ids = [tokenizer.encode(text).ids for text in texts]  # logits_oracle.py shows that these are Thimble's too

    def adapted(adapter):
        return [thimble.logits(path, text, adapter)[1] for text in texts]

    write_job(work / "job", path, 8, learning_rate, method, layers)
    adapter = trained(thimble, work / "job")
    matrices = load_file(adapter / "adapter_model.safetensors")
    zero = [key for key, value in matrices.items() if not value.any()]
    figures.check(f"{name}: trained adapter, no matrix is zero", matrices and not zero, f"{len(matrices)} matrices")
    ours = adapted(adapter)
    moved = (ours[0] - thimble.logits(path, texts[0])[1]).abs().max().item()
    figures.check(f"{name}: trained adapter changes a prompt's logits", moved > 0.1, f"{moved:.2f} (at least 0.1)")
    loaded = peft.PeftModel.from_pretrained(reference_model.load(path), adapter).eval()
    theirs = [reference_model.logits(loaded, x) for x in ids]
    figures.at_most(f"{name}: Thimble's adapter in peft, {len(texts)} prompts, logits", largest(zip(ours, theirs)), 2e-3)
    written = (tokenizer.decode(reference_model.greedy(loaded, x, GENERATED), skip_special_tokens=False) for x in ids)
    figures.all_equal(f"{name}: Thimble's adapter in peft, {GENERATED} greedy tokens",
                      zip((thimble.greedy(path, text, GENERATED, adapter) for text in texts), written))

    made = random_adapter(reference_model.load(path), work / "peft", method == "dora")
    figures.at_most(f"{name}: peft's adapter in Thimble, {len(texts)} prompts, logits",
                    largest(zip(adapted(work / "peft"), (reference_model.logits(made, x) for x in ids))), 2e-3)

    for out in (work / "merged", work / "merged.gguf"):
        thimble.call("merge", adapter, "--model", path, "--out", out, "--type", "f32")
        merged = reference_model.load(out)
        figures.at_most(f"{name}: merged {'GGUF' if out.suffix else 'folder'} in transformers, {len(texts)} prompts, logits",
                        largest(zip(theirs, (reference_model.logits(merged, x) for x in ids))), 2e-3)


def compare_whole(figures, thimble, name, path, work, lengths):
    """All weights trained: the run's model, and what merge makes of it, in transformers."""
    tokenizer = reference_model.load_tokenizer(path)
    texts = prompts.make(tokenizer, True, lengths)
    write_job(work / "job", path, 0, 1e-3, "full")
    model = trained(thimble, work / "job", "model")
    ours = [thimble.logits(model, text)[1] for text in texts]
    moved = (ours[0] - thimble.logits(path, texts[0])[1]).abs().max().item()
    figures.check(f"{name}: training changes a prompt's logits", moved > 0.1, f"{moved:.2f} (at least 0.1)")
    thimble.call("merge", work / "job", "--out", work / "whole.gguf", "--type", "bf16")
    for form, out in (("folder", model), ("GGUF", work / "whole.gguf")):
        loaded = reference_model.load(out)
        theirs = [reference_model.logits(loaded, tokenizer.encode(text).ids) for text in texts]
        figures.at_most(f"{name}: {form} in transformers, {len(texts)} prompts, logits", largest(zip(ours, theirs)), 2e-3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--stories", type=pathlib.Path)
    parser.add_argument("--prompts", type=int, default=len(LENGTHS))
    options = parser.parse_args()
    torch.set_num_threads(2)
    figures, thimble = Figures(), Thimble(options.program)
    lengths = LENGTHS[::-1][::-(-len(LENGTHS) // options.prompts)][::-1]
    with tempfile.TemporaryDirectory() as work:
        if options.stories:
            folder = pathlib.Path(work) / "stories"
            subprocess.run([sys.executable, HERE / "make_stories.py", options.stories, folder / "model"], check=True)
            compare(figures, thimble, "stories260K", folder / "model", folder, lengths, story=True, learning_rate=1e-2)
            (folder / "dora").mkdir()
            compare(figures, thimble, "stories260K, DoRA in 3 of 5 layers", folder / "model", folder / "dora", lengths,
                    story=True, learning_rate=1e-2, method="dora", layers=[1, 2, 4])
            (folder / "full").mkdir()
            compare_whole(figures, thimble, "stories260K, all weights", folder / "model", folder / "full", lengths)
        if options.model:
            folder = pathlib.Path(work) / "model"
            folder.mkdir()
            compare(figures, thimble, "SmolLM2-135M", options.model.resolve(), folder, lengths)
    figures.finish()


if __name__ == "__main__":
    main()
