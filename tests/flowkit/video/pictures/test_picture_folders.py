"""Folders of numbered pictures are videos: the same pixels and flow as the video they were taken from, and what is missing is damage."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from PIL import Image
from small_videos import SETTINGS, write_video
from worker_tasks import run_here

from flowkit import ParameterError, Reading, ShardReader, VideoDecodeError, extract, probe, read_frames
from flowkit.video.containers import VIDEO_SUFFIXES
from flowkit.video.named import find_videos
from flowkit.video.pictures.folder import picture_folder
from flowkit.video.tree import scan_videos

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def pixels_of(path: Path, **how: object) -> NDArray[np.uint8]:
    return np.concatenate([batch.frames for batch in read_frames(path, short_side=None, **how)])  # type: ignore[arg-type]


def report_of(path: Path, **how: object) -> tuple[str, str, int]:
    *_, last = read_frames(path, short_side=None, **how)  # type: ignore[arg-type]
    assert last.report is not None
    return last.report.losses, last.report.notes, last.report.decode_errors


def drawn(num_frames: int, *, height: int = 36, width: int = 48) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).integers(0, 256, (height + 40, width + 40, 3), dtype=np.uint8)
    smooth = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), np.empty_like(noise), 0, 255, cv2.NORM_MINMAX)
    return np.stack([smooth[k : k + height, k : k + width] for k in range(num_frames)])


def write_pictures(folder: Path, frames: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], name: str = "{:06d}.png", first: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, start=first):
        assert cv2.imwrite(str(folder / name.format(number)), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    return folder


@pytest.mark.parametrize("reading", [Reading(frame_rate=25), Reading(frame_rate=25, fps="12.5")])
def test_a_folder_of_png_frames_gives_the_clip_of_the_video_they_were_taken_from(
    tmp_path: Path, reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowkit.extraction.run.run_tasks", run_here)
    path = write_video(tmp_path / "video" / "Run" / "a.mkv", 12)
    write_pictures(tmp_path / "folder" / "Run" / "a", pixels_of(path), "{:d}.png", first=0)
    clips = {}
    for kind in ("video", "folder"):
        report = extract(tmp_path / kind, tmp_path / f"{kind}-data", settings=replace(SETTINGS, reading=reading), jobs=1, progress=False)
        assert [(result.video_id, result.status, result.error) for result in report.done] == [("Run/a", "ok", "")]
        with ShardReader(tmp_path / f"{kind}-data" / "clips" / "Run" / "a.h5") as reader:
            clip = reader.clip("Run/a")
            assert clip.times is not None
            about = clip.attributes
            clips[kind] = (clip.encoded_frames(0, len(clip)), clip.flow(0, len(clip) - 1).tobytes(), clip.times.tolist())
            clips[kind] += (about.class_name, about.frame_rate, about.num_frames, about.source_frames)
    assert clips["video"] == clips["folder"]
    again = extract(tmp_path / "folder", tmp_path / "folder-data", jobs=1, progress=False)
    assert len(again.skipped) == 1
    write_pictures(tmp_path / "folder" / "Run" / "a", [np.zeros((36, 48, 3), np.uint8)], "{:d}.png", first=5)
    changed = extract(tmp_path / "folder", tmp_path / "folder-data", jobs=1, progress=False)
    assert len(changed.done) == 1, "one picture was replaced"


def test_pictures_are_in_the_order_of_their_numbers_with_or_without_zeros(tmp_path: Path) -> None:
    frames = drawn(12)
    for name in ("{:d}.png", "img_{:05d}.png", "frame{}.PNG"):
        folder = write_pictures(tmp_path / name[:3], frames, name)
        (folder / "cover.jpg").write_bytes(b"no number")
        assert np.array_equal(pixels_of(folder), frames)
    info = probe(tmp_path / "img")
    assert (info.width, info.height, info.header_frames, info.frame_rate, info.codec) == (48, 36, 12, 0, "png")


def test_jpeg_colours_are_those_of_the_jpeg(tmp_path: Path) -> None:
    frames = drawn(3)
    tmp_path.joinpath("a").mkdir()
    for k, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "a" / f"{k}.jpg", quality=95)
    expected = np.stack([np.asarray(Image.open(tmp_path / "a" / f"{k}.jpg").convert("RGB")) for k in range(3)])
    assert np.abs(pixels_of(tmp_path / "a").astype(int) - expected).max() <= 1


@pytest.mark.parametrize(("orientation", "quarters"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_the_rotation_of_the_camera_is_applied(tmp_path: Path, orientation: int, quarters: int) -> None:
    frames = drawn(2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "a").mkdir()
    for k, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "a" / f"{k}.png", exif=exif)
    found = pixels_of(tmp_path / "a")
    assert np.array_equal(found, np.stack([np.rot90(frame, quarters) for frame in frames]))


def test_grey_of_16_bits_is_that_of_a_video(tmp_path: Path) -> None:
    levels = (7500 + drawn(3)[..., 0].astype(np.uint16)).astype(np.uint16)
    (tmp_path / "a").mkdir()
    for k, picture in enumerate(levels):
        assert cv2.imwrite(str(tmp_path / "a" / f"{k}.png"), picture)
    _, notes, _ = report_of(tmp_path / "a")
    assert f"16-bit grey from {levels.min()} to {levels.max()} becomes" in notes
    low, high = int(levels.min()), int(levels.max())
    stretched = pixels_of(tmp_path / "a", reading=Reading(grey_range=(low, high)))
    assert np.array_equal(stretched[..., 0], np.rint((levels.astype(float) - low) * (255 / (high - low))).astype(np.uint8))


def test_gaps_other_sizes_and_broken_pictures_are_damage(tmp_path: Path) -> None:
    frames = drawn(10)
    gaps = write_pictures(tmp_path / "gaps", frames)
    (gaps / "000004.png").unlink()
    (gaps / "000005.png").unlink()
    assert report_of(gaps)[0] == "decoded 8 of 10 frames, the first missing number is 4"
    *_, last = read_frames(gaps, reading=Reading(frame_rate=10))
    assert last.times is not None
    assert last.times.tolist() == [0.0, 0.1, 0.2, 0.5, 0.6, 0.7, 0.8, 0.9], "what is missing took its time"
    mixed = write_pictures(tmp_path / "mixed", frames)
    write_pictures(mixed, drawn(2, height=48), first=6)
    assert report_of(mixed)[0] == "2 pictures of another size: 48x48 instead of 48x36 px from '000006.png' on"
    assert pixels_of(mixed).shape == (10, 36, 48, 3)
    broken = write_pictures(tmp_path / "broken", frames, "{:d}.jpg")
    (broken / "3.jpg").write_bytes((broken / "3.jpg").read_bytes()[:-20])
    (broken / "4.jpg").write_bytes(b"")
    losses, _, errors = report_of(broken)
    assert losses in [f"decoded {n} of 10 frames, 2 decode errors" for n in (8, 9)], "whether OpenCV shows the one that is cut off"
    assert errors == 2


def test_which_folders_are_videos(tmp_path: Path) -> None:
    frames = drawn(3)
    write_pictures(tmp_path / "Run" / "a", frames)
    write_pictures(tmp_path / "Run" / "b", frames, "{:d}.jpg")
    write_pictures(tmp_path / "Jump" / "thumbs", frames[:1])  # a single picture
    write_video(tmp_path / "Jump" / "c.mkv", 3)
    write_pictures(tmp_path / "Jump", frames, "thumb{}.jpg")  # beside a video
    write_pictures(tmp_path / "Run", frames, "cover{}.png")  # above other videos
    write_pictures(tmp_path / "Run" / ".hidden", frames)
    scan = scan_videos(tmp_path, VIDEO_SUFFIXES)
    assert [(video.video_id, video.class_name) for video in scan.videos] == [("Jump/c", "Jump"), ("Run/a", "Run"), ("Run/b", "Run")]
    assert scan.ignored == {"stray pictures": 7, "hidden": 1}
    folder, one = find_videos(tmp_path / "Run" / "a", VIDEO_SUFFIXES)
    assert [(video.video_id, video.path) for video in one.videos] == [("a", tmp_path / "Run" / "a")]
    assert folder == tmp_path / "Run"


def test_folders_that_cannot_be_videos_say_why(tmp_path: Path) -> None:
    frames = drawn(2)
    both = write_pictures(write_pictures(tmp_path / "both", frames, "img_{}.png"), frames, "flow_x_{}.png")
    with pytest.raises(VideoDecodeError, match=r"several series of numbered pictures, 'flow_x_\.\.\.' and 'img_\.\.\.'"):
        picture_folder(both)
    twice = write_pictures(write_pictures(tmp_path / "twice", frames, "{:d}.png"), frames, "{:03d}.png")
    with pytest.raises(VideoDecodeError, match="two pictures with the number 1"):
        picture_folder(twice)
    write_pictures(tmp_path / "a", frames)
    with pytest.raises(VideoDecodeError, match="--frame-rate"):
        pixels_of(tmp_path / "a", reading=Reading(fps=5))
    with pytest.raises(ParameterError, match="frame_rate must be"):
        Reading(frame_rate="fast")
    assert Reading(frame_rate="30000/1001").known_rate == Fraction(30000, 1001)
    *_, last = read_frames(tmp_path / "a")
    assert last.times is not None
    assert np.isnan(last.times).all()
