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

# Each entry, file or folder, imports only entries before it; flowkit/ comes before model/, model/ before cli/.
LAYERS = {
    "flowkit": (
        *("errors", "locks", "files", "file_versions", "temporary", "records", "run_digests", "versions", "children", "words"),
        *("quantise", "video", "flow", "trajectories", "warped_flow", "shards", "scenes"),
        *("dataset", "workers", "extraction", "describe", "exchange", "demo_videos"),
    ),
    "flowkit.model": (
        *("settings", "systems", "compute", "foreign", "networks", "data", "runs", "scoring", "encoding"),
        *("training", "evaluation", "convert", "fusion", "ablation", "comparison", "report"),
    ),
    "flowkit.cli": ("help", "shared", "commands", "main", "__main__"),
    "flowkit.flow": ("params", "methods", "reference", "kernel_cache", "cpu", "cuda", "other", "__init__"),
}
TOPS = ("flowkit", "flowkit.model", "flowkit.cli")
PACKAGES = {*(f"{top}.__init__" for top in TOPS), "flowkit.__main__"}  # they name what is public, wherever it lies; the command line
MOST_MODULES = 16  # in a folder, commands aside
HEAVY = {"flowkit": {"torch", "torchvision", "click", "rich"}, "flowkit.model": {"click", "rich"}, "flowkit.cli": set()}
ALLOWED = {"flowkit.dataset.progress": {"rich"}}  # loaded for a live terminal only


def modules() -> list[Path]:
    return [path for top in ("flowkit", "model", "cli") for path in sorted((ROOT / top).rglob("*.py"))]


def name_of(path: Path) -> str:
    """Return the dotted name a file of the checkout is imported by; a package keeps its ``__init__``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == "flowkit" else ("flowkit", *parts))


def imports_of(source: str) -> set[str]:
    """Return every module that a source imports anywhere, for type checkers too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            known = {name for name in names if (ROOT / _path_of(name)).exists()}
            found.update(known or {node.module})
    return found


def _path_of(name: str) -> Path:
    """Return where the module or folder of this name lies, from the root."""
    parts = name.split(".")
    beside = len(parts) > 1 and parts[1] in ("model", "cli")
    folder = Path(*(parts[1:] if beside else parts))
    return folder if (ROOT / folder).is_dir() else folder.with_suffix(".py")


def top_of(name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[1:2] in (["model"], ["cli"]) else parts[0]


def place(name: str) -> tuple[int, ...]:
    """Return where a module stands: the number of its top folder, of its entry there and, inside ``flow/``, of its entry there."""
    top = top_of(name)
    numbers = [TOPS.index(top)]
    for package in (top, "flowkit.flow"):
        if name.startswith(package + "."):
            entry = name.removeprefix(package + ".").split(".")[0]
            assert entry in LAYERS[package], f"{name}: {entry} has no place among the layers of {package}"
            numbers.append(LAYERS[package].index(entry))
    return tuple(numbers)


def wrong_imports(name: str, source: str) -> list[str]:
    """Return what a module imports against the order of the layers."""
    wrong = []
    for imported in sorted(imported for imported in imports_of(source) if imported.split(".")[0] == "flowkit"):
        if name.startswith(imported + "."):
            wrong.append(f"{name} imports the package it is part of, {imported}; import from the module that has it")
        elif place(imported) > place(name):
            wrong.append(f"{name} imports {imported}, which comes after it")
    return wrong


@pytest.mark.parametrize("path", [path for path in modules() if name_of(path) not in PACKAGES], ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    source, name = path.read_text(encoding="utf-8"), name_of(path)
    assert not wrong_imports(name, source)
    libraries = {imported.split(".")[0] for imported in imports_of(source)}
    assert not libraries & (HEAVY[top_of(name)] - ALLOWED.get(name, set()))
    assert not libraries & {"model", "cli"}, "their names are flowkit.model and flowkit.cli"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("flowkit.video.decode", "from flowkit.flow import compute_flow"),
        ("flowkit.shards.writer", "def f():\n    import flowkit.dataset.packing"),
        ("flowkit.flow.cpu.solver", "from flowkit.flow.cuda import solver"),
        ("flowkit.flow.params", "from flowkit.flow import reference"),
        ("flowkit.dataset.root", "from flowkit import __version__"),
        ("flowkit.extraction.run", "from flowkit.model.training.chain import train"),
        ("flowkit.model.networks.resnet", "if TYPE_CHECKING:\n    from flowkit.model.data.sampling import stacks"),
        ("flowkit.model.training.loop", "from flowkit.cli.shared.console import say"),
        ("flowkit.cli.commands.demo", "from flowkit.cli.main import flowkit"),
    ],
)
def test_an_import_against_the_layers_is_seen(name: str, line: str) -> None:
    assert wrong_imports(name, line)
    assert not wrong_imports("flowkit.cli.main", "from flowkit.cli.commands import demo\nfrom flowkit.flow import compute_flow")


def test_no_folder_holds_too_many_modules() -> None:
    folders = {path.parent for path in modules()} - {ROOT / "cli" / "commands"}
    assert {str(folder): num for folder in folders if (num := len(list(folder.glob("*.py")))) > MOST_MODULES + 1} == {}  # and __init__


def test_importing_flowkit_loads_no_heavy_library() -> None:
    code = "import sys, flowkit; print([m for m in ('torch', 'click', 'cv2', 'h5py', 'av', 'numba', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_networks_are_reached_through_flowkit() -> None:
    code = (
        "import flowkit; print(flowkit.model.STResNetConfig(num_classes=5).num_classes, 'model' in dir(flowkit), hasattr(flowkit, 'other'))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "5 True False"


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
        assert set(holder._LAZY) <= set(holder.__all__) == set(holder.__all__) & set(dir(holder))
        assert sorted(holder.__all__) == holder.__all__
    assert callable(model.train)
    assert callable(model.evaluate)


def test_a_checkout_holds_one_package_and_only_what_belongs_to_it() -> None:
    code = (
        "import pkgutil, flowkit, flowkit.model.training.chain, flowkit.model as m\n"
        "assert callable(m.train) and callable(m.evaluate)\n"
        "print(sorted(module.name for module in pkgutil.iter_modules(flowkit.__path__)))\n"
        "try:\n    import flowkit.flowkit\nexcept ModuleNotFoundError:\n    print('one')"
    )
    listed, one = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout.splitlines()
    assert set(ast.literal_eval(listed)) <= {*LAYERS["flowkit"], "__main__"}
    assert one == "one"


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


def test_the_trainer_the_evaluator_reports_and_ablations_name_no_system_and_no_phase_of_networks() -> None:
    from flowkit.model.settings.network_config import STREAMS
    from flowkit.model.systems.registry import PHASES, SVM_PHASES, SYSTEMS

    names = {*PHASES, *SVM_PHASES, *SYSTEMS} - {*STREAMS}  # a stream is an input
    allowed = {"model/ablation/variants.py"}  # variants of ST-ResNet are data about its phases
    for folder in ("training", "evaluation", "report", "ablation", "scoring", "runs", "compute"):
        for path in sorted((ROOT / "model" / folder).glob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            documentation = {
                id(node.body[0].value)
                for node in ast.walk(tree)
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body and isinstance(node.body[0], ast.Expr)
            }
            texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
            named = {node.value for node in texts if id(node) not in documentation and node.value in names}
            assert not named or path.relative_to(ROOT).as_posix() in allowed, f"{path} names {named}"
