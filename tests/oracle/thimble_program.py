"""The built program, called as a user calls it."""

import pathlib
import subprocess
import sys
import tempfile

from safetensors.torch import load_file


class Thimble:
    def __init__(self, program):
        self.program = str(program)

    def call(self, *arguments, stdin=""):
        done = subprocess.run([self.program, *map(str, arguments)], input=stdin.encode(), capture_output=True)
        if done.returncode != 0:
            sys.exit(f"thimble {' '.join(map(str, arguments))} ended with {done.returncode}: {done.stderr.decode()}")
        return done.stdout.decode()

    @staticmethod
    def _model(model, adapter, precision):
        return ["--model", model, "--precision", precision] + (["--adapter", adapter] if adapter else [])

    def logits(self, model, text, adapter=None, precision="f32"):
        """Token ids of the text as the program makes them, and its logits [tokens, vocab]."""
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "logits.safetensors"
            self.call("run", *self._model(model, adapter, precision), "-p", "-", "--logits", path, stdin=text)
            tensors = load_file(path)
        return [int(token) for token in tensors["tokens"]], tensors["logits"].clone()

    def greedy(self, model, text, count, adapter=None, precision="f32"):
        return self.call("run", *self._model(model, adapter, precision), "-p", "-", "--greedy", "--ignore-end", "-n",
                         count, stdin=text)
