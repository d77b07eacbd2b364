"""Fine-tunes on the helpdesk with its tools in the prompt, and on tools that training never saw.

  bench/tools_in_prompt.py whole|unseen [--thimble build/thimble] [--job examples/helpdesk] [--out build/jobs]

whole   all rows, all tools in every prompt (about 2,200 tokens, computed once a step): tuned, then `thimble eval`.
unseen  five tools, every fourth of tools.json, are taken out of training: their rows, requests that mean them, and
        their definitions. Every training row shows its own tools: what it calls among others, drawn and shuffled by
        the seed, so that the model has to read them. Rows of train.jsonl that call one of the five are asked with all
        tools in the prompt, of the tuned and of the base model.

What is made is made of train.jsonl and tools.json; test.jsonl is copied for `whole` and otherwise left alone. Needs
only the standard library.
"""

import argparse
import json
import pathlib
import random
import shutil
import subprocess
import time

SETTINGS = {
    "whole": {"rank": 16, "alpha": 32, "learning_rate": 2e-3, "text_weight": 0.2, "epochs": 2, "batch_rows": 16,
              "max_tokens": 4096, "evaluations": 2},
    "unseen": {"rank": 16, "alpha": 32, "learning_rate": 1e-3, "text_weight": 0.2, "epochs": 1, "batch_rows": 8,
               "max_tokens": 4096, "evaluations": 2},
}
HELD_OUT_EVERY = 4


def conversational(row, tools):
    """A short row as a conversation with tools of its own."""
    if row["calls"]:
        calls = [{"type": "function", "function": call} for call in row["calls"]]
        answer = {"role": "assistant", "content": None, "tool_calls": calls}
    else:
        answer = {"role": "assistant", "content": row["answer"]}
    labels = {key: row[key] for key in ("id", "kind", "missing", "intent", "weight") if key in row}
    return {**labels, "messages": [{"role": "user", "content": row["query"]}, answer], "tools": tools}


def make_unseen(job, folder, shown, seed):
    tools = json.loads((job / "tools.json").read_text(encoding="utf-8"))
    name = lambda tool: tool["function"]["name"]
    held_out = {name(tool) for tool in tools[HELD_OUT_EVERY - 1::HELD_OUT_EVERY]}
    known = [tool for tool in tools if name(tool) not in held_out]
    draw = random.Random(seed)
    trained, asked = [], []
    for line in (job / "train.jsonl").open(encoding="utf-8"):
        row = json.loads(line)
        called = {call["name"] for call in row["calls"]}
        if called & held_out:
            asked.append(conversational(row, tools))
        elif row.get("intent") not in held_out:
            needed = called | {row.get("intent")}
            own = [tool for tool in known if name(tool) in needed]
            others = [tool for tool in known if name(tool) not in needed]
            own += draw.sample(others, max(0, shown - len(own)))
            draw.shuffle(own)
            trained.append(conversational(row, own))
    (folder / "tools.json").write_text(json.dumps(known, indent=1), encoding="utf-8")
    for file, rows in (("train.jsonl", trained), ("test.jsonl", asked)):
        (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"held out: {', '.join(sorted(held_out))}\n{len(trained)} rows to train on, {shown} tools in each prompt; "
          f"{len(asked)} rows call a tool that was held out")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job_kind", choices=SETTINGS, metavar="whole|unseen")
    parser.add_argument("--thimble", default="build/thimble")
    parser.add_argument("--job", type=pathlib.Path, default=pathlib.Path("examples/helpdesk"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/jobs"))
    parser.add_argument("--shown", type=int, default=5, help="tools in the prompt of a training row, with `unseen`")
    parser.add_argument("--limit", type=int, default=400, help="rows to ask about tools that were held out")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only-make", action="store_true", help="write the folder and stop")
    args = parser.parse_args()
    folder = args.out / f"helpdesk-{args.job_kind}"
    folder.mkdir(parents=True, exist_ok=True)
    if args.job_kind == "unseen":
        make_unseen(args.job, folder, args.shown, args.seed)
    else:
        for file in ("tools.json", "train.jsonl", "test.jsonl"):
            shutil.copyfile(args.job / file, folder / file)
    keys = "".join(f"{key} = {value}\n" for key, value in SETTINGS[args.job_kind].items())
    (folder / "thimble.toml").write_text(
        f'name = "helpdesk, {args.job_kind}"\nbase = "smollm2-135m-instruct"\ntools_in_prompt = true\nplan = true\n'
        f'system = "Helpdesk"\n[train]\nseed = {args.seed}\n{keys}')
    if args.only_make:
        return
    start = time.monotonic()
    subprocess.run([args.thimble, "tune", folder], check=True)
    print(f"tuned in {(time.monotonic() - start) / 60:.1f} minutes")
    limit = ["--limit", str(args.limit)] if args.job_kind == "unseen" else []
    for of in ([], ["--base"]) if args.job_kind == "unseen" else ([],):
        subprocess.run([args.thimble, "eval", folder, *limit, *of], check=True)


if __name__ == "__main__":
    main()
