"""Completion in real shells, installed as `make install` does it, with the daemon and the fake VMM."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from harness import BIN, DEADLINE, ROOT
from terminal import Terminal
from test_fake import FakeCase

# What a user may wait for, from the key to the names, in seconds. Of it, 0.15 are the daemon's at most.
AT_ONCE = 0.2

# bash and zsh insert all that they offer into the line, which is then printed word by word: nothing is guessed from a screen.
BASH = """
PS1='ready> '; bind 'set enable-bracketed-paste off'; bind '"\\C-x": insert-completions'
. /usr/share/bash-completion/bash_completion
"""
ZSH = """
PS1='ready> '; unsetopt zle_bracketed_paste prompt_cr prompt_sp; setopt no_beep
fpath=("$XDG_DATA_HOME/zsh/site-functions" $fpath)
autoload -Uz compinit; compinit -u -D
zle -C all-matches complete-word _generic; bindkey '^X' all-matches; bindkey '^A' beginning-of-line
zstyle ':completion:all-matches:*' completer _all_matches _complete
zstyle ':completion:all-matches:*' insert yes
"""


class Completion(FakeCase):
    """Names that fit the verb, at once, and silence where no daemon answers."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.prefix = Path(tempfile.mkdtemp(prefix="banger-install-", dir="/var/tmp"))
        cls.addClassCleanup(shutil.rmtree, cls.prefix, ignore_errors=True)
        cls.make("install")
        for name in "devbox", "web", "worker":
            cls.place.banger("create", name)
        cls.place.banger("stop", "worker")
        cls.files = cls.place.runtime_root / "files"
        (cls.files / "some directory").mkdir(parents=True)
        (cls.files / "notes.txt").touch()

    @classmethod
    def make(cls, verb, prefix=None):
        environment = {**os.environ, "PREFIX": str(prefix or cls.prefix)}
        subprocess.run(["make", "--no-print-directory", "-C", ROOT, verb], env=environment, check=True, stdout=subprocess.DEVNULL)

    def environment(self):
        share = self.prefix / "share"
        return {
            **self.place.environment, "TERM": "xterm", "XDG_DATA_HOME": str(share), "XDG_DATA_DIRS": f"{share}:/usr/share",
            "PATH": f"{self.prefix}/bin:/usr/bin:/bin",
        }  # fmt: skip

    def shell(self, name):
        home = self.place.runtime_root / f"home-{name}"
        home.mkdir(exist_ok=True)
        environment = {**self.environment(), "HOME": str(home), "ZDOTDIR": str(home)}
        if name == "bash":
            (home / "rc").write_text(BASH)
            words = ["/bin/bash", "--noprofile", "--rcfile", str(home / "rc"), "-i"]
        else:
            (home / ".zshrc").write_text(ZSH)
            words = ["/bin/zsh", "-d", "-i"]
        terminal = Terminal(words, environment)
        self.addCleanup(terminal.close)
        terminal.until("ready> ")
        terminal.type(f"cd {self.files}\r")
        terminal.until("ready> ")
        return terminal

    def inserted(self, terminal, line):
        """All that is offered for the end of `line`."""
        terminal.type(f"{line}\x18\x01printf '<%s>' \recho; echo d''one\r")
        said = terminal.until(r"<banger>(?P<words>(?:<[^<>]*>)*)[\s\S]*?done\r?\n")["words"]
        terminal.until("ready> ")
        return set(re.findall("<([^<>]*)>", said)) - set(line.split())

    def fish(self, line):
        words = ["/usr/bin/fish", "-c", f"complete -C {repr(line)}"]
        home = self.place.runtime_root / "home-fish"
        home.mkdir(exist_ok=True)
        ran = subprocess.run(words, env={**self.environment(), "HOME": str(home)}, cwd=self.files, capture_output=True, text=True, timeout=DEADLINE)
        self.assertEqual(ran.stderr, "")
        return {found.split("\t")[0] for found in ran.stdout.splitlines()}

    def offers(self, ask):
        self.assertEqual(ask("banger start "), {"worker"})
        self.assertEqual(ask("banger vm stop "), {"devbox", "web"})
        self.assertEqual(ask("banger stop web "), {"devbox"})
        self.assertEqual(ask("banger exec d"), {"devbox"})
        self.assertEqual(ask("banger rm "), {"devbox", "web", "worker"})
        self.assertEqual(ask("banger image show "), {"debian"})
        self.assertEqual(ask("banger create --image "), {"debian"})
        self.assertEqual(ask("banger start --wait "), {"agent", "system", "ssh"})
        # bash inserts both behind what it takes for the word's beginning.
        levels = {word.removeprefix("--wait=") for word in ask("banger start --wait=s")}
        self.assertEqual(levels, {"system", "ssh"})
        self.assertEqual(ask("banger cp no"), {"notes.txt"})
        self.assertEqual(ask("banger cp devbox:no"), set())
        self.assertEqual(ask("banger create "), set())
        self.assertLessEqual({"run", "ls", "completion", "image"}, ask("banger "))

    def test_bash(self):
        terminal = self.shell("bash")
        self.offers(lambda line: self.inserted(terminal, line))
        self.assertEqual(self.inserted(terminal, "banger cp "), {"devbox:", "web:", "notes.txt", "some directory/"})
        # A single one is completed with what belongs behind it.
        terminal.type("banger exec w\t\x01printf '<%s>' \r")
        terminal.until("<banger><exec><web>")

    def test_zsh(self):
        terminal = self.shell("zsh")
        self.offers(lambda line: self.inserted(terminal, line))
        self.assertLessEqual({"devbox:", "web:"}, self.inserted(terminal, "banger cp "))

    def test_fish(self):
        self.offers(self.fish)
        self.assertEqual(self.fish("banger cp "), {"devbox:", "web:", "notes.txt", "some directory/"})

    def asked(self, **environment):
        """What is said for `banger start `, and how long that takes: the best of three, as others use this machine."""
        took = []
        for _ in range(3):
            began = time.monotonic()
            ran = subprocess.run(
                [BIN / "banger", "__complete", "banger", "start", ""], env={**self.place.environment, **environment},
                capture_output=True, text=True, timeout=DEADLINE,
            )  # fmt: skip
            took.append(time.monotonic() - began)
            self.assertEqual((ran.returncode, ran.stderr), (0, ""))
        return ran.stdout, min(took)

    def test_names_come_at_once(self):
        said, took = self.asked()
        self.assertEqual(said, "worker\tstopped, debian\n")
        self.assertLess(took, AT_ONCE)

    def test_nothing_is_said_where_no_daemon_answers(self):
        runtime = self.place.runtime_root / "none"
        runtime.mkdir()
        places = {"BANGER_RUNTIME_DIR": str(runtime), "BANGER_STATE_DIR": str(runtime)}
        said, took = self.asked(BANGER_HOST=str(runtime / "bangerd.sock"), **places)
        self.assertEqual(said, "")
        self.assertLess(took, AT_ONCE)
        # Without another address it would be this one's own daemon, which other verbs start.
        self.assertEqual(self.asked(BANGER_HOST="", **places)[0], "")
        self.assertEqual(list(runtime.iterdir()), [])

    def test_nothing_is_said_where_a_daemon_hangs_or_is_another(self):
        path = self.place.runtime_root / "hangs.sock"
        with socket.socket(socket.AF_UNIX) as hangs:
            hangs.bind(str(path))
            hangs.listen(8)
            said, took = self.asked(BANGER_HOST=str(path))
        self.assertEqual(said, "")
        self.assertLess(took, AT_ONCE)
        other = self.place.runtime_root / "other.sock"
        answer = b'HTTP/1.1 200 OK\r\nbanger-api: 999\r\nbanger-version: 9\r\ncontent-length: 2\r\n\r\n[]'
        with self.answering(other, answer):
            self.assertEqual(self.asked(BANGER_HOST=str(other))[0], "")

    @contextlib.contextmanager
    def answering(self, path, answer):
        """A daemon of one answer, in a process of its own."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(8)
            child = os.fork()
            if child == 0:
                while True:
                    with listener.accept()[0] as connection:
                        connection.recv(4096)
                        connection.sendall(answer)
            try:
                yield
            finally:
                os.kill(child, 9)
                os.waitpid(child, 0)

    def test_what_is_installed_is_uninstalled(self):
        prefix = self.place.runtime_root / "prefix"
        self.make("install", prefix)
        files = lambda: {str(path.relative_to(prefix)) for path in prefix.rglob("*") if path.is_file()}
        wanted = {"bin/banger", "share/man/man1/banger-run.1", "share/man/man8/bangerd.8", "share/man/man5/banger-config.5"}
        self.assertLessEqual(wanted, files())
        (prefix / "bin/other").touch()
        self.make("uninstall", prefix)
        self.assertEqual(files(), {"bin/other"})
