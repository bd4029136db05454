"""Several daemons on one host: each keeps to its own ground. The tests ask ip(8), nft(8), ping(8), /proc and the claims below
/run/banger-ground, not banger itself.
"""

import os
import random
import re
import sqlite3
import subprocess
import time
import unittest
from pathlib import Path

import host
import tiny_image
from harness import DEADLINE, SEED, SLOT, Failed, Net, Place, Process, claims, clone_state, left_since, names, ours, state_with_image
from host import CLAIMS

# How long daemons and VMs come and go at random. `BANGER_TEST_SECONDS=1800 python3 tests/runner.py tests/e2e at_random` takes longer.
SECONDS = int(os.environ.get("BANGER_TEST_SECONDS", 180))


class Daemons(unittest.TestCase):
    """Some daemons in one network namespace that share nothing but the host."""

    count = 3
    real_guests = False

    @classmethod
    def setUpClass(cls):
        if os.geteuid() != 0:
            raise unittest.SkipTest("needs root for a network namespace of its own")
        cls.random = random.Random(f"{SEED} {cls.__name__}")
        source = state_with_image() if cls.real_guests else None
        cls.before = set(ours())
        cls.net = Net()
        cls.addClassCleanup(cls.net.close)
        cls.places = [cls.make_place(source) for _ in range(cls.count)]
        for place in cls.places:
            cls.start(place)

    @classmethod
    def make_place(cls, source=None):
        place = Place(net=cls.net.same)
        cls.addClassCleanup(place.remove)
        Path(place.environment["BANGER_CONFIG"]).write_text("" if cls.real_guests else tiny_image.CONFIG)
        if source:
            clone_state(source, place.state)
        else:
            cls.start(place)
            place.stop_daemon()
            tiny_image.plant(place.state)
        return place

    @classmethod
    def start(cls, place):
        place.start_daemon(*([] if cls.real_guests else ["--fake-vmm"]))

    @classmethod
    def tearDownClass(cls):
        for place in cls.places:
            if not place.daemon:
                cls.start(place)
            place.settled()
            for name in place.vms():
                place.banger("rm", "--force", name)
            place.stop_daemon()
        left = left_since(cls.before)
        left += [f"link {name}" for name in cls.net.links() if name != "lo"]
        left += cls.net.ask("nft", "list", "ruleset").splitlines()
        left += [f"claim of {state}" for state in claims() if any(state == str(place.state) for place in cls.places)]
        left += [f"files of VM {vm}" for place in cls.places for vm in names(place.state / "vms") | names(place.runtime / "vms")]
        if left:
            raise AssertionError("left behind after the last VM and the last daemon:\n" + "\n".join(left))

    # What the host has.

    def footprint(self, place):
        """Everything that belongs to a daemon's ground on the host, its processes included, according to programs other than banger."""
        state = str(place.state)
        bridge = host.bridges(self.net.json("ip", "-j", "-d", "link")).get(state)
        found = {"claim": claims().get(state), "vmms": self.vmms(place), "bridge": None, "tables": []}
        if bridge:
            slot = bridge["ifname"].removeprefix("banger")
            table = "banger" if slot == "0" else f"banger{slot}"
            address = self.net.json("ip", "-j", "address", "show", bridge["ifname"])[0]["addr_info"]
            found["bridge"] = bridge["ifname"], bridge["address"], [one["local"] for one in address if one["family"] == "inet"]
            found["tables"] = [self.net.ask("nft", "list", "table", family, table) for family in ("bridge", "inet")]
        return found

    def vmms(self, place):
        """The processes that use a place's disks: a copied VM has the id of its original."""
        ids = names(place.state / "vms")
        marks = [f"guest={vm}," if self.real_guests else str(place.state / "vms" / vm) for vm in ids]
        return {pid for pid, words in ours().items() if any(mark in words for mark in marks)}

    def assert_clean(self, place):
        self.assertEqual(place.oddities(), [], place.state)
        for finding in place.json("doctor"):
            self.assertNotRegex(finding.get("fix") or "", r"\bkill\b|rm -r|ip link delete|nft delete", finding)

    def ready(self, place, name):
        return place.run("exec", name, "true").returncode == 0


class Two(Daemons):
    """The second daemon takes the next slot for everything."""

    count = 2

    def setUp(self):
        for number, place in enumerate(self.places):
            place.banger("create", "--net", "nat", f"vm{number}")

    def tearDown(self):
        for place in self.places:
            if not place.daemon:
                self.start(place)
            place.banger("rm", "--force", "--all")

    def test_nothing_is_shared(self):
        one, two = self.places
        first, second = (self.footprint(place) for place in self.places)
        self.assertEqual((first["bridge"][0], second["bridge"][0]), ("banger0", "banger1"))
        self.assertNotEqual(first["bridge"][2], second["bridge"][2])
        self.assertEqual(int(second["claim"]["first-uid"]) - int(first["claim"]["first-uid"]) & 131071, 0)
        self.assertNotEqual(first["claim"]["slot"], second["claim"]["slot"])
        for place, domain, port in ((one, "vm", 42069), (two, "vm1", 42070)):
            name, address = next((vm["name"], vm["address"]) for vm in place.vms().values())
            self.assertEqual(place.json("daemon", "status")["domain"], domain)
            self.assertEqual(self.net.ask("dig", "@127.0.0.1", "-p", port, "+short", "+tries=1", f"{name}.{domain}"), f"{address}\n")
        taps = [link["ifname"] for link in self.net.links().values() if link["ifname"].startswith("tap-pool")]
        self.assertTrue({tap.split("-")[1] for tap in taps} >= {"pool", "pool1"}, taps)
        for place in self.places:
            self.assert_clean(place)
            ground = place.finding("ground")
            other = two if place is one else one
            self.assertIn(str(other.state), ground["found"])

    def test_one_goes_and_comes_back_while_the_other_stays_as_it_is(self):
        for place, other in (self.places, self.places[::-1]):
            for end in (place.stop_daemon, place.kill_daemon):
                theirs, own = self.footprint(other), self.footprint(place)
                end()
                self.assertEqual(self.footprint(other), theirs)
                # What its VMs need stays without a daemon, and no other daemon takes it.
                self.assertEqual(self.footprint(place)["bridge"], own["bridge"])
                self.assert_clean(other)
                self.start(place)
                place.settled()
                self.assertEqual(self.footprint(place), own)
                self.assertEqual(self.footprint(other), theirs)
                self.assert_clean(place)

    def test_forwarding_goes_with_the_last(self):
        net, (one, two) = self.net, self.places
        switch = "/proc/sys/net/ipv4/conf/up0/forwarding"
        for place in self.places:
            place.banger("rm", "--force", "--all")
            place.stop_daemon()
        net.ask("ip", "link", "add", "up0", "type", "bridge")
        net.ask("ip", "address", "add", "192.0.2.2/24", "dev", "up0")
        net.ask("ip", "link", "set", "up0", "up")
        net.ask("ip", "route", "add", "default", "via", "192.0.2.1")
        forwards = lambda: net.ask("cat", switch).strip()  # noqa: E731
        for first, last in ((one, two), (two, one)):
            self.assertEqual(forwards(), "0")
            for place in (first, last):
                self.start(place)
                place.banger("create", "--net", "nat", "vm")
                self.assertEqual(forwards(), "1")
            first.banger("rm", "--force", "vm")
            first.stop_daemon()
            self.assertEqual(forwards(), "1")
            self.assertEqual(last.oddities(), [])
            last.banger("rm", "--force", "vm")
            last.stop_daemon()
        self.assertEqual(forwards(), "0")
        net.ask("ip", "link", "delete", "up0")

    def test_what_is_nobodys_is_still_named(self):
        place, net = self.places[0], self.net
        note = "banger ground 0123456789abcdef of /no/such/directory"
        net.ask("ip", "link", "add", "banger7", "type", "bridge")
        net.ask("ip", "link", "set", "banger7", "alias", note)
        net.ask("nft", "add table inet banger8")
        net.ask("nft", "add chain inet banger8 forward")
        found = {oddity["which"]: oddity["fix"] for oddity in place.oddities()}
        self.assertEqual(set(found), {"banger7", "banger8"})
        for fix in found.values():
            for command in fix.split("; "):
                net.run(*command.split())
        self.assertEqual(place.oddities(), [])


    def test_rules_of_a_daemon_that_is_gone_are_named_with_its_comment(self):
        place, net = self.places[0], self.net
        net.ask("nft", "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }")
        self.addCleanup(net.run, "nft", "delete", "table", "ip", "filter")
        net.ask("nft", 'add rule ip filter FORWARD iifname "banger7" counter accept comment "banger7"')
        # The rules that its own VMs need there come in a moment.
        place.banger("doctor", "--fix")
        found = [oddity for oddity in place.oddities() if oddity["problem"] == "leak"]
        self.assertEqual([oddity["which"] for oddity in found], ["ip filter"])
        self.assertIn("with the comment banger7", found[0]["fix"])


class Bad(Daemons):
    """What can happen to a ground: taken names, old claims, moved or copied directories."""

    count = 1

    def setUp(self):
        self.place = self.places[0]

    def tearDown(self):
        Path(self.place.environment["BANGER_CONFIG"]).write_text(tiny_image.CONFIG)
        if not self.place.daemon:
            self.start(self.place)
        self.place.banger("rm", "--force", "--all")
        self.place.stop_daemon()
        self.start(self.place)

    def refused(self, place, *words):
        """Starts a daemon that must fail, and returns its message."""
        with self.assertRaises(Failed) as failed:
            self.start(place)
        said = str(failed.exception)
        self.assertIn("help: ", said)
        for word in words:
            self.assertIn(word, said)
        return said

    def test_a_device_that_is_not_bangers_stays(self):
        self.net.ask("ip", "tuntap", "add", "banger0", "mode", "tap")
        before = self.net.links()["banger0"]
        self.place.banger("create", "--net", "nat", "vm")
        self.assertEqual(self.footprint(self.place)["bridge"][0], "banger1")
        self.assert_clean(self.place)
        self.assertEqual(self.net.links()["banger0"]["address"], before["address"])
        self.place.banger("rm", "--force", "vm")
        self.place.stop_daemon()
        self.assertEqual(set(self.net.links()), {"lo", "banger0"})
        # A daemon that may take no other slot says so.
        self.net.ask("ip", "link", "set", "banger0", "name", f"banger{SLOT}")
        Path(self.place.environment["BANGER_CONFIG"]).write_text(tiny_image.CONFIG + f"[ground]\nslot = {SLOT}\n")
        self.start(self.place)
        result = self.place.run("create", "--net", "nat", "vm")
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, rf"banger{SLOT} is not this daemon's: it is a tun with the hardware address.*\nhelp: set `slot`")
        self.assertEqual(self.place.vms(), {})
        self.net.ask("ip", "link", "delete", f"banger{SLOT}")

    def test_a_slot_by_configuration(self):
        self.place.stop_daemon()
        Path(self.place.environment["BANGER_CONFIG"]).write_text(tiny_image.CONFIG + f"[ground]\nslot = {SLOT}\n")
        self.start(self.place)
        self.place.banger("create", "--net", "nat", "vm")
        found = self.footprint(self.place)
        self.assertEqual((found["bridge"][0], found["claim"]["slot"]), (f"banger{SLOT}", SLOT))
        self.assertEqual(self.place.json("daemon", "status")["domain"], f"vm{SLOT}")
        other = self.make_place_of_its_own(f"[ground]\nslot = {SLOT}\n")
        self.refused(other, f"uid slot {SLOT} is taken: the daemon of " + str(self.place.state))

    def test_ids_that_vms_still_have_are_nobody_elses(self):
        place = self.place
        place.banger("create", "--net", "none", "vm")
        place.stop_daemon()
        Path(place.environment["BANGER_CONFIG"]).write_text(tiny_image.CONFIG + f"[ground]\nslot = {SLOT}\n")
        self.start(place)
        place.banger("kill", "vm")
        other = self.make_place_of_its_own()
        self.start(other)
        other.banger("create", "--net", "none", "other")
        place.banger("start", "vm")
        mine, others = self.uid(place, "vm"), self.uid(other, "other")
        self.assertNotEqual(mine, others)
        self.assert_clean(place)
        self.assert_clean(other)
        other.banger("rm", "--force", "other")
        other.stop_daemon()

    def uid(self, place, name):
        """The user that a VM's VMM would run as; the fake VMM runs as root."""
        with sqlite3.connect(f"file:{place.state}/banger.db?mode=ro", uri=True) as records:
            return records.execute("SELECT uid FROM vms WHERE name = ?", [name]).fetchone()[0]

    def test_before_its_first_vm_a_daemon_has_no_network(self):
        place, other = self.place, self.make_place_of_its_own()
        place.banger("create", "--net", "nat", "vm")
        self.start(other)
        found = other.finding("ground")["found"]
        self.assertRegex(found, rf"no network yet.*; banger\d+ is that of the daemon of {re.escape(str(place.state))}")
        # The domain of the first daemon must not lead to this one.
        taken = {int(name.removeprefix("banger")) for name in self.net.links() if re.fullmatch(r"banger\d+", name)}
        free = min(set(range(100)) - taken)
        domain = f"vm{free or ''}"
        self.assertEqual(other.json("daemon", "status")["domain"], domain)
        self.assertIn(f"Host *.{domain} ", other.banger("ssh-config"))
        self.assert_clean(other)
        other.kill_daemon()
        found = place.finding("ground")["found"]
        # Ids that no process has are free: another daemon of this host may have taken them by then.
        if str(other.state) in claims():
            self.assertRegex(found, f"a daemon that does not run, that of {re.escape(str(other.state))}")
        self.start(other)
        other.banger("create", "--net", "nat", "vm")
        self.assertEqual(other.json("daemon", "status")["domain"], domain)
        other.banger("rm", "--force", "vm")
        other.stop_daemon()

    def test_a_daemon_without_a_ground_leaves_no_note(self):
        other = self.make_place_of_its_own(f"[ground]\nslot = {claims()[str(self.place.state)]['slot']}\n")
        note = other.runtime / "ground"
        note.unlink()
        self.refused(other, "is taken: the daemon of " + str(self.place.state))
        self.assertFalse(note.exists())

    def test_the_claim_of_another_stays_where_one_was_removed(self):
        own = claims()[str(self.place.state)]["slot"]
        (CLAIMS / str(own)).unlink()
        other = self.make_place_of_its_own(f"[ground]\nslot = {own}\n")
        self.start(other)
        self.place.stop_daemon()
        self.assertEqual(claims()[str(other.state)]["slot"], own)
        other.stop_daemon()

    def test_a_device_with_the_name_of_a_bridge_keeps_no_forwarding_on(self):
        net, place = self.net, self.place
        net.ask("ip", "link", "add", "up0", "type", "bridge")
        net.ask("ip", "address", "add", "192.0.2.2/24", "dev", "up0")
        net.ask("ip", "link", "set", "up0", "up")
        net.ask("ip", "route", "add", "default", "via", "192.0.2.1")
        net.ask("ip", "tuntap", "add", "banger5", "mode", "tap")
        place.banger("create", "--net", "nat", "vm")
        self.assertEqual(net.ask("cat", "/proc/sys/net/ipv4/conf/up0/forwarding"), "1\n")
        place.banger("rm", "--force", "vm")
        self.assertEqual(net.ask("cat", "/proc/sys/net/ipv4/conf/up0/forwarding"), "0\n")
        for link in ("up0", "banger5"):
            net.ask("ip", "link", "delete", link)

    def test_a_directory_that_was_copied_is_another_ground(self):
        place = self.place
        place.banger("create", "--net", "nat", "vm")
        own, disks = self.footprint(place), place.directory(place.vms()["vm"])
        place.kill_daemon()
        copy = Place(net=self.net.same)
        self.addCleanup(copy.remove)
        Path(copy.environment["BANGER_CONFIG"]).write_text(tiny_image.CONFIG)
        clone_state(place.state, copy.state)
        self.refused(copy, "is a copy, and the VM vm of the original runs as process")
        self.assertEqual(self.footprint(place), own)
        # Once the VM is stopped, the copy is a ground of its own, and both daemons may run it.
        self.start(place)
        place.banger("kill", "vm")
        self.start(copy)
        for one in (place, copy):
            one.banger("start", "vm")
        first, second = self.footprint(place), self.footprint(copy)
        self.assertNotEqual(first["claim"]["ground"], second["claim"]["ground"])
        self.assertNotEqual(first["bridge"], second["bridge"])
        self.assertFalse(first["vmms"] & second["vmms"])
        self.assertTrue(disks.is_dir())
        for one in (place, copy):
            self.assert_clean(one)
            # The VMs have the same id: each new daemon takes over its own.
            own = self.footprint(one)
            one.kill_daemon()
            self.start(one)
            one.settled()
            self.assertEqual(self.footprint(one), own)
            self.assertTrue(self.ready(one, "vm"))
        copy.banger("rm", "--force", "vm")
        copy.stop_daemon()
        self.assertTrue(self.ready(place, "vm"))

    def test_a_directory_that_was_moved_is_the_same_ground(self):
        place = self.place
        place.banger("create", "--net", "nat", "vm")
        own = self.footprint(place)
        place.kill_daemon()
        moved = place.state.with_name("moved")
        place.state.rename(moved)
        before, place.state = place.state, moved
        place.environment["BANGER_STATE_DIR"] = str(moved)
        try:
            self.start(place)
            place.settled()
            self.assertTrue(self.ready(place, "vm"))
            now = self.footprint(place)
            self.assertEqual((now["bridge"], {place.vms()["vm"]["pid"]}), (own["bridge"], own["vmms"]))
            self.assertEqual(now["claim"]["ground"], own["claim"]["ground"])
            self.assert_clean(place)
            place.banger("rm", "--force", "vm")
            place.stop_daemon()
        finally:
            moved.rename(before)
            place.state = before
            place.environment["BANGER_STATE_DIR"] = str(before)

    def test_another_runtime_directory_is_refused_while_a_vm_lives(self):
        place = self.place
        ephemeral = place.start("run", "--rm", "--name", "vm", "--", "sleep", "1000", stdin=subprocess.PIPE, text=True)
        deadline = time.monotonic() + DEADLINE
        while place.vms().get("vm", {}).get("state") != "running":
            self.assertLess(time.monotonic(), deadline)
        disks, (vmm, *_) = place.directory(place.vms()["vm"]), self.vmms(place)
        held = Process(vmm)
        place.kill_daemon()
        ephemeral.communicate(timeout=DEADLINE)
        elsewhere = Place(state=place.state, net=self.net.same)
        self.addCleanup(elsewhere.remove)
        Path(elsewhere.environment["BANGER_CONFIG"]).write_text(tiny_image.CONFIG)
        self.refused(elsewhere, "the VM vm of", "in another runtime directory", str(place.runtime))
        self.assertTrue(disks.is_dir() and not held.ended(0))
        # The daemon that finds the VM by its own files does what `--rm` asks for.
        self.start(place)
        place.settled()
        self.assertTrue(held.ended())
        self.assertFalse(disks.exists())
        place.stop_daemon()
        # Nothing runs, so any runtime directory will do.
        self.start(elsewhere)
        elsewhere.stop_daemon()

    def test_a_runtime_directory_with_another_grounds_vms_is_refused(self):
        place = self.place
        place.banger("create", "--net", "nat", "vm")
        own = self.footprint(place)
        place.kill_daemon()
        other = self.make_place_of_its_own()
        other.environment["BANGER_RUNTIME_DIR"] = str(place.runtime)
        self.refused(other, "has a running VM of " + str(place.state))
        now = self.footprint(place)
        self.assertEqual((now["bridge"], now["vmms"]), (own["bridge"], own["vmms"]))

    def make_place_of_its_own(self, more=""):
        place = self.make_place()
        Path(place.environment["BANGER_CONFIG"]).write_text(tiny_image.CONFIG + more)
        return place


class Three(Daemons):
    """Three daemons with ten VMs each: agents on this host play the guests."""

    vms = 10

    def test_all_run_at_once(self):
        for place in self.places:
            clients = [place.start("create", "-q", "--net", net, f"vm{at}") for at, net in enumerate(["nat", "isolated"] * (self.vms // 2))]
            for client in clients:
                _, said = client.communicate(timeout=DEADLINE)
                self.assertEqual(client.returncode, 0, said)
        uids = [int(self.footprint(place)["claim"]["first-uid"]) for place in self.places]
        self.assertTrue(all(abs(one - two) >= 131072 for at, one in enumerate(uids) for two in uids[:at]), uids)
        addresses = [vm["address"] for place in self.places for vm in place.vms().values()]
        self.assertEqual(len(set(addresses)), self.vms * self.count)
        for place in self.places:
            self.assertTrue(all(self.ready(place, f"vm{at}") for at in range(self.vms)))
            self.assert_clean(place)
        for place in self.places:
            others = {id(other): self.footprint(other) for other in self.places if other is not place}
            place.stop_daemon()
            self.start(place)
            place.settled()
            place.banger("rm", "--force", "--all")
            place.stop_daemon()
            for other in self.places:
                if other is not place:
                    self.assertEqual(self.footprint(other), others[id(other)])
            self.start(place)

    def test_at_random(self):
        """Whatever one daemon and its VMs do, the VMs of the others run on, and no daemon finds anything odd."""
        until, counts = time.monotonic() + SECONDS, {}
        while time.monotonic() < until:
            place = self.random.choice(self.places)
            others = [(other, self.footprint(other)) for other in self.places if other is not place]
            verb = self.random.choice([self.create, self.create, self.create, self.kill, self.remove, self.end_daemon, self.kill_daemon])
            done = verb(place)
            counts[done] = counts.get(done, 0) + 1
            for other, before in others:
                self.assertEqual(self.footprint(other), before, done)
            if self.random.random() < 0.2:
                self.assert_clean(self.random.choice(self.places))
        print(f"({', '.join(f'{count} {verb}' for verb, count in sorted(counts.items()))}; BANGER_TEST_SEED={SEED})", flush=True)
        for place in self.places:
            self.assert_clean(place)
            self.assertTrue(all(self.ready(place, vm["name"]) for vm in place.vms().values() if vm["state"] == "running"))

    def create(self, place):
        vms = place.vms()
        free = [name for name in (f"vm{at}" for at in range(self.vms)) if name not in vms]
        if not free:
            return self.remove(place)
        place.banger("create", "--net", self.random.choice(["nat", "isolated", "none"]), self.random.choice(free))
        return "created"

    def kill(self, place):
        return self.to_one(place, "kill", "killed")

    def remove(self, place):
        return self.to_one(place, "rm", "removed", "--force")

    def to_one(self, place, verb, done, *more):
        vms = sorted(place.vms())
        if not vms:
            return "passed over"
        place.banger(verb, *more, self.random.choice(vms))
        return done

    def end_daemon(self, place):
        place.stop_daemon()
        return self.come_back(place, "daemons stopped")

    def kill_daemon(self, place):
        place.kill_daemon()
        return self.come_back(place, "daemons killed")

    def come_back(self, place, done):
        self.start(place)
        place.settled()
        return done


class ThreeReal(Daemons):
    """Three daemons with three real guests each."""

    real_guests = True

    def test_all_answer_and_none_reaches_another_daemons(self):
        for place in self.places:
            clients = [place.start("create", "-q", "--memory", "256M", f"vm{at}") for at in range(3)]
            for client in clients:
                _, said = client.communicate(timeout=DEADLINE)
                self.assertEqual(client.returncode, 0, said)
        vms = [(place, vm["name"], vm["address"]) for place in self.places for vm in place.vms().values()]
        self.assertEqual(len({address for _, _, address in vms}), 9)
        self.answer(vms)
        for place in self.places:
            self.assert_clean(place)
        # Each guest reaches the bridge of its own daemon; no ping reaches a guest or the bridge of another one. The daemon's own
        # tests try other ways.
        bridges = [(place, self.footprint(place)["bridge"][2][0]) for place in self.places]
        targets = [(place, address) for place, _, address in vms[::3]] + bridges
        for place, name, _ in vms[::3]:
            for other, address in targets:
                reached = place.run("exec", name, "--", "ping", "-c", "1", "-W", "1", address).returncode == 0
                self.assertEqual(reached, other is place, f"{name} of {place.state} and {address}")
        # The VMs of a daemon that ends run on, and so do those of the others.
        for end in ("stop_daemon", "kill_daemon"):
            place = self.random.choice(self.places)
            getattr(place, end)()
            self.answer([(other, name, address) for other, name, address in vms if other is not place])
            self.ping(vms)
            self.start(place)
            place.settled()
            self.answer(vms)
        first, *rest = self.places
        first.banger("rm", "--force", "--all")
        self.answer([vm for vm in vms if vm[0] in rest])

    def answer(self, vms):
        self.ping(vms)
        for place, name, _ in vms:
            self.assertTrue(self.ready(place, name), f"{name} of {place.state}")

    def ping(self, vms):
        for place, name, address in vms:
            said = self.net.run("ping", "-c", "3", "-i", "0.2", "-W", "5", address)
            self.assertEqual(said.returncode, 0, f"{name} of {place.state}: {said.stdout}")
