"""A program on a terminal, and what it shows there: each wait begins behind the one before it, and ends by itself."""

import os
import pty
import re
import select
import time

from harness import DEADLINE


class Shown:
    """What arrives at a descriptor that a terminal's output comes out of."""

    def __init__(self, fd):
        self.fd, self.rest = fd, ""

    def until(self, pattern):
        """Waits for a pattern. What is shown before it is in group `before`."""
        deadline = time.monotonic() + DEADLINE
        while not (found := re.search(f"(?P<before>[\\s\\S]*?)(?:{pattern})", self.rest)):
            text = self.read(deadline)
            if not text:
                raise AssertionError(f"it ended without {pattern}: {self.rest!r}")
            self.rest += text
        self.rest = self.rest[found.end() :]
        return found

    def to_the_end(self):
        """All that is still shown."""
        deadline = time.monotonic() + DEADLINE
        while text := self.read(deadline):
            self.rest += text
        return self.rest

    def bytes_to_the_end(self):
        """The same, where every byte matters."""
        deadline, seen = time.monotonic() + DEADLINE, b""
        while select.select([self.fd], [], [], max(0, deadline - time.monotonic()))[0]:
            try:
                seen += os.read(self.fd, 65536)
            except OSError:
                return seen
        raise AssertionError(f"nothing more within {DEADLINE} s: {seen!r}")

    def read(self, deadline):
        """More text; none at the end. A terminal whose other side is gone fails to be read: that is its end."""
        if not select.select([self.fd], [], [], max(0, deadline - time.monotonic()))[0]:
            raise AssertionError(f"nothing more within {DEADLINE} s: {self.rest!r}")
        try:
            return os.read(self.fd, 65536).decode(errors="replace")
        except OSError:
            return ""


class Terminal(Shown):
    """A program on a terminal of its own."""

    def __init__(self, words, environment):
        pid, fd = pty.fork()
        if pid == 0:
            os.execve(words[0], [str(word) for word in words], environment)
        super().__init__(fd)
        self.pid = pid

    def type(self, text):
        os.write(self.fd, text.encode())

    def close(self):
        """Hangs up; the exit code of the program."""
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
