"""The rules of this repository that a compiler cannot know. ARCHITECTURE.md says why each of them is one.

Where the compiler or clippy guards a rule (no `unsafe` outside crates/linux, no program started outside its one file, no
environment read below main.rs), the rule here is that nobody switches that guard off.
"""

import re
import subprocess
import tomllib
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LONGEST_FILE = 400


class Source:
    """One Rust file: its code without its tests, which stand last, and its words without comments and strings."""

    def __init__(self, path: Path):
        self.path = path
        self.name = str(path.relative_to(ROOT))
        self.text = path.read_text()
        self.code = re.split(r"^#\[cfg\(test\)\]\n(?:#\[.*\]\n)*mod ", self.text, flags=re.M)[0]
        self.words = re.sub(r'//.*|"(?:[^"\\\n]|\\.)*"', '""', self.code)


def tracked(*patterns):
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT, stdout=subprocess.PIPE, check=True,
    ).stdout.decode()  # fmt: skip
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists()]


SOURCES = [Source(path) for path in tracked("crates/*.rs")]
# Without integration tests, which play hosts and slow peers.
SHIPPED = [source for source in SOURCES if "/tests/" not in source.name]


def under(*places):
    return [source for source in SOURCES if source.name.startswith(tuple(f"crates/{place}" for place in places))]


class Style(unittest.TestCase):
    def forbid(self, sources, pattern, why, of=lambda source: source.words):
        found = [
            f"{source.name}:{of(source)[: match.start()].count(chr(10)) + 1}: {match.group()}"
            for source in sources
            for match in re.finditer(pattern, of(source))
        ]
        self.assertFalse(found, f"{why}:\n" + "\n".join(found))

    def test_there_is_something_to_look_at(self):
        self.assertGreater(len(SOURCES), 20)

    def test_every_file_says_what_it_is(self):
        silent = [source.name for source in SOURCES if not source.text.startswith("//! ")]
        self.assertFalse(silent, "these files do not begin with `//!`")

    def test_no_file_is_long(self):
        long = [f"{s.name}: {s.code.count(chr(10))}" for s in SOURCES if s.code.count("\n") > LONGEST_FILE]
        self.assertFalse(long, f"over {LONGEST_FILE} lines without tests: move a concept out")

    def test_names_say_what_a_file_knows(self):
        vague = re.compile(r"^(utils?|common|helpers?|manager|types|impl|misc|lib_.*|.*_utils?)$")
        found = [s.name for s in SOURCES for part in (s.path.stem, s.path.parent.name) if vague.match(part)]
        self.assertFalse(found)

    def test_unsafe_code_is_in_one_crate(self):
        elsewhere = [source for source in SOURCES if source not in under("linux/")]
        self.forbid(elsewhere, r"\bunsafe\b(?!_code)", "`unsafe` outside crates/linux")
        self.forbid(elsewhere, r"\(\s*unsafe_code", "the guard against `unsafe` is lifted")
        for crate in ROOT.glob("crates/*/Cargo.toml"):
            lints = tomllib.loads(crate.read_text())["lints"]
            if crate.parent.name == "linux":
                self.assertEqual(lints["clippy"]["undocumented_unsafe_blocks"], "deny")
            else:
                self.assertEqual(lints, {"workspace": True}, crate)

    def test_the_linux_crate_has_never_heard_of_a_vm(self):
        self.forbid(under("linux/"), r"\b(VmId|VmName|bangerd|banger_(api|protocol|agent))\b", "a daemon's type")
        manifest = tomllib.loads((ROOT / "crates/linux/Cargo.toml").read_text())
        self.assertFalse([name for name in manifest["dependencies"] if name.startswith("banger")])

    def test_crates_know_only_whom_they_may(self):
        allowed = {
            "api": {"banger-protocol"},
            "protocol": set(),
            "linux": set(),
            # For tests only.
            "skip": set(),
            "daemon": {"banger-api", "banger-linux", "banger-protocol"},
            "agent": {"banger-linux", "banger-protocol"},
            "cli": {"banger-api", "banger-linux"},
            # It is not shipped, and nobody may know it.
            "manual": {"banger", "bangerd"},
        }
        for crate in ROOT.glob("crates/*/Cargo.toml"):
            ours = {name for name in tomllib.loads(crate.read_text())["dependencies"] if name.startswith("banger")}
            self.assertLessEqual(ours, allowed[crate.parent.name], crate)

    def test_no_lock_guards_a_vm(self):
        # The registry's lock guards which VMs there are, not what one of them does.
        rooms = [s for s in under("daemon/src/vm/") if not s.name.endswith("/registry.rs")]
        self.forbid(rooms, r"\b(Mutex|RwLock|RefCell|static mut)\b", "one task owns a VM, no lock")

    def test_pure_rooms_do_nothing(self):
        pure = ["vm/spec", "vm/state", "vm/identity", "boot/cmdline", "vmm/qemu/args", "net/addresses", "net/ruleset", "net/listing", "net/foreign", "dns/zone", "dns/answer"]
        # Addresses are numbers.
        effects = (
            r"\b(std::fs|fs::|std::net(?!::Ipv4Addr)|std::process|tokio|rustix|File::|Instant::now|SystemTime::now"
            r"|banger_linux(?!::netlink::Mac)|async fn)"
        )
        self.forbid(under(*(f"daemon/src/{room}.rs" for room in pure)), effects, "an effect in a pure file")

    def test_every_transition_is_decided(self):
        self.forbid(under("daemon/src/vm/state.rs"), r"\n\s*_ =>", "a wildcard hides a transition that nobody decided")

    def test_places_are_named_in_one_file(self):
        host = [s for s in under("daemon/src", "cli/src", "api/src", "linux/src") if not s.name.endswith(("/paths.rs", "cli/src/environment.rs"))]
        self.forbid(host, r'"/(run|var/lib|etc)/banger', "a place of banger's outside paths.rs", of=lambda s: s.code)

    def test_guards_are_not_switched_off(self):
        # Allowed: the file that starts programs, the file that reads the environment once at the start, and tests.
        may = ("/src/main.rs", "/tests/", "/build.rs", "crates/skip/")
        others = [s for s in SOURCES if not any(place in s.name for place in may)]
        self.forbid(others, r"(allow|expect)\(\s*clippy::disallowed_methods", "a guard is switched off")
        self.forbid(SHIPPED, r"(allow|expect)\(\s*(clippy::(unwrap_used|let_underscore_must_use|exit|all)|unused_must_use)",
                    "a guard is switched off")  # fmt: skip

    def test_nothing_is_polled(self):
        self.forbid(SHIPPED, r"\bthread::sleep\b|\btime::interval\b|\binterval\(", "wait for an event, with a deadline")

    def test_no_example_goes_unrun(self):
        # Nothing would run it: the manifests say `doctest = false`, because the search for examples takes seconds per crate.
        for source in SOURCES:
            blocks = re.findall(r"^\s*//[/!] ```(\S*)", source.text, flags=re.M)
            self.assertFalse([word for word in blocks[::2] if word != "text"], f"{source.name}: an example in a comment")

    def test_no_test_is_skipped_in_silence(self):
        # libtest hides the output of a passing test, and counts the test as passed.
        self.forbid(SOURCES, r'print(ln)?!\("SKIPPED(?! \{line\}")', "say banger_skip::skipped!", of=lambda s: s.text)

    def test_integration_tests_are_one_program_a_crate(self):
        # The linker links each program against the whole crate, which takes longer than most tests.
        for crate in ROOT.glob("crates/*"):
            programs = [*crate.glob("tests/*.rs"), *crate.glob("tests/*/main.rs")]
            self.assertLessEqual(len(programs), 1, programs)

    def test_connections_are_accepted_in_one_way(self):
        others = [source for source in SHIPPED if not source.name.endswith("/linux/src/accept.rs")]
        self.forbid(others, r"\.accept\(\)", "an accept loop of its own spins in a shortage: use banger_linux::accept")

    def test_the_command_line_prints_in_one_place(self):
        # What that place prints steers no terminal. A guest command's own output goes through attach/output.rs; two more look
        # at a terminal's size, and close a stream.
        may = ("src/output/mod.rs", "attach/output.rs", "attach/terminal.rs", "commands/proxy.rs")
        others = [source for source in under("cli/src") if not source.name.endswith(may)]
        prints = r"\be?print(ln)?!|\bstd(out|err)\(\)(?!\.is_terminal)"
        self.forbid(others, prints, "use crate::output: what comes from elsewhere is escaped there")
        others = [source for source in under("cli/src") if not source.name.endswith("output/json.rs")]
        self.forbid(others, r"serde_json::to_\w+", "use crate::output::json")

    def test_no_test_sleeps(self):
        clocks = re.compile(r"\btime\.sleep\(|\bsleep\(\d")
        for path in tracked("tests/*.py", "bench/*.py"):
            if path != Path(__file__).resolve():
                self.assertIsNone(clocks.search(path.read_text()), f"{path}: wait for an event, with a deadline")


class Repository(unittest.TestCase):
    def test_no_file_names_a_registry_or_a_machine(self):
        # What is private to a machine, or a host that others would then depend on. Cargo.lock must name its registry.
        hosts = r"\b(deb|security|ftp|snapshot)\.debian\.org|\b(static|index)\.crates\.io|\bpypi\.org"
        # Where people and machines keep checkouts; and this one, wherever it is.
        places = rf"/(home|Users|work|workspace|builds)/[a-z]+/|{re.escape(str(ROOT))}\b"
        foreign = re.compile(f"{hosts}|{places}")
        for path in tracked():
            if path.name in ("Cargo.lock", "LICENSE-APACHE") or path == Path(__file__).resolve():
                continue
            match = foreign.search(path.read_text(errors="replace"))
            self.assertIsNone(match, f"{path}: {match and match.group()}")

    def test_every_path_that_a_document_names_exists(self):
        for path in tracked("*.md", "docs/*.md"):
            for name in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
                # The book's reference is generated: tests/docs follows those links in the book as it is built.
                generated = path.is_relative_to(ROOT / "docs/book") and name.startswith("reference/")
                self.assertTrue(generated or (path.parent / name).exists(), f"{path} links to {name}")

    def test_scripts_can_be_started(self):
        for path in tracked("scripts/*", ".ci/run"):
            if path.read_text().startswith("#!"):
                self.assertTrue(path.stat().st_mode & 0o111, f"{path} is not executable")


if __name__ == "__main__":
    unittest.main()
