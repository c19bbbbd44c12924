"""An earlier evaluation is not lost: not to videos that cannot be scored, not to a full disk, not to an interruption."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_lines import run_flowkit
from drawn_scores import drawn_scores
from training_runs import share_root

from flowkit.dataset.manifest import write_split
from flowkit.dataset.root import Dataset
from flowkit.errors import ManifestError
from flowkit.model.data.whole_videos import Unreadable, WholeClipDataset
from flowkit.model.evaluation.earlier import failure_lines, lost_videos, scored_before
from flowkit.model.evaluation.results import read_results
from flowkit.model.scoring import tested_networks as scoring


@pytest.fixture(scope="module", autouse=True)
def stand_in() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring.TestedNetworks, "score", drawn_scores)
        yield


@pytest.fixture(scope="module")
def evaluated(undisturbed: tuple[Path, list[Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a trained run and its evaluation. Treat it as read-only."""
    path = share_root(undisturbed[0], tmp_path_factory.mktemp("evaluated"), "runs")
    assert run_flowkit("evaluate", "--data", path, "--device", "cpu").code == 0
    return path


@pytest.fixture
def root(evaluated: Path, tmp_path: Path) -> Path:
    """A data root with a trained run, and its evaluation in reports/default/split1."""
    return share_root(evaluated, tmp_path / "data", "runs", "reports")


def evaluate(root: Path, *options: object) -> Any:
    """Evaluate without pictures, which take most of the time."""
    return run_flowkit("evaluate", "--data", root, "--device", "cpu", "--no-report", *options)


def files(root: Path) -> dict[str, bytes]:
    folder = root / "reports" / "default" / "split1"
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def spoilt(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Videos that can no longer be read; a test adds to them."""
    names: set[str] = set()
    read = WholeClipDataset._read

    def failing(self: WholeClipDataset, index: int) -> Any:
        record = self._clips.records[index]
        if record.video_id in names:
            raise OSError(5, "Input/output error", f"shards/{record.shard}")
        return read(self, index)

    monkeypatch.setattr(WholeClipDataset, "_read", failing)
    return names


@pytest.mark.slow
def test_an_evaluation_that_loses_videos_half_way_replaces_nothing(root: Path, spoilt: set[str], tmp_path: Path) -> None:
    before = files(root)
    assert "report.html" in before
    tested = [record.video_id for record in Dataset.open(root).split(1).test]
    spoilt |= {*tested[2:5]}
    ended = evaluate(root)
    assert ended.code == 3
    assert files(root) == before
    assert "scored 3 videos" in ended.err
    assert "could not be scored now" in ended.err
    assert "--replace" in ended.err
    assert "/3 " in ended.out  # the table of those that could be scored is printed
    assert ended.err.count("Input/output error") == 1  # one line for one kind of failure
    assert "3 videos could not be scored" in ended.err
    assert "Results in" not in ended.err
    assert evaluate(root, "--output", tmp_path / "beside").code == 3
    assert files(root) == before
    assert json.loads((tmp_path / "beside" / "results.json").read_text())["num_scored"] == 3
    assert evaluate(root, "--replace").code == 3
    assert json.loads(files(root)["results.json"])["num_scored"] == 3
    spoilt.clear()
    assert evaluate(root).code == 0  # every video that was scored before can be scored
    assert json.loads(files(root)["results.json"])["num_scored"] == 6


def test_an_evaluation_that_lacks_rows_of_the_earlier_one_replaces_nothing(root: Path) -> None:
    before = files(root)
    (root / "runs" / "default" / "split1" / "motion" / "weights.safetensors").unlink()
    ended = evaluate(root)
    assert ended.code == 1
    assert files(root) == before
    assert "has motion, two-streams, for which no trained network was found now" in ended.err
    assert evaluate(root, "--replace").code == 0
    assert "motion" not in json.loads(files(root)["results.json"])["rows"]


def test_an_evaluation_of_nothing_is_not_written(root: Path, spoilt: set[str]) -> None:
    shutil.rmtree(root / "reports")
    spoilt |= {record.video_id for record in Dataset.open(root).split(1).test}
    ended = evaluate(root)
    assert ended.code == 3
    assert "no video could be scored; nothing was written" in ended.err
    assert not (root / "reports").exists()
    assert evaluate(root, "--replace").code == 3
    assert not (root / "reports").exists()


def test_some_videos_are_stored_where_nothing_was_before(root: Path, spoilt: set[str]) -> None:
    shutil.rmtree(root / "reports")
    spoilt |= {Dataset.open(root).split(1).test[0].video_id}
    assert evaluate(root).code == 3
    assert json.loads(files(root)["results.json"])["num_scored"] == 5


def test_videos_that_left_the_split_are_found_before_any_work(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(root)
    split = Dataset.open(root).split(1)
    for path in (root / "splits" / "split1").iterdir():
        path.unlink()  # they are links to the files of other tests
    contents: dict[str, Any] = {key: getattr(split, key) for key in SPLIT_KEYS}
    write_split(root, 1, test=split.test[1:], **contents)
    monkeypatch.setattr(WholeClipDataset, "_read", lambda self, index: pytest.fail("a video was read"))
    ended = evaluate(root, "--force")
    assert ended.code == 1
    assert f"scored 1 video ({split.test[0].video_id}) that split 1 no longer has" in ended.err
    assert files(root) == before
    monkeypatch.undo()
    assert evaluate(root, "--force", "--replace").code == 0
    assert json.loads(files(root)["results.json"])["num_scored"] == 5


SPLIT_KEYS = {"protocol", "classes", "train", "num_listed_train", "num_listed_test", "quantiser", "shards"}


def full_disk(name: str) -> Any:
    """Return a function that fails to write a file of this name as on a full disk."""
    write_bytes = Path.write_bytes

    def failing(self: Path, data: Any) -> int:
        if self.name.startswith(name) and "reports" in self.parts:
            raise OSError(28, "No space left on device", str(self))
        return write_bytes(self, data)

    return failing


@pytest.mark.parametrize("name", ["results.json", "table.md", "per_class.csv", "per_video.csv"])
def test_a_full_disk_leaves_the_earlier_files_and_loses_no_score(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    before = files(root)
    monkeypatch.setattr(Path, "write_bytes", full_disk(name))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ended = evaluate(root, "--fusion-weights", "1,3")
    assert ended.code == 1
    assert files(root) == before
    assert "No space left on device" in ended.err
    (other,) = tmp_path.glob("flowkit-evaluation-split1-*")
    assert str(other) in ended.err
    assert read_results(other).weights == (1.0, 3.0)
    assert "| ST-ResNet*" in ended.out


def test_files_of_two_evaluations_are_told_apart(root: Path, tmp_path: Path) -> None:
    assert evaluate(root, "--fusion-weights", "1,1.0000001", "--output", tmp_path / "other", "--no-report").code == 0
    folder = root / "reports" / "default" / "split1"
    read_results(folder)
    shutil.copy(tmp_path / "other" / "scores.h5", folder)
    with pytest.raises(ManifestError, match="not of the same test"):
        read_results(folder)


def test_results_without_the_digest_of_their_scores_are_read_as_before(root: Path) -> None:
    path = root / "reports" / "default" / "split1" / "results.json"
    record = json.loads(path.read_text())
    del record["scores_sha256"]
    path.write_text(json.dumps(record))
    assert len(read_results(path.parent).splits[0].video_ids) == 6


def test_a_damaged_evaluation_does_not_stand_in_the_way(root: Path) -> None:
    folder = root / "reports" / "default" / "split1"
    (folder / "scores.h5").write_bytes(b"damaged")
    assert scored_before(folder) == frozenset()
    assert evaluate(root).code == 0
    assert len(scored_before(folder)) == 6
    first, *others = scored_before(folder)
    assert lost_videos(folder, others) == [first]


def test_failures_are_grouped_by_kind() -> None:
    failed = [Unreadable(f"a/v{k}", f"shards/shard-0000{k}.h5: frame {k} of 'a/v{k}' is damaged: its CRC does not match") for k in range(5)]
    failed.append(Unreadable("b/w", "its scores are not finite numbers"))
    assert failure_lines(failed) == [
        "5 videos could not be scored (a/v0, a/v1, a/v2 and 2 more): shards/shard-00000.h5: frame 0 of 'a/v0' is damaged: its CRC does not "
        "match",
        "1 video could not be scored (b/w): its scores are not finite numbers",
    ]
    assert failure_lines([]) == []


@pytest.mark.parametrize(
    "options",
    [
        ["--redraw", "--fusion", "softmax_mean"],
        ["--redraw", "--amp", "bf16"],
        ["--redraw", "--workers", 1],
        ["--redraw", "--force"],
        ["--redraw", "--replace"],
        ["--checkpoint", "runs/default/split1/motion", "--run", "x"],
        ["--checkpoint", "runs/default/split1/motion", "--replace"],
        ["--checkpoint", "runs/default/split1/motion", "--no-report"],
    ],
)
def test_options_that_would_do_nothing_are_refused(root: Path, options: list[Any]) -> None:
    before = files(root)
    options = [root / option if str(option).startswith("runs/") else option for option in options]
    ended = run_flowkit("evaluate", "--data", root, *options)
    assert ended.code == 2
    assert "would do nothing here" in ended.err
    assert files(root) == before
