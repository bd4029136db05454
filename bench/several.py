#!/usr/bin/env python3
"""Many VMs by one command against one after the other: start, stop, rm.

    bench/several.py [--vms N] [--json]

The same VMs, first one after the other, each by a command of its own, then all by one; and once more the other way round.
"""

import argparse
import statistics
import subprocess
import sys
import time

import report
from banger_cli import BANGER, VMS, banger, banger_json, ensure_image, supervise


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--vms", type=int, default=20, help="how many (20)")
    options.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = options.parse_args()

    ensure_image()
    names = [f"{VMS}-{number}" for number in range(given.vms)]
    accelerator = "unknown"
    seconds = {verb: {"each": [], "together": []} for verb in ("start", "stop", "rm")}
    try:
        for turn in ("each", "together"), ("together", "each"):
            for way in turn:
                for name in names:
                    banger("create", "--stopped", "-q", "--memory", "512M", name)
                for verb in seconds:
                    took = one_after_the_other(verb, names) if way == "each" else by_one_command(verb, names)
                    seconds[verb][way].append(took)
                    print(f"{verb} {way}: {took:.2f} s", file=sys.stderr, flush=True)
                    if verb == "start":
                        accelerator = banger_json("show", names[0])["accelerator"]
                        settle(names)
    finally:
        left = set(banger("ls", "-q").split()) & set(names)
        if left:
            banger("rm", "--force", "-q", *sorted(left))
    show(seconds, given, accelerator)


def settle(names):
    """What the guests' init still starts would be in the way of what comes next, more of it in one turn than in the other."""
    banger("start", "--wait", "system", *names)
    for name in names:
        # It exits with another code than 0 where a unit has failed.
        subprocess.run([BANGER, "exec", name, "--", "systemctl", "is-system-running", "--wait"], stdout=subprocess.DEVNULL)


def one_after_the_other(verb, names):
    began = time.perf_counter()
    for name in names:
        banger(verb, "-q", name)
    return time.perf_counter() - began


def by_one_command(verb, names):
    """What was done is told in the order in which the VMs were named, not in which they were done."""
    began = time.perf_counter()
    done = subprocess.run([BANGER, verb, *names], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    took = time.perf_counter() - began
    told = [line.split(" ", 1)[0] for line in done.stderr.splitlines()]
    if told != names:
        sys.exit(f"{verb}: told in the order {told}")
    return took


def show(seconds, given, accelerator):
    seconds["all three"] = {way: [sum(turn) for turn in zip(*(of[way] for of in seconds.values()))] for way in ("each", "together")}
    ratios = {verb: statistics.median(of["together"]) / statistics.median(of["each"]) for verb, of in seconds.items()}
    if given.json:
        report.print_json({"machine": report.machine(), "accelerator": accelerator, "vms": given.vms, "seconds": seconds, "ratios": ratios})
        return
    print(report.sentence(report.machine(), accelerator), f"{given.vms} VMs of 2 processors, twice each way.\n")
    rows = [
        [verb, f"{statistics.median(of['each']):.2f}", f"{statistics.median(of['together']):.2f}", f"{ratios[verb]:.2f}"]
        for verb, of in seconds.items()
    ]
    print(report.table(["seconds", "one after the other", "by one command", "ratio"], rows))


if __name__ == "__main__":
    supervise(main)
