"""What docs/api.md shows, run as it stands against a daemon with the fake VMM; and streams as docs/streams.md tells of them."""

import json
import socket
import struct
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/e2e")]

import console_blocks  # noqa: E402
from fake import FakeCase  # noqa: E402
from harness import DEADLINE  # noqa: E402

class Examples(FakeCase):
    def test_the_examples_of_the_api_run_as_they_stand(self):
        document = (ROOT / "docs/api.md").read_text()
        self.assertGreater(len(console_blocks.steps(document)), 15)
        place = {"/run/banger": str(self.place.runtime)}
        console_blocks.run(self, document, self.place.environment, self.place.runtime_root, DEADLINE, place)


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
