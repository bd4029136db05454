"""Many VMs of the fake VMM: a daemon of its own in temporary directories, its guests the agent on this very host."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from banger_cli import BANGER

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import tiny_image  # noqa: E402


class FakeFleet:
    """Use it in a `with`: VMs, daemon and directories are gone afterwards."""

    def __init__(self, size, config="", net=None, banger=BANGER):
        """`config` is added to the daemon's configuration; the daemon runs in the network namespace `net`. `banger` is the command
        line, and the daemon's program lies beside it."""
        self.size, self.net, self.banger = size, net, banger
        self.config = tiny_image.CONFIG + config

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="bf-")
        place = Path(self.directory.name)
        self.environment = {
            "PATH": os.environ["PATH"],
            "BANGER_STATE_DIR": str(place / "state"),
            "BANGER_RUNTIME_DIR": str(place / "run"),
            "BANGER_CONFIG": str(place / "config.toml"),
        }
        (place / "config.toml").write_text(self.config)
        self._start()
        self._stop()
        tiny_image.plant(place / "state")
        self._start()
        for number in range(self.size):
            self._banger("create", "-q", f"vm-{number}")
        return self

    def __exit__(self, *_):
        if left := self.ask("ls", "-q").stdout.split():
            self._banger("rm", "-q", "--force", *left)
        self._stop()
        self.directory.cleanup()
        if self.net:
            self.net.close()

    def daemon_resident(self):
        """The daemon's resident memory in bytes, by the kernel's word."""
        for line in Path(f"/proc/{self.daemon.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024

    def daemon_cpu(self):
        """The processor time that the daemon has had, in seconds (proc_pid_stat(5): fields 14 and 15)."""
        fields = Path(f"/proc/{self.daemon.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def ask(self, *args):
        """Runs a command, which must succeed; what it said."""
        return subprocess.run(
            [self.banger, *args], env=self.environment, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )

    def _banger(self, *args):
        subprocess.run([self.banger, *args], env=self.environment, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def _start(self):
        ready, ready_end = os.pipe()
        within = self.net.words() if self.net else []
        self.daemon = subprocess.Popen(
            [*within, self.banger.parent / "bangerd", "--fake-vmm", "--ready-fd", str(ready_end)], env=self.environment,
            pass_fds=[ready_end, *([self.net.fd] if self.net else [])], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        os.close(ready_end)
        with os.fdopen(ready) as said:
            answer = said.read()
        if answer != "ready\n":
            raise SystemExit(f"bangerd --fake-vmm does not start: {answer}")

    def _stop(self):
        self._banger("daemon", "stop", "--quiet")
        self.daemon.wait()
