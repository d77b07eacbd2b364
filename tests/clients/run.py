#!/usr/bin/env python3
"""Holds `thimble serve` to the official SDKs: run.py --build BUILD [--job FOLDER] [--cases N]

Makes a virtual environment with requirements.txt and a folder with package.json's packages in BUILD/clients, serves the
default model, a tiny one and, where FOLDER (examples/helpdesk) has a finished run, that, on a free port, and runs
checks.py and every file of examples/clients against it. Where the tiny model's data is not beside the checkout, the
default model stands in for it. A line a part; exit status 1 where one failed.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import time

from server import Server

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
EXAMPLES = ROOT / "examples" / "clients"


def environment(folder):
    """The virtual environment and the folder of node's packages (None: no npm), made anew where versions differ."""
    venv, wanted = folder / "venv", (HERE / "requirements.txt").read_text()
    stamp = venv / "requirements.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r",
                        HERE / "requirements.txt"], check=True)
        stamp.write_text(wanted)
    if shutil.which("npm") is None:
        return venv, None
    node, package = folder / "node", (HERE / "package.json").read_text()
    if not (node / "stamp").exists() or (node / "stamp").read_text() != package:
        node.mkdir(exist_ok=True)
        (node / "package.json").write_text(package)
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund"], cwd=node, check=True)
        (node / "stamp").write_text(package)
    return venv, node


def examples(venv, node):
    """Commands by the name of what they show."""
    python = venv / "bin/python"
    out = {name: [python, EXAMPLES / f"{name}.py"]
           for name in ("openai_python", "anthropic_python", "langchain_openai_chat")}
    if node is not None:
        shutil.copy(EXAMPLES / "openai_node.mjs", node)  # packages are looked for beside the script
        out["openai_node"] = ["node", node / "openai_node.mjs"]
    out["llm"] = ["bash", EXAMPLES / "llm.sh"]
    out["curl"] = ["bash", EXAMPLES / "curl.sh"]
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--data", type=pathlib.Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--job", type=pathlib.Path, default=ROOT / "examples" / "helpdesk")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--cases", type=int, default=230, help="besides refusals, cancels and the job's")
    options = parser.parse_args()
    thimble, work = options.build.resolve() / "thimble", options.build.resolve() / "clients"
    work.mkdir(exist_ok=True)
    venv, node = environment(work)
    subprocess.run([thimble, "pull", options.model], check=True, stdout=subprocess.DEVNULL)

    served, names = [options.model], [options.model]
    if (options.data / "stories260K").exists():
        subprocess.run([sys.executable, ROOT / "tests/oracle/make_stories.py", options.data / "stories260K",
                        work / "stories"], check=True)
        served, names = [work / "stories", *served], ["stories", *names]
    job = []
    if (options.job / "runs").exists():
        served.append(options.job)
        job = ["--job", options.job.name, "--tools", options.job / "tools.json"]
    server = Server(thimble, served, work / "server.log")
    failed = 0
    try:
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "THIMBLE": server.address, "MODEL": options.model,
               "PATH": f"{venv / 'bin'}:{os.environ['PATH']}", "LLM_USER_PATH": str(work / "llm")}
        parts = {"SDKs": [venv / "bin/python", HERE / "checks.py", server.address, ",".join(names), "--cases",
                          options.cases, *job],
                 **examples(venv, node)}
        if node is None:
            print("skip openai_node: needs npm", flush=True)
        for name, command in parts.items():
            begin = time.monotonic()
            result = subprocess.run([str(word) for word in command], env=env, text=True, stdin=subprocess.DEVNULL,
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            bad = result.returncode != 0 or not server.running()
            failed += bad
            if bad or name == "SDKs":
                sys.stdout.writelines("     " + line + "\n" for line in result.stdout.splitlines()[-60:])
            print(f"{'FAIL' if bad else 'ok  '} {name}: {time.monotonic() - begin:.0f} s", flush=True)
    finally:
        status = server.stop()
    if status != 0:
        failed += 1
        print(f"FAIL the server ended with {status}; its log is {work / 'server.log'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
