"""Code, help and pages are plain English: phrases that readers stumble over do not come back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("flowkit", "model", "cli", "tests", "benchmarks", "examples", "docs", ".github")
SUFFIXES = {".py", ".cu", ".h", ".jinja", ".md", ".yml"}
THINGS = (
    "(flow |training |test )?(frames|fields|videos|pairs|clips|files|shards|classes|steps|epochs|samples|stacks|pixels|processes|images)"
)
# What to avoid, and what to write instead.
PHRASES = {
    r"\banew\b": "again",
    r"\bwherefore\b": "so",
    r"\bto be had\b": "available",
    r"\b(take|takes|taken|taking|took) (it |them )?for (a|an|one|the)\b": "treated as",
    r"\bone's own\b": "own",
    r"\bof this \w+'s own\b": "own",
    r"\b(is|are|was|were|be|being) told\b": "receives; is reported",
    rf"\bless {THINGS}\b": "fewer",
    r"\b(wish|wishes|wished) to stop\b": "request to stop",
    r"\bfault of flowkit\b": "bug in flowkit",
    r"\b(a|one) (file|row|line|folder|group|sample) a (video|clip|class|phase|shard)\b": "one ... per ...",
    r"\bat hand\b": "available",
    r"\bin good order\b": "cleanly",
    r"\b(mends?|mended)\b": "fixes",
    r"\bspeaks? of\b": "names",
    r"\blaid down\b": "stored",
    r"\bno error of anyone's\b": "",
    r"\bruled on\b": "decided",
    r"\b(is|are|was|were|not) right(?=[.,;:)\"'])": "correct",
    r"\bright (number|order|place|shape|size|value|answer|class|type|length)s?\b": "correct",
    r"(?<!\w)[\"']Of (the |a |an |each )?\w+": "a sentence with a subject",
    r"""help=f?[\"'](For|In|By|With) """: "a sentence with a subject",
    r"[\"'](For|In|By|With) (the )?\w+\.[\"']": "a sentence with a subject",
}


def texts() -> list[Path]:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    return [path for path in (*files, *ROOT.glob("*.md")) if path != Path(__file__) and "fixtures" not in path.parts]


def phrases_in(text: str) -> list[str]:
    """Return each phrase with its line and what to write instead. Lines, and the comments on them, are read as one text."""
    joined = re.sub(r"\n[ \t]*(#|//|\*|>)?", lambda match: " " * len(match[0]), text)  # every character keeps its place
    found = []
    for pattern, instead in PHRASES.items():
        flags = 0 if re.search("[A-Z]", pattern) else re.IGNORECASE
        for match in re.finditer(pattern.replace(" ", " +"), joined, flags):
            line = text.count("\n", 0, match.start()) + 1
            found.append((line, f"line {line}: {match[0]!r}: write {instead!r}"))
    return [message for _, message in sorted(found)]


def prose_of(path: Path) -> str:
    """Return a file's text, a page's without the code in its lines: it may quote what to avoid."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r"`[^`\n]+`", "``", text) if path.suffix == ".md" else text


def test_no_file_has_a_phrase_that_readers_stumble_over() -> None:
    found = {path.relative_to(ROOT).as_posix(): phrases_in(prose_of(path)) for path in texts()}
    assert {name: phrases for name, phrases in found.items() if phrases} == {}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Files are read anew.", 1),
        ("One\ntwo\n# no GPU is to be\n# had here", 3),
        ('help="Of the folds."', 1),
        ("It has less frames than fields.", 1),
        ("A clip is\n    taken for a video.", 2),
        ("a process of one's own", 1),
        ("listeners are told", 1),
        ("the right order", 1),
    ],
)
def test_a_phrase_is_found_also_where_it_is_broken_over_lines(text: str, line: int) -> None:
    (message,) = phrases_in(text)
    assert message.startswith(f"line {line}: ")


def test_other_uses_of_the_same_words_are_fine() -> None:
    assert phrases_in("Less memory; u points right; its own file; for a video; renewed; the right edge; they tell. Of course.") == []


def test_no_line_cites_a_document_that_is_not_in_the_repository() -> None:
    written = {
        "table.md",
        "compare.md",
        "ablation.md",
        "ablation-seeds.md",
        "seeds.md",
        "page.md",
        "reference-flowkit.md",
        "reference-model.md",
    }
    pages = {path.name for path in texts() if path.suffix == ".md"} | written
    found = []
    for path in texts():
        text = path.read_text(encoding="utf-8")
        cited = re.findall(r"\bDESIGN\b|\bspecs?\b[ /]?(?:\d|section|stresnet)|\bsection \d+\.\d", text)
        cited += [name for name in re.findall(r"\b([\w-]+\.md)\b", text) if name not in pages]
        found += [f"{path.relative_to(ROOT)}: {name}" for name in cited]
    assert found == []
