"""predict on windows, lists and with an output file: equal to the cut-out part, resumable, and one bad video ends nothing."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from command_lines import run_flowkit
from small_videos import write_video
from training_runs import run as train_run

from flowkit.errors import ParameterError
from flowkit.model import Predictor
from flowkit.model.data.windows_in_time import time_windows
from flowkit.model.evaluation.prediction import predictor as predict_module
from flowkit.model.evaluation.prediction.journal import WHOLE, PredictionJournal
from flowkit.video.decode import read_frames


def test_windows_hold_the_frames_of_their_times_and_the_last_one_reaches_the_end() -> None:
    times = 3 + np.arange(101) / 25  # 4 s
    windows = time_windows(times, seconds=1.5, stride=1)
    assert [(w.start, w.stop) for w in windows] == [(0, 38), (25, 63), (50, 88), (75, 101)]
    assert [w.start_seconds for w in windows] == [3, 4, 5, 6]
    assert windows[-1].end_seconds == 7
    assert [(w.start, w.stop) for w in time_windows(times, seconds=0.5, stride=2)] == [(0, 13), (50, 63), (100, 101)]
    (whole,) = time_windows(times, seconds=60, stride=60)
    assert (whole.start, whole.stop) == (0, 101)
    gap = np.array([0.0, 0.1, 10.0, 10.1])
    assert [(w.number, w.start, w.stop) for w in time_windows(gap, seconds=1, stride=1)] == [(0, 0, 2), (10, 2, 4)]
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ParameterError, match="positive number of seconds"):
            time_windows(times, seconds=wrong, stride=1)
    with pytest.raises(ParameterError, match="windows of"):
        time_windows(times, seconds=1, stride=1e-9)


@pytest.fixture
def trained(root: Path) -> Path:
    train_run(root, phases=["motion"])
    return root


def write_lossless(path: Path, frames: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


def test_a_window_has_the_scores_of_the_cut_out_part(trained: Path, tmp_path: Path) -> None:
    frames = np.concatenate([batch.frames for batch in read_frames(write_video(tmp_path / "made.mkv", 45))])
    path = tmp_path / "long.mkv"
    write_lossless(path, frames)
    predictor = Predictor.open(trained, device="cpu", num_threads=1)
    windows = list(predictor.predict_windows(path, seconds=0.8, stride=0.6, jobs=1, progress=False))
    assert [(p.window.start, p.window.stop) for p in windows if p.window] == [(0, 20), (15, 35), (30, 45)]
    for number, prediction in enumerate(windows):
        assert prediction.window is not None
        part = tmp_path / f"part{number}.mkv"
        write_lossless(part, frames[prediction.window.start : prediction.window.stop])
        seen = np.concatenate([batch.frames for batch in read_frames(part)])
        assert np.array_equal(seen, frames[prediction.window.start : prediction.window.stop])
        alone = predictor.predict(part, progress=False)
        assert np.array_equal(alone.scores["fused"], prediction.scores["fused"])


def test_the_command_resumes_and_lists_a_bad_video(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = write_video(tmp_path / "good.mkv", 30), tmp_path / "bad.mkv"
    bad.write_bytes(b"no video")
    (tmp_path / "list.txt").write_text("# two\nbad.mkv\ngood.mkv\n")
    output = tmp_path / "out" / "windows.csv"
    options = ("predict", tmp_path / "list.txt", "--data", trained, "--window", "0.6", "--jobs", "1", "--device", "cpu", "--output", output)
    done = run_flowkit(*options)
    assert done.code == 3, done.err
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(Path(row["path"]).name, row["status"], row["start_seconds"]) for row in rows] == [
        ("bad.mkv", "undecodable", ""),
        ("good.mkv", "ok", "0.000000"),
        ("good.mkv", "ok", "0.600000"),
    ]
    assert rows[1]["class_1"]
    assert 0 < float(rows[1]["probability_1"]) <= 1
    assert not list(output.parent.glob(".*")), "nothing is left beside the output"
    calls = []
    scored = predict_module.Predictor._scored

    def killed(self: Predictor, prediction: object, clip: object) -> object:
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        return scored(self, prediction, clip)  # type: ignore[arg-type]

    again = (*options[:-1], output.with_suffix(".json"))
    with monkeypatch.context() as patch:
        patch.setattr(predict_module.Predictor, "_scored", killed)
        assert run_flowkit(*again).code == 130
    with monkeypatch.context() as patch:
        calls.clear()
        patch.setattr(predict_module.Predictor, "_scored", lambda self, p, c: calls.append(1) or scored(self, p, c))
        assert run_flowkit(*again).code == 3
    assert len(calls) == 1, "the first window was kept"
    stored = json.loads(output.with_suffix(".json").read_text())
    assert [video["window"]["start"] for video in stored["videos"] if "window" in video] == [0, 15]
    assert good.is_file()


def test_a_folder_of_videos_and_of_folders_of_frames_is_classified(trained: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "videos" / "Run" / "file.mkv", 14)
    folder = tmp_path / "videos" / "Run" / "folder"
    folder.mkdir()
    for k, frame in enumerate(np.concatenate([batch.frames for batch in read_frames(video, short_side=None)])):
        assert cv2.imwrite(str(folder / f"{k}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    done = run_flowkit("predict", tmp_path / "videos", "--data", trained, "--device", "cpu", "--jobs", "1", "--json")
    assert done.code == 0, done.err
    of_file, of_folder = json.loads(done.out)["videos"]
    assert [Path(result["path"]).name for result in (of_file, of_folder)] == ["file.mkv", "folder"]
    assert of_folder["status"] == "ok"
    assert of_folder["top"] == of_file["top"]


def test_a_journal_keeps_results_of_the_same_files_and_settings_only(tmp_path: Path) -> None:
    video, output = tmp_path / "a.mkv", tmp_path / "out.json"
    path = tmp_path / ".out.json.unfinished"
    video.write_bytes(b"1")
    with PredictionJournal(output, {"top": 5}) as journal:
        journal.add(video, 0, {"top": []})
        journal.add(video, WHOLE, {})
    with path.open("a") as file:
        file.write('{"path": "cut o')
    with PredictionJournal(output, {"top": 5}) as journal:
        assert journal.results(video) == {0: {"top": []}, WHOLE: {}}
        video.write_bytes(b"22")
        assert journal.results(video) == {}
    with PredictionJournal(output, {"top": 6}) as journal:
        video.write_bytes(b"1")
        assert journal.results(video) == {}
    journal.remove()
    assert not path.exists()


def test_wrong_options_are_refused_before_the_work(trained: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mkv", 12)
    for options in (("--stride", "1"), ("--output", tmp_path / "a.txt"), ("--window", "0")):
        assert run_flowkit("predict", video, "--data", trained, *options).code == 2
