"""Guests in networks: whom they reach, whom they do not, and what they cannot pretend to be. All of it happens in network namespaces
of the test's own; what passes is judged by what arrives, what is there by ip(8), nft(8) and dig(1).
"""

import contextlib
import itertools
import json
import signal
import socket
import subprocess
import time
from pathlib import Path

import attacker
import tiny_image
from fake import FakeCase
from harness import DEADLINE, SLOT, Case, Failed, Net, claims, names

# Says yes to each TCP connection at an address and port, one after the other.
LISTENER = """
import socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print(flush=True)
while True:
    client, _ = server.accept()
    client.sendall(b"hello from " + sys.argv[3].encode() + b", " + client.getpeername()[0].encode())
    client.close()
"""

# Counts packets with a mark in them until one with the end mark has come, by any protocol, on a link that is named: those that come in
# or those that go out (packet(7): PACKET_OUTGOING is 4).
WITNESS = """
import socket, sys
link, out, mark, end = sys.argv[1], sys.argv[2] == "out", sys.argv[3].encode(), sys.argv[4].encode()
packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
packets.bind((link, 0))
packets.settimeout(60)
print(flush=True)
seen = 0
while True:
    packet, (_, _, kind, *_) = packets.recvfrom(65535)
    if out != (kind == 4):
        continue
    if end in packet:
        print(seen)
        break
    seen += mark in packet
"""

# Sends frames as they are given, in hexadecimal, out of eth0 (packet(7); AF_PACKET is 17, ETH_P_ALL 3).
SENDER = """
use Socket; socket(my $s, 17, SOCK_RAW, 0x0300) or die "socket: $!";
open(my $f, "<", "/sys/class/net/eth0/ifindex"); my $index = <$f>;
my $to = pack("SnlSCCa8", 17, 3, $index, 0, 0, 6, "");
for my $frame (@ARGV) { defined(send($s, pack("H*", $frame), 0, $to)) or die "send: $!" }
"""


def frame(mac, source, target_mac, target, payload):
    """An Ethernet frame with a UDP packet to port 9, in hexadecimal. Its UDP checksum is left out, as IPv4 allows."""
    data = payload.encode()
    udp = (9).to_bytes(2, "big") * 2 + (8 + len(data)).to_bytes(2, "big") + b"\0\0" + data
    head = b"\x45\0" + (20 + len(udp)).to_bytes(2, "big") + b"\0\0\0\0\x40\x11"
    addresses = ip(source) + ip(target)
    words = head + b"\0\0" + addresses
    total = sum(int.from_bytes(words[at : at + 2], "big") for at in range(0, 20, 2))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = (~((total & 0xFFFF) + (total >> 16)) & 0xFFFF).to_bytes(2, "big")
    return (hardware(target_mac) + hardware(mac) + b"\x08\0" + head + checksum + addresses + udp).hex()


def arp(mac, says_mac, says, asks, payload):
    """A request that tells everybody that an address is at a hardware address, with a mark behind it."""
    body = b"\0\1\x08\0\6\4\0\1" + hardware(says_mac) + ip(says) + bytes(6) + ip(asks)
    return (b"\xff" * 6 + hardware(mac) + b"\x08\x06" + body + payload.encode()).hex()


def ip(address):
    return bytes(map(int, address.split(".")))


def hardware(address):
    return bytes.fromhex(address.replace(":", ""))


class Reach(Case):
    """Two guests that reach everybody, one that is kept apart, a world behind the host and a host with a service of its own."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.net = cls.place.net
        cls.world = Net()
        cls.addClassCleanup(cls.world.close)
        cls.ends = contextlib.ExitStack()
        cls.addClassCleanup(cls.ends.close)
        # Before the first VM, so that it is an uplink then.
        with cls.world_process() as holder:
            cls.net.ask("ip", "link", "add", "up0", "type", "veth", "peer", "name", "w0", "netns", holder.pid)
        for net, link, address in ((cls.net, "up0", "192.0.2.2/24"), (cls.world, "w0", "192.0.2.1/24")):
            net.ask("ip", "address", "add", address, "dev", link)
            net.ask("ip", "link", "set", link, "up")
        cls.net.ask("ip", "route", "add", "default", "via", "192.0.2.1")
        cls.listen(cls.world, "192.0.2.1", 80, "world")
        cls.listen(cls.net, "127.0.0.1", 8080, "loopback")
        cls.listen(cls.net, "0.0.0.0", 8081, "host")
        made = {"a": "nat", "b": "nat", "apart": "isolated", "apart2": "isolated", "alone": "none"}
        published = {"b": "0.0.0.0:9080:80", "apart": "0.0.0.0:9081:80"}
        for name, net in made.items():
            publish = ["--publish", published[name]] if name in published else []
            cls.place.banger("create", "--net", net, *publish, name)
        cls.vms = cls.place.vms()
        for name in ("b", "apart", "apart2"):
            cls.place.banger("exec", name, "-d", "--", "perl", "-MIO::Socket", "-e", SAY_HELLO)
            deadline = time.monotonic() + DEADLINE
            while 80 not in {port["port"] for port in cls.place.json("ports", name)}:
                if time.monotonic() > deadline:
                    raise Failed(f"nothing listens in {name}")

    @classmethod
    def tearDownClass(cls):
        for name in cls.place.vms():
            cls.place.banger("rm", "--force", name)
        cls.net.ask("ip", "link", "delete", "up0")
        cls.ends.close()
        super().tearDownClass()

    @classmethod
    @contextlib.contextmanager
    def world_process(cls):
        holder = cls.world.start("cat", stdin=subprocess.PIPE)
        yield holder
        holder.communicate()

    @classmethod
    def listen(cls, net, address, port, name):
        cls.ends.enter_context(started(net, LISTENER, address, port, name))

    def connect(self, name, address, port):
        """What a TCP connection from a guest says, or nothing."""
        script = f'exec 3<>/dev/tcp/{address}/{port} && cat <&3'
        result = self.place.run("exec", name, "--", "timeout", "2", "bash", "-c", script)
        return result.stdout

    def test_guests_reach_each_other_the_host_and_the_world_by_name(self):
        address = self.vms["a"]["address"]
        self.assertEqual(self.connect("a", "b.vm", 80), f"hello from b, {address}")
        self.assertEqual(self.connect("a", "b", 80), f"hello from b, {address}")
        self.assertEqual(self.connect("a", "host.vm", 8081), f"hello from host, {address}")
        # The world sees the host.
        self.assertEqual(self.connect("a", "192.0.2.1", 80), "hello from world, 192.0.2.2")
        self.assertEqual(self.connect("alone", "192.0.2.1", 80), "")
        self.assertEqual(self.place.shell("alone", "ls /sys/class/net"), "lo")

    def test_one_that_is_kept_apart_reaches_names_only(self):
        self.assertEqual(self.place.shell("apart", "getent hosts b.vm").split(), [self.vms["b"]["address"], "b.vm"])
        for address, port in ((self.vms["b"]["address"], 80), ("host.vm", 8081), ("192.0.2.1", 80)):
            self.assertEqual(self.connect("apart", address, port), "", address)
        # Nor is it reached by another guest; the host may.
        self.assertEqual(self.connect("a", "apart.vm", 80), "")
        self.assertEqual(self.ask_from_host(self.vms["apart"]["address"]), f"hello from apart, {self.gateway()}")

    def test_a_port_of_one_that_is_kept_apart_can_be_published(self):
        script = "exec 3<>/dev/tcp/192.0.2.2/9081 && cat <&3"
        self.assertIn("hello from apart", self.world.ask("timeout", DEADLINE, "bash", "-c", script))

    def test_no_way_of_a_guests_own_leads_around_its_mode(self):
        bridge = self.net.links()["banger0"]["address"]
        gateway = self.gateway()
        address = {name: vm.get("address") for name, vm in self.vms.items()}
        mac = {name: self.place.shell(name, "cat /sys/class/net/eth0/address") for name in address if address[name]}
        # Each target's address, and the ports where it listens with TCP and UDP.
        udp = attacker.UDP_PORT
        targets = {
            "b": (address["b"], 80, udp),
            "apart": (address["apart"], 80, udp),
            "apart2": (address["apart2"], 80, udp),
            "host": (gateway, 8081, udp),
            "host's LAN address": ("192.0.2.2", 8081, udp),
            "published port of b": (gateway, 9080, None),
            "published port of apart": (gateway, 9081, None),
            "published port of b at the LAN address": ("192.0.2.2", 9080, None),
            "world": ("192.0.2.1", 80, None),
        }
        guests = [name for name in address if address[name]]
        others = {name: {address[other]: mac[other] for other in guests if other != name} for name in guests}
        outside = {"192.0.2.1": bridge, "192.0.2.2": bridge}
        own_way = {
            "bridge": lambda name: attacker.over_bridge({**others[name], **outside, gateway: bridge}),
            "host": lambda name: attacker.by_host([*others[name], *outside], gateway),
        }
        own_way["link"] = lambda name: attacker.over_bridge({at: attacker.LINK_LOCAL for at in [*others[name], *outside, gateway]})
        for called, ways in ((0, ("bridge", "host", "link")), (1, ("bridge", "host"))):
            self.call_iptables(called)
            for way in ways:
                # Answers take the same way.
                for name in guests:
                    self.place.banger("exec", name, "--", "bash", "-c", own_way[way](name))
                with self.subTest(called=called, way=way):
                    arrived = self.attempted(way, targets, tcp=way != "link")
                    if way != "link":
                        expected = {(*pair, "TCP") for pair, verdict in attacker.VERDICTS.items() if verdict[way == "host"]}
                        expected |= {(name, to, "UDP") for name, to, _ in expected if targets[to][2]}
                        self.assertEqual(arrived, expected)
                    else:
                        may = {(*pair, "UDP") for pair, verdict in attacker.VERDICTS.items() if verdict[0]}
                        self.assertLessEqual(arrived, may)
            # The host tells no guest a shorter way to another.
            for name in guests:
                self.assertNotIn("InType5", self.place.shell(name, "cat /proc/net/snmp"))
        for name in guests:
            self.place.shell(name, "for address in " + " ".join([*others[name], *outside, gateway])
                + "; do ip route delete $address/32 || :; ip neighbour delete $address dev eth0 || :; done")  # fmt: skip

    def attempted(self, way, targets, tcp):
        """What arrives, and is answered, when each kind of guest sends to all targets: the sender, the target, the protocol."""
        arrived = set()
        with contextlib.ExitStack() as stack:
            receivers = {}
            for name in ("b", "apart", "apart2", "host"):
                words = ["perl", "-MIO::Socket", "-e", attacker.PERL_RECEIVER]
                receiver = (
                    self.net.start(*words, stdout=subprocess.PIPE, text=True)
                    if name == "host"
                    else self.place.start("exec", name, "--", *words, text=True)
                )
                stack.callback(receiver.communicate)
                stack.callback(receiver.kill)
                if receiver.stdout.readline() != "\n":
                    raise Failed(f"nothing receives at {name}")
                receivers[name] = receiver
            for name in ("a", "apart", "alone"):
                wanted = {to: (at, tcp and port, udp) for to, (at, port, udp) in targets.items() if (name, to) in attacker.VERDICTS}
                perl = ["perl", "-MIO::Socket", "-MIO::Select", "-e", attacker.PERL_ATTACK]
                said = self.place.run("exec", name, "--", *perl, *attacker.attack(name, way, wanted))
                for line in said.stdout.splitlines():
                    to, text = line.split("|", 1)
                    if text.startswith("hello from "):
                        arrived.add((name, to, "TCP"))
            for name, receiver in receivers.items():
                # The host reaches all of them.
                end = "127.0.0.1" if name == "host" else self.vms[name]["address"]
                self.net.ask("bash", "-c", f"echo -n 'THE END' >/dev/udp/{end}/{attacker.UDP_PORT}")
                for line in iter(receiver.stdout.readline, "THE END\n"):
                    if not line:
                        raise Failed(f"the receiver at {name} has ended")
                    _, name_of_sender, to = line.rstrip("\n").split("|")
                    arrived.add((name_of_sender, to, "UDP"))
        return arrived

    def test_nobody_reaches_what_the_host_keeps_to_itself(self):
        for name in ("a", "apart"):
            for address in ("127.0.0.1", self.gateway(), "192.0.2.2"):
                self.assertEqual(self.connect(name, address, 8080), "", address)
                self.assertEqual(self.connect(name, address, 42069), "", address)
        # By a route of its own to the host's loopback addresses, too.
        self.place.shell("a", f"ip route add 127.0.0.2/32 via {self.gateway()} || :; sysctl -qw net.ipv4.conf.all.route_localnet=1")
        self.assertEqual(self.connect("a", "127.0.0.2", 8080), "")
        # The other address of the host is not a way around either.
        self.assertEqual(self.connect("a", "192.0.2.2", 8081), "")

    def test_a_guest_is_only_itself(self):
        a, b = self.vms["a"]["address"], self.vms["b"]["address"]
        mac = {name: self.place.shell(name, "cat /sys/class/net/eth0/address") for name in ("a", "b")}
        tap = (self.place.runtime / "vms" / self.vms["b"]["id"] / "tap").read_text()
        # To the host, where it comes in by the bridge; and to another guest, where it goes out by that one's TAP.
        to_host = (self.net.links()["banger0"]["address"], self.gateway(), ("banger0", "in"))
        to_guest = (mac["b"], b, (tap, "out"))
        for called, (target_mac, target, link) in itertools.product((0, 1), (to_host, to_guest)):
            forged = {
                "another's hardware address": frame(mac["b"], a, target_mac, target, "FORGED"),
                "another's address": frame(mac["a"], b, target_mac, target, "FORGED"),
                "both of another's": frame(mac["b"], b, target_mac, target, "FORGED"),
                "an address outside": frame(mac["a"], "198.51.100.1", target_mac, "192.0.2.1", "FORGED"),
                "another's ARP": arp(mac["a"], mac["a"], b, target, "FORGED"),
                "the host's ARP": arp(mac["a"], mac["a"], self.gateway(), b, "FORGED"),
                "ARP under another's hardware address": arp(mac["b"], mac["a"], a, target, "FORGED"),
                "ARP that tells another's hardware address": arp(mac["a"], mac["b"], a, target, "FORGED"),
                "IPv6": (hardware(target_mac) + hardware(mac["a"]) + b"\x86\xdd" + b"FORGED" * 10).hex(),
                "a VLAN": (hardware(target_mac) + hardware(mac["a"]) + b"\x81\0\0\1\x08\0" + b"FORGED" * 10).hex(),
            }
            genuine = frame(mac["a"], a, target_mac, target, "FORGED")
            six = (hardware(target_mac) + hardware(mac["a"]) + b"\x86\xdd\x60" + b"FORGED" * 10).hex()
            for tag in ("81000000", "81000005", "88a80005", "8100000081000005"):
                forged[f"IPv4 behind the tag {tag}"] = genuine[:24] + tag + genuine[24:]
                forged[f"IPv6 behind the tag {tag}"] = six[:24] + tag + six[24:]
            true = frame(mac["a"], a, target_mac, target, "GENUINE")
            true_arp = arp(mac["a"], mac["a"], a, target, "GENUINE")
            end = frame(mac["a"], a, target_mac, target, "THE END")
            self.call_iptables(called)
            with self.subTest(called=called, link=link):
                with started(self.net, WITNESS, *link, "FORGED", "THE END") as witness:
                    self.place.banger("exec", "a", "--", "perl", "-e", SENDER, *forged.values(), end)
                    self.assertEqual(witness.communicate(timeout=DEADLINE)[0], "0\n")
                # That the witness has eyes: the true ones arrive, ARP among them.
                with started(self.net, WITNESS, *link, "GENUINE", "THE END") as witness:
                    self.place.banger("exec", "a", "--", "perl", "-e", SENDER, true, true_arp, end)
                    self.assertEqual(witness.communicate(timeout=DEADLINE)[0], "2\n")
                self.assertEqual(self.connect("a", "b.vm", 80), f"hello from b, {a}")
                self.assertEqual(self.connect("a", "192.0.2.1", 80), "hello from world, 192.0.2.2")
                self.assertEqual(self.connect("a", "apart.vm", 80), "")

    def test_names_are_those_of_now(self):
        def dig(*words):
            return self.net.ask("dig", "@127.0.0.1", "-p", "42069", "+tries=1", *words)

        b = self.vms["b"]["address"]
        backwards = ".".join(reversed(b.split("."))) + ".in-addr.arpa"
        self.assertEqual(dig("+short", "b.vm"), f"{b}\n")
        self.assertEqual(dig("+short", "+tcp", "b.vm"), f"{b}\n")
        self.assertEqual(dig("+short", "www.b.vm"), f"{b}\n")
        self.assertEqual(dig("+short", "-x", b), "b.vm.\n")
        self.assertEqual(dig("+short", "host.vm"), f"{self.gateway()}\n")
        self.assertIn("status: NXDOMAIN", dig("nobody.vm"))
        self.assertIn("status: REFUSED", dig("example.org"))
        self.assertIn("status: NOERROR", dig("AAAA", "b.vm"))
        self.place.banger("rename", "b", "c")
        try:
            self.assertEqual(dig("+short", "c.vm"), f"{b}\n")
            self.assertIn("status: NXDOMAIN", dig("b.vm"))
            self.assertEqual(dig("+short", backwards, "PTR"), "c.vm.\n")
            self.assertEqual(self.place.shell("a", "getent hosts c").split()[0], b)
        finally:
            self.place.banger("rename", "c", "b")
        # Of a stopped one, too: where it will be. Gone with it, and back with it.
        self.place.banger("create", "--stopped", "later")
        later = dig("+short", "later.vm")
        self.assertNotEqual(later, "")
        self.place.banger("rm", "later")
        self.assertIn("status: NXDOMAIN", dig("later.vm"))
        self.place.banger("create", "--stopped", "other")
        self.place.banger("create", "--stopped", "later")
        self.assertEqual(dig("+short", "later.vm"), later)
        self.place.banger("rm", "later", "other")

    def gateway(self):
        return self.net.json("ip", "-j", "-4", "address", "show", "banger0")[0]["addr_info"][0]["local"]

    def ask_from_host(self, address):
        return self.net.ask("bash", "-c", f"exec 3<>/dev/tcp/{address}/80 && cat <&3")

    def call_iptables(self, called):
        """Whether what a bridge passes on is shown to the chains of the host's own traffic, as Docker wants it."""
        switch = "/proc/sys/net/bridge/bridge-nf-call-iptables"
        if not Path(switch).exists():
            self.skipTest("the kernel has no br_netfilter")
        self.net.ask("sh", "-c", f"echo {called} >{switch}")


# In a guest: says who it is, on port 80.
SAY_HELLO = """
my $server = IO::Socket::INET->new(LocalPort => 80, Listen => 8, ReuseAddr => 1) or die $!;
chomp(my $name = `hostname`);
while (my $client = $server->accept) { print $client "hello from $name, " . $client->peerhost; close $client }
"""


@contextlib.contextmanager
def started(net, program, *words):
    """A Python program in a network, once it has said that it is ready; ended with the block."""
    popen = net.start("python3", "-c", program, *map(str, words), stdout=subprocess.PIPE, text=True)
    try:
        if popen.stdout.readline() != "\n":
            raise Failed(f"{words} does not begin")
        yield popen
    finally:
        popen.kill()
        popen.communicate()


class Leases(FakeCase):
    """What many VMs leave of addresses, TAPs and rules, with the fake VMM."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.net = cls.place.net
        cls.place.banger("create", "--net", "nat", "first")

    def test_two_hundred_leave_nothing(self):
        self.place.banger("rm", "--force", "first")
        before = self.there()
        for number in range(200):
            self.place.banger("create", "--net", "nat" if number % 2 else "isolated", f"vm{number % 7}")
            if number % 7 == 6:
                self.place.banger("rm", "--force", *(f"vm{number}" for number in range(7)))
        self.place.banger("rm", "--force", "--all")
        self.becomes(before)
        self.place.banger("create", "--net", "nat", "first")

    def test_an_address_belongs_to_a_name(self):
        first = self.address("first")
        self.place.banger("rename", "first", "moved")
        self.assertEqual(self.address("moved"), first)
        self.place.banger("create", "--net", "nat", "first")
        self.assertNotEqual(self.address("first"), first)
        self.place.banger("rm", "--force", "first")
        self.place.banger("rename", "moved", "first")
        self.place.banger("rm", "--force", "first")
        self.place.banger("create", "--net", "nat", "another")
        self.place.banger("create", "--net", "nat", "first")
        self.assertEqual(self.address("first"), first)
        self.place.banger("rm", "--force", "another")

    def test_a_daemon_that_is_killed_leaves_the_same(self):
        self.place.banger("create", "--net", "isolated", "second")
        rules, links = self.rules(), self.links()
        for _ in range(3):
            self.place.kill_daemon()
            self.assertEqual(self.rules(), rules, "guests are without their rules until the next daemon comes")
            self.place.start_daemon(*self.args)
            self.place.settled()
            self.place.banger("create", "--net", "nat", "third")
            self.place.banger("rm", "--force", "third")
            self.becomes((rules, links))
        self.place.banger("rm", "--force", "second")

    def test_bad_input_is_told_and_leaves_nothing(self):
        names = set(self.place.vms())
        for name in ("10.0.0.1", "devbox.vm", "host"):
            result = self.place.run("create", name)
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertIn(f"invalid value '{name}'", result.stderr)
            self.assertIn("help: ", result.stderr)
        self.assertEqual(set(self.place.vms()), names)

    def address(self, name):
        return self.place.vms()[name]["address"]

    def becomes(self, expected):
        """TAPs are made and removed behind, so that it is looked at until it is so, each time by whole commands."""
        deadline = time.monotonic() + DEADLINE
        while self.there() != expected and time.monotonic() < deadline:
            pass
        self.assertEqual(self.there(), expected)

    def there(self):
        return self.rules(), self.links()

    def rules(self):
        """All rules, without the numbers that the kernel gives them."""
        listed = self.net.json("nft", "-j", "list", "ruleset")["nftables"]
        return json.dumps([without_handles(entry) for entry in listed], sort_keys=True)

    def links(self):
        return sorted(self.net.links())


def without_handles(entry):
    if isinstance(entry, dict):
        return {key: without_handles(value) for key, value in entry.items() if key != "handle"}
    if isinstance(entry, list):
        return [without_handles(value) for value in entry]
    return entry


class Refused(FakeCase):
    """What stands against a network is told, and nothing is half made."""

    def refused(self, cause, help, *args):
        before = self.place.net.links()
        result = self.place.run("create", "--net", "nat", *args, "one")
        self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
        self.assertIn(cause, result.stderr)
        self.assertIn(help, result.stderr)
        self.assertEqual(self.place.vms(), {})
        self.assertEqual(names(self.place.state / "vms"), set())
        self.assertEqual(set(self.place.net.links()), set(before))

    def anew(self, script=()):
        """The daemon anew, behind a shell script that changes what it meets on this host, for itself alone."""
        self.place.stop_daemon()
        self.place.start_daemon(*self.args, inside=script)

    def stand_in(self, script):
        """A script in nft's place."""
        path = self.place.runtime_root / "nft"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        self.anew(f"cp /usr/sbin/nft {path}.real; mount --bind {path} /usr/sbin/nft")

    def test_nft_is_missing(self):
        hidden = self.place.runtime_root / "sbin"
        hidden.mkdir()
        self.anew(f"""
            mount -t tmpfs hidden {hidden}; mkdir {hidden}/there {hidden}/shown; mount --bind /usr/sbin {hidden}/there
            for program in {hidden}/there/*; do ln -s $program {hidden}/shown; done
            rm {hidden}/shown/nft; mount --bind {hidden}/shown /usr/sbin
        """)
        self.refused("nft is not installed", "apt install nftables")
        finding = self.place.finding("nft")
        self.assertEqual((finding["verdict"], finding["fix"]), ("warn", "install it: apt install nftables"))
        self.anew()

    def test_nft_lists_no_json(self):
        self.stand_in(f"""case $* in *-j*) echo "Error: JSON support not compiled-in" >&2; exit 1;; esac
            exec {self.place.runtime_root}/nft.real "$@" """)
        self.refused("Error: JSON support not compiled-in", "install nftables 0.9.8 or newer, built with JSON")
        self.assertIn("JSON support not compiled-in", self.place.finding("nft")["found"])
        self.anew()

    def test_nft_is_too_old(self):
        self.stand_in(f"""script=$(cat); case $script in *typeof*)
            echo "/dev/stdin:4:18-23: Error: syntax error, unexpected string" >&2; exit 1;; esac
            echo "$script" | exec {self.place.runtime_root}/nft.real "$@" """)
        self.refused("syntax error, unexpected string", "install nftables 0.9.8 or newer")
        self.assertIn("syntax error", self.place.finding("nft")["found"])
        self.anew()

    def test_no_right_to_change_the_network(self):
        self.anew('set -- setpriv --bounding-set=-net_admin --inh-caps=-net_admin "$@"')
        self.refused("Operation not permitted", "run the daemon as root")
        self.assertIn("run the daemon as root", self.place.finding("nft")["fix"])
        self.place.banger("create", "--net", "none", "one")
        self.place.banger("rm", "--force", "one")
        self.anew()

    def test_no_device_for_taps(self):
        self.anew("mount --bind /dev/null /dev/net/tun")
        self.refused("cannot make the network device banger-carrier", "modprobe tun")
        self.anew()

    def with_config(self, more):
        self.place.stop_daemon()
        Path(self.place.environment["BANGER_CONFIG"]).write_text(tiny_image.CONFIG + more)
        self.place.start_daemon(*self.args)

    def test_a_bridge_of_somebody_elses(self):
        # A daemon that may take any slot takes the next one; see test_grounds.py.
        net = self.place.net
        self.with_config(f"[ground]\nslot = {SLOT}\n")
        net.ask("ip", "link", "add", f"banger{SLOT}", "type", "bridge")
        self.refused(f"banger{SLOT} is not this daemon's: it is a bridge with the hardware address", "set `slot` below `[ground]`")
        net.ask("ip", "link", "delete", f"banger{SLOT}")
        self.with_config("")
        self.place.banger("create", "--net", "nat", "one")
        self.place.banger("rm", "--force", "one")

    def test_a_subnet_of_somebody_elses(self):
        net = self.place.net
        net.ask("ip", "link", "add", "other0", "type", "bridge")
        net.ask("ip", "address", "add", "10.99.0.1/25", "dev", "other0")
        self.with_config("[network]\nsubnet = '10.99.0.0/24'\n")
        self.refused("10.99.0.0/24 is in use: other0", "another subnet")
        net.ask("ip", "link", "delete", "other0")
        self.with_config("")

    def test_more_machines_than_addresses(self):
        self.with_config("[network]\nsubnet = '10.99.0.0/29'\n")
        made = []
        while self.place.run("create", "--net", "nat", f"vm{len(made)}").returncode == 0:
            made.append(f"vm{len(made)}")
        self.assertEqual(len(made), 5)
        result = self.place.run("create", "--net", "nat", "more")
        self.assertIn("every address of 10.99.0.0/29 is a VM's", result.stderr)
        self.assertIn("[network] subnet", result.stderr)
        self.assertEqual(sorted(self.place.vms()), made)
        self.assertLessEqual(set(made), {lease["name"] for lease in self.place.json("network", "ls")["leases"]})
        # An address of one that is gone is the next one's, when there is no other.
        self.place.banger("rm", "--force", "vm0")
        self.place.banger("create", "--net", "nat", "more")
        self.place.banger("rm", "--force", "--all")
        self.place.banger("network", "forget", "more")
        self.assertNotIn("more", {lease["name"] for lease in self.place.json("network", "ls")["leases"]})
        self.assertIn("no address belongs to more", self.place.run("network", "forget", "more").stderr)
        self.with_config("")


class Verify(FakeCase):
    """Everything that somebody plants on banger's ground is named; without that there is nothing to name."""

    def oddities(self):
        return {(oddity["problem"], oddity["kind"], oddity["which"]) for oddity in self.place.oddities()}

    def test_nothing_of_bangers_is_odd(self):
        self.assertEqual(self.oddities(), set())
        for number in range(20):
            self.place.banger("create", "--net", "isolated" if number % 2 else "nat", f"vm{number}")
            self.assertEqual(self.oddities(), set())
            if number % 3 == 0:
                self.place.banger("stop", f"vm{number}")
            if number % 3 == 1:
                self.place.kill_daemon()
                self.place.start_daemon(*self.args)
                self.place.settled()
        self.assertEqual(self.oddities(), set())
        self.place.banger("rm", "--force", "--all")
        self.assertEqual(self.oddities(), set())

    def test_whatever_is_planted_is_named(self):
        place, net = self.place, self.place.net
        place.banger("create", "--net", "nat", "one")
        place.banger("rm", "--force", "one")
        self.assertEqual(self.oddities(), set())
        net.ask("ip", "tuntap", "add", "tap-pool-x", "mode", "tap")
        net.ask("ip", "link", "add", "guest0", "type", "bridge")
        net.ask("ip", "link", "set", "guest0", "name", "stray0")
        self.assertEqual(self.oddities(), {("foreign", "link", "tap-pool-x")})
        net.ask("ip", "link", "delete", "tap-pool-x")
        net.ask("ip", "link", "delete", "stray0")
        net.ask("nft", "add", "rule", "inet", "banger", "forward", "counter", "accept")
        self.assertEqual(self.oddities(), {("foreign", "rule", "inet banger forward")})
        handle = next(
            entry["rule"]["handle"] for entry in reversed(net.json("nft", "-j", "list", "chain", "inet", "banger", "forward")["nftables"])
            if "rule" in entry
        )  # fmt: skip
        net.ask("nft", "delete", "rule", "inet", "banger", "forward", "handle", handle)
        stray, left = place.state / "stray", place.runtime / "vms/nobody"
        stray.write_text("")
        left.mkdir()
        self.assertEqual(self.oddities(), {("foreign", "file", str(stray)), ("leak", "file", str(left))})
        stray.unlink()
        left.rmdir()
        # Another daemon on this host may have the first slot.
        user = str(int(claims()[str(place.state)]["first-uid"]) + 7)
        words = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "cat"]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.read(1)
        self.assertEqual(self.oddities(), {("foreign", "process", str(process.pid))})
        process.communicate()
        self.assertEqual(self.oddities(), set())

    def test_a_mount_is_named(self):
        place = self.place
        place.stop_daemon()
        place.start_daemon(*self.args, inside=f"mount -t tmpfs stray {place.state}/logs")
        self.assertEqual(self.oddities(), {("foreign", "mount", f"{place.state}/logs")})
        place.stop_daemon()
        place.start_daemon(*self.args)
        self.assertEqual(self.oddities(), set())


class Ports(FakeCase):
    """Ports that lead to guests, which here are agents in the network of the test's own."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.ends = contextlib.ExitStack()
        cls.addClassCleanup(cls.ends.close)
        cls.ends.enter_context(started(cls.place.net, LISTENER, "127.0.0.1", 8000, "inside"))

    @classmethod
    def tearDownClass(cls):
        cls.ends.close()
        super().tearDownClass()

    def published(self, port):
        """What a published port says; the daemon listens in the network of the test's own."""
        return self.place.net.run("timeout", "5", "bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port} && cat <&3").stdout

    def test_what_listens_is_shown(self):
        self.place.banger("create", "seen", "--publish", "9000:8000")
        ports = {port["port"]: port for port in self.place.json("ports", "seen")}
        self.assertEqual(ports[8000]["process"], "python3")
        self.assertEqual(ports[8000]["addresses"], ["127.0.0.1"])
        self.assertEqual(ports[8000]["published_at"], ["127.0.0.1:9000"])
        self.assertIn("http://127.0.0.1:9000", self.place.banger("ports", "seen"))
        self.place.banger("rm", "--force", "seen")

    def test_a_port_is_published_while_its_machine_runs(self):
        place = self.place
        place.banger("create", "-p", "9001:8000", "open")
        self.assertEqual(self.published(9001), "hello from inside, 127.0.0.1")
        for attempted in ("other", "another"):
            result = place.run("create", "-p", "9002:8000", "-p", "9001:8000", attempted)
            self.assertEqual(result.returncode, 1)
            self.assertIn("cannot publish a port at 127.0.0.1:9001", result.stderr)
            self.assertIn("ss -lntp", result.stderr)
        self.assertEqual(sorted(place.vms()), ["open"])
        place.kill_daemon()
        place.start_daemon(*self.args)
        place.settled()
        place.banger("exec", "open", "--", "true")
        self.assertEqual(self.published(9001), "hello from inside, 127.0.0.1")
        place.banger("stop", "open")
        self.assertEqual(self.published(9001), "")
        place.banger("start", "open")
        self.assertEqual(self.published(9001), "hello from inside, 127.0.0.1")
        place.banger("rm", "--force", "open")
        self.assertEqual(self.published(9001), "")

    def test_a_port_is_forwarded_until_it_is_interrupted(self):
        place = self.place
        place.banger("create", "led")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            result = place.run("forward", "led", f"{port}:8000")
            self.assertEqual(result.returncode, 1)
            self.assertIn(f"cannot listen at 127.0.0.1:{port}", result.stderr)
        forward = place.start("forward", "led", f"{port}:8000", text=True)
        try:
            self.assertIn(f"127.0.0.1:{port} leads to port 8000 of led", forward.stderr.readline())
            for _ in range(3):
                with socket.create_connection(("127.0.0.1", port), DEADLINE) as client:
                    self.assertEqual(client.makefile().read(), "hello from inside, 127.0.0.1")
        finally:
            forward.send_signal(signal.SIGINT)
            forward.communicate()
        self.assertEqual(forward.returncode, 130)
        self.assertIn("there is no VM nobody", place.run("forward", "nobody", "9000").stderr)
        place.banger("rm", "--force", "led")
