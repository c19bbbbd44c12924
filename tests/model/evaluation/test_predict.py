"""Predicting: the scores of `evaluate` for the same video, with the extraction of the training, on any file; failures said."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import harmful_videos
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from command_lines import call_flowkit
from phases import ROWS
from random_networks import random_checkpoints
from textures import moving_blocks
from training_runs import copy_phases

from flowkit.cli.main import flowkit
from flowkit.dataset.packing import pack
from flowkit.dataset.root import Dataset, open_root
from flowkit.dataset.settings import ExtractSettings
from flowkit.demo_videos import write_video
from flowkit.errors import CheckpointError, DeviceError, ManifestError, ParameterError
from flowkit.extraction.jobs import VideoJob
from flowkit.extraction.one_video import extract_task
from flowkit.flow.params import TVL1Params
from flowkit.model.compute.execution import Execution
from flowkit.model.data.sampling import protocol_centres
from flowkit.model.evaluation.prediction import predictor as predict_module
from flowkit.model.evaluation.prediction.predictor import Predictor
from flowkit.model.evaluation.protocol import evaluate
from flowkit.model.evaluation.trained_row import find_row, row_of
from flowkit.model.runs.checkpoint import load_checkpoint, save_weights
from flowkit.model.runs.provenance import Provenance
from flowkit.model.runs.recorded_extraction import extraction_of, with_solver
from flowkit.model.runs.run_folder import PhaseFolder, phase_folder
from flowkit.model.scoring.metrics import softmax
from flowkit.model.training.chain import train
from flowkit.quantise import Quantiser

CPU = Execution(device="cpu")
SETTINGS = ExtractSettings(
    "opencv",
    TVL1Params(num_warps=2, inner_iterations=10, outer_iterations=2),
    "strict",
    Quantiser(6.0, "paper"),
    short_side=40,
    codec="jpeg",
)
LENGTHS = {"walk/a": 34, "walk/b": 11, "run/a": 90, "run/b": 13}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder with videos/ and a packed data root, all videos in the test list but one, and random networks of all phases."""
    home = tmp_path_factory.mktemp("home")
    root = home / "data"
    open_root(root, home / "videos", SETTINGS)
    for seed, (video_id, num_frames) in enumerate(LENGTHS.items()):
        path = home / "videos" / f"{video_id}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, moving_blocks(num_frames, seed), frame_rate=25)
        job = VideoJob(video_id, path, video_id.split("/")[0], root, SETTINGS, path.stat().st_size, 0)
        progress = SimpleNamespace(stopping=False, note=lambda *_: None, alive=lambda: None)
        assert extract_task(job, progress).video.status == "ok"
    (home / "list.csv").write_text(
        "video_id,class_name,subset\n"
        + "".join(f"{name},{name.split('/')[0]},{'train' if name == 'run/b' else 'test'}\n" for name in LENGTHS)
    )
    pack(root, split=1, lists=home / "list.csv")
    split = Dataset.open(root).split(1)
    told = {"quantiser": split.quantiser.to_dict(), "protocol": split.protocol, "digest": split.digest, "extraction": stored(SETTINGS)}
    for phase, checkpoint in random_checkpoints(split.classes, **told).items():
        save_weights(phase_folder(root, "default", 1, phase) / "weights.safetensors", checkpoint)
    return home


def stored(settings: Any) -> dict[Any, Any]:
    return {"short_side": settings.short_side, "tvl1": settings.tvl1.to_dict(), "solver": settings.solver, "codec": settings.codec}


def predictor(row: Any, settings: Any = SETTINGS) -> Any:
    return Predictor(row, settings=settings, execution=CPU, num_threads=2)


@pytest.fixture(scope="module")
def evaluation(home: Any) -> Any:
    return evaluate(home / "data", execution=CPU).splits[0]


def test_progress_ends_with_all_flow_fields(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Predictor.open(home / "data", device="cpu").predict(home / "videos" / "walk" / "a.avi", progress=True)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("predict: ")]
    assert line.startswith("predict: 33/33 flow fields in ")
    assert line.endswith(", a.avi")


@pytest.mark.parametrize("row", [pytest.param(row, marks=pytest.mark.slow if row in ("motion", "ST-ResNet") else ()) for row in ROWS])
def test_scores_are_exactly_those_of_evaluate(home: Any, evaluation: Any, row: Any) -> None:
    ours = predictor(find_row(home / "data", row=row))
    for place, video_id in enumerate(evaluation.video_ids):
        prediction = ours.predict(home / "videos" / f"{video_id}.avi")
        assert (prediction.status, prediction.num_frames) == ("ok", LENGTHS[video_id])
        assert np.array_equal(prediction.scores["fused"], evaluation.rows[row].scores[place])
        for phase, stream in ROWS[row]:
            assert np.array_equal(prediction.scores[stream], evaluation.stream_scores[phase, stream][place])


def test_streams_are_joined_with_the_weights_that_evaluate_was_given(home: Any, tmp_path: Path) -> None:
    root, video = home / "data", home / "videos" / "run" / "a.avi"
    tested = evaluate(root, weights=(1.0, 3.0), execution=CPU).splits[0]
    for row in ("two-streams", "ST-ResNet*"):
        prediction = Predictor(find_row(root, row=row), settings=SETTINGS, execution=CPU, weights=(1.0, 3.0)).predict(video)
        assert np.array_equal(prediction.scores["fused"], tested.rows[row].scores[tested.video_ids.index("run/a")])
    line = ["predict", video, "--data", root, "--row", "two-streams", "--device", "cpu", "--json"]
    one, other = (json.loads(call_flowkit(*line, "--fusion-weights", weights).out)["videos"][0]["top"] for weights in ("1,0", "0,1"))
    assert all(entry["probability"] == entry["by_stream"]["appearance"] for entry in one)
    assert all(entry["probability"] == entry["by_stream"]["motion"] for entry in other)


def test_impossible_weights_are_refused(home: Any) -> None:
    with pytest.raises(ParameterError, match="rows that join two streams, and motion is one stream"):
        Predictor(find_row(home / "data", row="motion"), settings=SETTINGS, execution=CPU, weights=(1.0, 2.0))
    with pytest.raises(ParameterError, match="fusion needs 2 weights"):
        Predictor(find_row(home / "data"), settings=SETTINGS, execution=CPU, weights=(1.0, -2.0))
    with pytest.raises(click.UsageError, match="--fusion-weights takes numbers joined by commas, got 'auto'"):
        call_flowkit("predict", home / "videos" / "run" / "a.avi", "--data", home / "data", "--fusion-weights", "auto")


def test_a_lone_weights_file_predicts_the_same_away_from_its_data_root(home: Any, evaluation: Any, tmp_path: Path) -> None:
    shutil.copy(phase_folder(home / "data", "default", 1, "st-resnet") / "weights.safetensors", tmp_path / "mine.safetensors")
    shutil.copy(home / "videos" / "run" / "a.avi", tmp_path)
    row = row_of(tmp_path / "mine.safetensors")
    assert row.name == "ST-ResNet"
    settings, note = extraction_of(row.provenance, None)
    assert (replace(settings, preset="opencv"), note) == (SETTINGS, "")
    prediction = predictor(row, settings).predict(tmp_path / "a.avi")
    place = evaluation.video_ids.index("run/a")
    assert np.array_equal(prediction.scores["fused"], evaluation.rows["ST-ResNet"].scores[place])


def test_a_video_that_crashes_the_decoder_has_no_scores_and_the_next_one_has(
    home: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowkit.workers.processes._kept", [])  # processes that would not see the next line
    monkeypatch.setenv("PYTHONPATH", harmful_videos.environment(tmp_path / "custom")["PYTHONPATH"])
    for name in ("crash", "good"):
        shutil.copy(home / "videos" / "run" / "a.avi", tmp_path / f"{name}.avi")
    ours = predictor(find_row(home / "data"))
    crashed, good = (ours.predict(tmp_path / f"{name}.avi") for name in ("crash", "good"))
    assert (crashed.status, crashed.scores) == ("undecodable", {})
    assert "killed twice" in crashed.error
    assert good.status == "ok"


@pytest.mark.slow
def test_a_video_that_changes_while_it_is_read_has_no_scores(home: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.avi"
    shutil.copy(home / "videos" / "run" / "a.avi", path)
    count = predict_module.count_frames

    def replaced_after_counting(*args: Any, **kwargs: Any) -> Any:
        result = count(*args, **kwargs)
        shutil.copy(home / "videos" / "walk" / "a.avi", path)
        return result

    ours = predictor(find_row(home / "data"))
    with monkeypatch.context() as patch:
        patch.setattr(predict_module, "count_frames", replaced_after_counting)
        prediction = ours.predict(path)
    assert (prediction.status, prediction.scores) == ("failed", {})
    assert ours.predict(path).status == "ok"


def test_top_classes_are_sorted_by_the_fused_probability(home: Any) -> None:
    ours = predictor(find_row(home / "data"))
    prediction = ours.predict(home / "videos" / "run" / "a.avi")
    classes = prediction.top_classes(9)
    assert sorted(name for name, _ in classes) == ["run", "walk"]
    assert classes[0][1]["fused"] >= classes[1][1]["fused"]
    assert sum(shares["fused"] for _, shares in classes) == pytest.approx(1)
    for name, shares in classes:
        for stream in ("appearance", "motion", "fused"):
            assert shares[stream] == softmax(prediction.scores[stream])[ours.classes.index(name)]
    assert len(prediction.top_classes(1)) == 1
    assert list(prediction.probabilities.items()) == [(name, shares["fused"]) for name, shares in classes]
    (first, one), (second, two) = classes
    assert repr(prediction).endswith(f"run/a.avi': {first!r} {100 * one['fused']:.1f} %, {second!r} {100 * two['fused']:.1f} %>")


def test_the_default_row_is_the_last_that_is_trained(home: Any, tmp_path: Path) -> None:
    assert find_row(home / "data").name == "ST-ResNet*"
    for phases, row in (
        (["appearance"], "appearance"),
        (["motion", "appearance"], "two-streams"),
        (["appearance", "st-resnet"], "ST-ResNet"),
    ):
        root = tmp_path / row
        copy_phases(home / "data", root, *phases)
        assert find_row(root).name == row
    with pytest.raises(CheckpointError, match="no trained motion"):
        find_row(tmp_path / "ST-ResNet", row="two-streams")
    (tmp_path / "none").mkdir()
    shutil.copy(home / "data" / "dataset.json", tmp_path / "none")
    with pytest.raises(CheckpointError, match="nothing is trained"):
        find_row(tmp_path / "none")
    with pytest.raises(ManifestError, match="is not a data root"):
        find_row(tmp_path)
    with pytest.raises(ParameterError, match="row must be one of"):
        find_row(home / "data", row="IDT")


def test_networks_of_different_data_are_not_put_together(home: Any, tmp_path: Path) -> None:
    shutil.copytree(home / "data" / "runs", tmp_path / "runs")
    folder = phase_folder(tmp_path, "default", 1, "motion")
    checkpoint = load_checkpoint(folder)
    save_weights(folder / "weights.safetensors", replace(checkpoint, provenance=replace(checkpoint.provenance, digest="cd" * 32)))
    with pytest.raises(CheckpointError, match="trained on different data"):
        find_row(tmp_path, row="two-streams")
    assert find_row(tmp_path).name == "ST-ResNet*"


def told(**changes: Any) -> Any:
    (checkpoint,) = [c for phase, c in random_checkpoints(("a", "b"), extraction=stored(SETTINGS)).items() if phase == "motion"]
    return replace(checkpoint.provenance, **changes)


def test_weights_from_before_it_was_recorded_take_the_data_root_s_settings_or_the_defaults_and_say_so(home: Any) -> None:
    old = told(extraction={}, quantiser=SETTINGS.quantiser.to_dict())
    settings, note = extraction_of(old, home / "data")
    assert settings == SETTINGS
    assert "from before flowkit recorded" in note
    assert f"the settings of {home / 'data'}" in note
    for root in (None, home):
        settings, note = extraction_of(old, root)
        assert settings == ExtractSettings(quantiser=SETTINGS.quantiser)
        assert "the defaults (TV-L1 opencv, short side 256 px)" in note
    settings, note = extraction_of(replace(old, quantiser=Quantiser(20.0).to_dict()), home / "data")  # another root's
    assert settings == ExtractSettings()


@pytest.mark.parametrize(("tool", "preset"), [("gpu_flow", "paper"), ("dense_flow", "denseflow"), ("denseflow", "denseflow")])
def test_flow_of_another_tool_is_replaced_by_the_nearest_preset_and_that_is_said(tool: str, preset: str) -> None:
    settings, note = extraction_of(told(extraction={"short_side": 240, "tvl1": {}, "solver": tool, "codec": "jpeg"}), None)
    assert (settings.preset, settings.tvl1, settings.solver) == (preset, TVL1Params.preset(preset), "strict")
    assert (settings.short_side, settings.codec) == (240, "jpeg")
    assert tool in note
    assert preset in note


@pytest.mark.parametrize(
    "change",
    [{"short_side": 8}, {"short_side": "x"}, {"solver": "magic"}, {"codec": 3}, {"tvl1": {"tau": -1}}, {"tvl1": {"rho": 1}}, {"tvl1": 5}],
)
def test_an_extraction_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="the extraction that the weights record is impossible"):
        extraction_of(told(extraction=stored(SETTINGS) | change), None)
    with pytest.raises(CheckpointError, match="the extraction that the weights record is impossible"):
        extraction_of(told(extraction={"short_side": 64}), None)


def test_training_records_the_extraction_and_old_runs_go_on(home: Any, tmp_path: Path) -> None:
    for name in ("shards", "splits"):
        shutil.copytree(home / "data" / name, tmp_path / name)
    shutil.copy(home / "data" / "dataset.json", tmp_path)
    tiny = {"base_width": 4, "input_size": 32, "batch": 2, "bn_group": 2, "steps": 1}
    train(tmp_path, phases=["motion"], overrides=tiny, execution=CPU)
    folder = PhaseFolder(phase_folder(tmp_path, "default", 1, "motion"))
    provenance = load_checkpoint(folder.path).provenance
    assert provenance.extraction == stored(SETTINGS)
    settings, note = extraction_of(provenance, None)
    assert (replace(settings, preset="opencv"), note) == (SETTINGS, "")

    old = {key: value for key, value in provenance.to_dict().items() if key != "extraction"}  # as an earlier flowkit wrote it
    assert Provenance.from_dict(old) == replace(provenance, extraction={})
    assert Provenance.from_dict(old).differences(provenance) == provenance.differences(Provenance.from_dict(old)) == []
    changed = replace(provenance, extraction=provenance.extraction | {"short_side": 64})
    assert provenance.differences(changed) == ["extraction.short_side is 40, now 64"]
    checkpoint = load_checkpoint(folder.path)
    (folder.path / "digests.json").unlink()
    save_weights(folder.path / "weights.safetensors", replace(checkpoint, provenance=Provenance.from_dict(old)))
    assert train(tmp_path, phases=["motion"], overrides=tiny, execution=CPU).skipped == ("motion",)


command_line = partial(call_flowkit, "predict", code=0)


def test_the_command_prints_a_table_for_each_video(home: Any, evaluation: Any) -> None:
    paths = [home / "videos" / f"{video_id}.avi" for video_id in evaluation.video_ids]
    _, out, err = command_line(*paths, "--data", home / "data")
    for path, scores in zip(paths, evaluation.rows["ST-ResNet*"].scores, strict=True):
        assert f"{path}: " in out
        assert f"{100 * softmax(scores).max():.2f}" in out
    assert out.count("| fused % | appearance % | motion % |") == 3
    assert "predict: ST-ResNet*, 2 classes, on cpu" in err
    assert "TV-L1 opencv (CPU, strict), short side 40 px" in err
    assert "note" not in err


def test_a_folder_stands_for_its_videos(home: Any, tmp_path: Path) -> None:
    folder = home / "videos" / "walk"
    _, out, _ = command_line(folder, "--data", home / "data", "--row", "appearance", "--json")
    assert [video["path"] for video in json.loads(out)["videos"]] == [str(path) for path in sorted(folder.iterdir())]
    with pytest.raises(ManifestError, match="no video found under"):
        command_line(tmp_path, "--data", home / "data")


def test_the_command_s_json_has_everything(home: Any, evaluation: Any) -> None:
    _, out, _ = command_line(home / "videos/run/a.avi", "--data", home / "data", "--row", "two-streams", "--top", 1, "--json")
    told = json.loads(out)
    assert (told["format"], told["format_version"]) == ("flowkit-prediction", 1)
    assert told["row"] == "two-streams"
    assert set(told["weights"]) == {"appearance", "motion"}
    assert told["extraction"]["short_side"] == 40
    (video,) = told["videos"]
    shares = softmax(evaluation.rows["two-streams"].scores[evaluation.video_ids.index("run/a")])
    assert video["top"][0]["probability"] == shares.max()
    assert video["top"][0]["class_name"] == evaluation.classes[shares.argmax()]
    assert set(video["top"][0]["by_stream"]) == {"appearance", "motion"}
    assert (video["status"], video["num_frames"], video["error"]) == ("ok", 90, "")
    assert video["times"] == (protocol_centres(90) / 25).tolist()


def test_videos_that_cannot_be_classified_are_said_and_the_others_are_done(home: Any, tmp_path: Path) -> None:
    write_video(tmp_path / "ten.avi", moving_blocks(10, 1), frame_rate=25)
    write_video(tmp_path / "one.avi", moving_blocks(1, 1), frame_rate=25)
    (tmp_path / "noise\x1b[31m.avi").write_bytes(b"no video" * 9)
    whole = (home / "videos/run/a.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    paths = [tmp_path / name for name in ("ten.avi", "one.avi", "noise\x1b[31m.avi", "cut.avi")]
    arguments = ("--checkpoint", phase_folder(home / "data", "default", 1, "appearance"))
    _, out, err = command_line(*paths, *arguments, code=3)
    assert "ten.avi: short: 10 frames; a stack of flow needs 11" in err
    assert "one.avi: short: only 1 frame could be decoded" in err
    assert "noise\\x1b[31m.avi: undecodable" in err
    assert "\x1b" not in out + err
    assert "cut.avi: damaged: decoded " in err
    assert out.count("| appearance % |") == 1
    _, out, _ = command_line(*paths, *arguments, "--json", code=3)
    assert [(video["status"], len(video["top"])) for video in json.loads(out)["videos"]] == [
        ("short", 0),
        ("short", 0),
        ("undecodable", 0),
        ("damaged", 2),
    ]
    command_line(tmp_path / "cut.avi", *arguments)  # damaged alone is no failure


def test_scores_that_are_no_numbers_are_a_failure_and_not_an_answer(home: Any, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(phase_folder(home / "data", "default", 1, "motion"))
    checkpoint.network["motion.fc.bias"][0] = float("nan")
    save_weights(tmp_path / "broken.safetensors", checkpoint)
    _, out, err = command_line(home / "videos/walk/b.avi", "--checkpoint", tmp_path / "broken.safetensors", code=3)
    assert out == ""
    assert "b.avi: failed: its scores are not finite numbers" in err


def test_another_solver_than_the_training_s_is_said(home: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    video, data = home / "videos/walk/b.avi", ("--data", home / "data")
    _, _, err = command_line(video, *data, "--solver", "fast")
    assert "the flow is from the fast solver, that of the training data from the strict solver" in err

    for gpu, options, trained, expected in (
        (True, ("auto", "cuda:1"), "strict", "cuda"),
        (False, ("auto", "cuda"), "strict", "strict"),
        (True, ("auto", "auto"), "strict", "strict"),
        (True, ("auto", "auto"), "cuda", "cuda"),
        (False, ("auto", "cpu"), "cuda", "strict"),
        (True, ("strict", "cuda"), "cuda", "strict"),
        (True, ("auto", "cpu"), "fast", "fast"),
    ):
        monkeypatch.setattr("flowkit.flow.cuda.device.has_gpu", lambda gpu=gpu: gpu)
        settings, note = with_solver(replace(SETTINGS, solver=trained), *options)
        assert settings.solver == expected
        assert bool(note) == (expected != trained)


def test_a_gpu_solver_that_is_not_there_is_an_error(home: Any) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(DeviceError):
        command_line(home / "videos/walk/b.avi", "--data", home / "data", "--solver", "cuda")


def test_a_row_of_a_lone_checkpoint_is_a_usage_error(home: Any) -> None:
    result = CliRunner().invoke(
        flowkit, ["predict", str(home / "videos/walk/b.avi"), "--checkpoint", str(home / "data"), "--row", "motion"]
    )
    assert result.exit_code == 2
    assert "--row would do nothing here" in result.stderr
