"""Network namespaces (network_namespaces(7)) for tests and benches: links, rules and traffic that are not the host's."""

import json
import os
import subprocess

# Longer than anything here takes.
DEADLINE = 90


class Failed(Exception):
    """A command that had to succeed did not."""


class Net:
    """A network namespace of a test's own, with only its loopback device, or that of a process. It is gone with the last process
    in it."""

    def __init__(self, of=None):
        if of is not None:
            self.fd = os.open(f"/proc/{of}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            return
        # Who holds it until it is opened: nothing but a file of /proc leads to it.
        words = ["unshare", "--net", "sh", "-e", "-c", "ip link set lo up; echo; read -r end"]
        holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if holder.stdout.readline() != b"\n":
            raise Failed("no network namespace can be made")
        self.fd = os.open(f"/proc/{holder.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        holder.communicate()

    def same(self):
        """Another reference to the same namespace."""
        other = Net.__new__(Net)
        other.fd = os.dup(self.fd)
        return other

    @property
    def fds(self):
        return [self.fd]

    def words(self):
        """What a command begins with to run in it; a process started so must be given `fds`, too."""
        return ["nsenter", f"--net=/proc/self/fd/{self.fd}", "--"]

    def run(self, *words, input=None, seconds=DEADLINE):
        """Runs a command in it to its end, whatever that is. Output is text."""
        return subprocess.run(
            [*self.words(), *map(str, words)], pass_fds=self.fds, input=input, timeout=seconds,
            stdin=None if input is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def start(self, *words, **options):
        """Starts a command in it and does not wait for it."""
        return subprocess.Popen([*self.words(), *map(str, words)], pass_fds=self.fds, **options)

    def ask(self, *words, **options):
        """Runs a command in it, which must succeed, and returns its output."""
        result = self.run(*words, **options)
        if result.returncode != 0:
            raise Failed(f"`{' '.join(map(str, words))}` ended with {result.returncode}: {result.stdout}{result.stderr}")
        return result.stdout

    def json(self, *words):
        return json.loads(self.ask(*words) or "[]")

    def links(self):
        return {link["ifname"]: link for link in self.json("ip", "-j", "link")}

    def close(self):
        """Does nothing twice."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None
