"""The daemon against its own document: schemathesis makes up requests, good and bad, from docs/openapi.json, and holds the
answers against it. With the fake VMM; schemathesis lives in an environment of its own, made once for each requirements file.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
sys.path += [str(ROOT / "tests/e2e"), str(HERE)]

from fake import FakeCase  # noqa: E402
from forwarder import Forwarder  # noqa: E402
from harness import SEED, names  # noqa: E402

REQUIREMENTS = HERE / "requirements.txt"
EXAMPLES = 250
# CI makes the same requests each time, so that only a change can make it fail, and fewer of them: more of the same say little more. A
# seed that repeats an earlier run takes precedence.
if "BANGER_CONTRACT_SEED" in os.environ and "BANGER_TEST_SEED" not in os.environ:
    SEED, EXAMPLES = int(os.environ["BANGER_CONTRACT_SEED"]), 100
# It would end the daemon, and the test with it; crates/daemon/tests/daemon/events.rs tests it.
EXCLUDED = ["stopDaemon"]
CHECKS = [
    "no_failure_of_its_own", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "negative_data_rejection", "unsupported_method", "every_line", "one_shape",
]  # fmt: skip
# What pip says when it cannot reach where packages come from; any other trouble is a failure.
UNREACHABLE = re.compile(r"NewConnectionError|ConnectTimeout|NameResolutionError|ProxyError|ReadTimeout|Connection (refused|reset)|Network is unreachable")


def environment():
    """The schemathesis of requirements.txt: installed where the build's other products are, the first time."""
    target = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
    place = target / f"contract-{hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]}"
    if (place / "complete").exists():
        return place
    shutil.rmtree(place, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    install = [place / "bin/pip", "install", "--quiet", "--requirement", REQUIREMENTS]
    installed = subprocess.run(install, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if installed.returncode != 0:
        last = installed.stdout.strip().splitlines()[-1:]
        if UNREACHABLE.search(installed.stdout):
            raise unittest.SkipTest(f"PyPI cannot be reached: {' '.join(last)}")
        raise AssertionError(f"cannot install {REQUIREMENTS}: {installed.stdout}")
    (place / "complete").touch()
    return place


class Contract(FakeCase):
    # No image is built here: that takes minutes and a network. The daemon is told that it does not work, at once. What it does
    # for the names of VMs it does to a copy, and there is no resolver that it could set up.
    inside = """
        printf '#!/bin/sh\\necho "E: no network in this test" >&2\\nexit 1\\n' >"$HOME/mmdebstrap"
        chmod 755 "$HOME/mmdebstrap"
        mount --bind "$HOME/mmdebstrap" /usr/bin/mmdebstrap
        cp /etc/hosts "$HOME/hosts"
        mount --bind "$HOME/hosts" /etc/hosts
        [ ! -d /run/systemd/resolve ] || mount -t tmpfs tmpfs /run/systemd/resolve
    """

    @classmethod
    def setUpClass(cls):
        cls.schemathesis = environment() / "bin/st"
        super().setUpClass()

    def test_the_daemon_answers_as_its_document_says(self):
        place, work = self.place, self.place.state_root / "schemathesis"
        work.mkdir()
        place.banger("create", "--stopped", "holder")
        before = self.resident()
        print(f"(BANGER_TEST_SEED={SEED})", flush=True)
        with Forwarder(place.runtime / "bangerd.sock") as forwarder:
            result = subprocess.run(
                [
                    self.schemathesis, "run", ROOT / "docs/openapi.json", "--url", f"http://127.0.0.1:{forwarder.port}",
                    "--checks", ",".join(CHECKS), "--max-examples", str(EXAMPLES), "--seed", str(SEED),
                    *(word for name in EXCLUDED for word in ("--exclude-operation-id", name)),
                    "--continue-on-failure", "--request-timeout", "30", "--suppress-health-check", "all", "--warnings", "off",
                    "--report", "json", "--report-json-path", work / "report.json", "--no-color",
                ],
                env=os.environ | {
                    "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1",
                    "CONTRACT_SOCKET": str(place.runtime / "bangerd.sock"), "CONTRACT_DOCUMENT": str(ROOT / "docs/openapi.json"),
                },
                cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
            forwarder.shutdown()
        self.assertTrue((work / "report.json").exists(), result.stdout)
        report = json.loads((work / "report.json").read_text())
        print(summary(report), flush=True)
        self.assertEqual(result.returncode, 0, f"BANGER_TEST_SEED={SEED} repeats it:\n{result.stdout[-8000:]}")
        # Nothing passes by not having been tried.
        self.assertEqual(report["operations"]["tested"], report["operations"]["total"] - len(EXCLUDED))
        self.assertEqual(report["test_cases"]["errored"], 0, result.stdout[-8000:])
        # It has survived: it answers, remembers what it has made, and is as small as before.
        vms = place.vms()
        for name in vms:
            place.banger("rm", "--force", name)
        self.assertEqual(place.vms(), {})
        self.assertEqual(names(place.state / "vms"), set())
        after = self.resident()
        print(f"(the daemon took {before >> 20} MiB before and {after >> 20} MiB after it)", flush=True)
        self.assertLess(after, 40 << 20)

    def resident(self):
        return self.place.json("daemon", "status")["resident"]


def summary(report):
    operations, cases = report["operations"], report["test_cases"]
    return (
        f"({operations['tested']} of {operations['total']} operations, without {', '.join(EXCLUDED)}; {cases['generated']} requests in "
        f"{report['running_time']:.0f} s, {cases['unique_failures']} failures; BANGER_TEST_SEED={SEED})"
    )
