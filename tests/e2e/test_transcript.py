"""What one does with a VM on an ordinary day, with real guests."""

import hashlib
import json
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

from harness import BIN, Case, Failed, Process
from terminal import Shown

GIB = 1 << 30
MIB = 1 << 20


class Transcript(Case):
    """One VM, `box`, and what is done with it. Each test leaves it running."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.place.banger("vm", "create", "box")
        cls.files = Path(cls.enterClassContext(tempfile.TemporaryDirectory(dir="/var/tmp")))

    # Commands.

    def test_exit_code_is_the_commands(self):
        for code in (0, 1, 7, 255):
            self.assertEqual(self.place.run("exec", "box", "--", "sh", "-c", f"exit {code}").returncode, code)

    def test_codes_of_commands_that_cannot_run(self):
        self.assertEqual(self.place.run("exec", "box", "--", "no-such-program").returncode, 127)
        self.assertEqual(self.place.run("exec", "box", "--", "/etc/passwd").returncode, 126)
        self.assertEqual(self.place.run("exec", "no-such-vm", "--", "true").returncode, 125)
        self.assertEqual(self.place.run("exec", "box", "--", "sh", "-c", "kill -9 $$").returncode, 128 + 9)

    def test_output_and_errors_are_two_streams(self):
        result = self.place.run("exec", "box", "--", "sh", "-c", "echo out; echo err >&2")
        self.assertEqual((result.stdout, result.stderr), ("out\n", "err\n"))

    def test_stdin_pipes_through(self):
        self.assertEqual(self.place.banger("exec", "box", "--", "cat", input="hi\n"), "hi\n")

    def test_a_reader_that_goes_away_ends_the_command(self):
        began = time.monotonic()
        head = subprocess.run(
            ["bash", "-c", '"$0" exec box -- yes | head -1', self.banger_path()],
            env=self.place.environment, stdout=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
        self.assertEqual(head.stdout, "y\n")
        self.assertLess(time.monotonic() - began, 1.0)
        self.wait_until_gone("yes")

    def test_environment_workdir_and_user(self):
        out = self.place.banger(
            "exec", "--env", "A=b c", "--workdir", "/tmp", "--user", "nobody", "box", "--", "sh", "-c", 'echo "$A" $PWD $(id -un)'
        )
        self.assertEqual(out, "b c /tmp nobody\n")

    def test_interrupt_reaches_the_command(self):
        running = self.place.start("exec", "box", "--", "sh", "-c", "trap 'echo caught; exit 9' INT; echo up; while :; do sleep 1; done")
        self.assertEqual(running.stdout.readline(), b"up\n")
        running.send_signal(2)
        out, _ = running.communicate(timeout=30)
        self.assertEqual((out, running.returncode), (b"caught\n", 9))

    def test_a_client_that_dies_takes_its_command_with_it(self):
        running = self.place.start("exec", "box", "--", "sh", "-c", "echo up; exec sleep 4242")
        self.assertEqual(running.stdout.readline(), b"up\n")
        running.kill()
        running.communicate()
        self.wait_until_gone("sleep 4242")

    def test_shell_in_a_terminal_sees_its_size_change(self):
        socket = str(self.files / "tmux")
        tmux = lambda *words: subprocess.run(
            ["tmux", "-S", socket, *words], env={**self.place.environment, "TERM": "xterm"},
            stdout=subprocess.PIPE, check=True, text=True, timeout=60,
        ).stdout  # fmt: skip
        # The guest itself says when it is done: it writes to a FIFO that the test reads.
        done = self.files / "screen"
        os.mkfifo(done)
        tmux("-f", "/dev/null", "new-session", "-d", "-x", "101", "-y", "31", f"{self.banger_path()} shell box")
        tmux("set", "-g", "window-size", "manual")
        try:
            tmux("pipe-pane", f"exec cat >{done}")
            with open(done, "rb", buffering=0) as screen:
                shown = Shown(screen.fileno())
                tmux("send-keys", "stty size; echo at-$((40+2))", "Enter")
                self.assertIn("31 101", shown.until("at-42")["before"])
                tmux("resize-window", "-x", "77", "-y", "22")
                tmux("send-keys", "stty size; echo at-$((50+2))", "Enter")
                self.assertIn("22 77", shown.until("at-52")["before"])
                tmux("send-keys", "exit", "Enter")
        finally:
            subprocess.run(["tmux", "-S", socket, "kill-server"], stderr=subprocess.DEVNULL)

    def test_detached_command_lives_on_and_its_output_is_kept(self):
        started = self.place.json("exec", "-d", "box", "--", "sh", "-c", "echo one; sleep 1; echo two; exit 5")
        self.assertEqual(self.place.banger("logs", "--follow", "--command", started["id"], "box"), "one\ntwo\n")
        commands = {command["id"]: command for command in self.place.json("logs", "--list", "box")}
        self.assertEqual(commands[started["id"]]["exit"], {"code": 5})

    # Files.

    def test_a_tree_there_and_back_again(self):
        tree = self.files / "tree"
        (tree / "deep/er").mkdir(parents=True)
        (tree / "deep/er/random").write_bytes(os.urandom(3 * MIB))
        (tree / "run me").write_text("#!/bin/sh\n")
        (tree / "run me").chmod(0o751)
        (tree / "link").symlink_to("deep/er/random")
        (tree / "empty").touch()
        with open(tree / "sparse", "wb") as sparse:
            sparse.truncate(256 * MIB)
            sparse.seek(128 * MIB)
            sparse.write(b"middle")
        self.place.banger("cp", "-r", tree, "box:/root/")
        sums = "cd %s; find . -type f -exec sha256sum {} + | sort; find . -printf '%%P %%m %%l\n' | sort"
        there = self.place.shell("box", sums % "/root/tree")
        self.assertEqual(there, subprocess.check_output(["sh", "-c", sums % tree], text=True).rstrip("\n"))
        self.assertLess(int(self.place.shell("box", "stat -c '%b' /root/tree/sparse")) * 512, 8 * MIB)
        self.place.banger("cp", "-r", "box:/root/tree", self.files / "back")
        back = subprocess.check_output(["sh", "-c", sums % (self.files / "back")], text=True).rstrip("\n")
        self.assertEqual(back, there)
        self.assertLess((self.files / "back/sparse").stat().st_blocks * 512, 8 * MIB)
        self.place.shell("box", "rm -r /root/tree")

    def test_a_gibibyte_through_exec_leaves_daemon_and_agent_small(self):
        with self.grows_by_less_than(16 * MIB):
            digest = self.stream("exec", "box", "--", "head", "-c", str(GIB), "/dev/zero")
            self.assertEqual(digest, (GIB, zeros_digest()))
        with self.grows_by_less_than(16 * MIB):
            source = subprocess.Popen(["head", "-c", str(GIB), "/dev/zero"], stdout=subprocess.PIPE)
            counted = self.place.start("exec", "box", "--", "wc", "-c", stdin=source.stdout)
            source.stdout.close()
            out, err = counted.communicate(timeout=300)
            source.wait()
            self.assertEqual((counted.returncode, out.split()), (0, [str(GIB).encode()]), err)

    def test_a_gibibyte_through_cp_leaves_daemon_and_agent_small(self):
        big = self.files / "big"
        with open(big, "wb") as file:
            block = os.urandom(MIB)
            for _ in range(GIB // MIB):
                file.write(block)
        with self.grows_by_less_than(16 * MIB):
            self.place.banger("cp", big, "box:/var/tmp/big", seconds=300)
        self.assertEqual(int(self.place.shell("box", "stat -c %s /var/tmp/big")), GIB)
        with self.grows_by_less_than(16 * MIB):
            self.place.banger("cp", "box:/var/tmp/big", self.files / "again", seconds=300)
        subprocess.run(["cmp", big, self.files / "again"], check=True)
        self.place.shell("box", "rm /var/tmp/big")

    # The machine.

    def test_it_is_as_it_was_asked_for(self):
        self.place.banger("create", "odd", "--cpus", "1", "--memory", "640M", "--disk", "3G", "--env", "COLOUR=blue")
        try:
            self.assertEqual(self.place.shell("odd", "nproc; hostname; echo $COLOUR").split(), ["1", "odd", "blue"])
            total = int(self.place.shell("odd", "awk '/MemTotal/ { print $2 }' /proc/meminfo")) * 1024
            self.assertTrue(540 * MIB < total <= 640 * MIB, total)
            size = int(self.place.shell("odd", "df -B1 --output=size /root | tail -1"))
            self.assertTrue(2.7 * GIB < size <= 3 * GIB, size)
        finally:
            self.place.banger("rm", "--force", "odd")

    def test_readiness_levels_come_in_order(self):
        self.place.banger("create", "level", "--wait", "system")
        try:
            self.assertIn(self.place.run("exec", "level", "--", "systemctl", "is-system-running").stdout.strip(), ("running", "degraded"))
            self.assertEqual(self.place.shell("level", "systemctl --failed --no-legend --plain"), "")
        finally:
            self.place.banger("rm", "--force", "level")

    def test_stop_and_start_keep_the_work_disk_and_change_the_boot(self):
        self.place.shell("box", "echo kept >/root/kept; sync")
        boot = self.place.boot_id("box")
        self.place.banger("stop", "box")
        self.assertEqual(self.place.vms()["box"]["state"], "stopped")
        self.assertEqual(self.place.vmm_processes(), set())
        self.place.banger("start", "box")
        self.assertEqual(self.place.shell("box", "cat /root/kept"), "kept")
        self.assertNotEqual(self.place.boot_id("box"), boot)

    def test_run_in_a_checkout_sees_its_files_and_leaves_no_vm(self):
        checkout = self.files / "project"
        checkout.mkdir()
        git = lambda *words: subprocess.run(["git", "-C", checkout, *words], check=True, stdout=subprocess.DEVNULL)
        git("init", "-q")
        (checkout / ".gitignore").write_text("ignored\n")
        for name in ("tracked", "untracked", "ignored"):
            (checkout / name).write_text(name)
        git("add", "tracked", ".gitignore")
        out = self.place.banger("run", "--rm", ".", "--", "sh", "-c", "pwd; ls", cwd=checkout)
        self.assertEqual(out.split(), ["/root/project", "tracked", "untracked"])
        self.assertEqual(self.place.run("run", "--rm", "--", "sh", "-c", "exit 42").returncode, 42)
        self.assertEqual(set(self.place.vms()), {"box"})

    def test_ephemeral_vm_goes_when_its_client_is_killed(self):
        client = self.place.start("run", "--rm", "--name", "brief", "--", "sh", "-c", "echo up; sleep 600")
        self.assertEqual(client.stdout.readline(), b"up\n")
        vmm = self.place.vms()["brief"]
        process = Process(vmm["pid"])
        client.kill()
        client.communicate()
        self.assertTrue(process.ended())
        # Queued behind the removal, if that is still under way; whoever comes first, the VM is gone then.
        self.place.run("rm", "--force", "brief")
        self.assertFalse(self.place.directory(vmm).exists())

    def test_timings_name_every_stage_and_sum_up(self):
        result = self.place.run("--timings", "run", "--rm", "--", "true")
        self.assertEqual(result.returncode, 0, result.stderr)
        for stage in ("disk.clone", "work.clone", "vmm.start", "agent.ready"):
            self.assertRegex(result.stderr, re.escape(stage) + r"\s+[\d.]+ m?s")

    # What the tests above use.

    def banger_path(self):
        return str(BIN / "banger")

    def wait_until_gone(self, words):
        """The guest waits by itself until no process has this command line; it has a deadline."""
        script = "for i in $(seq 100); do pgrep -xf \"$1\" >/dev/null || exit 0; sleep 0.05; done; exit 1"
        result = self.place.run("exec", "box", "--", "sh", "-c", script, "sh", words)
        self.assertEqual(result.returncode, 0, f"`{words}` still runs in the guest")

    def stream(self, *args):
        """How much a command prints, and its digest."""
        popen = self.place.start(*args)
        digest, length = hashlib.sha256(), 0
        while data := popen.stdout.read(MIB):
            digest.update(data)
            length += len(data)
        if popen.wait() != 0:
            raise Failed(popen.stderr.read().decode())
        popen.stderr.close()
        popen.stdout.close()
        return length, digest.hexdigest()

    def grows_by_less_than(self, limit):
        return Growth(self, limit)


class Growth:
    """Compares the peak memory of daemon and agent inside a `with` with what they had before it."""

    def __init__(self, case, limit):
        self.case, self.limit = case, limit

    def __enter__(self):
        # Once, so that buffers that stay are there already.
        self.case.place.shell("box", "true")
        self.before = self.memory("VmRSS")
        Path(f"/proc/{self.case.place.daemon.pid}/clear_refs").write_text("5")
        self.case.place.shell("box", "echo 5 >/proc/$(pidof -s banger-agent init | cut -d' ' -f1)/clear_refs")

    def __exit__(self, failed, *_):
        if failed:
            return
        for who, before, after in zip(("daemon", "agent"), self.before, self.memory("VmHWM")):
            self.case.assertLess(after - before, self.limit, f"the {who} grew from {before} to {after} bytes")

    def memory(self, field):
        awk = f"awk '/^{field}:/ {{ print $2 * 1024 }}'"
        daemon = subprocess.check_output(["sh", "-c", f"{awk} /proc/{self.case.place.daemon.pid}/status"])
        agent = self.case.place.shell("box", f"{awk} /proc/$(cat /run/banger/agent.pid)/status")
        return int(daemon), int(agent)


def zeros_digest():
    digest = hashlib.sha256()
    block = bytes(MIB)
    for _ in range(GIB // MIB):
        digest.update(block)
    return digest.hexdigest()
