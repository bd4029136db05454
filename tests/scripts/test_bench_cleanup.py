"""bench/supervised.py: however a bench ends, nothing that it started stays. banger is a stand-in with two VMs."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Two processes that lead their own sessions, as daemons and guests do, a file, and then what the test wants to happen.
BENCH = """
import os, signal, subprocess, sys, tempfile
from pathlib import Path
sys.path.insert(0, {bench!r})
sys.dont_write_bytecode = True
import supervised

def main():
    place = tempfile.mkdtemp()
    script = 'sh -c "sleep 1000.{mark}" & sleep 1000.{mark}'
    subprocess.Popen(["sh", "-c", script], start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    (Path({state!r}) / f"{{supervised.VMS}}-state").mkdir()
    try:
        print(supervised.VMS, place, os.getpid(), flush=True)
        {end}
    finally:
        print("undone", flush=True)

supervised.run(main, {banger!r}, Path({state!r}), Path({runtime!r}))
"""

BANGER = """#!/bin/sh
echo "$*" >>{place}/asked
[ "$*" != "vm ls -q" ] || printf 'box\\nbench-1\\n%s-one\\n' "$(cat {place}/vms)"
"""


class BenchCleanup(unittest.TestCase):
    def setUp(self):
        self.place = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name in ("state", "run"):
            (self.place / name).mkdir()
        (self.place / "banger").write_text(BANGER.format(place=self.place))
        (self.place / "banger").chmod(0o755)
        self.mark = f"{os.getpid()}{id(self) % 10000}"

    def daemon(self):
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(str(self.place / "run/bangerd.sock"))
        listener.listen()

    def bench(self, end, then=lambda bench, child: None, before=None):
        """Runs a bench that ends this way; returns its exit status and output."""
        script = textwrap.dedent(BENCH).format(
            bench=str(ROOT / "bench"), state=str(self.place / "state"), runtime=str(self.place / "run"),
            banger=str(self.place / "banger"), mark=self.mark, end=end,
        )  # fmt: skip
        bench = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=before
        )
        vms, directory, child = bench.stdout.readline().split()
        (self.place / "vms").write_text(vms)
        then(bench, int(child))
        said = bench.stdout.read()
        bench.wait()
        bench.stdout.close()
        running = subprocess.run(["pgrep", "-f", f"sleep 1000.{self.mark}"], stdout=subprocess.PIPE, text=True).stdout
        self.assertEqual(running, "", f"processes are left: {said}")
        self.assertFalse(Path(directory).exists())
        self.assertEqual(os.listdir(self.place / "state"), [])
        return bench.returncode, said

    def asked(self):
        return (self.place / "asked").read_text().splitlines() if (self.place / "asked").exists() else []

    def test_after_its_end(self):
        self.assertEqual(self.bench("pass")[0], 0)

    def test_after_an_error(self):
        code, said = self.bench("raise RuntimeError('no dnsperf')")
        self.assertEqual(code, 1)
        self.assertIn("no dnsperf", said)

    def test_after_a_signal(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(number):
                code, said = self.bench("signal.pause()", lambda bench, _: bench.send_signal(number))
                self.assertIn("undone", said)
                self.assertEqual(code, 128 + signal.SIGTERM)

    def test_after_a_signal_that_was_ignored_when_it_started(self):
        ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
        _, said = self.bench("signal.pause()", lambda bench, _: bench.send_signal(signal.SIGINT), ignore)
        self.assertIn("undone", said)

    def test_after_it_was_killed(self):
        code, said = self.bench("signal.pause()", lambda _, child: os.kill(child, signal.SIGKILL))
        self.assertNotIn("undone", said)
        self.assertEqual(code, 128 + signal.SIGKILL)

    def test_its_vms_go_and_no_others(self):
        self.daemon()
        self.bench("raise RuntimeError")
        vms = (self.place / "vms").read_text()
        self.assertEqual(self.asked(), ["vm ls -q", f"vm rm --force -q {vms}-one"])

    def test_a_daemon_that_it_started_is_stopped(self):
        self.bench("pass", lambda bench, _: self.daemon(), None)
        # The daemon started after the bench.
        self.assertIn("daemon stop", self.asked())


if __name__ == "__main__":
    unittest.main()
