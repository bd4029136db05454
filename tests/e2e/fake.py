"""The case that every test with the fake VMM is: a banger with a tiny image, and a daemon whose guests are agents on this host."""

import os
import random
import unittest
from pathlib import Path

import tiny_image
from harness import BIN, SEED, Net, Place, names, ours


class FakeCase(unittest.TestCase):
    """A place with a tiny image and a daemon with the fake VMM. Needs neither QEMU nor a network."""

    # Arguments of the agent, and a program in place of it.
    agent = None
    agent_program = f"{BIN}/banger-agent"
    make_place = Place
    # What makes the network namespace.
    make_net = Net
    # A shell script that runs before the daemon, in a mount namespace of its own.
    inside = ()

    @classmethod
    def setUpClass(cls):
        if os.geteuid() != 0:
            raise unittest.SkipTest("needs root for a network namespace of its own")
        cls.place = cls.make_place(net=cls.make_net)
        cls.addClassCleanup(cls.place.remove)
        Path(cls.place.environment["BANGER_CONFIG"]).write_text(tiny_image.CONFIG)
        cls.args = ["--fake-vmm"]
        cls.place.start_daemon(*cls.args)
        cls.place.stop_daemon()
        tiny_image.plant(cls.place.state)
        if cls.agent is not None:
            script = cls.place.runtime_root / "agent"
            script.write_text(f'#!/bin/sh\nexec {cls.agent_program} "$@" {cls.agent}\n')
            script.chmod(0o755)
            cls.args += ["--agent", str(script)]
        cls.processes_before = set(ours())
        cls.place.start_daemon(*cls.args, inside=cls.inside)
        cls.random = random.Random(f"{SEED} {cls.__name__}")

    @classmethod
    def tearDownClass(cls):
        place = cls.place
        place.wind_up(
            cls.processes_before,
            lambda: [f"files of VM {name}" for name in names(place.state / "vms") | names(place.runtime / "vms")],
        )
