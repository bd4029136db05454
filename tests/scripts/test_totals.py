"""scripts/test: what counts as passed, failed and skipped; .ci/run: what it says of that in the end."""

import importlib.machinery
import importlib.util
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def script(name):
    """A script of this repository as a module; writes nothing next to it."""
    loader = importlib.machinery.SourceFileLoader(f"script_{name}", str(ROOT / "scripts" / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    loader.exec_module(module)
    sys.dont_write_bytecode = writes
    return module


CARGO = """\
     Running unittests src/lib.rs (target/debug/deps/bangerd-484b57af66a431b2)

running 4 tests
test net::a_bridge ... ok
test net::a_tap ... ok
test store::slow ... ignored, takes an hour
test store::broken - should panic ... ok

test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s

     Running tests/daemon/main.rs (target/debug/deps/daemon-19cc9a3213d97a77)

running 2 tests
test net::a_bridge ... ok
test net::a_tap ... FAILED

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s
"""


class Totals(unittest.TestCase):
    def count(self, cargo, skipped):
        said = []
        output = script("test").Libtest(said.append)
        for line in cargo.splitlines():
            output.take(line)
        output.skip(skipped.splitlines())
        return output.counts, said

    def test_a_test_that_says_skipped_has_not_passed(self):
        counts, said = self.count(CARGO, "bangerd net::a_bridge: no network namespace\n")
        self.assertEqual(counts, [3, 1, 2])
        self.assertIn("SKIPPED bangerd net::a_bridge: no network namespace", said)
        self.assertIn("SKIPPED store::slow: takes an hour", said)

    def test_a_test_is_skipped_once_and_in_its_own_program(self):
        skipped = "daemon net::a_bridge: one part\ndaemon net::a_bridge: another\n"
        self.assertEqual(self.count(CARGO, skipped)[0], [3, 1, 2])

    def test_a_test_that_fails_after_a_skipped_part_has_failed(self):
        self.assertEqual(self.count(CARGO, "daemon net::a_tap: a part\n")[0], [4, 1, 1])

    def test_a_skip_under_a_name_that_no_test_has_is_a_failure(self):
        # So it is if a thread that a test has started says it: its name is not the test's.
        counts, said = self.count(CARGO, "daemon daemon::net: why\ndaemon daemon::net: why else\n")
        self.assertEqual(counts, [4, 2, 1])
        self.assertIn("FAILED daemon daemon::net: no test has this name, so it is unknown which one cannot run here: why", said)


class Conclusion(unittest.TestCase):
    def conclude(self, **files):
        with tempfile.TemporaryDirectory() as place:
            for name, text in files.items():
                Path(place, name.replace("_", ".")).write_text(text)
            said = subprocess.run([ROOT / ".ci/run", "conclude", place], stdout=subprocess.PIPE, check=True, text=True).stdout
            return said.splitlines()

    def test_the_totals_come_last_whatever_follows_them(self):
        log = "rust     3 passed, 1 failed, 0 skipped in 1 s\n3 passed, 1 failed, 0 skipped\nmake: *** [Makefile:69: test] Error 1\n"
        said = self.conclude(steps="    2  test (failed)\n", test_log=log)
        self.assertEqual(said[:2], ["=== seconds by step", "    2  test (failed)"])
        self.assertEqual(said[-1], "3 passed, 1 failed, 0 skipped")

    def test_a_run_that_ends_before_its_first_step_says_how_long_it_took(self):
        self.assertRegex("\n".join(self.conclude()), r"\A=== seconds by step\n +\d+  all\Z")


if __name__ == "__main__":
    unittest.main()
