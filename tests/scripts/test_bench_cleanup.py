"""bench/supervised.py: however a bench ends, nothing that it started stays. banger is a stand-in with three VMs."""

import json
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

# Two processes that lead their own sessions, as daemons and guests do, a file, and then what the test wants to happen: after a
# line, so that the test can do something first.
BENCH = """
import json, os, signal, subprocess, sys, tempfile
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
        sys.stdin.readline()
        {end}
    finally:
        print("undone", flush=True)

supervised.run(main, {banger!r}, Path({state!r}), Path({runtime!r}))
"""

BANGER = """#!/bin/sh
echo "$*" >>{place}/asked
case "$*" in
    "vm ls -q") printf 'box\\nbench-1\\n%s-one\\n' "$(cat {place}/vms)" ;;
    "-o json vm ls") cat {place}/others ;;
    "-o json daemon status") cat {place}/status ;;
esac
"""


class BenchCleanup(unittest.TestCase):
    def setUp(self):
        self.place = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name in ("state", "run"):
            (self.place / name).mkdir()
        (self.place / "banger").write_text(BANGER.format(place=self.place))
        (self.place / "banger").chmod(0o755)
        (self.place / "others").write_text('[{"name": "box", "state": "stopped"}]')
        self.mark = f"{os.getpid()}{id(self) % 10000}"

    def daemon(self):
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(str(self.place / "run/bangerd.sock"))
        listener.listen()

    def bench(self, end, then=lambda bench, child: None, before=None):
        """Runs a bench that ends this way after `then`, or never; returns its exit status and output."""
        script = textwrap.dedent(BENCH).format(
            bench=str(ROOT / "bench"), state=str(self.place / "state"), runtime=str(self.place / "run"),
            banger=str(self.place / "banger"), mark=self.mark, end=end or "signal.pause()",
        )  # fmt: skip
        bench = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, preexec_fn=before,
        )  # fmt: skip
        vms, directory, child = bench.stdout.readline().split()
        (self.place / "vms").write_text(vms)
        then(bench, int(child))
        if end:
            print(file=bench.stdin, flush=True)
        said = bench.stdout.read()
        bench.wait()
        bench.stdin.close()
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
                code, said = self.bench(None, lambda bench, _: bench.send_signal(number))
                self.assertIn("undone", said)
                self.assertEqual(code, 128 + signal.SIGTERM)

    def test_after_a_signal_that_was_ignored_when_it_started(self):
        ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
        _, said = self.bench(None, lambda bench, _: bench.send_signal(signal.SIGINT), ignore)
        self.assertIn("undone", said)

    def test_after_it_was_killed(self):
        code, said = self.bench(None, lambda _, child: os.kill(child, signal.SIGKILL))
        self.assertNotIn("undone", said)
        self.assertEqual(code, 128 + signal.SIGKILL)

    def test_its_vms_go_and_no_others(self):
        self.daemon()
        self.bench("raise RuntimeError")
        vms = (self.place / "vms").read_text()
        self.assertEqual(self.asked(), ["vm ls -q", f"vm rm --force -q {vms}-one"])

    def test_a_daemon_that_it_started_is_stopped(self):
        self.bench("pass", lambda *_: self.daemon())
        vms = (self.place / "vms").read_text()
        self.assertEqual(self.asked(), ["vm ls -q", f"vm rm --force -q {vms}-one", "-o json vm ls", "daemon stop"])

    def test_a_daemon_that_it_started_stays_while_it_runs_other_vms(self):
        """All of these processes are below the bench."""
        run = f"lambda: subprocess.Popen(['sleep', '999.{self.mark}'], start_new_session=True, stdout=-3, stderr=-3).pid"
        write = "Path({!r}).write_text(json.dumps({}))"
        status = write.format(str(self.place / "status"), "{'pid': run()}")
        others = write.format(str(self.place / "others"), "[{'name': 'box', 'state': 'running', 'pid': run()}]")
        self.bench(f"run = {run}; {status}; {others}", lambda *_: self.daemon())
        self.assertNotIn("daemon stop", self.asked())
        pids = [json.loads((self.place / name).read_text()) for name in ("status", "others")]
        for pid in (pids[0]["pid"], pids[1][0]["pid"]):
            # It fails if the process is gone.
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    unittest.main()
