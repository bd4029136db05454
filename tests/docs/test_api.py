"""What docs/api.md shows, run as it stands against a daemon with the fake VMM; and streams as docs/streams.md tells of them."""

import json
import re
import socket
import struct
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/e2e"))

from fake import FakeCase  # noqa: E402
from harness import DEADLINE  # noqa: E402

BLOCK = re.compile(r"^```console\n(.*?)^```$", re.M | re.S)


class Examples(FakeCase):
    def test_the_examples_of_the_api_run_as_they_stand(self):
        shown = steps((ROOT / "docs/api.md").read_text())
        self.assertGreater(len(shown), 15)
        script = []
        for command, _ in shown:
            # The one thing that is not as it stands: where the socket is.
            command = f"sock={self.place.runtime}/bangerd.sock" if command.startswith("sock=") else command
            script += [command, "printf '\\n%s\\n' '=== next'"]
        ran = subprocess.run(
            ["bash", "-u"], input="\n".join(script), env=self.place.environment, cwd=self.place.runtime_root,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=DEADLINE,
        ).stdout  # fmt: skip
        answers = ran.split("\n=== next\n")
        self.assertEqual(len(answers), len(shown) + 1, ran)
        for (command, expected), answer in zip(shown, answers):
            with self.subTest(command=command):
                self.assertRegex(answer.rstrip("\n"), pattern(expected), f"after $ {command}")

    def test_no_example_matches_everything(self):
        """The comparison itself: it tells a wrong line, a missing one and one too many."""
        expected = ['{"a":"..."}', "...", "end"]
        for good in ('{"a":"x"}\nend', '{"a":""}\n1\n2\nend'):
            self.assertRegex(good, pattern(expected))
        for bad in ('{"b":"x"}\nend', '{"a":"x"}', '{"a":"x"}\nend\nmore', '{"a":"x"} end'):
            self.assertNotRegex(bad, pattern(expected))


class Streams(FakeCase):
    """A client written from docs/streams.md alone."""

    def setUp(self):
        self.place.banger("create", "devbox")
        self.addCleanup(self.place.banger, "rm", "--force", "devbox")

    def open(self, path, body):
        client = socket.socket(socket.AF_UNIX)
        self.addCleanup(client.close)
        client.settimeout(DEADLINE)
        client.connect(f"{self.place.runtime}/bangerd.sock")
        body = json.dumps(body).encode()
        client.sendall(
            f"POST {path} HTTP/1.1\r\nHost: banger\r\nConnection: upgrade\r\nUpgrade: banger-stream\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        stream = client.makefile("rb")
        head = []
        while line := stream.readline().strip():
            head.append(line.decode().lower())
        return client, stream, head

    def frame(self, stream):
        kind, length = struct.unpack("!BI", stream.read(5))
        return kind, stream.read(length)

    def test_a_command_with_input(self):
        client, stream, head = self.open("/v1/vms/devbox/exec", {"argv": ["cat"], "stdin": True})
        self.assertEqual(head[0], "http/1.1 101 switching protocols")
        self.assertLessEqual({"connection: upgrade", "upgrade: banger-stream"}, set(head))
        kind, message = self.frame(stream)
        self.assertEqual((kind, json.loads(message)["answer"]), (1, "started"))
        client.sendall(bytes.fromhex("02 00000003 68690a") + bytes.fromhex("02 00000000"))
        self.assertEqual(self.frame(stream), (3, b"hi\n"))
        self.assertEqual(self.frame(stream), (7, b'{"code":0}'))
        self.assertEqual(stream.read(), b"", "it is closed after the last frame")

    def test_a_command_that_does_not_exist(self):
        _, stream, head = self.open("/v1/vms/devbox/exec", {"argv": ["/nothing/like/this"]})
        self.assertIn(" 101 ", head[0])
        kind, message = self.frame(stream)
        error = json.loads(message)
        self.assertEqual((kind, error["answer"], error["code"]), (1, "error", "not_found"))
        self.assertEqual(stream.read(), b"")

    def test_a_signal_ends_a_command(self):
        client, stream, _ = self.open("/v1/vms/devbox/exec", {"argv": ["cat"], "stdin": True})
        self.frame(stream)
        client.sendall(bytes.fromhex("06 00000001 0f"))
        self.assertEqual(self.frame(stream), (7, b'{"signal":15}'))

    def test_a_request_that_is_refused_has_no_stream(self):
        _, _, head = self.open("/v1/vms/nobody/exec", {"argv": ["cat"]})
        self.assertEqual(head[0], "http/1.1 404 not found")

    def test_a_kind_that_does_not_exist_ends_the_stream(self):
        client, stream, _ = self.open("/v1/vms/devbox/exec", {"argv": ["cat"], "stdin": True})
        self.frame(stream)
        client.sendall(bytes.fromhex("63 00000000"))
        self.assertNotIn((7, b'{"code":0}'), self.until_the_end(stream))

    def until_the_end(self, stream):
        frames = []
        while head := stream.read(5):
            kind, length = struct.unpack("!BI", head)
            frames.append((kind, stream.read(length)))
        return frames


def steps(document):
    """The commands of a document, each with the lines that it prints."""
    found = []
    for block in BLOCK.findall(document):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def pattern(lines):
    """`...` in a line is anything in this line; alone in a line it is any number of lines."""
    text = ""
    for line in lines:
        if line == "...":
            text += r"(?:.*\n)*"
        else:
            text += ".*".join(re.escape(part) for part in line.split("...")) + "\n"
    return re.compile(rf"\A{text.removesuffix(chr(10))}\Z")
