"""The scores that trained networks give complete videos: logits per stream, averaged over time and mirror images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowkit.dataset.manifest import Split
from flowkit.errors import CheckpointError, ParameterError
from flowkit.model.compute.execution import Execution, FittingBatches
from flowkit.model.data.clip_frames import five_crops
from flowkit.model.data.whole_videos import WholeClip
from flowkit.model.networks.family import PhaseNetwork
from flowkit.model.networks.phase_networks import stream_logits
from flowkit.model.runs.checkpoint import Checkpoint
from flowkit.model.runs.trained_network import trained_network
from flowkit.model.runs.training_data import differences_from_training_data
from flowkit.model.scoring.clip_inputs import ClipInputs
from flowkit.model.settings.training import Phase, TrainConfig
from flowkit.words import counted

Crops = Literal["whole", "ten"]
CLIPS_AT_ONCE = 8  # of a video: clips of consecutive frames that a network scores one by one


class TestedNetworks:
    """The networks of one test, on their device, checked against the split that they are tested on.

    Parameters
    ----------
    split : flowkit.Split
        The split to test on.
    checkpoints : dict from phase to (str, Checkpoint)
        The weights, and where each was found. There may be none.
    force : bool
        Accept weights that were trained on other data; `warnings` then says what differs.
    execution : Execution
        Where and how to compute.
    extraction : dict, optional
        How frames and flow of the split were made, as `Provenance` has it, if that is known.
    crops : {"whole", "ten"}
        Whether they see whole frames, or ten crops of the size of training crops: corners, centre and their mirror images.

    Attributes
    ----------
    parts : tuple of (str, str)
        The phase and the stream of each score that a video gets.

    Raises
    ------
    CheckpointError
        If a network does not know a class of the split, was trained on other data (unless `force`), or the networks differ in the
        size of their input.
    ParameterError
        If a network that is to see ten crops looks at more than one sample at a time.
    """

    def __init__(
        self,
        split: Split,
        checkpoints: Mapping[Phase, tuple[str, Checkpoint]],
        *,
        force: bool,
        execution: Execution,
        extraction: Mapping[str, Any] | None = None,
        crops: Crops = "whole",
    ) -> None:
        self.execution, self.crops = execution, crops
        self.device = execution.torch_device()
        self.phases = tuple(checkpoints)
        self.sources = {phase: source for phase, (source, _) in checkpoints.items()}
        self.provenances = {phase: checkpoint.provenance for phase, (_, checkpoint) in checkpoints.items()}
        self.warnings = _data_warnings(split, checkpoints, extraction)
        if self.warnings and not force:
            raise CheckpointError(
                f"the weights were trained on other data than the test data: {'; '.join(self.warnings)}. Train on this split, "
                "or evaluate nevertheless with --force"
            )
        sizes = {checkpoint.provenance.config.network.input_size for _, checkpoint in checkpoints.values()}
        if len(sizes) > 1:
            raise CheckpointError(
                f"the networks have different input sizes ({', '.join(map(str, sorted(sizes)))} px); test them one at a time, or one "
                "system with --system NAME"
            )
        self.input_size = next(iter(sizes), 0)
        plans = {checkpoint.provenance.config.network.clip_plan for _, checkpoint in checkpoints.values()}
        if len(plans) > 1:
            raise CheckpointError(
                f"{', '.join(checkpoints)} see videos in different ways, as single frames and as clips of consecutive ones; test one "
                "system at a time, with --system NAME"
            )
        self.plan = next(iter(plans), None)
        configs = [checkpoint.provenance.config for _, checkpoint in checkpoints.values()]
        joins = any(config.network.num_outputs(config.phase, 2) == 1 for config in configs)  # all clips of a video: these are few
        self._samples_at_once = None if self.plan is None or joins else CLIPS_AT_ONCE * self.plan.length
        if crops not in get_args(Crops):
            raise ParameterError(f"crops must be one of {', '.join(get_args(Crops))}, got {crops!r}")
        several = [phase for phase, made in self.provenances.items() if not sees_one_sample(made.config)] if crops == "ten" else []
        if several:
            raise ParameterError(
                f"ten crops are for networks that look at one frame or one stack of flow at a time, unlike {', '.join(several)}; test "
                "others with --system NAME, or these with --crops whole"
            )
        self._batches = FittingBatches("`flowkit evaluate --amp bf16` takes less, and `--device cpu` none of it")
        self.parts = tuple((phase, stream) for phase, made in self.provenances.items() for stream in made.config.streams)
        self._networks: dict[Phase, PhaseNetwork] = {}
        self._columns: dict[Phase, list[int]] = {}
        for phase, (source, checkpoint) in checkpoints.items():
            network = trained_network(checkpoint, source)
            execution.place(network, self.device)
            self._networks[phase] = network
            self._columns[phase] = _columns(split.classes, checkpoint.provenance.classes, source)
        self._inputs = ClipInputs(split.quantiser, self.device)

    def score(self, clips: Sequence[WholeClip]) -> list[dict[tuple[Phase, str], NDArray[np.float64]]]:
        """Return the mean logits of videos that have the same frame size, by phase and stream: float64 (C,), with classes as in the split.

        Raises
        ------
        DeviceError
            If a GPU has too little memory for one video. If it has too little for several, fewer at once are computed from then on.
        """
        return self._batches.compute(self._score, clips)

    def _score(self, clips: Sequence[WholeClip]) -> list[dict[tuple[Phase, str], NDArray[np.float64]]]:
        """Return the mean logits of videos that pass through the networks together, of a long video some clips at a time."""
        num_samples = len(clips[0].rgb)
        firsts = range(0, num_samples, self._samples_at_once or num_samples)
        if len(firsts) == 1:
            return self._means(clips)
        parts = [self._means([clip.part(first, first + firsts.step) for clip in clips]) for first in firsts]
        counts = [min(firsts.step, num_samples - first) for first in firsts]
        return [
            {name: np.average([part[video][name] for part in parts], axis=0, weights=counts) for name in parts[0][video]}
            for video in range(len(clips))
        ]

    def _means(self, clips: Sequence[WholeClip]) -> list[dict[tuple[Phase, str], NDArray[np.float64]]]:
        """Return the mean logits of samples that pass through the networks together."""
        rgb, flow = self._inputs.of(clips, mirror=True)
        results: list[dict[tuple[Phase, str], NDArray[np.float64]]] = [{} for _ in clips]
        for phase, network in self._networks.items():
            sums: dict[str, Tensor] = {}
            boxes = self._boxes(*rgb.shape[-2:])
            for top, left in boxes:
                with torch.inference_mode(), self.execution.arithmetic(self.device), self.execution.autocast(self.device):
                    logits = stream_logits(network, self._seen(rgb, top, left), self._seen(flow, top, left))
                for stream, values in logits.items():
                    means = values.double().mean(1).view(2, len(clips), -1).mean(0)  # (2n, T', C) -> (n, C)
                    sums[stream] = sums[stream] + means if stream in sums else means
            for stream, total in sums.items():
                for result, scores in zip(results, (total / len(boxes)).cpu().numpy(), strict=True):
                    result[phase, stream] = scores[self._columns[phase]]
        return results

    def _boxes(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """Return where the crops lie that the networks see of a frame; one that is the whole frame begins at its corner."""
        return five_crops(height, width, size=self.input_size) if self.crops == "ten" else ((0, 0),)

    def _seen(self, clips: Tensor, top: int, left: int) -> Tensor:
        """Return a crop of all videos, and the same place of their mirror images, which are the second half: (2n, T, C, H, W)."""
        if self.crops == "whole":
            return clips
        size, (plain, mirrored) = self.input_size, clips.chunk(2)
        right = clips.shape[-1] - left - size
        rows = slice(top, top + size)
        return torch.cat([plain[..., rows, left : left + size], mirrored[..., rows, right : right + size]])


def sees_one_sample(config: TrainConfig) -> bool:
    """Return whether a network has a score for each frame, or stack of flow, that depends on no other."""
    network = config.network
    is_single = network.clip_plan is None and not network.learns_from_features
    return is_single and not network.temporal_reach(config.phase) and not network.temporal_stride(config.phase)


def _data_warnings(
    split: Split, checkpoints: Mapping[Phase, tuple[str, Checkpoint]], extraction: Mapping[str, Any] | None
) -> tuple[str, ...]:
    """Return how the split differs from what the networks were trained on: each difference once, with the phases if it is not all."""
    phases: dict[str, list[Phase]] = {}
    for phase, (source, checkpoint) in checkpoints.items():
        folder = Path(source) if Path(source).is_dir() else Path(source).parent
        for difference in differences_from_training_data(split, checkpoint.provenance, folder, extraction=extraction):
            phases.setdefault(difference, []).append(phase)
    return tuple(
        difference if len(names) == len(checkpoints) else f"{', '.join(names)}: {difference}" for difference, names in phases.items()
    )


def _columns(classes: Sequence[str], known: Sequence[str], source: str) -> list[int]:
    """Return the network's column of each of the split's classes, matched by name."""
    column_of = {name: column for column, name in enumerate(known)}
    missing = [name for name in classes if name not in column_of]
    if missing:
        raise CheckpointError(f"{source} does not know {counted(len(missing), 'class')} of this split: {', '.join(missing[:5])}")
    return [column_of[name] for name in classes]
