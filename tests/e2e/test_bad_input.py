"""What goes wrong: each with a one-line cause, a line on what to do, the right exit code, and nothing left or lost."""

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path

from harness import BIN, Case, Failed, Place

MIB = 1 << 20


class Requests(Case):
    """Requests that cannot be: nothing of them remains."""

    def tearDown(self):
        self.assert_as_recorded()

    def test_names(self):
        for name in ("UPPER", "-dash", "dash-", "under_score", "dotted.name", "ü", "a" * 64, "", "a b", "../x"):
            with self.subTest(name=name):
                self.fails("create", "--", name, code=2, cause="name")
        self.assertEqual(self.place.vms(), {})

    def test_sizes_and_counts(self):
        for option, value in (
            ("--memory", "0"), ("--memory", "1M"), ("--memory", "lots"), ("--memory", "-1G"), ("--memory", "99999T"),
            ("--disk", "0"), ("--disk", "12X"), ("--disk", "99999999999999999999G"), ("--cpus", "0"), ("--cpus", "many"),
            ("--cpus", "100000"),
        ):  # fmt: skip
            with self.subTest(option=option, value=value):
                result = self.place.run("create", "sized", f"{option}={value}")
                self.assertEqual(result.returncode, 2, result.stdout + result.stderr)
                self.assertIn("error: ", result.stderr)
        self.assertEqual(self.place.vms(), {})

    def test_unknown_words(self):
        for words in (["fly"], ["create", "--colour", "red"], ["image", "paint"], ["exec", "box"]):
            with self.subTest(words=words):
                self.assertEqual(self.place.run(*words).returncode, 2)

    def test_unknown_image(self):
        self.fails("create", "lost", "--image", "nowhere", cause="nowhere", help="image")

    def test_unknown_vm(self):
        for verb in ("show", "start", "stop", "rm", "logs"):
            with self.subTest(verb=verb):
                self.fails(verb, "nobody", cause="nobody", help="banger")

    def test_duplicate_name(self):
        self.place.banger("create", "--stopped", "twin")
        disk = self.place.directory(self.place.vms()["twin"])
        before = sorted(path.stat().st_ino for path in disk.iterdir())
        self.fails("create", "twin", cause="twin", help="")
        self.assertEqual(sorted(path.stat().st_ino for path in disk.iterdir()), before, "the first one's disks changed")
        self.place.banger("rm", "twin")

    def test_image_in_use_stays(self):
        image = self.place.json("image", "ls")[0]
        self.place.banger("create", "--stopped", "user")
        self.fails("image", "rm", image["name"], cause="user", help="")
        self.assertEqual([image["id"]], os.listdir(self.place.state / "images"))
        self.place.banger("rm", "user")

    def test_a_second_daemon_names_the_first(self):
        second = subprocess.run([BIN / "bangerd"], env=self.place.environment, capture_output=True, text=True, timeout=30)
        self.assertEqual(second.returncode, 1)
        self.assertIn(str(self.place.daemon.pid), second.stderr)
        self.place.banger("vm", "ls")

    def test_no_permission_on_the_socket(self):
        # A copy, because a checkout may lie where another user cannot go.
        self.place.runtime_root.chmod(0o755)
        program = shutil.copy(BIN / "banger", self.place.runtime_root)
        result = subprocess.run(
            [program, "vm", "ls"], env=self.place.environment, user=65534, group=65534, extra_groups=[],
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
        self.assertRegex(result.stderr, r"(?i)^error: .*permission")
        self.assertIn("\nhelp: ", result.stderr)

    def test_daemon_of_another_version(self):
        path = self.place.runtime_root / "other.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        body = json.dumps({"version": "9.9.9", "api": 99, "protocol": 99}).encode()
        head = f"HTTP/1.1 200 OK\r\nbanger-api: 99\r\nbanger-version: 9.9.9\r\ncontent-length: {len(body)}\r\n\r\n"

        def answer():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    if connection.recv(65536):
                        connection.sendall(head.encode() + body)

        threading.Thread(target=answer, daemon=True).start()
        try:
            result = self.place.run("vm", "ls", env={**self.place.environment, "BANGER_HOST": str(path)})
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn("9.9.9", result.stderr)
        self.assertIn("\nhelp: ", result.stderr)

    def test_unknown_key_in_the_configuration_is_an_error_with_a_suggestion(self):
        place = Place()
        Path(place.environment["BANGER_CONFIG"]).write_text("loglevel = \"debug\"\n")
        result = subprocess.run([BIN / "bangerd"], env=place.environment, capture_output=True, text=True, timeout=30)
        place.remove()
        self.assertEqual(result.returncode, 1)
        self.assertIn("loglevel", result.stderr)


class Guests(Case):
    """Guests that do not do as they should."""

    def tearDown(self):
        for name in self.place.vms():
            self.place.banger("rm", "--force", name)
        self.assert_as_recorded()

    def test_busy_vm_refuses_a_second_operation(self):
        self.place.banger("create", "slow")
        vmm = self.place.vms()["slow"]["pid"]
        # A guest that stands still does not go down, so that its stop takes as long as the test wants.
        os.kill(vmm, signal.SIGSTOP)
        try:
            first = self.place.start("stop", "--timeout", "60", "slow")
            self.wait_for_state("slow", "stopping")
            self.fails("start", "slow", cause="slow", help="")
        finally:
            os.kill(vmm, signal.SIGCONT)
        first.communicate(timeout=90)
        self.assertEqual(first.returncode, 0)
        self.assertEqual(self.place.vms()["slow"]["state"], "stopped")

    def test_start_of_what_runs_and_stop_of_what_does_not(self):
        self.place.banger("create", "twice")
        boot = self.place.boot_id("twice")
        self.place.run("start", "twice")
        self.assertEqual(self.place.boot_id("twice"), boot)
        self.place.banger("stop", "twice")
        self.place.run("stop", "twice")
        self.assertEqual(self.place.vms()["twice"]["state"], "stopped")
        self.fails("exec", "twice", "--", "true", code=125, cause="twice", help="banger start")

    def test_rm_of_what_runs_wants_force(self):
        self.place.banger("create", "alive")
        boot = self.place.boot_id("alive")
        self.fails("rm", "alive", cause="alive", help="--force")
        self.assertEqual(self.place.boot_id("alive"), boot)

    def test_killed_agent(self):
        """What waits for it ends at once, later commands fail with a cause; stop and start bring it back, with its work disk."""
        self.place.banger("create", "mute")
        self.place.shell("mute", "echo kept >/root/kept; sync")
        waiting = self.place.start("exec", "mute", "--", "sh", "-c", "echo up; exec sleep 600")
        self.assertEqual(waiting.stdout.readline(), b"up\n")
        killing = self.place.run("exec", "mute", "--", "sh", "-c", "kill -9 $(cat /run/banger/agent.pid)", seconds=20)
        self.assertEqual(killing.returncode, 125, killing.stderr)
        _, err = waiting.communicate(timeout=20)
        self.assertEqual(waiting.returncode, 125, err)
        result = self.place.run("exec", "mute", "--", "true", seconds=90)
        self.assertEqual(result.returncode, 125, result.stderr)
        self.assertIn("mute", result.stderr.splitlines()[0])
        self.assertTrue(result.stderr.splitlines()[1].startswith("help: "), result.stderr)
        self.place.banger("stop", "--timeout", "2", "mute")
        self.place.banger("start", "mute")
        self.assertEqual(self.place.shell("mute", "cat /root/kept"), "kept")

    def test_killed_vmm(self):
        """A VMM that dies is a stopped VM, with the reason."""
        self.place.banger("create", "victim")
        self.place.shell("victim", "echo kept >/root/kept; sync")
        vmm = self.place.vms()["victim"]["pid"]
        waiting = self.place.start("exec", "victim", "--", "sh", "-c", "echo up; sleep 600")
        self.assertEqual(waiting.stdout.readline(), b"up\n")
        os.kill(vmm, signal.SIGKILL)
        _, err = waiting.communicate(timeout=60)
        self.assertEqual(waiting.returncode, 125, err)
        self.wait_for_state("victim", "stopped")
        self.assertTrue(self.place.vms()["victim"]["reason"])
        self.place.banger("start", "victim")
        self.assertEqual(self.place.shell("victim", "cat /root/kept"), "kept")

    def wait_for_state(self, name, state):
        """Asks again and again, for lack of a verb that waits; each question is a whole command, so it is no busy loop."""
        for _ in range(2000):
            if self.place.vms()[name]["state"] == state:
                return
        raise Failed(f"{name} does not become {state}: {self.place.vms()[name]}")


class Broken(Case):
    """A host or an image that is broken: `create` fails with the cause and leaves nothing, `start` loses nothing."""

    own_state = True

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.place.banger("create", "--stopped", "old")
        cls.record = cls.place.directory(cls.place.vms()["old"])

    def with_daemon(self, *args, inside=()):
        self.place.stop_daemon()
        self.place.start_daemon(*args, inside=inside)
        self.addCleanup(lambda: (self.place.stop_daemon(), self.place.start_daemon()))

    def create_and_start_fail(self, cause):
        self.fails("create", "doomed", cause=cause, help="", seconds=150)
        self.fails("start", "old", cause=cause, help="", seconds=150)
        self.assertEqual({name: vm["state"] for name, vm in self.place.vms().items()}, {"old": "stopped"})
        self.assert_as_recorded()
        self.assertTrue((self.record / "work.ext4").exists())

    def test_qemu_that_dies_at_once(self):
        stand_in = self.place.runtime_root / "qemu"
        stand_in.write_text(
            "#!/bin/sh\ncase $1 in --version|-version) echo 'QEMU emulator version 10.0.2'; exit ;; esac\n"
            "echo 'qemu: no such thing as a machine' >&2\nexit 1\n"
        )
        stand_in.chmod(0o755)
        self.place.runtime_root.chmod(0o755)
        self.with_daemon(inside=f"mount --bind {stand_in} /usr/bin/qemu-system-x86_64")
        self.create_and_start_fail("no such thing as a machine")

    def test_guest_that_panics(self):
        self.with_daemon("--agent", self.static_program("int main(void) { return 3; }"))
        self.create_and_start_fail("")

    def test_guest_that_never_answers(self):
        # The test waits for the deadline, and the usual one is a minute.
        config = Path(self.place.environment["BANGER_CONFIG"])
        config.write_text("[timeouts]\nagent_s = 10\n")
        self.with_daemon("--agent", self.static_program("#include <unistd.h>\nint main(void) { for (;;) pause(); }"))
        # Before the next daemon starts, which is a cleanup, too.
        self.addCleanup(config.unlink)
        self.create_and_start_fail("did not answer within 10 s")

    def test_root_disk_without_a_file_system(self):
        image = self.place.json("image", "ls")[0]
        disk = self.place.state / "images" / image["id"] / "root.ext4"
        self.place.stop_daemon()
        with open(disk, "r+b") as file:
            superblock = file.read(64 * 1024)
            file.seek(0)
            file.write(bytes(len(superblock)))
        self.place.start_daemon()
        try:
            self.fails("create", "doomed", cause="", help="", seconds=150)
            self.assertEqual(set(self.place.vms()), {"old"})
            self.assert_as_recorded()
        finally:
            with open(disk, "r+b") as file:
                file.write(superblock)

    def test_no_room_while_cloning(self):
        """On a small file system of its own, which the daemon alone has mounted."""
        small = Path("/var/tmp") / f"{self.place.runtime_root.name}.ext4"
        self.addCleanup(small.unlink)
        self.place.stop_daemon()
        taken = int(subprocess.check_output(["du", "-sm", self.place.state], text=True).split()[0])
        subprocess.run(
            ["mke2fs", "-q", "-t", "ext4", "-m", "0", "-d", self.place.state, small, f"{int(taken * 1.1) + 96}M"], check=True
        )
        self.place.start_daemon(inside=f"mount -o loop {small} {self.place.state}")
        self.addCleanup(lambda: (self.place.stop_daemon(), self.place.start_daemon()))
        # What the daemon sees.
        seen = Path(f"/proc/{self.place.daemon.pid}/root{self.place.state}")
        before = sorted(os.listdir(seen / "vms"))
        free = os.statvfs(seen).f_bavail
        self.fails("create", "doomed", cause="no space", help="")
        self.assertEqual(sorted(os.listdir(seen / "vms")), before)
        self.assertEqual(os.listdir(seen / "tmp"), [])
        self.assertEqual(set(self.place.vms()), {"old"})
        self.assertLess(abs(os.statvfs(seen).f_bavail - free), 1024, "what was cloned still takes room")

    def static_program(self, text):
        source = self.place.runtime_root / "agent.c"
        source.write_text(text)
        program = self.place.runtime_root / "agent"
        subprocess.run(["gcc", "-static", "-Os", "-o", program, source], check=True)
        return str(program)
