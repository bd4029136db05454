"""A missing file is no proof of death: the tests delete and garble runtime files of running VMs, and kill the daemon in between.

Each verb then ends the VMM, or refuses and names it. The tests hold processes by pidfd and know disks by their inodes; they do not ask
banger whether something lives.
"""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path

from fake import FakeCase
from harness import Case, Process


@contextlib.contextmanager
def sleeper(**options):
    """A process that has nothing to do with VMs."""
    popen = subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL, **options)
    try:
        yield popen.pid
    finally:
        popen.kill()
        popen.wait()


def identity(pid):
    """The content of a pid file: the number and the start time."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    return f"{pid} {stat.rpartition(') ')[2].split()[19]}\n"


def lives(pid):
    try:
        return not Process(pid).ended(0)
    except ProcessLookupError:
        return False


def user(pid):
    return os.stat(f"/proc/{pid}").st_uid


class Losses:
    """What can happen to a VM's files, and what the tests expect afterwards."""

    def runtime(self, vm):
        return self.place.runtime / "vms" / vm["id"]

    def disk(self, vm):
        return os.stat(self.place.directory(vm) / "work.ext4").st_ino

    def lose(self, vm, what, innocent):
        directory = self.runtime(vm)
        match what:
            case "directory":
                shutil.rmtree(directory)
            case "all":
                shutil.rmtree(self.place.runtime / "vms")
            case "pid file":
                (directory / "vmm.pid").unlink()
            case "empty pid file":
                (directory / "vmm.pid").write_bytes(b"")
            case "garbled pid file":
                (directory / "vmm.pid").write_bytes(b"\xff\x00 nothing")
            case "another's pid file":
                (directory / "vmm.pid").write_text(identity(innocent))
            case "sockets":
                for socket in directory.glob("*.sock"):
                    socket.unlink()

    LOSSES = ("directory", "all", "pid file", "empty pid file", "garbled pid file", "another's pid file", "sockets")

    def restart_daemon(self):
        self.place.kill_daemon()
        self.place.start_daemon(*self.args)

    def refused(self, pid, *words):
        """The verb is refused, and the message names the process."""
        result = self.place.run(*words)
        self.assertNotEqual(result.returncode, 0, result.stdout)
        self.assertIn(str(pid), result.stderr)
        return result.stderr

    def told(self, *marks):
        """The findings of `verify` about these VMs; other daemons on this host may have left something that is not ours."""
        oddities = self.place.oddities()
        return [it for it in oddities if any(str(mark) in f"{it['which']} {it['found']}" for mark in marks)]

    def finding(self):
        """The findings of `doctor` about VMs. Its exit code is not 0 if anything fails."""
        result = self.place.run("-o", "json", "doctor")
        return next(finding for finding in json.loads(result.stdout) if finding["check"] == "vms")

    def running(self, name, *words):
        vms = self.place.vms()
        if name not in vms:
            self.place.banger("create", *words, name)
        elif vms[name]["state"] != "running":
            self.place.banger("start", name)
        return self.place.vms()[name]


class LostFiles(Losses, FakeCase):
    def test_whatever_is_lost_each_verb_ends_the_process_and_disks_go_only_after_it(self):
        verbs = [["kill", "one"], ["stop", "one"], ["rm", "--force", "one"]]
        with sleeper() as innocent:
            for place, what in enumerate(self.LOSSES):
                for daemon_dies in (False, True):
                    for verb in verbs if what == "directory" else [verbs[(place + daemon_dies) % 3]]:
                        with self.subTest(what=what, daemon_dies=daemon_dies, verb=verb[0]):
                            vm = self.running("one")
                            process, disk = Process(vm["pid"]), self.disk(vm)
                            self.lose(vm, what, innocent)
                            if daemon_dies:
                                self.restart_daemon()
                                self.assertEqual(self.place.settled()["one"].get("pid"), vm["pid"])
                            self.assertFalse(process.ended(0))
                            self.place.banger(*verb)
                            self.assertTrue(process.ended(0), f"process {vm['pid']} lives after `{verb[0]}`")
                            self.assertTrue(lives(innocent), "a process that only has the number was ended")
                            if verb[0] == "rm":
                                self.assertFalse(self.place.directory(vm).exists())
                            else:
                                self.assertEqual(self.disk(vm), disk)
            self.place.run("rm", "--force", "one")

    def test_a_vm_that_is_recorded_as_stopped_and_lives_is_named_and_keeps_its_disks(self):
        vm = self.running("ghost")
        process, disk = Process(vm["pid"]), self.disk(vm)
        self.place.kill_daemon()
        shutil.rmtree(self.runtime(vm))
        records = sqlite3.connect(self.place.state / "banger.db")
        with records:
            records.execute("""UPDATE vms SET state = '{"state":"stopped","reason":null}', wanted = 0 WHERE name = 'ghost'""")
        records.close()
        self.place.start_daemon(*self.args)
        self.assertFalse(process.ended(0))
        self.refused(vm["pid"], "start", "ghost")
        self.refused(vm["pid"], "rm", "ghost")
        self.assertEqual((process.ended(0), self.disk(vm)), (False, disk))
        told = [oddity["fix"] for oddity in self.told(vm["pid"]) if oddity["which"] == str(vm["pid"])]
        self.assertEqual(told, ["banger kill ghost"])
        self.assertIn(f"process {vm['pid']}", self.finding()["found"])
        self.place.banger("kill", "ghost")
        self.assertTrue(process.ended(0))
        self.assertEqual(self.finding()["verdict"], "pass")
        self.place.banger("start", "ghost")
        self.place.banger("rm", "--force", "ghost")

    def test_verify_and_doctor_tell_of_lost_files_and_a_restart_brings_them_back(self):
        vm = self.running("bare")
        self.assertEqual(self.told("bare,", vm["id"]), [])
        shutil.rmtree(self.runtime(vm))
        self.assertEqual([oddity["fix"] for oddity in self.told("bare,", vm["id"])], ["banger restart bare"])
        finding = self.finding()
        self.assertEqual(finding["verdict"], "warn")
        self.assertIn("bare", finding["found"])
        self.place.banger("restart", "bare")
        self.assertFalse(lives(vm["pid"]))
        self.assertEqual((self.told("bare,", vm["id"]), self.finding()["verdict"]), ([], "pass"))
        self.place.banger("rm", "--force", "bare")

    def test_a_lost_tap_file_gives_nobody_elses_tap_away(self):
        vm = self.running("wired", "--net", "nat")
        tap = (self.runtime(vm) / "tap").read_text()
        shutil.rmtree(self.runtime(vm))
        self.restart_daemon()
        others = []
        for number in range(6):
            other = self.running(f"other-{number}", "--net", "nat")
            others.append((self.runtime(other) / "tap").read_text())
        self.assertNotIn(tap, others, "another VM got the TAP of one that lives")
        self.assertEqual([oddity for oddity in self.place.oddities() if oddity["kind"] == "link"], [])
        for name in self.place.vms():
            self.place.banger("rm", "--force", name)


class LostFilesOfRealGuests(Losses, Case):
    args = ()

    def test_a_guest_whose_runtime_directory_is_gone_runs_on_until_a_verb_ends_it(self):
        for daemon_dies, verb in ((False, "kill"), (True, "stop"), (True, "rm")):
            with self.subTest(daemon_dies=daemon_dies, verb=verb):
                vm = self.running("real")
                process, disk, boot = Process(vm["pid"]), self.disk(vm), self.place.boot_id("real")
                shutil.rmtree(self.runtime(vm))
                # The open session goes on; a new daemon finds the VM by its process.
                self.assertEqual(self.place.boot_id("real"), boot)
                if daemon_dies:
                    self.restart_daemon()
                    self.assertEqual(self.place.settled()["real"].get("pid"), vm["pid"])
                self.assertEqual([oddity["fix"] for oddity in self.told(vm["id"])], ["banger restart real"])
                self.assertIn(vm["pid"], self.place.vmm_processes())
                self.place.banger(verb, *(["--force"] if verb == "rm" else []), "real")
                self.assertTrue(process.ended(0), f"QEMU lives after `{verb}`")
                self.assertEqual(self.place.directory(vm).exists(), verb != "rm")
                if verb != "rm":
                    self.assertEqual(self.disk(vm), disk)
                self.assertEqual(self.place.vmm_processes(), set())

    def test_a_process_of_the_vms_user_keeps_the_disks_and_is_not_ended(self):
        vm = self.running("haunted")
        boot, disk, uid = self.place.boot_id("haunted"), self.disk(vm), user(vm["pid"])
        with sleeper(user=uid, group=uid, extra_groups=[]) as stranger:
            self.assertIn(f"process {stranger} (sleep)", self.refused(stranger, "rm", "--force", "haunted"))
            # Nothing was touched.
            self.assertEqual(self.place.boot_id("haunted"), boot)
            self.assertEqual([oddity["which"] for oddity in self.told(stranger)], [str(stranger)])
            # The daemon can end its VMM; the stranger lives on, and the daemon neither starts nor removes the VM next to it.
            self.place.banger("kill", "haunted")
            self.assertFalse(lives(vm["pid"]))
            for verb in (["rm", "haunted"], ["rm", "--force", "haunted"], ["start", "haunted"], ["prune", "--force"]):
                self.refused(stranger, *verb)
            self.restart_daemon()
            self.refused(stranger, "rm", "--force", "haunted")
            self.assertIn(f"process {stranger} (sleep)", self.finding()["found"])
            self.assertTrue(lives(stranger))
            self.assertEqual(self.disk(vm), disk)
        self.place.banger("rm", "haunted")
        self.assertFalse(self.place.directory(vm).exists())

    def test_a_pid_file_that_names_another_process_ends_the_vmm_and_not_that_one(self):
        vm = self.running("reused")
        process = Process(vm["pid"])
        with sleeper() as innocent, sleeper(user=user(vm["pid"]) + 1000) as of_another_vm:
            for other in (innocent, of_another_vm):
                self.lose(vm, "another's pid file", other)
                self.restart_daemon()
                self.assertEqual(self.place.settled()["reused"].get("pid"), vm["pid"])
            self.place.banger("rm", "--force", "reused")
            self.assertTrue(process.ended(0))
            self.assertTrue(lives(innocent) and lives(of_another_vm))

    def test_a_frozen_vmm_without_files_is_ended_too(self):
        vm = self.running("frozen")
        process = Process(vm["pid"])
        signal.pidfd_send_signal(process.pidfd, signal.SIGSTOP)
        shutil.rmtree(self.runtime(vm))
        self.restart_daemon()
        self.place.banger("kill", "frozen")
        self.assertTrue(process.ended(0))
        self.place.banger("rm", "frozen")

    def test_a_guest_keeps_its_network_without_its_files(self):
        vm = self.running("wired")
        tap = (self.runtime(vm) / "tap").read_text()
        records = sqlite3.connect(self.place.state / "banger.db")
        for forget_record in (False, True):
            with self.subTest(forget_record=forget_record):
                shutil.rmtree(self.runtime(vm), ignore_errors=True)
                self.place.kill_daemon()
                if forget_record:
                    with records:
                        records.execute("UPDATE vms SET vmm_pid = NULL, vmm_start = NULL, tap = NULL")
                self.place.start_daemon(*self.args)
                self.place.settled()
                self.assertIn(f'"{tap}"', self.place.net.ask("nft", "list", "ruleset"), "the rules do not know its TAP")
                links = [oddity for oddity in self.place.oddities() if oddity["kind"] == "link"]
                self.assertEqual(links, [], "a TAP in use is called a leak")
        records.close()
        self.place.banger("rm", "--force", "wired")
