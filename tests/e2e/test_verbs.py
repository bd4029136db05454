"""The verbs on VMs that exist, with real guests: what each says is what the guest then shows."""

import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path

from harness import BIN, Case, Failed, Process
from terminal import Shown

MIB = 1 << 20
GIB = 1 << 30


class Verbs(Case):
    def tearDown(self):
        self.place.run("rm", "--force", "--all")
        self.assert_as_recorded()

    def test_set_says_when_each_field_takes_effect_and_the_guest_proves_it(self):
        self.place.banger("create", "box", "--cpus", "2", "--memory", "512M", "--disk", "2G", "-e", "OLD=1")
        boot = self.place.boot_id("box")
        self.place.shell("box", "echo kept >/root/kept; sync; mkdir /srv/here")
        changed = self.place.json(
            "set", "box", "--cpus", "1", "--memory", "640M", "--disk", "3G", "-e", "NEW=2", "--unset-env", "OLD",
            "-w", "/srv/here", "--restart", "on-failure",
        )  # fmt: skip
        effects = {change["field"]: change["effect"] for change in changed["changes"]}
        self.assertEqual(
            effects,
            {"cpus": "next_start", "memory": "next_start", "disk": "now", "env.NEW": "now", "env.OLD": "now", "workdir": "now", "restart": "now"},
        )
        self.assertEqual(self.place.shell("box", 'echo "$NEW" "${OLD-none}" $PWD $(nproc)'), "2 none /srv/here 2")
        self.assertGreater(self.size_of_work_disk("box"), 2.7 * GIB)
        self.assertEqual(self.place.boot_id("box"), boot)
        # What it has already is no change, and a work disk does not shrink.
        self.assertEqual(self.place.json("set", "box", "--cpus", "1")["changes"], [])
        self.fails("set", "box", "--disk", "1G", code=2, cause="only grow", help="--disk")

        self.place.banger("restart", "box")
        memory = int(self.place.shell("box", "awk '/MemTotal/ { print $2 }' /proc/meminfo")) * 1024
        self.assertTrue(540 * MIB < memory <= 640 * MIB, memory)
        self.assertEqual(self.place.shell("box", "nproc; cat /root/kept"), "1\nkept")
        self.assertGreater(self.size_of_work_disk("box"), 2.7 * GIB)

        # A stopped VM's work disk grows when it is started.
        self.place.banger("stop", "box")
        [change] = self.place.json("set", "box", "--disk", "4G")["changes"]
        self.assertEqual(change["effect"], "next_start")
        self.place.banger("start", "box")
        self.assertGreater(self.size_of_work_disk("box"), 3.7 * GIB)

    def size_of_work_disk(self, name):
        return int(self.place.shell(name, "df -B1 --output=size /root | tail -1"))

    def test_rename_keeps_disks_identity_and_the_running_guest(self):
        self.place.banger("create", "old")
        self.place.shell("old", "echo kept >/root/kept; sync")
        before = self.place.vms()["old"]
        machine = self.place.shell("old", "cat /etc/machine-id; ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub | cut -d' ' -f2")
        self.place.banger("rename", "old", "new")
        after = self.place.vms()["new"]
        self.assertEqual({**after, "generation": 0}, {**before, "generation": 0, "name": "new"})
        self.assertEqual(self.place.shell("new", "hostname; cat /etc/hostname; getent hosts new | wc -l").split(), ["new", "new", "1"])
        self.fails("show", "old", cause="no vm old")
        self.place.banger("create", "old")
        self.fails("rename", "new", "old", cause="taken", help="another name")
        self.fails("rename", "new", "Not_a_Name", code=2, cause="name", help="not-a-name")
        self.place.banger("restart", "new")
        self.assertEqual(self.place.shell("new", "hostname; cat /root/kept"), "new\nkept")
        same = self.place.shell("new", "cat /etc/machine-id; ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub | cut -d' ' -f2")
        self.assertEqual(same, machine)

    def test_restart_starts_what_is_down_and_boots_anew_what_runs(self):
        self.place.banger("create", "box", "--stopped")
        self.place.banger("restart", "box")
        boot = self.place.boot_id("box")
        self.place.banger("restart", "--force", "box", seconds=60)
        self.assertNotEqual(self.place.boot_id("box"), boot)
        self.assertEqual(self.place.vms()["box"]["state"], "running")

    def test_several_by_one_command(self):
        names = ["one", "two", "three"]
        for name in names:
            self.place.banger("create", "--stopped", "--memory", "256M", "-q", name)
        started = self.place.run("start", "three", "nope", "one", "three", "two")
        told = [line for line in started.stderr.splitlines() if not line.startswith("help: ")]
        self.assertEqual(started.returncode, 1)
        self.assertEqual([line.split(" in ")[0] for line in told], ["three is running", "error: there is no VM nope", "one is running", "two is running"])
        ids = {name: vm["id"] for name, vm in self.place.vms().items()}
        stopped = self.place.run("stop", "two", ids["one"], ids["three"][:6])
        self.assertEqual([line.split(" is ")[0] for line in stopped.stderr.splitlines()], ["two", "one", "three"], stopped.stderr)
        removed = self.place.run("rm", "--all")
        self.assertEqual(removed.returncode, 0, removed.stderr)
        self.assertEqual(self.place.vms(), {})

    def test_stats_of_host_and_guest(self):
        self.place.banger("create", "box", "--cpus", "1", "--memory", "512M", "--wait", "system")
        busy = self.place.start("exec", "box", "--", "sh", "-c", "while :; do :; done")
        try:
            stat = Path(f"/proc/{self.place.vms()['box']['pid']}/stat")
            used = lambda: sum(map(int, stat.read_text().rsplit(")", 1)[1].split()[11:13])) * 1_000_000 // os.sysconf("SC_CLK_TCK")
            before = used()
            [first] = self.place.json("stats", "--no-stream", "box")
            between = used()
            table = self.place.banger("stats", "--no-stream")
            [second] = self.place.json("stats", "--no-stream")
            after = used()
        finally:
            busy.kill()
            busy.communicate()
        self.assertTrue(before <= first["cpu_micros"] <= between <= second["cpu_micros"] <= after)
        self.assertTrue(first["cpu_micros"] < second["cpu_micros"] and first["at"] < second["at"])
        self.assertTrue(400 * MIB < second["guest"]["memory"] <= 512 * MIB, second)
        self.assertEqual({found["mounted_on"] for found in second["guest"]["file_systems"]}, {"/", "/root"})
        self.assertRegex(table.splitlines()[1], r"^box +\d+\.\d % ")
        self.place.banger("stop", "box")
        self.fails("stats", "box", cause="not running", help="banger start")
        self.assertEqual(self.place.json("stats", "--no-stream"), [])

    def test_prune_removes_what_is_down_and_nothing_else(self):
        self.place.banger("create", "up", "--memory", "256M")
        self.place.banger("create", "down", "--stopped")
        self.assertEqual(self.place.banger("prune", "--dry-run"), "down\n")
        self.fails("prune", code=2, cause="no terminal", help="--force")
        self.place.banger("prune", "--force")
        self.assertEqual(set(self.place.vms()), {"up"})

    def test_console_is_a_shell_that_outlives_the_agent(self):
        self.place.banger("create", "box", "--wait", "system")
        with Screen(self, f"{BIN}/banger console box", 90, 28) as screen:
            screen.says("this is box's console; Ctrl-] leaves it")
            screen.type("stty size; tty; echo at-$((40+2))")
            text = screen.says("at-42")
            self.assertIn("28 90", text)
            self.assertIn("/dev/ttyS0", text)
            screen.resize(70, 20)
            self.place.run("exec", "box", "--", "sh", "-c", "kill -9 $(cat /run/banger/agent.pid)", seconds=20)
            screen.type("echo still-$((50+2))")
            screen.says("still-52")
            screen.key("C-]")
            screen.says("left box's console; it goes on")
        with Screen(self, f"{BIN}/banger console box", 90, 28) as screen:
            screen.says("no shell was started there: ")
            screen.type("")
            screen.type("stty size; echo again-$((60+2))")
            self.assertIn("20 70", screen.says("again-62"))
            # Whoever looks on when the machine goes down is told so.
            self.place.banger("kill", "box")
            screen.says("box went down")
        self.fails("console", "box", code=2, cause="terminal", help="--follow")

    def test_the_consoles_log_can_be_followed(self):
        self.place.banger("create", "box", "--wait", "system")
        following = self.place.start("logs", "--console", "--follow", "box")
        self.place.shell("box", "echo 'a word from the kernel' >/dev/kmsg; echo 'a word on the console' >/dev/console")
        Shown(following.stdout.fileno()).until("a word on the console")
        self.place.banger("kill", "box")
        rest, err = following.communicate(timeout=30)
        self.assertEqual((following.returncode, err), (0, b""))
        self.assertEqual(self.place.run("logs", "--console", "box").stdout.encode().count(b"a word on the console"), 1)

    def test_a_guest_that_reboots_comes_back_and_one_that_powers_off_does_not(self):
        self.place.banger("create", "box", "--wait", "system")
        boot = self.place.boot_id("box")
        self.place.run("exec", "box", "--", "systemctl", "reboot")
        self.wait_for("box", lambda vm: vm["state"] == "running" and vm["boot_id"] != boot)
        self.place.banger("start", "box", "--wait", "system")
        self.place.run("exec", "box", "--", "systemctl", "poweroff")
        vm = self.wait_for("box", lambda vm: vm["state"] == "stopped")
        self.assertEqual((vm["reason"], vm.get("starts_again")), ("the guest went down", None))

    def wait_for(self, name, fits):
        """Asks again and again, each time by a whole command."""
        for _ in range(5000):
            if fits(vm := self.place.vms()[name]):
                return vm
        raise Failed(f"{name} does not become as it should: {vm}")


class Comeback(Case):
    """`--restart` across the death of everything."""

    own_state = True

    def test_those_that_shall_come_back_do_in_the_order_of_their_creation(self):
        place = self.place
        policies = {"first": "always", "second": "no", "third": "on-failure", "fourth": "always"}
        for name, policy in policies.items():
            place.banger("create", "-q", "--cpus", "1", "--memory", "256M", "--restart", policy, name)
            place.shell(name, f"echo {name} >/root/kept; sync")
        place.banger("stop", "fourth")
        before = place.vms()
        place.kill_daemon()
        for vm in before.values():
            if "pid" in vm:
                Process(vm["pid"]).kill()
        place.start_daemon()
        is_back = lambda vm: vm["state"] == "running" and vm["boot_id"] != before[vm["name"]]["boot_id"]
        vms = self.wait_until(lambda vms: is_back(vms["first"]) and is_back(vms["third"]))
        self.assertEqual(vms["second"]["state"], "stopped")
        self.assertIn("while no daemon ran", vms["second"]["reason"])
        self.assertEqual(vms["fourth"]["state"], "stopped", "who was stopped stays so")
        for name in ("first", "third"):
            self.assertEqual(place.shell(name, "cat /root/kept"), name)
        log = (place.state / "bangerd.log").read_text()
        begun = re.findall(r'"verb":"start","on":"(\w+)"', log)
        self.assertEqual(begun[-2:], ["first", "third"], "they are begun in the order of their creation")

        # One whose VMM is killed while a daemon looks on comes back too, after a pause.
        os.kill(vms["third"]["pid"], signal.SIGKILL)
        again = self.wait_until(lambda now: now["third"]["state"] == "running" and now["third"]["boot_id"] != vms["third"]["boot_id"])
        # And a power-off from inside is no failure.
        place.banger("start", "third", "--wait", "system")
        place.run("exec", "third", "--", "systemctl", "poweroff")
        self.wait_until(lambda now: now["third"]["state"] == "stopped")
        self.assertNotEqual(again["third"]["boot_id"], vms["third"]["boot_id"])
        self.assertNotIn("starts_again", place.vms()["third"])

    def wait_until(self, fits):
        for _ in range(5000):
            if fits(vms := self.place.vms()):
                return vms
        raise Failed(f"they do not become as they should: {vms}")


class Screen:
    """A command on a terminal of its own, by tmux; what it shows comes through a FIFO, as events."""

    def __init__(self, case, command, columns, rows):
        self.case, self.command, self.size = case, command, (columns, rows)
        self.directory = Path(case.enterContext(tempfile.TemporaryDirectory(dir="/var/tmp")))

    def tmux(self, *words):
        subprocess.run(
            ["tmux", "-S", self.directory / "tmux", *words], env={**self.case.place.environment, "TERM": "xterm"},
            check=True, timeout=60,
        )  # fmt: skip

    def __enter__(self):
        fifo = self.directory / "screen"
        os.mkfifo(fifo)
        columns, rows = map(str, self.size)
        # The command waits for a key, so that nothing it shows is missed.
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", columns, "-y", rows, f"read -r go; {self.command}; echo ended")
        self.tmux("set", "-g", "window-size", "manual")
        self.tmux("set", "-g", "remain-on-exit", "on")
        self.tmux("pipe-pane", f"exec cat >{fifo}")
        self.screen = open(fifo, "rb", buffering=0)
        self.shown = Shown(self.screen.fileno())
        self.type("")
        return self

    def __exit__(self, *_):
        self.screen.close()
        subprocess.run(["tmux", "-S", self.directory / "tmux", "kill-server"], stderr=subprocess.DEVNULL)

    def type(self, line):
        self.tmux("send-keys", "-l", line)
        self.key("Enter")

    def key(self, name):
        self.tmux("send-keys", name)

    def resize(self, columns, rows):
        self.tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def says(self, mark):
        """All that was shown up to a mark that no echo of a command holds."""
        return self.shown.until(re.escape(mark))["before"]
