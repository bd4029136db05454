"""The daemon is killed (SIGKILL) at random moments of every verb: no guest notices, nothing is lost, nothing is left.

The moments are random but repeatable: BANGER_TEST_SEED, printed at the start of each verb. Real guests take their time, so there
is one moment in each third of a verb; test_fake.py kills ten times in each with the fake VMM.
"""

import contextlib
import os
import select
import subprocess
import tempfile
import time
from pathlib import Path

from harness import DEADLINE, SEED, Case, checksum, left_since

TIMES = 3


class KillDaemon(Case):
    """Two VMs watch: `anchor` runs all the time and counts; `vault` is stopped, its work disk has a known checksum."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        print(f"(moments of {cls.__name__}: BANGER_TEST_SEED={SEED})", flush=True)
        cls.place.banger("create", "vault")
        cls.place.shell("vault", "head -c 20M /dev/urandom >/root/treasure; sync")
        cls.place.banger("stop", "vault")
        cls.vault_disk = cls.place.directory(cls.place.vms()["vault"]) / "work.ext4"
        cls.treasure = checksum(cls.vault_disk)
        counting = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done"
        cls.place.banger("run", "-d", "--name", "anchor", "--", "sh", "-c", counting)
        cls.anchor_boot = cls.place.boot_id("anchor")
        cls.counted = 0

    def kill_in(self, *verb, takes, prepare=None, settle=None, check=None):
        """Runs a verb TIMES times and kills the daemon at a random moment of each third of `takes` seconds; then everything must be right."""
        for attempt in range(TIMES):
            if prepare:
                prepare()
            moment = (attempt + self.random.random()) / TIMES * takes * 1.1
            with self.subTest(verb=verb[0], attempt=attempt, moment=round(moment, 3)):
                self.interrupt(verb, moment)
                self.place.start_daemon()
                self.assert_nobody_noticed()
                self.assert_as_recorded()
                if check:
                    check()
            if settle:
                settle()

    def interrupt(self, verb, moment):
        client = self.place.start(*verb, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        pidfd = os.pidfd_open(client.pid)
        # Not a sleep: if the verb is quicker than expected, the daemon is killed right after it.
        select.select([pidfd], [], [], moment)
        os.close(pidfd)
        self.place.kill_daemon()
        # Its client sees the connection break and ends by itself.
        client.wait(timeout=DEADLINE)

    def assert_nobody_noticed(self):
        self.assertEqual(self.place.boot_id("anchor"), self.anchor_boot)
        count = int(self.place.banger("logs", "anchor").split()[-1])
        self.assertGreater(count, self.counted, "the detached command of `anchor` does not count on")
        type(self).counted = count
        self.assertEqual(checksum(self.vault_disk), self.treasure, "the work disk of `vault` has changed")
        self.assertEqual(self.place.vms()["vault"]["state"], "stopped")

    def seconds_of(self, *verb):
        began = time.monotonic()
        self.place.banger(*verb)
        return time.monotonic() - began

    def remove(self, name):
        if name in self.place.vms():
            self.place.banger("rm", "--force", name)

    def test_create(self):
        takes = self.seconds_of("create", "fresh")
        self.remove("fresh")

        def usable_or_gone():
            if "fresh" in self.place.vms():
                self.place.run("start", "fresh")
                self.assertEqual(self.place.shell("fresh", "hostname"), "fresh")

        self.kill_in("create", "fresh", takes=takes, check=usable_or_gone, settle=lambda: self.remove("fresh"))

    def test_exec(self):
        command = ["exec", "anchor", "--", "sh", "-c", "seq 1 100000; exec sleep 0.7717"]
        takes = self.seconds_of(*command)

        def command_is_gone():
            script = "for i in $(seq 100); do pgrep -xf 'sleep 0.7717' >/dev/null || exit 0; sleep 0.05; done; exit 1"
            self.place.shell("anchor", script)

        self.kill_in(*command, takes=takes, check=command_is_gone)

    def test_cp_into_the_guest(self):
        with self.random_file() as source:
            command = ["cp", source, "anchor:/root/copy"]
            takes = self.seconds_of(*command)

            def once_more_and_whole():
                self.place.banger(*command)
                there = self.place.shell("anchor", "sha256sum </root/copy; ls -A /root | grep -c copy").split()
                self.assertEqual([there[0], there[2]], [sha256(source), "1"], "a half copy stays beside it")

            self.kill_in(*command, takes=takes, check=once_more_and_whole)

    def test_cp_out_of_the_guest(self):
        self.place.shell("anchor", "head -c 64M /dev/urandom >/root/origin")
        digest = self.place.shell("anchor", "sha256sum </root/origin").split()[0]
        with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
            target = Path(directory) / "copy"
            command = ["cp", "anchor:/root/origin", target]
            takes = self.seconds_of(*command)

            def once_more_and_whole():
                self.place.banger(*command)
                self.assertEqual(sha256(target), digest)
                self.assertEqual(os.listdir(directory), ["copy"], "a half copy stays beside it")

            self.kill_in(*command, takes=takes, check=once_more_and_whole)

    def test_start(self):
        self.keep_something_in("worker")
        self.place.banger("stop", "worker")
        takes = self.seconds_of("start", "worker")

        def stopped():
            if self.place.vms()["worker"]["state"] == "running":
                self.place.banger("kill", "worker")

        def still_there():
            if self.place.vms()["worker"]["state"] != "running":
                self.place.banger("start", "worker")
            self.assertEqual(self.place.shell("worker", "sha256sum </root/kept").split()[0], self.kept)

        self.kill_in("start", "worker", takes=takes, prepare=stopped, check=still_there)
        self.remove("worker")

    def test_stop(self):
        self.keep_something_in("worker")
        takes = self.seconds_of("stop", "worker")

        def running():
            if self.place.vms()["worker"]["state"] != "running":
                self.place.banger("start", "worker")

        def still_there():
            running()
            self.assertEqual(self.place.shell("worker", "sha256sum </root/kept").split()[0], self.kept)

        self.kill_in("stop", "worker", takes=takes, prepare=running, check=still_there)
        self.remove("worker")

    def test_rm(self):
        def there():
            if "worker" not in self.place.vms():
                self.place.banger("create", "worker")

        there()
        takes = self.seconds_of("rm", "--force", "worker")
        self.kill_in("rm", "--force", "worker", takes=takes, prepare=there)
        self.remove("worker")

    def keep_something_in(self, name):
        self.place.banger("create", name)
        self.place.shell(name, "head -c 1M /dev/urandom >/root/kept; sync")
        self.kept = self.place.shell(name, "sha256sum </root/kept").split()[0]

    @contextlib.contextmanager
    def random_file(self):
        with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:
            file.write(os.urandom(64 << 20))
            file.flush()
            yield file.name


class KillDaemonInImageBuild(Case):
    """The same for `image build`, which needs the network and takes long: one of the moments is early."""

    own_state = True

    def test_image_build(self):
        print(f"(moments: BANGER_TEST_SEED={SEED})", flush=True)
        before = set(self.place.banger("image", "ls", "-q").split())
        images = set(os.listdir(self.place.state / "images"))
        for attempt in range(TIMES):
            self.place.stop_daemon()
            self.place.start_daemon(network=True)
            moment = self.random.uniform(*[(0, 3), (3, 10), (10, 20)][attempt])
            with self.subTest(attempt=attempt, moment=round(moment, 3)):
                client = self.place.start("image", "build", "second", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                pidfd = os.pidfd_open(client.pid)
                select.select([pidfd], [], [], moment)
                os.close(pidfd)
                self.place.kill_daemon()
                client.wait(timeout=DEADLINE)
                self.place.start_daemon(network=True)
                if client.returncode == 0 or "second" in self.place.banger("image", "ls", "-q").split():
                    # A quick machine was done before: then it is a whole image, and can be removed as one.
                    self.place.banger("image", "rm", "second")
                self.assertEqual(set(self.place.banger("image", "ls", "-q").split()), before)
                self.assertEqual(set(os.listdir(self.place.state / "images")), images)
                self.assertEqual(os.listdir(self.place.state / "tmp"), [])
                self.assert_no_builder_lives()

    def assert_no_builder_lives(self):
        left = left_since(self.processes_before | {self.place.daemon.pid})
        self.assertEqual(left, [], "the build's processes live on")


def sha256(path):
    return subprocess.check_output(["sha256sum", path], text=True).split()[0]
