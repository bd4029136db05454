"""What a daemon inherits from its starter, and what its programs inherit from it: descriptors, umask, limits, priorities, signals, the
working directory. The tests read it in /proc; scripts stand in for short-lived programs and record it.
"""

import contextlib
import fcntl
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import unittest
from pathlib import Path

import tiny_image
from fake import FakeCase
from harness import BIN, DEADLINE, Case, Failed, Place, Process, names, ours

# A starter with everything that a daemon must not keep. It executes WORDS in DIRECTORY with descriptors 3 to 20 open: the 7th is
# /etc/shadow, the 9th a lock that it holds, and KEPT is the test's. MODE is `streams`, or `none` to close the standard streams.
STARTER = """
import fcntl, os, resource, signal, sys
mode, directory, lock, kept, hard, *words = sys.argv[1:]
high = lambda fd: fcntl.fcntl(fd, fcntl.F_DUPFD, 200)
stray, shadow, lock = (high(os.open(path, os.O_RDWR | os.O_CREAT, 0o600)) for path in (directory + "/stray", "/etc/shadow", lock))
fcntl.flock(lock, fcntl.LOCK_EX)
for number in range(3, 21):
    if number != int(kept):
        os.dup2({7: shadow, 9: lock}.get(number, stray), number)
if int(kept) >= 0:
    os.set_inheritable(int(kept), True)
for number in (stray, shadow, lock):
    os.close(number)
os.chdir(directory)
os.umask(0)
os.nice(10)
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
open("/proc/self/oom_score_adj", "w").write("300")
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1])
resource.setrlimit(resource.RLIMIT_NOFILE, (64, int(hard)))
for limit in (resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_DATA, resource.RLIMIT_AS):
    resource.setrlimit(limit, (1 << 40, 1 << 41))
if mode == "none":
    for number in range(3):
        os.close(number)
os.execv(words[0], words)
"""

# Stands in for a program: records what it is started with, then becomes the program.
RECORDER = """#!/bin/sh
for file in status limits stat oom_score_adj; do
    # With the shell alone, which blocks signals while it starts another program.
    while IFS= read -r line; do
        echo "$line"
    done < /proc/$$/$file > {records}/{name}.$$.$file
done
ls -l /proc/$$/fd | sed -n 's/.* -> //p' > {records}/{name}.$$.fds
exec {real} "$@"
"""

# Reports its connection, sends hexadecimal data, and prints how much comes back before the other side has said something.
CLIENT = """
import socket, sys
client = socket.create_connection((sys.argv[1], int(sys.argv[2])))
print("connected", flush=True)
client.sendall(bytes.fromhex(sys.argv[3]))
print(len(client.recv(4096)), flush=True)
"""

# Says something on each TCP connection at a port, one after the other.
LISTENER = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print(flush=True)
while True:
    client, _ = server.accept()
    client.sendall(b"hello")
    client.close()
"""

# A question for the name devbox.vm over TCP (RFC 1035).
QUESTION = "001b" + "0001" + "0100" + "0001" + "0000" * 3 + "06646576626f78" + "02766d" + "00" + "0001" + "0001"

SIGNALS = {number: 1 << (number - 1) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1)}


# A daemon with this capability raises its hard limit as well (capabilities(7): CAP_SYS_RESOURCE is 24).
MAY_RAISE = bool(int(Path("/proc/self/status").read_text().split("CapEff:")[1].split()[0], 16) & 1 << 24)
HARD = 64 if MAY_RAISE else resource.getrlimit(resource.RLIMIT_NOFILE)[1]


class Attributes:
    """The attributes of a process, from /proc or from a recorder's notes."""

    def __init__(self, read, files):
        status = dict(line.split(":", 1) for line in read("status").splitlines())
        stat = read("stat").rsplit(")", 1)[1].split()
        limits = {line[:26].strip(): line[26:].split()[:2] for line in read("limits").splitlines()}
        self.umask = status["Umask"].strip()
        self.blocked, self.ignored = (int(status[name], 16) for name in ("SigBlk", "SigIgn"))
        # Fields 19 and 41 of proc_pid_stat(5).
        self.nice, self.policy = int(stat[16]), int(stat[38])
        self.descriptors = tuple(limits["Max open files"])
        self.long_life = [limits[f"Max {what}"] for what in ("cpu time", "file size", "data size", "address space")]
        self.oom_score_adj = int(read("oom_score_adj"))
        self.files = files

    @classmethod
    def of(cls, pid):
        descriptors = Path(f"/proc/{pid}/fd")
        files = set()
        for name in names(descriptors):
            with contextlib.suppress(FileNotFoundError):
                files.add(os.readlink(descriptors / name))
        return cls(lambda name: Path(f"/proc/{pid}/{name}").read_text(), files)

    def ignores(self, *numbers):
        return [number.name for number in numbers if self.ignored & SIGNALS[number]]


class Surroundings:
    """A place whose daemon is started by such a starter, and what holds for it and its programs. Mixed into cases."""

    def prepare(self):
        self.directory = self.place.runtime_root / "starter"
        self.directory.mkdir(exist_ok=True)
        self.lock = self.directory / "lock"
        self.foreign = {"/etc/shadow", str(self.lock), str(self.directory / "stray")}

    def starter(self, mode, kept, *words):
        return [sys.executable, "-c", STARTER, mode, self.directory, self.lock, str(kept), str(HARD), *words]

    def start_by_command(self, *verb, program=BIN / "banger", inside="true"):
        """Runs a verb that makes the command line start a daemon. The place then owns the daemon."""
        place = self.place
        # By the usual path: with another one the command line starts no daemon.
        environment = {name: value for name, value in place.environment.items() if name != "BANGER_HOST"}
        words = ["unshare", "--mount", "sh", "-e", "-c", f'{inside}\nexec "$@"', "sh", *self.starter("streams", -1, program, *verb)]
        words = [str(word) for word in [*place.net.words(), *words]]
        done = subprocess.Popen(words, env=environment, pass_fds=place.net.fds, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
        said, _ = done.communicate(timeout=DEADLINE)
        self.assertEqual(done.returncode, 0, said)
        place.popen = done
        place.daemon = Process(place.json("daemon", "status")["pid"])

    def check_daemon(self):
        """What holds for every daemon, however it was started."""
        found = Attributes.of(self.place.daemon.pid)
        self.assertEqual(found.files & self.foreign, set(), "descriptors of the starter are open in the daemon")
        self.assertEqual(found.umask, "0022")
        self.assertEqual(found.blocked, 0)
        self.assertEqual(found.ignores(signal.SIGCHLD, signal.SIGTERM), [])
        self.assertGreaterEqual(int(found.descriptors[0]), 65536 if MAY_RAISE else HARD)
        self.assertEqual(found.descriptors[0], found.descriptors[1])
        self.assertEqual({soft == hard for soft, hard in found.long_life}, {True}, "soft limits stay")
        self.assertEqual((found.nice, found.policy, found.oom_score_adj), (0, os.SCHED_OTHER, 0))
        self.assertEqual(os.readlink(f"/proc/{self.place.daemon.pid}/cwd"), "/")
        # No process holds the starter's lock for it.
        with open(self.lock) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def check_program(self, found, limits=("64", str(HARD)), priorities=(10, os.SCHED_BATCH, 300)):
        self.assertEqual(found.files & self.foreign, set(), "descriptors of the starter are open in a program")
        self.assertEqual(found.umask, "0022")
        self.assertEqual(found.ignores(*SIGNALS), [])
        self.assertEqual(found.descriptors, limits)
        self.assertEqual((found.nice, found.policy, found.oom_score_adj), priorities)

    def check_modes(self):
        """Only root may write to banger's files and directories."""
        writable = []
        for root in (self.place.state, self.place.runtime):
            for place, directories, files in os.walk(root):
                for path in [Path(place), *(Path(place) / name for name in directories + files)]:
                    if not path.is_symlink() and path.stat().st_mode & 0o022:
                        writable.append(f"{oct(path.stat().st_mode)} {path}")
        self.assertEqual(writable, [])


class Inherited(Surroundings, unittest.TestCase):
    """Daemons with the fake VMM, whose guests are agents."""

    def setUp(self):
        if os.geteuid() != 0:
            raise unittest.SkipTest("needs root for a network namespace of its own")
        self.before = set(ours())
        self.place = place = Place()
        self.addCleanup(place.remove)
        Path(place.environment["BANGER_CONFIG"]).write_text(tiny_image.CONFIG)
        place.start_daemon("--fake-vmm")
        place.stop_daemon()
        tiny_image.plant(place.state)
        # An image without a work seed: mke2fs makes its work disks.
        (place.state / "images/tinyimage1/work-seed.ext4").unlink()
        self.prepare()
        self.records = place.runtime_root / "records"
        self.records.mkdir()
        # The command line starts the daemon next to it.
        self.programs = place.runtime_root / "bin"
        self.programs.mkdir()
        self.program = self.programs / "banger"
        self.program.write_bytes((BIN / "banger").read_bytes())
        self.write(self.programs / "bangerd", f'#!/bin/sh\nexec {BIN}/bangerd --fake-vmm "$@"\n')
        self.program.chmod(0o755)

    def write(self, path, script):
        path.write_text(script)
        path.chmod(0o755)

    def recorders(self):
        """A script that puts recorders in place of programs."""
        binds = []
        for name, path in (("nft", "/usr/sbin/nft"), ("mke2fs", "/sbin/mke2fs")):
            real, script = self.records / f"real-{name}", self.records / f"script-{name}"
            real.write_bytes(Path(path).read_bytes())
            real.chmod(0o755)
            self.write(script, RECORDER.format(records=self.records, name=name, real=real))
            binds.append(f"mount --bind {script} {path}")
        return "\n".join(binds)

    def recorded(self, name):
        def attributes(fds):
            return Attributes(lambda kind: fds.with_suffix(f".{kind}").read_text(), set(fds.read_text().splitlines()))

        found = [attributes(fds) for fds in self.records.glob(f"{name}.*.fds")]
        self.assertTrue(found, f"{name} was never started")
        return found

    def wind_up(self):
        self.place.wind_up(self.before, list)

    def test_a_daemon_that_was_asked_for_keeps_nothing_and_passes_on_priorities_alone(self):
        place = self.place
        self.start_by_command("daemon", "start", program=self.program, inside=self.recorders())
        self.check_daemon()
        place.banger("create", "--net", "nat", "--disk", "8M", "devbox")
        agent = Attributes.of(place.vms()["devbox"]["pid"])
        self.check_program(agent)
        # A VMM blocks some signals itself.
        self.assertEqual(agent.blocked, 0)
        for name in ("nft", "mke2fs"):
            for found in self.recorded(name):
                self.check_program(found)
        self.assertEqual(place.shell("devbox", "umask; ulimit -n; nice").split(), ["0022", "64", "10"])
        self.check_modes()
        self.wind_up()

    def test_a_daemon_that_another_command_needed_is_not_in_the_background(self):
        place = self.place
        self.start_by_command("ls", program=self.program)
        self.check_daemon()
        if MAY_RAISE:
            self.assertEqual({hard for _, hard in Attributes.of(place.daemon.pid).long_life}, {"unlimited"})
        place.banger("create", "devbox")
        usual = ("1024", str(max(HARD, 1024))), (0, os.SCHED_OTHER, 0)
        self.check_program(Attributes.of(place.vms()["devbox"]["pid"]), *usual)
        self.check_modes()
        self.wind_up()

    def test_a_daemon_without_streams_starts_and_hears_its_signals(self):
        place = self.place
        (self.directory / "agent").symlink_to(BIN / "banger-agent")
        ready, ready_end = os.pipe()
        kept = fcntl.fcntl(ready_end, fcntl.F_DUPFD, 12)
        words = self.starter("none", kept, BIN / "bangerd", "--ready-fd", str(kept), "--fake-vmm", "--agent", "agent")
        popen = subprocess.Popen([*place.net.words(), *words], env=place.environment, pass_fds=[kept, *place.net.fds])
        os.close(ready_end)
        os.close(kept)
        with os.fdopen(ready) as pipe:
            self.assertEqual(pipe.read(), "ready\n")
        place.popen, place.daemon = popen, Process(popen.pid)
        self.check_daemon()
        self.assertEqual([os.readlink(f"/proc/{popen.pid}/fd/{number}") for number in range(3)], ["/dev/null"] * 3)
        # As nohup(1) wants it.
        self.assertEqual(Attributes.of(popen.pid).ignores(signal.SIGHUP, signal.SIGQUIT), ["SIGHUP", "SIGQUIT"])
        place.banger("create", "devbox")
        self.check_program(Attributes.of(place.vms()["devbox"]["pid"]))
        popen.terminate()
        self.assertTrue(place.daemon.ended(DEADLINE), "SIGTERM does not end it")
        popen.wait()
        place.start_daemon("--fake-vmm")
        self.wind_up()

    def test_what_protects_a_daemon_protects_no_program(self):
        if not MAY_RAISE:
            self.skipTest("needs CAP_SYS_RESOURCE to protect a process")
        place = self.place
        place.start_daemon("--fake-vmm", inside="echo -900 > /proc/self/oom_score_adj")
        place.banger("create", "devbox")
        self.assertEqual(Attributes.of(place.daemon.pid).oom_score_adj, -900)
        self.assertEqual(Attributes.of(place.vms()["devbox"]["pid"]).oom_score_adj, 0)
        self.wind_up()


class InheritedByQemu(Surroundings, Case):
    """A real guest's VMM. A hostile guest could read the starter's open files from this program."""

    def test_qemu_gets_nothing_of_the_daemons_starter(self):
        place = self.place
        place.stop_daemon()
        self.prepare()
        self.start_by_command("daemon", "start")
        place.banger("create", "--net", "none", "devbox")
        (qemu,) = place.vmm_processes()
        found = Attributes.of(qemu)
        # It raises its soft limit itself; the agents above show which limit it was started with.
        self.check_program(found, limits=(found.descriptors[0], str(HARD)))
        disks = [file for file in found.files if str(place.state) in file]
        self.assertTrue(disks, "what its launch names is open all the same")
        self.check_daemon()
        self.check_modes()
        self.assertEqual(place.shell("devbox", "umask"), "0022")
        place.banger("rm", "--force", "devbox")


class Shortage(FakeCase):
    """A process without free descriptors waits, and goes on when it has some again."""

    def setUp(self):
        self.addCleanup(self.place.banger, "rm", "--force", "--all")
        self.ends = contextlib.ExitStack()
        self.addCleanup(self.ends.close)

    def started(self, *words, **options):
        """A program in the place's network that has printed its first line."""
        popen = self.place.net.start(sys.executable, "-c", *words, stdout=subprocess.PIPE, text=True, **options)
        self.ends.callback(popen.communicate)
        self.ends.callback(popen.kill)
        if not popen.stdout.readline():
            raise Failed("a program of the test's ends at once")
        return popen

    @contextlib.contextmanager
    def without_descriptors(self, pid):
        """A process that cannot open anything, and that must sleep for most of two seconds. The yielded files must not become
        readable in that time."""
        usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, usual[1]))
        waiting = []
        try:
            yield waiting
            before = awake(pid)
            said, _, _ = select.select(waiting, [], [], 2)
            self.assertEqual(said, [], "there were descriptors")
            self.assertLess(awake(pid) - before, 1, "it spins")
        finally:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)

    def warnings(self):
        log = (self.place.state / "bangerd.log").read_text()
        return [line for line in log.splitlines() if "can be accepted for now" in line]

    def test_the_daemon_does_not_spin_and_accepts_again(self):
        place, daemon = self.place, self.place.daemon.pid
        place.banger("create", "--net", "nat", "-p", "9000:8000", "devbox")
        self.started(LISTENER, "8000")
        before = len(self.warnings())
        with self.without_descriptors(daemon) as waiting:
            port = self.started(CLIENT, "127.0.0.1", "9000", "")
            name = self.started(CLIENT, "127.0.0.1", "42069", QUESTION)
            api = self.ends.enter_context(socket.socket(socket.AF_UNIX))
            api.connect(str(place.runtime / "bangerd.sock"))
            api.sendall(b"GET /v1/daemon HTTP/1.1\r\nHost: banger\r\n\r\n")
            waiting += [port.stdout, name.stdout, api]
        self.assertEqual(port.stdout.readline(), "5\n")
        self.assertGreater(int(name.stdout.readline()), 20)
        api.settimeout(DEADLINE)
        self.assertIn(b"HTTP/1.1", api.recv(100))
        told = self.warnings()[before:]
        self.assertEqual(len(told), 3, told)

    def test_a_command_that_forwards_does_not_spin_and_accepts_again(self):
        place = self.place
        place.banger("create", "devbox")
        self.started(LISTENER, "8001")
        words = [*place.net.words(), BIN / "banger", "forward", "devbox", "9001:8001"]
        forward = subprocess.Popen(words, env=place.environment, pass_fds=place.net.fds, stderr=subprocess.PIPE, text=True)
        self.ends.callback(forward.communicate)
        self.ends.callback(forward.kill)
        self.assertIn("leads to port 8001", forward.stderr.readline())
        with self.without_descriptors(forward.pid) as waiting:
            client = self.started(CLIENT, "127.0.0.1", "9001", "")
            waiting.append(client.stdout)
        self.assertEqual(client.stdout.readline(), "5\n")
        told, _, _ = select.select([forward.stderr], [], [], DEADLINE)
        self.assertTrue(told)
        self.assertIn("accepts nobody for now", forward.stderr.readline())

    def test_an_agent_does_not_end_and_accepts_again(self):
        place = self.place
        place.banger("create", "devbox")
        vm = place.vms()["devbox"]
        agent = Process(vm["pid"])
        with self.without_descriptors(agent.pid) as waiting:
            daemon = self.ends.enter_context(socket.socket(socket.AF_UNIX))
            daemon.connect(str(place.runtime / "vms" / vm["id"] / "agent.sock"))
            waiting.append(agent.pidfd)
        daemon.close()
        # That was a session of its own: the daemon begins another one, and a command on the way may be lost with the old one.
        for _ in range(1000):
            if place.run("exec", "devbox", "--", "true").returncode == 0:
                break
        else:
            self.fail("the daemon does not find back to the agent")


def awake(pid):
    """How many seconds a process has run or waited for a processor: on a busy host a spinning process does not run all the time."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        ran, waited, _ = (task / "schedstat").read_text().split()
        total += int(ran) + int(waited)
    return total / 1e9
