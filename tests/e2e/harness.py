"""What the end-to-end tests stand on: a banger with directories of its own, and a look at the host that asks the kernel.

Nothing here shares code with banger or believes what it says of itself: processes are held by pidfd, waits are for events
with a deadline, and after every class of tests the host is compared with what it was.
"""

import atexit
import contextlib
import json
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import host
from netns import Failed, Net

ROOT = Path(__file__).resolve().parents[2]
BIN = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "banger/bin"
# Long enough for the slowest step here, a command in one of nine guests that boot in emulation on a busy machine with two processors;
# a test that waits so long fails.
DEADLINE = 240
SEED = int(os.environ.get("BANGER_TEST_SEED", random.randrange(2**32)))
# No other daemon on this host has this slot: daemons take the lowest.
SLOT = 50 + os.getpid() % 50


def below_a_reaper():
    """Goes on in a child of this process, which reaps orphans as an init does: they are then found below it.

    A signal that would end this process ends the child in order: the child removes what it made, then this process kills the rest.
    """
    sys.stdout.flush()
    host.become_subreaper()
    signals = [signal.SIGINT, signal.SIGTERM]
    # Under nohup(1) the tests go on without their terminal.
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    # No signal may arrive before its handler is there.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    child = os.fork()
    told = []

    def forward(*_):
        told.append(child)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM)

    for number in signals:
        signal.signal(number, forward if child else end)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    if child:
        code = host.reap_until(child)
        if told:
            host.kill_descendants()
        os._exit(code)
    return os.getppid()


def end(*_):
    """Ends this process in order, wherever it is: in a test as in an import, unittest takes a SystemExit for one more error."""
    # A terminal sends its interrupt to both processes.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    atexit._run_exitfuncs()
    os._exit(1)


REAPER = below_a_reaper()


def ours():
    """The processes that the tests have brought into the world and that live, but for this one."""
    return {pid: words for pid, words in host.descendants(REAPER) if pid != os.getpid()}


def left_since(before):
    """The command lines of those of our processes that were not there before and that stay: one that is on its way out
    gets a second."""
    left = []
    for pid, words in ours().items():
        if pid not in before:
            try:
                if not Process(pid).ended(1):
                    left.append(words)
            except ProcessLookupError:
                continue
    return left


def claims():
    """The claims on user ids, by state directory: the slot and the file's content."""
    return {claim["state"]: claim for claim in host.claims() if "state" in claim}


class Process:
    """A process that the tests started or found, held by a pidfd."""

    def __init__(self, pid):
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)

    def ended(self, seconds=DEADLINE):
        """Waits until it has ended; false if that takes longer."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def kill(self):
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        if not self.ended():
            raise Failed(f"process {self.pid} does not die")

    def __del__(self):
        if hasattr(self, "pidfd"):
            os.close(self.pidfd)


class Place:
    """A banger with directories of its own: state (on a disk), runtime (a short path, for sockets), and a daemon."""

    def __init__(self, state=None, net=Net):
        self.runtime_root = Path(tempfile.mkdtemp(prefix="bt-", dir="/tmp"))
        self.state_root = None if state else Path(tempfile.mkdtemp(prefix="banger-test-", dir="/var/tmp"))
        self.state = state or self.state_root / "state"
        self.runtime = self.runtime_root / "run"
        # By another path than the usual one, so that no command line starts a daemon behind the tests' back.
        (self.runtime_root / "same").symlink_to(self.runtime)
        self.environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.runtime_root),
            "LANG": "C.UTF-8",
            "BANGER_STATE_DIR": str(self.state),
            "BANGER_RUNTIME_DIR": str(self.runtime),
            "BANGER_CONFIG": str(self.runtime_root / "config.toml"),
            "BANGER_HOST": str(self.runtime_root / "same/bangerd.sock"),
        }
        self.daemon = None
        # The same for every daemon of this place, as guests live on in it.
        self.net = net()
        atexit.register(self.remove)

    # The daemon.

    def start_daemon(self, *args, inside=(), network=False):
        """Starts bangerd and returns when it is ready. Without the host's network it is in the place's own.

        `inside` is a shell script that runs before it in a mount namespace of its own: stand-ins, small file systems.
        """
        ready, ready_end = os.pipe()
        words = [BIN / "bangerd", "--ready-fd", str(ready_end), *args]
        if inside:
            words = ["unshare", "--mount", "sh", "-e", "-c", f'{inside}\nexec "$@"', "sh", *words]
        if not network:
            words = [*self.net.words(), *words]
        # It leads a session of its own, as one that the command line starts does.
        complaints = self.runtime_root / "stderr"
        with complaints.open("wb") as stderr:
            popen = subprocess.Popen(
                words, env=self.environment, pass_fds=[ready_end, *self.net.fds], stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True,
            )  # fmt: skip
        os.close(ready_end)
        with os.fdopen(ready) as pipe:
            said = pipe.read()
        if said != "ready\n":
            log = self.state / "bangerd.log"
            last = "".join(log.read_text().splitlines(keepends=True)[-5:]) if log.exists() else ""
            raise Failed(f"bangerd did not start, exit code {popen.wait()}: {said}{complaints.read_text()}{last}")
        self.popen = popen
        self.daemon = Process(popen.pid)

    def kill_daemon(self):
        self.daemon.kill()
        self.popen.wait()
        self.daemon = None

    def stop_daemon(self):
        self.banger("daemon", "stop")
        if not self.daemon.ended():
            raise Failed("bangerd does not end")
        self.popen.wait()
        self.daemon = None

    # The command line.

    def start(self, *args, **options):
        """Starts `banger ARGS...` and does not wait for it."""
        defaults = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        options = {**defaults, "env": self.environment, **options}
        return subprocess.Popen([BIN / "banger", *map(str, args)], **options)

    def run(self, *args, input=None, seconds=DEADLINE, **options):
        """Runs `banger ARGS...` to its end, whatever that is. Output is text."""
        if input is not None:
            options["stdin"] = subprocess.PIPE
        popen = self.start(*args, text=True, **options)
        try:
            out, err = popen.communicate(input, timeout=seconds)
        except subprocess.TimeoutExpired:
            popen.kill()
            out, err = popen.communicate()
            raise Failed(f"`banger {' '.join(map(str, args))}` takes over {seconds} s: {out}{err}") from None
        return subprocess.CompletedProcess(args, popen.returncode, out, err)

    def banger(self, *args, **options):
        """Runs `banger ARGS...`, which must succeed, and returns its output."""
        result = self.run(*args, **options)
        if result.returncode != 0:
            words = " ".join(map(str, args))
            raise Failed(f"`banger {words}` ended with {result.returncode}: {result.stdout}{result.stderr}")
        return result.stdout

    def json(self, *args, **options):
        return json.loads(self.banger("-o", "json", *args, **options))

    # What banger remembers and what there is.

    def vms(self):
        return {vm["name"]: vm for vm in self.json("vm", "ls")}

    def oddities(self):
        """What `banger verify` finds; its exit code says the same."""
        result = self.run("-o", "json", "verify")
        found = json.loads(result.stdout)
        if result.returncode != int(bool(found)):
            raise Failed(f"verify ended with {result.returncode}: {result.stdout}{result.stderr}")
        return found

    def finding(self, check):
        """What the doctor says of one thing."""
        return next(finding for finding in self.json("doctor") if finding["check"] == check)

    def settled(self):
        """The VMs when none of them is on its way: asked again and again, each time by a whole command, for want of an
        event that says so."""
        for _ in range(20000):
            vms = self.vms()
            # A running one without a process is about to be taken over.
            if all(vm["state"] == "stopped" or (vm["state"] == "running" and "pid" in vm) for vm in vms.values()):
                return vms
        raise Failed(f"not all VMs settle: {vms}")

    def directory(self, vm):
        return self.state / "vms" / vm["id"]

    def shell(self, name, script, **options):
        """Runs a shell script in a guest, which must succeed, and returns its output without the last line's end."""
        return self.banger("exec", name, "--", "sh", "-e", "-c", script, **options).rstrip("\n")

    def boot_id(self, name):
        return self.shell(name, "cat /proc/sys/kernel/random/boot_id")

    def vmm_processes(self):
        """The VMMs that run on this place's disks."""
        ids = set(names(self.state / "vms"))
        return {pid for pid, words in ours().items() if "qemu-system" in words and any(f"guest={vm}," in words for vm in ids)}

    def wind_up(self, processes_before, files):
        """Removes all VMs and ends the daemon; then no process may be there that was not before, and no file that `files` tells."""
        for name in self.vms():
            self.banger("rm", "--force", name)
        self.stop_daemon()
        left = left_since(processes_before) + files() + [f"link {name}" for name in self.net.links() if name != "lo"]
        if left:
            raise AssertionError("left behind after the last VM and the daemon:\n" + "\n".join(left))

    def remove(self):
        """Ends what is left of it, and takes its files away. For a test that failed half way; does nothing twice."""
        marks = [str(self.state), str(self.runtime_root), *(f"guest={vm}," for vm in names(self.state / "vms"))]
        for pid, words in ours().items():
            if (self.daemon and pid == self.daemon.pid) or any(mark in words for mark in marks):
                Process(pid).kill()
        shutil.rmtree(self.runtime_root, ignore_errors=True)
        if self.state_root:
            shutil.rmtree(self.state_root, ignore_errors=True)
        atexit.unregister(self.remove)
        self.net.close()


def clone_state(source, target):
    """Copies a state directory whose daemon is down: holes stay holes, and blocks are shared where they can be."""
    subprocess.run(["cp", "-a", "--sparse=always", "--reflink=auto", source, target], check=True)


_image_place = None


def state_with_image():
    """A state directory with the default image in it, built once in a run by `banger image build`. Do not write to it
    but through a daemon. BANGER_TEST_STATE names one to start from, whose daemon is down: for trying a single test."""
    global _image_place
    if _image_place is None and "BANGER_TEST_STATE" in os.environ:
        _image_place = Place()
        clone_state(os.environ["BANGER_TEST_STATE"], _image_place.state)
    if _image_place is None:
        _image_place = Place()
        build_image(_image_place)
    return _image_place.state


def build_image(place):
    """Builds the default image into a place's state directory."""
    place.start_daemon(network=True)
    began = time.monotonic()
    place.banger("image", "build", seconds=600)
    print(f"(image build: {time.monotonic() - began:.0f} s)", flush=True)
    place.stop_daemon()


class Case(unittest.TestCase):
    """A class of tests with a place of its own. When its tests are done the host must be as before them."""

    # What tests/runner.py asks.
    real_guests = True
    own_state = False
    # What makes the place of a class with a state of its own.
    make_place = Place
    daemon_args = ()

    @classmethod
    def setUpClass(cls):
        if os.geteuid() != 0:
            raise unittest.SkipTest("needs root: banger runs machines for root alone for now")
        source = state_with_image()
        if cls.own_state:
            cls.place = cls.make_place()
            clone_state(source, cls.place.state)
        else:
            cls.place = Place(state=source)
        cls.others = host.others(REAPER)
        cls.before = host.snapshot([cls.place.state])
        cls.processes_before = set(ours())
        cls.addClassCleanup(cls.place.remove)
        cls.place.start_daemon(*cls.daemon_args)
        cls.random = random.Random(f"{SEED} {cls.__name__}")

    @classmethod
    def tearDownClass(cls):
        cls.place.wind_up(cls.processes_before, cls.left_on_host)

    @classmethod
    def left_on_host(cls):
        """What is new on the host, but for what belongs to the daemons of others."""
        cls.others |= host.others(REAPER)
        left = host.snapshot([cls.place.state]) - cls.before - cls.may_stay()
        cls.others |= host.others(REAPER)
        return sorted(line for line in left if not any(re.match(pattern, line) for pattern in cls.others))

    @classmethod
    def may_stay(cls):
        """Records and logs belong to the daemon, not to a VM."""
        state = cls.place.state
        stay = {f"file {state}/{name}" for name in ("lock", "banger.db", "banger.db-wal", "banger.db-shm", "banger.db.reserve", "bangerd.log")}
        # The base of an image's initramfs is cached beside it, once for each agent.
        return stay | {f"file {path}" for path in state.glob("images/*/initramfs-*.cpio")}

    # What many tests ask.

    def fails(self, *args, code=1, cause="", help=None, **options):
        """A command that must fail: exit code, a one-line cause that names `cause`, a line on what to do."""
        result = self.place.run(*args, **options)
        self.assertEqual(result.returncode, code, f"{args}: {result.stdout}{result.stderr}")
        lines = [text for text in result.stderr.splitlines() if text.startswith(("error: ", "help: ", "also: "))]
        self.assertTrue(lines and lines[0].startswith("error: "), result.stderr)
        self.assertIn(cause.lower(), lines[0].lower(), result.stderr)
        if help is not None:
            self.assertTrue(len(lines) > 1 and lines[1].startswith("help: "), f"no line on what to do: {result.stderr}")
            self.assertIn(help.lower(), lines[1].lower())
        return result

    def assert_as_recorded(self):
        """What banger remembers and what there is on the host are the same, once a new daemon has gone on with what the
        one before had begun."""
        vms = self.place.settled()
        running = {vm["pid"] for vm in vms.values() if vm["state"] == "running"}
        self.assertEqual(self.place.vmm_processes(), running, "VMM processes and records differ")
        for vm in vms.values():
            self.assertIn(vm["state"], ("running", "stopped"), vm)
        self.assertEqual(names(self.place.state / "vms"), {vm["id"] for vm in vms.values()}, "disks and records differ")
        self.assertEqual(
            names(self.place.runtime / "vms"),
            {vm["id"] for vm in vms.values() if vm["state"] == "running"},
            "runtime files and running VMs differ",
        )
        self.assertEqual(names(self.place.state / "tmp"), set(), "temporary files stay")


def names(directory):
    return set(os.listdir(directory)) if directory.exists() else set()


def checksum(path):
    """SHA-256 of what a sparse file holds; holes count as what they are, nothing."""
    import hashlib

    digest = hashlib.sha256()
    with open(path, "rb") as file:
        at, size = 0, os.fstat(file.fileno()).st_size
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            os.lseek(file.fileno(), at, os.SEEK_SET)
            while at < end:
                data = file.read(min(1 << 20, end - at))
                # An allocated block of zeros and a hole are the same to a guest.
                if data.strip(b"\0"):
                    digest.update(at.to_bytes(8, "big") + data)
                at += len(data)
    return digest.hexdigest()
