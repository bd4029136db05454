"""Inside a guest it is as at home: language, time, terminal, user. With a real guest."""

import subprocess
import tempfile
from pathlib import Path

from harness import Case

DEV = {"SUDO_USER": "dev", "SUDO_UID": "1234", "SUDO_GID": "1234"}


class Inside(Case):
    """One VM, `box`, created by `dev` through sudo. Each test leaves it running."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.home = cls.enterClassContext(tempfile.TemporaryDirectory(prefix="banger-test-", dir="/var/tmp"))
        cls.files = Path(cls.home)
        cls.place.environment.update(DEV)
        cls.place.banger("create", "box")

    def as_caller(self, variables, *args):
        environment = {**self.place.environment, **variables}
        return self.place.banger(*args, env=environment)

    # Language, time, terminal.

    def test_a_locale_that_the_guest_lacks_makes_nobody_complain(self):
        script = "echo $LANG $LC_TIME; perl -e 1 2>&1; ls /nowhere 2>&1; true"
        out = self.as_caller({"LANG": "xx_YY.UTF-8", "LC_TIME": "C"}, "exec", "box", "--", "sh", "-c", script)
        self.assertEqual(out, "C.UTF-8 C\nls: cannot access '/nowhere': No such file or directory\n")

    def test_the_time_is_the_callers_with_and_without_the_database(self):
        ask = ["exec", "box", "--", "date", "-d", "@1700000000", "+%H:%M %Z"]
        self.assertEqual(self.as_caller({"TZ": "Asia/Tokyo"}, *ask), "07:13 JST\n")
        self.assertEqual(self.as_caller({"TZ": "No/Such"}, *ask[:2], "--env", "TZ=UTC", *ask[2:]), "22:13 UTC\n")
        self.place.shell("box", "mv /usr/share/zoneinfo /usr/share/zoneinfo.away")
        try:
            self.assertEqual(self.as_caller({"TZ": "Asia/Tokyo"}, *ask), "07:13 JST\n")
        finally:
            self.place.shell("box", "mv /usr/share/zoneinfo.away /usr/share/zoneinfo")

    def test_a_detached_command_has_the_callers_time_too(self):
        started = self.as_caller({"TZ": "XYZ-3"}, "exec", "-d", "box", "--", "date", "-d", "@0", "+%H %Z").strip()
        self.assertEqual(self.place.banger("logs", "--follow", "--command", started, "box"), "03 XYZ\n")

    def test_a_terminal_that_the_guest_does_not_know_is_a_usual_one(self):
        for term, seen in (("no-such-terminal", "xterm-256color"), ("screen", "screen")):
            out = self.as_caller({"TERM": term}, "exec", "-t", "box", "--", "sh", "-c", "echo $TERM; tput cols >/dev/null && echo fine")
            self.assertEqual(out.split(), [seen, "fine"])

    # The user.

    def test_the_creator_is_a_user_who_may_sudo(self):
        self.assertEqual(self.place.json("show", "box")["user"], {"name": "dev", "uid": 1234, "gid": 1234})
        self.assertIn("dev (1234)", self.place.banger("show", "box"))
        script = "id -un; id -u; id -gn; pwd; echo $HOME $SHELL; sudo -n id -un; test -f ~/.bashrc && stat -c %U ~/.bashrc"
        out = self.place.banger("exec", "-u", "dev", "box", "--", "sh", "-e", "-c", script)
        self.assertEqual(out.split(), "dev 1234 dev /home/dev /home/dev /bin/bash root dev".split())
        self.place.shell("box", "pwck -rq; grpck -r; visudo -cq")
        self.assertEqual(self.place.shell("box", "stat -c '%a %U %G' /etc/shadow /etc/passwd"), "640 root shadow\n644 root root")
        self.assertEqual(self.place.shell("box", "passwd -S dev").split()[1], "L")

    def test_the_user_outlives_a_restart_and_changes_of_its_own(self):
        self.place.shell("box", "echo kept >~dev/kept; rm /etc/sudoers.d/banger-dev; cp /etc/passwd /root/before")
        self.place.banger("stop", "box")
        self.place.banger("start", "box")
        self.place.shell("box", "cmp /etc/passwd /root/before; test -f ~dev/kept; test ! -e /etc/sudoers.d/banger-dev")
        # For the other tests.
        self.place.shell("box", "echo 'dev ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/banger-dev")

    def test_the_guests_own_user_stays(self):
        self.place.banger("create", "own", env={**self.place.environment, "SUDO_USER": "daemon"})
        try:
            self.assertEqual(self.place.shell("own", "id -u daemon"), "1")
            self.assertIn("daemon is the guest's own user 1", self.place.shell("own", "dmesg"))
            self.assertIn("daemon is the guest's own user 1", self.place.banger("logs", "--console", "own"))
        finally:
            self.place.banger("rm", "--force", "own")

    def test_run_as_a_user(self):
        out = self.place.banger("run", "--rm", "-u", "dev", "--", "sh", "-c", "id -un; sudo -n id -u")
        self.assertEqual(out.split(), ["dev", "0"])

    # Files by pattern.

    def test_a_pattern_is_looked_up_in_the_guest(self):
        self.place.shell("box", "mkdir -p /srv/p/sub; cd /srv/p; touch a.log b.log .c.log 'x[1]' x1; echo in >sub/d.log; ln -s . again")
        into = self.files / "into"
        into.mkdir()
        self.place.banger("cp", "box:/srv/p/*.log", into)
        self.place.banger("cp", "box:/srv/p/x[1]", into)
        self.place.banger("cp", "box:/srv/*/s?b/d.*", self.files / "renamed")
        self.assertEqual(sorted(path.name for path in into.iterdir()), ["a.log", "b.log", "x[1]"])
        self.assertEqual((self.files / "renamed").read_text(), "in\n")
        tar = subprocess.run(["tar", "-t"], input=self.place.banger("cp", "box:/srv/p/?.log", "-"), text=True, stdout=subprocess.PIPE)
        self.assertEqual(tar.stdout, "a.log\nb.log\n")
        self.fails("cp", "box:/srv/p/*.none", into, cause="no file matches /srv/p/*.none")
        self.fails("cp", "box:/srv/p/*.log", self.files / "new", cause="2 files match", help="existing directory")

    # What comes back.

    def checkout(self, name):
        checkout = self.files / name
        checkout.mkdir()
        self.git(checkout, "init", "-q", "-b", "main")
        (checkout / ".gitignore").write_text("target/\n")
        (checkout / "greeting").write_text("hello\n")
        self.git(checkout, "add", ".")
        self.git(checkout, "-c", "user.name=T", "-c", "user.email=t@example.org", "commit", "-qm", "first")
        return checkout

    def git(self, checkout, *words):
        return subprocess.run(["git", "-C", checkout, *words], check=True, stdout=subprocess.PIPE, text=True).stdout

    CHANGE = "mv greeting greetings; echo '#!/bin/sh' >run; chmod +x run; mkdir target; head -c 50M /dev/zero >target/big; exit 3"

    def test_a_patch_comes_back(self):
        checkout = self.checkout("patched")
        result = self.place.run("run", "--rm", "--name", "worker", "--pull", ".", "--", "sh", "-c", self.CHANGE, cwd=checkout)
        self.assertEqual(result.returncode, 3, result.stderr)
        self.assertIn("3 files have changed in worker's copy", result.stderr)
        self.assertNotIn("warning", result.stderr)
        self.git(checkout, "apply", "worker.patch")
        self.assertEqual(sorted(path.name for path in checkout.iterdir()), [".git", ".gitignore", "greetings", "run", "worker.patch"])
        self.assertTrue((checkout / "run").stat().st_mode & 0o100)

    def test_a_branch_comes_back_from_the_users_home(self):
        checkout = self.checkout("branched")
        script = f"pwd; id -un; stat -c %U greeting; {self.CHANGE}"
        result = self.place.run("run", "--rm", "-u", "dev", "--name", "worker", "--pull=branch", checkout, "--", "sh", "-c", script)
        self.assertEqual((result.returncode, result.stdout.split()), (3, [f"/home/{DEV['SUDO_USER']}/branched", "dev", "dev"]), result.stderr)
        self.assertEqual(self.git(checkout, "diff", "--name-status", "-M", "main", "banger/worker"), "R100\tgreeting\tgreetings\nA\trun\n")
        self.assertEqual(self.git(checkout, "status", "--porcelain"), "")
        self.assertEqual(self.git(checkout, "rev-parse", "banger/worker~1"), self.git(checkout, "rev-parse", "main"))


class NoUser(Case):
    """A daemon whose configuration wants no user beside root."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.place.stop_daemon()
        Path(cls.place.environment["BANGER_CONFIG"]).write_text('[guest]\nuser = "none"\n')
        cls.place.start_daemon()

    def test_none_is_made(self):
        vm = self.place.json("create", "box", env={**self.place.environment, **DEV})
        self.assertNotIn("user", vm)
        self.fails("exec", "-u", "dev", "box", "--", "true", code=127, cause="no user")
