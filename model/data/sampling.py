"""Which frames make up a clip, and which videos make up a batch: integer arithmetic, with every random draw keyed by its place in the run.

Indices are 0-based: flow field k is the motion from frame k to frame k+1; the stack with centre frame c is fields c-5 to c+4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from flowkit.dataset.manifest import MIN_FRAMES
from flowkit.errors import ParameterError
from flowkit.model.settings.network import NUM_FLOW_FIELDS
from flowkit.model.settings.training import Phase

REACH = NUM_FLOW_FIELDS // 2  # a stack spans REACH frames on either side of its centre
NUM_TEST_CENTRES = 25

# The first phases are numbered; the number of any other follows from its name, so that no list of all phases is needed.
_NUMBERS: dict[Phase, int] = {"appearance": 0, "motion": 1, "st-resnet": 2, "st-resnet-star": 3}
# These keep the streams of random numbers apart.
_FOR_SAMPLE, _FOR_ORDER, _FOR_NETWORK, _FOR_START, _FOR_TAU, _FOR_CLASSES, _FOR_CLASS = 1, 2, 3, 4, 5, 6, 7


def valid_centres(num_frames: int) -> range:
    """Return the frames that can be the centre of a flow stack: 5 to N-6.

    Raises
    ------
    ParameterError
        If the video is shorter than 11 frames.
    """
    if num_frames < MIN_FRAMES:
        raise ParameterError(f"a clip needs at least {MIN_FRAMES} frames (a stack of {NUM_FLOW_FIELDS} flow fields), got {num_frames}")
    return range(REACH, num_frames - REACH)


def evenly_spaced_centres(num_frames: int, num_centres: int) -> NDArray[np.int64]:
    """Return centres spread evenly over all valid ones, including the first and the last; a short video repeats some.

    Notes
    -----
    The official code (cnn_get_im_flow_batch.m:83-88) rounds the centres with MATLAB's ``round``, halves away from zero. This is the same in
    integers; NumPy's ``rint`` rounds halves to even, which differs by one frame in some videos.
    """
    span = len(valid_centres(num_frames)) - 1
    if num_centres == 1:
        return np.array([REACH + span // 2])
    gaps = num_centres - 1
    return REACH + (2 * span * np.arange(num_centres) + gaps) // (2 * gaps)


def protocol_centres(num_frames: int) -> NDArray[np.int64]:
    """Return the centre frames of the 25 samples on which a video is tested."""
    return evenly_spaced_centres(num_frames, NUM_TEST_CENTRES)


def centres_within_scenes(num_frames: int, cuts: Sequence[int]) -> NDArray[np.int64]:
    """Return the frames whose flow stack has none of these fields, which lead across cuts; there may be none.

    Examples
    --------
    >>> from flowkit.model.data.sampling import centres_within_scenes
    >>> centres_within_scenes(24, [11]).tolist()  # scenes of 12 frames
    [5, 6, 17, 18]
    """
    centres, across = np.asarray(valid_centres(num_frames), np.int64), np.asarray(cuts, np.int64)
    return centres[~((centres[:, None] - REACH <= across) & (across < centres[:, None] + REACH)).any(axis=1)]


def training_centres(
    generator: np.random.Generator, num_frames: int, *, num_samples: int, tau_min: int, tau_max: int, cuts: Sequence[int] = ()
) -> NDArray[np.int64]:
    """Draw the centre frames of one training clip.

    Parameters
    ----------
    generator : numpy.random.Generator
        The clip's random numbers.
    num_frames : int
        N, the frames of the video, at least 11.
    num_samples : int
        T, the number of centres.
    tau_min, tau_max : int, frames
        The distance between neighbouring centres is drawn uniformly from ``tau_min`` to ``tau_max``, both included.
    cuts : sequence of int
        Flow fields that no stack may have.

    Returns
    -------
    int64 array, shape (T,), non-decreasing, in [5, N-6]
        With the drawn distance if T centres fit; else spread evenly over the video.

    Raises
    ------
    ParameterError
        If the video is shorter than 11 frames, or every stack has one of the `cuts`.
    """
    centres = valid_centres(num_frames)
    tau = int(generator.integers(tau_min, tau_max, endpoint=True))
    if len(cuts):
        return _centres_beside_cuts(generator, centres_within_scenes(num_frames, cuts), num_samples, tau)
    last_start = centres[-1] - (num_samples - 1) * tau
    if last_start < REACH:
        return evenly_spaced_centres(num_frames, num_samples)
    return int(generator.integers(REACH, last_start, endpoint=True)) + tau * np.arange(num_samples)


def _centres_beside_cuts(generator: np.random.Generator, allowed: NDArray[np.int64], num_samples: int, tau: int) -> NDArray[np.int64]:
    """Return centres at this distance, all of them allowed ones; if there are none, allowed centres that are spread evenly."""
    if not len(allowed):
        raise ParameterError("every flow stack of the video lies across a cut")
    steps = tau * np.arange(num_samples)
    starts = allowed[np.isin(allowed[:, None] + steps, allowed).all(axis=1)]
    if len(starts):
        return int(starts[generator.integers(len(starts))]) + steps
    gaps, span = max(num_samples - 1, 1), len(allowed) - 1
    return allowed[(2 * span * np.arange(num_samples) + gaps) // (2 * gaps)]


def sub_batch_tau(seed: int, phase: Phase, step: int, sub_batch: int, tau_min: int, tau_max: int) -> int:
    """Draw the distance that all clips of a sub-batch share, as the official code does (getBatchWrapper_rgbflow.m:31-33)."""
    return int(_generator(_FOR_TAU, phase, step, sub_batch, seed).integers(tau_min, tau_max, endpoint=True))


def stack_fields(centres: Sequence[int] | NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which flow fields the stacks of these centres need, each once, and which of them each stack consists of.

    Returns
    -------
    fields : int64 array, shape (n,)
        Indices of flow fields, increasing.
    where : int64 array, shape (T, 10)
        ``fields[where[t]]`` are the indices ``centres[t] - 5`` to ``centres[t] + 4``.
    """
    wanted = np.asarray(centres)[:, None] + np.arange(-REACH, REACH)
    fields, where = np.unique(wanted, return_inverse=True)
    return fields, where.reshape(wanted.shape)


def sample_generator(seed: int, phase: Phase, step: int, position: int) -> np.random.Generator:
    """Return the generator of one sample's draws: a function of its place in the run, not of the process that reads it."""
    return _generator(_FOR_SAMPLE, phase, step, position, seed)


def network_seed(seed: int, phase: Phase, step: int, sub_batch: int) -> int:
    """Return the seed of what the network draws (dropout) in one sub-batch, in [0, 2^63)."""
    return int(_generator(_FOR_NETWORK, phase, step, sub_batch, seed).integers(2**63))


def initial_seed(seed: int, phase: Phase) -> int:
    """Return the seed of a phase's random starting weights, in [0, 2^63)."""
    return int(_generator(_FOR_START, phase, 0, 0, seed).integers(2**63))


def batch_videos(step: int, *, num_videos: int, batch: int, seed: int, phase: Phase) -> list[int]:
    """Return the videos of a step's batch: all videos in random order, in a new order each time all have been used."""
    first = step * batch
    return [int(_order(seed, phase, index // num_videos, num_videos)[index % num_videos]) for index in range(first, first + batch)]


def balanced_videos(step: int, *, labels: Sequence[int], batch: int, seed: int, phase: Phase) -> list[int]:
    """Return the videos of a step's batch, with equally many of each class that has videos.

    Parameters
    ----------
    step : int
        The number of the step, from 0.
    labels : sequence of int
        The class of each training video.
    batch : int
        Videos per step.
    seed : int
        The seed of all draws.
    phase : str
        The phase, whose draws differ from those of the others.

    Notes
    -----
    The classes take turns, in a new random order each round; each turn takes the next video of the class, all of them in random order
    and in a new order each time all have been taken. So the turn alone decides which video it is.
    """
    members = _members(tuple(labels))
    videos = []
    for turn in range(step * batch, (step + 1) * batch):
        round_, place = divmod(turn, len(members))
        label = int(_order(seed, phase, round_, len(members), purpose=_FOR_CLASSES)[place])
        pass_, place = divmod(round_, len(members[label]))
        videos.append(members[label][int(_class_order(seed, phase, pass_, label, len(members[label]))[place])])
    return videos


@lru_cache(maxsize=1)
def _members(labels: tuple[int, ...]) -> list[list[int]]:
    """Return the videos of each class that has any, in the order of the labels."""
    members: dict[int, list[int]] = {label: [] for label in sorted(set(labels))}
    for video, label in enumerate(labels):
        members[label].append(video)
    return list(members.values())


@lru_cache(maxsize=1 << 12)
def _class_order(seed: int, phase: Phase, pass_: int, label: int, num_videos: int) -> NDArray[np.int64]:
    """Return the order of the videos of one class in one pass over them."""
    return _generator(_FOR_CLASS, phase, pass_, label, seed).permutation(num_videos)


@lru_cache(maxsize=4)
def _order(seed: int, phase: Phase, epoch: int, num: int, purpose: int = _FOR_ORDER) -> NDArray[np.int64]:
    """Return the order of the videos in one pass, or that of the classes in one round."""
    return _generator(purpose, phase, epoch, 0, seed).permutation(num)


def phase_number(phase: Phase) -> int:
    """Return the number that keeps the draws of a phase apart from those of all others: in [0, 2^32), the same in every version.

    Examples
    --------
    >>> from flowkit.model.data.sampling import phase_number
    >>> phase_number("motion"), phase_number("another-network")
    (1, 2766538514)
    """
    number = _NUMBERS.get(phase)
    return int.from_bytes(hashlib.sha256(phase.encode()).digest()[:4], "big") if number is None else number


def _generator(purpose: int, phase: Phase, first: int, second: int, seed: int) -> np.random.Generator:
    """Return a generator for one key. The seed comes last, since only it may need more than one 32-bit word."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((purpose, phase_number(phase), first, second, seed))))
