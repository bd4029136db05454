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
    listed = subprocess.run(["ip", "-j", "link"], stdout=subprocess.PIPE, check=True).stdout
    return {f"link {link['ifname']}" for link in json.loads(listed)}


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


def others():
    """What the daemons own that are nobody's descendants here: a pattern for lines of a snapshot, or nothing if there are none."""
    own, patterns, claims = {pid for pid, _ in descendants()}, set(), {}
    with contextlib.suppress(FileNotFoundError):
        claims = claimed()
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
        for path in claims.get(environment.get("BANGER_STATE_DIR", "/var/lib/banger"), ()):
            patterns.add(rf"file {re.escape(str(path))}$")
        if near:
            patterns.add(r"link (banger|tap-pool)[0-9a-z-]*$")
    return patterns


def claimed():
    """The claims on user ids, by the state directory of their daemon."""
    found = {}
    # A claim may disappear at any moment.
    for name in os.listdir(CLAIMS) if CLAIMS.exists() else []:
        with contextlib.suppress(FileNotFoundError):
            state = re.search("^state (.*)$", (CLAIMS / name).read_text(), flags=re.M)
            if state:
                found.setdefault(state[1], []).append(CLAIMS / name)
    return found


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
    after = snapshot(given.file)
    left += sorted(after - before)
    missing = sorted(before - after)
    theirs |= others()
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
