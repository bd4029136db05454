"""scripts/test: what counts as passed, failed and skipped."""

import importlib.machinery
import importlib.util
import sys
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


if __name__ == "__main__":
    unittest.main()
