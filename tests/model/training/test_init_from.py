"""Training that starts from trained networks of other data: which phase takes what, what is replaced, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_lines import run_flowkit
from phases import PHASES
from random_networks import random_checkpoints
from training_runs import run, share_root, weights

from flowkit.dataset.example import CLASSES
from flowkit.dataset.manifest import write_split
from flowkit.dataset.root import Dataset
from flowkit.errors import CheckpointError, ParameterError
from flowkit.files import file_sha256
from flowkit.model.compute.execution import Execution
from flowkit.model.networks.stresnet import SingleStream
from flowkit.model.runs import events
from flowkit.model.runs.checkpoint import load_checkpoint, save_weights
from flowkit.model.runs.first_network import FirstNetwork
from flowkit.model.runs.provenance import Provenance
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.settings.network import STResNetConfig
from flowkit.model.settings.training import Phase
from flowkit.model.training.chain import train

# What the authors' networks have otherwise than flowkit's by default.
AUTHORS: dict[str, Any] = {"stem_pool": "ceil", "stride_in_1x1": True, "rgb_offset": [0.5, 0.0, -0.25], "input_size": 32}
MULTIPLYING: dict[str, Any] = {"injection_kind": "multiplicative", "temporal_pool_stride": 1, "temporal_pool_position": "before_pool5"}
FROZEN: dict[str, Any] = {"lr": 0.0, "steps": 1, "bn_momentum": 0.0, "bn_average_first": False, "bn_renewal_steps": 0}


def trained_folder(folder: Path, *phases: Phase, classes: Sequence[str] = CLASSES, **settings: Any) -> Path:
    """Write the weights of these phases as a run has them for a split; they record a split of other videos."""
    settings = {"input_size": 32, "extraction": {"short_side": 40, "solver": "strict", "tvl1": {}, "codec": "zstd"}} | settings
    for phase, checkpoint in random_checkpoints(classes, digest="cd" * 32, **settings).items():
        if phase in (phases or PHASES):
            (folder / phase).mkdir(parents=True)
            save_weights(folder / phase / "weights.safetensors", checkpoint)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a split with all four phases, with settings like the authors'. Treat it as read-only."""
    return trained_folder(tmp_path_factory.mktemp("other") / "runs" / "good" / "split1", **AUTHORS, **MULTIPLYING)


def with_classes(root: Path, classes: Sequence[str]) -> Path:
    """Pack the split again with these classes, in this order."""
    split = Dataset.open(root).split(1)
    halves: Any = {
        half: [replace(row, label=classes.index(row.class_name)) for row in getattr(split, half) if row.class_name in classes]
        for half in ("train", "test")
    }
    counts = {f"num_listed_{half}": len(rows) for half, rows in halves.items()}
    write_split(root, 1, protocol="csv", classes=classes, quantiser=split.quantiser, shards=split.shards, **halves, **counts)
    return root


def fine_tuned(root: Path, source: str | Path, **settings: Any) -> list[Any]:
    """Train from a source, which decides the width and the size of crops; return the events."""
    settings = {"overrides": FROZEN} | settings
    settings["overrides"] = {"batch": 4, "bn_group": 2} | settings["overrides"]
    received: list[Any] = []
    train(root, init_from=source, execution=Execution(device="cpu"), on_event=received.append, **settings)
    return received


def lines(received: list[Any]) -> str:
    (told,) = [event for event in received if isinstance(event, events.NetworksTaken)]
    return " ".join((*told.lines, *told.warnings))


def source_state(folder: Path, phase: Phase) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / phase).network


def test_every_phase_takes_the_network_of_its_kind_with_its_moments_and_a_new_classifier(root: Path, trained: Path) -> None:
    few = CLASSES[:2]
    told = lines(fine_tuned(with_classes(root, few), trained.parent))
    assert "appearance, motion, st-resnet, st-resnet-star from the networks of these names" in told
    assert "Classifiers are replaced by random ones (seed 0), for 2 classes instead of 6" in told
    for phase in PHASES:
        before, after = source_state(trained, phase), weights(root, phase)
        assert before.keys() == after.keys()
        for name in before:
            if ".fc." in name:
                assert len(after[name]) == len(few)
            elif not name.endswith("num_batches_tracked"):
                assert torch.equal(before[name], after[name]), name
        made = load_checkpoint(phase_folder(root, "default", 1, phase)).provenance
        network, its = made.config.network, load_checkpoint(trained / phase).provenance.config.network
        assert network == replace(its, num_classes=2, motion_dropout=network.motion_dropout)
        assert made.first_network is not None
        assert made.first_network.files == {phase: file_sha256(trained / phase / "weights.safetensors")}
        assert made.first_network.classifiers == {phase: "new"}
        assert made.started_from == {}
        assert made.config.weights == f"sha256:{made.first_network.files[phase]}"
    new = [weights(root, phase)["motion.fc.weight"] for phase in ("motion", "st-resnet")]
    assert not torch.equal(*new)
    assert all(0.005 < classifier.std() < 0.02 for classifier in new)


def test_classifiers_are_kept_for_the_same_classes_and_follow_another_order(root: Path, trained: Path) -> None:
    before = source_state(trained, "motion")
    assert "Classifiers are kept." in lines(fine_tuned(root, trained / "motion", phases=["motion"]))
    assert torch.equal(weights(root, "motion")["motion.fc.weight"], before["motion.fc.weight"])
    with_classes(root, CLASSES[::-1])
    received = fine_tuned(root, trained / "motion" / "weights.safetensors", phases=["motion"], run="reversed")
    assert "kept, in the order of these classes" in lines(received)
    for part in ("weight", "bias"):
        assert torch.equal(weights(root, "motion", "reversed")[f"motion.fc.{part}"], before[f"motion.fc.{part}"].flip(0))


@pytest.mark.parametrize("phase", ["appearance", "motion"])
def test_a_base_stream_takes_its_stream_of_a_network_of_two_with_its_taps_summed(root: Path, tmp_path: Path, phase: Any) -> None:
    folder = trained_folder(tmp_path / "made", "st-resnet-star")
    told = lines(fine_tuned(root, folder, phases=[phase]))
    assert f"{phase} from the {phase} stream of st-resnet-star, with its taps in time summed" in told
    before, after = source_state(folder, "st-resnet-star"), weights(root, phase)
    assert all(name.startswith(f"{phase}.") for name in after)
    torch.testing.assert_close(after[f"{phase}.layer1.1.conv1.weight"], before[f"{phase}.layer1.1.conv1.weight"].sum(2))
    assert torch.equal(after[f"{phase}.layer1.0.conv1.weight"], before[f"{phase}.layer1.0.conv1.weight"])


def test_st_resnet_takes_base_streams_inflated_in_time(root: Path, tmp_path: Path) -> None:
    folder = trained_folder(tmp_path / "made", "appearance", "motion")
    assert "st-resnet from appearance and motion" in lines(fine_tuned(root, folder, phases=["st-resnet"]))
    for stream in ("appearance", "motion"):
        name = f"{stream}.layer2.1.conv3.weight"
        before = source_state(folder, stream)[name]
        torch.testing.assert_close(weights(root, "st-resnet")[name], (before / 3)[:, :, None].expand(-1, -1, 3, -1, -1))
    made = load_checkpoint(phase_folder(root, "default", 1, "st-resnet")).provenance
    assert made.first_network is not None
    assert sorted(made.first_network.files) == ["appearance", "motion"]


def test_phases_without_a_network_of_their_kind_start_as_usual_from_those_before(root: Path, tmp_path: Path) -> None:
    folder = trained_folder(tmp_path / "made", "motion")
    told = lines(fine_tuned(root, folder, phases=["appearance", "motion", "st-resnet"]))
    assert "motion from the network of that name; but appearance from random weights" in told
    for name in ("motion.conv1.weight", "motion.layer4.0.conv2.weight"):
        assert torch.equal(weights(root, "st-resnet")[name], source_state(folder, "motion")[name])
    made = load_checkpoint(phase_folder(root, "default", 1, "st-resnet")).provenance
    assert made.first_network is None
    assert sorted(made.started_from) == ["appearance", "motion"]
    assert "motion: sha256:" in made.config.weights
    assert "appearance: none" in made.config.weights


def test_the_next_phase_has_the_settings_of_a_network_that_was_taken(root: Path, trained: Path) -> None:
    fine_tuned(root, trained, phases=["st-resnet"])
    run(root, phases=["st-resnet-star"], overrides=FROZEN)
    network = load_checkpoint(phase_folder(root, "default", 1, "st-resnet-star")).provenance.config.network
    assert (network.stem_pool, network.rgb_offset, network.injection_kind) == ("ceil", (0.5, 0.0, -0.25), "multiplicative")
    with pytest.raises(CheckpointError, match="st-resnet, which was trained with injection_kind=multiplicative, not additive"):
        run(root, phases=["st-resnet-star"], overrides=FROZEN | {"injection_kind": "additive"}, restart=True)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"base_width": 8}, "its base_width is 4, and base_width 8 was asked for"),
        ({"depth": 50}, r"its units is \(2, 2, 2, 2\), and units \(3, 4, 6, 3\) was asked for"),
        ({"stem_pool": "same"}, "its stem_pool is ceil, and stem_pool same was asked for"),
        ({"rgb_offset": [0.0, 0.0, 0.0]}, "its rgb_offset is"),
        ({"st-resnet-star.temporal_pool_stride": 2}, "its temporal_pool_stride is 1, and temporal_pool_stride 2"),
        ({"temporal_stages": [5]}, "its temporal_stages is"),
        ({"stride_in_1x1": False}, "its stride_in_1x1 is True"),
    ],
)
def test_a_setting_that_contradicts_the_network_is_refused_before_the_first_phase(
    root: Path, trained: Path, asked: dict[str, Any], text: str
) -> None:
    with pytest.raises(CheckpointError, match=text):
        fine_tuned(root, trained, overrides=FROZEN | asked)
    assert not (root / "runs").exists()


def test_the_size_of_crops_may_be_another(root: Path, trained: Path) -> None:
    fine_tuned(root, trained, phases=["motion"], overrides=FROZEN | {"input_size": 40})
    assert load_checkpoint(phase_folder(root, "default", 1, "motion")).provenance.config.network.input_size == 40


def test_what_fits_no_phase_is_refused_in_terms_of_the_source(root: Path, tmp_path: Path) -> None:
    folder = trained_folder(tmp_path / "made", "motion")
    with pytest.raises(CheckpointError, match="made holds motion, from which appearance cannot start"):
        fine_tuned(root, folder, phases=["appearance"])
    (folder / "motion").rename(folder / "appearance")
    with pytest.raises(CheckpointError, match="holds motion, not appearance"):
        fine_tuned(root, folder, phases=["appearance"])
    shutil.copytree(trained_folder(tmp_path / "wide", "motion", base_width=8) / "motion", folder / "motion")
    shutil.rmtree(folder / "appearance")
    shutil.copytree(trained_folder(tmp_path / "narrow", "appearance") / "appearance", folder / "appearance")
    with pytest.raises(CheckpointError, match="differ: base_width is 4 in appearance and 8 in motion; start each phase by itself"):
        fine_tuned(root, folder)
    assert not (root / "runs").exists()


def test_weights_that_do_not_suit_the_other_base_stream_are_refused_before_the_first_phase(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowkit.model.foreign.state_dicts._download", lambda depth: pytest.fail("downloaded"))
    narrow = STResNetConfig(num_classes=9, stage_units=(2, 2, 2, 2), base_width=4, input_size=32)
    state = SingleStream(narrow, "appearance").stream.state_dict()
    monkeypatch.setattr("flowkit.model.networks.residual.imagenet_shapes", lambda depth: state)
    folder = trained_folder(tmp_path / "made", "motion", stride_in_1x1=True)
    with pytest.raises(CheckpointError, match="appearance stream: imagenet has stride_in_1x1=False, this network True"):
        fine_tuned(root, folder, recipe="official")
    assert not (root / "runs").exists()


def test_another_source_is_another_training_and_a_renamed_one_is_not(root: Path, trained: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(trained / "motion", tmp_path / "moved" / "motion")
    options: dict[str, Any] = {"phases": ["motion"]}
    fine_tuned(root, trained, **options)
    received = fine_tuned(root, moved.parent, **options)
    assert [event for event in received if isinstance(event, events.PhaseSkipped)]
    other = trained_folder(tmp_path / "other", "motion", seed=1, **AUTHORS)
    with pytest.raises(CheckpointError, match=r"--init-from is good/split1 \(motion [0-9a-f]{12}…\), now other \(motion"):
        fine_tuned(root, other, **options)
    with pytest.raises(CheckpointError, match="now nothing"):
        run(root, overrides=FROZEN, **options)


def test_a_run_that_was_stopped_continues_from_its_checkpoint(root: Path, trained: Path) -> None:
    options: dict[str, Any] = {"phases": ["motion"], "overrides": {"steps": 2}}
    fine_tuned(root, trained, run="whole", **options)
    fine_tuned(root, trained, should_stop=lambda: True, **options)
    assert load_checkpoint(phase_folder(root, "default", 1, "motion")).step == 1
    received = fine_tuned(root, trained, **options)
    assert not [event for event in received if isinstance(event, events.NetworksTaken)]
    one, other = weights(root, "motion"), weights(root, "motion", "whole")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_other_frames_and_flow_are_a_warning_and_recorded(root: Path, tmp_path: Path) -> None:
    made = {"short_side": 256, "solver": "gpu_flow", "tvl1": {}, "codec": "jpeg"}
    folder = trained_folder(tmp_path / "made", quantiser={"bound": 15.0, "mapping": "paper"}, extraction=made)
    told = lines(fine_tuned(root, folder, phases=["appearance", "motion"]))
    assert "was trained on frames and flow that were made in another way" in told
    for text in ("bound of the quantiser was 15.0, and is 20.0", "mapping of the quantiser was paper", "short side was 256, and is 40"):
        assert text in told
    first = [load_checkpoint(phase_folder(root, "default", 1, phase)).provenance.first_network for phase in ("appearance", "motion")]
    assert [len(network.differences) for network in first if network] == [1, 5]


def test_a_source_that_was_trained_on_videos_of_the_test_or_of_the_validation_is_a_warning_and_recorded(root: Path) -> None:
    fine_tuned(root, None, run="first", phases=["motion"])
    listed = Dataset.open(root).split(1)
    own = {"train": [*listed.train[1:], listed.test[0]], "test": [*listed.test[1:], listed.train[0]]}
    halves = {half: sorted(rows, key=lambda row: row.video_id) for half, rows in own.items()}
    counts = {f"num_listed_{half}": len(rows) for half, rows in halves.items()}
    common = {"classes": listed.classes, "quantiser": listed.quantiser, "shards": listed.shards}
    write_split(root, 1, protocol="csv", **common, **halves, **counts)  # type: ignore[arg-type]
    told = lines(fine_tuned(root, "first", run="second", phases=["motion"]))
    assert f"first: it was trained on 1 of {len(listed.test)} test or validation videos ({listed.train[0].video_id})" in told
    made = load_checkpoint(phase_folder(root, "second", 1, "motion")).provenance.first_network
    assert made is not None
    assert [text.partition(" (")[0] for text in made.differences] == [
        f"it was trained on 1 of {len(listed.test)} test or validation videos"
    ]
    fine_tuned(root, "first", run="second", phases=["motion"])  # done: the same settings


def test_the_record_names_the_source_and_only_the_end_of_an_absolute_path(root: Path, trained: Path) -> None:
    fine_tuned(root, trained, phases=["motion"])
    folder = phase_folder(root, "default", 1, "motion")
    stored = json.loads((folder / "config.json").read_text())
    assert stored["init_from"] == str(trained)
    assert stored["first_network"]["source"] == "good/split1"
    assert stored["first_network"]["trained_on"] == "6 classes of split 1 (automatic)"
    assert str(trained) not in (folder / "weights.safetensors").read_bytes().decode("latin-1")


@pytest.mark.parametrize(
    "damaged",
    [
        [],
        {"source": "a"},
        {"source": "a", "files": {}, "classifiers": {"motion": "lost"}},
        {"source": 1, "files": {}, "classifiers": {}},
        {"source": "a", "files": [], "classifiers": {}},
        {"source": "a", "files": {}, "classifiers": {}, "more": 1},
        {"source": "a", "files": {"motion": 1}, "classifiers": {}},
        {"source": "a", "files": {}, "classifiers": {}, "differences": [1]},
    ],
)
def test_a_damaged_record_is_refused(damaged: Any) -> None:
    made: Provenance = random_checkpoints(CLASSES)["motion"].provenance
    good = FirstNetwork("a", {"motion": "ab"}, {"motion": "kept"}, "data", ("text",))
    assert Provenance.from_dict(replace(made, first_network=good).to_dict()).first_network == good
    with pytest.raises(CheckpointError, match="damaged or foreign"):
        Provenance.from_dict(made.to_dict() | {"first_network": damaged})


def test_a_source_is_a_run_or_a_folder_or_a_file(root: Path, trained: Path, tmp_path: Path) -> None:
    (root / "runs").mkdir()
    shutil.copytree(trained.parent, root / "runs" / "here")
    shutil.move(root / "runs" / "here" / "split1", root / "runs" / "here" / "split2")
    assert "From here: motion from" in lines(fine_tuned(root, "here", phases=["motion"]))
    shutil.copytree(root / "runs" / "here" / "split2", root / "runs" / "here" / "split3")
    (tmp_path / "empty").mkdir()
    (tmp_path / "second").mkdir()
    other = share_root(root, tmp_path / "second")
    told = {
        "here": "has no split 1; name one of its folders: .*split2",
        root.parent / "nothing": "neither a file or folder nor a run in .*, which has default, here",
        other: "is a data root; it has no run",
        root: "is a data root; name one of its runs: .*here",
        tmp_path / "empty": "no phase in .* is trained to its end",
    }
    for source, text in told.items():
        with pytest.raises(CheckpointError, match=text):
            fine_tuned(root, source, phases=["motion"], run="new")
    with pytest.raises(CheckpointError, match="run 'default' cannot start from itself"):
        fine_tuned(root, "default", phases=["motion"])
    with pytest.raises(ParameterError, match="weights and init_from"):
        fine_tuned(root, "default", weights="none")


def test_the_checkpoint_of_a_phase_that_is_not_done_can_be_named(root: Path, trained: Path) -> None:
    fine_tuned(root, trained, phases=["motion"], overrides={"steps": 2}, should_stop=lambda: True)
    with pytest.raises(CheckpointError, match=r"motion has a checkpoint; the folder of such a phase can be given"):
        fine_tuned(root, "default", phases=["motion"], run="new")
    fine_tuned(root, phase_folder(root, "default", 1, "motion"), phases=["motion"], run="new")


@pytest.mark.parametrize("option", ["--weights none", "--base-run other --phase st-resnet"])
def test_the_command_refuses_other_first_weights_beside_it(root: Path, trained: Path, option: str) -> None:
    ended = run_flowkit("train", "--data", root, "--init-from", trained, *option.split())
    assert ended.code == 2
    assert f"would do nothing here: --init-from {trained} names the first weights" in ended.err


def test_the_command_says_what_it_takes_and_weights_name_it(root: Path, trained: Path) -> None:
    options = ["--batch", 4, "--bn-group", 2, "--steps-per-phase", 1, "--device", "cpu", "--workers", 0, "--phase", "motion"]
    ended = run_flowkit("train", "--data", root, "--init-from", trained, *options)
    assert ended.code == 0, ended
    assert "motion from the network of that name. Classifiers are kept." in ended.err
    assert "Settings of its network instead of the recipe's: base_width 4; stem_pool ceil; stride_in_1x1 True" in ended.err
    ended = run_flowkit("train", "--data", root, "--phase", "st-resnet", "--weights", trained / "motion")
    assert "--init-from a trained network" in ended.err
