"""Tunes and evaluates on public data that the repository does not hold: SNIPS requests or home control.

  bench/public_job.py snips|home --thimble build/thimble --data FOLDER [--out build/jobs]

FOLDER holds snips/ (train_2100.jsonl, valid.jsonl, tools.json) and home/ (train.jsonl, dev_new_devices.jsonl,
dev_new_templates.jsonl, tools.json). Makes a use-case folder, tunes with the tools learned into the weights, and
evaluates every split. Needs only the standard library. Settings are in SETTINGS; nothing is chosen by a test split.
"""

import argparse
import pathlib
import shutil
import subprocess
import time

SETTINGS = {
    "snips": {"train": "train_2100.jsonl", "splits": ["valid.jsonl"], "epochs": 6, "system": "Assistant"},
    "home": {"train": "train.jsonl", "splits": ["dev_new_devices.jsonl", "dev_new_templates.jsonl"], "epochs": 1,
             "system": "Home"},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=SETTINGS)
    parser.add_argument("--thimble", default="build/thimble")
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("../shared/data"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/jobs"))
    args = parser.parse_args()
    settings = SETTINGS[args.job]
    source, folder = args.data / args.job, args.out / args.job
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in (("tools.json", "tools.json"), (settings["train"], "train.jsonl"),
                         (settings["splits"][0], "test.jsonl")):
        shutil.copyfile(source / name, folder / target)
    (folder / "thimble.toml").write_text(
        f'name = "{args.job}"\nbase = "smollm2-135m-instruct"\ntools_in_prompt = false\n'
        f'system = "{settings["system"]}"\n[train]\nrank = 16\nalpha = 32\nlearning_rate = 2e-3\n'
        f'epochs = {settings["epochs"]}\nbatch_rows = 8\ndev_share = 0.03\nevaluations = 4\n')
    start = time.monotonic()
    subprocess.run([args.thimble, "tune", folder], check=True)
    print(f"tuned in {(time.monotonic() - start) / 60:.1f} minutes")
    for split in settings["splits"]:
        print(split)
        subprocess.run([args.thimble, "eval", folder, "--test", source / split], check=True)


if __name__ == "__main__":
    main()
