#!/usr/bin/env python3
"""This build against another one, in turns within one run: what create, commands, copies and networks take with each.

    bench/against.py DIR [--pairs N] [--only PART] [--json]      DIR: another checkout, after `make build` there

Each build has a daemon, a state directory and a network namespace of its own; both have the same image, made by the other build. A
pair is one measurement of each (for what is short, the median of some), and every second pair begins with this build.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import report
from banger_cli import BANGER, ROOT, STATE, VMS, cold_run, supervise
from channel import timed
from fake_fleet import FakeFleet
from net import PORT, create, received

sys.path.insert(0, str(ROOT / "tests"))
from netns import Net  # noqa: E402

MIB = 1 << 20
COPY = 64 * MIB
# Of what takes some milliseconds, so many are one measurement.
SHORT = 20
GUEST = f"{VMS}-against"


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("other", type=Path, metavar="DIR", help="the other checkout")
    options.add_argument("--pairs", type=int, default=15, help="pairs to measure (15)")
    options.add_argument("--only", default="", metavar="PART", help="what has this in its name, as `exec` or `guest to host`")
    options.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = options.parse_args()
    other = given.other.resolve() / BANGER.relative_to(ROOT)
    if not other.exists():
        sys.exit(f"there is no {other}: run `make build` in {given.other}")

    wanted = {name: measure for name, measure in MEASURES.items() if given.only in name}
    if not wanted:
        sys.exit(f"nothing has {given.only!r} in its name; there are: {', '.join(MEASURES)}")
    STATE.mkdir(parents=True, exist_ok=True)
    figures = {}
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{VMS}-", dir=STATE)))
        source = place / "source"
        with open(source, "wb") as file:
            for _ in range(COPY // MIB):
                file.write(os.urandom(MIB))
        before, now = Side(other, place / "before", source), Side(BANGER, place / "now", source)
        say("building the image")
        before.build_image()
        subprocess.run(["cp", "-a", "--sparse=always", "--reflink=auto", before.state, now.state], check=True)
        # A copy of a state directory can be used only while no VM of the original runs.
        for side in before, now:
            stack.enter_context(side)
        for side in before, now:
            stack.enter_context(side.guests())
        for number in range(given.pairs):
            order = (now, before) if number % 2 else (before, now)
            for name, measure in wanted.items():
                results = {side: measure(side) for side in order}
                figures.setdefault(name, []).append((results[before], results[now]))
            say(f"pair {number + 1} of {given.pairs}")
    show(figures, given)


class Side:
    """A build with a daemon of its own, which runs in a `with`."""

    def __init__(self, program, state, source):
        self.program, self.state, self.source = program, state, source
        self.net = Net()
        self.runtime = tempfile.TemporaryDirectory(prefix="ba-")
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": self.runtime.name,
            "BANGER_STATE_DIR": str(self.state),
            "BANGER_RUNTIME_DIR": f"{self.runtime.name}/run",
            "BANGER_CONFIG": f"{self.runtime.name}/config.toml",
        }

    def __enter__(self):
        start = [*self.net.words(), self.program, "daemon", "start", "--quiet"]
        subprocess.run(start, env=self.environment, pass_fds=self.net.fds, check=True)
        return self

    def __exit__(self, *_):
        self.ask("daemon", "stop", "--quiet")

    def build_image(self):
        """In the host's network, where the packages come from."""
        self.ask("image", "build", "--quiet")
        self.ask("daemon", "stop", "--quiet")

    def guests(self):
        """A guest, a hundred fake ones, and a fake one with a network and a name; they are there in a `with`."""
        stack = ExitStack()
        stack.callback(lambda: self.ask("rm", "--force", "--quiet", GUEST))
        self.ask("create", "--quiet", "--wait", "system", GUEST)
        # Its init goes on for a while, more of it in one turn than in the other.
        subprocess.run(
            [self.program, "exec", GUEST, "--", "systemctl", "is-system-running", "--wait"], env=self.environment, stdout=subprocess.DEVNULL
        )
        self.fleet = stack.enter_context(FakeFleet(100, banger=self.program))
        self.networked = stack.enter_context(FakeFleet(0, config="[network]\ntaps = 4\n", net=Net(), banger=self.program))
        self.networked.ask("--quiet", "create", "--net", "nat", "stays")
        self.questions = Path(self.runtime.name) / "questions"
        self.questions.write_text("stays.vm A\nwww.stays.vm A\nnobody.vm A\n")
        return stack

    def ask(self, *words):
        return subprocess.run(
            [self.program, *map(str, words)], env=self.environment, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        ).stdout

    def timed(self, *words, environment=None):
        return timed(list(map(str, words)), environment or self.environment, self.program)


def often(measure, times=SHORT):
    return statistics.median(measure() for _ in range(times))


def answers(side):
    """The names that a second brings, as fast as they come (dnsperf(1))."""
    perf = ["dnsperf", "-s", "127.0.0.1", "-p", PORT, "-d", side.questions, "-l", "2", "-c", "4", "-q", "400"]
    return float(re.search(r"Queries per second:\s+([\d.]+)", side.networked.net.ask(*perf))[1])


def throughput(side):
    gateway = side.net.json("ip", "-j", "-4", "address", "show", "banger0")[0]["addr_info"][0]["local"]
    return received(side.net, gateway, lambda words: side.ask("exec", GUEST, "--", *words))


def copied_out(side):
    back = side.source.with_name("back")
    back.unlink(missing_ok=True)
    return side.timed("cp", f"{GUEST}:/dev/shm/file", back)


# Seconds, but for those that say so.
MEASURES = {
    "create to the first output": lambda side: cold_run(f"{VMS}-cold", side.program, side.environment).seconds,
    "`exec true`": lambda side: often(lambda: side.timed("exec", GUEST, "--", "true")),
    "`cp` of 64 MiB into the guest": lambda side: side.timed("cp", side.source, f"{GUEST}:/dev/shm/file"),
    "`cp` of 64 MiB out of the guest": copied_out,
    "`--version`": lambda side: often(lambda: side.timed("--version")),
    "`ls` of 100 fake VMs": lambda side: often(lambda: side.timed("vm", "ls", environment=side.fleet.environment)),
    "create of a fake VM": lambda side: often(lambda: create(side.networked, "none")[0]),
    "create of a fake VM with a network": lambda side: often(lambda: create(side.networked, "nat")[0]),
    "DNS, answers per second": answers,
    "guest to host, MiB/s": throughput,
}
RATES = ("DNS, answers per second", "guest to host, MiB/s")


def show(figures, given):
    if given.json:
        report.print_json({"machine": report.machine(), "figures": figures})
        return
    print(report.sentence(report.machine(), f"{given.pairs} pairs"), "\n")
    rows = []
    for name, pairs in figures.items():
        before, now = (statistics.median(side) for side in zip(*pairs))
        ratio = statistics.median(now / before for before, now in pairs)
        more = statistics.median(now - before for before, now in pairs)
        if name in RATES:
            rows.append([name, f"{before:.0f}", f"{now:.0f}", f"{more:+.0f}", f"{ratio:.3f}"])
        else:
            rows.append([f"{name}, ms", f"{before * 1000:.1f}", f"{now * 1000:.1f}", f"{more * 1000:+.1f}", f"{ratio:.3f}"])
    print(report.table(["", "before", "now", "pair by pair", "ratio, pair by pair"], rows))


def say(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    supervise(main)
