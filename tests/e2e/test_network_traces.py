"""What the network of VMs leaves on the host, and what banger says of what others do to it there."""

import subprocess
import time

from fake import FakeCase
from harness import DEADLINE, Case, Failed


class TwentyGuests(Case):
    """Real guests come and go, five at a time; in the end the host is as it was."""

    def test_they_leave_nothing(self):
        place, net = self.place, self.place.net
        place.stop_daemon()
        before = sorted(net.links()), net.ask("nft", "list", "ruleset")
        place.start_daemon()
        for turn in range(4):
            names = [f"vm{number}" for number in range(5)]
            clients = [place.start("create", "-q", "--net", "isolated" if turn % 2 else "nat", name, text=True) for name in names]
            for client in clients:
                _, said = client.communicate(timeout=DEADLINE)
                self.assertEqual(client.returncode, 0, said)
            self.assertEqual(self.place.oddities(), [])
            self.assertEqual(place.shell("vm4", "getent hosts vm0.vm").split()[0], place.vms()["vm0"]["address"])
            place.banger("rm", "--force", *names)
            self.assertEqual(self.place.oddities(), [])
            self.until_as_many_wait_as_shall()
        place.stop_daemon()
        self.assertEqual((sorted(net.links()), net.ask("nft", "list", "ruleset")), before)
        place.start_daemon()

    def until_as_many_wait_as_shall(self):
        """TAPs are made and removed behind."""
        deadline = time.monotonic() + DEADLINE
        while (waiting := sum(name.startswith("tap-pool-") for name in self.place.net.links())) != 4:
            if time.monotonic() > deadline:
                raise Failed(f"{waiting} TAPs wait")


class Doctor(FakeCase):
    """What others do to VMs' network is found, with what to do."""

    def assert_found(self, check, *words):
        finding = self.place.finding(check)
        self.assertEqual(finding["verdict"], "warn", finding)
        for word in words:
            self.assertIn(word, finding["found"])
        self.assertTrue(finding["fix"])

    def assert_passes(self, *checks):
        for check in checks:
            self.assertEqual(self.place.finding(check)["verdict"], "pass")

    def setUp(self):
        self.place.banger("create", "--net", "nat", "one")
        self.assert_passes("firewall", "subnet", "mtu", "nft")

    def tearDown(self):
        self.place.banger("rm", "--force", "one")

    def test_a_route_into_the_subnet(self):
        net = self.place.net
        subnet = self.place.vms()["one"]["address"].rsplit(".", 1)[0]
        net.ask("ip", "link", "add", "vpn0", "type", "bridge")
        net.ask("ip", "link", "set", "vpn0", "up")
        net.ask("ip", "route", "add", f"{subnet}.128/25", "dev", "vpn0")
        self.assert_found("subnet", f"{subnet}.128/25 leads over vpn0")
        net.ask("ip", "link", "delete", "vpn0")
        self.assert_passes("subnet")

    def test_a_narrow_way_to_the_world(self):
        net = self.place.net
        net.ask("ip", "link", "add", "vpn0", "mtu", "1400", "type", "bridge")
        net.ask("ip", "address", "add", "192.0.2.2/24", "dev", "vpn0")
        net.ask("ip", "link", "set", "vpn0", "up")
        net.ask("ip", "route", "add", "default", "via", "192.0.2.1")
        self.assert_found("mtu", "vpn0 takes packets of 1400 bytes")
        net.ask("ip", "link", "delete", "vpn0")
        self.assert_passes("mtu")

    def test_a_table_that_drops_and_takes_no_rule(self):
        # One that belongs to the process that made it, as firewalld's does (nft(8), the flag `owner`).
        owner = self.place.net.start("nft", "-i", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
        try:
            owner.stdin.write("table inet theirs { flags owner; chain f { type filter hook forward priority 0; policy drop; }; }\n")
            owner.stdin.flush()
            self.until("warn")
            self.assert_found("firewall", "inet theirs", "takes no rule")
        finally:
            owner.communicate(timeout=DEADLINE)
        self.until("pass")

    def test_one_that_takes_rules_is_no_trouble(self):
        net = self.place.net
        net.ask("nft", "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }")
        deadline = time.monotonic() + DEADLINE
        while net.ask("nft", "list", "table", "ip", "filter").count('comment "banger"') != 2:
            self.assertLess(time.monotonic(), deadline)
        finding = self.place.finding("firewall")
        self.assertEqual(finding["verdict"], "pass")
        self.assertIn("ip filter", finding["found"])
        net.ask("nft", "delete", "table", "ip", "filter")

    def until(self, verdict):
        deadline = time.monotonic() + DEADLINE
        while self.place.finding("firewall")["verdict"] != verdict:
            self.assertLess(time.monotonic(), deadline, verdict)
