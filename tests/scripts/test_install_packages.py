"""scripts/install-packages: what it takes from apt's configuration, and what it asks apt for.

The programs that it calls are stand-ins, and /etc/apt is a made-up one, in a mount namespace of the test's own.
"""

import os
import shutil
import subprocess
import tempfile
import textwrap
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

ONE_LINE = """\
# a comment
deb-src http://mirror.example/debian bookworm main
deb [arch=amd64,i386 signed-by=/usr/share/keyrings/own.gpg] https://mirror.example/debian/ bookworm main contrib # here
deb http://mirror.example/debian bookworm-updates main
"""

DEB822 = """\
Types: deb
URIs: https://vendor.example/apt
Suites: nodistro
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

# the second
types: deb deb-src
URIs: http://mirror.example/debian
 http://second.example/debian
Suites: bookworm bookworm-updates
Components: contrib main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEAAAA
 -----END PGP PUBLIC KEY BLOCK-----
"""


class BackportsEntry(unittest.TestCase):
    """The stanza that scripts/backports-entry.awk makes from a machine's own sources."""

    def entry(self, name, text, **variables):
        with tempfile.TemporaryDirectory() as place:
            path = Path(place, name)
            path.write_text(text)
            words = ["awk"]
            for variable, value in {"codename": "bookworm", **variables}.items():
                words += ["-v", f"{variable}={value}"]
            result = subprocess.run(
                [*words, "-f", ROOT / "scripts/backports-entry.awk", path], stdout=subprocess.PIPE, text=True
            )
            return result.stdout if result.returncode == 0 else None

    def test_one_line_entry_with_options(self):
        self.assertEqual(
            self.entry("sources.list", ONE_LINE),
            "Types: deb\nURIs: https://mirror.example/debian/\nSuites: bookworm-backports\nComponents: main\n"
            "Architectures: amd64 i386\nSigned-By: /usr/share/keyrings/own.gpg\n",
        )

    def test_deb822_entry_with_a_key_inline(self):
        made = self.entry("debian.sources", DEB822)
        self.assertIn("URIs: http://mirror.example/debian\n http://second.example/debian\n", made)
        self.assertIn("Suites: bookworm-backports\nComponents: main\n", made)
        self.assertIn("\n .\n mDMEAAAA\n -----END PGP PUBLIC KEY BLOCK-----\n", made)
        self.assertNotIn("off.example", made)

    def test_the_suite_may_go_by_another_word(self):
        text = "deb http://mirror.example/debian stable main\n"
        self.assertIsNone(self.entry("sources.list", text))
        self.assertIn("Suites: bookworm-backports", self.entry("sources.list", text, aliases="stable"))

    def test_a_vendor_that_calls_its_suite_like_debian_is_passed_over(self):
        text = "deb http://vendor.example/apt bookworm main\ndeb http://mirror.example/debian bookworm main\n"
        self.assertIn("mirror.example", self.entry("x.list", text, archives="http://mirror.example/debian/"))

    def test_no_entry_of_the_suite(self):
        self.assertIsNone(self.entry("sources.list", "deb http://mirror.example/debian trixie main\n"))
        self.assertIsNone(self.entry("debian.sources", ""))


@unittest.skipUnless(os.geteuid() == 0, "needs root for a mount namespace")
class InstallPackages(unittest.TestCase):
    """The whole script, against stand-ins of apt and dpkg that write down what they are asked."""

    def setUp(self):
        self.place = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (self.place / "bin").mkdir()
        (self.place / "apt/sources.list.d").mkdir(parents=True)
        # A copy, because a checkout may lie where another user cannot go.
        shutil.copytree(ROOT / "scripts", self.place / "scripts")
        self.write("apt/sources.list.d/debian.sources", DEB822)
        self.stand_in("apt-get", 'echo "$@" >>$PLACE/asked; [ "$1" != indextargets ] || case "$3" in\n'
                      '*REPO_URI*) echo "Debian|Debian|bookworm|http://mirror.example/debian/" ;;\n'
                      '*) echo "Debian|Debian|bookworm|bookworm" ;; esac')  # fmt: skip

    def installed(self, *packages, qemu="1:7.2+dfsg-7"):
        """Which packages dpkg knows as installed; those named qemu-* come from QEMU's source in this version."""
        lines = [f"installed qemu {qemu}" for package in packages if package.startswith("qemu-")]
        names = "|".join(packages) or "none"
        self.stand_in("dpkg-query", f"""
            case "$*" in
                *source:Version*) printf '{"".join(line + chr(92) + "n" for line in lines)}' ;;
                *) case "$4" in {names}) printf installed ;; *) exit 1 ;; esac ;;
            esac""")

    def stand_in(self, name, body):
        self.write(f"bin/{name}", "#!/bin/sh\n" + textwrap.dedent(body) + "\n")
        (self.place / "bin" / name).chmod(0o755)

    def write(self, name, text):
        (self.place / name).write_text(text)

    def run_script(self, *args, user=None, path=None):
        script = f"mount --bind {self.place}/apt /etc/apt && exec "
        script += f"setpriv --reuid {user} --clear-groups " if user else ""
        path = path or f"{self.place}/bin:$PATH"
        script += f"env PATH={path} PLACE={self.place} {self.place}/scripts/install-packages {' '.join(args)}"
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def asked(self):
        path = self.place / "asked"
        return path.read_text().splitlines() if path.exists() else []

    everything = ["git", "gcc", "libc6-dev", "make", "qemu-system-x86", "mmdebstrap", "e2fsprogs", "util-linux", "nftables"]

    def test_nothing_is_asked_of_apt_where_all_is_there(self):
        self.installed(*self.everything)
        result = self.run_script()
        self.assertEqual((result.returncode, result.stdout, self.asked()), (0, "", []))

    def test_only_what_is_missing_is_installed(self):
        self.installed(*(name for name in self.everything if name not in ("mmdebstrap", "qemu-system-x86")))
        self.assertEqual(self.run_script().returncode, 0)
        self.assertEqual(
            self.asked(), ["update", "install -y --no-install-recommends qemu-system-x86 mmdebstrap"]
        )

    def test_backports_are_added_where_an_installed_qemu_comes_from_there(self):
        self.installed("qemu-utils", qemu="1:10.0.2+ds-2+deb13u1~bpo12+1")
        self.stand_in("apt-cache", "echo 'qemu-system-x86 | 1:7.2+dfsg-7 | http://mirror.example/debian bookworm/main amd64 Packages'")
        result = self.run_script()
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assertIn("Suites: bookworm-backports", (self.place / "apt/sources.list.d/banger-backports.sources").read_text())
        self.assertEqual(self.asked().count("update"), 2)
        self.assertIn("-t bookworm-backports git gcc", self.asked()[-1])

    def test_backports_that_apt_knows_already_are_used_as_they_are(self):
        self.installed("qemu-utils", qemu="1:10.0.2+ds-2+deb13u1~bpo12+1")
        self.stand_in("apt-cache", "echo 'qemu-system-x86 | 1:10.0.2 | http://mirror.example/debian bookworm-backports/main amd64 Packages'")
        self.assertEqual(self.run_script().returncode, 0)
        self.assertEqual(os.listdir(self.place / "apt/sources.list.d"), ["debian.sources"])
        self.assertIn("-t bookworm-backports", self.asked()[-1])

    def test_what_apt_says_is_shown_when_it_fails(self):
        self.installed()
        self.stand_in("apt-get", "echo 'E: no room'; exit 100")
        result = self.run_script()
        self.assertEqual(result.returncode, 1)
        self.assertIn("E: no room", result.stdout)
        self.assertIn("`apt-get update` failed", result.stdout)

    def test_without_dpkg_it_looks_for_programs(self):
        for name in ("git", "gcc", "make", "qemu-system-x86_64", "mke2fs", "unshare", "nft"):
            self.stand_in(name, "")
        (self.place / "bin/dirname").symlink_to(shutil.which("dirname"))
        result = self.run_script(path=self.place / "bin")
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assertEqual(self.asked(), ["update", "install -y --no-install-recommends mmdebstrap"])

    def test_without_root_it_says_what_is_missing(self):
        self.installed(*self.everything[1:])
        self.place.chmod(0o755)
        result = self.run_script(user=65534)
        self.assertEqual(result.returncode, 1)
        self.assertIn("only root can install them: git", result.stdout)
        self.assertEqual(self.asked(), [])


class Targets(unittest.TestCase):
    """What make does, in order."""

    def test_a_target_installs_what_it_needs_before_all_else(self):
        for target, kind in (("test", "test"), ("contract", "test"), ("bench-create", "bench"), ("bench-net", "bench")):
            words = ["make", "--dry-run", "--no-print-directory", target]
            ran = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout
            self.assertTrue(ran.startswith(f"scripts/install-packages --{kind}"), ran)


if __name__ == "__main__":
    unittest.main()
