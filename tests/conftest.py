"""What tests share: real data where it is available, skipping with a reason where it is not; hardware marks."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from browser import Browser

# Processes that tests spawn import the tests' own functions; a command that runs in this process drops "" from the path.
sys.path.append(str(Path(__file__).resolve().parents[1]))


_BEFORE_ALL_TESTS = {name: os.environ.get(name) for name in ("PYTHONSAFEPATH", "PYTHONPATH")}


@pytest.fixture(autouse=True)
def import_path_of_this_process() -> Iterator[None]:
    """Undo what a command that runs in this process changes for good: where it and its children look for modules."""
    _restore_variables()  # a fixture of a whole module may have run a command
    path = sys.path[:]
    yield
    sys.path[:] = path
    _restore_variables()


def _restore_variables() -> None:
    for name, value in _BEFORE_ALL_TESTS.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real clips, split lists, flow ground truth and weights, read in place; skips where they are absent."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared/data beside the project (real clips, lists, ground truth, weights)")
    return SHARED


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """Small odd and damaged inputs, read in place; skips where they are absent."""
    if not (SHARED.parent / "cases").is_dir():
        pytest.skip("needs ../shared/cases beside the project (small odd and damaged files)")
    return SHARED.parent / "cases"


@pytest.fixture(scope="session")
def packed_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with one split of tiny generated clips in two shards. Treat it as read-only."""
    from flowkit.dataset.example import example_root

    return example_root(tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="session")
def undisturbed(packed_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A data root in which all four phases were trained in one go, on one thread, and the events of the training. Treat it as read-only."""
    from training_runs import run, share_root

    path = share_root(packed_root, tmp_path_factory.mktemp("undisturbed"))
    _, told = run(path)
    return path, told


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A session of headless Chromium, for the tests that `browser.needs_browser` marks."""
    from browser import Browser

    session = Browser(tmp_path_factory.mktemp("profile"))
    try:
        yield session
    finally:
        session.close()


@pytest.fixture
def root(packed_root: Path, tmp_path: Path) -> Path:
    """A data root for one test, with the shards shared."""
    from training_runs import share_root

    return share_root(packed_root, tmp_path)


@pytest.fixture
def kept_workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Worker processes are kept for the next test that needs the same ones; what they do is the same."""
    from kept_workers import MOST_KEPT, end_kept, keep_workers

    keep_workers(monkeypatch)
    yield
    end_kept(MOST_KEPT)


@pytest.fixture
def seeded() -> None:
    """Networks whose weights are drawn from one seed."""
    import torch

    torch.manual_seed(0)


@pytest.fixture
def float64(seeded: None) -> Iterator[None]:
    """Networks in double precision, drawn from one seed. A test may let torch use more threads."""
    import torch

    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(1)


def pytest_configure() -> None:
    """Let every process compute on one thread, as the test processes share the cores, and hear Ctrl-C as in a terminal.

    torch, NumPy and OpenCV are not loaded yet. A shell that starts the tests in the background lets them ignore SIGINT.
    """
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1")
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # one of several processes: files of few tests first, since those tests tend to be the long ones
        sizes = Counter(item.path for item in items)
        items.sort(key=lambda item: (sizes[item.path], item.path))
    marked = [item for item in items if item.get_closest_marker("needs_cuda")]
    if not marked or _has_cuda():
        return
    if os.environ.get("FLOWKIT_REQUIRE_CUDA"):
        raise pytest.UsageError("FLOWKIT_REQUIRE_CUDA is set, but there is no CUDA device")
    for item in marked:
        item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
