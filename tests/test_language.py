"""Code, help and pages are plain English: turns that this project once used, and has plain words for, do not come back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("flowkit", "model", "cli", "tests", "benchmarks", "examples", "docs", ".github")
SUFFIXES = {".py", ".cu", ".h", ".jinja", ".md", ".yml"}
# What is not written, and what is written instead.
PLAIN = {
    r"\banew\b": "again",
    r"\bwherefore\b": "so",
    r"\bto be had\b": "available",
    r"\btaken for\b": "treated as, or mistaken for",
    r"\bof one's own\b": "your own",
    r"\b(is|are|was|were|be) told\b": "receives, or is reported to",
    r"\bless (frames|fields|videos|files|steps|pairs)\b": "fewer",
    r"\bin good order\b": "cleanly, or nothing",
    r"\blaid down\b": "stored",
    r"""help=f?"(Of|For) """: "a sentence with a subject",
    r"\bmends?\b|\bmended\b": "fixes",
}


def texts() -> list[Path]:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    return [path for path in (*files, *ROOT.glob("*.md")) if path != Path(__file__) and "fixtures" not in path.parts]


@pytest.mark.parametrize(("phrase", "instead"), PLAIN.items())
def test_stiff_phrases_occur_nowhere(phrase: str, instead: str) -> None:
    pattern = re.compile(phrase, re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line) and not (path.name == "CONTRIBUTING.md" and line.startswith("|"))
    ]
    assert found == [], f"write instead: {instead}"


def test_no_line_cites_a_document_that_is_not_in_the_repository() -> None:
    pages = {path.name for path in texts() if path.suffix == ".md"} | {"table.md", "ablation.md", "page.md"}  # the last three are written
    found = []
    for path in texts():
        text = path.read_text(encoding="utf-8")
        cited = re.findall(r"\bDESIGN\b|\bspecs?\b[ /]?(?:\d|section|stresnet)|\bsection \d+\.\d", text)
        cited += [name for name in re.findall(r"\b([\w-]+\.md)\b", text) if name not in pages]
        found += [f"{path.relative_to(ROOT)}: {name}" for name in cited]
    assert found == []
