"""The code blocks of README and docs: found with their marks, and run in a folder, all of a page in one process.

A block of ``python`` or ``sh`` runs unless the line before it is ``<!-- not run: reason -->``. The block after ``<!-- output -->`` shows
what the block before it prints. A block of ``console`` is a session: lines that begin with ``$ `` are commands, and the others are what
they print; a line ``...`` stands for any lines. A block after ``<!-- file: NAME -->`` is a file that the reader writes. Blocks of other
languages or of none are not code, and have no line that is a command.
"""

from __future__ import annotations

import io
import re
import shlex
from contextlib import redirect_stdout
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from command_lines import run_flowkit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_BLOCK = re.compile(r"(?:^<!-- (?P<mark>.+?) -->\n+)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^(\$ |flowkit |pip |make |python |import |from \w+ import )", re.MULTILINE)
# What differs from run to run, and how much space a table's columns take.
_VARIES = (
    (r"\d+(\.\d+)? ?(ms|s|min|h)\b", "<time>"),
    (r"\b\d+\.\d+\.\d+\S*", "<version>"),
    (r"(/[\w.-]+){2,}", "<path>"),
    (r"[ \t]+", " "),
)
# What of a session's output is measured, or is a setting that the tests make smaller; numbers of things must be those that are printed.
_MEASURED = (
    (r"\d+\.\d+ (?:s per [a-z ]+|[A-Za-z ]+/s)\b", "<rate>"),
    (r"\d+ (min|h) \d+ (s|min)\b", "<time>"),
    *_VARIES[:3],
    (r"\b\d+x\d+\b|\b\d+/\d+\b", "<number>"),
    (r"-?\d+(\.\d+)? ?(B|kB|MB|GB|px)\b|-?\d+(\.\d+)? ?%", "<measured>"),
    (r"-?\d*\.\d+(e-?\d+)?", "<number>"),
    (r"\b\d+ steps\b", "<number> steps"),
    (r"; a bound of \d+ would hold <measured> of it", ""),
    (r"\b\d+ (flow fields across a cut|repeated frames) in \d+ videos?\b", r"<number> \1 in <number> videos"),
    (r"\b[0-9a-f]{8,}\b", "<digest>"),
    (r"-{2,}:?", "--"),
    (r"[ \t]+", " "),
)
_PROGRESS = re.compile(r"^([^:|]+): .* in <time>, <rate>")
# Empty lines, and lines of stages that may be too short to be seen, or that only short trainings have.
_NOT_COMPARED = re.compile(r"^$|^count: |^[\w-]+, batch norm: ")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    code: str
    mark: str = ""
    not_run: str = ""  # the reason

    @property
    def is_code(self) -> bool:
        return self.language in ("python", "sh", "console")

    @property
    def file_name(self) -> str:
        """The name of the file that the reader writes; empty if the block is none."""
        return self.mark.removeprefix("file:").strip() if self.mark.startswith("file:") else ""

    @property
    def is_output(self) -> bool:
        return self.mark == "output"

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page that are not indented, in order."""
    text, blocks = page.read_text(encoding="utf-8"), []
    for match in _BLOCK.finditer(text):
        mark = match["mark"] or ""
        reason = mark.removeprefix("not run:").strip() if mark.startswith("not run:") else ""
        line = text.count("\n", 0, match.start("code"))
        blocks.append(Block(page, line, match["language"], match["code"], mark, reason))
    return blocks


def check_marks(block: Block) -> None:
    """Fail if a block is code that would go unnoticed, or its mark has no reason."""
    assert block.is_code or block.is_output or not _COMMAND.search(block.code), f"{block} is code of no language that is run"
    assert not block.mark.startswith("not run") or (block.is_code and block.not_run), f"{block} has a mark without a reason, or is not code"


def run_page(
    page: Path, names: Mapping[str, Any], *, is_run: Callable[[Block], bool] = lambda _: True, instead: Mapping[str, str] | None = None
) -> None:
    """Run the blocks of a page in the working folder, and compare the output that it shows.

    Parameters
    ----------
    page : Path
        The Markdown file.
    names : mapping
        What the reader of the page has already: Python blocks see these names, and those of the blocks before them.
    is_run : callable, optional
        Receives each block that carries no mark; those for which it returns False are left out.
    instead : mapping, optional
        Words of the commands of sessions, and what is run in their place.
    """
    names, printed = {"__name__": "__main__", **names}, None
    for block in blocks_of(page):
        check_marks(block)
        if block.is_output:
            assert printed is not None, f"{block} is the output of a block that is not run"
            assert normalise(printed) == normalise(block.code), str(block)
        printed = None
        if block.file_name:
            Path(block.file_name).write_text(block.code, encoding="utf-8")
        if block.is_code and not block.not_run and is_run(block):
            printed = run_session(block, instead or {}) if block.language == "console" else run_block(block, names)


def run_block(block: Block, names: dict[str, Any]) -> str:
    """Run one block; return what it prints."""
    if block.language == "sh":
        return "".join(run_line(line, block) for line in block.code.splitlines())
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile("\n" * block.line + block.code, str(block.page), "exec", dont_inherit=True), names)
    return printed.getvalue()


def run_session(block: Block, instead: Mapping[str, str]) -> str:
    """Run the commands of a session, and compare what they print with what is shown; ``$ echo $?`` shows the last exit code."""
    code = 0
    for command, shown in commands_of(block):
        if command == "echo $?":
            assert [str(code)] == shown, f"{block}: the exit code is {code}"
            code = 0
            continue
        assert code == 0, f"{block}: the command before {command!r} ended with {code}"
        words = [instead.get(word, word) for word in shlex.split(command)]
        assert words[0] == "flowkit", f"{block}: only lines of flowkit are run: {command}"
        ended = run_flowkit(*expanded(words[1:]), in_one=True)
        code = ended.code
        missing = first_difference(shown, ended.out.splitlines())
        assert missing is None, f"{block}: $ {command}\n{missing}\nIt prints:\n{ended.out}"
    assert code == 0, f"{block}: the last command ended with {code}"
    return ""


def commands_of(block: Block) -> list[tuple[str, list[str]]]:
    """Return the commands of a session, each with the lines that are shown below it. A command may continue after a backslash."""
    commands: list[tuple[str, list[str]]] = []
    for line in block.code.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            commands.append((line[2:], []))
        else:
            assert commands, f"{block} begins with output"
            commands[-1][1].append(line)
    return commands


def first_difference(shown: list[str], printed: list[str]) -> str | None:
    """Compare the output that a session shows with what is printed; return the first difference in words.

    Lines of progress are not compared: which of them appear depends on the machine.
    """
    wanted, there = comparable(shown), comparable(printed)
    place, may_skip = 0, False
    for line in wanted:
        if line == "...":
            may_skip = True
            continue
        found = there.index(line, place) if line in there[place:] else None
        if found is None or (found > place and not may_skip):
            return f"shown:   {line}\nprinted: {there[place] if place < len(there) else 'nothing more'}"
        place, may_skip = found + 1, False
    if place < len(there) and not may_skip:
        return f"printed, but not shown: {there[place]}"
    return None


def comparable(lines: list[str]) -> list[str]:
    """Return lines without what is measured, and of progress the last. The rows of a table are sorted: their order may be measured."""
    kept: list[str] = []
    rows: list[str] = []  # of the table so far, below its header
    for line in lines:
        if _NOT_COMPARED.search(line):
            continue
        for pattern, instead in _MEASURED:
            line = re.sub(pattern, instead, line)
        progress = _PROGRESS.match(line)
        if progress and kept and kept[-1].startswith(f"{progress[1]}: ") and _PROGRESS.match(kept[-1]):
            kept.pop()  # only the last line of a stage is compared: how many there are depends on the machine
        if line.startswith("|") and kept and kept[-1].startswith("|--"):
            rows.append(line.strip())
            continue
        kept += sorted(rows)
        rows.clear()
        kept.append(line.strip())
    return kept + sorted(rows)


def run_line(line: str, block: Block) -> str:
    """Run a line of shell: a command of flowkit, its output perhaps sent to a file."""
    words = shlex.split(line, comments=True)
    if not words:
        return ""
    assert words[0] == "flowkit", f"{block}: only lines of flowkit are run: {line}"
    line_out = None
    if ">" in words:
        line_out = Path(words[words.index(">") + 1])
        words = words[: words.index(">")]
    ended = run_flowkit(*expanded(words[1:]))
    assert ended.code == 0, f"{block}: {line}\n{ended.err}"
    if line_out is None:
        return ended.out
    line_out.write_text(ended.out, encoding="utf-8")
    return ""


def expanded(words: list[str]) -> list[str]:
    """Return words with the names of files for each that has an asterisk, as a shell gives them."""
    return [name for word in words for name in (sorted(glob(word)) if "*" in word else [word])]


def normalise(text: str) -> str:
    """Return a text without times, versions and paths, which differ from run to run."""
    for pattern, instead in _VARIES:
        text = re.sub(pattern, instead, text)
    return "\n".join(line.strip() for line in text.strip().splitlines())
