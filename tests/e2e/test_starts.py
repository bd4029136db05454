"""Starts: many command lines at once, a daemon's end, its locks, and a local user who tries to block them. Also what that user
can do to a daemon's files. No real guest is needed.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

from fake import FakeCase
from harness import BIN, DEADLINE, Failed, Place, Process, left_since, ours

ROUNDS = 50
STARTERS = 10
# How long a start may take here on a busy host. A wait for a lock in vain took 5 s, a wait for a socket in vain 30 s.
FAST = 4.5
NOBODY = 65534

# Starts that many commands at once, and prints each one's exit code and output.
CROWD = """
for i in $(seq $2); do { said=$("$1" ls -q 2>&1 </dev/null); echo "$?" $said; } & done
wait
"""

# What a user can do to files: it tries everything on each file and keeps what it gets. It prints what it could do, and waits for the end
# of its input.
HOSTILE = """
import fcntl, json, os, socket, sys
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
kept, did = [], []
for path in json.load(open(sys.argv[1])):
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        try:
            fd = os.open(path, flags | os.O_NONBLOCK)
        except OSError:
            continue
        kept.append(fd)
        for name, lock in (("shared", fcntl.LOCK_SH), ("exclusive", fcntl.LOCK_EX)):
            for call in (fcntl.flock, fcntl.lockf):
                try:
                    call(fd, lock | fcntl.LOCK_NB)
                    if not os.path.isdir(path):
                        did.append(f"{call.__name__} {name} {path}")
                except OSError:
                    pass
    if os.path.isdir(path):
        for name in ("lock", "lock.new", "bangerd.sock", "bangerd.sock.new", "other"):
            for make in (os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/passwd", path), os.remove):
                try:
                    make(os.path.join(path, name))
                    did.append(f"change {name} in {path}")
                except OSError:
                    pass
    else:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(path)
            did.append(f"connect to {path}")
        except OSError:
            pass
        kept.append(connection)
print(json.dumps(did), flush=True)
sys.stdin.read()
"""


class Starts(unittest.TestCase):
    """Each test has its own directories, in which command lines start daemons by themselves."""

    def setUp(self):
        if os.geteuid() != 0:
            raise unittest.SkipTest("needs root for a network namespace and another user")
        self.place = Place()
        self.addCleanup(self.place.remove)
        del self.place.environment["BANGER_HOST"]
        self.before = set(ours())
        self.addCleanup(self.end_daemons)

    def end_daemons(self):
        for pid in self.daemons():
            Process(pid).kill()
        self.assertEqual(left_since(self.before), [])

    def daemons(self):
        """The processes of bangerd, without those that are about to end."""
        found = {pid for pid, words in ours().items() if pid not in self.before and f"{words} ".startswith(f"{BIN}/bangerd ")}
        return {pid for pid in found if not ended(pid)}

    def only_daemon(self):
        """The one daemon that runs; those that found another one are gone within a second."""
        pid = int(self.banger("daemon", "status", "-o", "name"))
        others = [other for other in self.daemons() - {pid} if not Process(other).ended(1)]
        self.assertEqual(others, [], f"other daemons beside {pid}")
        self.assertIn(pid, self.daemons())
        return pid

    def start(self, *words, **options):
        words = [*self.place.net.words(), *map(str, words)]
        # The namespace's descriptor does not belong to the command: it is closed after use.
        defaults = {"env": self.place.environment, "pass_fds": self.place.net.fds, "stdin": subprocess.DEVNULL, "text": True}
        return subprocess.Popen(words, **{**defaults, **options})

    def run_command(self, *words, **environment):
        environment = {**self.place.environment, **environment}
        popen = self.start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        out, err = popen.communicate(timeout=DEADLINE)
        return subprocess.CompletedProcess(words, popen.returncode, out, err)

    def banger(self, *args, **environment):
        ran = self.run_command(BIN / "banger", *args, **environment)
        self.assertEqual(ran.returncode, 0, f"{args}: {ran.stdout}{ran.stderr}")
        return ran.stdout.strip()

    def refused(self, *args, cause, help, **environment):
        """A command that must fail soon: a part of its cause, and a part of its advice."""
        began = time.monotonic()
        ran = self.run_command(BIN / "banger", *args, **environment)
        self.assertNotEqual(ran.returncode, 0, f"it was not refused: {ran.stdout}")
        lines = ran.stderr.splitlines()
        self.assertIn(cause, lines[0])
        self.assertTrue(lines[1].startswith("help: ") and help in lines[1], ran.stderr)
        self.assertLess(time.monotonic() - began, FAST + 5)

    def crowd(self, program=BIN / "banger", starters=STARTERS):
        """Runs many command lines at once; returns what went wrong."""
        began = time.monotonic()
        popen = self.start("sh", "-c", CROWD, "sh", program, starters, stdout=subprocess.PIPE)
        said = popen.communicate(timeout=DEADLINE)[0].splitlines()
        took = time.monotonic() - began
        self.assertEqual(len(said), starters, said)
        slow = [f"it took {took:.1f} s"] if took > FAST else []
        return [line for line in said if line != "0"] + slow

    # Many at once.

    def test_many_that_start_at_once_get_one_daemon(self):
        wrong = {}
        for number in range(ROUNDS):
            kind = ("fresh", "stopped", "killed", "going")[number % 4]
            if number and kind != "fresh":
                pid = self.only_daemon()
            if kind == "fresh":
                self.end_daemons()
                shutil.rmtree(self.place.state, ignore_errors=True)
                shutil.rmtree(self.place.runtime, ignore_errors=True)
            elif kind == "stopped":
                self.banger("daemon", "stop")
            elif kind == "killed":
                # Its socket is still there, and for a moment its locks.
                os.kill(pid, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGTERM)
            found = self.crowd()
            if found:
                wrong[f"{number} {kind}"] = found
        self.assertEqual(wrong, {}, f"in {len(wrong)} of {ROUNDS} rounds a command failed or took long")
        self.only_daemon()
        # Processes and links of other bangers on this host do not concern this test.
        found = json.loads(self.run_command(BIN / "banger", "-o", "json", "verify").stdout)
        self.assertEqual([oddity for oddity in found if oddity["kind"] == "file"], [])

    def test_who_finds_a_daemon_that_does_not_listen_yet_waits_for_it(self):
        gated, starts, gate = self.gated()
        for _ in range(3):
            popen = self.start("sh", "-c", CROWD, "sh", gated, STARTERS, stdout=subprocess.PIPE)
            winner = self.only_one(starts, STARTERS)
            self.assertIsNone(popen.poll())
            self.assertFalse((self.place.runtime / "bangerd.sock").exists())
            os.close(at_gate(gate))
            self.assertEqual(popen.communicate(timeout=DEADLINE)[0].split(), ["0"] * STARTERS)
            self.assertEqual(self.only_daemon(), winner.pid)
            self.banger("daemon", "stop")

    def test_who_waits_for_a_daemon_that_dies_starts_another(self):
        gated, starts, gate = self.gated()
        first = self.start(gated, "ls", stderr=subprocess.PIPE)
        winner = self.only_one(starts, 1)
        others = self.start("sh", "-c", CROWD, "sh", gated, STARTERS, stdout=subprocess.PIPE)
        for pid in read_pids(starts, STARTERS):
            self.assertTrue(ended(pid, DEADLINE))
        held = at_gate(gate)
        winner.kill()
        os.close(held)
        self.assertIn("the daemon ended before it listened", first.communicate(timeout=DEADLINE)[1])
        self.assertIn("bangerd.sock.new", os.listdir(self.place.runtime), "it was not killed where it listens without a name")
        second = self.only_one(starts, STARTERS)
        os.close(at_gate(gate))
        self.assertEqual(others.communicate(timeout=DEADLINE)[0].split(), ["0"] * STARTERS)
        self.assertEqual(self.only_daemon(), second.pid)
        self.assertEqual(sorted(os.listdir(self.place.runtime)), ["bangerd.sock", "ground", "lock", "vms"])

    def gated(self):
        """A command line whose daemons write their process ids into a pipe and wait at a gate before their socket has its name."""
        root = self.place.runtime_root
        starts, gate = root / "starts", root / "gate"
        os.mkfifo(starts)
        os.mkfifo(gate)
        (root / "bin").mkdir()
        shutil.copy(BIN / "banger", root / "bin/banger")
        script = root / "bin/bangerd"
        script.write_text(f'#!/bin/sh\necho $$ >{starts}\nexec {BIN}/bangerd --gate {gate} "$@"\n')
        script.chmod(0o755)
        # Held open, so that a line can be written and read at any time.
        self.starts = os.open(starts, os.O_RDWR)
        self.addCleanup(os.close, self.starts)
        return root / "bin/banger", os.fdopen(os.dup(self.starts), "r"), gate

    def only_one(self, starts, count):
        """Waits until all but one of that many started daemons have ended, and returns the last one."""
        left = {pid: open_process(pid) for pid in read_pids(starts, count)}
        began = time.monotonic()
        while len(left) > 1:
            for pid, process in list(left.items()):
                if len(left) > 1 and (process is None or process.ended(0.05)):
                    del left[pid]
            self.assertLess(time.monotonic() - began, DEADLINE, "several daemons stay")
        return left.popitem()[1]

    # Locks.

    def test_an_older_daemon_and_this_one_exclude_each_other(self):
        """An older daemon has only the lock in the runtime directory, open to everybody, with its number in it."""
        lock = self.place.runtime / "lock"
        self.place.runtime.mkdir()
        older = self.older_daemon(lock)
        self.assertEqual(older.stdout.readline(), "held\n")
        ready, ready_end = os.pipe()
        daemon = self.start(BIN / "bangerd", "--ready-fd", ready_end, pass_fds=[ready_end, *self.place.net.fds], stderr=subprocess.DEVNULL)
        os.close(ready_end)
        with os.fdopen(ready) as pipe:
            said = pipe.read().splitlines()
        self.assertEqual(daemon.wait(), 1)
        self.assertEqual(said[0], f"error: another daemon, process {older.pid}, runs on {self.place.runtime}")
        self.assertIn(f"taken: {older.pid}", said)
        # A command line waits for it, because it may be about to listen. It does not, so the command line starts another once it is gone.
        waits = self.start(BIN / "banger", "ls", "-q")
        older.kill()
        older.communicate()
        self.assertEqual(waits.wait(timeout=DEADLINE), 0)
        # And the other way round, with the older daemon's way of reading the file.
        self.assertEqual(int(lock.read_text()[:32]), self.only_daemon())
        self.assertEqual(subprocess.run(["flock", "--nonblock", lock, "true"]).returncode, 1)

    def older_daemon(self, lock):
        program = self.place.runtime_root / "bangerd"
        shutil.copy("/bin/bash", program)
        script = 'umask 022; exec 9>"$1"; flock 9; echo $$ >&9; echo held; read -r end'
        # Without the network namespace's words, so that its number is the program's own.
        older = subprocess.Popen(
            [program, "-c", script, "bangerd", lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.addCleanup(older.communicate)
        self.addCleanup(older.kill)
        return older

    def test_a_state_directory_has_one_daemon_whatever_the_runtime_directory(self):
        self.banger("ls")
        pid = self.only_daemon()
        other = self.place.runtime_root / "other"
        cause = f"another daemon, process {pid}, runs on {self.place.state}; its runtime directory is {self.place.runtime}"
        help = f"set BANGER_RUNTIME_DIR={self.place.runtime}"
        self.refused("ls", cause=cause, help=help, BANGER_RUNTIME_DIR=str(other))
        # Another path to the directory changes nothing.
        (self.place.runtime_root / "alias").symlink_to(self.place.runtime)
        self.assertEqual(self.banger("ls", "-q", BANGER_RUNTIME_DIR=str(self.place.runtime_root / "alias")), "")
        # The lock of the runtime directory refuses another state directory in it.
        state = {"BANGER_STATE_DIR": str(self.place.state_root / "other")}
        ran = self.run_command(BIN / "bangerd", **state)
        self.assertIn(f"another daemon, process {pid}, runs on {self.place.runtime}", ran.stderr)
        self.assertEqual(self.only_daemon(), pid)

    # Other users.

    def test_a_local_user_cannot_keep_a_daemon_from_starting(self):
        open_to_all(self.place)
        self.banger("ls")
        hostile, did = outsider(self, self.place)
        self.assertEqual(did, [], "what another user can do to a daemon's files")
        for end in (signal.SIGKILL, signal.SIGTERM):
            daemon = Process(self.only_daemon())
            signal.pidfd_send_signal(daemon.pidfd, end)
            self.assertTrue(daemon.ended())
            self.assertEqual(self.crowd(), [])
            self.only_daemon()

    def test_a_lock_that_a_local_user_took_before_an_upgrade_is_replaced(self):
        """Older daemons made the lock so that every user could take it."""
        for number in (1 << 30, os.getpid(), None):
            with self.subTest(number=number):
                open_to_all(self.place)
                self.place.runtime.mkdir(exist_ok=True)
                lock = self.place.runtime / "lock"
                lock.write_text("" if number is None else f"{number}\n")
                lock.chmod(0o644)
                inode = lock.stat().st_ino
                hostile, did = outsider(self, self.place)
                self.assertIn(f"flock shared {lock}", did)
                self.assertEqual(self.crowd(), [])
                found = lock.stat()
                self.assertEqual((found.st_mode & 0o777, int(lock.read_text())), (0o600, self.only_daemon()))
                self.assertNotEqual(found.st_ino, inode)
                ran = self.run_command(BIN / "bangerd", BANGER_STATE_DIR=str(self.place.state_root / "other"))
                self.assertIn(f"another daemon, process {self.only_daemon()}", ran.stderr)
                self.banger("daemon", "stop")
                hostile.kill()
                hostile.communicate()

    # Directories that are unfit for a daemon.

    def test_directories_that_others_can_change_are_refused(self):
        for root in (self.place.state, self.place.runtime):
            root.mkdir()
            for mode in (0o777, 0o1777, 0o775):
                root.chmod(mode)
                self.refused("ls", cause=f"other users can write to the directory {root}", help=f"chmod go-w {root}")
            root.chmod(0o755)
            os.chown(root, NOBODY, NOBODY)
            self.refused("ls", cause=f"the directory {root} belongs to user {NOBODY}", help=f"chown 0 {root}")
            # Nothing was made or opened in it.
            self.assertEqual(os.listdir(root), [])
            os.chown(root, 0, 0)
        self.banger("ls")

    def test_what_is_no_file_in_a_locks_place_is_named_and_not_waited_for(self):
        self.banger("ls")
        self.banger("daemon", "stop")
        target = self.place.runtime_root / "target"
        target.write_text("precious")
        makes = {
            "a symbolic link": lambda path: path.symlink_to(target),
            "not a regular file": os.mkfifo,
            "a directory": os.mkdir,
            "another user's": lambda path: (path.write_text(""), os.chown(path, NOBODY, NOBODY)),
        }
        for lock in (self.place.state / "lock", self.place.runtime / "lock"):
            for found, make in makes.items():
                lock.unlink()
                make(lock)
                self.refused("ls", cause=f"cannot lock {lock}: it is {found}", help=f"rm -r {lock}")
                os.rmdir(lock) if found == "a directory" else lock.unlink()
                lock.touch(0o600)
        self.assertEqual(target.read_text(), "precious")
        # The daemon replaces anything in a socket's place but a directory.
        path = self.place.runtime / "bangerd.sock"
        for make in (os.mkfifo, lambda path: path.symlink_to(target), lambda path: path.write_text("")):
            for name in (path, self.place.runtime / "bangerd.sock.new"):
                make(name)
            self.assertEqual(self.run_command(BIN / "banger", "daemon", "start").returncode, 0)
            self.banger("daemon", "stop")
        self.assertEqual(target.read_text(), "precious")


class Outside(FakeCase):
    """A daemon with a VM, and another user of the host."""

    def test_another_user_gets_nothing_of_a_vm_and_no_record(self):
        place = self.place
        place.banger("create", "--net", "nat", "devbox")
        self.addCleanup(place.banger, "rm", "--force", "devbox")
        open_to_all(place)
        _, did = outsider(self, place)
        for pattern in ("vms/*/root.ext4", "vms/*/work.ext4", "banger.db"):
            self.assertTrue(list(place.state.glob(pattern)), pattern)
        # Everybody may read an image.
        self.assertEqual([line for line in did if f" {place.state}/images/" not in line], [])


def open_to_all(place):
    """Opens the directories around a daemon's own to other users."""
    place.runtime_root.chmod(0o755)
    place.state_root.chmod(0o755)


def outsider(case, place):
    """A process of another user that does what it can to every file and keeps what it gets; also a list of that."""
    roots = [place.state, place.runtime]
    paths = [*map(str, roots), *(str(path) for root in roots for path in sorted(root.rglob("*")))]
    listing = place.runtime_root / "paths"
    listing.write_text(json.dumps(paths))
    hostile = subprocess.Popen(
        [sys.executable, "-c", HOSTILE, listing], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    case.addCleanup(hostile.communicate)
    case.addCleanup(hostile.kill)
    return hostile, json.loads(hostile.stdout.readline())


def at_gate(gate):
    """Waits until a daemon is at the gate, and holds it there until the caller closes the returned object."""

    def late(*_):
        raise Failed("no daemon comes to the gate")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(DEADLINE)
    try:
        return os.open(gate, os.O_WRONLY)
    finally:
        signal.alarm(0)


def ended(pid, seconds=0):
    process = open_process(pid)
    return process is None or process.ended(seconds)


def open_process(pid):
    try:
        return Process(pid)
    except ProcessLookupError:
        return None


def read_pids(starts, count):
    return [int(starts.readline()) for _ in range(count)]
