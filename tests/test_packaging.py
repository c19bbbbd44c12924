"""The package as others receive it: its page without dead links, and the lines of the Dockerfile."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import click
import pytest

from flowkit.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
DESCRIPTION = runpy.run_path(str(ROOT / "setup.py"))["description"]


def links_and_pictures(text: str) -> list[str]:
    """Return where the links and pictures of a Markdown text lead, as a page that shows it would have them."""
    from markdown_it import MarkdownIt

    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    return re.findall(r'(?:href|src)="([^"]*)"', html)


def test_the_page_of_the_package_has_no_link_that_leads_nowhere() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert any(not target.startswith("http") for target in links_and_pictures(readme))
    text = DESCRIPTION(readme)
    assert [target for target in links_and_pictures(text) if not target.startswith("https://")] == []
    assert "<!--" not in text
    assert "![" not in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[pages](docs/README.md) and [more](https://a.b)", "pages and [more](https://a.b)"),
        ("see [`x`](a.py#b)!", "see `x`!"),
        ("![A\nlong text.](docs/a.png)\n\nText", "Text"),
        ("![badge](https://a.b/c.svg)", "![badge](https://a.b/c.svg)"),
        ("<!-- not run:\nlong -->\n```sh", "```sh"),
        ("[top](#top)", "top"),
    ],
)
def test_only_what_lies_in_the_repository_becomes_text(text: str, shown: str) -> None:
    assert DESCRIPTION(text) == shown


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the repository in a clean folder."""
    folder = tmp_path_factory.mktemp("source")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "benchmarks/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.mark.slow
def test_the_metadata_of_the_wheel_describe_it(source: Path, tmp_path: Path) -> None:
    code = "import sys; from setuptools.build_meta import prepare_metadata_for_build_wheel as make; make(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=source, capture_output=True, check=True)
    (path,) = tmp_path.glob("*.dist-info/METADATA")
    metadata = Parser().parsestr(path.read_text(encoding="utf-8"))
    assert metadata["Name"] == "flowkit-video"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "Paper, https://arxiv.org/abs/1611.02155" in metadata.get_all("Project-URL")
    assert str(metadata.get_payload()).strip() == DESCRIPTION((ROOT / "README.md").read_text(encoding="utf-8")).strip()


def dockerfile() -> tuple[dict[str, str], list[str]]:
    """Return the arguments of the Dockerfile with their defaults, and the lines that it runs."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    arguments = dict(re.findall(r"^ARG (\w+)=(.*)$", text, re.MULTILINE))
    return arguments, re.findall(r"^RUN (.*)$", text, re.MULTILINE)


def stand_in_index(folder: Path) -> str:
    """Make an index of packages that holds wheels called torch and torchvision with nothing in them; return its address."""
    for name in ("torch", "torchvision"):
        (folder / name).mkdir(parents=True)
        wheel = folder / name / f"{name}-9.9-py3-none-any.whl"
        info = f"{name}-9.9.dist-info"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        (folder / name / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    return folder.as_uri()


@pytest.mark.slow
@pytest.mark.parametrize("cuda", ["0", "1"])
def test_the_lines_of_the_dockerfile_run_in_a_clean_folder(source: Path, tmp_path: Path, cuda: str) -> None:
    """No image is built here. pip installs flowkit alone, and the other packages come from this environment."""
    arguments, lines = dockerfile()
    work = Path(shutil.copytree(source, tmp_path / "source"))
    own = {"CUDA": cuda, "PREFIX": str(tmp_path / "prefix"), "TORCH_INDEX": stand_in_index(tmp_path / "index")}
    assert own.keys() <= arguments.keys()
    environment = {**os.environ, **arguments, **own, "PIP_NO_DEPS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    for line in lines:
        if line == lines[-1]:
            environment["PYTHONPATH"] = str(Path(click.__file__).parents[1])
        done = subprocess.run(["sh", "-euc", line], cwd=work, env=environment, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert done.stdout.startswith("flowkit, version ")
    (site,) = (tmp_path / "prefix").glob("lib/python*/site-packages")
    assert (site / "flowkit" / "model").is_dir()
    assert bool(list(site.glob("torch-9.9.dist-info"))) == (cuda == "0")


def test_the_examples_in_the_dockerfile_are_flowkits_commands() -> None:
    lines = re.findall(r"^#   docker run .* flowkit (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert lines
    assert all(shlex.split(line)[0] in COMMANDS for line in lines)
