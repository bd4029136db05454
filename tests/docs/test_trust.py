"""The book's page on trust: every test that it names as a proof exists, and every claim names one."""

import ast
import re
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/book/src/trust.md"


def tests_there_are():
    """The tests by the names that the page uses: Class.test, the name of a Rust test function, a fuzz target."""
    found = set()
    for path in ROOT.glob("tests/**/test_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    test = re.compile(r"#\[(?:tokio::)?test[^\]]*\]\s+(?:#\[[^\]]*\]\s+)*(?:async )?fn (\w+)")
    for path in ROOT.glob("crates/**/*.rs"):
        found |= set(test.findall(path.read_text()))
    return found | {path.stem for path in ROOT.glob("fuzz/targets/*.rs")}


def claims():
    """The rows of the tables that say what somebody cannot do: the claim, and the names next to it."""
    within = False
    for line in PAGE.read_text().splitlines():
        if not line.startswith("|"):
            within = False
        elif line.endswith("| Tests |"):
            within = True
        elif within and not line.startswith("| ---"):
            _, claim, tests, _ = re.split(r" ?\| ?", line)
            yield claim, re.findall(r"`([^`]+)`", tests)


class Trust(unittest.TestCase):
    def test_each_claim_names_tests_that_exist(self):
        there = tests_there_are()
        self.assertGreater(len(there), 500)
        rows = list(claims())
        self.assertGreater(len(rows), 25)
        for claim, tests in rows:
            with self.subTest(claim=claim):
                self.assertTrue(tests, "no test is named")
                self.assertEqual([test for test in tests if test not in there], [], "there is no such test")


if __name__ == "__main__":
    unittest.main()
