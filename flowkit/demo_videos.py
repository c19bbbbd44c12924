"""Generated videos whose class is an appearance and a motion, made so that neither half can be recognised in the wrong input.

A class is a pair: one of `APPEARANCES` (a hue) and one of `MOTIONS`. An object of any shape, texture, size and brightness moves over any
background before a shaking camera.

* **Grey frames carry no appearance.** Every hue is painted at equal luminance: `paint` returns pixels whose ``RGB2GRAY`` value is
  exactly the given luminance. Optical flow sees grey frames only, so a motion stream cannot know the hue.
* **Single frames carry no motion.** The moving quantity (x, y or the logarithm of the size) starts uniformly in its range, goes either
  way at constant speed and is reflected at the ends: so it is uniform at every frame index, exactly as in the classes where it stands
  still. No motion differs from its mirror image. Frames are coded one by one, so that not even coding artefacts reveal the motion.

So on balanced classes appearance alone cannot be expected to exceed 1 / number of motions, nor motion alone 1 / number of appearances.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.dataset.progress import ProgressBar
from flowkit.errors import ParameterError
from flowkit.files import replacing, write_atomically

Floats = NDArray[np.float64]

APPEARANCES = {"Coral": 110.0, "Fern": 230.0, "Azure": 350.0}  # name -> angle in the (Cb, Cr) plane, degrees
MOTIONS = ("Sliding", "Bobbing", "Pulsing")  # along x, along y, in size
SHAPES = ("disc", "square", "triangle", "hexagon", "star", "flower")
TEXTURES = ("blobs", "checks", "dots")
SUBSETS = ("train", "test")

HUE_JITTER_DEGREES = 12.0
CHROMA_RANGE = (42.0, 50.0)  # distance from grey in the (Cb, Cr) plane
OBJECT_LUMA_RANGE = (72.0, 164.0)  # every hue of that chroma exists in RGB at these luminances
BACKGROUND_LUMA_RANGE = (40.0, 215.0)
BACKGROUND_CHROMA = 9.0  # at most; of any hue
RADIUS_RANGE = (0.14, 0.28)  # in frame heights, as all lengths below
Y_RANGE = (0.3, 0.7)
X_MARGIN = 0.3  # x lies in [X_MARGIN, width / height - X_MARGIN]
SPEED_RANGE = (0.026, 0.042)  # of the object's centre, or of its rim when it pulses, per frame
SHAKE_AMPLITUDE = 0.006


@dataclass(frozen=True)
class SceneSettings:
    """Size of the videos.

    Parameters
    ----------
    num_frames : int
        Frames per video.
    width, height : int, px
        Even, at least 32; the width is at least 1.25 times the height, so that objects have room along x.
    frame_rate : int
        Frames per second.
    shake : float
        How much the camera shakes, as a multiple of the demo's: with 10, by 2.5 px per frame along x and along y, on average.
    """

    num_frames: int = 12
    width: int = 160
    height: int = 120
    frame_rate: int = 12
    shake: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (("num_frames", 1), ("width", 32), ("height", 32), ("frame_rate", 1)):
            if getattr(self, name) < least:
                raise ParameterError(f"{name} of a generated video must be at least {least}, got {getattr(self, name)!r}")
        if not 0 <= self.shake < float("inf"):
            raise ParameterError(f"shake of a generated video must be a number of at least 0, got {self.shake!r}")
        if self.width % 2 or self.height % 2 or self.width < 1.25 * self.height:
            raise ParameterError(f"generated videos need even sides and width >= 1.25 x height, got {self.width}x{self.height}")


@dataclass(frozen=True)
class Trajectory:
    """Position and size of the object in each frame: float64 (N,) each, in frame heights; y is measured downwards."""

    x: Floats
    y: Floats
    radius: Floats


@dataclass(frozen=True)
class Scene:
    """Everything about a video except its appearance class: the object, its background and its motion.

    `hue_offset` (degrees) and `chroma` vary within a class; `seed` draws the patterns of the object and of the background.
    """

    settings: SceneSettings
    trajectory: Trajectory
    shake: Floats  # (N, 2), frame heights
    shape: str
    texture: str
    orientation: float
    texture_scale: float
    luma: float
    contrast: float
    background_luma: float
    background_contrast: float
    hue_offset: float
    chroma: float
    seed: int


@dataclass(frozen=True)
class GeneratedVideo:
    """A video that was written: its row in the list, and its file."""

    video_id: str
    class_name: str
    subset: str
    path: Path


def reflect(position: Floats, low: float, high: float) -> Floats:
    """Fold a coordinate that moves at constant speed into [low, high], as if reflected at both ends: a triangle wave."""
    span = high - low
    folded: Floats = np.mod(position - low, 2 * span)
    return low + np.minimum(folded, 2 * span - folded)


def draw_trajectory(motion: str, rng: np.random.Generator, settings: SceneSettings) -> Trajectory:
    """Draw the motion of the object of one video.

    Parameters
    ----------
    motion : str
        One of `MOTIONS`.
    rng : numpy.random.Generator
        The source of random numbers.
    settings : SceneSettings
        Size of the videos.

    Returns
    -------
    Trajectory
        At each frame x, y and log(radius) are uniform in their ranges and independent, whatever the motion.

    Raises
    ------
    ParameterError
        If there is no such motion.
    """
    if motion not in MOTIONS:
        raise ParameterError(f"motion must be one of {', '.join(MOTIONS)}, got {motion!r}")
    ranges = {
        "Sliding": (X_MARGIN, settings.width / settings.height - X_MARGIN),
        "Bobbing": Y_RANGE,
        "Pulsing": (float(np.log(RADIUS_RANGE[0])), float(np.log(RADIUS_RANGE[1]))),
    }
    start = {name: rng.uniform(*ranges[name]) for name in MOTIONS}
    speed = rng.uniform(*SPEED_RANGE) * rng.choice((-1.0, 1.0))
    if motion == "Pulsing":
        speed /= float(np.sqrt(RADIUS_RANGE[0] * RADIUS_RANGE[1]))  # of the rim -> of log(radius), at the middle size
    frames = np.arange(settings.num_frames, dtype=np.float64)
    path = {name: reflect(start[name] + (speed if name == motion else 0.0) * frames, *ranges[name]) for name in MOTIONS}
    return Trajectory(x=path["Sliding"], y=path["Bobbing"], radius=np.exp(path["Pulsing"]))


def draw_scene(motion: str, rng: np.random.Generator, settings: SceneSettings) -> Scene:
    """Draw a scene for a motion, one of `MOTIONS`; only its trajectory depends on it, and nothing on the appearance class."""
    trajectory = draw_trajectory(motion, rng, settings)
    frames = np.arange(settings.num_frames)[:, None]
    periods, phases = rng.uniform(5, 14, (2, 1, 2)), rng.uniform(0, 2 * np.pi, (2, 1, 2))
    waves = np.sin(2 * np.pi * frames / periods + phases)  # (2, N, 2)
    return Scene(
        settings=settings,
        trajectory=trajectory,
        shake=settings.shake * SHAKE_AMPLITUDE * rng.uniform(0.2, 1.0) * waves.sum(0),
        shape=str(rng.choice(SHAPES)),
        texture=str(rng.choice(TEXTURES)),
        orientation=rng.uniform(0, 2 * np.pi),
        texture_scale=rng.uniform(0.7, 1.1),
        luma=rng.uniform(95, 140),
        contrast=rng.uniform(16, 28),
        background_luma=rng.uniform(95, 160),
        background_contrast=rng.uniform(8, 18),
        hue_offset=rng.uniform(-HUE_JITTER_DEGREES, HUE_JITTER_DEGREES),
        chroma=rng.uniform(*CHROMA_RANGE),
        seed=int(rng.integers(2**32)),
    )


def paint(luma: NDArray[np.uint8], cb: NDArray[Any], cr: NDArray[Any]) -> NDArray[np.uint8]:
    """Return an RGB picture of exactly this luminance in a colour.

    Parameters
    ----------
    luma : uint8 array, shape (H, W)
        The result of ``cv2.cvtColor(..., COLOR_RGB2GRAY)`` on the picture.
    cb, cr : float array, shape (H, W)
        Colour difference (BT.601, full range, zero is grey).

    Returns
    -------
    uint8 array, shape (H, W, 3), RGB
        Its grey equals `luma` exactly wherever the colour exists at that luminance (no channel leaves 0..255).

    Notes
    -----
    Red and blue are rounded, then the equation is solved for green. Rounding green changes grey by at most 0.294, so
    that grey rounds to the given value.
    """
    grey = luma.astype(np.int64)
    red = np.clip(np.rint(grey + 1.402 * cr), 0, 255).astype(np.int64)
    blue = np.clip(np.rint(grey + 1.772 * cb), 0, 255).astype(np.int64)
    green = np.rint((grey - 0.299 * red - 0.114 * blue) / 0.587)
    return np.stack([red, np.clip(green, 0, 255).astype(np.int64), blue], axis=-1).astype(np.uint8)


def _noise(rng: np.random.Generator, side: int, smooth: float) -> Floats:
    """Return periodic smooth noise (side, side) of mean 0 and deviation 1; `smooth` is in samples."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None, :])
    spectrum = np.fft.fft2(rng.standard_normal((side, side))) * np.exp(-2 * (np.pi * smooth * frequency) ** 2)
    spectrum[0, 0] = 0.0
    noise = np.fft.ifft2(spectrum).real
    return np.asarray(noise / noise.std())


def _pattern(texture: str, rng: np.random.Generator, side: int = 128, cells: int = 4) -> NDArray[np.float32]:
    """Return a periodic texture (side, side) in [-1, 1] with about `cells` repeats per side."""
    angle = 2 * np.pi * cells * np.arange(side) / side
    phase = rng.uniform(0, 2 * np.pi, 2)
    wave_y, wave_x = np.sin(angle + phase[0])[:, None], np.sin(angle + phase[1])[None, :]
    patterns: dict[str, Callable[[], Floats]] = {
        "blobs": lambda: np.tanh(1.5 * _noise(rng, side, side / cells / 5)),
        "checks": lambda: np.tanh(4 * wave_y * wave_x),
        "dots": lambda: np.tanh(3 * (wave_y + wave_x - 0.6)),
    }
    # A weak second layer without repeats keeps a periodic texture from matching itself one period further.
    return np.asarray(0.8 * patterns[texture]() + 0.2 * np.tanh(_noise(rng, side, side / 8)), dtype=np.float32)


def _outline(shape: str, angle: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the distance from centre to rim at each angle; all shapes have about the area of the unit disc."""

    def polygon(sides: int) -> NDArray[np.float32]:
        sector = np.mod(angle, 2 * np.pi / sides) - np.pi / sides
        return np.asarray(np.cos(np.pi / sides) / np.cos(sector) * np.sqrt(2 * np.pi / sides / np.sin(2 * np.pi / sides)), np.float32)

    if shape == "disc":
        return np.ones_like(angle)
    if shape == "star":
        return np.asarray(1.0 + 0.32 * (2 / np.pi) * np.arcsin(np.cos(5 * angle)), np.float32)
    if shape == "flower":
        return np.asarray(0.98 + 0.2 * np.cos(6 * angle), np.float32)
    return polygon({"triangle": 3, "square": 4, "hexagon": 6}[shape])


def _background(scene: Scene, rng: np.random.Generator, margin: int) -> NDArray[np.float32]:
    """Return luma, Cb and Cr (H + 2 margin, W + 2 margin, 3) of the background."""
    height, width = scene.settings.height + 2 * margin, scene.settings.width + 2 * margin
    side = max(height, width)
    broad, fine = _noise(rng, side, side / 9), _noise(rng, side, side / 60)
    luma = scene.background_luma + scene.background_contrast * (0.6 * broad + 0.7 * fine)
    hues, chroma = rng.uniform(0, 2 * np.pi, 2), rng.uniform(0.3 * BACKGROUND_CHROMA, BACKGROUND_CHROMA, 2)
    blend = 0.5 + 0.5 * np.tanh(_noise(rng, side, side / 7))
    ends = chroma * np.array([np.cos(hues), np.sin(hues)])  # (Cb and Cr, two colours)
    layers = [np.clip(luma, *BACKGROUND_LUMA_RANGE), *(a * blend + b * (1 - blend) for a, b in ends)]
    return np.stack(layers, axis=-1)[:height, :width].astype(np.float32)


def render(scene: Scene, appearance: str) -> NDArray[np.uint8]:
    """Render a scene in one hue.

    Parameters
    ----------
    scene : Scene
        What to render.
    appearance : str
        One of `APPEARANCES`, the hue of the object.

    Returns
    -------
    uint8 array, shape (N, H, W, 3), RGB
        The frames. In grey they are the same for every appearance, bit by bit.

    Raises
    ------
    ParameterError
        If there is no such appearance.
    """
    import cv2

    if appearance not in APPEARANCES:
        raise ParameterError(f"appearance must be one of {', '.join(APPEARANCES)}, got {appearance!r}")
    hue = np.deg2rad(APPEARANCES[appearance] + scene.hue_offset)
    colour = np.array([scene.chroma * np.cos(hue), scene.chroma * np.sin(hue)], np.float32)
    rng = np.random.default_rng(scene.seed)
    height, width = scene.settings.height, scene.settings.width
    margin = int(np.ceil(3 * SHAKE_AMPLITUDE * height)) + 2
    pattern, backdrop = _pattern(scene.texture, rng), _background(scene, rng, margin)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    frames = np.empty((scene.settings.num_frames, height, width, 3), np.uint8)
    turn = np.array([[np.cos(scene.orientation), np.sin(scene.orientation)], [-np.sin(scene.orientation), np.cos(scene.orientation)]])
    samples_per_radius = pattern.shape[0] / 4 / scene.texture_scale  # a repeat takes `texture_scale` radii
    for k in range(len(frames)):
        shift = scene.shake[k] * height
        view = np.array([[1, 0, shift[0] - margin], [0, 1, shift[1] - margin]], np.float64)
        picture = cv2.warpAffine(backdrop, view, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        radius = float(scene.trajectory.radius[k]) * height
        across = (columns + 0.5 - scene.trajectory.x[k] * height - shift[0]) / radius
        down = (rows + 0.5 - scene.trajectory.y[k] * height - shift[1]) / radius
        u = (turn[0, 0] * across + turn[0, 1] * down).astype(np.float32)  # along the axes of the object, in radii
        v = (turn[1, 0] * across + turn[1, 1] * down).astype(np.float32)
        distance = np.hypot(u, v)
        rim = _outline(scene.shape, np.arctan2(v, u))
        cover = np.clip((rim - distance) * radius + 0.5, 0, 1)
        shadow = np.clip(1.6 - np.hypot(across - 0.25, down - 0.3) / rim, 0, 1) * 0.3
        marks = cv2.remap(pattern, u * samples_per_radius, v * samples_per_radius, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        light = -10.0 * np.clip(across + down, -1.5, 1.5)
        body = np.clip(scene.luma + scene.contrast * marks + light, *OBJECT_LUMA_RANGE)
        # Both ends of every mixture lie in the RGB cube, so the mixture does and `paint` is exact.
        picture = ((1 - cover) * (1 - shadow))[..., None] * picture
        luma = picture[..., 0] + cover * body
        frames[k] = paint(np.rint(luma).astype(np.uint8), picture[..., 1] + cover * colour[0], picture[..., 2] + cover * colour[1])
    return frames


def to_yuv420(frames: NDArray[np.uint8]) -> list[tuple[NDArray[np.uint8], ...]]:
    """Return the planes Y (H, W), Cb and Cr (H/2, W/2) of RGB frames (BT.601, 16..235), Y being a function of the grey value alone."""
    import cv2

    planes = []
    for frame in frames:
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float64)
        luma = np.rint(16 + grey * (219 / 255))
        both = []
        for channel, scale in ((2, 1.772), (0, 1.402)):
            difference = (frame[..., channel] - grey) / scale
            mean = difference.reshape(grey.shape[0] // 2, 2, grey.shape[1] // 2, 2).mean((1, 3))
            both.append(np.rint(128 + mean * (224 / 255)).astype(np.uint8))
        planes.append((luma.astype(np.uint8), *both))
    return planes


def write_video(path: Path, frames: NDArray[np.uint8], *, frame_rate: int) -> None:
    """Write RGB frames as MPEG-4 in AVI, like the videos of UCF101, with the finest quantiser and without prediction between frames.

    Parameters
    ----------
    path : Path
        The file, which gets this name when it is complete.
    frames : uint8 array, shape (N, H, W, 3), RGB
        The frames, with even sides.
    frame_rate : int
        Frames per second.

    Notes
    -----
    Prediction between frames would leave traces of the motion in each frame. A fixed quantiser keeps the coded luminance
    independent of the colours.
    """
    import av

    height, width = frames.shape[1:3]
    with replacing(path) as part, av.open(str(part), "w", format="avi", options={"fflags": "bitexact"}) as container:
        stream = container.add_stream("mpeg4", rate=Fraction(frame_rate), options={"qmin": "2", "qmax": "2", "flags": "bitexact"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = 1
        for planes in to_yuv420(frames):
            picture = av.VideoFrame.from_ndarray(np.concatenate([plane.ravel() for plane in planes]).reshape(-1, width), format="yuv420p")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def class_names() -> dict[str, tuple[str, str]]:
    """Return the classes: from name to (appearance, motion)."""
    return {appearance + motion: (appearance, motion) for appearance in APPEARANCES for motion in MOTIONS}


def write_scenes(
    root: str | os.PathLike[str],
    *,
    seed: int = 0,
    train_per_class: int = 12,
    test_per_class: int = 6,
    settings: SceneSettings | None = None,
    progress: bool | None = None,
) -> list[GeneratedVideo]:
    """Write a data set: ``root/videos/<class>/v_<class>_gNN_c01.avi`` and its split, ``root/split.csv``.

    Parameters
    ----------
    root : path
        The folder to write to, made if need be.
    seed : int
        The same seed draws the same scenes, whatever the other numbers are: video g of a class and subset is always the same scene.
    train_per_class, test_per_class : int
        Videos of each class. Each video is a scene and a group of its own; groups are numbered from 1, training first.
    settings : SceneSettings, optional
        Size of the videos.
    progress : bool, optional
        Show the progress on stderr. By default it is shown on a terminal and in a notebook.

    Returns
    -------
    list of GeneratedVideo
        Sorted by class, then group.

    Raises
    ------
    ParameterError
        If a number is not positive.
    """
    root, settings = Path(root), settings or SceneSettings()
    if train_per_class < 1 or test_per_class < 1:
        raise ParameterError(f"each class needs a training and a test video, got {train_per_class} and {test_per_class}")
    written = []
    num_videos = len(class_names()) * (train_per_class + test_per_class)
    with ProgressBar("generate", total=num_videos, unit="videos", progress=progress) as bar:
        for label, (class_name, (appearance, motion)) in enumerate(class_names().items()):
            folder = root / "videos" / class_name
            folder.mkdir(parents=True, exist_ok=True)
            for group in range(1, train_per_class + test_per_class + 1):
                subset = group > train_per_class
                number = group - train_per_class if subset else group
                rng = np.random.default_rng([seed, int(subset), label, number])
                path = folder / f"v_{class_name}_g{group:02d}_c01.avi"
                write_video(path, render(draw_scene(motion, rng, settings), appearance), frame_rate=settings.frame_rate)
                written.append(GeneratedVideo(f"{class_name}/{path.stem}", class_name, SUBSETS[subset], path))
                bar.advance()
    rows = io.StringIO(newline="")
    lines = csv.writer(rows, lineterminator="\n")
    lines.writerow(["video_id", "class_name", "subset"])
    lines.writerows([video.video_id, video.class_name, video.subset] for video in written)
    write_atomically(root / "split.csv", rows.getvalue())
    return written
