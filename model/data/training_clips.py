"""Clips of a split's shards as training samples, and as the whole videos of the test; every sample a function of its key."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from flowkit.errors import FlowkitError, ManifestError
from flowkit.model.data.device_crops import StoredClips
from flowkit.model.data.sampling import batch_videos, protocol_centres, sample_generator, stack_fields, sub_batch_tau, training_centres
from flowkit.model.data.transforms import crop_flow, crop_rgb, draw_crop, whole_flow, whole_rgb
from flowkit.model.settings.recipes import STREAMS_OF
from flowkit.quantise import Quantiser
from flowkit.shards.reader import ShardReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from flowkit.dataset.manifest import ClipRecord, Dataset, Split
    from flowkit.model.data.transforms import Crop
    from flowkit.model.settings.recipes import TrainConfig
    from flowkit.shards.reader import Clip


class SampleKey(NamedTuple):
    """Which video, and for which step and place in its batch: all that a sample's draws depend on besides the seed."""

    video: int
    step: int
    position: int


@dataclass(frozen=True)
class Sample:
    """One training clip, not yet normalised.

    Parameters
    ----------
    rgb : uint8 array, shape (T, S, S, 3), or None
        None where the phase has no appearance stream.
    flow : uint8 array, shape (T, 20, S, S), or None
        u and v of ten fields, interleaved. None where the phase has no motion stream.
    label : int
    video_id : str
    """

    rgb: NDArray[np.uint8] | None
    flow: NDArray[np.uint8] | None
    label: int
    video_id: str


@dataclass(frozen=True)
class StoredSample:
    """One training clip as it is stored, and the crop that was drawn for it.

    Parameters
    ----------
    frames : uint8 array, shape (T, H, W, 3), or None
        None where the phase has no appearance stream.
    fields : uint8 array, shape (n, 2, H, W), or None
        Every flow field that is needed, once. None where the phase has no motion stream.
    where : int64 array, shape (T, 10), or None
        The fields of each of the T stacks.
    crop : Crop
    label : int
    video_id : str
    """

    frames: NDArray[np.uint8] | None
    fields: NDArray[np.uint8] | None
    where: NDArray[np.int64] | None
    crop: Crop
    label: int
    video_id: str


class Batch(NamedTuple):
    """Samples that share batch statistics: uint8 rgb (b, T, S, S, 3) and flow (b, T, 20, S, S), int64 labels (b,)."""

    rgb: Tensor | None
    flow: Tensor | None
    labels: Tensor


class StoredBatch(NamedTuple):
    """The same, still to be cropped: neighbours of one frame size together, in order."""

    parts: tuple[StoredClips, ...]
    labels: Tensor


@dataclass(frozen=True)
class WholeClip:
    """One video as it is tested, not yet normalised.

    Parameters
    ----------
    rgb : uint8 array, shape (25, H, W, 3)
    fields : uint8 array, shape (n, 2, H, W)
        Every flow field that is needed, once.
    where : int64 array, shape (25, 10)
        The fields of each of the 25 stacks.
    label : int
    video_id : str
    num_frames : int
        Of the whole video.
    """

    rgb: NDArray[np.uint8]
    fields: NDArray[np.uint8]
    where: NDArray[np.int64]
    label: int
    video_id: str
    num_frames: int


@dataclass(frozen=True)
class Unreadable:
    """A video that could not be read, or not be scored, and why."""

    video_id: str
    reason: str


class _Clips:
    """The clips of manifest rows; picklable, and each process opens the shards for itself."""

    def __init__(self, dataset: Dataset, records: Sequence[ClipRecord], quantiser: dict[str, Any]) -> None:
        self.records = tuple(records)
        self.quantiser = Quantiser.from_dict(quantiser)
        self._shards = {record.shard: ShardReader(dataset.shard_path(record)) for record in self.records}

    def clip(self, row: int) -> Clip:
        """Return the clip of a row.

        Raises
        ------
        ManifestError
            If it is not the clip that the manifest tells of.
        """
        record = self.records[row]
        shard = self._shards[record.shard]
        clip = shard.clip(record.video_id)
        for name, is_now, must_be in (
            ("num_frames", clip.num_frames, record.num_frames),
            ("quantiser", clip.quantiser, self.quantiser.to_dict()),
        ):
            if is_now != must_be:
                raise ManifestError(
                    f"{shard.path}: the {name} of {record.video_id!r} is {is_now}, the split's manifest says {must_be}; "
                    "run `flowkit pack` again"
                )
        return clip


class ClipDataset(TorchDataset[Sample]):
    """Training clips of one split.

    Parameters
    ----------
    dataset : flowkit.Dataset
    split : flowkit.Split
    config : TrainConfig
        Its phase says which streams are read; its sampling and cropping rules are followed.

    Notes
    -----
    ``dataset[SampleKey(video, step, position)]`` is the same sample whatever the process, its order or the number of workers.
    ``dataset[video]`` is a sample of that video for looking at.
    """

    def __init__(self, dataset: Dataset, split: Split, config: TrainConfig) -> None:
        self.config = config
        self._clips = _Clips(dataset, split.train, split.quantiser)

    def __len__(self) -> int:
        return len(self._clips.records)

    @property
    def quantiser(self) -> Quantiser:
        """The one the flow's bytes were made with."""
        return self._clips.quantiser

    def __getitem__(self, key: SampleKey | int) -> Sample:
        stored = self.stored(key)
        size = self.config.network.input_size
        rgb = None if stored.frames is None else crop_rgb(stored.frames, stored.crop, size=size)
        flow = None
        if stored.fields is not None:
            assert stored.where is not None
            flow = stacks(crop_flow(stored.fields, stored.crop, size=size, quantiser=self.quantiser), stored.where)
        return Sample(rgb, flow, stored.label, stored.video_id)

    def stored(self, key: SampleKey | int) -> StoredSample:
        """Return a sample with its crop not yet taken."""
        video, step, position = (key, 0, key) if isinstance(key, int) else key
        config, record, clip = self.config, self._clips.records[video], self._clips.clip(video)
        generator = sample_generator(config.seed, config.phase, step, position)
        taus = (config.tau_min, config.tau_max)
        if config.tau_drawn == "sub_batch":
            taus = (sub_batch_tau(config.seed, config.phase, step, position // config.bn_group, *taus),) * 2
        centres = training_centres(generator, clip.num_frames, num_samples=config.num_samples, tau_min=taus[0], tau_max=taus[1])
        crop = draw_crop(generator, clip.height, clip.width, kind=config.crop, corners=config.corners, flip=config.flip)
        streams = STREAMS_OF[config.phase]
        frames = clip.frames(centres) if "appearance" in streams else None
        fields = where = None
        if "motion" in streams:
            wanted, where = stack_fields(centres)
            fields = read_fields(clip, wanted)
        return StoredSample(frames, fields, where, crop, record.label, record.video_id)


class _Samples(TorchDataset["Sample | StoredSample | Exception"]):
    """The samples of a `ClipDataset`, cropped or not; in place of one that cannot be read, the error."""

    def __init__(self, clips: ClipDataset, *, cropped: bool) -> None:
        self._clips, self._cropped = clips, cropped

    def __getitem__(self, key: SampleKey) -> Sample | StoredSample | Exception:
        try:
            return self._clips[key] if self._cropped else self._clips.stored(key)
        except (FlowkitError, OSError) as error:  # raised in a worker, it would come out with that one's traceback as its message
            return error


class TrainingBatches:
    """Every sub-batch of a phase that one rank takes, in order; raises what a sample could not be read for."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Batch | StoredBatch]:
        return map(_batch_or_error, iter(self._loader))


def _batch_or_error(batch: Batch | StoredBatch | Exception) -> Batch | StoredBatch:
    if isinstance(batch, Exception):
        raise batch
    return batch


class WholeClipDataset(TorchDataset["WholeClip | Unreadable"]):
    """The test videos of one split, each with its 25 samples at full frame.

    Parameters
    ----------
    dataset : flowkit.Dataset
    records : sequence of ClipRecord
    quantiser : dict
        The split's.
    input_size : int, px
        S of the networks that are tested.
    """

    def __init__(self, dataset: Dataset, records: Sequence[ClipRecord], quantiser: dict[str, Any], *, input_size: int) -> None:
        self.input_size = input_size
        self._clips = _Clips(dataset, records, quantiser)

    def __len__(self) -> int:
        return len(self._clips.records)

    def __getitem__(self, index: int) -> WholeClip | Unreadable:
        try:
            return self._read(index)
        except (FlowkitError, OSError) as error:  # one bad video does not stop the others; it is counted and named
            return Unreadable(self._clips.records[index].video_id, str(error))

    def _read(self, index: int) -> WholeClip:
        record, clip = self._clips.records[index], self._clips.clip(index)
        centres = protocol_centres(clip.num_frames)
        frames, place = np.unique(centres, return_inverse=True)
        fields, where = stack_fields(centres)
        return WholeClip(
            whole_rgb(clip.frames(frames), input_size=self.input_size)[place],
            whole_flow(read_fields(clip, fields), input_size=self.input_size),
            where,
            record.label,
            record.video_id,
            clip.num_frames,
        )


def read_fields(clip: Clip, fields: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Read flow fields by increasing index, neighbours together: uint8 (n, 2, H, W)."""
    runs = np.split(fields, np.flatnonzero(np.diff(fields) > 1) + 1)
    return np.concatenate([clip.flow(int(run[0]), int(run[-1]) + 1) for run in runs])


def stacks(fields: NDArray[np.uint8], where: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Put fields (n, 2, H, W) together as stacks (T, 20, H, W): channel 2k is u, 2k+1 is v of a stack's field k."""
    return fields[where].reshape(len(where), 2 * where.shape[1], *fields.shape[2:])


def collate(samples: Sequence[Sample]) -> Batch:
    """Put the samples of a sub-batch together."""

    def joined(parts: list[NDArray[np.uint8] | None]) -> Tensor | None:
        given = [part for part in parts if part is not None]
        return torch.from_numpy(np.stack(given)) if given else None

    labels = torch.tensor([sample.label for sample in samples], dtype=torch.int64)
    return Batch(joined([sample.rgb for sample in samples]), joined([sample.flow for sample in samples]), labels)


def collate_stored(samples: Sequence[StoredSample]) -> StoredBatch:
    """Put the samples of a sub-batch together, crops not taken: in one part, or one by one where frame sizes differ."""
    sizes = {sample.fields.shape[-2:] for sample in samples if sample.fields is not None}
    sizes |= {sample.frames.shape[1:3] for sample in samples if sample.frames is not None}
    groups = [samples] if len(sizes) == 1 else [[sample] for sample in samples]
    labels = torch.tensor([sample.label for sample in samples], dtype=torch.int64)
    return StoredBatch(tuple(_stored_clips(group) for group in groups), labels)


def _stored_clips(samples: Sequence[StoredSample]) -> StoredClips:
    """Join samples of one frame size."""
    crops = [sample.crop for sample in samples]
    frames = [sample.frames for sample in samples if sample.frames is not None]
    fields = [sample.fields for sample in samples if sample.fields is not None]
    where = [sample.where for sample in samples if sample.where is not None]
    counts = np.array([len(array) for array in fields], dtype=np.int64)
    shifted = [array + first for array, first in zip(where, np.cumsum(counts) - counts, strict=True)]
    return StoredClips(
        frames=torch.from_numpy(np.concatenate(frames)) if frames else None,
        fields=torch.from_numpy(np.concatenate(fields)) if fields else None,
        where=torch.from_numpy(np.concatenate(shifted)) if fields else None,
        owners=torch.from_numpy(np.repeat(np.arange(len(fields)), counts)) if fields else None,
        boxes=torch.tensor([(crop.top, crop.left, crop.height, crop.width) for crop in crops]),
        flips=torch.tensor([crop.flip for crop in crops]),
    )


class _SubBatches:
    """The keys of each sub-batch that one rank takes, in order, from a step to the end of the phase."""

    def __init__(self, config: TrainConfig, num_videos: int, *, first_step: int, rank: int, world: int) -> None:
        self.config, self.num_videos = config, num_videos
        self.first_step, self.rank, self.world = first_step, rank, world

    def __iter__(self) -> Iterator[list[SampleKey]]:
        config = self.config
        for step in range(self.first_step, config.num_steps):
            videos = batch_videos(step, num_videos=self.num_videos, batch=config.batch, seed=config.seed, phase=config.phase)
            for sub_batch in range(self.rank, config.num_sub_batches, self.world):
                first = sub_batch * config.bn_group
                yield [SampleKey(videos[place], step, place) for place in range(first, first + config.bn_group)]


def training_loader(
    clips: ClipDataset,
    *,
    first_step: int = 0,
    rank: int = 0,
    world: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
    cropped: bool = True,
) -> TrainingBatches:
    """Return every sub-batch of the phase, in order, from `first_step` on: `Batch`, or `StoredBatch` unless `cropped`."""
    batches = _SubBatches(clips.config, len(clips), first_step=first_step, rank=rank, world=world)
    collate_fn = partial(_collated, join=collate if cropped else collate_stored)
    samples = _Samples(clips, cropped=cropped)
    return TrainingBatches(_loader(samples, num_workers, batch_sampler=batches, collate_fn=collate_fn, pin_memory=pin_memory))


def _collated(samples: Sequence[Any], join: Callable[[Sequence[Any]], Batch | StoredBatch]) -> Batch | StoredBatch | Exception:
    """Put samples together, or return the first error among them."""
    return next((sample for sample in samples if isinstance(sample, Exception)), None) or join(samples)


def whole_clip_loader(clips: WholeClipDataset, indices: Sequence[int], *, num_workers: int = 0) -> DataLoader[WholeClip | Unreadable]:
    """Return a loader that gives these videos, in order, one by one."""
    return _loader(clips, num_workers, sampler=indices, batch_size=None, collate_fn=_unchanged)


def _loader(clips: TorchDataset[Any], num_workers: int, **settings: Any) -> DataLoader[Any]:
    if num_workers:
        import cv2

        # Before the fork: a worker that is forked while OpenCV has threads waits for ever when it touches them.
        cv2.setNumThreads(1)
    # The loader draws a seed for its workers; a generator of its own leaves the caller's random numbers alone.
    return DataLoader(
        clips, num_workers=num_workers, generator=torch.Generator(), worker_init_fn=_start_worker if num_workers else None, **settings
    )


def _start_worker(worker: int) -> None:
    """Leave Ctrl-C to the main process, which finishes its step first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _unchanged(clip: WholeClip | Unreadable) -> WholeClip | Unreadable:
    return clip
