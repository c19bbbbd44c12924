"""The diagrams of the pages are those that docs/make_figures.py draws, and are used."""

from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_figures", DOCS / "make_figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_stored_diagrams_are_those_that_the_script_draws(script: ModuleType) -> None:
    drawn = {f"{name}.svg": draw().svg() for name, draw in script.FIGURES.items()}
    assert drawn == {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "pictures").glob("*.svg")}


def test_every_picture_is_shown_by_a_page_with_a_description() -> None:
    pages = [*DOCS.glob("*.md"), DOCS.parent / "README.md"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in pages)
    for picture in (DOCS / "pictures").iterdir():
        before, link, _ = text.partition(f"pictures/{picture.name})")
        assert link, picture.name
        assert len(before[before.rindex("![") + 2 :]) > 80, picture.name


def test_a_diagram_has_a_title_and_no_text_outside_its_frame(script: ModuleType) -> None:
    for name, draw in script.FIGURES.items():
        drawing = draw()
        root = ElementTree.fromstring(drawing.svg())
        space = "{http://www.w3.org/2000/svg}"
        assert root.findtext(f"{space}title")
        for line in root.iter(f"{space}text"):
            width = len(line.text or "") * (7.2 if line.get("class") == "small" else 8.2)  # px, at most
            start = float(line.get("x", "")) - {"start": 0, "middle": width / 2, "end": width}[line.get("text-anchor", "start")]
            assert -12 < start < drawing.width + 12 - width, (name, line.text)
            assert 0 < float(line.get("y", "")) < drawing.height
