"""A bench in a child process: whatever ends it, an error, a signal or SIGKILL, nothing that it started stays.

The parent is the child subreaper, so that every process of the bench is its descendant (tests/host.py). First the bench undoes
things itself, in order; then the parent removes the VMs that have the bench's name, ends the daemon if the bench started it,
kills what is left and removes the bench's directory. Network namespaces go with the last process in them.
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

# What the names of a bench's VMs begin with: nobody else's do.
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
        # The daemon that was there before is no descendant, and neither are its VMs.
        while left := host.descendants():
            for pid, words in left:
                print(f"killing what the bench has left: {words}", file=sys.stderr)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            reap()
        for directory in (place, *state.glob(f"{VMS}-*")):
            shutil.rmtree(directory, ignore_errors=True)
    # As a shell says it of a program that a signal ended.
    sys.exit(code if code >= 0 else 128 - code)


def end(number, _):
    """The bench's own `with` and `finally` undo what they did; a second signal does not disturb them."""
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
    """Whether a daemon listens there."""
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(runtime / "bangerd.sock")) == 0


def reap():
    """Waits for one of those that were killed, and takes the others that have ended by then. One that was started meanwhile is found in
    the next look."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(-1, 0)
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
