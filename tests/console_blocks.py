"""The console blocks of a document, run as they stand, in one shell for each document, and compared with what it shows.

A line that begins with `# ` or `$ ` is typed, with the lines after it that begin with `> `; the lines below are what it prints.
There `...` in a line is anything in this line, and alone in a line any number of lines. What prints something that is not shown
is fine; what fails is not, unless the document shows an error or asks for `$?` next.

A block behind `<!-- not run: REASON -->` is not run. CI's quickstart step, say, holds it.
"""

import re
import subprocess

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.M | re.S)
MARK = re.compile(r"<!-- not run: ([^\n]+) -->\n\Z")
SHELLS = ("console", "sh", "bash", "shell", "zsh", "fish")
NEXT = "=== next"
# What a terminal shows for a moment only: a stage and how long it took.
STAGE = re.compile(r"^[a-z]+\.[a-z]+: [\d.]+ (ms|s|min)\n", re.M)


def blocks(document):
    """The blocks with commands: the language, the text, and why it is not run, if it is not."""
    for match in FENCE.finditer(document):
        if match[1] in SHELLS:
            mark = MARK.search(document, 0, match.start())
            yield match[1], match[2], mark and mark[1]


def steps(document):
    """The commands that are run, each with the lines that it prints."""
    found = []
    for language, text, reason in blocks(document):
        if reason:
            continue
        if language != "console":
            raise ValueError(f"a block of {language} has no prompts, so that nothing runs it: make it a console block")
        shown = None
        for line in text.splitlines():
            if line.startswith(("$ ", "# ")):
                shown = []
                found.append([line[2:], shown])
            elif line.startswith("> ") and shown == []:
                found[-1][0] += "\n" + line[2:]
            elif shown is not None:
                shown.append(line)
            elif line:
                raise ValueError(f"output before the first command of a block: {line}")
    for _, shown in found:
        # A blank line sets commands apart.
        while shown and not shown[-1]:
            shown.pop()
    return found


def run(case, document, environment, directory, seconds, place=None):
    """Runs a document's steps in a directory; a subtest of `case` for each. `place` maps what is written to what is meant here."""
    shown = steps(document)
    case.assertTrue(shown, "there is nothing to run")
    script = ""
    for command, _ in shown:
        for written, meant in (place or {}).items():
            command = command.replace(written, meant)
        # The next command still sees this one's exit code.
        script += f"{command}\n__code=$?; printf '\\n%s %s\\n' '{NEXT}' $__code; (exit $__code)\n"
    shell = subprocess.Popen(
        ["bash", "-u", "-c", script], env=environment, cwd=directory, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        ran, _ = shell.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        shell.kill()
        ran, _ = shell.communicate()
        case.fail(f"it takes over {seconds} s:\n{ran}")
    answers = re.split(rf"\n{NEXT} (\d+)\n", ran)
    case.assertEqual(len(answers), 2 * len(shown) + 1, f"the shell ended early:\n{ran}")
    for at, (command, expected) in enumerate(shown):
        answer, code = STAGE.sub("", answers[2 * at] + "\n").strip("\n"), int(answers[2 * at + 1])
        with case.subTest(command=command):
            following = shown[at + 1][0] if at + 1 < len(shown) else ""
            fails = "$?" in following or any(line.startswith("error: ") for line in expected)
            # curl, told how long to go on (-m), ends with this.
            fails |= code == 28 and " -m " in command
            case.assertTrue(code == 0 or fails, f"`{command}` ended with {code}:\n{answer}")
            if expected:
                case.assertRegex(answer + "\n", pattern(expected), f"after {command}")


def pattern(lines):
    """What these lines match: as many whole lines."""
    text = ""
    for line in lines:
        if line == "...":
            text += r"(?:.*\n)*"
        else:
            text += ".*".join(re.escape(part) for part in line.split("...")) + "\n"
    return re.compile(rf"\A{text}\Z")
