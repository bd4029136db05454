"""Figures as a Markdown table or JSON, and the machine that they were measured on. No host is named."""

import json
import os
import platform
import statistics
import subprocess
from pathlib import Path


def machine():
    model = next(line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    qemu = subprocess.run(["qemu-system-x86_64", "--version"], stdout=subprocess.PIPE, text=True).stdout.split("\n")[0]
    return {
        "cpu": model,
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory.split()[1]) / (1 << 20)),
        "kernel": platform.release(),
        "qemu": qemu.removeprefix("QEMU emulator version "),
    }


def sentence(machine, accelerator):
    return (
        f"{machine['cpu']}, {machine['cpus']} cores, {machine['memory_gib']} GiB, Linux {machine['kernel']}, "
        f"QEMU {machine['qemu']}, {accelerator}."
    )


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def milliseconds(values):
    """Median, smallest and largest of some seconds."""
    of = spread(values)
    return [f"{of[which] * 1000:.1f}" if of["max"] < 0.1 else f"{of[which] * 1000:.0f}" for which in ("median", "min", "max")]


def print_json(value):
    print(json.dumps(value, indent=2))
