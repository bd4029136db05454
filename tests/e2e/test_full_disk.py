"""The host's disk is full, to the last block: guests that write stand still and lose nothing, VMs can be stopped and removed, and
when there is space again all goes on. State directories lie on small file systems of their own, without blocks kept for root.
"""

import contextlib
import json
import os
import sqlite3
import subprocess
import threading
import time
import unittest
from pathlib import Path

from fake import FakeCase
from harness import DEADLINE, Case, Failed, Place, clone_state, names, state_with_image

MIB = 1 << 20


class Small:
    """A small file system, mounted at a directory."""

    def __init__(self, at, mib, kind):
        self.at = at
        self.image = Path("/var/tmp") / f"{at.name}.{kind}"
        with open(self.image, "wb") as file:
            file.truncate(mib * MIB)
        make = {"xfs": ["mkfs.xfs", "-q"], "ext4": ["mke2fs", "-q", "-t", "ext4", "-m", "0"]}[kind]
        subprocess.run([*make, self.image], check=True)
        subprocess.run(["mount", "-o", "loop", self.image, at], check=True)

    def close(self):
        """Does nothing twice."""
        if self.image.exists():
            subprocess.run(["umount", "--lazy", self.at], check=True)
            self.image.unlink()

    @contextlib.contextmanager
    def full(self):
        """To the last block, until the end of the `with`."""
        filler = self.at / "filler"
        try:
            self.fill(filler)
            yield filler
        finally:
            filler.unlink(missing_ok=True)

    def fill(self, filler):
        size = 0
        with open(filler, "ab") as file:
            for chunk in (64 * MIB, MIB, 64 << 10, 4 << 10):
                # What is given up late by others is taken, too.
                while True:
                    try:
                        os.posix_fallocate(file.fileno(), size, chunk)
                        size += chunk
                    except OSError:
                        break


class Follower:
    """What `banger events` tells, from now on."""

    def __init__(self, place):
        self.lines, self.more = [], threading.Condition()
        self.popen = place.start("-o", "json", "events", text=True)
        threading.Thread(target=self.read, daemon=True).start()
        self.wait_for(lambda line: line["event"] == "reset")

    def read(self):
        for line in self.popen.stdout:
            with self.more:
                self.lines.append(json.loads(line))
                self.more.notify_all()

    def wait_for(self, fits, seconds=DEADLINE):
        with self.more:
            if not self.more.wait_for(lambda: any(map(fits, self.lines)), seconds):
                raise Failed(f"not told within {seconds} s; told: {self.lines}")

    def states(self, name):
        """What the VM has become, one state after the other, and why."""
        with self.more:
            told = [(line["vm"]["state"], line["vm"].get("reason")) for line in self.lines if line["event"] == "vm_changed" and line["vm"]["name"] == name]
        return [state for at, state in enumerate(told) if at == 0 or told[at - 1] != state]

    def becomes(self, name, state, seconds=DEADLINE):
        fits = lambda line: line["event"] == "vm_changed" and (line["vm"]["name"], line["vm"]["state"]) == (name, state)
        self.wait_for(fits, seconds)

    def close(self):
        self.popen.kill()
        self.popen.communicate()


class FullDisk(Case):
    """Real guests on XFS, where a clone takes no space."""

    own_state = True

    @classmethod
    def setUpClass(cls):
        state = state_with_image()
        taken = int(subprocess.check_output(["du", "-sm", state], text=True).split()[0])

        def make_place():
            place = Place()
            cls.small = Small(place.state_root, taken + 1024, "xfs")
            cls.addClassCleanup(cls.small.close)
            return place

        cls.make_place = staticmethod(make_place)
        super().setUpClass()

    def setUp(self):
        self.place.banger("create", "--memory", "512M", "--wait", "system", "one")
        self.addCleanup(lambda: self.place.run("rm", "--force", "one"))
        self.events = Follower(self.place)
        self.addCleanup(self.events.close)

    def writes(self, mib):
        """A guest that writes more than there is; what it prints is the checksum of what it meant to write."""
        script = f"head -c {mib}M /dev/urandom | tee /var/tmp/blob | sha256sum; sync; sha256sum </var/tmp/blob"
        return self.place.start("exec", "one", "--", "sh", "-e", "-c", script, text=True)

    def test_a_guest_stands_still_until_there_is_space_and_loses_nothing(self):
        # Not a child of the command, which goes with the daemon.
        writes = "head -c 300M /dev/urandom | tee /var/tmp/blob | sha256sum >/var/tmp/meant; sync; touch /var/tmp/written"
        with self.small.full():
            self.place.shell("one", f"setsid sh -c '{writes}' </dev/null >/dev/null 2>&1 &")
            self.events.becomes("one", "paused")
            self.assertEqual(self.place.vms()["one"]["reason"], "host disk full")
            self.assertRegex(self.place.banger("ls"), r"one +paused")
            began = time.monotonic()
            for words in ("exec", "one", "--", "true"), ("cp", "/etc/hostname", "one:/tmp"), ("ssh", "one", "true"), ("start", "one"):
                code = 125 if words[0] in ("exec", "ssh") else 1
                self.fails(*words, code=code, cause="paused" if words[0] == "ssh" else "host's disk is full", help="free some room")
            self.assertLess(time.monotonic() - began, 10)
            # It is let go on only if there is space, which is looked for each second.
            with self.assertRaises(Failed):
                self.events.becomes("one", "running", int(os.environ.get("BANGER_TEST_FULL_SECONDS", 10)))
            self.assertEqual(self.events.states("one"), [("paused", "host disk full")])
            # The next daemon finds it as it is.
            self.place.kill_daemon()
            self.events.close()
            self.place.start_daemon()
            self.events = Follower(self.place)
            self.addCleanup(self.events.close)
            if self.place.vms()["one"]["state"] != "paused":
                self.events.becomes("one", "paused")
        self.events.becomes("one", "running")
        self.assertEqual(self.events.states("one")[-1], ("running", None))
        self.place.shell("one", "until [ -e /var/tmp/written ]; do sleep 0.1; done; sha256sum </var/tmp/blob | cmp - /var/tmp/meant")
        self.assertEqual(self.place.shell("one", "dmesg | grep -i 'i/o error' || true"), "")
        now = int(self.place.shell("one", "date +%s"))
        self.assertLess(abs(now - time.time()), 5)

    def test_what_was_written_over_a_pause_is_what_was_meant(self):
        with self.small.full():
            writing = self.writes(300)
            self.events.becomes("one", "paused")
        out, err = writing.communicate(timeout=DEADLINE)
        self.assertEqual(writing.returncode, 0, err)
        meant, written = out.split()[::2]
        self.assertEqual(meant, written)

    def test_a_guest_that_cannot_go_down_is_killed_and_that_is_said(self):
        with self.small.full():
            writing = self.writes(300)
            self.events.becomes("one", "paused")
            began = time.monotonic()
            result = self.place.run("stop", "one")
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn("it is killed", result.stderr)
            self.assertLess(time.monotonic() - began, 10)
            self.assertEqual(self.place.vms()["one"]["state"], "stopped")
            writing.communicate(timeout=DEADLINE)

    def test_a_kill_ends_it(self):
        with self.small.full():
            writing = self.writes(300)
            self.events.becomes("one", "paused")
            pid = self.place.vms()["one"]["pid"]
            self.place.banger("kill", "one")
            self.assertFalse(Path(f"/proc/{pid}").exists())
            self.place.banger("rm", "one")
            self.assertEqual(self.place.vms(), {})
            writing.communicate(timeout=DEADLINE)


class FullRecords(FakeCase):
    """Many VMs, whose records have no space."""

    @classmethod
    def setUpClass(cls):
        def make_place(net):
            place = Place(net=net)
            cls.small = Small(place.state_root, 160, "ext4")
            cls.addClassCleanup(cls.small.close)
            return place

        cls.make_place = staticmethod(make_place)
        super().setUpClass()

    def setUp(self):
        # A daemon looks for the space to keep every few seconds.
        deadline = time.monotonic() + 30
        while not (self.place.state / "banger.db.reserve").exists():
            self.assertLess(time.monotonic(), deadline, "no space is kept")
            self.place.vms()

    def test_fifty_are_removed_one_after_another(self):
        vms = [f"vm-{number}" for number in range(50)]
        for name in vms:
            self.place.banger("create", "--quiet", name)
        with self.small.full() as filler:
            refused = self.place.run("create", "more")
            self.assertEqual(refused.returncode, 1)
            self.assertIn("help: free some room", refused.stderr)
            for name in vms:
                self.place.banger("rm", "--force", name)
                # Nobody gets what it gives back but others.
                self.small.fill(filler)
            self.assertEqual(self.place.vms(), {})
        self.assertEqual(names(self.place.state / "vms"), set())

    def test_a_daemon_starts_and_kills(self):
        for name in "one", "two":
            self.place.banger("create", "--quiet", name)
        pids = [vm["pid"] for vm in self.place.vms().values()]
        self.place.stop_daemon()
        with self.small.full():
            self.place.start_daemon(*self.args)
            self.place.settled()
            self.place.banger("kill", "one", "two")
            self.assertFalse([pid for pid in pids if Path(f"/proc/{pid}").exists()])
            self.assertEqual({vm["state"] for vm in self.place.vms().values()}, {"stopped"})
            self.place.kill_daemon()
            self.place.start_daemon(*self.args)
            self.assertEqual({vm["state"] for vm in self.place.settled().values()}, {"stopped"})
            self.place.banger("rm", "one", "two")
        self.assertEqual(self.place.vms(), {})

    def test_a_kill_ends_a_vm_whose_end_cannot_be_written_down(self):
        self.place.banger("create", "--quiet", "one")
        vm = self.place.vms()["one"]
        # Another who writes: the daemon waits for a while, then fails.
        with contextlib.closing(sqlite3.connect(self.place.state / "banger.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            self.place.banger("kill", "one")
            self.assertFalse(Path(f"/proc/{vm['pid']}").exists())
            self.assertEqual(self.place.vms()["one"]["state"], "stopped")
            recorded = lambda: json.loads(other.execute("SELECT state FROM vms WHERE id = ?", [vm["id"]]).fetchone()[0])["state"]
            self.assertEqual(recorded(), "running")
            other.execute("ROLLBACK")
            deadline = time.monotonic() + 30
            while recorded() != "stopped":
                self.assertLess(time.monotonic(), deadline, "it is never written down")
                self.place.vms()
        self.place.banger("rm", "one")


if __name__ == "__main__":
    unittest.main()
