"""A host with a resolver: the real systemd-resolved and a system bus in namespaces of a test's own.

It sees this machine's files but for those that say whom a program asks for names, which it has of its own.
"""

import os
import signal
import socket
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from harness import ROOT
from netns import DEADLINE, Failed, Net

# Where scripts/install-packages unpacks the package for tests: to install it would hand this machine's own resolv.conf over to it.
UNPACKED = ROOT / "target/systemd-resolved"
SOCKET = "run/systemd/resolve/io.systemd.Resolve"

# The files of a host of its own; then the bus, which says when it listens. What stands in /etc is there by mounts alone.
SETUP = """
if [ -d "$1/usr" ]; then mount -t overlay -o "lowerdir=$1/usr:/usr" overlay /usr; fi
mount -t tmpfs tmpfs /run
mkdir -p /run/dbus /run/systemd /run/etc
for file in passwd group; do cp /etc/$file /run/etc/; done
grep -q ^systemd-resolve: /run/etc/passwd || echo systemd-resolve:x:64990:64990::/:/usr/sbin/nologin >>/run/etc/passwd
grep -q ^systemd-resolve: /run/etc/group || echo systemd-resolve:x:64990: >>/run/etc/group
echo nameserver 127.0.0.53 >/run/etc/resolv.conf
echo hosts: files dns >/run/etc/nsswitch.conf
printf '127.0.0.1 localhost\\n# the last line has no end' >/run/etc/hosts
chmod 640 /run/etc/hosts
for file in passwd group resolv.conf nsswitch.conf hosts; do
    place=$(readlink -m /etc/$file)
    if ! [ -e "$place" ]; then mkdir -p "$(dirname "$place")"; touch "$place"; fi
    mount --bind /run/etc/$file "$place"
done
ip link set lo up
exec dbus-daemon --system --nofork --nopidfile --print-address
"""


class ResolvedHost(Net):
    """A network and a mount namespace with a system bus and, once it is started, systemd-resolved. They end with `close`."""

    def __init__(self):
        program = Path("usr/lib/systemd/systemd-resolved")
        if not (Path("/") / program).exists() and not (UNPACKED / program).exists():
            raise unittest.SkipTest("no systemd-resolved: scripts/install-packages --test unpacks one")
        unpacked = "" if (Path("/") / program).exists() else UNPACKED
        self.resolved, self.mounts = None, None
        self.notices = tempfile.TemporaryDirectory(prefix="bt-", dir="/tmp")
        words = ["unshare", "--net", "--mount", "sh", "-e", "-c", SETUP, "sh", unpacked]
        self.bus = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if not self.bus.stdout.readline().startswith("unix:"):
            _, said = self.bus.communicate(timeout=DEADLINE)
            self.notices.cleanup()
            raise Failed(f"there is no bus: {said}")
        # Only then are both namespaces its own.
        super().__init__(of=self.bus.pid)
        self.mounts = os.open(f"/proc/{self.bus.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def fds(self):
        return [self.fd, self.mounts]

    def words(self):
        return ["nsenter", f"--net=/proc/self/fd/{self.fd}", f"--mount=/proc/self/fd/{self.mounts}", "--"]

    def start_resolved(self, *inside):
        """Returns when it says that it is ready (sd_notify(3)). `inside` is a command that runs it."""
        path = f"{self.notices.name}/{time.monotonic_ns()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
            notices.bind(path)
            os.chmod(path, 0o666)
            os.chmod(self.notices.name, 0o755)
            notices.settimeout(DEADLINE)
            self.resolved = self.start(
                "env", f"NOTIFY_SOCKET={path}", *inside, "/usr/lib/systemd/systemd-resolved",
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            while b"READY=1" not in notices.recv(4096):
                pass

    def stop_resolved(self):
        """Does nothing twice."""
        if self.resolved:
            self.resolved.terminate()
            self.resolved.wait(timeout=DEADLINE)
            self.resolved = None

    def read(self, path):
        return self.ask("cat", path)

    def close(self):
        """Does nothing twice."""
        self.stop_resolved()
        if self.bus.poll() is None:
            self.bus.send_signal(signal.SIGKILL)
            self.bus.communicate(timeout=DEADLINE)
        self.notices.cleanup()
        if self.mounts is not None:
            os.close(self.mounts)
            self.mounts = None
        super().close()
