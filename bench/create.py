#!/usr/bin/env python3
"""Cold create to the first command's output: banger against QEMU started by hand, in turns, in one run.

    bench/create.py [--runs N] [--json]

Both sides clone the same disks, boot the same kernel and initramfs with the same memory and processors, and print "hello" by the
same agent. The clock starts with the command line of banger, and with the clone on the bare side; it stops at the output's
first byte. Clone times are told apart on both sides, because they depend on the file system and not on a VMM.
"""

import argparse
import statistics
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import report
from banger_cli import STATE, VMS, artefacts, cold_run, ensure_image, supervise
from bare import BareGuest, plain_network

# Above this the machine is busy with something else, and no ratio means anything.
BARE_LIMIT = 3.0
# What banger itself does, as opposed to what QEMU, the guest and the file system do.
OF_OTHERS = ("disk.clone", "work.clone", "vmm.start", "agent.ready")


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--runs", type=int, default=5, help="pairs to measure (5)")
    options.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = options.parse_args()

    image = ensure_image()
    with tempfile.TemporaryDirectory(prefix=f"{VMS}-", dir=STATE) as place:
        made_from, banger_argv = artefacts(image, Path(place))
        say(f"accelerator: {made_from.accelerator}; banger's QEMU: {' '.join(banger_argv)}")
        # Once each, unmeasured: the page cache is warm for both or for neither.
        cold_run(f"{VMS}-warm")
        argv, _, _ = bare_run(made_from, place)
        say(f"bare QEMU: {' '.join(argv)}")
        pairs = []
        for number in range(given.runs):
            if number % 2:
                ours, bare = cold_run(f"{VMS}-{number}"), bare_run(made_from, place)[1:]
            else:
                bare, ours = bare_run(made_from, place)[1:], cold_run(f"{VMS}-{number}")
            pairs.append((ours, bare))
            say(f"pair {number + 1}: banger {ours.seconds:.3f} s, bare {sum(bare):.3f} s")
    show(pairs, made_from, given.json)


def bare_run(made_from, place):
    """QEMU's argv, seconds for the clone, seconds from QEMU's start to the first output."""
    # A guest of banger's has a card, and so has this one.
    net = plain_network(made_from) if made_from.mac else None
    with BareGuest(made_from, place, net=net) as guest:
        if not guest.session.first_output(["echo", "hello"]).startswith(b"h"):
            sys.exit("bare: the command did not say hello")
        return guest.argv, guest.clone_seconds, guest.seconds()


def show(pairs, made_from, as_json):
    clone = lambda run: sum(run.stages.get(stage, 0) for stage in ("disk.clone", "work.clone"))
    own = [sum(seconds for stage, seconds in run.stages.items() if stage not in OF_OTHERS) for run, _ in pairs]
    between = [run.total - sum(run.stages.values()) for run, _ in pairs]
    without_clone = [(run.seconds - clone(run)) / boot for run, (_, boot) in pairs]
    with_clone = [run.seconds / sum(bare) for run, bare in pairs]
    bare_median = statistics.median(boot for _, (_, boot) in pairs)
    void = bare_median > BARE_LIMIT
    if as_json:
        report.print_json({
            "machine": report.machine(), "accelerator": made_from.accelerator, "void": void,
            "pairs": [{"banger": asdict(run), "bare": {"clone": cloned, "boot": boot}} for run, (cloned, boot) in pairs],
            "ratio_without_clone": report.spread(without_clone), "ratio_with_clone": report.spread(with_clone),
        })  # fmt: skip
        return
    print(report.sentence(report.machine(), made_from.accelerator), f"{len(pairs)} pairs.\n")
    rows = [
        ["banger: command line to first output", *report.milliseconds([run.seconds for run, _ in pairs])],
        ["bare: clone and QEMU to first output", *report.milliseconds([sum(bare) for _, bare in pairs])],
        ["banger, without the clone", *report.milliseconds([run.seconds - clone(run) for run, _ in pairs])],
        ["bare, without the clone", *report.milliseconds([boot for _, (_, boot) in pairs])],
    ]
    for stage in pairs[0][0].stages:
        rows.append([f"banger: stage `{stage}`", *report.milliseconds([run.stages[stage] for run, _ in pairs])])
    rows += [
        ["bare: clone", *report.milliseconds([cloned for _, (cloned, _) in pairs])],
        ["banger: stages other than clone, VMM and guest", *report.milliseconds(own)],
        ["banger: between stages", *report.milliseconds(between)],
    ]
    print(report.table(["ms", "median", "min", "max"], rows))
    print()
    ratios = [("banger / bare, without the clone", without_clone), ("banger / bare, with it", with_clone)]
    rows = [[name, *(f"{report.spread(values)[which]:.3f}" for which in ("median", "min", "max"))] for name, values in ratios]
    print(report.table(["ratio, pair by pair", "median", "min", "max"], rows))
    if void:
        print(f"\n**VOID: bare QEMU took {bare_median:.1f} s, over {BARE_LIMIT} s. This machine is busy; these figures mean nothing.**")


def say(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    supervise(main)
