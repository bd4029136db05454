"""Names of machines, as this host's programs find them: dig(1), resolvectl(1) and getent(1) judge, on a host of the test's own with the
real systemd-resolved. Guests are fake ones, which do not use the card that they have.
"""

import contextlib
import json
import re
import subprocess
import time

from fake import FakeCase
from harness import DEADLINE, Failed
from resolver import ResolvedHost

SERVER = ("@127.0.0.1", "-p", "42069")
STUB = ("@127.0.0.53",)
HOSTS = "127.0.0.1 localhost\n# the last line has no end"

# Has the port until its standard input ends.
TAKE = """
import socket, sys
taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
taken.bind(("127.0.0.1", 42069))
print("taken", flush=True)
sys.stdin.read()
"""


class DnsCase(FakeCase):
    make_net = ResolvedHost

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.net = cls.place.net

    @classmethod
    def tearDownClass(cls):
        for name in cls.place.vms():
            cls.place.banger("rm", "--force", name)
        cls.place.banger("dns", "uninstall")
        cls.net.stop_resolved()
        super().tearDownClass()

    def setUp(self):
        self.net.start_resolved()
        self.addCleanup(self.clean)
        self.write("/etc/resolv.conf", "nameserver 127.0.0.53\n")
        self.write("/etc/hosts", HOSTS)
        self.place.banger("create", "--net", "nat", "a")

    def clean(self):
        self.place.banger("rm", "--force", "--all")
        self.place.banger("dns", "uninstall")
        self.net.stop_resolved()

    # What is asked.

    def dig(self, *words):
        """The addresses or names of an answer, as one text."""
        return " ".join(self.net.ask("dig", "+short", "+tries=1", "+timeout=5", *words).split())

    def dig_code(self, *words):
        said = self.net.ask("dig", "+noall", "+comments", "+tries=1", "+timeout=5", *words)
        return said.split("status: ")[1].split(",")[0]

    def address(self, name="a"):
        return self.place.vms()[name]["address"]

    def host(self):
        return self.net.json("ip", "-j", "-4", "address", "show", "dev", "banger0")[0]["addr_info"][0]["local"]

    def status(self):
        result = self.place.run("-o", "json", "dns", "status")
        status = json.loads(result.stdout)
        self.assertEqual(result.returncode, 0 if status["resolves"] else 1)
        return status

    def refused(self, *words, cause):
        result = self.place.run("dns", "install", *words)
        self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
        error = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        self.assertEqual(len(error), 1, result.stderr)
        self.assertIn(cause, error[0])
        self.assertIn("\nhelp: ", result.stderr)
        self.assertEqual(self.status()["wired"], "none")
        return result.stderr

    def write(self, path, text):
        """In place: it is a mount point."""
        self.net.ask("sh", "-c", 'cat >"$1"', "sh", path, input=text)

    def restart(self):
        self.place.stop_daemon()
        self.place.start_daemon(*self.args)

    def until(self, found, ask):
        """Asks again and again, each time by a whole command, for want of an event that says so."""
        end = time.monotonic() + DEADLINE
        while (now := ask()) != found:
            if time.monotonic() > end:
                self.fail(f"it stays {now!r} and does not become {found!r}")


class Server(DnsCase):
    """What the server itself says."""

    def test_names_below_them_reverse_names_and_none(self):
        a, host = self.address(), self.host()
        for name in ("a.vm", "A.VM", "www.a.vm", "x.y.a.vm"):
            self.assertEqual(self.dig(*SERVER, name), a)
            self.assertEqual(self.dig(*SERVER, "+tcp", name), a)
        self.assertEqual(self.dig(*SERVER, "host.vm"), host)
        self.assertEqual(self.dig(*SERVER, "-x", a), "a.vm.")
        self.assertEqual(self.dig(*SERVER, "-x", host), "host.vm.")
        self.assertEqual(self.dig_code(*SERVER, "b.vm"), "NXDOMAIN")
        self.assertEqual(self.dig_code(*SERVER, "a.vm", "AAAA"), "NOERROR")
        self.assertEqual(self.dig_code(*SERVER, "example.org"), "REFUSED")

    def test_a_name_goes_with_its_machine(self):
        a = self.address()
        self.place.banger("rename", "a", "moved")
        self.assertEqual((self.dig(*SERVER, "moved.vm"), self.dig_code(*SERVER, "a.vm")), (a, "NXDOMAIN"))
        self.assertEqual(self.dig(*SERVER, "-x", a), "moved.vm.")
        self.place.banger("rm", "--force", "moved")
        self.assertEqual(self.dig_code(*SERVER, "moved.vm"), "NXDOMAIN")
        self.assertEqual(self.dig_code(*SERVER, "-x", a), "NXDOMAIN")


class Resolved(DnsCase):
    """systemd-resolved asks the daemon."""

    def test_programs_find_machines_also_when_none_runs(self):
        a, host = self.address(), self.host()
        self.assertEqual(self.status()["wired"], "none")
        for _ in range(2):
            self.place.banger("dns", "install")
            self.assert_found(a, host)
        settings = self.net.ask("resolvectl", "status", "banger0")
        self.assertIn("127.0.0.1:42069", settings)
        for setting in ("-DefaultRoute", "-LLMNR", "-mDNS", "-DNSOverTLS", "DNSSEC=no"):
            self.assertIn(setting, settings)
        self.place.banger("stop", "a")
        self.assert_found(a, host)
        self.place.banger("rm", "a")
        self.net.ask("resolvectl", "flush-caches")
        self.assertEqual((self.dig_code(*STUB, "a.vm"), self.dig(*STUB, "host.vm")), ("NXDOMAIN", host))
        for _ in range(2):
            self.place.banger("dns", "uninstall")
            self.assert_not_found()

    def test_a_bridge_that_is_made_anew_is_set_up_anew(self):
        self.place.banger("dns", "install")
        before = self.net.links()["banger0"]["ifindex"]
        self.net.ask("ip", "link", "delete", "banger0")
        self.until(True, lambda: self.net.links().get("banger0", {}).get("ifindex", before) != before)
        self.until(True, lambda: self.status()["resolves"])
        # After the last VM the network goes with the daemon, and comes with it as no VM wants it.
        self.place.banger("rm", "--force", "a")
        self.place.stop_daemon()
        self.assertEqual(list(self.net.links()), ["lo"])
        self.place.start_daemon(*self.args)
        self.until(True, lambda: self.status()["resolves"])
        self.assertEqual(self.dig(*STUB, "host.vm"), self.host())

    def test_a_resolver_that_starts_anew_still_asks(self):
        self.place.banger("dns", "install")
        self.net.stop_resolved()
        self.assertFalse(self.status()["resolves"])
        self.net.start_resolved()
        self.until(True, lambda: self.status()["resolves"])

    def test_where_programs_do_not_ask_it_that_is_said(self):
        self.write("/etc/resolv.conf", "nameserver 192.0.2.53\n")
        said = self.place.banger("dns", "install")
        self.assertIn("/etc/resolv.conf does not lead there", said)
        self.assertIn("help: ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf", said)
        self.assertFalse(self.status()["resolves"])
        self.assertIn("names", [finding["check"] for finding in self.not_right()])
        self.write("/etc/resolv.conf", "nameserver 127.0.0.53\n")
        self.assertTrue(self.status()["resolves"])
        self.assertEqual(self.not_right(), [])

    def test_without_it_the_lines_for_others_are_printed(self):
        self.net.stop_resolved()
        said = self.refused(cause="systemd-resolved does not run")
        for line in ("server=/vm/127.0.0.1#42069", "stub-addr: 127.0.0.1@42069", "resolvectl dns banger0 127.0.0.1:42069"):
            self.assertIn(line, said)
        self.assertIn("NetworkManager", said)
        self.assertIn("--hosts-file", said)

    def test_a_port_that_is_dropped_without_a_word_is_an_error_and_undone(self):
        with self.stand_in('if [ "$1" = dns ]; then set -- dns "$2" "${3%:*}"; fi'):
            said = self.refused(cause="for host.vm it has no address")
            self.assertIn("`resolvectl status`", said)
            self.assertNotIn("127.0.0.1", self.net.ask("resolvectl", "status", "banger0"))
        self.assert_not_found()

    def test_one_that_is_too_old_is_not_told(self):
        with self.stand_in('if [ "$1" = --version ]; then echo "systemd 245 (245.4)"; exit; fi; [ "$1" != dns ]'):
            self.refused(cause="of systemd 245")

    def test_one_in_another_network_is_not_told(self):
        self.net.stop_resolved()
        self.net.start_resolved("unshare", "--net")
        self.refused(cause="in another network namespace")

    def test_a_port_that_is_taken_is_an_error_that_names_who_has_it(self):
        self.place.stop_daemon()
        with self.taken() as pid:
            self.place.start_daemon(*self.args)
            self.until(True, lambda: "banger0" in self.net.links())
            self.refused(cause=f"names are not answered at 127.0.0.1:42069: Address already in use; process {pid} (python3")
            self.assertIn("dns-host", [finding["check"] for finding in self.not_right()])
        self.place.banger("dns", "install")
        self.assertTrue(self.status()["resolves"])

    @contextlib.contextmanager
    def stand_in(self, script):
        """A resolvectl that does this first."""
        self.net.ask("sh", "-e", "-c", "cp /usr/bin/resolvectl /run/real; touch /run/stand-in; chmod 755 /run/stand-in")
        self.write("/run/stand-in", f'#!/bin/sh\n{script}\nexec /run/real "$@"\n')
        self.net.ask("mount", "--bind", "/run/stand-in", "/usr/bin/resolvectl")
        try:
            yield
        finally:
            self.net.ask("umount", "/usr/bin/resolvectl")

    @contextlib.contextmanager
    def taken(self):
        holder = self.net.start("python3", "-c", TAKE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if holder.stdout.readline() != "taken\n":
            raise Failed("the port cannot be taken")
        try:
            yield holder.pid
        finally:
            holder.communicate(timeout=DEADLINE)

    def not_right(self):
        findings = self.place.json("doctor")
        return [finding for finding in findings if finding["verdict"] != "pass" and finding["check"] in ("names", "dns-host", "dns-guests")]

    def assert_found(self, a, host):
        status = self.status()
        self.assertEqual((status["wired"], status["resolves"], status["address"]), ("resolved", True, host))
        for name, address in (("a.vm", a), ("www.a.vm", a), ("host.vm", host)):
            self.assertEqual(self.dig(*STUB, name), address)
        self.assertEqual(self.dig(*STUB, "-x", a), "a.vm.")
        self.assertIn(a, self.net.ask("resolvectl", "query", "--legend=no", "a.vm"))
        self.assertEqual(self.net.ask("getent", "ahostsv4", "a.vm").split()[0], a)

    def assert_not_found(self):
        status = self.status()
        self.assertEqual((status["wired"], status["resolves"]), ("none", False))
        self.net.ask("resolvectl", "flush-caches")
        self.assertNotEqual(self.dig_code(*STUB, "www.host.vm"), "NOERROR")
        self.assertNotIn("42069", self.net.ask("resolvectl", "status", "banger0"))


class HostsFile(DnsCase):
    """/etc/hosts has the names. It is a mount point here, as in containers."""

    def test_the_block_is_true_and_the_rest_stays(self):
        a, host = self.address(), self.host()
        self.net.stop_resolved()
        said = self.place.banger("dns", "install", "--hosts-file")
        self.assertIn("www.devbox.vm", said)
        self.assertEqual(self.hosts(), self.block(host, ("a", a)))
        self.assertEqual(self.net.ask("stat", "-L", "-c", "%a %U", "/etc/hosts"), "640 root\n")
        self.assertEqual(self.net.ask("getent", "ahostsv4", "a.vm").split()[0], a)
        self.assertEqual((self.status()["wired"], self.status()["resolves"]), ("hosts_file", True))
        self.place.banger("rename", "a", "moved")
        self.until(self.block(host, ("moved", a)), self.hosts)
        self.place.banger("create", "--net", "nat", "b")
        self.until(self.block(host, ("b", self.address("b")), ("moved", a)), self.hosts)
        self.place.banger("rm", "--force", "moved")
        self.until(self.block(host, ("b", self.address("b"))), self.hosts)
        self.restart()
        self.until(self.block(host, ("b", self.address("b"))), self.hosts)
        for _ in range(2):
            self.place.banger("dns", "uninstall")
            self.assertEqual(self.hosts(), HOSTS)

    def test_either_takes_the_place_of_the_other(self):
        self.place.banger("dns", "install", "--hosts-file")
        self.place.banger("dns", "install")
        self.assertEqual((self.hosts(), self.status()["wired"]), (HOSTS, "resolved"))
        self.place.banger("dns", "install", "--hosts-file")
        self.assertIn("# banger: begin", self.hosts())
        self.assertNotIn("42069", self.net.ask("resolvectl", "status", "banger0"))

    def test_a_file_that_nobody_reads_is_an_error_and_undone(self):
        self.write("/etc/nsswitch.conf", "hosts: dns\n")
        self.addCleanup(self.write, "/etc/nsswitch.conf", "hosts: files dns\n")
        self.net.stop_resolved()
        self.refused("--hosts-file", cause="for host.vm programs are told no address")
        self.assertEqual(self.hosts(), HOSTS)

    def hosts(self):
        return self.net.read("/etc/hosts")

    def block(self, host, *names):
        lines = "".join(f"{address} {name}.vm\n" for name, address in [("host", host), *names])
        # The block says whose it is; the id is the ground's.
        owner = re.search(rf"^# banger ground [0-9a-f]{{16}} of {self.place.state}\n", self.hosts(), flags=re.M)
        self.assertIsNotNone(owner, self.hosts())
        return f"# banger: begin\n{owner[0]}{lines}# banger: end\n{HOSTS}"
