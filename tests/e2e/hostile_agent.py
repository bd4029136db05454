"""An agent of the fake VMM's guests all of whose words would steer a terminal. It speaks the protocol by itself, without banger's code.

The fake VMM starts it as it starts an agent: `--listen -` is a listening socket as standard input, `--boot FILE` says who the guest is. The
guest's name chooses which words are wrong: those of `liar` are in its greeting, those of `ids` are ids of commands, those of `dies` its last.
"""

import io
import json
import os
import socket
import struct
import sys
import tarfile
import threading

# OSC, CSI, a C1 character, marks of the writing direction, separators, what nobody can see, and a line that somebody else might have said.
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202e\u2066\u061c\u2028\ufeff\U000e0041\r\nforged: line\b"
# What no character is made of, too, and sequences that end in another frame.
OUTPUT = [EVIL.encode() + b"\x9b31m\xff\x1b", b"[", b"2J\x1b]0;", b"owned\x07\xe2", b"\x80\xae\x1b[1;31mred\x1b[0m\ttab\n"]
MAGIC = b"\xbabanger\n"
BOOT_ID = "7d0bd2f1-1f7c-4e7e-9f43-8a3a7a0a2b11"
MESSAGE, STDOUT, STDERR, EXIT, DATA, FAILED = 1, 3, 4, 7, 8, 9
# The multiplexer's (yamux): kinds of messages, and flags.
MUX_DATA, MUX_WINDOW, MUX_PING = 0, 1, 2
SYN, ACK, FIN = 1, 2, 4


def frame(kind, payload):
    payload = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return struct.pack(">BI", kind, len(payload)) + payload


def refusal(code="failed"):
    return {"answer": "error", "code": code, "message": EVIL}


def archive(top):
    """A directory with something in it that no copy has: what was left out is told by its name."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, kind in ((top, tarfile.DIRTYPE), (f"{top}/{EVIL}", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, 0o755
            tar.addfile(member)
    return file.getvalue()


def answer(call, name):
    """The frames of an answer; whether the stream stays open."""
    match call["call"]:
        case "exec" if call.get("detached"):
            return [frame(MESSAGE, {"answer": "started", "pid": 1})], False
        case "exec" if call["argv"][:1] == ["refused"]:
            return [frame(MESSAGE, refusal("not_found"))], False
        case "exec" if call["argv"][:1] == ["quits"]:
            die()
        case "exec":
            said = [frame(STDOUT, OUTPUT[0]), frame(STDERR, OUTPUT[0]), frame(EXIT, {"code": 0})]
            return [frame(MESSAGE, {"answer": "started", "pid": 1}), *said], False
        case "commands":
            word = EVIL if name == "ids" else "main"
            command = {"id": word, "argv": ["sh", "-c", EVIL], "started": 1, "exit": {"code": 0}}
            return [frame(MESSAGE, {"answer": "commands", "commands": [command]})], False
        case "output" if call["id"] == "main":
            said = [frame(kind, piece) for piece in OUTPUT for kind in (STDOUT, STDERR)]
            return [frame(MESSAGE, {"answer": "done"}), *said, frame(EXIT, {"code": 0})], False
        case "output" if call["id"] == "breaks":
            return [frame(MESSAGE, {"answer": "done"}), frame(FAILED, {"code": "failed", "message": EVIL})], False
        case "output":
            return [frame(MESSAGE, refusal("not_found"))], False
        case "await":
            return [frame(MESSAGE, {"answer": "done"})], True
        case "get" if call["path"].endswith("/directory"):
            return [frame(MESSAGE, {"answer": "done"}), frame(DATA, archive("directory")), frame(DATA, b"")], False
        case "levels":
            return [frame(MESSAGE, {"answer": "levels", "reached": ["agent", "system", "ssh"]})], True
        case "load":
            load = {"averages": [1, 2, 3], "tasks": 1, "memory": 1 << 30, "memory_available": 1 << 29, "uptime": 1}
            load["file_systems"] = [{"mounted_on": EVIL, "size": 1, "free": 1}]
            return [frame(MESSAGE, {"answer": "load", **load})], False
        case "ports":
            ports = [{"port": 8080, "address": "0.0.0.0", "process": EVIL}]
            return [frame(MESSAGE, {"answer": "ports", "ports": ports})], False
        case "set_clock" | "power_off":
            return [frame(MESSAGE, {"answer": "done"})], False
    return [frame(MESSAGE, refusal())], False


def die():
    sys.stderr.buffer.write(f"Kernel panic - not syncing: {EVIL}".encode())
    sys.stderr.flush()
    # As one whose kernel ends it in order: its last words are then why it is down.
    os._exit(0)


class Session:
    """One connection of the daemon's: a greeting, then calls, each on a stream of its own."""

    def __init__(self, connection, name):
        self.file, self.name = connection.makefile("rwb"), name
        self.streams = {}

    def serve(self):
        while self.file.read(1) != MAGIC[:1] or self.file.read(7) != MAGIC[1:]:
            pass
        hello = json.loads(self.file.read(struct.unpack(">I", self.file.read(4))[0]))
        boot_id = EVIL if self.name == "liar" else BOOT_ID
        welcome = {"protocol": 4, "nonce": hello["nonce"], "agent": "0.1.0", "boot_id": boot_id}
        welcome = json.dumps(welcome).encode()
        self.file.write(MAGIC + struct.pack(">I", len(welcome)) + welcome)
        self.file.flush()
        while head := self.file.read(12):
            _, kind, flags, stream, length = struct.unpack(">BBHII", head)
            if kind == MUX_PING and flags & SYN:
                self.send(MUX_PING, ACK, 0, length)
            if flags & SYN and kind != MUX_PING:
                self.streams[stream] = b""
                self.send(MUX_WINDOW, ACK, stream, 0)
            if kind == MUX_DATA:
                self.streams[stream] = self.streams.get(stream, b"") + self.file.read(length)
                self.call(stream)

    def call(self, stream):
        bytes = self.streams[stream]
        if len(bytes) < 5 or len(bytes) < 5 + struct.unpack(">I", bytes[1:5])[0]:
            return
        # What follows a call's first frame is not asked for.
        self.streams[stream] = b""
        if bytes[0] != MESSAGE:
            return
        call = json.loads(bytes[5 : 5 + struct.unpack(">I", bytes[1:5])[0]])
        frames, stays = answer(call, self.name)
        for one in frames:
            self.send(MUX_DATA, 0, stream, len(one), one)
        if not stays:
            self.send(MUX_DATA, FIN, stream, 0)
        if call["call"] == "power_off":
            os._exit(0)

    def send(self, kind, flags, stream, length, payload=b""):
        self.file.write(struct.pack(">BBHII", 0, kind, flags, stream, length) + payload)
        self.file.flush()


def main():
    boot = json.load(open(sys.argv[sys.argv.index("--boot") + 1]))
    # What the agent says goes to the console's log.
    sys.stderr.buffer.write(b"".join(OUTPUT))
    sys.stderr.flush()
    if boot["identity"]["hostname"] == "dies":
        die()
    listener = socket.socket(fileno=0)
    listener.setblocking(True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=Session(connection, boot["identity"]["hostname"]).serve, daemon=True).start()


if __name__ == "__main__":
    main()
