#!/usr/bin/env python3
"""Runs every live comparison in turn with this Python, and shows one line a figure.

  run.py --build BUILD [--data FOLDER] [--only NAME ...] [--full] [--verbose]

BUILD holds `thimble` and the test tools (cmake with -DTHIMBLE_TESTS=ON). What a comparison prints besides its figures
is shown where it fails, or with --verbose. --full takes longer: more random templates, and trained models' gradients.
Ends with `N passed, N failed`; exit status 1 where a figure failed, a comparison broke off, or nothing was compared.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]

# A comparison's own line -> (good, the line to show). The first form is figures.py's.
FIGURE = re.compile(r"^(ok  |FAIL) (.*)$")
DIFFERENCES = re.compile(r"^(?:(.+?): )?(\d+) cases, (\d+) differences$")
GTEST = re.compile(r"^\[ +(OK|FAILED) +\] (\S+?)(?:, where .*)? \(\d+ ms\)$")
GTEST_MEASURED = re.compile(r"^  largest (?:relative )?difference of a (\w+): (.*)$")


class Comparison:
    def __init__(self, name, script, *arguments, needs=()):
        self.name, self.script, self.arguments = name, script, arguments
        self.needs = [pathlib.Path(need) for need in needs]


def comparisons(options, model, work):
    data, build = options.data, options.build
    tests = build / "tests"
    stories = data / "stories260K"
    folder = work / "stories"
    both = ["--model", model, "--stories", stories]
    if stories.exists():
        subprocess.run([sys.executable, HERE / "make_stories.py", stories, folder], check=True)
    templates = data / "templates" / "chat_templates_hfjs.json"
    return [
        Comparison("tokenizer", "tokenizer_oracle.py", "--tool", tests / "tokenize_tool", "--model", model, "--data", data,
                   needs=[data / "tokenizers"]),
        Comparison("jinja", "jinja_oracle.py", "--check", tests / "jinja_tool", "--templates", templates, "--random",
                   10000 if options.full else 2000, needs=[templates]),
        Comparison("training", "train_oracle.py", "--live", tests / "test_train", "--model", folder,
                   *(["--model", model] if options.full else []), needs=[folder]),
        *(Comparison(name, f"{name}_oracle.py", build / "thimble", *both, needs=[stories])
          for name in ("logits", "adapter", "merge")),
    ]


class Reader:
    """Finds the figures in a comparison's output."""

    def __init__(self, name):
        self.name, self.passed, self.failed, self.measured = name, 0, 0, []

    def show(self, good, text):
        print(f"{'ok  ' if good else 'FAIL'} {self.name}: {text}", flush=True)
        self.passed += good
        self.failed += not good

    def read(self, line):
        if match := FIGURE.match(line):
            self.show(match[1] == "ok  ", match[2].rstrip())
        elif match := DIFFERENCES.match(line):
            what = match[1] or f"set {self.passed + self.failed + 1}"
            self.show(match[3] == "0" and match[2] != "0",
                      f"{what}, {match[2]} cases: {match[3]} differences (at most 0)")
        elif match := GTEST_MEASURED.match(line):
            self.measured.append(f"{match[1]} differs by {match[2]}")
        elif match := GTEST.match(line):
            self.show(match[1] == "OK", f"{match[2].removeprefix('Cases/')}{': ' if self.measured else ''}"
                                        f"{'; '.join(self.measured)}")
            self.measured = []


def run(comparison, verbose):
    """Returns (passed, failed)."""
    start = time.monotonic()
    reader, lines = Reader(comparison.name), []
    command = [sys.executable, HERE / comparison.script, *comparison.arguments]
    process = subprocess.Popen([str(word) for word in command], cwd=ROOT, text=True, errors="replace",
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(HERE)})
    for line in process.stdout:
        lines.append(line)
        if verbose:
            print("     " + line, end="", flush=True)
        reader.read(line.rstrip("\n"))
    status = process.wait()
    if status != 0 and reader.failed == 0:
        reader.show(False, f"{comparison.script} ended with {status}")
    elif reader.passed + reader.failed == 0:
        reader.show(False, f"{comparison.script} compared nothing")
    if reader.failed and not verbose:
        sys.stdout.writelines("     " + line for line in lines[-100:])
    print(f"     {comparison.name}: {time.monotonic() - start:.0f} s", flush=True)
    return reader.passed, reader.failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--model", type=pathlib.Path, help="default: what `thimble pull smollm2-135m-instruct` gives")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="tokenizer, jinja, training, logits, adapter, merge")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    options.build, options.data = options.build.resolve(), options.data.resolve()
    passed = failed = 0
    with tempfile.TemporaryDirectory() as work:
        model = options.model or pathlib.Path(subprocess.run(
            [options.build / "thimble", "pull", "smollm2-135m-instruct"], check=True, text=True,
            stdout=subprocess.PIPE).stdout.strip())
        todo = comparisons(options, model.resolve(), pathlib.Path(work))
        unknown = set(options.only or []) - {c.name for c in todo}
        if unknown:
            parser.error(f"no such comparison: {', '.join(sorted(unknown))}; there are {', '.join(c.name for c in todo)}")
        for comparison in todo:
            if options.only and comparison.name not in options.only:
                continue
            missing = [str(need) for need in comparison.needs if not need.exists()]
            if missing:
                required = os.environ.get("CI") == "true"
                failed += required
                print(f"{'FAIL' if required else 'skip'} {comparison.name}: needs {', '.join(missing)}", flush=True)
                continue
            good, bad = run(comparison, options.verbose)
            passed += good
            failed += bad
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
