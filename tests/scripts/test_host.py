"""tests/host.py: what a command left behind, and what another daemon on the same host owns."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from netns import Net  # noqa: E402


class Host(unittest.TestCase):
    def setUp(self):
        self.place = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name in ("other", "here"):
            (self.place / name).mkdir()

    def run_in(self, script):
        words = [sys.executable, ROOT / "tests/host.py", "--file", self.place, "sh", "-c", script]
        return subprocess.run(words, cwd=self.place, stdout=subprocess.PIPE, text=True)

    def another_daemon(self, words=(), fds=()):
        """A program with that name; its work does not matter. Other words may start it."""
        program = self.place / "bangerd"
        shutil.copy("/usr/bin/cat", program)
        environment = os.environ | {"BANGER_STATE_DIR": str(self.place / "other"), "BANGER_RUNTIME_DIR": str(self.place / "other/run")}
        process = subprocess.Popen([*words, program], env=environment, pass_fds=fds, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(process.communicate)
        # From its answer on, it has the name.
        process.stdin.write(b"\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.readline(), b"\n")

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

    @unittest.skipUnless(os.geteuid() == 0, "needs root for a network namespace")
    def test_a_link_is_another_daemons_if_it_has_the_slot_of_its_bridge(self):
        net = Net()
        self.addCleanup(net.close)
        self.another_daemon(net.words(), net.fds)
        left = ["banger0", "banger4", "bangercarrier33", "tap-pool-0", "tap-pool33-0"]
        script = f"""
            for name in banger3 bangercarrier3 tap-pool3-0 {' '.join(left)}; do ip link add $name type bridge; done
            ip link set banger3 alias 'banger ground 0123456789abcdef of {self.place}/other'
            ip link set banger4 alias 'banger ground 123456789abcdef0 of {self.place}/here'
        """
        result = net.run(sys.executable, ROOT / "tests/host.py", "sh", "-e", "-c", script)
        self.assertEqual(re.findall("left behind: link (.*)", result.stdout), left, result.stdout + result.stderr)


if __name__ == "__main__":
    unittest.main()
