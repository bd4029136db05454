"""What README.md and the book's pages show, run as it stands with real guests. docs/api.md runs in tests/docs, with the fake VMM."""

import subprocess

import console_blocks
from harness import BIN, ROOT, Case

# For a page with all its boots in emulation on a busy machine.
SECONDS = 300


class Book(Case):
    def tearDown(self):
        self.place.run("rm", "--force", "--all")

    def runs(self, document):
        directory = self.place.runtime_root / self.id().rsplit("_", 1)[-1]
        directory.mkdir()
        git = {f"GIT_{who}_{what}": "banger@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        environment = {**self.place.environment, **git, "PATH": f"{BIN}:{self.place.environment['PATH']}"}
        places = {"/run/banger": str(self.place.runtime), "/var/lib/banger": str(self.place.state)}
        if document == "README.md":
            # What it takes for granted: a checkout, and that one is in it.
            subprocess.run(["git", "init", "-q", directory], env=environment, check=True)
            (directory / "Makefile").write_text("test:\n\ttrue\nfmt:\n\techo formatted >source\n")
        text = (ROOT / document).read_text()
        console_blocks.run(self, text, environment, directory, SECONDS, places)

    def test_readme(self):
        self.runs("README.md")

    def test_the_first_ten_minutes(self):
        self.runs("docs/book/src/first-ten-minutes.md")

    def test_the_recipe_of_a_project(self):
        self.runs("docs/book/src/project.md")

    def test_the_recipe_of_a_ci(self):
        self.runs("docs/book/src/ci.md")

    def test_the_recipe_of_an_agent(self):
        self.runs("docs/book/src/agent.md")

    def test_the_recipe_of_ssh(self):
        self.runs("docs/book/src/ssh.md")

    def test_the_recipe_of_something_wrong(self):
        self.runs("docs/book/src/wrong.md")
