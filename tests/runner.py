#!/usr/bin/env python3
"""Runs the Python tests of a directory: a line per test with its time, then the totals.

    tests/runner.py [--guests real|fake] DIR [PATTERN]      PATTERN: a part of the tests' names

Guests are real in the classes whose attribute `real_guests` says so. Without --guests all tests run.
"""

import argparse
import signal
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

# What is started in the background ignores interrupts, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


class Lines(unittest.TestResult):
    """Says of each test what came of it."""

    def __init__(self):
        super().__init__()
        self.counts = {"ok": 0, "FAILED": 0, "SKIPPED": 0}

    def startTest(self, test):
        super().startTest(test)
        self.began = time.monotonic()
        self.outcome = "ok"

    def stopTest(self, test):
        super().stopTest(test)
        if self.outcome == "ok":
            self.say("ok", f"{name(test)} ({time.monotonic() - self.began:.1f} s)")

    def addFailure(self, test, error):
        self.fail(test, error)

    def addError(self, test, error):
        # An error outside of a test (in setUpClass) arrives here without startTest.
        self.fail(test, error)

    def addSubTest(self, test, subtest, error):
        if error is not None:
            self.fail(subtest, error)

    def addSkip(self, test, reason):
        self.outcome = "SKIPPED"
        self.say("SKIPPED", f"{name(test)}: {reason}")

    def addUnexpectedSuccess(self, test):
        self.outcome = "FAILED"
        self.say("FAILED", f"{name(test)}: it was expected to fail, and passed")

    def fail(self, test, error):
        self.outcome = "FAILED"
        self.failures.append((test, ""))
        self.say("FAILED", f"{name(test)}\n{self._exc_info_to_string(error, test)}")

    def say(self, outcome, text):
        self.counts[outcome] += 1
        print(f"{outcome} {text}", flush=True)


def name(test):
    return ".".join(test.id().split(".")[-2:])


def tests_of(suite):
    for part in suite:
        yield from tests_of(part) if isinstance(part, unittest.TestSuite) else [part]


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--guests", choices=["real", "fake"])
    options.add_argument("directory")
    options.add_argument("pattern", nargs="?")
    wanted = options.parse_args()
    loader = unittest.TestLoader()
    if wanted.pattern:
        loader.testNamePatterns = [f"*{wanted.pattern}*"]
    suite = loader.discover(wanted.directory)
    if wanted.guests:
        real = wanted.guests == "real"
        suite = unittest.TestSuite(test for test in tests_of(suite) if getattr(test, "real_guests", False) == real)
    result = Lines()
    suite.run(result)
    print("{} passed, {} failed, {} skipped".format(*result.counts.values()))
    sys.exit(result.counts["FAILED"] > 0)


if __name__ == "__main__":
    main()
