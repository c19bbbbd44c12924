"""What the generated videos promise: grey frames carry no appearance, single frames no motion. Each promise is also broken on purpose."""

from __future__ import annotations

import csv
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from flowkit import demo_videos as scenes
from flowkit.demo_videos import APPEARANCES, MOTIONS, SceneSettings, draw_scene, draw_trajectory, paint, reflect, render
from flowkit.errors import ParameterError
from flowkit.video.decode import probe, read_frames

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SMALL = SceneSettings(num_frames=3, width=84, height=64)
FULL = SceneSettings()


def grey_frames(rgb: np.ndarray) -> np.ndarray:
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in rgb])


def classifier_accuracy(features: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy on the second half of a linear classifier (ridge regression on one-hot labels) fitted to the first half."""
    half = len(features) // 2
    mean, deviation = features[:half].mean(0), features[:half].std(0) + 1e-6
    x = np.c_[(features - mean) / deviation, np.ones(len(features))]
    targets = np.eye(labels.max() + 1)[labels]
    weights = np.linalg.solve(x[:half].T @ x[:half] + 0.1 * half * np.eye(x.shape[1]), x[:half].T @ targets[:half])
    return float(((x[half:] @ weights).argmax(1) == labels[half:]).mean())


def chance_limit(num_classes: int, num_tested: int) -> float:
    """What guessing exceeds once in 30,000 times."""
    chance = 1 / num_classes
    return chance + 4 * np.sqrt(chance * (1 - chance) / num_tested)


# -- grey frames carry no appearance -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("appearance", APPEARANCES)
def test_every_hue_is_painted_at_exactly_equal_luminance(appearance: str) -> None:
    low, high = scenes.OBJECT_LUMA_RANGE
    luma = np.arange(int(low), int(high) + 1, dtype=np.uint8)[None]
    for offset in np.linspace(-scenes.HUE_JITTER_DEGREES, scenes.HUE_JITTER_DEGREES, 9):
        for chroma in np.linspace(*scenes.CHROMA_RANGE, 5):
            hue = np.deg2rad(APPEARANCES[appearance] + offset)
            rgb = paint(luma, np.full(luma.shape, chroma * np.cos(hue)), np.full(luma.shape, chroma * np.sin(hue)))
            assert np.array_equal(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), luma)
            wide = rgb.astype(float)
            assert np.abs((wide[..., 2] - luma) / 1.772 - chroma * np.cos(hue)).max() < 0.6  # and the colour is the one asked for
            assert np.abs((wide[..., 0] - luma) / 1.402 - chroma * np.sin(hue)).max() < 0.6


def test_hues_are_far_apart_even_with_their_jitter() -> None:
    angles = sorted(APPEARANCES.values())
    gaps = [(after - before) % 360 for before, after in zip(angles, [*angles[1:], angles[0] + 360], strict=True)]
    assert min(gaps) > 6 * scenes.HUE_JITTER_DEGREES


def test_a_scene_has_the_same_grey_frames_in_every_hue() -> None:
    for number, motion in enumerate(MOTIONS * 4):
        scene = draw_scene(motion, np.random.default_rng(number), SMALL)
        views = [render(scene, appearance) for appearance in APPEARANCES]
        for view in views[1:]:
            assert np.array_equal(grey_frames(view), grey_frames(views[0]))
            assert np.abs(view.astype(int) - views[0]).max() > 40


def test_decoded_grey_frames_hardly_differ_between_hues(tmp_path: Path) -> None:
    scene = draw_scene("Sliding", np.random.default_rng(3), replace(FULL, num_frames=5))
    decoded = []
    for appearance in APPEARANCES:
        path = tmp_path / f"{appearance}.avi"
        scenes.write_video(path, render(scene, appearance), frame_rate=12)
        decoded.append(np.concatenate([batch.frames for batch in read_frames(path, short_side=64)]))
    for view in decoded[1:]:
        difference = grey_frames(view).astype(int) - grey_frames(decoded[0])
        assert np.abs(difference).max() <= 2  # rounding of YCbCr -> RGB
        assert abs(difference.mean()) < 0.1
        assert np.abs(view.astype(int) - decoded[0]).max() > 40


def object_grey_statistics(num_scenes: int) -> tuple[np.ndarray, np.ndarray]:
    """Histogram and moments of the grey values around the object, in scenes of a hue drawn at random, and that hue."""
    rng = np.random.default_rng(11)
    features, labels = [], []
    for _ in range(num_scenes):
        scene = draw_scene(str(rng.choice(MOTIONS)), rng, replace(SMALL, num_frames=1))
        label = int(rng.integers(len(APPEARANCES)))
        grey = cv2.cvtColor(render(scene, list(APPEARANCES)[label])[0], cv2.COLOR_RGB2GRAY)
        x, y, radius = (float(part[0]) * SMALL.height for part in (scene.trajectory.x, scene.trajectory.y, scene.trajectory.radius))
        reach = max(int(0.6 * radius), 2)
        patch = grey[max(int(y) - reach, 0) : int(y) + reach, max(int(x) - reach, 0) : int(x) + reach].astype(float)
        histogram = np.histogram(patch, bins=16, range=(40, 200))[0] / patch.size
        features.append([*histogram, patch.mean(), patch.std(), np.median(patch), grey.mean(), grey.std()])
        labels.append(label)
    return np.array(features), np.array(labels)


@pytest.mark.slow
def test_grey_frames_do_not_tell_the_appearance() -> None:
    features, labels = object_grey_statistics(500)
    assert classifier_accuracy(features, labels) < chance_limit(3, 250)


@pytest.mark.slow
def test_the_same_statistics_find_hues_of_unequal_luminance(monkeypatch: pytest.MonkeyPatch) -> None:
    def paint_unequally(luma: np.ndarray, cb: np.ndarray, cr: np.ndarray) -> np.ndarray:
        """As computer graphics paints hues: the value in the hue's channel, less in the others, and the luminance what it may be."""
        excess = np.stack([1.402 * cr, -0.344 * cb - 0.714 * cr, 1.772 * cb], -1)
        share = np.where((excess == excess.max(-1, keepdims=True)) | (excess.max(-1, keepdims=True) < 25), 1.0, 0.5)
        return np.rint(luma[..., None] * share).astype(np.uint8)

    monkeypatch.setattr(scenes, "paint", paint_unequally)
    features, labels = object_grey_statistics(500)
    assert classifier_accuracy(features, labels) > chance_limit(3, 250) + 0.1


# -- single frames carry no motion -------------------------------------------------------------------------------------------------


def drawn_states(draw: Callable[..., scenes.Trajectory], motion: str, num_videos: int) -> np.ndarray:
    """x, y and log radius of many videos: (videos, frames, 3)."""
    rng = np.random.default_rng(MOTIONS.index(motion))
    drawn = [draw(motion, rng, FULL) for _ in range(num_videos)]
    return np.array([np.stack([one.x, one.y, np.log(one.radius)], axis=-1) for one in drawn])


def largest_kolmogorov_smirnov_ratio(draw: Callable[..., scenes.Trajectory], num_videos: int = 3000) -> float:
    """Kolmogorov-Smirnov distance of x, y and size between motions, over its limit; the largest of all frame indices and pairs."""
    states = {motion: drawn_states(draw, motion, num_videos) for motion in MOTIONS}
    num_comparisons = 3 * FULL.num_frames * 3
    limit = np.sqrt(-np.log(1e-4 / num_comparisons / 2) / 2) * np.sqrt(2 / num_videos)
    worst = 0.0
    for first, second in (("Sliding", "Bobbing"), ("Sliding", "Pulsing"), ("Bobbing", "Pulsing")):
        for k in range(FULL.num_frames):
            for c in range(3):
                a, b = np.sort(states[first][:, k, c]), np.sort(states[second][:, k, c])
                both = np.r_[a, b]
                distance = np.abs(np.searchsorted(a, both, "right") - np.searchsorted(b, both, "right")).max() / num_videos
                worst = max(worst, float(distance / limit))
    return worst


def state_classifier_accuracy(draw: Callable[..., scenes.Trajectory], frame: int, num_videos: int = 3000) -> float:
    """How well position and size in one frame, jointly (all products up to the fourth degree), tell the motion."""
    states = np.concatenate([drawn_states(draw, motion, num_videos)[:, frame] for motion in MOTIONS])
    labels = np.repeat(np.arange(len(MOTIONS)), num_videos)
    order = np.random.default_rng(0).permutation(len(labels))
    states = (states - states.mean(0)) / states.std(0)
    powers = [(i, j, k) for i in range(5) for j in range(5) for k in range(5) if 0 < i + j + k <= 4]
    features = np.stack([states[:, 0] ** i * states[:, 1] ** j * states[:, 2] ** k for i, j, k in powers], axis=-1)
    return classifier_accuracy(features[order], labels[order])


def draw_from_the_centre(motion: str, rng: np.random.Generator, settings: SceneSettings) -> scenes.Trajectory:
    """A leak: what moves starts in the middle of its range."""
    drawn = draw_trajectory(motion, rng, settings)
    if motion != "Sliding":
        return drawn
    middle = settings.width / settings.height / 2
    return replace(drawn, x=reflect(drawn.x - drawn.x[0] + middle, scenes.X_MARGIN, 2 * middle - scenes.X_MARGIN))


def draw_harmonic(motion: str, rng: np.random.Generator, settings: SceneSettings) -> scenes.Trajectory:
    """A subtler leak: a sine instead of a triangle wave lingers at the ends of its range."""
    drawn = draw_trajectory(motion, rng, settings)
    if motion != "Bobbing":
        return drawn
    phase = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(settings.num_frames) / 24
    low, high = scenes.Y_RANGE
    return replace(drawn, y=(low + high) / 2 + (high - low) / 2 * np.sin(phase))


def test_position_and_size_are_distributed_alike_for_every_motion_at_every_frame() -> None:
    assert largest_kolmogorov_smirnov_ratio(draw_trajectory) < 1


@pytest.mark.parametrize("leaky", [draw_from_the_centre, draw_harmonic])
def test_the_same_test_finds_leaky_trajectories(leaky: Callable[..., scenes.Trajectory]) -> None:
    assert largest_kolmogorov_smirnov_ratio(leaky) > 1.2


@pytest.mark.parametrize("frame", [0, 6, 11])
def test_position_and_size_together_do_not_tell_the_motion(frame: int) -> None:
    assert state_classifier_accuracy(draw_trajectory, frame) < chance_limit(3, 4500)


@pytest.mark.parametrize("leaky", [draw_from_the_centre, draw_harmonic])
def test_the_same_classifier_finds_leaky_trajectories(leaky: Callable[..., scenes.Trajectory]) -> None:
    assert state_classifier_accuracy(leaky, 0) > chance_limit(3, 4500)


def test_a_frame_is_made_from_that_frames_position_and_size_alone() -> None:
    scene = draw_scene("Sliding", np.random.default_rng(5), SMALL)
    k = 1
    for motion in MOTIONS:
        other = draw_trajectory(motion, np.random.default_rng(6), SMALL)
        for name in ("x", "y", "radius"):
            getattr(other, name)[k] = getattr(scene.trajectory, name)[k]
        assert np.array_equal(render(replace(scene, trajectory=other), "Fern")[k], render(scene, "Fern")[k])
        assert not np.array_equal(render(replace(scene, trajectory=other), "Fern")[0], render(scene, "Fern")[0])


def test_nothing_but_the_trajectory_depends_on_the_motion() -> None:
    def look(motion: str) -> dict[str, object]:
        values = vars(draw_scene(motion, np.random.default_rng(8), SMALL)).copy()
        values.pop("trajectory")
        return values | {"shake": values["shake"].tolist()}  # type: ignore[attr-defined]

    assert look("Sliding") == look("Bobbing") == look("Pulsing")


def test_decoding_a_frame_needs_no_other_frame(tmp_path: Path) -> None:
    frames = render(draw_scene("Bobbing", np.random.default_rng(9), replace(FULL, num_frames=6)), "Azure")
    whole, alone = tmp_path / "whole.avi", tmp_path / "alone.avi"
    scenes.write_video(whole, frames, frame_rate=12)
    scenes.write_video(alone, frames[4:5], frame_rate=12)
    decoded = np.concatenate([batch.frames for batch in read_frames(whole, short_side=None)])
    assert np.array_equal(decoded[4], next(iter(read_frames(alone, short_side=None))).frames[0])
    assert np.abs(decoded.astype(int) - frames).mean() < 4  # what coding and the halved colour planes cost


def rendered_frame_features(draw: Callable[..., scenes.Trajectory], num_videos: int) -> tuple[np.ndarray, np.ndarray]:
    """How strongly each part of one frame is coloured (where the object is), in the last frame of many videos, and their motion."""
    rng = np.random.default_rng(21)
    features, labels = [], []
    for number in range(num_videos):
        motion = MOTIONS[number % 3]
        scene = draw_scene(motion, rng, SMALL)
        drawn = draw(motion, rng, SMALL)
        last = scenes.Trajectory(x=drawn.x[-1:], y=drawn.y[-1:], radius=drawn.radius[-1:])
        frame = render(replace(scene, trajectory=last, settings=replace(SMALL, num_frames=1)), "Coral")[0].astype(float)
        colour = np.abs(frame - frame.mean(-1, keepdims=True)).mean(-1)
        features.append(np.r_[cv2.resize(colour, (8, 6), interpolation=cv2.INTER_AREA).ravel(), (colour > 30).mean()])
        labels.append(number % 3)
    return np.array(features), np.array(labels)


@pytest.mark.slow
def test_rendered_single_frames_do_not_tell_the_motion() -> None:
    assert classifier_accuracy(*rendered_frame_features(draw_trajectory, 500)) < chance_limit(3, 250)


@pytest.mark.slow
def test_the_same_classifier_finds_a_leak_in_rendered_frames() -> None:
    assert classifier_accuracy(*rendered_frame_features(draw_from_the_centre, 500)) > chance_limit(3, 250)


# -- motions -----------------------------------------------------------------------------------------------------------------------


def test_reflection_stays_in_range_and_keeps_the_speed() -> None:
    straight = np.linspace(-3.0, 4.0, 701)
    folded = reflect(straight, 0.2, 0.9)
    assert folded.min() >= 0.2
    assert folded.max() <= 0.9
    assert np.isclose(np.abs(np.diff(folded)), 0.01).mean() > 0.97  # but where it turns between two samples
    assert np.allclose(reflect(np.array([0.2, 0.5, 0.9]), 0.2, 0.9), [0.2, 0.5, 0.9])


@pytest.mark.parametrize(("motion", "axis"), [("Sliding", 0), ("Bobbing", 1), ("Pulsing", 2)])
def test_only_what_the_motion_names_moves_either_way_at_speeds_of_one_range(motion: str, axis: int) -> None:
    steps = np.diff(drawn_states(draw_trajectory, motion, 2000), axis=1)
    still = [other for other in range(3) if other != axis]
    assert np.abs(steps[..., still]).max() == 0
    largest = np.abs(steps[..., axis]).max(1)  # a turn between two frames makes a step shorter
    if motion == "Pulsing":
        largest = largest * np.sqrt(np.prod(scenes.RADIUS_RANGE))
    assert scenes.SPEED_RANGE[0] * 0.999 < largest.min()
    assert largest.max() < scenes.SPEED_RANGE[1] * 1.001
    assert 0.45 < (steps[:, 0, axis] > 0).mean() < 0.55  # mirroring changes nothing


def test_unknown_motions_and_appearances_are_refused() -> None:
    with pytest.raises(ParameterError, match="Sliding, Bobbing, Pulsing"):
        draw_trajectory("Falling", np.random.default_rng(0), SMALL)
    with pytest.raises(ParameterError, match="Coral, Fern, Azure"):
        render(draw_scene("Sliding", np.random.default_rng(0), SMALL), "Black")
    with pytest.raises(ParameterError, match="100x90"):
        SceneSettings(width=100, height=90)


# -- the data set on disk ----------------------------------------------------------------------------------------------------------


def test_a_data_set_is_videos_in_class_folders_and_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = replace(SMALL, num_frames=11)
    written = scenes.write_scenes(str(tmp_path), seed=4, train_per_class=2, test_per_class=1, settings=settings, progress=True)
    assert len(written) == 27
    assert "generate: 27/27 videos" in capsys.readouterr().err
    assert {video.class_name for video in written} == {a + m for a in APPEARANCES for m in MOTIONS}
    with (tmp_path / "split.csv").open(newline="", encoding="utf-8") as stored:
        rows = list(csv.DictReader(stored))
    assert [(row["video_id"], row["class_name"], row["subset"]) for row in rows] == [(v.video_id, v.class_name, v.subset) for v in written]
    assert sum(row["subset"] == "test" for row in rows) == 9
    groups = {subset: {v.video_id.rsplit("_", 2)[1] for v in written if v.subset == subset} for subset in scenes.SUBSETS}
    assert not groups["train"] & groups["test"]
    on_disk = sorted(path.relative_to(tmp_path / "videos").with_suffix("").as_posix() for path in (tmp_path / "videos").rglob("*.*"))
    assert on_disk == sorted(video.video_id for video in written)
    firsts = []
    for video in written:
        info = probe(video.path)
        assert (info.width, info.height, info.header_frames) == (84, 64, 11)
        firsts.append(np.concatenate([batch.frames for batch in read_frames(video.path, short_side=None)]))
        assert firsts[-1].shape == (11, 64, 84, 3)
    assert len({frames[0].tobytes() for frames in firsts}) == 27  # every video has its own scene


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    def contents(name: str, seed: int, test_per_class: int = 1) -> dict[str, bytes]:
        written = scenes.write_scenes(
            tmp_path / name, seed=seed, train_per_class=1, test_per_class=test_per_class, settings=replace(SMALL, num_frames=2)
        )
        return {video.video_id: video.path.read_bytes() for video in written}

    first = contents("a", 1)
    assert contents("b", 1) == first
    assert not set(contents("c", 2).values()) & set(first.values())
    assert first.items() < contents("d", 1, test_per_class=2).items()  # more videos leave the others as they are


def test_a_class_without_training_or_test_videos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="each class needs"):
        scenes.write_scenes(tmp_path, train_per_class=0)
