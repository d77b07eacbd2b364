"""Tunes and evaluates on public data that the repository does not hold: SNIPS requests or home control.

  bench/public_job.py snips|snips-full|home --thimble build/thimble --data FOLDER [--out build/jobs]

FOLDER holds snips/ (train.jsonl, train_2100.jsonl, valid.jsonl, tools.json) and home/ (train.jsonl,
dev_new_devices.jsonl, dev_new_templates.jsonl, tools.json). Makes a use-case folder, tunes with the tools learned into
the weights, and evaluates every split. Training rows that ask what a row of a split asks are left out, and counted.
Needs only the standard library. Settings are in SETTINGS; nothing is chosen by a test split.
"""

import argparse
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
                   "tune": {"rank": 32, "alpha": 64, "epochs": 3, "metric_rows": 400}},
    "home": {"data": "home", "train": "train.jsonl", "splits": ["dev_new_devices.jsonl", "dev_new_templates.jsonl"],
             "system": "Home", "tune": {"rank": 16, "alpha": 32, "epochs": 1}},
}
FOR_ALL = {"learning_rate": 2e-3, "batch_rows": 8, "dev_share": 0.03, "evaluations": 4}


def asked(line):
    """What a row asks, up to case, punctuation and space, as the leak check of `thimble tune` has it or stricter."""
    text = unicodedata.normalize("NFC", json.loads(line)["query"]).casefold()
    return "".join(c for c in text if c.isalnum())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=SETTINGS)
    parser.add_argument("--thimble", default="build/thimble")
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("../shared/data"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/jobs"))
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
    keys = "".join(f"{key} = {value}\n" for key, value in {**FOR_ALL, **settings["tune"]}.items())
    (folder / "thimble.toml").write_text(
        f'name = "{args.job}"\nbase = "smollm2-135m-instruct"\ntools_in_prompt = false\n'
        f'system = "{settings["system"]}"\n[train]\n{keys}')
    start = time.monotonic()
    subprocess.run([args.thimble, "tune", folder], check=True)
    print(f"tuned in {(time.monotonic() - start) / 60:.1f} minutes")
    for split in settings["splits"]:
        print(split)
        subprocess.run([args.thimble, "eval", folder, "--test", source / split], check=True)


if __name__ == "__main__":
    main()
