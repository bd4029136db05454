"""What each fuzz target begins with: a few inputs that are sound, made here so that no binary file is kept.

The leading bytes of some are what the target takes from the front of its input before the text: see the target's own type.
"""

import io
import json
import struct
import tarfile


def frame(kind, payload):
    return struct.pack(">BI", kind, len(payload)) + payload


def text(value):
    return json.dumps(value).encode()


def greeting(**fields):
    body = text(fields)
    return b"\xbabanger\n" + struct.pack(">I", len(body)) + body


def step(what, stream, data):
    """One step of the guest in targets/session.rs."""
    return bytes([what, stream, len(data)]) + data


def tar(*members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, kind, target, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, target, len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


BOOT = "7d0bd2f1-1f7c-4e7e-9f43-8a3a7a0a2b11"
CALLS = [
    {"call": "exec", "argv": ["true"], "env": {"A": "b"}, "tty": {"rows": 1, "columns": 2, "term": "xterm"}},
    {"call": "put", "path": "/", "name": "a"}, {"call": "output", "id": "main", "follow": True},
    {"call": "set_clock", "unix_nanos": 1, "entropy": "00"}, {"call": "levels"},
]  # fmt: skip
ANSWERS = [
    {"answer": "done"}, {"answer": "started", "pid": 1}, {"answer": "levels", "reached": ["agent", "system", "ssh"]},
    {"answer": "commands", "commands": [{"id": "a", "argv": ["b"], "started": 1, "exit": {"code": 1}}]},
    {"answer": "facts", "boot_id": BOOT, "kernel": "", "system": "", "agent_resident": 1},
    {"answer": "error", "code": "not_found", "message": "no"},
]  # fmt: skip
VM = {
    "id": "a", "name": "a", "state": "running", "generation": 1, "image": "d", "cpus": 1, "memory": 1, "disk": 1, "vmm": "qemu",
    "ephemeral": False, "created": 1, "host_key": "k", "pid": 1, "boot_id": "b", "accelerator": "kvm",
}  # fmt: skip
BODIES = [
    {"name": "devbox", "image": "debian", "cpus": 2, "memory": 1 << 30, "disk": 1 << 33, "env": {"A": "b"}, "workdir": "/root",
     "lifetime": "connection", "stopped": True},
    {"memory": (1 << 64) - 1}, {"disk": (1 << 64) - 1}, {"force": True, "timeout": 1}, {"name": "debian", "size": 1 << 33},
    {"argv": ["true"], "env": {}, "workdir": "/", "user": "root", "stdin": True, "detached": True, "main": True}, VM, [VM],
    {"event": "started", "operation": "a"}, {"event": "result", "result": VM, "micros": 1},
    {"code": "vm_not_found", "message": "no", "help": "h", "also": ["a"], "operation": "o"},
    {"check": "kvm", "verdict": "warn", "found": "a", "fix": "b"}, {"version": "0.1.0", "api": 1, "protocol": 2},
]  # fmt: skip
def question(name, kind, more=b""):
    labels = b"".join(bytes([len(label)]) + label for label in name.split(b"."))
    return struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 1 if more else 0) + labels + struct.pack(">BHH", 0, kind, 1) + more


QMP = b'{"QMP": {"version": {}, "capabilities": []}}\n{"return": {}, "id": 0}\n'
REG, DIR, SYM, LNK = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE

SEEDS = {
    "api": [bytes(8) + b"\xff" * 8 + text(body) for body in BODIES] + [b"\xff" * 8 + bytes(8) + text(body) for body in BODIES],
    "config": [
        b'[defaults]\nimage = "debian"\ncpus = 2\nmemory_mib = 1024\n[image]\nsize_mib = 1\n[timeouts]\nagent_s = 1\n[vmm]\nfirst_uid = 1\n',
        b"[timeouts]\nstop_s = 9223372036854775807\n", b"[image]\nseed_mib = 9223372036854775807\n", b"[default]\nx=1\n",
    ],
    "dns": [
        question(b"devbox.vm", 1), question(b"www.devbox.vm", 255), question(b"web.vm", 28), question(b"example.org", 1),
        question(b"2.0.77.10.in-addr.arpa", 12), question(b"vm", 6, b"\0" + struct.pack(">HHIH", 41, 4096, 0, 0)),
    ],
    "frames": [b"\x07\0" + frame(1, text(message)) for message in CALLS + ANSWERS]
    + [b"\0\0" + text(message) for message in CALLS + ANSWERS]
    + [b"\0\0" + frame(5, b"\0\x18\0\x50") + frame(6, b"\x02") + frame(7, text({"signal": 9})) + frame(8, b"")],
    "hello": [
        b"rubbish" + greeting(protocol=2, nonce="0123456789abcdef0123456789abcdef", agent="0.1.0", boot_id=BOOT),
        greeting(protocol=2, nonce="n", unix_nanos=1), text({"protocol": 2, "nonce": "n", "agent": "a", "boot_id": BOOT}),
    ],
    "names": [b"devbox", b"My Dev_Box!", b"x" * 64, b"-a-", "ü".encode()],
    "qmp": [
        b"\0" + QMP + b'{"return": {"running": true}, "id": 1}\n',
        b"\2" + QMP + b'{"return": [{"label": "channel", "frontend-open": true}], "id": 1}\n',
        b"\3" + QMP + b'{"error": {"class": "DeviceNotFound", "desc": "gone"}, "id": 1}\n',
        b"\4" + QMP + b'{"event": "VSERPORT_CHANGE", "data": {"open": false, "id": "port"}}\n',
    ],
    "records": [bytes([0, 1] + [1] * 10 + [1] + [1] * 18), bytes([0, 3] + [0] * 200), b"\0\x02" + b"\1" * 20 + b"\2" + b"\1\0\1\7" * 40],
    "session": [
        b"\2" + b"".join(step(7, stream, b"\1" + text(answer)) for stream, answer in zip((1, 3, 5, 7, 9, 11), ANSWERS)),
        b"\1" + step(2, 1, b"\1\0\0\0\2{}") + step(3, 1, b"\0\1\0\0") + step(4, 0, b"ping") + step(5, 0, b"\0\0\0\0"),
        b"\2" + step(0x11, 2, b"x") + step(0x46, 1, b"\xff\xff\xff\xff") + step(0x23, 3, b"\0\0\0\1"),
    ],
    "transfer": [b"\0\x10" + frame(8, b"data") + frame(8, b""), b"\7\x10" + frame(9, text({"code": "failed", "message": "no"}))],
    "unpack": [
        flags + tar(*members)
        for flags in (b"\0", b"\1", b"\4")
        for members in (
            [("a", DIR, "", b""), ("a/b", REG, "", b"x" * 600), ("a/c", LNK, "a/b", b""), ("a/d", SYM, "../outside", b"")],
            [("a", SYM, "../outside", b""), ("a/file", REG, "", b"x")], [("a/../../outside/file", REG, "", b"x")],
            [("/a", REG, "", b"x")], [("long/" * 30 + "a", REG, "", b"x")], [(".", DIR, "", b""), ("./link/file", REG, "", b"x")],
            [("a", DIR, "", b""), ("a/c", LNK, "../outside/file", b""), ("a/c", REG, "", b"y")],
        )
    ],
}  # fmt: skip
