"""The pages agree with the project: the tree in docs/architecture.md with the files, links with their targets, versions with each other."""

from __future__ import annotations

import ast
import builtins
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PAGES = sorted(page for names in ("*.md", "docs/[!R]*.md", "docs/systems/*.md", "*/README.md") for page in ROOT.glob(names))
MAY_BE_LEFT_OUT = "__init__.py"  # the line of its folder describes it


def listed_files() -> list[str]:
    """Every file that the tree lists, with its folders; two spaces are one level."""
    match = re.search(r"<!-- tree -->\n```\n(.*?)\n```", ARCHITECTURE, re.DOTALL)
    assert match is not None
    files, folders = [], []
    for line in match[1].splitlines():
        indent, name, description = re.fullmatch(r"( *)(\S+)  +(\S.*)", line).groups()
        folders[len(indent) // 2 :] = [name]
        assert description.strip() != "TODO"
        if not name.endswith("/"):
            files.append("".join(folders))
    return files


def test_the_tree_lists_every_file_of_the_code_once() -> None:
    there = {
        path.relative_to(ROOT).as_posix()
        for top in ("flowkit", "model", "cli")
        for path in (ROOT / top).rglob("*")
        if path.suffix in (".py", ".cu", ".jinja", ".css", ".js")
    }
    listed = listed_files()
    assert len(listed) == len(set(listed))
    assert sorted(set(listed) - there) == [], "the tree lists what does not exist"
    assert sorted(name for name in there - set(listed) if not name.endswith(MAY_BE_LEFT_OUT)) == [], "the tree lacks these"


@cache
def names_in(path: Path) -> set[str]:
    """Functions, classes, methods and constants that a module defines."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names.update(f"{node.name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef))
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(target.id for target in targets if isinstance(target, ast.Name))
    return names


def test_every_file_and_name_of_the_page_exists() -> None:
    for name in re.findall(r"`((?:flowkit|model|cli|tests)/[\w./]+)`", ARCHITECTURE):
        assert (ROOT / name).exists(), name
    named = re.findall(r"`([\w./]+)::([\w.]+)`", ARCHITECTURE)
    assert len(named) == ARCHITECTURE.count("::")
    assert [f"{file}::{name}" for file, name in named if name not in names_in(ROOT / file)] == []


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Where is the mirror image of u computed?", "flowkit/quantise.py::Quantiser.flip_u"),
        ("Where is a video's status decided?", "flowkit/extraction/results.py::with_status"),
        ("Where does a new split format go?", "flowkit/dataset/lists/reading.py::read_lists"),
    ],
)
def test_the_page_answers_by_name(question: str, answer: str) -> None:
    assert f"| {question} | `{answer}` |" in ARCHITECTURE


def links_of(page: Path) -> list[str]:
    """Return where the links of a page lead; code is left out."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target for target in targets if not target.startswith(("http://", "https://"))]


@cache
def anchors_of(page: Path) -> set[str]:
    """Return the names by which links reach the headings of a page, as GitHub and the site make them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in links_of(page):
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors_of(path / "README.md" if path.is_dir() else path), target


# Where a statement about the paper or the official code can be looked up, or that it cannot be.
CITED = re.compile(
    r"\b(eqs?\. \d|Table \d|Tables \d|Fig\. \d|issue \d+)"
    r"|\b(stage[12]|batch|wrapper|train|spatial|temporal|(frame|flow)_batch|BatchNorm|setLrWd|Sum|Loss|bnorm_cpu):\d+"
    r"|\.(m|cpp)(:| at | lines )\d+|`pool5` of its ImageNet weights|arXiv"
    r"|from memory|not known|could not be checked|Nobody has checked|is remembered|flowkit's choice"
)


def statements(text: str) -> list[str]:
    """Return the paragraphs, list items and table rows of a page that say something of the paper or the official code."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    parts = re.split(r"\n\s*\n|\n(?=[*|#])", text)
    return [part for part in parts if re.search(r"\b(paper|official code)\b", part.replace("\n", " ")) and not part.startswith("#")]


@pytest.mark.parametrize("page", ["stresnet.md", "ablations.md"])
def test_every_statement_about_the_paper_or_the_official_code_names_its_source(page: str) -> None:
    found = statements((ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert found
    columns = "| | paper | official code | flowkit |"
    assert [text for text in found if text != columns and not CITED.search(text)] == []
    assert [
        text for text in found if text.startswith("| ") and text != columns and text.count("|") == 5 and len(CITED.findall(text)) < 2
    ] == []


def test_a_statement_without_a_source_is_found() -> None:
    with_source = "* As eq. 2 of the paper.\n* The official\n  code draws one (wrapper:31).\n"
    text = f"The paper pools globally.\n\n{with_source}* The official code does not.\n"
    assert [part for part in statements(text) if not CITED.search(part)] == ["The paper pools globally.", "* The official code does not.\n"]


def test_the_index_of_the_pages_lists_all_of_them() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    there = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", index)) == there


def test_the_page_of_systems_lists_every_system_and_leads_to_every_page_about_one() -> None:
    from flowkit.model.systems.registry import SYSTEMS

    index = (ROOT / "docs" / "systems.md").read_text(encoding="utf-8")
    assert [name for name in SYSTEMS if f"`{name}`" not in index] == []
    assert set(re.findall(r"\]\(systems/([\w-]+\.md)\)", index)) == {page.name for page in (ROOT / "docs" / "systems").glob("*.md")}


def test_the_api_page_lists_every_public_name() -> None:
    import flowkit
    import flowkit.model as model

    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)", text, re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) == {*flowkit.__all__, *model.__all__} - {"__version__"}
    for name, built_in in re.findall(r"^\| `(\w+)` \| `(\w+)` \|", text, re.MULTILINE):
        assert issubclass(getattr(flowkit, name), getattr(builtins, built_in))


def test_all_versions_are_the_same() -> None:
    import flowkit

    assert re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1] == flowkit.__version__
    assert re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)[1] == flowkit.__version__


def test_the_page_of_methods_covers_every_preset() -> None:
    from flowkit.flow.params import PRESETS

    text = (ROOT / "docs" / "flow.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in PRESETS)
