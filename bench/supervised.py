"""Runs a bench in a child process: however that child ends, by an error, a signal or SIGKILL, nothing that it started stays.

The parent is the child subreaper, so that every process of the bench is its descendant (tests/host.py). First the bench undoes its
own work, in order. Then the parent removes the VMs with the bench's name, ends the daemon if the bench started it, kills the
remaining processes and removes the bench's directory. A network namespace disappears with its last process. If other VMs run by
then, their daemon and their processes stay. After a SIGKILL of the parent nobody does any of this.
"""

import json
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
        # A daemon from before the bench is no descendant, and neither are its VMs.
        needed = remove_vms(banger, runtime, daemon_ran)
        for words in host.kill_descendants(but=needed):
            print(f"killed what the bench had left: {words}", file=sys.stderr)
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
    """Removes the bench's VMs, and ends a daemon that the bench started; returns the processes that other VMs need."""
    if not answers(runtime):
        return []
    ask = lambda *words: subprocess.run([banger, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if names := [name for name in ask("vm", "ls", "-q").stdout.split() if name.startswith(f"{VMS}-")]:
        ask("vm", "rm", "--force", "-q", *names)
    if daemon_ran:
        return []
    # The daemon may have started VMs by their restart policies, and its users may have created some meanwhile.
    listed = json.loads(ask("-o", "json", "vm", "ls").stdout or "[]")
    others = [vm for vm in listed if vm["state"] != "stopped"]
    if others:
        daemon = json.loads(ask("-o", "json", "daemon", "status").stdout)["pid"]
        return [daemon, *(vm["pid"] for vm in others if "pid" in vm)]
    ask("daemon", "stop")
    return []


def answers(runtime):
    """Whether a daemon listens in this directory."""
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(runtime / "bangerd.sock")) == 0
