"""Runs a bench in a child process: after an error, a signal or SIGKILL, nothing that it started stays.

The parent is the child subreaper, so that every process of the bench is its descendant (tests/host.py). First the bench undoes its
own work, in order. Then the parent removes the VMs with the bench's name, ends the daemon if the bench started it, kills the
remaining processes and removes the bench's directory. A network namespace disappears with its last process.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import host  # noqa: E402

# The prefix of the names of a bench's VMs: no other VM has it.
VMS = f"bench-{os.getpid()}"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(main, banger, state, runtime):
    """Runs `main` in a child and exits as it does. `banger` is the program; the two directories are those of its daemon."""
    daemon_ran = answers(runtime)
    place = tempfile.mkdtemp(prefix=f"{VMS}-", dir="/tmp")
    host.become_subreaper()
    child = os.fork()
    if child == 0:
        tempfile.tempdir = place
        for number in SIGNALS:
            signal.signal(number, end)
        main()
        sys.exit(0)
    for number in SIGNALS:
        signal.signal(number, lambda *_: os.kill(child, signal.SIGTERM))
    try:
        code = host.reap_until(child)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    finally:
        remove_vms(banger, runtime, daemon_ran)
        # A daemon from before the bench is no descendant, and neither are its VMs.
        while left := host.descendants():
            for pid, words in left:
                print(f"killing what the bench has left: {words}", file=sys.stderr)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            reap()
        for directory in (place, *state.glob(f"{VMS}-*")):
            shutil.rmtree(directory, ignore_errors=True)
    # The exit status that a shell gives for a program that a signal ended.
    sys.exit(code if code >= 0 else 128 - code)


def end(number, _):
    """The bench's own `with` and `finally` undo its work; a second signal does not disturb them."""
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def remove_vms(banger, runtime, daemon_ran):
    if not answers(runtime):
        return
    ask = lambda *words: subprocess.run([banger, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if names := [name for name in ask("vm", "ls", "-q").stdout.split() if name.startswith(f"{VMS}-")]:
        ask("vm", "rm", "--force", "-q", *names)
    if not daemon_ran:
        ask("daemon", "stop")


def answers(runtime):
    """Whether a daemon listens in this directory."""
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(runtime / "bangerd.sock")) == 0


def reap():
    """Waits for one of the killed processes, and reaps the others that have ended by then. The next look finds a process that was
    started meanwhile."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(-1, 0)
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
