"""The test protocol: equal to a naive loop, each row what it says, refusals with their reasons, and the files of a report."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np
import pytest
import torch
from command_lines import call_flowkit
from phases import HEADS, PHASES, ROWS
from training_runs import share_root

from flowkit.dataset.manifest import write_split
from flowkit.dataset.root import Dataset
from flowkit.errors import CheckpointError, DeviceError, ManifestError, ParameterError
from flowkit.model.compute.execution import VIDEOS_AT_ONCE, Execution
from flowkit.model.data.whole_videos import WholeClipDataset
from flowkit.model.evaluation.protocol import evaluate
from flowkit.model.evaluation.results import Evaluation, SplitEvaluation, write_results
from flowkit.model.evaluation.row_results import RowResult
from flowkit.model.evaluation.tables import results_table
from flowkit.model.networks.phase_networks import build_network
from flowkit.model.runs import events
from flowkit.model.runs.checkpoint import Checkpoint, load_checkpoint, save_weights
from flowkit.model.runs.provenance import Provenance
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.scoring import tested_networks as scoring
from flowkit.model.scoring.metrics import p_value
from flowkit.model.scoring.significance import mcnemar_test
from flowkit.model.systems.configs import make_configs
from flowkit.shards.reader import ShardReader

CPU = Execution(device="cpu")
STREAMS = PHASES[:2]


@pytest.fixture(scope="module")
def root(packed_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The packed root with random networks of all four phases, running moments random too."""
    path = share_root(packed_root, tmp_path_factory.mktemp("evaluate"))
    save_networks(path, 1)
    save_networks(path, 1, run="streams", phases=STREAMS)
    return path


def save_networks(
    root: Path, number: int, run: str = "default", classes: Any = None, phases: Sequence[str] = PHASES, **changes: Any
) -> None:
    """Save random networks as if they had been trained; those of fewer phases are the same, and are tested sooner."""
    split = Dataset.open(root).split(number)
    settings = {"base_width": 4, "input_size": 35}  # 7/8 of the stored short side: frames are tested as they are
    configs = make_configs("small", num_classes=len(split.classes), num_videos=12, short_side=40, overrides=settings)
    generator = torch.Generator().manual_seed(number)
    for phase in phases:
        config = configs[phase]
        network = build_network(config)
        for name, tensor in network.state_dict().items():
            if "running_var" in name:
                tensor.uniform_(0.2, 0.6, generator=generator)
            elif tensor.ndim == 1 and name.endswith("weight"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.is_floating_point():
                tensor.normal_(0, 1 / max(tensor[0].numel(), 4) ** 0.5, generator=generator)
        told = Provenance(config, classes or split.classes, number, split.protocol, split.digest, split.quantiser.to_dict())
        save_weights(
            phase_folder(root, run, number, phase) / "weights.safetensors",
            Checkpoint(replace(told, **changes), 4, network.state_dict()),
        )


def naive_scores(root: Path, phase: str) -> dict[Any, Any]:
    """Frame by frame, mirror image by mirror image, as docs/stresnet.md describes it; stream to (n, C) for every second video."""
    split, dataset = Dataset.open(root).split(1), Dataset.open(root)
    checkpoint = load_checkpoint(phase_folder(root, "default", 1, phase))
    network = build_network(checkpoint.provenance.config)
    network.load_state_dict(checkpoint.network)
    network.double().eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    quantiser = split.quantiser
    results = {}
    for record in split.test[::2]:
        with ShardReader(dataset.shard_path(record)) as shard:
            clip = shard.clip(record.video_id)
            per_flip = []
            for mirrored in (False, True):
                rgb, flow = [], []
                for k in range(25):
                    centre = 4 + int(np.floor(1 + (clip.num_frames - 11) * k / 24 + 0.5))
                    frame = clip.frames([centre])[0]
                    stack = clip.flow(centre - 5, centre + 5)
                    if mirrored:
                        frame, stack = frame[:, ::-1], stack[..., ::-1].copy()
                        stack[:, 0] = quantiser.flip_u(stack[:, 0])
                    rgb.append((torch.from_numpy(frame.copy()).double() / 255 - mean) / std)
                    flow.append(torch.from_numpy(np.concatenate(list(stack))).double().sub(128).div(255 * 0.226))
                inputs = {"appearance": torch.stack(rgb).permute(0, 3, 1, 2), "motion": torch.stack(flow)}
                with torch.no_grad():
                    if phase in ("appearance", "motion"):  # every frame by itself
                        logits = {phase: torch.cat([network(inputs[phase][None, k, None])[0] for k in range(25)])}
                    else:
                        logits = {s: v[0] for s, v in network(inputs["appearance"][None], inputs["motion"][None])._asdict().items()}
                per_flip.append({stream: values.mean(0) for stream, values in logits.items()})
        for stream in per_flip[0]:
            results.setdefault(stream, []).append((per_flip[0][stream] + per_flip[1][stream]) / 2)
    return {stream: torch.stack(values).numpy() for stream, values in results.items()}


@pytest.fixture(scope="module")
def evaluation(root: Any) -> Any:
    return evaluate(root, execution=CPU)


@pytest.mark.parametrize("phase", PHASES)
def test_scores_are_those_of_a_naive_loop(root: Any, evaluation: Any, phase: str) -> None:
    (split,) = evaluation.splits
    for stream, expected in naive_scores(root, phase).items():
        scores = split.stream_scores[phase, stream][::2]
        assert np.abs(scores - expected).max() < 0.01 * expected.std(0).min()  # of what tells the videos apart


def test_two_streams_and_both_heads_are_joined_by_the_mean(evaluation: Any) -> None:
    (split,) = evaluation.splits
    assert (evaluation.fusion, evaluation.weights) == ("logits_mean", (1.0, 1.0))  # the paper's, and the default
    assert evaluation.protocol[-1] == "streams joined by the mean of their logits, weights 1 : 1 (appearance : motion)"
    assert list(split.rows) == list(ROWS)
    scores = split.stream_scores
    for row, parts in {
        "appearance": [("appearance", "appearance")],
        "two-streams": [("appearance", "appearance"), ("motion", "motion")],
        "ST-ResNet": [("st-resnet", "appearance"), ("st-resnet", "motion")],
        "ST-ResNet*": [("st-resnet-star", "appearance"), ("st-resnet-star", "motion")],
    }.items():
        assert np.allclose(split.rows[row].scores, np.mean([scores[part] for part in parts], axis=0))


def test_each_head_of_a_two_stream_network_has_a_row_of_its_own_below_the_table(evaluation: Any) -> None:
    (split,) = evaluation.splits
    assert list(split.heads) == [
        "ST-ResNet, appearance head",
        "ST-ResNet, motion head",
        "ST-ResNet*, appearance head",
        "ST-ResNet*, motion head",
    ]
    assert np.array_equal(split.heads["ST-ResNet, motion head"].scores, split.stream_scores["st-resnet", "motion"])
    header, rows = results_table(evaluation)
    assert [row[0] for row in rows] == [*ROWS, *HEADS]
    head = split.heads["ST-ResNet*, appearance head"]
    assert rows[-2][1:4] == [f"{100 * head.top1:.2f}", " to ".join(f"{100 * end:.2f}" for end in head.interval), f"{head.num_correct}/6"]
    only = (
        int((head.is_correct & ~split.rows["ST-ResNet*"].is_correct).sum()),
        int((~head.is_correct & split.rows["ST-ResNet*"].is_correct).sum()),
    )
    assert rows[-2][header.index("p")] == p_value(mcnemar_test(*only))


def test_accuracies_are_counted_from_the_scores(root: Any, evaluation: Any) -> None:
    (split,) = evaluation.splits
    labels = [record.label for record in Dataset.open(root).split(1).test]
    assert split.labels.tolist() == labels
    assert len(split.video_ids) == 6
    assert split.num_listed == 7
    for row in split.rows.values():
        predictions = row.scores.argmax(1)
        assert row.num_correct == sum(p == label for p, label in zip(predictions, labels, strict=True))
        assert row.top1 == row.num_correct / 6
        assert row.confusion.sum() == 6
        assert all(row.confusion[label, p] for p, label in zip(predictions, labels, strict=True))
        hits = [label in np.argsort(-scores)[:5] for scores, label in zip(row.scores, labels, strict=True)]
        assert row.top5 == pytest.approx(np.mean(hits))


def test_a_test_says_when_how_long_and_on_what_it_ran_and_which_class_is_most_frequent(root: Any, evaluation: Any) -> None:
    (split,) = evaluation.splits
    assert datetime.fromisoformat(split.started).utcoffset() == timedelta(0)
    assert split.seconds > 0
    assert evaluation.environment["cpu"]
    assert evaluation.environment["num_cores"] >= 1
    labels = [record.label for record in Dataset.open(root).split(1).train]
    most = max(labels.count(label) for label in labels)
    assert split.majority_label == min(label for label in labels if labels.count(label) == most)
    assert split.majority_top1 == np.mean(split.labels == split.majority_label)


def test_a_weight_of_zero_gives_the_other_stream_s_row(root: Any, evaluation: Any) -> None:
    (plain,) = evaluation.splits
    for weights, alone in (((1, 0), "appearance"), ((0, 1), "motion")):
        (split,) = evaluate(root, run="streams", execution=CPU, weights=weights).splits
        assert np.array_equal(split.rows["two-streams"].ranks, plain.rows[alone].ranks)


def test_softmax_fusion_is_said_in_the_protocol_and_sums_to_one(root: Any) -> None:
    result = evaluate(root, execution=CPU, fusion="softmax_mean", weights=(1, 2), checkpoint=phase_folder(root, "default", 1, "st-resnet"))
    assert "softmax" in result.protocol[-1]
    assert "1 : 2" in result.protocol[-1]
    assert np.allclose(result.splits[0].rows["ST-ResNet"].scores.sum(1), 1)


def test_batches_of_videos_workers_and_memory_format_change_nothing(root: Any, evaluation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VIDEOS_AT_ONCE, "cpu", 4)
    (split,) = evaluate(root, execution=Execution(device="cpu", num_workers=1, channels_last=False)).splits
    for key, scores in evaluation.splits[0].stream_scores.items():
        assert np.allclose(split.stream_scores[key], scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("most", [2, 1, 0])
def test_where_memory_is_too_small_for_several_videos_there_are_fewer_at_once(
    root: Any, evaluation: Any, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    sizes, whole = [], scoring.TestedNetworks._score

    def limited(self: Any, clips: Any) -> Any:
        sizes.append(len(clips))
        if len(clips) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole(self, clips)

    monkeypatch.setitem(VIDEOS_AT_ONCE, "cpu", 4)
    monkeypatch.setattr(scoring.TestedNetworks, "_score", limited)
    if not most:
        with pytest.raises(DeviceError, match=r"too little memory left.*--amp bf16"):
            evaluate(root, run="streams", execution=CPU)
        return
    (split,) = evaluate(root, run="streams", execution=CPU).splits
    assert sizes == {2: [4, 2, 2, 2], 1: [4, 2, *[1] * 6]}[most]
    assert len(split.stream_scores) == 2
    for key, scores in split.stream_scores.items():
        assert np.allclose(scores, evaluation.splits[0].stream_scores[key], rtol=1e-4, atol=1e-5)


def test_progress_is_told_up_to_the_last_video(root: Any) -> None:
    told = []
    evaluate(root, run="streams", execution=CPU, on_event=told.append)
    assert told[0] == events.SplitStarted(1, 6)
    assert told[-1] == events.VideosScored(1, 6, 6, 0)


def test_rows_of_phases_that_are_not_trained_are_left_out(root: Any, tmp_path: Path) -> None:
    shutil.copytree(root / "runs", tmp_path / "kept")
    try:
        shutil.rmtree(phase_folder(root, "default", 1, "motion"))
        result = evaluate(root, execution=CPU)
    finally:
        shutil.rmtree(root / "runs")
        shutil.copytree(tmp_path / "kept", root / "runs")
    assert list(result.splits[0].rows) == ["appearance", "ST-ResNet", "ST-ResNet*"]
    _, rows = results_table(result)
    assert rows[1] == ["motion", "-", "-", "-", "-", "-", "-"]


def test_one_checkpoint_can_be_tested_alone(root: Any) -> None:
    result = evaluate(root, execution=CPU, checkpoint=phase_folder(root, "default", 1, "st-resnet"))
    assert list(result.splits[0].rows) == ["ST-ResNet"]


def test_nothing_trained_says_how_to_train(root: Any) -> None:
    with pytest.raises(CheckpointError, match=r"flowkit train --split 1 --run other"):
        evaluate(root, run="other", execution=CPU)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"digest": "00" * 32}, "whether its videos are the same cannot be known"),
        ({"quantiser": {"bound": 15.0, "mapping": "symmetric"}}, r"the bound of the quantiser was 15\.0, and is 20\.0"),
        ({"quantiser": {"bound": 20.0, "mapping": "paper"}}, "the mapping of the quantiser was paper, and is symmetric"),
        ({"split": 2}, "they were trained on split 2, and this is split 1"),
    ],
)
def test_weights_of_other_data_are_refused_and_forced(root: Any, changes: dict[str, Any], message: str) -> None:
    save_networks(root, 1, run="foreign", phases=STREAMS, **changes)
    with pytest.raises(CheckpointError, match=f"(?s){message}.*--force"):
        evaluate(root, run="foreign", execution=CPU)
    (split,) = evaluate(root, run="foreign", execution=CPU, force=True).splits
    assert len(split.warnings) == 1  # which says it once for all networks
    assert len(split.video_ids) == 6


def test_classes_are_matched_by_name(root: Any, evaluation: Any) -> None:
    classes = Dataset.open(root).split(1).classes
    turned = tuple(reversed(classes))
    save_networks(root, 1, run="turned", classes=turned)
    (split,) = evaluate(root, run="turned", execution=CPU).splits
    for key, scores in evaluation.splits[0].stream_scores.items():
        assert np.allclose(split.stream_scores[key], scores[:, ::-1])


def test_a_class_that_the_network_does_not_know_is_an_error_even_when_forced(root: Any) -> None:
    classes = ("other", *Dataset.open(root).split(1).classes[1:])
    save_networks(root, 1, run="unknown", classes=classes)
    with pytest.raises(CheckpointError, match="does not know 1 class of this split: colour0-motion0"):
        evaluate(root, run="unknown", execution=CPU, force=True)


@pytest.mark.parametrize("settings", [{"fusion": "max"}, {"weights": (0, 0)}, {"run": "a/b"}])
def test_settings_that_cannot_be_are_refused(root: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(ParameterError):
        evaluate(root, execution=CPU, **settings)


@pytest.fixture
def second_split(root: Any) -> Iterator[None]:
    """A split 2 whose first test class has no training video, with its own networks."""
    split = Dataset.open(root).split(1)
    write_split(
        root,
        2,
        protocol="csv",
        classes=split.classes,
        train=[record for record in split.train if record.label != 0],
        test=split.test[:3],
        num_listed_train=10,
        num_listed_test=3,
        quantiser=split.quantiser,
        shards=split.shards,
    )
    save_networks(root, 2)
    save_networks(root, 2, run="streams", phases=STREAMS)
    yield
    shutil.rmtree(root / "splits" / "split2")


@pytest.mark.usefixtures("second_split")
def test_several_splits_give_each_and_the_unweighted_mean(root: Any) -> None:
    result = evaluate(root, splits=[1, 2], execution=CPU)
    one, two = result.splits
    assert (len(one.video_ids), len(two.video_ids)) == (6, 3)
    for row in ROWS:
        assert result.mean_top1(row) == pytest.approx((one.rows[row].top1 + two.rows[row].top1) / 2)
    header, rows = results_table(result)
    assert header == ["top-1 %", "split 1", "split 2", "mean"]
    assert rows[0][1:] == [f"{100 * value:.2f}" for value in (one.rows["appearance"].top1, two.rows["appearance"].top1)] + [
        f"{100 * result.mean_top1('appearance'):.2f}"
    ]


@pytest.mark.usefixtures("second_split")
def test_test_classes_without_a_training_video_are_named(root: Any) -> None:
    (split,) = evaluate(root, splits=[2], run="streams", execution=CPU).splits
    assert split.untrained_classes == ("colour0-motion0",)


def result_of(top1s: Any) -> Any:
    splits = []
    for number, (right, total) in enumerate(top1s, 1):
        row = RowResult(np.zeros((total, 2)), np.array([0] * right + [1] * (total - right)), np.zeros((2, 2), np.int64))
        splits.append(SplitEvaluation(number, ("a", "b"), (), np.zeros(total, np.int64), {"motion": row}, {}, total))
    return Evaluation(tuple(splits), ())


def test_the_mean_over_splits_is_not_pooled() -> None:
    result = result_of([(1, 1), (0, 9)])
    assert result.mean_top1("motion") == 0.5
    assert result.mean_top1("ST-ResNet") is None


def test_a_split_of_which_nothing_could_be_scored_has_no_mean_and_the_json_no_nan(
    root: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from flowkit.cli.main import main

    def unreadable(self: WholeClipDataset, index: int) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(WholeClipDataset, "_read", unreadable)
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "--data", str(root), "--device", "cpu", "--json", "--no-report", "--output", str(tmp_path)])
    assert ended.value.code == 3
    told = json.loads(capsys.readouterr().out, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert told["mean"] == dict.fromkeys(ROWS)
    assert result_of([(1, 1), (0, 0)]).mean_top1("motion") is None


def test_a_damaged_test_video_is_left_out_and_named(packed_root: Path, root: Any, tmp_path: Path) -> None:
    for name in ("splits", "runs"):
        shutil.copytree(root / name, tmp_path / name)
    shutil.copytree(packed_root / "shards", tmp_path / "shards")
    shutil.copy(root / "dataset.json", tmp_path)
    record = Dataset.open(tmp_path).split(1).test[0]
    path = tmp_path / "shards" / record.shard
    with h5py.File(path, "r") as file:
        (group,) = [group for group in file["videos"].values() if group.attrs["video_id"].decode() == record.video_id]
        place = group["frames"].id.get_offset() + int(group["frame_offsets"][5]) + 40  # frame 5, the first centre
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 255]))
    (split,) = evaluate(tmp_path, run="streams", execution=CPU).splits
    assert [clip.video_id for clip in split.failed] == [record.video_id]
    assert "CRC" in split.failed[0].reason
    assert record.video_id not in split.video_ids
    assert len(split.video_ids) == len(split.rows["motion"].ranks) == 5


def test_a_video_whose_scores_are_not_finite_is_left_out_and_named_not_counted_as_right(root: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from flowkit.model.scoring.tested_networks import TestedNetworks

    def overflowing(self: Any, clips: Any) -> Any:
        results = plain(self, clips)
        for clip, scores in zip(clips, results, strict=True):
            if clip.video_id == spoilt:
                scores["motion", "motion"][1] = float("nan")
        return results

    plain, spoilt = TestedNetworks.score, Dataset.open(root).split(1).test[2].video_id
    monkeypatch.setattr(scoring.TestedNetworks, "score", overflowing)
    (split,) = evaluate(root, run="streams", execution=CPU).splits
    assert [clip.video_id for clip in split.failed] == [spoilt]
    assert "not finite" in split.failed[0].reason
    assert {len(row.ranks) for row in split.rows.values()} == {5}


@pytest.mark.usefixtures("second_split")
def test_what_a_later_split_would_be_refused_for_is_found_before_the_first_is_tested(root: Any) -> None:
    save_networks(root, 1, run="half")
    told = []
    with pytest.raises(CheckpointError, match=r"flowkit train --split 2 --run half"):
        evaluate(root, splits=[1, 2], run="half", execution=CPU, on_event=told.append)
    assert told == []


@pytest.mark.usefixtures("second_split")
def test_each_split_s_results_are_handed_out_as_soon_as_they_are_there(root: Any) -> None:
    order = []
    result = evaluate(root, splits=[2, 1], run="streams", execution=CPU, on_event=order.append, on_split=order.append)
    one, two = (item for item in order if isinstance(item, Evaluation))
    assert order.index(one) < order.index(events.SplitStarted(1, 6))
    assert (one.splits + two.splits) == result.splits
    assert one.protocol == result.protocol


def test_a_split_without_test_videos_is_an_error(root: Any) -> None:
    split = Dataset.open(root).split(1)
    arguments = {"classes": split.classes, "quantiser": split.quantiser, "shards": split.shards}
    write_split(root, 3, protocol="csv", train=split.train, test=[], num_listed_train=12, num_listed_test=0, **arguments)
    with pytest.raises(ManifestError, match="no test video"):
        evaluate(root, splits=[3], execution=CPU)
    shutil.rmtree(root / "splits" / "split3")


def test_the_report_holds_the_numbers_the_scores_and_the_protocol(evaluation: Any, tmp_path: Path) -> None:
    (split,) = evaluation.splits
    paths = write_results(tmp_path / "out", split, evaluation, table="| a table |")
    assert {path.name for path in paths} == {path.name for path in (tmp_path / "out").iterdir()}
    assert "| a table |" in (tmp_path / "out" / "table.md").read_text()
    stored = json.loads((tmp_path / "out" / "results.json").read_text())
    assert stored["num_scored"] == 6
    assert stored["num_listed"] == 7
    assert stored["rows"]["motion"]["top1"] == split.rows["motion"].top1
    assert stored["rows"]["motion"]["confusion"] == split.rows["motion"].confusion.tolist()
    assert "25 frames" in stored["protocol"][0]
    with (tmp_path / "out" / "per_class.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class_name"] for row in rows] == list(split.classes)
    total = sum(float(row["ST-ResNet"]) * int(row["num_videos"]) for row in rows)
    assert total == pytest.approx(split.rows["ST-ResNet"].num_correct)
    with h5py.File(tmp_path / "out" / "scores.h5") as file:
        assert [name.decode() for name in file["video_ids"][:]] == list(split.video_ids)
        assert [name.decode() for name in file["classes"][:]] == list(split.classes)
        assert np.array_equal(file["labels"][:], split.labels)
        assert np.array_equal(file["rows/ST-ResNet*"][:], split.rows["ST-ResNet*"].scores)
        assert np.array_equal(file["streams/st-resnet/motion"][:], split.stream_scores["st-resnet", "motion"])


def test_classes_without_test_videos_have_no_accuracy(tmp_path: Path) -> None:
    result = result_of([(1, 1)])
    write_results(tmp_path, replace(result.splits[0], video_ids=("x",)), result, table="")
    assert (tmp_path / "per_class.csv").read_text() == "label,class_name,num_videos,motion\n0,a,1,1.0000\n1,b,0,\n"


command_line = partial(call_flowkit, "evaluate")


def test_the_command_prints_the_table_and_the_protocol_and_writes_the_report(root: Any) -> None:
    code, out, err = command_line("--data", root, "--no-report")
    assert code == 0
    assert [line.split("|")[1].strip() for line in out.splitlines() if line.startswith("| ")] == ["split 1", *ROWS, *HEADS]
    assert "a head is one output of a two-stream network by itself" in out
    assert "split 1: scored 6 of 7 listed videos" in out
    assert "25 frames a video" in out
    assert "reports/default/split1" in err
    assert (root / "reports" / "default" / "split1" / "results.json").is_file()


@pytest.mark.usefixtures("second_split")
def test_the_command_takes_all_splits_and_prints_json(root: Any) -> None:
    code, out, err = command_line("--data", root, "--split", "all", "--json", "--no-report")
    assert code == 0
    told = json.loads(out)
    assert (told["format"], told["format_version"]) == ("flowkit-evaluation", 1)
    assert [split["split"] for split in told["splits"]] == [1, 2]
    assert set(told["mean"]) == set(ROWS)
    assert all(set(split["heads"]) == set(HEADS) for split in told["splits"])
    assert "colour0-motion0" in err


def test_a_checkpoint_of_one_s_own_writes_nothing_into_the_run(root: Any, tmp_path: Path) -> None:
    shutil.rmtree(root / "reports", ignore_errors=True)
    folder = phase_folder(root, "default", 1, "motion")
    command_line("--data", root, "--checkpoint", folder)
    assert not (root / "reports").exists()
    command_line("--data", root, "--checkpoint", folder, "--output", tmp_path / "mine", "--no-report")
    assert (tmp_path / "mine" / "table.md").is_file()


def test_the_report_is_drawn_beside_the_numbers_and_again_from_them_alone(root: Any) -> None:
    folder = root / "reports" / "default" / "split1"
    numbers, pictures = {"results.json", "table.md", "per_class.csv", "per_video.csv", "scores.h5"}, {"confusion.png", "report.html"}
    code, first, err = command_line("--data", root)
    assert code == 0
    assert {path.name for path in folder.iterdir()} == numbers | pictures  # no curves: these networks were never trained
    assert "report.html" in err
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in pictures:
        (folder / name).unlink()
    code, second, _ = command_line("--data", root, "--redraw")
    assert (code, second) == (0, first)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    command_line("--data", root, "--no-report")  # the report that is there would tell of another test
    assert {path.name for path in folder.iterdir()} == numbers


def test_a_report_that_cannot_be_drawn_loses_no_number(root: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **settings: Any) -> None:
        raise RuntimeError("no ink \x1b[31m")

    monkeypatch.setattr("flowkit.model.report.page.write_report", fail)
    code, out, err = command_line("--data", root)
    assert code == 1
    assert "| ST-ResNet*" in out
    assert "the report could not be drawn, but all numbers are stored: RuntimeError: no ink \\x1b[31m" in err
    assert {path.name for path in (root / "reports" / "default" / "split1").iterdir()} == {
        "results.json",
        "table.md",
        "per_class.csv",
        "per_video.csv",
        "scores.h5",
    }


@pytest.mark.usefixtures("second_split")
def test_a_command_that_is_killed_keeps_the_splits_that_were_tested(root: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from flowkit.model.scoring.tested_networks import TestedNetworks

    def killed(self: Any, clips: Any) -> Any:
        if any(name.startswith(str(root / "runs" / "default" / "split2")) for name in self.sources.values()):
            raise KeyboardInterrupt
        return plain(self, clips)

    plain = TestedNetworks.score
    monkeypatch.setattr(scoring.TestedNetworks, "score", killed)
    shutil.rmtree(root / "reports", ignore_errors=True)
    with pytest.raises(click.Abort):
        command_line("--data", root, "--split", "1,2")
    assert json.loads((root / "reports" / "default" / "split1" / "results.json").read_text())["num_scored"] == 6
    assert not (root / "reports" / "default" / "split2").exists()


def test_redrawing_takes_stored_results_of_a_run_only(root: Any, tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="--redraw"):
        command_line("--data", root, "--redraw", "--checkpoint", phase_folder(root, "default", 1, "motion"))
    with pytest.raises(ManifestError, match="holds no results; make them with `flowkit evaluate`"):
        command_line("--data", root, "--redraw", "--output", tmp_path)
