"""A second, minimal implementation of the agent's protocol: hello, yamux, frames, exec.

It shares no code with banger, so that the bench compares two programs and not one with itself. It blocks on its socket
and knows no timers. What the bytes mean stands in crates/protocol.
"""

import json
import os
import socket
import struct
import time

MAGIC = b"\xbabanger\n"
PROTOCOL = 2

# yamux: twelve bytes of head (version, type, flags, stream, length).
HEAD = struct.Struct(">BBHII")
DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RESET = 1, 2, 4, 8
WINDOW = 256 * 1024

# Frames of a call: one byte of kind, four of length.
FRAME = struct.Struct(">BI")
MESSAGE, STDIN, STDOUT, STDERR, RESIZE, SIGNAL, EXIT, BYTES, FAILED = range(1, 10)


class ProtocolError(Exception):
    """The peer said something that it must not say here."""


class Session:
    """One session over a connected socket: greets, then carries streams."""

    def __init__(self, connection: socket.socket):
        self.connection = connection
        self.reader = connection.makefile("rb", buffering=1024 * 1024)
        self.streams = {}
        self.next_id = 1
        self.welcome = self._greet()

    def open(self) -> "Stream":
        stream = Stream(self, self.next_id)
        self.streams[self.next_id] = stream
        self.next_id += 2
        return stream

    def exec(self, argv, **options):
        """Runs a command to its end. Returns its exit code and its standard output."""
        stream = self.open()
        stream.call({"call": "exec", "argv": argv, **options})
        output = bytearray()
        while True:
            kind, payload = stream.read_frame()
            if kind == STDOUT:
                output += payload
            elif kind == EXIT:
                stream.close()
                return json.loads(payload)["code"], bytes(output)
            elif kind != STDERR:
                raise ProtocolError(f"frame {kind} in an exec: {payload!r}")

    def first_output(self, argv) -> bytes:
        """Runs a command and returns at the first bytes that it prints."""
        stream = self.open()
        stream.call({"call": "exec", "argv": argv})
        while True:
            kind, payload = stream.read_frame()
            if kind == STDOUT:
                return bytes(payload)
            if kind != STDERR:
                raise ProtocolError(f"no output: frame {kind}: {payload!r}")

    def wait_for(self, level):
        """Returns when the guest has reached a level."""
        stream = self.open()
        answer = stream.call({"call": "levels"})
        while level not in answer["reached"]:
            answer = json.loads(stream.read_frame()[1])
        stream.close()

    def _greet(self) -> dict:
        nonce = os.urandom(16).hex()
        hello = json.dumps({"protocol": PROTOCOL, "nonce": nonce, "unix_nanos": time.time_ns()}).encode()
        self.connection.sendall(MAGIC + struct.pack(">I", len(hello)) + hello)
        while True:
            window = b""
            while window != MAGIC:
                window = (window + self._exactly(1))[-len(MAGIC) :]
            welcome = json.loads(self._exactly(struct.unpack(">I", self._exactly(4))[0]))
            if welcome["nonce"] == nonce:
                return welcome

    def _exactly(self, length: int) -> bytes:
        data = self.reader.read(length)
        if len(data) < length:
            raise EOFError("the channel closed")
        return data

    def _send(self, kind, flags, stream, length, data=b""):
        self.connection.sendall(HEAD.pack(0, kind, flags, stream, length) + data)

    def _turn(self):
        """Takes one yamux frame from the connection and acts on it."""
        _, kind, flags, number, length = HEAD.unpack(self._exactly(HEAD.size))
        if kind == DATA:
            data = self._exactly(length)
            stream = self.streams.get(number)
            if stream:
                stream.received(data)
        elif kind == WINDOW_UPDATE:
            stream = self.streams.get(number)
            if stream:
                stream.credit += length
        elif kind == PING:
            if flags & SYN:
                self._send(PING, ACK, 0, length)
            return
        else:
            raise ProtocolError(f"the agent ended the session: {length}")
        if flags & (FIN | RESET) and number in self.streams:
            self.streams[number].ended = True


class Stream:
    """One stream: a call, then its frames."""

    def __init__(self, session: Session, number: int):
        self.session = session
        self.number = number
        self.flags = SYN
        self.credit = WINDOW
        self.unread = bytearray()
        self.taken = 0
        self.ended = False

    def call(self, message: dict) -> dict:
        """Sends a call and returns its answer."""
        self.write_frame(MESSAGE, json.dumps(message).encode())
        kind, payload = self.read_frame()
        answer = json.loads(payload)
        if kind != MESSAGE or answer["answer"] == "error":
            raise ProtocolError(f"{message['call']}: {payload!r}")
        return answer

    def write_frame(self, kind: int, payload: bytes):
        self.write(FRAME.pack(kind, len(payload)) + payload)

    def write(self, data: bytes):
        while data:
            while self.credit == 0:
                self.session._turn()
            part, data = data[: self.credit], data[self.credit :]
            self.credit -= len(part)
            self.session._send(DATA, self.flags, self.number, len(part), part)
            self.flags = 0

    def read_frame(self):
        """The next frame: its kind and its payload."""
        kind, length = FRAME.unpack(self.read(FRAME.size))
        return kind, self.read(length)

    def read(self, length: int) -> bytes:
        while len(self.unread) < length:
            if self.ended:
                raise EOFError("the stream ended")
            self.session._turn()
        data = bytes(self.unread[:length])
        del self.unread[:length]
        return data

    def received(self, data: bytes):
        self.unread += data
        self.taken += len(data)
        # As every yamux does: give credit back once half of the window is used.
        if self.taken >= WINDOW // 2:
            self.session._send(WINDOW_UPDATE, self.flags, self.number, self.taken)
            self.flags = 0
            self.taken = 0

    def close(self):
        self.session._send(WINDOW_UPDATE, RESET, self.number, 0)
        del self.session.streams[self.number]
