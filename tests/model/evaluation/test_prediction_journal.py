"""The results that `flowkit predict --output` keeps until the output is written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from flowkit.errors import BusyError
from flowkit.model.evaluation.prediction.journal import PredictionJournal


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "a.avi"
    path.write_bytes(b"a video")
    return path


@pytest.fixture
def kept(tmp_path: Path, video: Path) -> Path:
    """A journal with two results, whose last line a kill has cut off."""
    output = tmp_path / "out.json"
    with PredictionJournal(output, {"network": 1}) as journal:
        journal.add(video, 0, {"class": "run"})
        journal.add(video, 1, {"class": "walk"})
    with unfinished(output).open("ab") as file:
        file.write(b'{"path": ')
    return output


def unfinished(output: Path) -> Path:
    return output.with_name(".out.json.unfinished")


def test_results_are_kept_from_call_to_call(kept: Path, video: Path) -> None:
    for _ in range(2):
        with PredictionJournal(kept, {"network": 1}) as journal:
            assert journal.results(video) == {0: {"class": "run"}, 1: {"class": "walk"}}
    with PredictionJournal(kept, {"network": 2}) as journal:
        assert journal.results(video) == {}


def test_a_disk_that_is_full_when_the_journal_is_opened_again_loses_no_result(
    kept: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left") as error, PredictionJournal(kept, {"network": 1}):
            pass
    assert error.value.filename == str(unfinished(kept))
    with PredictionJournal(kept, {"network": 1}) as journal:
        assert len(journal.results(video)) == 2
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left") as error:
            journal.add(video, 2, {"class": "run"})
    assert error.value.filename == str(unfinished(kept))


def test_two_commands_do_not_keep_their_results_in_one_file(kept: Path, video: Path) -> None:
    with PredictionJournal(kept, {"network": 1}) as journal:
        with pytest.raises(BusyError, match=r"writes predictions to .*/out\.json'"), PredictionJournal(kept, {"network": 1}):
            pass
        journal.add(video, 2, {"class": "run"})
    with PredictionJournal(kept, {"network": 1}) as journal:
        assert len(journal.results(video)) == 3
        journal.remove()
    assert os.listdir(kept.parent) == [video.name]
