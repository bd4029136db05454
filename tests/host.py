#!/usr/bin/env python3
"""What a program can leave behind on a host, and a run of a program that must leave nothing.

    tests/host.py [--file DIR]... COMMAND...

runs COMMAND and prints what is there afterwards that was not before: links, mounts, loop devices, files below each DIR, and
processes. Exit status 1 where there is anything, else COMMAND's. It asks the kernel, not banger, and shares no code with it.

Processes are not compared by list, because a host has others: this program makes itself the child subreaper, so that
whatever COMMAND's descendants leave behind becomes its own child. What a bangerd that is no descendant of COMMAND has on the same
host, its directories, links and claims, comes and goes as it likes.
"""

import argparse
import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
# Where daemons record which user ids they own.
CLAIMS = Path("/run/banger-ground")


def snapshot(directories=()):
    """What is there, a set of lines."""
    found = {*links(), *mounts(), *loop_devices()}
    for directory in directories:
        found |= files(directory)
    return found


def links():
    return {f"link {link['ifname']}" for link in listed_links()}


def listed_links():
    return json.loads(subprocess.run(["ip", "-j", "link"], stdout=subprocess.PIPE, check=True).stdout)


def mounts():
    """Bind-mounted namespaces are among them, as file system nsfs."""
    found = set()
    with open("/proc/self/mountinfo") as table:
        for line in table:
            left, right = line.split(" - ")
            found.add(f"mount {left.split()[4]} ({right.split()[0]} {right.split()[1]})")
    return found


def loop_devices():
    found = set()
    for name in os.listdir("/sys/block"):
        try:
            with open(f"/sys/block/{name}/loop/backing_file") as backing:
                found.add(f"loop device {name} of {backing.read().strip()}")
        except OSError:
            continue  # No loop device, or one without a file.
    return found


def files(directory):
    found = set()
    for place, directories, names in os.walk(directory):
        found |= {f"file {os.path.join(place, name)}" for name in names}
        found |= {f"directory {os.path.join(place, name)}" for name in directories}
    return found


def become_subreaper():
    """From now on orphaned descendants become this process's children."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def reap_until(command):
    """Waits for a child and reaps whatever orphans end before it, as an init does. Returns its exit status."""
    while True:
        pid, status = os.wait()
        if pid == command:
            return os.waitstatus_to_exitcode(status)


def kill_descendants(but=()):
    """Kills this subreaper's descendants, also those that are started meanwhile, and returns their command lines. The processes
    in `but` and their descendants stay."""
    killed = {}
    while True:
        left = dict(descendants())
        for root in but:
            for pid in (root, *(pid for pid, _ in descendants(root))):
                left.pop(pid, None)
        if not left:
            return list(killed.values())
        killed |= left
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # Waits for one of them, and reaps the others that have ended by then.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, 0)
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def descendants(ancestor=None):
    """The living descendants of a process (this one), as pairs of pid and command line."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            state, parent = status(int(entry))
            if state not in (None, "Z"):
                parents[int(entry)] = parent
    found, queue = [], [ancestor or os.getpid()]
    while queue:
        parent = queue.pop()
        children = [child for child, its_parent in parents.items() if its_parent == parent]
        found += children
        queue += children
    return sorted((child, command_line(child)) for child in found)


def status(pid):
    """State letter and parent, or nothing where the process is gone."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
            return fields[0], int(fields[1])
    except (FileNotFoundError, ProcessLookupError):
        return None, None


def command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline", errors="replace") as words:
            return words.read().replace("\0", " ").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def others(ancestor=None):
    """What the daemons own that are no descendants of a process (this one): patterns for lines of a snapshot."""
    own, patterns, claimed, noted = {pid for pid, _ in descendants(ancestor)}, set(), claims(), bridges(listed_links())
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text() != "bangerd\n" or int(process.name) in own:
                continue
            words = (process / "environ").read_text(errors="replace").split("\0")
            near = os.readlink(process / "ns/net") == os.readlink("/proc/self/ns/net")
        except (FileNotFoundError, ProcessLookupError):
            continue
        environment = dict(word.split("=", 1) for word in words if "=" in word)
        for name, usual in (("BANGER_STATE_DIR", "/var/lib/banger"), ("BANGER_RUNTIME_DIR", "/run/banger")):
            patterns.add(rf"(file|directory|mount) {re.escape(environment.get(name, usual))}(/.*| \(.*)?$")
        # What all daemons share exists as long as one of them does.
        patterns.add(rf"(directory {CLAIMS}|file {CLAIMS}/forwarding-[0-9]+)$")
        state = environment.get("BANGER_STATE_DIR", "/var/lib/banger")
        patterns |= {rf"file {CLAIMS}/{claim['slot']}$" for claim in claimed if claim.get("state") == state}
        if near and state in noted:
            # The names of crates/daemon/src/ground/slot.rs.
            slot = noted[state]["ifname"].removeprefix("banger")
            named = slot if slot != "0" else ""
            carrier = f"bangercarrier{slot}" if named else "banger-carrier"
            patterns.add(rf"link (banger{slot}|{carrier}|tap-pool{named}-[0-9]+)$")
    return patterns


def claims():
    """The claims on user ids: the slot of each, and what its file says."""
    found = []
    # A claim may disappear at any moment, and the directory with the last one.
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(filter(str.isdigit, os.listdir(CLAIMS))):
            with contextlib.suppress(FileNotFoundError):
                said = re.findall(r"^(\S+) (.*)$", (CLAIMS / name).read_text(), flags=re.M)
                found.append({"slot": int(name), **dict(said)})
    return found


def bridges(listed):
    """The bridges of grounds among links as `ip -j link` lists them, by the state directory in each one's note."""
    notes = ((link, re.fullmatch(r"banger ground ([0-9a-f]{16}) of (.*)", link.get("ifalias", ""))) for link in listed)
    return {said[2]: {"id": said[1], **link} for link, said in notes if said}


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--file", action="append", default=[], metavar="DIR")
    options.add_argument("command", nargs=argparse.REMAINDER)
    given = options.parse_args()
    theirs = others()
    before = snapshot(given.file)
    become_subreaper()
    result = reap_until(subprocess.Popen(given.command).pid)
    left = [f"process {pid} {words}" for pid, words in descendants()]
    # A daemon of somebody else's may come or go while the host is looked at.
    theirs |= others()
    after = snapshot(given.file)
    left += sorted(after - before)
    missing = sorted(before - after)
    theirs |= others()
    # A daemon takes away what a dead one has claimed.
    missing = [line for line in missing if not line.startswith(f"file {CLAIMS}/")]
    left, missing = ([line for line in lines if not any(re.match(pattern, line) for pattern in theirs)] for lines in (left, missing))
    for line in left:
        print(f"left behind: {line}")
    for line in missing:
        print(f"missing: {line}")
    if left or missing:
        print(f"host diff: {len(left)} left behind, {len(missing)} missing")
        sys.exit(result or 1)
    print("host diff: empty")
    sys.exit(result)


if __name__ == "__main__":
    main()
