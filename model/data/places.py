"""Which frames and flow fields the samples of a clip or of a whole video consist of: single samples, or clips of consecutive frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowkit.model.data.clip_frames import chosen_clips, clip_frames
from flowkit.model.data.sampling import centres_within_scenes, evenly_spaced_centres, stack_fields, training_centres
from flowkit.model.settings.network_config import ClipPlan


class Places(NamedTuple):
    """Where the T samples of a clip lie in the video.

    Parameters
    ----------
    frames : int64 array, shape (T,)
        The frame of each sample.
    fields : int64 array, shape (n,)
        Every flow field that is needed, once.
    where : int64 array, shape (T, k)
        ``fields[where[t]]`` are the k flow fields of a sample: 10 of a stack, 1 of a frame in a clip of consecutive ones.
    """

    frames: NDArray[np.int64]
    fields: NDArray[np.int64]
    where: NDArray[np.int64]


def centred_places(centres: NDArray[np.int64]) -> Places:
    """Return single samples: a frame, and the stack of flow that is centred on it."""
    return Places(centres, *stack_fields(centres))


def clip_places(clips: NDArray[np.int64], num_frames: int) -> Places:
    """Return clips of consecutive frames (n, length), one after the other; each frame has the field that begins at it.

    The last frame of a video has no such field and takes that before it.
    """
    frames = clips.ravel()
    fields, where = np.unique(np.minimum(frames, num_frames - 2), return_inverse=True)
    return Places(frames, fields, where.reshape(-1, 1))


def training_places(
    generator: np.random.Generator,
    num_frames: int,
    *,
    plan: ClipPlan | None,
    num_samples: int,
    tau_min: int,
    tau_max: int,
    cuts: Sequence[int] = (),
) -> Places:
    """Draw the samples of one training clip, none of them across one of the `cuts`; `num_samples` of them, or so many clips of a plan."""
    if plan is None:
        return centred_places(
            training_centres(generator, num_frames, num_samples=num_samples, tau_min=tau_min, tau_max=tau_max, cuts=cuts),
        )
    return clip_places(chosen_clips(_training_clips(num_frames, plan, cuts), num_samples, generator=generator), num_frames)


def has_places(num_frames: int, *, plan: ClipPlan | None, cuts: Sequence[int]) -> bool:
    """Return whether a video has a sample that does not lie across a cut."""
    return bool(len(centres_within_scenes(num_frames, cuts) if plan is None else _training_clips(num_frames, plan, cuts)))


def _training_clips(num_frames: int, plan: ClipPlan, cuts: Sequence[int]) -> NDArray[np.int64]:
    """Return the clips of consecutive frames from which training draws: without those that have frames or fields across a cut."""
    clips = clip_frames(num_frames, length=plan.length, stride=plan.training_stride, first=plan.first)
    across = np.asarray(cuts, np.int64)
    return clips[~((clips[:, :1] <= across) & (across <= clips[:, -1:])).any(axis=1)]


def tested_places(num_frames: int, *, plan: ClipPlan | None, num_samples: int) -> Places:
    """Return the samples on which a video is tested: evenly spaced ones, or the clips of a plan."""
    if plan is None:
        return centred_places(evenly_spaced_centres(num_frames, num_samples))
    return clip_places(tested_clips(num_frames, plan), num_frames)


def tested_clips(num_frames: int, plan: ClipPlan) -> NDArray[np.int64]:
    """Return the frames of the clips on which a video is tested: int64 (n, length)."""
    clips = clip_frames(num_frames, length=plan.length, stride=plan.stride)
    return chosen_clips(clips, min(len(clips), plan.most))
