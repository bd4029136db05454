"""An image of a few bytes, for daemons with the fake VMM: nothing boots from it, but everything else is done with it.

Written into the records by SQL, because no verb makes such an image. A change of the table shows here as an error.
"""

import sqlite3
from pathlib import Path

KIB = 1024

# Work disks as small as the seed, and deadlines that fit.
CONFIG = "[defaults]\ndisk_mib = 1\nnet = 'none'\n[timeouts]\nstop_s = 5\nagent_s = 10\n"


def plant(state: Path, name="debian"):
    """Puts it into a state directory whose daemon has run before and is down now."""
    directory = state / "images" / "tinyimage1"
    (directory / "modules").mkdir(parents=True)
    (directory / "root.ext4").write_bytes(b"\7" * 64 * KIB)
    (directory / "work-seed.ext4").write_bytes(b"\11" * 64 * KIB)
    (directory / "vmlinux").write_bytes(b"no kernel")
    (directory / "modules.list").write_bytes(b"")
    records = sqlite3.connect(state / "banger.db")
    with records:
        records.execute(
            "INSERT INTO images (id, name, state, system, kernel, size, packages, manifest, work_seed, created)"
            " VALUES ('tinyimage1', ?, 'ready', 'Fake', '0', ?, 0, '', 1, 1)",
            (name, 64 * KIB),
        )
    records.close()
