#!/usr/bin/env python3
"""What banger adds to its channel: commands and copies through the whole command line against the bare channel, in one run.

    bench/channel.py [--runs N] [--json]

On the bare side one session stays open in a QEMU started by hand (bench/bare.py), and a virtio serial port of its own carries
bytes without any protocol. Both guests are idle but for what is measured, and take turns. Also: the start of the command line,
`vm ls` with a hundred VMs of the fake VMM, the daemon's memory then, the agent's size.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import report
from banger_cli import BANGER, STATE, VMS, artefacts, banger, ensure_image, supervise
from bare import BareGuest
from fake_fleet import FakeFleet

MIB = 1 << 20
COPY = 256 * MIB


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--runs", type=int, default=100, help="commands to measure on each side (100)")
    options.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = options.parse_args()

    image = ensure_image()
    figures = {"machine": report.machine()}
    with tempfile.TemporaryDirectory(prefix=f"{VMS}-", dir=STATE) as place:
        made_from, _ = artefacts(image, Path(place))
        figures["accelerator"] = made_from.accelerator
        banger("create", f"{VMS}-channel", "--wait", "system")
        try:
            with BareGuest(made_from, place, raw_port=True) as bare:
                # What comes up beside would be measured.
                bare.session.wait_for("system")
                figures |= commands(bare, given.runs)
                figures |= copies(bare, Path(place))
        finally:
            banger("rm", "--force", f"{VMS}-channel")
    figures["start"] = [timed(["--version"]) for _ in range(given.runs)]
    with FakeFleet(100) as fleet:
        figures["ls"] = [timed(["vm", "ls"], fleet.environment) for _ in range(given.runs)]
        figures["daemon_resident"] = fleet.daemon_resident()
    figures["agent_bytes"] = (BANGER.parent / "banger-agent").stat().st_size
    show(figures, given.json)


def commands(bare, runs):
    """`true` through the command line and through the open session, in turns."""
    ours, raw = [], []
    # A guest that has just come up still loads modules.
    for number in range(-50, runs):
        took = timed(["exec", f"{VMS}-channel", "--", "true"])
        began = time.perf_counter()
        code, _ = bare.session.exec(["true"])
        bare_took = time.perf_counter() - began
        if code != 0:
            sys.exit("bare: `true` failed")
        if number >= 0:
            ours.append(took)
            raw.append(bare_took)
    return {"exec": ours, "raw_exec": raw}


def copies(bare, place):
    """A file into the guest's memory and back, against the same bytes through a port of their own."""
    source = place / "source"
    with open(source, "wb") as file:
        for _ in range(COPY // MIB):
            file.write(os.urandom(MIB))
    raw = bare.connections["raw"]
    raw.settimeout(120)
    rates = {"cp_in": [], "raw_in": [], "cp_out": [], "raw_out": []}
    port = "$(ls /dev/vport*p2)"
    # The first round meets memory that the guests have never used.
    for _ in range(7):
        rates["cp_in"].append(rate(lambda: banger("cp", str(source), f"{VMS}-channel:/dev/shm/file")))
        rates["raw_in"].append(rate(lambda: raw_in(bare, raw, source, port)))
        rates["cp_out"].append(rate(lambda: banger("cp", f"{VMS}-channel:/dev/shm/file", str(place / "back"))))
        rates["raw_out"].append(rate(lambda: raw_out(bare, raw, place / "back", port)))
    return rates


def raw_in(bare, raw, source, port):
    stream = bare.session.open()
    stream.call({"call": "exec", "argv": ["sh", "-c", f"head -c {COPY} <{port} >/dev/shm/file; echo done"]})
    with open(source, "rb") as file:
        raw.sendfile(file)
    expect(stream, b"done\n")


def raw_out(bare, raw, target, port):
    stream = bare.session.open()
    stream.call({"call": "exec", "argv": ["sh", "-c", f"cat /dev/shm/file >{port}; echo done"]})
    left, buffer = COPY, memoryview(bytearray(MIB))
    with open(target, "wb") as file:
        while left:
            count = raw.recv_into(buffer[: min(MIB, left)])
            file.write(buffer[:count])
            left -= count
    expect(stream, b"done\n")


def expect(stream, words):
    kind, payload = stream.read_frame()
    if payload != words:
        sys.exit(f"bare: frame {kind} {payload!r} instead of {words!r}")


def rate(copy):
    began = time.perf_counter()
    copy()
    return COPY / MIB / (time.perf_counter() - began)


def timed(arguments, environment=None, program=BANGER):
    """Seconds from the start of a process to its end, without what Python adds to it."""
    null = os.open(os.devnull, os.O_RDWR)
    began = time.perf_counter()
    pid = os.posix_spawn(
        program, [program, *arguments], environment or os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1)],
    )  # fmt: skip
    _, status = os.waitpid(pid, 0)
    took = time.perf_counter() - began
    os.close(null)
    if status != 0:
        sys.exit(f"`banger {' '.join(arguments)}` ended with status {status}")
    return took


def show(figures, as_json):
    if as_json:
        report.print_json(figures)
        return
    print(report.sentence(figures["machine"], figures["accelerator"]), "\n")
    rows = [
        ["`banger exec VM -- true`, the whole command line", *report.milliseconds(figures["exec"])],
        ["`true` over an open session", *report.milliseconds(figures["raw_exec"])],
        ["`banger --version`", *report.milliseconds(figures["start"])],
        ["`banger vm ls` with 100 VMs of the fake VMM", *report.milliseconds(figures["ls"])],
    ]
    print(report.table(["ms", "median", "min", "max"], rows))
    print()
    rows = [[name, *(f"{report.spread(figures[key])[which]:.0f}" for which in ("median", "min", "max"))] for name, key in (
        ("`banger cp` into the guest", "cp_in"), ("raw port into the guest", "raw_in"),
        ("`banger cp` out of the guest", "cp_out"), ("raw port out of the guest", "raw_out"),
    )]  # fmt: skip
    print(report.table(["MiB/s", "median", "min", "max"], rows))
    print()
    median = lambda key: statistics.median(figures[key])
    print(report.table(["", "figure"], [
        ["exec through banger / open session (medians)", f"{median('exec') / median('raw_exec'):.2f}"],
        ["cp / raw port, into the guest", f"{median('cp_in') / median('raw_in'):.2f}"],
        ["cp / raw port, out of the guest", f"{median('cp_out') / median('raw_out'):.2f}"],
        ["daemon's resident memory with 100 fake VMs", f"{figures['daemon_resident'] / MIB:.1f} MiB"],
        ["agent, stripped", f"{figures['agent_bytes'] / MIB:.2f} MiB"],
    ]))  # fmt: skip


if __name__ == "__main__":
    supervise(main)
