"""Compares our Jinja engine with Python's jinja2, and writes the goldens of its tests.

    jinja_oracle.py                  writes tests/golden/text/jinja_cases.json
    jinja_oracle.py --check TOOL     compares with Python live: TOOL is the built jinja_tool
         [--random N] [--seed S] [--templates FILE]
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys

import jinja_cases
import jinja_environment
import jinja_random

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "text"

# What Python prints with an address, or in its own words, is not compared; nor what docs/chat-templates.md refuses.
SKIP = re.compile(r" at 0x[0-9a-f]+|<class '|<function |<built-in |<jinja2\.|<bound method|_iterator object|generator object|reverseiterator")

REFUSED = re.compile(r"is refused|not supported|is the limit|is too large|too long|too many steps|too much memory|nested too deep")


def fnv1a(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def compare(tool, cases, mark=False):
    lines = "".join(json.dumps({"template": t, "context": c, "mark": mark}) + "\n" for t, c in cases)
    run = subprocess.run([tool], input=lines, capture_output=True, text=True, check=False)
    answers = [json.loads(line) for line in run.stdout.split("\n") if line]
    if run.returncode != 0 or len(answers) != len(cases):
        print(f"{tool} stopped after {len(answers)} of {len(cases)} cases: {run.stderr[-2000:]}")
        if len(answers) < len(cases):
            print("at", repr(cases[len(answers)][0]))
        return 1
    differences = 0
    for (template, context), ours in zip(cases, answers):
        python = jinja_environment.render(template, context, mark)
        if "text" in python and (SKIP.search(python["text"]) or REFUSED.search(ours.get("error", ""))):
            continue
        if ("error" in python) == ("error" in ours) and ("error" in ours or python["text"] == ours["text"]):
            if not mark or python.get("spans", []) == ours.get("spans", []):
                continue
        differences += 1
        if differences <= 40:
            print(f"{template!r}\n  python {python}\n  ours   {ours}")
    print(f"{len(cases)} cases, {differences} differences")
    return differences


def write_goldens():
    rows = []
    for template, context in jinja_cases.cases():
        answer = jinja_environment.render(template, context)
        if "text" in answer and SKIP.search(answer["text"]):
            continue
        rows.append({"template": template, "text": answer["text"]} if "text" in answer
                    else {"template": template, "error": answer["error"]})
    body = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    context = json.dumps(jinja_cases.CONTEXT, ensure_ascii=False)
    (GOLDEN / "jinja_cases.json").write_text(f'{{"context": {context},\n"cases": [\n{body}\n]}}\n')
    print(f"{len(rows)} cases")


def write_template_hashes(path):
    hashes = {}
    for row in json.loads(path.read_text()):
        if "context" in row:
            answer = jinja_environment.render(row["template"], row["context"])
            hashes[row["name"]] = {"bytes": len(answer["text"].encode()), "fnv1a": fnv1a(answer["text"])}
    (GOLDEN / "chat_template_hashes.json").write_text(json.dumps(hashes, indent=1) + "\n")
    print(f"{len(hashes)} templates")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", metavar="TOOL")
    parser.add_argument("--random", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--templates", type=pathlib.Path, help="chat_templates_hfjs.json of the data folder")
    options = parser.parse_args()
    if not options.check:
        GOLDEN.mkdir(parents=True, exist_ok=True)
        write_goldens()
        if options.templates:
            write_template_hashes(options.templates)
        return 0
    differences = compare(options.check, list(jinja_cases.cases()))
    if options.templates and options.templates.exists():
        rows = [r for r in json.loads(options.templates.read_text()) if "context" in r]
        differences += compare(options.check, [(r["template"], r["context"]) for r in rows])
        differences += compare(options.check, [(r["template"], r["context"]) for r in rows], mark=True)
    differences += compare(options.check, list(jinja_random.cases(options.random, options.seed)))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
