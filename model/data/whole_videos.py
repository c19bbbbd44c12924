"""Whole videos, as the test protocol sees them: frames at full size, 25 in the test, each with its stack of flow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset as TorchDataset

from flowkit.dataset.manifest import ClipRecord
from flowkit.dataset.root import Dataset
from flowkit.errors import FlowkitError, SourceChangedError
from flowkit.model.data.clips import ManifestClips, clip_loader, read_fields
from flowkit.model.data.places import Places, tested_places
from flowkit.model.data.sampling import NUM_TEST_CENTRES
from flowkit.model.data.transforms import seen_flow, seen_rgb
from flowkit.model.settings.network_config import ClipPlan, View
from flowkit.quantise import Quantiser
from flowkit.shards.reader import Clip

_READ_AT_ONCE = 256  # frames, or flow fields: as many as 25 stacks have, and a few more


@dataclass(frozen=True)
class WholeClip:
    """One video as it is tested, not yet normalised; T is 25 in the test.

    Parameters
    ----------
    rgb : uint8 array, shape (T, H, W, 3)
        The frames.
    fields : uint8 array, shape (n, 2, H, W)
        Every flow field that is needed, once.
    where : int64 array, shape (T, 10)
        The indices into `fields` of each of the T stacks.
    label : int
        The class, from 0; -1 if it is unknown.
    video_id : str
        The video's name.
    num_frames : int
        The length of the video.
    times : float64 array, s, optional
        The time stamps of all frames of a stored clip, or of the T frames of a video file, if they are known.
    """

    rgb: NDArray[np.uint8]
    fields: NDArray[np.uint8]
    where: NDArray[np.int64]
    label: int
    video_id: str
    num_frames: int
    times: NDArray[np.float64] | None = None

    def part(self, first: int, stop: int) -> WholeClip:
        """Return the video with its samples from `first` to `stop` only, and the fields that these need."""
        used, where = np.unique(self.where[first:stop], return_inverse=True)
        chosen = self.where[first:stop].shape
        return replace(self, rgb=self.rgb[first:stop], fields=self.fields[used], where=where.reshape(chosen))


@dataclass(frozen=True)
class Unreadable:
    """A video that could not be read or scored, and why."""

    video_id: str
    reason: str


class WholeClipDataset(TorchDataset["WholeClip | Unreadable | SourceChangedError"]):
    """The test videos of one split, each with evenly spaced samples of whole frames.

    Parameters
    ----------
    dataset : flowkit.Dataset
        The data root.
    records : sequence of ClipRecord
        The manifest rows of the videos.
    quantiser : Quantiser
        The quantiser of the split.
    input_size : int, px
        S, the side of the training crops of the networks that are tested.
    num_samples : int
        T, the number of samples; the test has 25.
    plan : ClipPlan, optional
        The clips of consecutive frames that are seen in the place of single samples.
    """

    def __init__(
        self,
        dataset: Dataset,
        records: Sequence[ClipRecord],
        quantiser: Quantiser,
        *,
        input_size: int,
        num_samples: int = NUM_TEST_CENTRES,
        plan: ClipPlan | None = None,
    ) -> None:
        self.input_size, self.num_samples, self.plan = input_size, num_samples, plan
        self._clips = ManifestClips(dataset, records, quantiser)

    def __len__(self) -> int:
        return len(self._clips.records)

    @property
    def records(self) -> tuple[ClipRecord, ...]:
        """The manifest rows of the videos."""
        return self._clips.records

    def __getitem__(self, index: int) -> WholeClip | Unreadable | SourceChangedError:
        try:
            return self._read(index)
        except SourceChangedError as error:  # the others would be of another packing; raised in a worker, it would become a traceback
            return error
        except (FlowkitError, OSError) as error:  # one bad video does not stop the others, but is reported
            return Unreadable(self._clips.records[index].video_id, str(error))

    def _read(self, index: int) -> WholeClip:
        record, clip = self._clips.records[index], self._clips.clip(index)
        places = tested_places(clip.num_frames, plan=self.plan, num_samples=self.num_samples)
        return read_whole(clip, places, input_size=self.input_size, view=view_of(self.plan), label=record.label)


def view_of(plan: ClipPlan | None) -> View:
    """Return what a network sees of a frame in a test."""
    return "whole" if plan is None else plan.view


def read_whole(clip: Clip, places: Places, *, input_size: int, view: View, label: int = -1) -> WholeClip:
    """Read the samples of a video that lie in these places, as a network with this size of input and this view sees them."""
    frames, inverse = np.unique(places.frames, return_inverse=True)
    # Some at a time, because C3D sees all frames of a long video, and they are larger as they are stored.
    rgb = [seen_rgb(clip.frames(some), input_size=input_size, view=view) for some in _blocks(frames)]
    flow = [seen_flow(read_fields(clip, some), input_size=input_size, view=view) for some in _blocks(places.fields)]
    return WholeClip(
        np.concatenate(rgb)[inverse],
        np.concatenate(flow),
        places.where,
        label,
        clip.video_id,
        clip.num_frames,
        clip.times,
    )


def _blocks(numbers: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [numbers[first : first + _READ_AT_ONCE] for first in range(0, len(numbers), _READ_AT_ONCE)]


def whole_clip_loader(clips: WholeClipDataset, indices: Sequence[int], *, num_workers: int = 0) -> Iterator[WholeClip | Unreadable]:
    """Return these videos one by one, in order; raise `SourceChangedError` if a shard is replaced meanwhile."""
    return map(_clip_or_error, clip_loader(clips, num_workers, sampler=indices, batch_size=None, collate_fn=_unchanged))


def _unchanged(clip: WholeClip | Unreadable | SourceChangedError) -> WholeClip | Unreadable | SourceChangedError:
    return clip


def _clip_or_error(clip: WholeClip | Unreadable | SourceChangedError) -> WholeClip | Unreadable:
    if isinstance(clip, SourceChangedError):
        raise clip
    return clip
