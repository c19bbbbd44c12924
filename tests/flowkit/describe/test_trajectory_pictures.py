"""Pictures of trajectories: which are drawn in a frame and where, and what inspect says about them."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
import pytest
from command_lines import run_flowkit
from shard_files import attributes
from textures import moving_texture

from flowkit.describe import pictures
from flowkit.describe.trajectory_pictures import _drawn_frames, draw_trajectories
from flowkit.shards.reader import ShardReader
from flowkit.shards.writer import ClipWriter
from flowkit.trajectories.improved import improved_trajectories

if TYPE_CHECKING:
    from pathlib import Path

    from flowkit.shards.reader import Clip

run = partial(run_flowkit, "inspect")
NUM_FRAMES, HEIGHT, WIDTH = 20, 65, 91


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """A clip of a bright textured square that moves to the right before a still, dark texture."""
    background, square = moving_texture(1, HEIGHT, WIDTH)[0] // 4, 128 + moving_texture(1, 30, 30, seed=1)[0] // 2
    frames = np.repeat(np.repeat(background[None, ..., None], NUM_FRAMES, axis=0), 3, axis=3)
    for k, frame in enumerate(frames):
        frame[18:48, 10 + 2 * k : 40 + 2 * k] = square[..., None]
    path = tmp_path_factory.mktemp("clip") / "clip.h5"
    with ClipWriter(path, height=HEIGHT, width=WIDTH) as writer:
        writer.append_frames(frames)
        writer.append_flow(np.full((NUM_FRAMES - 1, 2, HEIGHT, WIDTH), 128, np.uint8))
        writer.finish(attributes("run/a", num_frames=NUM_FRAMES))
    return ShardReader(path).clip("run/a")


def test_each_frame_shows_the_trajectories_that_pass_through_it(clip: Clip) -> None:
    frames = clip.frames(slice(None))
    found = improved_trajectories(frames)
    assert len(found) > 10
    drawn = list(_drawn_frames(clip, NUM_FRAMES))
    assert len(drawn) == NUM_FRAMES
    for number, (picture, num_shown, num_ended) in enumerate(drawn):
        passing = (found.end_frame - 15 <= number) & (number <= found.end_frame)
        assert num_shown == passing.sum()
        assert num_ended == (found.end_frame == number).sum()
        changed = np.argwhere((picture != frames[number]).any(axis=2))
        x = found.points[passing][:, :, 0]
        assert changed[:, 1].min() >= x.min() - 3
        here = found.points[passing, number - found.end_frame[passing] + 15]
        row, column = np.rint(here[0, ::-1]).astype(int)
        red, green, _ = picture[row, column].astype(int)
        assert red > green


def test_the_still_is_the_frame_with_the_most_and_the_film_shows_all(clip: Clip, tmp_path: Path) -> None:
    made = draw_trajectories(clip, tmp_path / "new")
    assert (made.num_trajectories, made.num_frames) == (len(improved_trajectories(clip.frames(slice(None)))), NUM_FRAMES)
    counts = [num for _, num, _ in _drawn_frames(clip, NUM_FRAMES)]
    expected = list(_drawn_frames(clip, NUM_FRAMES))[int(np.argmax(counts))][0]
    np.testing.assert_array_equal(cv2.imread(str(made.still))[..., ::-1], expected)
    assert made.animation is not None
    with av.open(str(made.animation)) as film:
        shown = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(shown) == NUM_FRAMES
    assert shown[0].shape == (66, 92, 3)  # sides are even


def test_of_a_long_clip_the_beginning_is_looked_at(clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pictures.MOST_PICTURES, "gif", 17)
    made = draw_trajectories(clip, tmp_path, animation="gif")
    assert made.num_frames == 17
    assert made.num_trajectories == len(improved_trajectories(clip.frames(range(17))))
    assert sorted(path.name for path in tmp_path.iterdir()) == [made.animation.name, made.still.name]


def test_the_command_draws_them_when_asked(packed_root: Path, tmp_path: Path) -> None:
    with ShardReader(next((packed_root / "shards").glob("*.h5"))) as reader:
        video_id = reader.video_ids[0]
    result = run(video_id, "--data", packed_root, "--output", tmp_path, "--trajectories", "--animation", "none", "--json")
    assert result.code == 0, result
    answer = json.loads(result.out)
    assert answer["num_trajectories"] > 0
    assert (tmp_path / answer["trajectories_still"]).is_file()
    assert answer["trajectories_animation"] is None
    result = run(video_id, "--data", packed_root, "--output", tmp_path, "--trajectories")
    assert "Number of trajectories in the first" in result.err
    assert len([line for line in result.out.splitlines() if "trajectories" in line]) == 2


def test_a_gallery_has_no_trajectories(packed_root: Path) -> None:
    result = run("--gallery", "--data", packed_root, "--trajectories")
    assert result.code == 2
    assert "--trajectories would do nothing here: a gallery shows frames and flow" in result.err
