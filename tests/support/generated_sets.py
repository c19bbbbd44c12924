"""Generated data sets that are hard on a schedule: little motion before a static camera, and classes of uneven size."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import flowkit
from flowkit.dataset.settings import ExtractSettings
from flowkit.demo_videos import APPEARANCES, MOTIONS, SUBSETS, Scene, SceneSettings, Trajectory, draw_scene, render, write_video

LITTLE = 0.25  # of the way that the demo's objects go: less than half a pixel per frame where a video has 48 rows


def slowed(scene: Scene, share: float) -> Scene:
    """Return a scene before a static camera, whose object goes only this share of its way."""

    def near_start(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(values[0] + share * (values - values[0]))

    path = scene.trajectory
    trajectory = Trajectory(near_start(path.x), near_start(path.y), np.exp(near_start(np.log(path.radius))))
    return replace(scene, shake=np.zeros_like(scene.shake), trajectory=trajectory)


def write_motions(
    folder: Path,
    counts: Mapping[str, tuple[int, int]],
    *,
    share: float = 1.0,
    num_frames: int = 12,
    height: int = 64,
    width: int | None = None,
    shake: float = 1.0,
    seed: int = 0,
) -> None:
    """Write videos whose class is a motion, in any hue, and their lists: ``videos/<motion>/*.avi`` and ``split.csv``.

    Parameters
    ----------
    folder : Path
        The folder to write to.
    counts : dict from str to (int, int)
        The classes, some of `MOTIONS`, with their numbers of training and test videos.
    share : float
        How far the object goes, as a share of the demo's way. Below 1 the camera does not shake.
    num_frames : int
        Frames per video.
    height : int, px
        The short side, a multiple of 4.
    width : int, px, optional
        The long side. Default: 1.5 times the short one.
    shake : float
        How much the camera shakes, as a multiple of the demo's.
    seed : int
        The seed of all draws.
    """
    settings = SceneSettings(num_frames=num_frames, width=width or height * 3 // 2, height=height, shake=shake)
    rows = [("video_id", "class_name", "subset")]
    for motion, numbers in counts.items():
        (folder / "videos" / motion).mkdir(parents=True)
        for subset, count in zip(SUBSETS, numbers, strict=True):
            for number in range(count):
                generator = np.random.default_rng([seed, MOTIONS.index(motion), SUBSETS.index(subset), number])
                scene = draw_scene(motion, generator, settings)
                hue = str(generator.choice(list(APPEARANCES)))
                path = folder / "videos" / motion / f"{subset}{number:03d}.avi"
                write_video(path, render(slowed(scene, share) if share < 1 else scene, hue), frame_rate=settings.frame_rate)
                rows.append((f"{motion}/{path.stem}", motion, subset))
    with (folder / "split.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def write_orders(
    folder: Path, counts: tuple[int, int], *, first: str = "Sliding", second: str = "Bobbing", scene_frames: int = 16, height: int = 48
) -> None:
    """Write videos of two scenes, one after the other, whose class is the order of their motions; and their list, ``split.csv``.

    Each scene has its own object and background, so that nothing but the order tells the classes apart. Field ``scene_frames - 1`` is that
    across the cut.

    Parameters
    ----------
    folder : Path
        The folder to write to.
    counts : (int, int)
        The numbers of training and test videos of each class.
    first, second : str
        Two of `MOTIONS`.
    scene_frames : int
        Frames of each scene.
    height : int, px
        The short side, a multiple of 4.
    """
    settings = SceneSettings(num_frames=scene_frames, width=height * 3 // 2, height=height)
    rows = [("video_id", "class_name", "subset")]
    for number_of_order, motions in enumerate(((first, second), (second, first))):
        name = " then ".join(motions)
        (folder / "videos" / name).mkdir(parents=True)
        for subset, count in zip(SUBSETS, counts, strict=True):
            for number in range(count):
                generator = np.random.default_rng([number_of_order, SUBSETS.index(subset), number])
                scenes = [draw_scene(motion, generator, settings) for motion in motions]
                hues = generator.choice(list(APPEARANCES), 2)
                frames = np.concatenate([render(scene, str(hue)) for scene, hue in zip(scenes, hues, strict=True)])
                path = folder / "videos" / name / f"{subset}{number:03d}.avi"
                write_video(path, frames, frame_rate=settings.frame_rate)
                rows.append((f"{name}/{path.stem}", name, subset))
    with (folder / "split.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def packed_motions(folder: Path, counts: Mapping[str, tuple[int, int]], *, height: int = 64, share: float = 1.0, seed: int = 0) -> Path:
    """Write such videos, compute their flow and pack them; return the data root."""
    write_motions(folder, counts, share=share, height=height, seed=seed)
    root = folder / "data"
    flowkit.extract(folder / "videos", root, settings=ExtractSettings(short_side=height), jobs=1, progress=False)
    flowkit.pack(root, lists=folder / "split.csv", progress=False)
    return root
