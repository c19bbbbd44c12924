"""Build the documentation site: ``python docs/make_site.py``, or ``make docs``, into docs/_build/html.

The pages are Markdown that can be read where it lies. This script gathers them in docs/_build/source with links rewritten to that
folder, adds the Python reference, which is made from docstrings, and runs Sphinx with warnings as errors. It needs the extra `dev`.
"""

from __future__ import annotations

import inspect
import re
import shutil
import sys
from pathlib import Path

from sphinx.cmd.build import build_main

import flowkit
import flowkit.model

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
SOURCE, HTML = DOCS / "_build" / "source", DOCS / "_build" / "html"

# The sections of the site -> its pages: files from the root of the checkout, or names of pages that are made here.
SECTIONS = {
    "Start": ("docs/tutorial.md", "docs/concepts.md", "docs/pipeline.md", "docs/glossary.md", "docs/troubleshooting.md"),
    "How to": (
        *("docs/data-tools.md", "docs/custom-lists.md", "docs/official-lists.md", "docs/reading.md", "docs/gpu.md", "docs/cluster.md"),
        *("docs/training.md", "docs/fine-tuning.md", "docs/report.md", "docs/features.md", "docs/using-a-model.md"),
        *("docs/ablations.md", "docs/reproducing.md", "examples/README.md"),
    ),
    "Reference": ("docs/commands.md", "docs/api.md", "reference-flowkit", "reference-model", "docs/format.md"),
    "The method": (
        *("docs/flow.md", "docs/flow-methods.md", "docs/stresnet.md", "docs/systems.md", "docs/trajectories.md"),
        "docs/invariants.md",
        "benchmarks/README.md",
    ),
    "Systems": tuple(f"docs/systems/{path.name}" for path in sorted((DOCS / "systems").glob("*.md"))),
    "Working on flowkit": ("docs/architecture.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"),
}
_LINK = re.compile(r"\]\(([^)\s#:]+)(#[^)\s]*)?\)")
_API_ROW = re.compile(r"^\| `((\w+)(?:\([^`]*\))?)` \|", re.MULTILINE)


def pages() -> dict[Path, str]:
    """Return all pages of the site: a file, and its name there. The project's README is the first page."""
    named = {ROOT / "README.md": "index", DOCS / "README.md": "index"}
    for section in SECTIONS.values():
        for page in section:
            path = ROOT / page
            if path.suffix == ".md":
                named[path] = (path.parent.name if path.stem == "README" else path.stem).lower()
    missing = {*DOCS.glob("*.md")} - named.keys()
    assert not missing, f"SECTIONS lacks {', '.join(sorted(path.name for path in missing))}"
    return named


def rewritten(text: str, path: Path, named: dict[Path, str]) -> str:
    """Return a page's text with links to other pages by their names in the site; other files are copied beside the page."""

    def target(match: re.Match[str]) -> str:
        file = (path.parent / match[1]).resolve()
        page = named.get(file / "README.md" if file.is_dir() else file)
        if page is not None:
            return f"]({page}.md{match[2] or ''})"
        shutil.copy(file, SOURCE / file.name)  # an error if the link leads nowhere
        return f"]({file.name})"

    return _LINK.sub(target, text)


def table_of_contents(named: dict[Path, str]) -> str:
    """Return the sections as Sphinx's tables of contents."""
    tables = []
    for section, entries in SECTIONS.items():
        lines = "\n".join(named.get(ROOT / entry, entry) for entry in entries)
        tables.append(f"```{{toctree}}\n:hidden:\n:caption: {section}\n\n{lines}\n```\n")
    return "\n".join(tables)


def reference(title: str, module: str, names: list[str]) -> str:
    """Return the page of a package's public names, made from their docstrings."""
    parts = [f"# {title}\n"]
    for name in sorted(names, key=str.lower):
        value = getattr(sys.modules[module], name)
        if inspect.ismodule(value) or name.startswith("__"):
            continue
        kind = "exception" if inspect.isclass(value) and issubclass(value, BaseException) else "class" if inspect.isclass(value) else ""
        directive = f"auto{kind or 'function'}:: {module}.{name}"
        members = "   :members:\n" if kind == "class" else ""
        parts.append(f"## {name}\n\n```{{eval-rst}}\n.. {directive}\n{members}```\n")
    return "\n".join(parts)


def with_references(text: str) -> str:
    """Return the overview of the API with each name linked to its entry."""

    def row(match: re.Match[str]) -> str:
        module = "flowkit.model" if match[2] in flowkit.model.__all__ else "flowkit"
        return f"| {{py:obj}}`{match[1]} <{module}.{match[2]}>` |"

    return _API_ROW.sub(row, text)


def gather() -> None:
    """Write the pages into the folder that Sphinx reads."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    SOURCE.mkdir(parents=True)
    named = pages()
    for path, name in named.items():
        if path == DOCS / "README.md":  # the site has its own index
            continue
        text = rewritten(path.read_text(encoding="utf-8"), path, named)
        text = with_references(text) if name == "api" else text
        text = f"{text}\n{table_of_contents(named)}" if name == "index" else text
        (SOURCE / f"{name}.md").write_text(text, encoding="utf-8")
    (SOURCE / "reference-flowkit.md").write_text(reference("Reference: flowkit", "flowkit", flowkit.__all__), encoding="utf-8")
    text = reference("Reference: flowkit.model", "flowkit.model", flowkit.model.__all__)
    (SOURCE / "reference-model.md").write_text(text, encoding="utf-8")


def main() -> int:
    """Gather the pages, and build the site."""
    gather()
    return build_main([f"--conf-dir={DOCS}", "--fail-on-warning", "--keep-going", "--quiet", str(SOURCE), str(HTML)])


if __name__ == "__main__":
    sys.exit(main())
