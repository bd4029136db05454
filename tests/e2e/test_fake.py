"""The whole daemon and command line with the fake VMM: what is too many, too fast or too rare for real guests."""

import json
import os
import re
import select
import statistics
import subprocess
import time
from pathlib import Path

from fake import FakeCase
from harness import DEADLINE, SEED, names, ours

TIMES = 10


class KillDaemonQuickly(FakeCase):
    """kill -9 of the daemon at random moments of every verb: the agents run on, records and host agree."""

    def test_every_verb(self):
        print(f"(moments of KillDaemonQuickly: BANGER_TEST_SEED={SEED})", flush=True)
        place = self.place
        place.banger("create", "anchor")
        started = place.json("exec", "-d", "anchor", "--", "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done")
        source = place.runtime_root / "source"
        source.write_bytes(os.urandom(1 << 20))
        verbs = {
            "create": (["create", "fresh"], lambda: self.remove("fresh")),
            "exec": (["exec", "anchor", "--", "seq", "1", "1000"], None),
            "cp": (["cp", str(source), "anchor:copy"], None),
            "start": (["start", "worker"], lambda: self.state("worker", "stopped")),
            "stop": (["stop", "worker"], lambda: self.state("worker", "running")),
            "rm": (["rm", "--force", "doomed"], lambda: self.state("doomed", "running")),
        }
        counted = 0
        for verb, (command, prepare) in verbs.items():
            takes = None
            for attempt in range(TIMES + 1):
                if prepare:
                    prepare()
                # The first attempt is not interrupted: it says how long the verb takes.
                if takes is None:
                    began = time.monotonic()
                    place.banger(*command)
                    takes = time.monotonic() - began
                    continue
                moment = self.random.uniform(0, takes * 1.1)
                with self.subTest(verb=verb, attempt=attempt, moment=round(moment, 4)):
                    anchor = place.vms()["anchor"]
                    client = place.start(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                    pidfd = os.pidfd_open(client.pid)
                    select.select([pidfd], [], [], moment)
                    os.close(pidfd)
                    place.kill_daemon()
                    client.wait(timeout=DEADLINE)
                    place.start_daemon(*self.args)
                    self.assert_agrees()
                    now = place.vms()["anchor"]
                    self.assertEqual((now["pid"], now["boot_id"]), (anchor["pid"], anchor["boot_id"]))
                    counted = self.counts_on(started["id"], counted)

    def counts_on(self, command, counted):
        """Follows the output of a detached command until it has counted further."""
        client = self.place.start("logs", "--follow", "--command", command, "anchor", text=True)
        for line in client.stdout:
            if int(line) > counted:
                client.kill()
                client.communicate()
                return int(line)
        self.fail(f"it counts no further than {counted}: {client.communicate()}")

    def assert_agrees(self):
        vms = self.place.settled().values()
        running = {vm["pid"] for vm in vms if vm["state"] == "running"}
        agents = {pid for pid, words in ours().items() if "--fake-guest" in words and str(self.place.runtime) in words}
        self.assertEqual(agents, running, "agents and records differ")
        self.assertEqual(names(self.place.state / "vms"), {vm["id"] for vm in vms})
        self.assertEqual(names(self.place.runtime / "vms"), {vm["id"] for vm in vms if vm["state"] == "running"})
        self.assertEqual(names(self.place.state / "tmp"), set())

    def state(self, name, wanted):
        vms = self.place.vms()
        if name not in vms:
            self.place.banger("create", name)
        elif vms[name]["state"] != "running":
            self.place.banger("start", name)
        if wanted == "stopped":
            self.place.banger("stop", name)

    def remove(self, name):
        if name in self.place.vms():
            self.place.banger("rm", "--force", name)


class Fleet(FakeCase):
    def test_a_hundred_vms(self):
        """They are there at once, in a list that takes no time, by a daemon that stays small; and gone again."""
        creating = []
        for number in range(100):
            creating.append(self.place.start("create", "-q", f"vm-{number}"))
            if len(creating) == 10:
                for client in creating:
                    _, err = client.communicate(timeout=DEADLINE)
                    self.assertEqual(client.returncode, 0, err)
                creating = []
        self.assertEqual({vm["state"] for vm in self.place.vms().values()}, {"running"})
        took = []
        for _ in range(20):
            began = time.perf_counter()
            self.place.banger("vm", "ls")
            took.append(time.perf_counter() - began)
        resident = next(
            int(line.split()[1]) << 10
            for line in Path(f"/proc/{self.place.daemon.pid}/status").read_text().splitlines()
            if line.startswith("VmRSS:")
        )
        print(f"(vm ls of 100: {statistics.median(took) * 1000:.1f} ms with Python's share; daemon {resident / (1 << 20):.1f} MiB)", flush=True)
        # Generous, for busy machines: bench/channel.py has the figures.
        self.assertLess(statistics.median(took), 0.1)
        self.assertLess(resident, 30 << 20)


class Events(FakeCase):
    """What happens, as `banger events` prints it."""

    def follow(self, *args):
        """The lines of `banger events`, as they come; it is ended with the test."""
        client = self.place.start(*args, text=True, bufsize=1)
        self.addCleanup(client.communicate)
        self.addCleanup(client.kill)
        return client.stdout

    def test_a_life_for_people_and_for_programs(self):
        lines = self.follow("events")
        self.assertRegex(next(lines), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z  there are 0 VMs and 1 images\n$")
        [token] = [json.loads(next(self.follow("-o", "json", "events")))["token"]]
        self.place.banger("create", "--stopped", "devbox")
        self.place.banger("rm", "devbox")
        said = [re.sub(r"^\S+  |operation \S+| in .*", "", next(lines)).strip() for _ in range(7)]
        self.assertEqual(
            said,
            [
                "begins: create devbox", "vm devbox is new: creating, generation 1", "vm devbox is stopped, generation 2",
                "ends: create devbox done", "begins: rm devbox", "vm devbox is removing, generation 3", "vm devbox is gone",
            ],
        )  # fmt: skip
        again = self.follow("-o", "json", "events", "--since", token)
        self.assertEqual(
            [json.loads(next(again))["event"] for _ in range(8)],
            [
                "operation_started", "vm_created", "vm_changed", "operation_finished",
                "operation_started", "vm_changed", "vm_removed", "operation_finished",
            ],
        )  # fmt: skip

    def test_nonsense_is_refused_and_a_daemon_that_goes_is_told(self):
        result = self.place.run("events", "--since", "yesterday")
        self.assertEqual(result.returncode, 2)
        self.assertRegex(result.stderr, r"(?m)^error: .*yesterday.*\nhelp: ")
        lines = self.follow("events")
        next(lines)
        self.place.stop_daemon()
        self.assertEqual(list(lines), [])
        self.place.start_daemon(*self.args)


class OldAgent(FakeCase):
    """An agent of the protocol before this one is served: guests outlive the banger that started them."""

    agent = "--protocol 2"

    def test_commands_files_and_stop(self):
        self.place.banger("create", "old")
        self.assertEqual(self.place.run("exec", "old", "--", "sh", "-c", "cat; exit 7", input="hi\n").returncode, 7)
        note = self.place.runtime_root / "note"
        note.write_text("words\n")
        self.place.banger("cp", note, "old:note")
        self.place.banger("cp", "old:note", self.place.runtime_root / "back")
        self.assertEqual((self.place.runtime_root / "back").read_text(), "words\n")
        self.place.banger("stop", "old")
        self.place.banger("start", "old")
        self.assertEqual(self.place.shell("old", "cat note"), "words")

    def test_what_it_does_not_know_is_said_and_holds_later(self):
        self.place.banger("create", "elder")
        disk = str(self.place.vms()["elder"]["disk"] + (1 << 20))
        for [change] in (
            self.place.json("set", "elder", "--disk", disk)["changes"],
            self.place.json("rename", "elder", "eldest")["changes"],
        ):
            self.assertEqual(change["effect"], "next_start", change)
            self.assertIn(f"protocol {self.agent[-1]}", change["reason"])
        [stats] = [found for found in self.place.json("stats", "--no-stream") if found["name"] == "eldest"]
        self.assertIn(f"protocol {self.agent[-1]}", stats["guest_error"])
        result = self.place.run("cp", "eldest:/etc/host*", self.place.runtime_root)
        self.assertRegex(result.stderr, r"(?m)^error: .*protocol")
        self.place.banger("restart", "eldest")


class OldestAgent(OldAgent):
    """So is the oldest one that is promised to be."""

    agent = "--protocol 1"


class AncientAgent(FakeCase):
    """One that is older still is refused with the reason, and nothing of the VM stays."""

    agent = "--protocol 0"

    def test_create_says_why(self):
        result = self.place.run("create", "ancient")
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertRegex(result.stderr, r"(?m)^error: .*protocol 0")
        self.assertRegex(result.stderr, r"(?m)^help: ")
        self.assertEqual(self.place.vms(), {})
