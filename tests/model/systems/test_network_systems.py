"""Every system of networks passes through the same code: training, resuming, testing, prediction, features, files and other classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_videos import write_video
from tiny_systems import STEPS, network_systems, tiny
from training_runs import same, share_root, weights

from flowkit.dataset.verify import verify
from flowkit.errors import CheckpointError, ParameterError
from flowkit.model.compute.execution import Execution
from flowkit.model.convert.network_files import write_onnx, write_safetensors
from flowkit.model.evaluation.prediction.predictor import Predictor
from flowkit.model.evaluation.protocol import evaluate
from flowkit.model.evaluation.rows import rows_of
from flowkit.model.runs import events
from flowkit.model.runs.checkpoint import load_checkpoint
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.runs.trained_network import load_network
from flowkit.model.scoring.feature_files import FeatureFile
from flowkit.model.scoring.video_features import features
from flowkit.model.settings.network import STResNetConfig
from flowkit.model.systems.configs import make_configs
from flowkit.model.systems.registry import PHASES, SYSTEMS
from flowkit.model.training.chain import train

CPU = Execution(device="cpu", checkpoint_steps=1)


def run(root: Path, system: str, *, stop_after: int | None = None, overrides: Any = None, **settings: Any) -> Any:
    """Train a system with tiny networks; `stop_after` requests a stop after so many steps."""
    done: list[Any] = []
    return train(
        root,
        system=system,
        recipe="small",
        overrides={**tiny(system), **STEPS, **(overrides or {})},
        execution=settings.pop("execution", CPU),
        on_event=lambda event: done.append(event) if isinstance(event, events.StepDone) else None,
        should_stop=lambda: stop_after is not None and len(done) >= stop_after,
        **settings,
    )


@pytest.fixture(scope="module", params=network_systems())
def trained(request: pytest.FixtureRequest, packed_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A system, and a data root in which it was trained in one go. Treat it as read-only."""
    root = share_root(packed_root, tmp_path_factory.mktemp(request.param))
    report = run(root, request.param)
    assert report.trained == SYSTEMS[request.param].networks
    return request.param, root


def test_a_training_that_was_stopped_ends_with_the_same_bits(trained: tuple[str, Path], packed_root: Path, tmp_path: Path) -> None:
    system, undisturbed = trained
    root = share_root(packed_root, tmp_path / "again")
    assert run(root, system, stop_after=2).stopped
    assert run(root, system).trained == SYSTEMS[system].networks
    for phase in SYSTEMS[system].networks:
        assert same(weights(root, phase), weights(undisturbed, phase))
    assert run(root, system).skipped == SYSTEMS[system].networks


def test_groups_that_pass_together_draw_their_own_dropout(trained: tuple[str, Path], packed_root: Path, tmp_path: Path) -> None:
    system, undisturbed = trained
    root = share_root(packed_root, tmp_path / "together")
    run(root, system, execution=replace(CPU, videos_per_pass=4))
    for phase in SYSTEMS[system].networks:
        network = load_checkpoint(phase_folder(root, "default", 1, phase)).provenance.config.network
        if network.has_batch_norm or network.learns_from_features:
            continue  # over a few small maps it magnifies rounding, also of features; the tests of such networks compare groups in float64
        for name, tensor in weights(root, phase).items():
            torch.testing.assert_close(tensor, weights(undisturbed, phase)[name], rtol=1e-4, atol=1e-5)


def test_the_rows_are_those_of_the_system_and_other_readers_get_the_same_scores(trained: tuple[str, Path], tmp_path: Path) -> None:
    system, root = trained
    # Without its SVMs, which are not trained here, a system is tested by the rows of its networks.
    evaluation = evaluate(root, system=None if SYSTEMS[system].svms else system, execution=CPU)
    (split,) = evaluation.splits
    plan = load_checkpoint(phase_folder(root, "default", 1, SYSTEMS[system].networks[0])).provenance.config.network.clip_plan
    assert evaluation.protocol[0].startswith("25 frames a video" if plan is None else f"clips of {plan.length} consecutive frames")
    assert list(split.rows) == rows_of(SYSTEMS[system].networks)
    own = [row.name for row in SYSTEMS[system].rows]
    assert list(split.rows)[-len(own) :] == own  # before them are those of phases that other systems list
    for phase in SYSTEMS[system].networks:
        streams = load_checkpoint(phase_folder(root, "default", 1, phase)).provenance.config.streams
        path = tmp_path / f"{phase}.h5"
        if PHASES[phase].network.learns_from_features:
            (before,) = PHASES[phase].starts_from
            with pytest.raises(ParameterError, match=f"{phase} classifies whole videos by the features of {before}; give --of {before}"):
                features(root, of=phase, output=path, execution=CPU)
            continue
        report = features(root, of=phase, layer="logits", average=True, mirror=True, output=path, execution=CPU)
        assert set(report.streams) == set(streams)
        stored = FeatureFile(path)
        for number, video_id in enumerate(split.video_ids):
            for stream in streams:
                np.testing.assert_allclose(stored.read(video_id).arrays[stream][0], split.stream_scores[phase, stream][number], atol=1e-4)
    assert verify(root) == []


def test_a_network_survives_a_file_and_onnx_computes_the_same_or_is_refused(trained: tuple[str, Path], tmp_path: Path) -> None:
    system, root = trained
    for phase in SYSTEMS[system].networks:
        checkpoint = load_checkpoint(phase_folder(root, "default", 1, phase))
        write_safetensors(tmp_path / "network.safetensors", checkpoint)
        network = load_network(tmp_path / "network.safetensors")
        assert same(network.state_dict(), checkpoint.network)
        if type(checkpoint.provenance.config.network) is STResNetConfig:
            check = write_onnx(tmp_path / f"{phase}.onnx", checkpoint)
            assert check.max_difference <= 1e-4 * max(check.largest_logit, 1)
        else:
            with pytest.raises(ParameterError, match=f"ONNX files are of residual networks only, and {phase} is "):
                write_onnx(tmp_path / "network.onnx", checkpoint)


def test_predict_classifies_a_video_file_as_features_of_it_do(trained: tuple[str, Path], tmp_path: Path) -> None:
    """Two commands that read a video file by code of their own, whatever the network sees of it: frames, stacks or clips."""
    system, root = trained
    video = write_video(tmp_path / "clip.mkv", 24, seed=3)
    for row in SYSTEMS[system].rows:
        prediction = Predictor.open(root, row=row.name, device="cpu").predict(video)
        assert prediction.status == "ok"
        for phase, stream in row.parts:
            if PHASES[phase].network.learns_from_features:  # its own features are refused
                assert np.isfinite(prediction.scores[stream]).all()
                continue
            path = tmp_path / f"{row.name}-{phase}.h5".replace(" ", "-").replace("*", "-star")
            features(root, of=phase, files=[video], layer="logits", average=True, mirror=True, output=path, execution=CPU)
            np.testing.assert_allclose(FeatureFile(path).read("clip").arrays[stream][0], prediction.scores[stream], atol=1e-4)


def test_another_training_starts_from_its_networks_with_its_settings(trained: tuple[str, Path], packed_root: Path, tmp_path: Path) -> None:
    system, source = trained
    root = share_root(packed_root, tmp_path / "next")
    train(
        root,
        system=system,
        recipe="small",
        init_from=source / "runs" / "default",
        overrides={**STEPS, "steps": 1, "lr": 0.0},
        execution=CPU,
    )
    for phase in SYSTEMS[system].networks:
        before, now = (load_checkpoint(phase_folder(path, "default", 1, phase)) for path in (source, root))
        if PHASES[phase].network.learns_from_features:
            assert now.provenance.first_network is None  # it starts from the phase before it, in its own run
            continue
        assert now.provenance.config.network == before.provenance.config.network
        moments = ("running_mean", "running_var", "num_batches_tracked")  # they are of the videos of the last steps, at any rate
        states = [{name: value for name, value in made.network.items() if not name.endswith(moments)} for made in (now, before)]
        assert same(*states)
    other = "two-stream-fusion" if "appearance" in SYSTEMS[system].networks else "st-resnet"
    with pytest.raises(CheckpointError, match="cannot start"):
        train(root, system=other, run="other", recipe="small", init_from=source / "runs" / "default", execution=CPU)


def test_settings_of_other_networks_are_refused(packed_root: Path) -> None:
    with pytest.raises(ParameterError, match="injection is no setting of the networks of vgg-m-motion"):
        make_configs("small", phases=["vgg-m-motion"], num_classes=2, num_videos=4, short_side=40, overrides={"injection": "none"})
    with pytest.raises(ParameterError, match="no setting 'kind'"):
        make_configs("small", phases=["vgg-m-motion"], num_classes=2, num_videos=4, short_side=40, overrides={"kind": "vgg-16"})
    with pytest.raises(CheckpointError, match="no VGG-M trained on ImageNet"):
        train(packed_root, system="two-streams-vgg-m", run="imagenet", recipe="small", weights="imagenet", execution=CPU)


def test_systems_that_see_other_sizes_or_clips_are_tested_by_name(
    packed_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = share_root(packed_root, tmp_path / "both")
    for system in ("two-streams-vgg-16", "dynamic-images"):  # of one size
        run(root, system, overrides={"steps": 1})
    (split,) = evaluate(root, execution=CPU).splits
    assert list(split.rows) == ["VGG-16 appearance", "VGG-16 motion", "VGG-16 two-streams"]
    assert "dynamic-image-appearance, dynamic-image-motion; `--system NAME` tests them" in caplog.text
    run(root, "two-streams-vgg-m", overrides={"steps": 1})
    caplog.clear()
    (split,) = evaluate(root, execution=CPU).splits
    assert list(split.rows) == ["VGG-M appearance", "VGG-M motion", "VGG-M two-streams"]
    assert "vgg-16-appearance, vgg-16-motion, dynamic-image-appearance" in caplog.text
    for system in ("two-streams-vgg-16", "dynamic-images"):
        (split,) = evaluate(root, system=system, execution=CPU).splits
        assert list(split.rows) == [row.name for row in SYSTEMS[system].rows]
