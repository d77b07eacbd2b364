"""One line a figure: what was compared, what was measured, and the bar that it must clear. run.py counts these lines."""

import sys


class Figures:
    def __init__(self):
        self.passed = self.failed = 0

    def check(self, what, good, measured=""):
        print(f"{'ok  ' if good else 'FAIL'} {what}{': ' if measured else ''}{measured}", flush=True)
        if good:
            self.passed += 1
        else:
            self.failed += 1

    def at_most(self, what, value, bar):
        self.check(what, value <= bar, f"{value:.2e} (at most {bar:.0e})")

    def all_equal(self, what, pairs):
        """pairs of (ours, theirs)"""
        pairs = list(pairs)
        wrong = [(a, b) for a, b in pairs if a != b]
        for ours, theirs in wrong[:3]:
            print(f"  {what}\n    ours   {ours!r}\n    theirs {theirs!r}")
        self.check(what, pairs and not wrong, f"{len(pairs) - len(wrong)} of {len(pairs)} identical (all)")

    def finish(self):
        """Call last. Nothing compared is a failure too."""
        sys.exit(1 if self.failed or not self.passed else 0)
