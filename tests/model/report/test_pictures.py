"""Training curves, confusion matrices and thumbnails: drawn from what is there, for one step and for a long run, for any name."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import contrast
from hostile_results import CLASSES, make_hostile_root, make_result, write_metrics
from PIL import Image

from flowkit.dataset.manifest import ClipRecord
from flowkit.describe.encoding import data_uri, drawn, jpeg, png
from flowkit.describe.flow_colour import flow_to_colour
from flowkit.model.evaluation.row_results import RowResult
from flowkit.model.report.confused_videos import Thumbnails, most_confused
from flowkit.model.report.confusion import confusion_picture, drawable, occurring_classes
from flowkit.model.report.curves import PANELS, curves_picture, panel_picture, read_curves, smoothed, smoothing_window
from flowkit.model.report.pictures import training_pictures
from flowkit.model.scoring.metrics import confusion_matrix, ranks_of_labels, softmax
from flowkit.model.systems.configs import make_configs


def config_of(phase: Any) -> Any:
    return make_configs("small", num_classes=6, num_videos=12, short_side=64)[phase]


# -- training curves ---------------------------------------------------------------------------------------------------------------


def test_curves_are_the_lines_of_metrics_by_stream(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.jsonl", ("appearance", "motion"), num_steps=25)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    curves = read_curves(tmp_path / "metrics.jsonl", config_of("st-resnet"))
    assert curves.steps.tolist() == list(range(25))
    assert curves.learning_rate.tolist() == [line["lr"] for line in lines]
    for stream in ("appearance", "motion"):
        assert curves.loss[stream].tolist() == [line[f"loss_{stream}"] for line in lines]
        assert curves.accuracy[stream].tolist() == [line[f"accuracy_{stream}"] for line in lines]


def test_what_was_measured_on_validation_videos_is_in_the_curves_of_its_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_metrics(path, ("appearance", "motion"), num_steps=10)
    with path.open("a") as file:
        for step, accuracy in ((4, 0.25), (9, 0.5)):
            both = {"validation_accuracy": accuracy, "validation_loss": 1.5}
            streams = {f"{name}_{stream}": value for name, value in both.items() for stream in ("appearance", "motion")}
            file.write(json.dumps({"step": step, **both, **streams, "validation_seconds": 3}) + "\n")
    curves = read_curves(path, config_of("st-resnet"))
    assert list(curves.validation_accuracy) == list(curves.validation_loss) == ["appearance", "motion", "both"]
    assert curves.validation_accuracy["both"][[4, 9]].tolist() == [0.25, 0.5]
    assert np.isfinite(curves.validation_loss["motion"]).sum() == 2
    assert np.isfinite(curves.loss["motion"]).all()
    plain = replace(curves, validation_loss={}, validation_accuracy={})
    for panel in ("loss", "accuracy"):
        assert (panel_picture(curves, panel) != panel_picture(plain, panel)).any()


@pytest.fixture
def axes_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the axes and the legend's texts of a panel that is drawn."""
    figures: list[Any] = []
    draw = drawn

    def kept(fill: Any, **named: Any) -> Any:
        return draw(lambda figure: (figures.append(figure), fill(figure)), **named)

    monkeypatch.setattr("flowkit.model.report.curves.drawn", kept)

    def axes(curves: Any, panel: Any) -> Any:
        panel_picture(curves, panel)
        figure = figures[-1]
        return figure.axes[0], [text.get_text() for legend in figure.legends for text in legend.get_texts()]

    return axes


@pytest.mark.parametrize("select", ["last", "best"])
def test_curves_show_guessing_and_the_best_checkpoint(tmp_path: Path, axes_of: Any, select: str) -> None:
    path = tmp_path / "metrics.jsonl"
    write_metrics(path, ("motion",), num_steps=40)
    with path.open("a") as file:
        for step, accuracy in ((9, 0.25), (19, 0.625), (29, 0.625), (39, 0.5)):
            line = {"step": step, "validation_accuracy": accuracy, "validation_loss": 1.5, "validation_accuracy_motion": accuracy}
            file.write(json.dumps(line | {"validation_loss_motion": 1.5}) + "\n")
    curves = read_curves(path, replace(config_of("motion"), select=select))
    assert (curves.best, curves.validation_best, curves.seconds) == (19, 0.625, 20)
    for panel, chance, told in (("loss", np.log(6), "guessing: ln 6 = 1.79"), ("accuracy", 100 / 6, "guessing: 16.7 %")):
        axes, texts = axes_of(curves, panel)
        lines = {line.get_label(): line for line in axes.get_lines()}
        assert lines[told].get_ydata() == pytest.approx([chance, chance])
        assert lines[f"{'tested weights' if select == 'best' else 'best validation'} (step 19)"].get_xdata() == [19, 19]
        assert set(lines) == set(texts)
        assert len({(line.get_color(), str(line.get_linestyle())) for line in lines.values()}) == len(lines), "each looks different"
    assert "loss per frame and stream" in axes_of(curves, "loss")[0].get_ylabel()


@pytest.mark.parametrize("num_steps", [1, 2, 3, 5, 41])
def test_steps_are_whole_numbers_on_the_axis(tmp_path: Path, axes_of: Any, num_steps: int) -> None:
    write_metrics(tmp_path / "metrics.jsonl", ("motion",), num_steps=num_steps)
    curves = read_curves(tmp_path / "metrics.jsonl", config_of("motion"))
    for panel in PANELS:
        axes, _ = axes_of(curves, panel)
        shown = [tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
        assert shown
        assert all(tick == round(tick) for tick in shown)


def test_learning_rates_are_plain_numbers(tmp_path: Path, axes_of: Any) -> None:
    write_metrics(tmp_path / "metrics.jsonl", ("motion",), num_steps=40)
    axes, _ = axes_of(read_curves(tmp_path / "metrics.jsonl", config_of("motion")), "learning rate")
    assert {"0.1", "0.01"} <= {label.get_text() for label in axes.get_yticklabels()}


def test_the_report_says_which_weights_were_tested(tmp_path: Path) -> None:
    dataset = make_hostile_root(tmp_path / "root")
    path = tmp_path / "root" / "runs" / "default" / "split1" / "motion" / "metrics.jsonl"
    with path.open("a") as file:
        file.write(json.dumps({"step": 9, "validation_accuracy": 0.5, "validation_loss": 1.5}) + "\n")
    result = make_result(dataset)
    made = result.provenances["motion"]
    for select, told in (("last", "; the weights of the last step were tested."), ("best", ", whose weights were tested.")):
        changed = replace(
            result,
            provenances={"motion": replace(made, config=replace(made.config, select=select))},
            checkpoints={"motion": result.checkpoints["motion"]},
        )
        (phase,) = training_pictures(changed).phases
        assert phase["note"].startswith("30 steps in 15 s")
        assert phase["note"].endswith(f"The best accuracy on them, 50.0 %, was measured after step 9{told}")
        assert "guessing 1.95" in phase["panels"][0]["alt"]
        assert "guessing 14.3 percent" in phase["panels"][1]["alt"]


def test_lines_that_are_cut_off_or_foreign_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = ["", "[]", '{"step": "x"}', '{"step": -1}', "null", "[" * 100_000, '{"step": 1, "lr": 0.5, "loss_motion": 2.0}']
    lines += [f'{{"step": 0, "lr": "NaN", "loss_motion": 1{"0" * 400}, "accuracy_motion": Infinity}}', '{"step": 2, "lo']
    path.write_text("\n".join(lines))
    curves = read_curves(path, config_of("motion"))
    assert curves.steps.tolist() == [0, 1]
    assert np.isnan(curves.learning_rate[0])
    assert np.isnan(curves.loss["motion"][0])
    assert curves.loss["motion"][1] == 2
    assert curves.accuracy == {}
    for panel in PANELS:
        panel_picture(curves, panel)
    path.write_bytes(b"\xff\x00no json")
    assert read_curves(path, config_of("motion")) is None
    assert read_curves(tmp_path / "absent", config_of("motion")) is None


@pytest.mark.parametrize("window", [1, 3, 7, 101])
def test_smoothing_is_the_mean_over_the_steps_around(window: int) -> None:
    values = np.random.default_rng(0).normal(size=40)
    values[7] = np.nan
    reach = window // 2
    naive = [np.nanmean(values[max(k - reach, 0) : k + reach + 1]) if window > 1 or k != 7 else np.nan for k in range(40)]
    assert np.allclose(smoothed(values, window), naive, equal_nan=True)


def test_the_window_grows_with_the_run_and_stays_odd() -> None:
    windows = {num: smoothing_window(num) for num in (1, 10, 50, 200, 2000, 40_000)}
    assert windows == {1: 1, 10: 1, 50: 3, 200: 11, 2000: 101, 40_000: 501}


@pytest.mark.parametrize("num_steps", [1, 2, 5000])
def test_a_run_of_any_length_is_drawn(tmp_path: Path, num_steps: int) -> None:
    write_metrics(tmp_path / "metrics.jsonl", ("appearance", "motion"), num_steps=num_steps)
    panels = [panel_picture(read_curves(tmp_path / "metrics.jsonl", config_of("st-resnet")), panel) for panel in PANELS]
    height, width, _ = panels[0].shape
    assert {panel.shape for panel in panels} == {(height, width, 3)}
    for panel in panels[:2]:
        blue = (panel[..., 2].astype(int) - panel[..., 0] > 100).sum()  # the appearance line, or its only point
        assert blue > (500 if num_steps > 1 else 20), blue
    assert curves_picture([panels, panels]).shape == (2 * height, 3 * width, 3)


def test_an_outlier_of_a_long_run_is_not_lost(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.jsonl", ("motion",), num_steps=5000)
    curves = read_curves(tmp_path / "metrics.jsonl", config_of("motion"))
    plain = panel_picture(curves, "loss")
    curves.loss["motion"][2501] = 50.0
    assert not np.array_equal(panel_picture(curves, "loss"), plain)


def test_curves_png_has_a_row_a_phase_and_only_of_those_that_have_metrics(tmp_path: Path) -> None:
    dataset = make_hostile_root(tmp_path / "root")
    for phase in ("motion", "st-resnet-star"):
        (tmp_path / "root" / "runs" / "default" / "split1" / phase / "metrics.jsonl").unlink()
    pictures = training_pictures(make_result(dataset))
    assert [phase["name"] for phase in pictures.phases] == ["appearance", "st-resnet"]
    assert [len(phase["panels"]) for phase in pictures.phases] == [3, 3]
    with Image.open(io.BytesIO(pictures.encoded)) as whole:
        panel = pictures.phases[0]["panels"][0]
        assert whole.size == pytest.approx((3 * 2 * panel["width"], 2 * 2 * panel["height"]), abs=4)


# -- confusion matrices ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num", [1, 3, 14])
def test_a_matrix_of_any_number_of_classes_is_drawn_with_its_diagonal_dark(num: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowkit.model.report.confusion._MOST_NAMES", 10)
    names = [CLASSES[k % len(CLASSES)] for k in range(num)]
    picture = confusion_picture(np.eye(num, dtype=np.int64), names, title="a <title> $x_1$")
    dark = (picture == (8, 48, 107)).all(-1)  # the colour of 100 %
    assert dark.any()
    below = confusion_picture(np.eye(num, k=-1, dtype=np.int64) + np.eye(num, k=num - 1, dtype=np.int64), names, title="")
    if num > 2:
        assert not np.array_equal(below, picture)
    assert max(picture.shape) < 3600


def test_a_single_video_off_the_diagonal_stands_out_from_white() -> None:
    counts = np.diag(np.full(40, 1000))
    counts[3, 30] = 1
    picture = confusion_picture(counts, [f"class {k}" for k in range(40)], title="")
    plain = confusion_picture(np.diag(np.full(40, 1000)), [f"class {k}" for k in range(40)], title="")
    pixels = picture[(picture != plain).any(-1)]
    colours, times = np.unique(pixels, axis=0, return_counts=True)
    red, green, blue = colours[times.argmax()].tolist()
    assert contrast(f"rgb({red}, {green}, {blue})", "rgb(255, 255, 255)") >= 3


def test_classes_that_do_not_occur_are_left_out() -> None:
    confusion = np.zeros((5, 5), np.int64)
    confusion[1, 3] = 2
    assert occurring_classes(confusion).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("name", "can"), [("plain", True), ("Übung_7 $x$", True), ("跳ぶ", False), ("\U0001f98a", False), ("a\nb", False), ("\u202eb", False)]
)
def test_a_name_is_drawn_only_if_the_font_has_it(name: str, can: bool) -> None:
    assert drawable(name) == can


# -- confused videos ---------------------------------------------------------------------------------------------------------------


def row_of(scores: Any, labels: Any) -> Any:
    return RowResult(scores, ranks_of_labels(scores, labels), confusion_matrix(labels, scores.argmax(1), scores.shape[1]))


def test_pairs_are_those_of_a_naive_count_and_their_videos_the_surest() -> None:
    draw = np.random.default_rng(0)
    labels, scores = draw.integers(0, 5, 200), draw.normal(size=(200, 5))
    row = row_of(scores, labels)
    predicted, sure = scores.argmax(1), softmax(scores).max(1)
    wrong = {(a, b): [v for v in range(200) if {labels[v], predicted[v]} == {a, b}] for a in range(5) for b in range(a + 1, 5)}
    pairs = most_confused(row, labels, num_pairs=4, num_videos=3, num_best=2)
    counts = sorted((len(videos) for videos in wrong.values()), reverse=True)
    assert [pair.num_first + pair.num_second for pair in pairs] == counts[:4]
    for pair in pairs:
        videos = wrong[min(pair.first, pair.second), max(pair.first, pair.second)]
        assert pair.num_first == sum(labels[v] == pair.first for v in videos) >= pair.num_second
        assert [mistake.video for mistake in pair.mistakes] == sorted(videos, key=lambda v: -sure[v])[:3]
        for mistake in pair.mistakes:
            best = np.argsort(-scores[mistake.video])[:2]
            assert [k for k, _, _ in mistake.best] == best.tolist()
            assert mistake.predicted == best[0]
            assert mistake.best[0][1] == scores[mistake.video, best[0]]
            assert mistake.best[0][2] == pytest.approx(sure[mistake.video])


def test_scores_that_are_softmax_means_are_their_own_shares() -> None:
    scores = np.array([[0.2, 0.5, 0.3]])
    (pair,) = most_confused(row_of(scores, np.array([0])), np.array([0]), num_pairs=1, num_videos=1, num_best=3, fusion="softmax_mean")
    assert [share for _, _, share in pair.mistakes[0].best] == [0.5, 0.3, 0.2]


def test_nothing_wrong_makes_no_pairs() -> None:
    assert most_confused(row_of(np.eye(3), np.arange(3)), np.arange(3), num_pairs=3, num_videos=3, num_best=3) == []


def test_thumbnails_are_the_frames_and_the_flow_of_the_shard_in_one_scale(tmp_path: Path) -> None:
    dataset = make_hostile_root(tmp_path)
    records = dataset.split(1).test[:2]
    thumbnails = Thumbnails(dataset, [*records, ClipRecord("absent", 0, CLASSES[0], 12, "shard-00000.h5")], num_moments=3)
    assert list(thumbnails.failures) == ["absent"]
    assert thumbnails.moments("absent") is None
    from flowkit.shards.reader import ShardReader

    speeds = []
    for record in records:
        moments = thumbnails.moments(record.video_id)
        assert moments.indices == (1, 5, 9)
        with ShardReader(dataset.shard_path(record)) as shard:
            clip = shard.clip(record.video_id)
            flow = [clip.quantiser.decode(clip.flow(k, k + 1)[0]) for k in moments.indices]
            for place, k in enumerate(moments.indices):
                columns = slice(place * 36, place * 36 + 32)
                assert np.array_equal(moments.frames[:, columns], clip.frames([k])[0])
                assert np.array_equal(moments.flow[:, columns], flow_to_colour(flow[place], scale_px=thumbnails.scale_px))
            speeds.append(np.percentile(np.hypot(*np.stack(flow).transpose(1, 0, 2, 3)), 99))
    assert thumbnails.scale_px >= max(speeds) > thumbnails.scale_px / 3


def test_pictures_survive_their_encoding() -> None:
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, 15:] = (200, 30, 90)
    for encoded, kind in ((png(pixels), "png"), (png(pixels, num_colours=16), "png"), (jpeg(pixels), "jpeg")):
        assert data_uri(encoded).startswith(f"data:image/{kind};base64,")
        with Image.open(io.BytesIO(encoded)) as image:
            assert np.abs(np.asarray(image.convert("RGB")).astype(int) - pixels).max() < (1 if kind == "png" else 40)
