#!/usr/bin/env python3
"""Fine-tuning on a job whose tools stand in every prompt: Thimble, and TRL's SFTTrainer with PEFT, on the same rows.

  sft_trl.py --thimble build/thimble --model MODEL.gguf [--job examples/helpdesk] [--rows 48] [--trl-rows 16]

Both train a LoRA adapter of the same rank on all linear layers in bf16, 16 rows an optimizer step, on the answers
alone. TRL gets the tokens that Thimble makes. Rates are rows a second, of whole steps after the first; TRL takes fewer
steps, since one takes minutes. Losses of the first steps are printed side by side. Needs torch, transformers, peft, trl
and datasets. Exit status 1 where Thimble is less than 20 times as fast.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

RANK = 16
STEP_ROWS = 16
RATE = 1e-3


def write_job(source, folder, rows, model):
    """A copy of the job: the first rows with calls, tools in the prompt, no plan."""
    folder = pathlib.Path(folder)
    chosen = []
    for line in open(pathlib.Path(source) / "train.jsonl", encoding="utf-8"):
        row = json.loads(line)
        if row.get("calls"):
            chosen.append({"query": row["query"], "calls": row["calls"]})
        if len(chosen) == rows + 4:  # some are the dev part
            break
    (folder / "train.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chosen))
    (folder / "tools.json").write_text((pathlib.Path(source) / "tools.json").read_text())
    (folder / "thimble.toml").write_text(
        f'base = "{model}"\ntools_in_prompt = true\n[train]\nrank = {RANK}\nalpha = {2 * RANK}\n'
        f"batch_rows = {STEP_ROWS}\nlearning_rate = {RATE}\nschedule = \"constant\"\nwarmup = 0\nepochs = 1\n"
        "max_tokens = 4096\ndev_share = 0.05\nevaluations = 1\n")
    return chosen


def thimble(args, folder):
    """Rows a second of each step after the first, and all steps' losses."""
    subprocess.run([args.thimble, "--threads", str(args.threads), "tune", folder], check=True, capture_output=True)
    history = next(pathlib.Path(folder).glob("runs/*/history.json"))
    steps = [point for point in json.loads(history.read_text())["history"] if point["step"] > 0]
    seconds = [b["seconds"] - a["seconds"] for a, b in zip(steps, steps[1:-1])]  # the last one evaluates, too
    return [STEP_ROWS / s for s in seconds], [point["loss"] for point in steps]


def trl(args, folder, rows):
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from train_peft import load

    torch.set_num_threads(args.threads)
    prompts = f"{folder}/prompts.jsonl"
    subprocess.run([args.thimble, "eval", folder, "--base", "--test", f"{folder}/train.jsonl", "--prompts", prompts],
                   check=True)
    path = pathlib.Path(args.model)
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    examples = []
    for line, row in zip(open(prompts, encoding="utf-8"), rows):
        prompt = json.loads(line)["tokens"]
        answer = "\n".join("<tool_call>\n" + json.dumps({"name": call["name"], "arguments": call["arguments"]},
                                                        ensure_ascii=False) + "\n</tool_call>"
                           for call in row["calls"]) + "<|im_end|>"
        answer = tokenizer(answer, add_special_tokens=False)["input_ids"]
        examples.append({"input_ids": prompt + answer, "completion_mask": [0] * len(prompt) + [1] * len(answer)})
    examples = examples[:args.trl_rows + STEP_ROWS]
    print(f"rows of {statistics.mean(len(e['input_ids']) for e in examples):.0f} tokens", flush=True)

    times, losses = [], []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_, **__):
            self.begin = time.perf_counter()

        def on_step_end(self, *_, **__):
            times.append(time.perf_counter() - self.begin)

        def on_log(self, _, state, control, logs=None, **__):
            if "loss" in logs:
                losses.append(float(logs["loss"]))

    config = SFTConfig(output_dir=f"{folder}/trl", use_cpu=True, bf16=True, num_train_epochs=1, max_length=None,
                       per_device_train_batch_size=args.trl_batch,
                       gradient_accumulation_steps=STEP_ROWS // args.trl_batch, gradient_checkpointing=False,
                       learning_rate=RATE, lr_scheduler_type="constant", warmup_steps=0, logging_steps=1,
                       completion_only_loss=True, save_strategy="no", report_to=[], dataloader_pin_memory=False,
                       disable_tqdm=True)
    trainer = SFTTrainer(model=load(args.model), args=config, train_dataset=Dataset.from_list(examples),
                         processing_class=tokenizer, callbacks=[Clock()],
                         peft_config=LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear"))
    trainer.train()
    return [STEP_ROWS / s for s in times], losses


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--thimble", default="build/thimble")
    parser.add_argument("--model", required=True)
    parser.add_argument("--job", default="examples/helpdesk")
    parser.add_argument("--rows", type=int, default=160)
    parser.add_argument("--trl-rows", type=int, default=16, help="rows that TRL trains on after its first step")
    parser.add_argument("--trl-batch", type=int, default=2, help="rows that TRL takes at once")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = write_job(args.job, folder, args.rows, args.model)
        ours, our_losses = thimble(args, folder)
        print(f"thimble  {statistics.median(ours):6.2f} rows/s   losses "
              + " ".join(f"{loss:.2f}" for loss in our_losses[:4]), flush=True)
        theirs, their_losses = trl(args, folder, rows)
        later = theirs[1:] or theirs
        print(f"TRL      {statistics.median(later):6.2f} rows/s   losses "
              + " ".join(f"{loss:.2f}" for loss in their_losses[:4]))
        ratio = statistics.median(ours) / statistics.median(later)
        print(f"Thimble takes {ratio:.1f} times as many rows (bar: 20)")
        sys.exit(0 if ratio >= 20 else 1)


if __name__ == "__main__":
    main()
