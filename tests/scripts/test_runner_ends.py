"""tests/runner.py with tests/e2e/harness.py: a signal ends the tests, and nothing that they started stays."""

import os
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# A place with its directories, a process that leads a session of its own, as daemons do, and a test that waits.
WAITS = """
import signal, subprocess, sys, unittest
sys.path.insert(0, {e2e!r})
import harness

class NoNet:
    def close(self):
        pass

class Waits(unittest.TestCase):
    def test_one_waits(self):
        place = harness.Place(net=NoNet)
        subprocess.Popen(["sleep", "1000.{mark}"], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        print(place.runtime_root, place.state_root, flush=True)
        signal.pause()

    def test_two_must_not_begin(self):
        pass
"""


class RunnerEnds(unittest.TestCase):
    def ends(self, send):
        """Starts the tests, has `send` send a signal to the runner, and looks at what is left."""
        place = Path(self.enterContext(tempfile.TemporaryDirectory()))
        mark = f"{os.getpid()}{id(place) % 10000}"
        (place / "test_waits.py").write_text(WAITS.format(e2e=str(ROOT / "tests/e2e"), mark=mark))
        runner = subprocess.Popen(
            [sys.executable, ROOT / "tests/runner.py", place], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )  # fmt: skip
        directories = runner.stdout.readline().split()
        self.assertEqual(len(directories), 2, directories)
        send(runner)
        said = runner.stdout.read()
        self.assertEqual(runner.wait(), 1, said)
        runner.stdout.close()
        self.assertEqual(said, "", "it went on")
        self.assertEqual([path for path in directories if os.path.exists(path)], [])
        running = subprocess.run(["pgrep", "-f", f"sleep 1000.{mark}"], stdout=subprocess.PIPE, text=True).stdout
        self.assertEqual(running, "")

    def test_by_a_signal(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(number):
                self.ends(lambda runner: runner.send_signal(number))

    def test_by_an_interrupt_from_a_terminal(self):
        """All processes of the group get it."""
        self.ends(lambda runner: os.killpg(runner.pid, signal.SIGINT))


if __name__ == "__main__":
    unittest.main()
