"""Tunes and evaluates on public data that the repository does not hold: SNIPS requests or home control.

  bench/public_job.py snips|snips-full|home --thimble build/thimble --data FOLDER [--out build/jobs]

FOLDER holds snips/ (train.jsonl, train_2100.jsonl, valid.jsonl, tools.json) and home/ (train.jsonl,
dev_new_devices.jsonl, dev_new_templates.jsonl, tools.json). Makes a use-case folder, tunes with the tools learned into
the weights, and evaluates every split. Training rows that ask what a row of a split asks are left out, and counted.
Where a job is `ordered`, the properties of its tools are put into the order in which training requests name them:
arguments are written in that order, so that the model copies from left to right instead of searching.
Needs only the standard library. Settings are in SETTINGS; nothing is chosen by a test split.
"""

import argparse
import collections
import itertools
import json
import pathlib
import shutil
import subprocess
import time
import unicodedata

SETTINGS = {
    "snips": {"data": "snips", "train": "train_2100.jsonl", "splits": ["valid.jsonl"], "system": "Assistant",
              "tune": {"rank": 16, "alpha": 32, "epochs": 6}},
    "snips-full": {"data": "snips", "train": "train.jsonl", "splits": ["valid.jsonl"], "system": "Assistant",
                   "ordered": True, "tune": {"rank": 16, "alpha": 32, "epochs": 3, "metric_rows": 400}},
    "home": {"data": "home", "train": "train.jsonl", "splits": ["dev_new_devices.jsonl", "dev_new_templates.jsonl"],
             "system": "Home", "tune": {"rank": 16, "alpha": 32, "epochs": 1}},
}
FOR_ALL = {"learning_rate": 2e-3, "batch_rows": 8, "dev_share": 0.03, "evaluations": 4}


def asked(line):
    """What a row asks, up to case, punctuation and space, as the leak check of `thimble tune` has it or stricter."""
    text = unicodedata.normalize("NFC", json.loads(line)["query"]).casefold()
    return "".join(c for c in text if c.isalnum())


def ordered(tools, rows):
    """The tools with properties in the order that most requests have them in, by moving one at a time."""
    before = collections.Counter()  # (tool, x, y): requests that name the value of x before that of y
    for row in rows:
        for call in row["calls"]:
            places = [(row["query"].lower().find(str(value).lower()), key) for key, value in call["arguments"].items()]
            for (a, x), (b, y) in itertools.permutations(places, 2):
                before[call["name"], x, y] += 0 <= a < b
    for tool in tools:
        name, properties = tool["function"]["name"], tool["function"]["parameters"]["properties"]
        right = lambda keys: sum(before[name, x, y] for x, y in itertools.combinations(keys, 2))
        keys, moved = list(properties), True
        while moved:
            moved = False
            for key in properties:
                rest = [k for k in keys if k != key]
                best = max((rest[:i] + [key] + rest[i:] for i in range(len(keys))), key=right)
                if right(best) > right(keys):
                    keys, moved = best, True
        tool["function"]["parameters"]["properties"] = {key: properties[key] for key in keys}
    return tools


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=SETTINGS)
    parser.add_argument("--thimble", default="build/thimble")
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("../shared/data"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/jobs"))
    parser.add_argument("--only-make", action="store_true", help="write the folder and stop")
    args = parser.parse_args()
    settings = SETTINGS[args.job]
    source, folder = args.data / settings["data"], args.out / args.job
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in (("tools.json", "tools.json"), (settings["splits"][0], "test.jsonl")):
        shutil.copyfile(source / name, folder / target)
    tested = {asked(line) for split in settings["splits"] for line in (source / split).open(encoding="utf-8")}
    rows = (source / settings["train"]).read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in rows if asked(line) not in tested]
    if len(kept) < len(rows):
        print(f"{len(rows) - len(kept)} training rows that a split asks too are left out")
    (folder / "train.jsonl").write_text("".join(kept), encoding="utf-8")
    if settings.get("ordered"):
        tools = ordered(json.loads((source / "tools.json").read_text(encoding="utf-8")), map(json.loads, kept))
        (folder / "tools.json").write_text(json.dumps(tools, indent=1), encoding="utf-8")
    keys = "".join(f"{key} = {value}\n" for key, value in {**FOR_ALL, **settings["tune"]}.items())
    (folder / "thimble.toml").write_text(
        f'name = "{args.job}"\nbase = "smollm2-135m-instruct"\ntools_in_prompt = false\n'
        f'system = "{settings["system"]}"\n[train]\n{keys}')
    if args.only_make:
        return
    start = time.monotonic()
    subprocess.run([args.thimble, "tune", folder], check=True)
    print(f"tuned in {(time.monotonic() - start) / 60:.1f} minutes")
    for split in settings["splits"]:
        print(split)
        subprocess.run([args.thimble, "eval", folder, "--test", source / split], check=True)


if __name__ == "__main__":
    main()
