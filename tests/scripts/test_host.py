"""tests/host.py: what a command left behind, and what another daemon on the same host owns."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Host(unittest.TestCase):
    def setUp(self):
        self.place = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name in ("other", "here"):
            (self.place / name).mkdir()

    def run_in(self, script):
        words = [sys.executable, ROOT / "tests/host.py", "--file", self.place, "sh", "-c", script]
        return subprocess.run(words, cwd=self.place, stdout=subprocess.PIPE, text=True)

    def another_daemon(self):
        """A program with that name; its work does not matter."""
        program = self.place / "bangerd"
        shutil.copy("/usr/bin/sleep", program)
        environment = os.environ | {"BANGER_STATE_DIR": str(self.place / "other"), "BANGER_RUNTIME_DIR": str(self.place / "other/run")}
        process = subprocess.Popen([program, "100"], env=environment)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

    def test_a_file_that_stays_is_named(self):
        result = self.run_in("touch here/left other/left")
        self.assertEqual(result.returncode, 1)
        self.assertIn(f"left behind: file {self.place}/here/left\n", result.stdout)
        self.assertIn(f"left behind: file {self.place}/other/left\n", result.stdout)

    def test_what_another_daemon_has_comes_and_goes(self):
        self.another_daemon()
        (self.place / "other/old").touch()
        result = self.run_in("touch other/new; rm other/old")
        self.assertEqual((result.returncode, result.stdout), (0, "host diff: empty\n"))

    def test_beside_another_daemon_the_rest_is_looked_at(self):
        self.another_daemon()
        result = self.run_in("touch here/left otherwise; mkdir other/x")
        self.assertEqual(result.returncode, 1)
        self.assertEqual(result.stdout.count("left behind: "), 2, result.stdout)


if __name__ == "__main__":
    unittest.main()
