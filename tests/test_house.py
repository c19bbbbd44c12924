"""The house rules that no linter knows: imports go one way, heavy libraries stay asleep, every command has help."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from flowkit.cli.main import COMMANDS, flowkit

ROOT = Path(__file__).resolve().parent.parent
STAGES = {"flow", "quantise", "shards"}


def modules() -> list[Path]:
    return [path for top in ("flowkit", "model", "cli") for path in sorted((ROOT / top).rglob("*.py"))]


def imports_of(path: Path) -> set[str]:
    """Every module a file imports anywhere, except for type checkers only."""
    found: set[str] = set()

    class Visitor(ast.NodeVisitor):
        def visit_If(self, node: ast.If) -> None:
            if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
                self.generic_visit(node)

        def visit_Import(self, node: ast.Import) -> None:
            found.update(alias.name for alias in node.names)

        def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            found.add(node.module)
            if node.module in ("flowkit", "flowkit.model", "flowkit.cli", "flowkit.flow", "flowkit.shards"):
                found.update(f"{node.module}.{alias.name}" for alias in node.names)

    Visitor().visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def layer_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


def stage_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "flowkit" and len(parts) > 1 and parts[1] in STAGES else None


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    imported = imports_of(path)
    tops = {name.split(".")[0] for name in imported}
    layer = layer_of(path)
    if layer == "flowkit":
        assert not tops & {"torch", "torchvision", "click", "rich"}, "flowkit imports neither torch nor click"
        assert not [name for name in imported if name.startswith(("flowkit.model", "flowkit.cli"))]
    if layer == "model":
        assert not tops & {"click", "rich"}
        assert not [name for name in imported if name.startswith("flowkit.cli")]
    assert not tops & {"model", "cli"}, "their names are flowkit.model and flowkit.cli"


@pytest.mark.parametrize("path", [p for p in modules() if layer_of(p) == "flowkit"], ids=lambda path: str(path.relative_to(ROOT)))
def test_stages_do_not_import_each_other(path: Path) -> None:
    parts = path.relative_to(ROOT).with_suffix("").parts
    own = parts[1] if len(parts) > 1 and parts[1] in STAGES else None
    if own is None:
        pytest.skip("not a stage")
    others = {stage for name in imports_of(path) if (stage := stage_of(name))} - {own}
    assert not others


def test_the_layering_test_sees_imports_inside_functions(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    import torch\n    from flowkit.model import train\n")
    assert {"torch", "flowkit.model", "flowkit.model.train"} <= imports_of(bad)


def test_importing_flowkit_loads_no_heavy_library() -> None:
    code = "import sys, flowkit; print([m for m in ('torch', 'click', 'cv2', 'h5py', 'av', 'numba', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys\nfrom flowkit.cli.main import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('torch', 'cv2', 'h5py', 'av', 'numba', 'numpy', 'rich') if m in sys.modules], file=sys.stderr)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.strip() == "[]"


def test_every_public_name_resolves() -> None:
    import flowkit as package
    import flowkit.model as model

    for holder in (package, model):
        for name in holder.__all__:
            assert getattr(holder, name) is not None
    assert callable(model.train)
    assert callable(model.evaluate)


def test_train_and_evaluate_stay_functions_after_their_modules_are_imported() -> None:
    code = (
        "import flowkit.model.training.chain, flowkit.model.evaluation.protocol, flowkit.model as m\n"
        "assert callable(m.train) and callable(m.evaluate)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(flowkit, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output


def test_the_command_reference_is_the_commands_own_help() -> None:
    spec = importlib.util.spec_from_file_location("make_commands", ROOT / "docs" / "make_commands.py")
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert maker.PAGE.read_text(encoding="utf-8") == maker.page(), "run: python docs/make_commands.py"
