#!/usr/bin/env python3
"""What networks cost: TAPs, rules, names and throughput. All of it happens in network namespaces of its own.

    bench/net.py [--runs N] [--json]

Everything but throughput is measured with the fake VMM, whose creates are quick enough to see some milliseconds in. Throughput is a
guest's to the host by TCP, in turns with QEMU started by hand on a plain TAP (bench/bare.py).
"""

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import report
from banger_cli import BANGER, STATE, VMS, artefacts, banger, banger_json, ensure_image, supervise
from bare import BareGuest, plain_network
from fake_fleet import FakeFleet

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from netns import Net  # noqa: E402

LEASES = 250
OFFERED = 20_000
PORT = 42069
SECONDS = 5

# Takes one connection at a port and prints how many bytes come per second, from the first one to the last.
RECEIVER = """
import socket, sys, time
server = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print(flush=True)
client, _ = server.accept()
buffer, total = bytearray(1 << 20), 0
began = None
while count := client.recv_into(buffer):
    began = began or time.perf_counter()
    total += count
print(total / (time.perf_counter() - began))
"""

# In a guest: sends zeros to a port for some seconds.
SENDER = """
my $socket = IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => $ARGV[1]) or die "connect: $!";
my $zeros = "\\0" x (1 << 20);
my $end = Time::HiRes::time() + $ARGV[2];
while (Time::HiRes::time() < $end) { syswrite($socket, $zeros) or die "write: $!" }
close $socket;
print "sent\\n";
"""


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--runs", type=int, default=5, help="pairs for throughput (5); creates are 20 times as many")
    options.add_argument("--json", action="store_true", help="print JSON instead of tables")
    given = options.parse_args()

    found = {"machine": report.machine()}
    found |= ports(given.runs * 20)
    found |= rules()
    found |= names()
    found["accelerator"], found["throughput"] = throughput(given.runs)
    if given.json:
        report.print_json(found)
    else:
        show(found)


def ports(runs):
    """Stages of creates with a pool and without, and whole creates with a network and without, in turns."""
    stages, wholes = {}, {}
    fleets = {"with": "[network]\ntaps = 4\n", "without": "[network]\ntaps = 0\n"}
    for pool, config in fleets.items():
        with FakeFleet(0, config=config, net=Net()) as fleet:
            create(fleet, "nat")
            for number in range(runs):
                for net in ("nat", "none") if number % 2 else ("none", "nat"):
                    seconds, of_stages = create(fleet, net)
                    wholes.setdefault((pool, net), []).append(seconds)
                    if net == "nat":
                        for stage in ("tap.claim", "net.rules"):
                            stages.setdefault((pool, stage), []).append(of_stages[stage])
    added = [one - other for one, other in zip(wholes["with", "nat"], wholes["with", "none"])]
    return {
        "tap.claim": stages["with", "tap.claim"],
        "tap.claim without a pool": stages["without", "tap.claim"],
        "one lease": stages["with", "net.rules"],
        "create with a network": wholes["with", "nat"],
        "create without": wholes["with", "none"],
        "what a network adds": added,
    }


def create(fleet, net):
    """The daemon's own time for a create, in all and by its stages, in seconds; the VM is gone afterwards."""
    result = fleet.ask("--timings", "--quiet", "-o", "json", "create", "--net", net, "bench")
    timings = json.loads(result.stderr.splitlines()[-1])
    fleet.ask("--quiet", "rm", "--force", "bench")
    stages = {}
    for stage in timings["stages"]:
        stages[stage["stage"]] = stages.get(stage["stage"], 0) + stage["micros"] / 1e6
    return timings["micros"] / 1e6, stages


def rules():
    """nft's time for the whole of both tables with many leases: as they are, made anew by one script."""
    elements = lambda: "".join(
        f'add element bridge banger pinned {{ "tap-pool-{1000 + n}" . 02:62:0a:c6:{n // 200:02x}:{n % 200:02x} . 198.18.{n // 200}.{n % 200} }}\n'
        for n in range(LEASES)
    )  # fmt: skip
    with FakeFleet(0, config="[network]\ntaps = 1\n", net=Net()) as fleet:
        fleet.ask("--quiet", "create", "--net", "nat", "bench")
        script = "".join(
            f"add table {family} banger\ndelete table {family} banger\n" + fleet.net.ask("nft", "list", "table", family, "banger")
            for family in ("bridge", "inet")
        )
        timer = "import subprocess, sys, time; script = sys.stdin.buffer.read()\nfor _ in range(20):\n began = time.perf_counter()\n subprocess.run(['nft', '-f', '-'], input=script, check=True)\n print(time.perf_counter() - began)"
        seconds = fleet.net.ask("python3", "-c", timer, input=script + elements())
        fleet.ask("--quiet", "rm", "--force", "bench")
    return {f"both tables, {LEASES} leases": [float(line) for line in seconds.split()]}


def names():
    """Answers per second as fast as they come, and how late they are where fewer are asked for: dnsperf(1), beside the server."""
    with FakeFleet(0, config="[network]\ntaps = 1\n", net=Net()) as fleet, tempfile.NamedTemporaryFile("w") as questions:
        vms = [f"vm-{number}" for number in range(10)]
        for vm in vms:
            fleet.ask("--quiet", "create", "--net", "nat", vm)
        for number in range(2000):
            questions.write(random.choice([f"{vms[number % 10]}.vm A\n", f"www.{vms[number % 10]}.vm A\n", "nobody.vm A\n"]))
        questions.flush()
        perf = ["dnsperf", "-s", "127.0.0.1", "-p", PORT, "-d", questions.name, "-l", SECONDS]
        busy = fleet.daemon_cpu()
        most = fleet.net.ask(*perf, "-c", 4, "-q", 400)
        busy = fleet.daemon_cpu() - busy
        calm = fleet.net.ask(*perf, "-c", 4, "-Q", OFFERED, "-v")
        fleet.ask("--quiet", "rm", "--force", *vms)
    per_second = float(re.search(r"Queries per second:\s+([\d.]+)", most)[1])
    late = sorted(float(line.split()[-1]) for line in calm.splitlines() if line.startswith("> "))
    answered = float(re.search(r"Queries per second:\s+([\d.]+)", calm)[1])
    return {
        "answers per second": per_second,
        "processors busy with them": busy / SECONDS,
        "lateness": {"offered": OFFERED, "answered": answered, "p50": late[len(late) // 2], "p99": late[len(late) * 99 // 100]},
    }


def throughput(runs):
    """MiB per second from a guest to the host: banger's guests, and those of QEMU started by hand on a plain TAP."""
    subprocess.run([BANGER, "--quiet", "daemon", "start"], check=True)
    image = ensure_image()
    daemon = Net(of=banger_json("daemon", "status")["pid"])
    pairs = []
    with tempfile.TemporaryDirectory(prefix=f"{VMS}-", dir=STATE) as place:
        made_from, _ = artefacts(image, Path(place))
        for number in range(runs):
            turns = [lambda: ours(daemon), lambda: bare(made_from, place)]
            if number % 2:
                turns.reverse()
            pair = [turn() for turn in turns]
            if number % 2:
                pair.reverse()
            pairs.append(pair)
            print(f"pair {number + 1}: banger {pair[0]:.0f} MiB/s, bare {pair[1]:.0f} MiB/s", file=sys.stderr, flush=True)
    return made_from.accelerator, pairs


def ours(daemon):
    vm = banger_json("--quiet", "create", "--net", "nat", f"{VMS}-net")
    try:
        gateway = daemon.json("ip", "-j", "-4", "address", "show", "banger0")[0]["addr_info"][0]["local"]
        return received(daemon, gateway, lambda words: banger("exec", f"{VMS}-net", "--", *words))
    finally:
        banger("--quiet", "rm", "--force", vm["name"])


def bare(made_from, place):
    net = plain_network(made_from)
    with BareGuest(made_from, place, net=net) as guest:
        return received(net, made_from.gateway, guest.session.exec)


def received(net, address, run):
    """What arrives while a guest sends, in MiB per second."""
    receiver = net.start("python3", "-c", RECEIVER, "5001", stdout=subprocess.PIPE, text=True)
    if receiver.stdout.readline() != "\n":
        sys.exit("nobody listens")
    run(["perl", "-MIO::Socket", "-MTime::HiRes", "-e", SENDER, address, "5001", str(SECONDS)])
    said, _ = receiver.communicate(timeout=60)
    return float(said) / (1 << 20)


def show(found):
    print(report.sentence(found["machine"], found["accelerator"]), "\n")
    rows = [
        ["a TAP from the pool (`tap.claim`)", *report.milliseconds(found["tap.claim"])],
        ["a TAP without a pool", *report.milliseconds(found["tap.claim without a pool"])],
        ["one lease more in the rules (`net.rules`)", *report.milliseconds(found["one lease"])],
        [f"the whole of the rules with {LEASES} leases, by nft", *report.milliseconds(found[f"both tables, {LEASES} leases"])],
        ["create with a network (fake VMM)", *report.milliseconds(found["create with a network"])],
        ["create without one", *report.milliseconds(found["create without"])],
        ["what a network adds to create, pair by pair", *report.milliseconds(found["what a network adds"])],
    ]
    print(report.table(["ms", "median", "min", "max"], rows), "\n")
    late = found["lateness"]
    rows = [
        ["answers per second, as many as come", f"{found['answers per second']:.0f}"],
        ["processors that the daemon was busy with for them", f"{found['processors busy with them']:.2f}"],
        [f"at {late['offered']} questions per second: half of the answers within, ms", f"{late['p50'] * 1000:.2f}"],
        [f"at {late['offered']} questions per second: 99 of 100 within, ms", f"{late['p99'] * 1000:.2f}"],
    ]
    print(report.table(["names", ""], rows), "\n")
    pairs = found["throughput"]
    each = lambda values, form: [f"{report.spread(values)[which]:{form}}" for which in ("median", "min", "max")]
    rows = [
        ["banger: guest to host, MiB/s", *each([ours for ours, _ in pairs], ".0f")],
        ["bare QEMU on a plain TAP, MiB/s", *each([bare for _, bare in pairs], ".0f")],
        ["banger / bare, pair by pair", *each([ours / bare for ours, bare in pairs], ".3f")],
    ]
    print(report.table(["TCP", "median", "min", "max"], rows))


if __name__ == "__main__":
    supervise(main)
