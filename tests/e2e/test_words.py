"""A guest, a file and a user whose words would steer a terminal: nothing that banger prints of them does.

The guest's agent is tests/e2e/hostile_agent.py. What is looked at is what arrives, at the end of a pipe and at that of a terminal.
"""

import contextlib
import json
import re
import select
import socket
import sqlite3
import sys
import unittest
from pathlib import Path

from fake import FakeCase
from harness import BIN, DEADLINE
from hostile_agent import EVIL, OUTPUT
from terminal import Terminal

HERE = Path(__file__).resolve().parent
STEERS = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
# What banger itself does on a terminal: it ends lines, colours them, draws one in place of another.
OWN = re.compile(r"\r\n|\r\x1b\[K|\x1b\[[0-9;]*m|\x1b\[[0-9]*[AJK]")
# How the words begin where they are shown.
SHOWN = "\\u{1b}]0;owned\\u{7}\\u{1b}[2J\\u{9b}31m\\u{7f}\\u{202e}"
# What is left of them where they go through the parser of arguments: it leaves whole sequences out.
TYPED = "\\u{202e}\\u{2066}\\u{61c}\\u{2028}\\u{feff}\\u{e0041}"
# As a terminal has it, which ends lines itself.
RAW = OUTPUT[0].replace(b"\n", b"\r\n")
FORMATS = ([], ["-o", "json"], ["-o", "name"])


class Hostile(FakeCase):
    """A guest whose words are all wrong but for its ids, and an image with such a system."""

    agent = ""
    agent_program = f"{sys.executable} {HERE}/hostile_agent.py"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.place.stop_daemon()
        records = sqlite3.connect(cls.place.state / "banger.db")
        with records:
            records.execute("UPDATE images SET system = ?, kernel = ?", (EVIL, EVIL))
        records.close()
        cls.place.start_daemon(*cls.args)
        cls.place.banger("create", "box")

    def piped(self, words):
        """What a command writes to both streams, where neither is a terminal."""
        client = self.place.start(*words)
        out, err = client.communicate(timeout=DEADLINE)
        return out, err

    def on_terminal(self, words):
        """What it writes to a terminal."""
        terminal = Terminal([BIN / "banger", *words], {**self.place.environment, "TERM": "xterm"})
        seen = terminal.bytes_to_the_end()
        terminal.close()
        return seen

    def assert_steers_nothing(self, seen, forged=True):
        text = seen.decode()
        self.assertIsNone(STEERS.search(text), repr(text))
        if forged:
            self.assertNotRegex(text, "(?m)^forged", "a line in somebody else's name")

    def assert_shown(self, words, tells):
        """A verb steers nothing, in no format and on no stream, and shows what it is to tell, if it is to tell anything."""
        for format in FORMATS:
            line = [*format, *map(str, words)]
            with self.subTest(words=[word.replace(EVIL, "EVIL") for word in line]):
                out, err = self.piped(line)
                self.assert_steers_nothing(out)
                self.assert_steers_nothing(err)
                if out.startswith((b"{", b"[")):
                    json.loads(out)
                if tells and not format:
                    self.assertIn(tells, (out + err).decode())
            with self.subTest(words=[word.replace(EVIL, "EVIL") for word in line], on="terminal"):
                self.assert_steers_nothing(OWN.sub("", self.on_terminal(line).decode()).encode())


class Verbs(Hostile):
    def test_what_a_guest_and_an_image_say(self):
        target = self.place.runtime_root / "target"
        target.mkdir()
        for words, tells in (
            (["ports", "box"], SHOWN),
            (["logs", "--list", "box"], SHOWN),
            (["logs", "--command", "breaks", "box"], SHOWN),
            (["logs", "--command", "none", "box"], SHOWN),
            (["exec", "box", "--", "refused"], SHOWN),
            (["exec", "-d", "box", "--", "true"], None),
            (["run", "--rm", "--", "refused"], SHOWN),
            (["cp", "box:/directory", target], SHOWN),
            (["cp", "box:/file", target], SHOWN),
            (["cp", HERE / "fake.py", "box:/file"], SHOWN),
            (["set", "box", "--disk", "8M"], None),
            (["stats", "--no-stream"], None),
            (["stats", "--no-stream", "box"], None),
            (["ls"], None),
            (["show", "box"], None),
            (["console", "box"], None),
            (["proxy", "box"], SHOWN),
            (["proxy", "box", "80"], SHOWN),
            (["known-hosts", "box"], None),
            (["restart", "box", "--timings"], None),
            (["stop", "box"], None),
            (["start", "box", "--timings"], None),
            (["kill", "box"], None),
            (["start", "--all"], None),
            (["image", "ls"], SHOWN),
            (["image", "show", "debian"], SHOWN),
            (["image", "rm", "debian"], None),
            (["doctor"], None),
            (["daemon", "status"], None),
            (["network", "ls"], None),
            (["dns", "status"], None),
            (["version"], None),
            (["ssh-config"], None),
            (["prune", "--dry-run"], None),
            (["__complete", "banger", "image", "show", ""], TYPED),
        ):
            self.assert_shown(words, tells)

    def test_a_name_that_the_guest_does_not_take(self):
        self.place.banger("create", "first")
        names = iter(f"name-{number}" for number in range(10))
        name = "first"
        for format in FORMATS:
            for see in (lambda words: b"".join(self.piped(words)), lambda words: OWN.sub("", self.on_terminal(words).decode()).encode()):
                new = next(names)
                seen = see([*format, "rename", name, new])
                self.assert_steers_nothing(seen)
                name = new
                if not format:
                    self.assertIn(SHOWN, seen.decode())

    def test_the_last_words_of_a_guest(self):
        self.assert_shown(["create", "dies"], "\\u{202e}")
        self.place.banger("create", "quits")
        self.piped(["exec", "quits", "--", "quits"])
        self.place.settled()
        vm = self.place.vms()["quits"]
        self.assertIn("Kernel panic", vm["reason"])
        self.assert_shown(["show", "quits"], "\\u{202e}")
        self.assert_steers_nothing(self.first_lines(["-o", "json", "events"], 1))

    def test_what_a_user_types_and_where_files_are(self):
        odd = self.place.state / EVIL
        odd.write_text("nobody's")
        self.addCleanup(odd.unlink)
        socket = self.place.runtime_root / EVIL
        for words, tells in (
            (["verify"], SHOWN),
            (["show", EVIL], TYPED),
            (["create", EVIL], TYPED),
            ([EVIL], TYPED),
            (["ls", f"--{EVIL}"], TYPED),
            (["set", "box", "--memory", EVIL], TYPED),
            (["cp", EVIL, "box:"], SHOWN),
            (["cp", f"box:{EVIL}", EVIL], SHOWN),
            (["exec", "box", "--workdir", EVIL, "--", "true"], TYPED),
            (["events", "--since", EVIL], SHOWN),
            (["image", "build", "-p", EVIL], SHOWN),
            (["run", EVIL], SHOWN),
            (["--host", socket, "ls"], SHOWN),
            (["--host", socket, "daemon", "status"], SHOWN),
            (["--host", socket, "version"], SHOWN),
        ):
            self.assert_shown(words, tells)

    def test_values_stay_the_same_in_json(self):
        [port] = self.place.json("ports", "box")
        self.assertEqual(port["process"], EVIL)
        [command] = self.place.json("logs", "--list", "box")
        self.assertEqual(command["argv"][2], EVIL)
        self.assertEqual(self.place.json("image", "show", "debian")["system"], EVIL)
        [stats] = self.place.json("stats", "--no-stream", "box")
        self.assertEqual(stats["guest"]["file_systems"][0]["mounted_on"], EVIL)

    def first_lines(self, words, count):
        """The first lines of a command that goes on until it is ended."""
        client = self.place.start(*words)
        try:
            return b"".join(client.stdout.readline() for _ in range(count))
        finally:
            client.kill()
            client.communicate()

    def test_what_goes_on(self):
        for format in FORMATS:
            self.assert_steers_nothing(self.first_lines([*format, "events"], 1))
            self.assert_steers_nothing(self.first_lines([*format, "stats", "box"], 2))
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
            port = free.getsockname()[1]
        forward = self.place.start("forward", "box", f"{port}:80")
        self.addCleanup(forward.communicate)
        self.addCleanup(forward.kill)
        self.assertIn(b"leads to", forward.stderr.readline())
        socket.create_connection(("127.0.0.1", port)).close()
        self.assertTrue(select.select([forward.stderr], [], [], DEADLINE)[0])
        said = forward.stderr.readline()
        self.assert_steers_nothing(said)
        self.assertIn(SHOWN, said.decode())


class Logs(Hostile):
    """Output of a guest is for whoever asks for it: whole, unless it goes to a terminal."""

    VERBS = (["logs", "box"], ["logs", "--follow", "box"], ["logs", "--console", "box"])

    def test_a_pipe_gets_every_byte(self):
        for words in self.VERBS:
            for raw in ([], ["--raw"]):
                out, err = self.piped([*words, *raw])
                self.assertEqual(out, b"".join(OUTPUT), words)
                self.assertEqual(err, b"" if "--console" in words else b"".join(OUTPUT))

    def test_a_terminal_gets_lines_and_colours(self):
        for words in self.VERBS:
            seen = self.on_terminal(words)
            self.assert_steers_nothing(re.sub(rb"\r*\n|\x1b\[[0-9;]*m", b"", seen), forged=False)
            self.assertIn(SHOWN.encode(), seen)
            self.assertIn(b"\x1b[1;31mred\x1b[0m\ttab\r\n", seen)
            self.assertIn(b"\\x9b31m\\xff\\u{1b}", seen)

    def test_who_wants_them_raw_has_them(self):
        for words in self.VERBS:
            self.assertIn(RAW, self.on_terminal([*words, "--raw"]))

    def test_a_command_is_attached_to_the_terminal_itself(self):
        self.assertIn(RAW, self.on_terminal(["exec", "-T", "box", "--", "true"]))


class Ids(Hostile):
    """What is used as an id is checked where it is read, and an error names it."""

    def test_a_boot_id_that_is_none(self):
        out, err = self.piped(["create", "liar"])
        self.assert_steers_nothing(out + err)
        self.assertRegex(err.decode(), "(?m)^error: .*boot_id")
        self.assertNotIn("liar", self.place.vms())

    def test_a_commands_id_that_is_none(self):
        self.place.banger("create", "ids")
        for format in FORMATS:
            out, err = self.piped([*format, "logs", "--list", "ids"])
            self.assertEqual(out, b"")
            self.assertRegex(err.decode(), r"(?m)^error: .*commands\.id")
            self.assert_steers_nothing(err)


if __name__ == "__main__":
    unittest.main()
