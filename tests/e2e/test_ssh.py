"""SSH to real guests without a network: by `banger ssh`, and by the tools that only know ssh."""

import os
import socket
import subprocess
import tempfile
from pathlib import Path

from harness import BIN, DEADLINE, Case
from terminal import Terminal

REMINDER = "{0} is still running; stop it with: banger vm stop {0}"


class Ssh(Case):
    """One VM without a network, `box`. Each test leaves it running."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.home = cls.place.runtime_root
        cls.config = cls.home / ".ssh/config"
        files = cls.enterClassContext(tempfile.TemporaryDirectory(prefix="banger-test-", dir="/var/tmp"))
        cls.files = Path(files)
        cls.place.environment["TERM"] = "xterm"
        cls.place.banger("create", "box", "--net", "none")
        cls.place.banger("ssh-config", "--install")

    # At once, and with its exit code.

    def test_a_login_right_after_the_creation_waits_for_the_server(self):
        self.place.banger("create", "young", "--net", "none")
        try:
            self.assertEqual(self.place.banger("ssh", "young", "--", "hostname"), "young\n")
        finally:
            self.place.banger("rm", "--force", "young")

    def test_the_exit_code_is_the_commands(self):
        for words, code in ((["exit 7"], 7), (["kill -9 $$"], 255), (["true"], 0)):
            self.assertEqual(self.place.run("vm", "ssh", "box", *words).returncode, code, words)
        self.assertEqual(self.place.run("ssh", "nobody@box", "true").returncode, 255)

    def test_a_name_may_have_its_domain_and_a_name_below_it(self):
        for name in ("box", "box.vm", "root@www.box.vm", self.place.vms()["box"]["id"]):
            self.assertEqual(self.place.banger("ssh", name, "hostname"), "box\n")
        self.fails("ssh", "box.example.org", "true", code=125, cause="box.example.org is no VM", help="banger ls")
        self.fails("ssh", "host.vm", "true", code=125, cause="this host itself")

    def test_standard_streams_come_through_with_their_ends(self):
        text = "x" * 3_000_000 + "\n"
        self.assertEqual(self.place.banger("ssh", "box", "cat", input=text), text)
        result = self.place.run("ssh", "box", "--", "sh", "-c", "'cat; echo end >&2'", input="")
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "", "end\n"))

    # What stands in the way.

    def test_a_machine_that_is_down_or_is_none_is_said_in_a_line(self):
        self.place.banger("create", "down", "--stopped", "--net", "none")
        try:
            line = "down is stopped; start it with: banger vm start down"
            proxy = self.place.run("vm", "proxy", "down.vm")
            self.assertEqual((proxy.returncode, proxy.stderr), (1, f"banger: {line}\n"))
            self.assertIn(line, self.ssh("down.vm", "true", code=255).stderr)
            self.fails("ssh", "down", code=125, cause="down is stopped", help="banger vm start down")
        finally:
            self.place.banger("rm", "down")
        none = self.place.run("vm", "proxy", "nobody.vm")
        self.assertEqual((none.returncode, none.stderr.count("\n")), (1, 1), none.stderr)
        self.assertIn("there is no VM nobody", none.stderr)
        closed = self.place.run("vm", "proxy", "box", "4711")
        self.assertEqual(closed.stderr, "banger: cannot connect to port 4711 of the guest: nothing listens there\n")

    def test_without_ssh_it_says_what_to_install(self):
        environment = {**self.place.environment, "PATH": str(self.files)}
        self.fails("ssh", "box", env=environment, code=125, cause="no program ssh", help="openssh-client")

    def test_an_ssh_that_is_too_old_is_named(self):
        old = self.files / "old"
        old.mkdir()
        script = '#!/bin/sh\n[ "$1" = -V ] && echo "OpenSSH_8.4p1 Debian-5, OpenSSL" >&2 && exit 0\necho "Bad configuration option" >&2; exit 255\n'
        (old / "ssh").write_text(script)
        (old / "ssh").chmod(0o755)
        result = self.place.run("ssh", "box", "true", env={**self.place.environment, "PATH": str(old)})
        self.assertEqual(result.returncode, 255)
        self.assertIn("help: this is OpenSSH 8.4, and `banger ssh` needs 8.5 or later", result.stderr)

    # Keys.

    def test_users_files_are_left_alone_and_the_key_is_private(self):
        self.assertEqual(self.place.shell("box", "ls -A /root/.ssh 2>/dev/null || true"), "")
        key = self.home / ".local/share/banger/id_ed25519"
        self.assertEqual(key.stat().st_mode & 0o777, 0o600)
        public = subprocess.run(["ssh-keygen", "-y", "-f", key], stdout=subprocess.PIPE, text=True, check=True).stdout
        self.assertIn(public.split()[1], self.place.shell("box", "cat /etc/ssh/banger-keys.d/root"))
        # They are read, too.
        own = self.files / "own"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", own], check=True)
        self.place.shell("box", f"mkdir -p -m 700 /root/.ssh; echo '{own.with_suffix('.pub').read_text().strip()}' >/root/.ssh/authorized_keys")
        words = ["-i", own, "-o", f"IdentityFile={own}", "-o", "IdentityAgent=none", "root@box.vm", "hostname"]
        self.assertEqual(self.ssh(*words).stdout, "box\n")
        self.place.shell("box", "rm /root/.ssh/authorized_keys")

    def test_another_users_key_is_let_in_and_is_there_after_a_restart(self):
        other = self.files / "other"
        other.mkdir()
        environment = {**self.place.environment, "HOME": str(other)}
        self.assertEqual(self.place.banger("ssh", "box", "hostname", env=environment), "box\n")
        keys = self.place.shell("box", "cat /etc/ssh/banger-keys.d/root")
        self.place.banger("restart", "box")
        self.assertEqual(self.place.shell("box", "cat /etc/ssh/banger-keys.d/root"), keys)
        self.assertEqual(self.place.banger("ssh", "box", "hostname", env=environment), "box\n")

    def test_the_vms_user_is_let_in_as_well(self):
        environment = {**self.place.environment, "SUDO_USER": "dev", "SUDO_UID": "1234", "SUDO_GID": "1234"}
        self.place.banger("create", "shared", "--net", "none", env=environment)
        try:
            self.assertEqual(self.place.banger("ssh", "-l", "dev", "shared", "id", "-un"), "dev\n")
            self.assertEqual(self.place.banger("ssh", "shared", "id", "-un"), "root\n")
            # root's own account is not the VM's user, and an interactive session is the one thing sudo changes nothing about.
            self.assertEqual(self.ssh("dev@shared.vm", "sudo -n id -un").stdout, "root\n")
        finally:
            self.place.banger("rm", "--force", "shared")

    def test_the_callers_agent_is_forwarded_if_asked(self):
        agent = self.files / "agent"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "forwarded", "-f", self.files / "forwarded"], check=True)
        process = subprocess.Popen(["ssh-agent", "-D", "-a", agent], stdout=subprocess.PIPE)
        try:
            # It says where it listens once it does.
            process.stdout.readline()
            environment = {**self.place.environment, "SSH_AUTH_SOCK": str(agent)}
            subprocess.run(["ssh-add", "-q", self.files / "forwarded"], env=environment, check=True)
            self.assertIn("forwarded", self.place.banger("ssh", "-A", "box", "ssh-add", "-l", env=environment))
            self.assertEqual(self.place.run("ssh", "box", "ssh-add", "-l", env=environment).returncode, 2)
        finally:
            process.terminate()
            process.communicate()

    # Other tools.

    def ssh(self, *args, code=0):
        """Plain ssh with the file that `ssh-config --install` has changed; what would be a question is a failure."""
        words = ["ssh", "-F", self.config, "-o", "BatchMode=yes", *args]
        result = subprocess.run(
            words, env=self.place.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, timeout=DEADLINE,
        )  # fmt: skip
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return result

    def tool(self, *words, **options):
        return subprocess.run(
            words, env={**self.place.environment, "PATH": os.environ["PATH"], **options}, check=True, timeout=DEADLINE,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        ).stdout  # fmt: skip

    def test_scp_sftp_rsync_and_git(self):
        there = self.files / "there"
        there.write_text("some text\n")
        back = self.files / "back"
        remote = "root@box.vm"
        options = ["-q", "-F", self.config, "-o", "BatchMode=yes"]
        self.tool("scp", *options, there, f"{remote}:/root/by-scp")
        self.tool("scp", *options, f"{remote}:/root/by-scp", back)
        self.assertEqual(back.read_text(), "some text\n")
        batch = self.files / "batch"
        batch.write_text(f"put {there} /root/by-sftp\n")
        self.tool("sftp", *options, "-b", batch, remote)
        self.tool("rsync", "-a", "-e", f"ssh -F {self.config} -o BatchMode=yes", there, f"{remote}:/root/by-rsync")
        self.assertEqual(self.place.shell("box", "cat /root/by-*"), "\n".join(["some text"] * 3))
        self.place.shell("box", "rm /root/by-*; git init -q /root/work; cd /root/work; git -c user.name=n -c user.email=e commit -q --allow-empty -m first")
        clone = self.files / "clone"
        command = {"GIT_SSH_COMMAND": f"ssh -F {self.config} -o BatchMode=yes"}
        self.tool("git", "clone", "-q", f"ssh://{remote}/root/work", clone, **command)
        self.assertIn("first", self.tool("git", "-C", clone, "log", "--format=%s"))
        self.place.shell("box", "rm -r /root/work")

    def test_a_machine_made_anew_under_its_name_is_no_stranger(self):
        for _ in range(2):
            self.place.banger("create", "again", "--net", "none")
            try:
                self.assertEqual(self.ssh("root@again.vm", "hostname").stdout, "again\n")
            finally:
                self.place.banger("rm", "--force", "again")

    def test_a_host_key_that_is_not_the_machines_is_refused(self):
        self.place.banger("create", "liar", "--net", "none")
        try:
            self.place.banger("ssh", "liar", "rm /etc/ssh/ssh_host_*; ssh-keygen -A; systemctl restart ssh")
            result = self.place.run("ssh", "liar", "hostname")
            self.assertEqual((result.returncode, result.stdout), (255, ""))
            self.assertIn("Host key verification failed", result.stderr)
        finally:
            self.place.banger("rm", "--force", "liar")

    def test_a_port_is_forwarded_as_ssh_does(self):
        # The guest's own SSH server, by a socket on this side.
        here = self.files / "forwarded-port"
        forward = self.place.start("ssh", "-N", "-L", f"{here}:127.0.0.1:22", "-v", "box", text=True)
        try:
            while "Entering interactive session" not in (line := forward.stderr.readline()):
                self.assertTrue(line, "ssh has ended")
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(DEADLINE)
                connection.connect(str(here))
                self.assertTrue(connection.recv(100).startswith(b"SSH-2.0-"))
        finally:
            forward.terminate()
            forward.communicate()

    # The file.

    def test_printing_is_what_is_installed_and_a_second_time_changes_nothing(self):
        own = self.home / ".config/banger/ssh_config"
        self.assertEqual(self.place.banger("ssh-config"), own.read_text())
        self.assertEqual(self.place.banger("ssh-config", "--print"), own.read_text())
        before = self.config.stat()
        self.place.banger("ssh-config", "--install")
        self.assertEqual(self.config.stat(), before)
        environment = {**self.place.environment, "SUDO_USER": "dev"}
        self.fails("ssh-config", "--install", env=environment, code=2, cause="not dev", help="without sudo")

    # The reminder.

    def session(self, *args, typed):
        """What is seen of an interactive session in which these lines are typed, each when the one before it is answered."""
        terminal, seen = Terminal([BIN / "banger", *args], self.place.environment), ""
        for number, line in enumerate(typed):
            seen += terminal.until("# ")["before"]
            terminal.type(line + "\n")
            if line.startswith("echo"):
                seen += terminal.until(f"at-{number}")["before"]
        seen += terminal.to_the_end()
        return terminal.close(), seen

    def test_who_leaves_a_machine_is_told_that_it_runs_on(self):
        code, seen = self.session("ssh", "box", typed=["echo at-$((1 - 1))", "exit 3"])
        self.assertEqual(code, 3, seen)
        self.assertTrue(seen.rstrip().endswith(REMINDER.format("box")), seen)

    def test_nobody_is_told_who_did_not_ask_or_knows(self):
        for args in (["-q", "ssh", "box"], ["ssh", "-t", "box", "--", "bash", "-l"]):
            _, seen = self.session(*args, typed=["exit"])
            self.assertNotIn("still running", seen, args)
        self.assertNotIn("still running", self.place.run("ssh", "box", "true").stderr)

    def test_nobody_is_told_of_a_machine_that_goes_anyhow(self):
        keeper = self.place.start("run", "--rm", "--name", "brief", "--net", "none", "--", "sleep", "1000")
        try:
            while "brief" not in self.place.vms() or self.place.vms()["brief"]["state"] != "running":
                self.assertIsNone(keeper.poll())
            _, seen = self.session("ssh", "brief", typed=["exit"])
            self.assertNotIn("still running", seen)
        finally:
            keeper.terminate()
            keeper.communicate()

    def test_nobody_is_told_of_a_machine_that_was_switched_off(self):
        self.place.banger("create", "off", "--net", "none")
        try:
            _, seen = self.session("ssh", "off", typed=["poweroff; sleep 1000"])
            self.assertNotIn("still running", seen)
        finally:
            self.place.banger("rm", "--force", "off")
