"""The messages that docs/troubleshooting.md explains are those that the code has: their fixed words stand in one text of it."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "troubleshooting.md"
VALUE = "\0"  # where a text of the code has a value
LEAST = 15  # fixed characters of a quoted message, so that it names one message


def quoted_messages() -> list[str]:
    """Return the messages that are headings of the page."""
    return re.findall(r"^### `(.+)`$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


@cache
def texts_of_the_code() -> tuple[str, ...]:
    """Return all string literals of the code, with a mark for each value that is put into them."""
    found: list[str] = []
    for top in ("flowkit", "model", "cli"):
        for path in sorted((ROOT / top).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    found.append("".join(part.value if isinstance(part, ast.Constant) else VALUE for part in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return tuple(found)


def is_in_the_code(message: str) -> bool:
    """Whether one text of the code has the fixed parts of a message, in order, with values or other words where it has ``...``."""
    parts = [part.strip(" '") for part in message.split("...")]
    pattern = re.compile(".*?".join(map(re.escape, filter(None, parts))), re.DOTALL)
    return any(pattern.search(text) for text in texts_of_the_code())


@pytest.mark.parametrize("message", quoted_messages())
def test_a_quoted_message_has_the_words_of_the_code(message: str) -> None:
    assert len(message.replace("...", "").strip()) >= LEAST, "too short to be found by its words"
    assert is_in_the_code(message)


def test_a_message_that_no_code_has_is_found() -> None:
    assert len(quoted_messages()) > 40
    assert is_in_the_code("... has no split ... (...): make it with ...")
    assert not is_in_the_code("... has no split ... (...): buy it with ...")
    assert not is_in_the_code("make it with ... has no split")


def test_every_heading_has_an_explanation() -> None:
    text = PAGE.read_text(encoding="utf-8")
    sections = re.split(r"^#+ .+$", text, flags=re.MULTILINE)[1:]
    headings = re.findall(r"^(#+) .+$", text, re.MULTILINE)
    assert [k for k, (level, section) in enumerate(zip(headings, sections, strict=True)) if level == "###" and len(section) < 60] == []
