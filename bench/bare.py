#!/usr/bin/env python3
"""QEMU started by hand: what banger's speed is compared with.

The same artefacts, disks, cache mode, processors and memory as banger uses, and nothing of banger's own code. Nothing is
polled: QEMU connects to sockets that listen already, and its end is a pidfd.

    bench/bare.py --kernel vmlinux --initramfs FILE --root root.ext4 --work work.ext4 [--append CMDLINE] -- echo hello
"""

import argparse
import ctypes
import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

from agent_client import Session

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tests"))
from netns import Net  # noqa: E402

QEMU = "/usr/bin/qemu-system-x86_64"
PORT = "banger.agent"
FICLONE = 0x40049409
PR_SET_PDEATHSIG = 1
CLONE_NEWNET = 0x40000000
TAP = "bench0"
DEADLINE = 30


@dataclass
class Artefacts:
    """What a machine is made from."""

    kernel: str
    initramfs: str
    append: str
    root: str
    work: str
    cpus: int = 2
    memory_mib: int = 1024
    work_size: int = 0
    machine: str = "microvm,acpi=on,pic=off,pit=off,rtc=on"
    accelerator: str = "tcg,thread=multi,tb-size=256"
    cpu_model: str = "max"
    # Of its card, which the initramfs tells the guest, and of the host's end of it.
    mac: str = ""
    gateway: str = ""


class BareGuest:
    """One running QEMU. Use it in a `with`: the process and its directory are gone afterwards."""

    def __init__(self, artefacts: Artefacts, directory: str, raw_port: bool = False, net=None):
        """Clones the disks into a new directory below `directory`, starts QEMU and waits until the agent has answered. In the network
        namespace `net` it has a card, on the TAP that is there."""
        self.directory = tempfile.TemporaryDirectory(prefix="bare-", dir=directory)
        at = lambda name: os.path.join(self.directory.name, name)
        began = time.perf_counter()
        clone(artefacts.root, at("root.ext4"))
        clone(artefacts.work, at("work.ext4"))
        if artefacts.work_size:
            os.truncate(at("work.ext4"), artefacts.work_size)
        self.clone_seconds = time.perf_counter() - began
        # Socket paths are short, whatever the disks' place is called.
        self.sockets = tempfile.TemporaryDirectory(prefix="bare-")
        listeners = {name: listen(os.path.join(self.sockets.name, name)) for name in ["agent"] + ["raw"] * raw_port}
        self.argv = argv(artefacts, at("root.ext4"), at("work.ext4"), at("console"), self.sockets.name, raw_port)
        if net:
            self.argv += ["-netdev", f"tap,id=net,ifname={TAP},script=no,downscript=no"]
            self.argv += ["-device", f"virtio-net-device,netdev=net,mac={artefacts.mac}"]
        self.started = time.perf_counter()
        self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, preexec_fn=lambda: prepare(net))
        self.pidfd = os.pidfd_open(self.process.pid)
        try:
            self.connections = {name: self._accept(listener) for name, listener in listeners.items()}
            self.connections["agent"].settimeout(DEADLINE)
            self.session = Session(self.connections["agent"])
        except BaseException:
            with open(at("console"), errors="replace") as console:
                print("\n".join(console.read().splitlines()[-20:]), file=sys.stderr)
            self.__exit__()
            raise

    def seconds(self) -> float:
        """Since QEMU was started."""
        return time.perf_counter() - self.started

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self.pidfd)
        self.directory.cleanup()
        self.sockets.cleanup()

    def _accept(self, listener):
        ready, _, _ = select.select([listener, self.pidfd], [], [], DEADLINE)
        if listener not in ready:
            raise RuntimeError("QEMU ended before it connected" if ready else "QEMU did not connect in time")
        connection, _ = listener.accept()
        listener.close()
        return connection


def argv(artefacts, root, work, console, sockets, raw_port):
    """What one would type."""
    disk = "if=none,format=raw,cache=writeback,aio=threads,discard=unmap"
    words = [
        QEMU, "-M", artefacts.machine, "-accel", artefacts.accelerator,
        "-cpu", artefacts.cpu_model, "-smp", str(artefacts.cpus), "-m", f"{artefacts.memory_mib}M",
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-kernel", artefacts.kernel, "-initrd", artefacts.initramfs, "-append", artefacts.append,
        "-drive", f"id=root,file={root},{disk}", "-device", "virtio-blk-device,drive=root,serial=root",
        "-drive", f"id=work,file={work},{disk}", "-device", "virtio-blk-device,drive=work,serial=work",
        "-device", "virtio-rng-device", "-serial", f"file:{console}",
        # Each port costs the guest's driver two queues, and in emulation much of its time. Number 0 is for a console.
        "-device", f"virtio-serial-device,max_ports={3 if raw_port else 2}",
        "-chardev", f"socket,id=agent,path={sockets}/agent",
        "-device", f"virtserialport,chardev=agent,name={PORT}",
    ]  # fmt: skip
    if raw_port:
        words += ["-chardev", f"socket,id=raw,path={sockets}/raw", "-device", "virtserialport,chardev=raw,name=raw"]
    return words


def plain_network(artefacts):
    """A network namespace with a TAP for a guest, whose host's end has the address that the guest takes for its gateway."""
    net = Net()
    net.ask("ip", "tuntap", "add", TAP, "mode", "tap", "vnet_hdr")
    net.ask("ip", "address", "add", f"{artefacts.gateway}/24", "dev", TAP)
    net.ask("ip", "link", "set", TAP, "up")
    return net


def prepare(net):
    """However this program ends, no QEMU stays; and it begins in its network."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if net and libc.setns(net.fd, CLONE_NEWNET) != 0:
        os._exit(1)


def listen(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    return listener


def clone(source, target):
    """A reflink where the file system has them, else a copy of what is no hole."""
    with open(source, "rb") as old, open(target, "wb") as new:
        try:
            fcntl.ioctl(new, FICLONE, old.fileno())
            return
        except OSError:
            pass
        size = os.fstat(old.fileno()).st_size
        new.truncate(size)
        at = 0
        while at < size:
            try:
                at = os.lseek(old.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
            end = os.lseek(old.fileno(), at, os.SEEK_HOLE)
            while at < end:
                at += os.copy_file_range(old.fileno(), new.fileno(), end - at, at, at)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ["kernel", "initramfs", "root", "work"]:
        options.add_argument(f"--{name}", required=True)
    options.add_argument("--append", required=True)
    options.add_argument("--cpus", type=int, default=2)
    options.add_argument("--memory", type=int, default=1024, help="MiB")
    options.add_argument("command", nargs="+")
    given = options.parse_args()
    artefacts = Artefacts(
        given.kernel, given.initramfs, given.append, given.root, given.work, given.cpus, given.memory
    )
    with BareGuest(artefacts, os.path.dirname(given.root) or ".") as guest:
        print(" ".join(guest.argv), file=sys.stderr)
        hello = guest.seconds()
        output = guest.session.first_output(given.command)
        print(f"clone {guest.clone_seconds:.3f} s, hello {hello:.3f} s, output {guest.seconds():.3f} s: {output!r}")


if __name__ == "__main__":
    main()
