"""Cuts and repeated frames: found in generated videos, and nothing found in pans, fades, flashes and noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from flowkit.scenes.measures import PairScan, match_error, small_frame
from flowkit.scenes.rule import SceneChanges, scene_changes
from flowkit.shards.jpeg import encode_jpeg
from flowkit.video.decode import read_frames

VIDEOS = Path(__file__).resolve().parents[4] / "shared" / "data" / "videos"
HEIGHT, WIDTH = 64, 96


def scene(seed: int, num_frames: int, *, step: float = 1.0, start: float = 0.0) -> list[NDArray[np.uint8]]:
    """Return a smooth random texture in colour that moves `step` px/frame to the left."""
    noise = np.random.default_rng(seed).integers(0, 256, (HEIGHT, 1200, 3), dtype=np.uint8)
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 6), np.empty_like(noise), 0, 255, cv2.NORM_MINMAX)
    moved = [np.array([[1, 0, -start - step * k], [0, 1, 0]], float) for k in range(num_frames)]
    return [cv2.warpAffine(texture, matrix, (WIDTH, HEIGHT)) for matrix in moved]


def found(frames: Sequence[NDArray[np.uint8]]) -> SceneChanges:
    scan = PairScan()
    scan.add([encode_jpeg(np.ascontiguousarray(frame)) for frame in frames])
    return scene_changes(scan.measures())


def mixed(first: NDArray[np.uint8], second: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    return np.round((1 - share) * first.astype(float) + share * second).astype(np.uint8)


@pytest.mark.parametrize("seed", range(4))
def test_cuts_are_found_where_they_are(seed: int) -> None:
    frames = [*scene(seed, 20), *scene(seed + 10, 7, step=-2, start=200), *scene(seed + 20, 15, step=0.2)]
    assert found(frames).cuts == (19, 26)


def test_a_cut_into_or_within_a_fast_pan_and_to_a_black_picture_is_found() -> None:
    black = [np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 8
    assert found([*scene(1, 12), *scene(2, 12, step=9)]).cuts == (11,)
    assert found([*scene(1, 12, step=9), *scene(2, 12, step=-9, start=400)]).cuts == (11,)
    assert found([*scene(1, 12), *black]).cuts == (11,)


def test_a_cut_is_found_near_the_start_and_the_end_and_in_a_video_of_two_frames() -> None:
    assert found([*scene(1, 1), *scene(2, 10)]).cuts == (0,)
    assert found([*scene(1, 10), *scene(2, 1)]).cuts == (9,)
    assert found([*scene(1, 1), *scene(2, 1)]).cuts == (0,)
    assert found(scene(1, 1)) == SceneChanges()


def test_pictures_that_stand_still_are_cut_where_they_change() -> None:
    changes = found([picture for seed in range(4) for picture in scene(seed, 1) * 9])
    assert changes == SceneChanges((8, 17, 26), 32)


def test_pans_that_begin_and_end_and_noise_are_no_cuts() -> None:
    noise = np.random.default_rng(0)
    pan = [*scene(3, 10), *scene(3, 15, step=12, start=10), *scene(3, 10, start=190)]
    grainy = [np.clip(frame + noise.normal(0, 20, frame.shape), 0, 255).astype(np.uint8) for frame in scene(4, 20)]
    shaken = [np.roll(frame, noise.integers(-6, 7, 2), (0, 1)) for frame in scene(5, 25)]
    for frames in (pan, grainy, shaken):
        assert found(frames) == SceneChanges()
    static = list(noise.integers(0, 256, (20, HEIGHT, WIDTH, 3), dtype=np.uint8))
    assert found(static).cuts == (), "neighbours that all differ are no cuts"


@pytest.mark.parametrize("num_frames", [4, 6, 12, 25])
def test_fades_and_dissolves_are_no_cuts(num_frames: int) -> None:
    first, second = scene(1, 40), scene(2, 40)
    shares = [0.0] * 10 + [k / num_frames for k in range(1, num_frames)] + [1.0] * 10
    assert found([mixed(a, b, s) for a, b, s in zip(first, second, shares, strict=False)]).cuts == ()
    assert found([mixed(a, np.zeros_like(a), s) for a, s in zip(first, shares, strict=False)]).cuts == ()
    assert found([mixed(np.zeros_like(a), a, s) for a, s in zip(first, shares, strict=False)]).cuts == ()


@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_a_flash_is_no_cut_and_a_white_picture_between_two_scenes_is(num_frames: int) -> None:
    frames, other = scene(1, 30), scene(2, 15)
    for k in range(12, 12 + num_frames):
        frames[k] = mixed(frames[k], np.full_like(frames[k], 255), 0.9)
    assert found(frames).cuts == ()
    assert found([*frames[: 12 + num_frames], *other]).cuts == (11, 11 + num_frames)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("times", [2, 3, 4])
def test_repeated_frames_are_counted_after_compression(tmp_path: Path, codec: str, times: int) -> None:
    frames = [frame for frame in scene(1, 24 // times, step=3) for _ in range(times)]
    repeated = 24 - 24 // times
    count = round_trip(tmp_path, frames, codec).num_repeated
    assert repeated - times <= count <= repeated, "a key frame may look new, and at the end nothing moves any more"


def test_a_film_at_thirty_frames_repeats_every_fifth(tmp_path: Path) -> None:
    film = scene(1, 33, step=2)
    changes = round_trip(tmp_path, [film[k - k // 5] for k in range(40)], "libx264")
    assert changes.cuts == ()
    assert 6 <= changes.num_repeated <= 7


def test_slow_motion_and_a_start_from_rest_repeat_nothing(tmp_path: Path) -> None:
    assert round_trip(tmp_path, scene(1, 30, step=0.4), "libx264").num_repeated == 0
    assert found([*scene(1, 10, step=0.2), *scene(1, 15, step=4, start=2)]).num_repeated == 0


def round_trip(folder: Path, frames: list[NDArray[np.uint8]], codec: str) -> SceneChanges:
    """Encode a video with losses, and return what is found in it."""
    with av.open(str(folder / "video.mkv"), "w") as container:
        stream = container.add_stream(codec, rate=24)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = 4 * HEIGHT, 4 * WIDTH, "yuv420p", 1_000_000
        for frame in frames:
            large = cv2.resize(frame, (4 * WIDTH, 4 * HEIGHT), interpolation=cv2.INTER_CUBIC)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(large, format="rgb24")))
        container.mux(stream.encode())
    return found([frame for batch in read_frames(folder / "video.mkv", short_side=4 * HEIGHT) for frame in batch.frames])


def test_blocks_are_found_where_they_moved_and_nowhere_in_another_picture() -> None:
    first, moved, other = (
        cv2.resize(frame, (24, 16), interpolation=cv2.INTER_AREA).astype(np.int16)
        for frame in (scene(1, 1)[0], scene(1, 1, start=8)[0], scene(2, 1)[0])
    )
    assert match_error(first, first) == 0
    assert match_error(first, moved) < 3 < 10 < match_error(first, other)


@pytest.mark.parametrize("size", [(1, 1), (2, 700), (31, 40), (33, 33), (256, 340), (900, 500)])
def test_small_frames_have_one_size_whatever_the_video_has(size: tuple[int, int]) -> None:
    small = small_frame(encode_jpeg(np.full((*size, 3), 200, np.uint8)))
    assert min(small.shape[:2]) == 32
    assert abs(int(small.mean()) - 200) <= 2
    assert found([np.full((*size, 3), level, np.uint8) for level in (10, 10, 240)]) == SceneChanges((1,), 1)


@pytest.mark.slow
def test_real_videos_without_cuts_have_none_and_joined_ones_have_theirs() -> None:
    """18 clips of UCF101 have no cut; two of different groups in one video have one."""
    if not VIDEOS.is_dir():
        pytest.skip(f"there are no real videos in {VIDEOS}")
    parts = []
    for path in sorted((VIDEOS / "ucf101").rglob("*.avi")):
        jpegs = [encode_jpeg(frame) for batch in read_frames(path, short_side=128) for frame in batch.frames]
        scan = PairScan()
        scan.add(jpegs)
        assert scene_changes(scan.measures()).cuts == (), path.name
        parts.append((path.stem.rpartition("_")[0], jpegs[:30]))
    joined = [(a, b) for k, (name, a) in enumerate(parts) for other, b in parts[k + 1 :] if name != other][::5]
    right = 0
    for a, b in joined:
        scan = PairScan()
        scan.add([*a, *b])
        right += scene_changes(scan.measures()).cuts == (29,)
    assert right >= 0.95 * len(joined)
