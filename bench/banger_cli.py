"""banger as the bench sees it: a command line, its output, and what /proc says of the VMM that it started."""

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import supervised
from bare import Artefacts
from supervised import VMS

ROOT = Path(__file__).resolve().parents[1]
BANGER = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "banger/bin/banger"
STATE = Path(os.environ.get("BANGER_STATE_DIR", "/var/lib/banger"))
RUNTIME = Path(os.environ.get("BANGER_RUNTIME_DIR", "/run/banger"))


def banger(*args):
    """Runs a command, which must succeed, and returns its output."""
    return subprocess.run([BANGER, *args], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True).stdout


def banger_json(*args):
    return json.loads(banger("-o", "json", *args))


def supervise(main):
    """Runs a bench so that none of its processes, VMs or files stay."""
    supervised.run(main, BANGER, STATE, RUNTIME)


def ensure_image():
    """The default image; built where there is none."""
    images = banger_json("image", "ls")
    if not images:
        subprocess.run([BANGER, "image", "build"], check=True)
        images = banger_json("image", "ls")
    return next(image for image in images if image["default"])


@dataclass
class ColdRun:
    """One cold create to the first byte of its command's output."""

    seconds: float
    stages: dict
    total: float


def cold_run(name, program=BANGER, environment=None):
    """`banger run --rm`: wall time from the start of the command line to the first byte that the guest's command prints."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [program, "--timings", "--quiet", "-o", "json", "run", "--rm", "--name", name, "--", "echo", "hello"],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    first = process.stdout.read(1)
    seconds = time.perf_counter() - began
    _, errors = process.communicate()
    if first != b"h" or process.returncode != 0:
        raise SystemExit(f"banger run failed: {errors.decode()}")
    timings = json.loads(errors.decode().splitlines()[-1])
    stages = {}
    for stage in timings["stages"]:
        # A stage may come more than once, such as the saving of a record.
        stages[stage["stage"]] = stages.get(stage["stage"], 0) + stage["micros"] / 1e6
    return ColdRun(seconds, stages, timings["micros"] / 1e6)


def artefacts(image, keep: Path):
    """What banger boots a VM from, taken from a VM that it runs: the kernel and its command line, the initramfs with the
    agent, the image's disks, the kind of machine and its sizes. Copies what goes with the VM into `keep`."""
    vm = banger_json("--quiet", "create", f"{VMS}-probe")
    try:
        if isinstance(vm, list):
            vm = vm[0]
        words = Path(f"/proc/{vm['pid']}/cmdline").read_text().split("\0")
        after = lambda option: words[words.index(option) + 1]
        # banger passes open files, whose names say nothing to others.
        for option, name in (("-kernel", "vmlinux"), ("-initrd", "initramfs")):
            shutil.copyfile(after(option).replace("/proc/self/", f"/proc/{vm['pid']}/"), keep / name)
        directory = STATE / "images" / image["id"]
        return Artefacts(
            kernel=str(keep / "vmlinux"),
            initramfs=str(keep / "initramfs"),
            append=after("-append"),
            root=str(directory / "root.ext4"),
            work=str(directory / "work-seed.ext4"),
            cpus=vm["cpus"],
            memory_mib=vm["memory"] >> 20,
            work_size=vm["disk"],
            machine=after("-M"),
            accelerator=after("-accel"),
            cpu_model=after("-cpu"),
            mac=next((word.rsplit("mac=", 1)[1] for word in words if word.startswith("virtio-net-device,")), ""),
            gateway=vm["address"].rsplit(".", 1)[0] + ".1" if "address" in vm else "",
        ), words
    finally:
        banger("--quiet", "rm", "--force", f"{VMS}-probe")
