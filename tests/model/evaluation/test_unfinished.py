"""An evaluation that is stopped goes on where it was, and uses no score of other weights, data or settings."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from command_lines import run_flowkit
from drawn_scores import drawn_scores
from training_runs import share_root

from flowkit.dataset.manifest import write_split
from flowkit.dataset.root import Dataset
from flowkit.model.compute.execution import Execution
from flowkit.model.evaluation.protocol import evaluate
from flowkit.model.evaluation.unfinished import UnfinishedScores, remove_unfinished
from flowkit.model.runs.checkpoint import load_checkpoint, save_weights
from flowkit.model.scoring import tested_networks as scoring

CPU = Execution(device="cpu")


@pytest.fixture
def root(undisturbed: tuple[Path, list[Any]], tmp_path: Path) -> Path:
    """A data root with a trained run."""
    return share_root(undisturbed[0], tmp_path / "data", "runs")


def note_videos(monkeypatch: pytest.MonkeyPatch, score: Any) -> list[str]:
    """Return a list of the videos that `score` scores. If it holds "stop", the evaluation is interrupted at its fourth video."""
    videos: list[str] = []

    def noted(self: scoring.TestedNetworks, clips: Any) -> Any:
        if "stop" in videos and len(videos) == 4:
            raise KeyboardInterrupt
        videos.extend(clip.video_id for clip in clips)
        return score(self, clips)

    monkeypatch.setattr(scoring.TestedNetworks, "score", noted)
    return videos


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The videos that are scored, by a stand-in for the networks."""
    return note_videos(monkeypatch, drawn_scores)


def command(root: Path, *options: object) -> Any:
    return run_flowkit("evaluate", "--data", root, "--device", "cpu", "--no-report", *options)


def interrupt(root: Path, scored: list[str], *options: object) -> None:
    """Stop an evaluation after three of its six videos."""
    scored[:] = ["stop"]
    ended = command(root, *options)
    assert ended.code == 130
    assert "to resume: flowkit evaluate" in ended.err
    assert len(scored) == 4
    scored.clear()


def folder(root: Path) -> Path:
    return root / "reports" / "default" / "split1"


def arrays(path: Path) -> dict[str, Any]:
    """Return what a file of scores holds."""
    found = {}
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def test_the_same_command_scores_only_what_is_missing_and_ends_with_the_same_numbers(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scored = note_videos(monkeypatch, scoring.TestedNetworks.score)
    for phase in ("motion", "st-resnet-star"):  # a network of either kind is enough
        shutil.rmtree(root / "runs" / "default" / "split1" / phase)
    assert command(root, "--output", tmp_path / "whole").code == 0
    interrupt(root, scored)
    assert [path.name for path in folder(root).iterdir()] == ["unfinished-scores-0.bin"]
    ended = command(root)
    assert ended.code == 0
    assert len(scored) == 3
    assert "3 videos were scored by an earlier call that was interrupted" in ended.err
    one, other = arrays(tmp_path / "whole" / "scores.h5"), arrays(folder(root) / "scores.h5")
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert sorted(path.name for path in folder(root).iterdir()) == [
        "per_class.csv",
        "per_video.csv",
        "results.json",
        "scores.h5",
        "table.md",
    ]


def test_scores_serve_another_fusion_and_a_finished_evaluation_keeps_nothing_for_the_next_one(root: Path, scored: list[str]) -> None:
    interrupt(root, scored)
    assert command(root, "--fusion-weights", "1,3").code == 0
    assert len(scored) == 3
    scored.clear()
    assert command(root).code == 0
    assert len(scored) == 6


def test_scores_serve_no_other_weights(root: Path, scored: list[str]) -> None:
    interrupt(root, scored)
    path = root / "runs" / "default" / "split1" / "motion" / "weights.safetensors"
    checkpoint = load_checkpoint(path)
    next(tensor for name, tensor in checkpoint.network.items() if name.endswith("fc.bias"))[0] += 1
    (path.parent / "digests.json").unlink()
    save_weights(path, checkpoint)
    assert command(root).code == 0
    assert len(scored) == 6


def test_scores_serve_no_other_set_of_networks(root: Path, scored: list[str]) -> None:
    interrupt(root, scored)
    shutil.rmtree(root / "runs" / "default" / "split1" / "st-resnet-star")
    assert command(root).code == 0
    assert len(scored) == 6


def test_scores_serve_no_other_data(root: Path, scored: list[str]) -> None:
    interrupt(root, scored)
    split = Dataset.open(root).split(1)
    for path in (root / "splits" / "split1").iterdir():
        path.unlink()  # they are links to the files of other tests
    keys = ("protocol", "classes", "train", "num_listed_train", "num_listed_test", "quantiser", "shards")
    contents: dict[str, Any] = {key: getattr(split, key) for key in keys}
    write_split(root, 1, test=split.test[1:], **contents)
    assert command(root, "--force").code == 0
    assert len(scored) == 5


@pytest.mark.slow
def test_scores_serve_no_other_precision_and_no_other_number_of_threads(root: Path, scored: list[str]) -> None:
    interrupt(root, scored)
    assert command(root, "--amp", "bf16").code == 0
    assert len(scored) == 6
    interrupt(root, scored)
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        assert command(root).code == 0
    finally:
        torch.set_num_threads(before)
    assert len(scored) == 6


def test_a_record_that_is_cut_off_or_damaged_is_computed_again(root: Path, scored: list[str], tmp_path: Path) -> None:
    assert command(root, "--output", tmp_path / "whole").code == 0
    interrupt(root, scored)
    path = folder(root) / "unfinished-scores-0.bin"
    data = bytearray(path.read_bytes())
    data[data.index(b"\n") + 20] ^= 1  # in the scores of the first video
    path.write_bytes(data[:-5])  # and the third is cut off
    assert command(root).code == 0
    assert len(scored) == 5
    one, other = arrays(tmp_path / "whole" / "scores.h5"), arrays(folder(root) / "scores.h5")
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_videos_are_appended_after_the_last_complete_record(root: Path, scored: list[str]) -> None:
    interrupt(root, scored)
    path = folder(root) / "unfinished-scores-0.bin"
    path.write_bytes(path.read_bytes()[:-5])
    scored[:] = ["stop", "", ""]
    assert command(root).code == 130  # after one more
    scored.clear()
    assert command(root).code == 0
    assert len(scored) == 3


def test_a_foreign_or_huge_file_of_that_name_is_replaced(root: Path, scored: list[str], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"of the user")
    folder(root).mkdir(parents=True)
    path = folder(root) / "unfinished-scores-0.bin"
    path.symlink_to(other)
    interrupt(root, scored)
    assert other.read_bytes() == b"of the user"
    with path.open("ab") as file:
        file.truncate(1 << 40)  # takes no room on the disk
    assert command(root).code == 0
    assert len(scored) == 6


def test_a_full_disk_does_not_stop_the_evaluation(root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def full(self: UnfinishedScores) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(UnfinishedScores, "_open", full)
    evaluation = evaluate(root, execution=CPU, progress=False, keep_scores_in=lambda number: root / "kept")
    assert len(evaluation.splits[0].video_ids) == 6
    assert [record.getMessage() for record in caplog.records if "cannot be kept" in record.getMessage()] == [
        "an interrupted evaluation could not go on later: its scores cannot be kept (No space left on device)"
    ]


def test_each_process_writes_a_file_of_its_own_and_reads_all_of_them(root: Path, tmp_path: Path) -> None:
    split = Dataset.open(root).split(1)
    streams = [("appearance", "appearance"), ("motion", "motion")]

    def unfinished(rank: int, **settings: Any) -> UnfinishedScores:
        return UnfinishedScores(tmp_path / "kept", split, {"appearance": "a", "motion": "b"}, settings, parts=streams, rank=rank)

    scores: dict[str, Any] = {
        record.video_id: {part: np.full(len(split.classes), index + 0.1) for part in streams} for index, record in enumerate(split.test)
    }
    names = list(scores)
    for rank in (0, 1):
        with unfinished(rank) as own:
            own.add({name: scores[name] for name in names[rank:4:2]})
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["unfinished-scores-0.bin", "unfinished-scores-1.bin"]
    with unfinished(0) as both:
        kept: Any = both.read()
        assert sorted(kept) == sorted(names[:4])
        assert all(np.array_equal(kept[name][part], scores[name][part]) for name in kept for part in streams)
    assert unfinished(0, amp="bf16").read() == {}
    remove_unfinished(tmp_path / "kept")
    assert not list((tmp_path / "kept").iterdir())
