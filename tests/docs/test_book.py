"""The book as it is built, and that no block of its pages, of README.md or of docs/api.md goes unrun. tests/e2e runs most of them."""

import ast
import html.parser
import os
import re
import subprocess
import sys
import tomllib
import unittest
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import console_blocks  # noqa: E402

TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
RUN_BY = ("tests/e2e/test_pages.py", "tests/docs/test_api.py")
DOCUMENTS = ["README.md", "docs/api.md", *sorted(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/book/src/**/*.md"))]


class Blocks(unittest.TestCase):
    def test_every_block_is_run_or_says_why_not(self):
        texts = {
            node.value
            for test in RUN_BY
            for node in ast.walk(ast.parse((ROOT / test).read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        unrun = []
        for document in DOCUMENTS:
            text = (ROOT / document).read_text()
            unrun += [f"{document}: {reason}" for *_, reason in console_blocks.blocks(text) if reason]
            if console_blocks.steps(text):
                self.assertIn(document, texts, "no test runs it")
        self.assertLessEqual(len(unrun), 3, "blocks that are not run:\n" + "\n".join(unrun))

    def test_the_comparison_tells_what_differs(self):
        expected = console_blocks.pattern(['{"a":"..."}', "...", "end", "..."])
        for good in ('{"a":"x"}\nend\n', '{"a":""}\n1\n2\nend\nmore\n'):
            self.assertRegex(good, expected)
        for bad in ('{"b":"x"}\nend\n', '{"a":"x"}\n', '{"a":"x"}\nends\n', '{"a":"x"} end\n'):
            self.assertNotRegex(bad, expected)

    def test_a_page_that_is_wrong_fails(self):
        right = "```console\n# echo a; echo b\na\nb\n\n# (exit 3); echo $?\n3\n# cat <<E\n> c\n> E\nc\n```\n"
        self.assertEqual(self.failures(right), 0)
        self.assertEqual(self.failures("<!-- not run: it would end us -->\n```console\n$ exit 9\n```\n" + right), 0)
        for wrong in ("# echo a\nb", "# false", "# true\na", "# echo a; false\na", "# echo a; echo b\na"):
            self.assertEqual(self.failures(f"```console\n{wrong}\n```\n"), 1, wrong)
        for unrunnable in ("```sh\ntrue\n```\n", "```console\nno prompt\n```\n"):
            self.assertRaises(ValueError, console_blocks.steps, unrunnable)

    def failures(self, document):
        class Page(unittest.TestCase):
            def runTest(self):
                console_blocks.run(self, document, {"PATH": "/usr/bin:/bin"}, "/", 60)

        result = unittest.TestResult()
        Page().run(result)
        self.assertFalse(result.errors, result.errors)
        return len(result.failures)


class Built(unittest.TestCase):
    """What `make book` makes."""

    @classmethod
    def setUpClass(cls):
        # It fails for warnings of mdbook's.
        built = subprocess.run(
            ["make", "--no-print-directory", "-C", ROOT, "book"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if built.returncode != 0:
            raise AssertionError(f"the book cannot be built:\n{built.stdout}")
        cls.book = TARGET / "book"

    def test_every_link_leads_somewhere(self):
        pages = {page: Page(page) for page in self.book.rglob("*.html") if page.name not in ("404.html", "print.html", "toc.html")}
        self.assertGreater(len(pages), 40)
        dead = []
        for path, page in pages.items():
            for link in page.links:
                parts = urlsplit(link)
                if parts.scheme or parts.netloc:
                    continue
                target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                known = pages.get(target)
                if not target.exists() or (parts.fragment and known and unquote(parts.fragment) not in known.anchors):
                    dead.append(f"{path.relative_to(self.book)} links to {link}")
        self.assertFalse(dead, "\n".join(dead))

    def test_every_verb_has_a_page(self):
        said = subprocess.run([TARGET / "banger/bin/banger", "--help"], stdout=subprocess.PIPE, text=True, check=True).stdout
        verbs = re.findall(r"^  ([a-z]+) ", said.split("\nCommands:\n")[1].split("\n\n")[0], re.M)
        self.assertIn("run", verbs)
        for verb in set(verbs) - {"help"}:
            self.assertTrue((self.book / f"reference/banger-{verb}.html").exists(), verb)

    def test_every_key_of_the_configuration_is_named(self):
        readme = tomllib.loads(re.search(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1])
        page = (self.book / "reference/configuration.html").read_text()
        for table, keys in readme.items():
            for key in keys:
                self.assertIn(f"<code>{table}.{key}</code>", page)


class Page(html.parser.HTMLParser):
    """The links of a page and what can be linked to in it."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.anchors.add(value)
            if name in ("href", "src") and value:
                self.links.append(value)


if __name__ == "__main__":
    unittest.main()
