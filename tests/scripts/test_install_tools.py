"""scripts/install-tools: what it installs, and when it installs nothing. cargo is a stand-in."""

import subprocess
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/install-tools"

# Records its arguments, and makes the program that they ask for; fails if the file `broken` is there.
CARGO = """#!/bin/sh
echo "$*" >>$PLACE/asked
while [ $# -gt 1 ]; do
    case $1 in --root) root=$2 ;; --version) version=${2#=} ;; esac
    shift
done
mkdir -p $root/bin
printf '#!/bin/sh\\necho %s %s\\n' $1 $version >$root/bin/$1
chmod 755 $root/bin/$1
[ ! -e $PLACE/broken ]
"""


class InstallTools(unittest.TestCase):
    def setUp(self):
        self.place = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.program("cargo", CARGO)

    def program(self, name, text):
        path = self.place / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def run_script(self, *tools, code=0):
        environment = {"PATH": f"{self.place}/bin:/usr/bin:/bin", "CARGO_HOME": f"{self.place}/cargo", "PLACE": str(self.place)}
        result = subprocess.run([SCRIPT, *tools], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertEqual(result.returncode, code, result.stderr)
        return result

    def asked(self):
        file = self.place / "asked"
        return file.read_text().splitlines() if file.exists() else []

    def version(self, tool):
        """What the script installs of a tool."""
        directory = self.run_script(tool).stdout.strip()
        return directory.removesuffix("/bin").rsplit("-", 1)[1]

    def test_a_new_machine_gets_every_tool_in_its_version(self):
        directories = self.run_script().stdout.strip().split(":")
        self.assertEqual(len(directories), 3)
        for directory in directories:
            self.assertTrue(directory.startswith(f"{self.place}/cargo/banger-tools/"), directory)
        for words in self.asked():
            self.assertRegex(words, r"^install --quiet --locked (--no-default-features )?--version =[0-9.]+ --root \S+ \S+$")
        self.assertEqual([words.split()[-1] for words in self.asked()], ["cargo-deny", "mdbook", "cargo-fuzz"])

    def test_what_is_there_in_its_version_is_not_installed_again(self):
        once = self.run_script("mdbook").stdout
        self.assertEqual(self.run_script("mdbook").stdout, once)
        self.assertEqual(len(self.asked()), 1)

    def test_the_same_version_anywhere_on_the_path_is_used(self):
        version = self.version("mdbook")
        self.program("mdbook", f"#!/bin/sh\necho mdbook v{version}\n")
        self.assertEqual(self.run_script("mdbook").stdout.strip(), f"{self.place}/bin")

    def test_another_version_on_the_path_is_not_used(self):
        self.program("cargo-deny", "#!/bin/sh\necho cargo-deny 0.1.0\n")
        self.assertIn("/banger-tools/cargo-deny-", self.run_script("cargo-deny").stdout)

    def test_a_broken_off_installation_is_none(self):
        (self.place / "broken").touch()
        self.assertIn("cannot be installed", self.run_script("mdbook", code=1).stderr)
        (self.place / "broken").unlink()
        self.run_script("mdbook")
        self.assertEqual(len(self.asked()), 2)

    def test_an_unknown_tool_is_named(self):
        self.assertIn("no tool nope", self.run_script("nope", code=1).stderr)


if __name__ == "__main__":
    unittest.main()
