"""What tests share: real data where it is at hand, skipping with a reason where it is not; hardware marks."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real clips, split lists, flow ground truth and weights, read in place; skips where they are absent."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared/data beside the project (real clips, lists, ground truth, weights)")
    return SHARED


@pytest.fixture(scope="session")
def packed_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with one split of tiny made-up clips in two shards: 3 colours x 2 motions, 12 to train and 6 to test.

    Clips are 40x56 px and 11 to 22 frames long; channel ``label // 2`` of the frames is bright, and ``label % 2`` says whether
    the flow's length stays or grows with the column. Treat it as read-only.
    """
    import json

    import numpy as np

    from flowkit.dataset.manifest import ClipRecord, write_split
    from flowkit.quantise import Quantiser
    from flowkit.shards.schema import ClipAttributes
    from flowkit.shards.writer import ClipWriter, write_shard

    root = tmp_path_factory.mktemp("packed")
    quantiser, height, width = Quantiser(), 40, 56
    classes = [f"colour{colour}-motion{motion}" for colour in range(3) for motion in range(2)]
    records: dict[str, list[ClipRecord]] = {"train": [], "test": []}
    files: dict[str, list[Path]] = {}
    for number in range(18):
        draw = np.random.default_rng(number)
        label, subset = number % 6, "train" if number < 12 else "test"
        video_id, num_frames = f"{classes[label]}/v{number:02d}", int(draw.integers(11, 23))
        frames = draw.integers(0, 100, (num_frames, height, width, 3), dtype=np.uint8)
        frames[..., label // 2] += 120
        flow = draw.normal(0, 0.5, (num_frames - 1, 2, height, width))
        flow[:, 1] += 6 * np.linspace(-1, 1, width) if label % 2 else 3
        path = root / "clips" / f"{video_id}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        attributes = ClipAttributes(
            video_id=video_id,
            class_name=classes[label],
            source_name=f"v{number:02d}.mp4",
            source_sha256="",
            frame_rate="25/1",
            num_frames=num_frames,
            header_frames=num_frames,
            decode_errors=0,
            codec="zstd",
            quantiser=quantiser.to_dict(),
            tvl1={},
            solver="strict",
        )
        with ClipWriter(path, height=height, width=width) as writer:
            writer.append_frames(frames)
            writer.append_flow(quantiser.encode(flow))
            writer.finish(attributes)
        shard = f"shard-0000{number % 2}.h5"
        files.setdefault(shard, []).append(path)
        records[subset].append(ClipRecord(video_id, label, classes[label], num_frames, shard))
    (root / "shards").mkdir()
    for shard, paths in files.items():
        write_shard(root / "shards" / shard, paths)
    write_split(
        root,
        1,
        protocol="automatic",
        classes=classes,
        train=records["train"],
        test=records["test"],
        num_listed_train=12,
        num_listed_test=7,
        quantiser=quantiser.to_dict(),
        shards={shard: hashlib.sha256((root / "shards" / shard).read_bytes()).hexdigest() for shard in files},
    )
    (root / "dataset.json").write_text(json.dumps({"format": "flowkit-dataset", "format_version": 1}), encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def undisturbed(packed_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A data root in which all four phases were trained in one go, on one thread, and what was told meanwhile. Treat it as read-only."""
    import torch
    from training_runs import run, share_root

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    path = share_root(packed_root, tmp_path_factory.mktemp("undisturbed"))
    _, told = run(path)
    torch.set_num_threads(before)
    return path, told


@pytest.fixture
def root(packed_root: Path, tmp_path: Path) -> Path:
    """A data root of this test's own, with the shards shared."""
    from training_runs import share_root

    return share_root(packed_root, tmp_path)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread of torch's: results are the same bit for bit, and tiny networks are too small for more."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    _share_processes(items)
    marked = [item for item in items if item.get_closest_marker("needs_cuda")]
    if not marked or _has_cuda():
        return
    if os.environ.get("FLOWKIT_REQUIRE_CUDA"):
        raise pytest.UsageError("FLOWKIT_REQUIRE_CUDA is set, but there is no CUDA device")
    for item in marked:
        item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))


def _share_processes(items: list[pytest.Item]) -> None:
    """Let pytest-xdist run the tests of a file in one process, and all tests of a costly fixture too, unless they name a group."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            costly = [name for name in ("undisturbed",) if name in getattr(item, "fixturenames", ())]
            item.add_marker(pytest.mark.xdist_group((costly or [item.path.stem])[0]))
