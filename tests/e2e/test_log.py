"""The daemon's log on a file system that is frozen or full, and one that cannot be opened: the daemon serves requests all the
same. No real guest is needed.
"""

import contextlib
import json
import os
import subprocess
import time
from pathlib import Path

from fake import FakeCase
from harness import Failed

# What `banger ls` may take while nothing else is done. Before, it waited for the file system.
FAST = 1
# Where a hundred times that is no sign of a hang: requests on a host that is busy with other tests.
PATIENCE = 20


class Log(FakeCase):
    def read(self):
        return (self.place.state / "bangerd.log").read_text()

    def complaints(self):
        return (self.place.runtime_root / "stderr").read_text()

    def refused(self):
        """A request whose beginning and end are logged, and that writes nothing else: the operation's id."""
        result = self.place.run("rm", "devbox", seconds=PATIENCE)
        self.assertEqual(result.returncode, 1, result.stderr)
        return next(line.split()[2] for line in result.stderr.splitlines() if line.startswith("also: operation "))

    def assert_it_answers(self):
        """The fastest of a few, as other processes need the processors, too."""
        times = []
        for _ in range(5):
            began = time.monotonic()
            self.place.run("ls", seconds=PATIENCE)
            times.append(time.monotonic() - began)
        self.assertLess(min(times), FAST, times)

    def await_lines(self, path, *parts):
        """Reads a log until all parts are in it, with a command between two looks."""
        for _ in range(200):
            text = path.read_text()
            if all(part in text for part in parts):
                return text
            self.place.banger("ls")
        self.fail(f"not all of {parts} are in the log: {text[-2000:]}")


class SmallState(Log):
    """A state directory on a file system of its own, which only the daemon has mounted."""

    def setUp(self):
        place = self.place
        place.stop_daemon()
        self.small = Path("/var/tmp") / f"{place.runtime_root.name}.ext4"
        self.addCleanup(self.small.unlink)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-m", "0", "-d", place.state, self.small, "64M"], check=True, stdout=subprocess.DEVNULL)
        self.addCleanup(place.start_daemon, *self.args)
        self.start()
        place.banger("create", "devbox")

    def start(self):
        self.place.start_daemon(*self.args, inside=f"mount -o loop {self.small} {self.place.state}")
        # What the daemon sees. The descriptor keeps the mount when the daemon has ended.
        self.state = Path(f"/proc/{self.place.daemon.pid}/root{self.place.state}")

    def doCleanups(self):
        if self.place.daemon:
            (self.state / "fill").unlink(missing_ok=True)
            self.place.run("rm", "--force", "devbox", seconds=PATIENCE)
            self.place.stop_daemon()
        return super().doCleanups()

    @contextlib.contextmanager
    def frozen(self):
        """Freezes the file system. Another process thaws it: also if this one dies, and after a minute."""
        directory = os.open(self.state, os.O_RDONLY)
        script = f"timeout 60 cat; exec fsfreeze --unfreeze /proc/self/fd/{directory}"
        thaw = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, pass_fds=[directory])
        try:
            freeze = ["fsfreeze", "--freeze", f"/proc/self/fd/{directory}"]
            subprocess.run(freeze, pass_fds=[directory], check=True, timeout=PATIENCE)
            yield
        finally:
            thaw.communicate(timeout=PATIENCE)
            os.close(directory)

    def test_frozen(self):
        log = self.state / "bangerd.log"
        with self.frozen():
            # More than the daemon has threads for requests.
            ids = [self.refused() for _ in range(4)]
            self.assert_it_answers()
            self.assertFalse([id for id in ids if id in log.read_text()], "it is not frozen")
        self.await_lines(log, *ids)

    def test_full(self):
        self.fill()
        ids = [self.refused() for _ in range(4)]
        self.assert_it_answers()
        self.assertIn("cannot write the log", self.complaints())
        # It starts on a full file system, too.
        self.place.stop_daemon()
        self.start()
        ids += [self.refused() for _ in range(4)]
        self.assert_it_answers()
        self.assertIn("cannot write the log", self.complaints())
        (self.state / "fill").unlink()
        after = self.refused()
        text = self.await_lines(self.state / "bangerd.log", after)
        self.assertIn("lines of this log could not be written", text)
        self.assertFalse([id for id in ids if id in text])
        for line in text.splitlines():
            json.loads(line)

    def fill(self):
        """Leaves no block free, and an empty log."""
        log = os.open(self.state / "bangerd.log", os.O_RDWR)
        fill = os.open(self.state / "fill", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.truncate(log, 0)
        # The log's blocks are free once the journal is written.
        os.fsync(log)
        os.close(log)
        free = True
        while free:
            free = False
            for size in (1 << 16, 1):
                with contextlib.suppress(OSError):
                    while os.write(fill, bytes(size)):
                        free = True
            os.fsync(fill)
        os.close(fill)


class Unopened(Log):
    """A log that cannot be opened, and one whose opening does not end."""

    def setUp(self):
        self.log = self.place.state / "bangerd.log"
        self.place.stop_daemon()
        self.log.rename(self.log.with_suffix(".kept"))

    def tearDown(self):
        self.log.with_suffix(".kept").replace(self.log)

    def test_a_directory_in_its_place(self):
        place = self.place
        self.log.mkdir()
        place.start_daemon(*self.args)
        self.assert_it_answers()
        self.assertIn(f"cannot write the log {self.log}", self.complaints())
        self.log.rmdir()
        place.banger("create", "devbox")
        text = self.await_lines(self.log, '"create"')
        self.assertRegex(json.loads(text.splitlines()[0])["message"], r"^\d+ lines of this log could not be written$")
        place.banger("rm", "--force", "devbox")

    def test_a_pipe_that_nobody_reads(self):
        place = self.place
        os.mkfifo(self.log)
        place.start_daemon(*self.args)
        place.banger("create", "devbox", seconds=PATIENCE)
        self.assert_it_answers()
        place.banger("rm", "--force", "devbox", seconds=PATIENCE)
        began = time.monotonic()
        place.stop_daemon()
        self.assertLess(time.monotonic() - began, PATIENCE)
        self.log.unlink()
        place.start_daemon(*self.args)


class Rotated(Log):
    def test_it_is_put_aside_while_the_daemon_runs(self):
        place, log = self.place, self.place.state / "bangerd.log"
        place.stop_daemon()
        # A byte less than its greatest length: the next line is too much.
        with log.open("ab") as file:
            file.truncate(16 * 1024 * 1024 - 1)
        place.start_daemon(*self.args)
        place.banger("create", "devbox")
        text = self.await_lines(log, '"create"')
        self.assertLess(len(text), 1 << 20)
        older = log.with_name("bangerd.log.1")
        self.assertEqual((older.stat().st_size, older.stat().st_mode & 0o777), (16 * 1024 * 1024 - 1, 0o600))
        self.assertEqual(log.stat().st_mode & 0o777, 0o600)
        older.unlink()
        place.banger("rm", "--force", "devbox")

