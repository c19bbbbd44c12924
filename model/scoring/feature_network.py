"""A trained network that turns videos into features: window by window, with or without mirror images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowkit.errors import ParameterError
from flowkit.model.compute.execution import Execution, FittingBatches
from flowkit.model.data.whole_videos import WholeClip
from flowkit.model.networks.features import stream_features
from flowkit.model.runs.checkpoint import Checkpoint
from flowkit.model.runs.trained_network import trained_network
from flowkit.model.scoring.clip_inputs import ClipInputs
from flowkit.model.scoring.feature_settings import FeatureSamples, FeatureSettings
from flowkit.model.scoring.windows import TimeShape, Window
from flowkit.model.systems.registry import starts_from
from flowkit.quantise import Quantiser


class FeatureNetwork:
    """The network of a phase on its device.

    Parameters
    ----------
    checkpoint : Checkpoint
        Its weights.
    source : str
        Where they were found, for messages.
    quantiser : Quantiser
        The quantiser of the videos' flow.
    settings : FeatureSettings
        What is computed: the input of the classifier or its output, of which samples, with or without mirror images.
    execution : Execution
        Where and how to compute.

    Raises
    ------
    CheckpointError
        If the weights do not fit the network that they name.
    DeviceError, ParameterError
        If there is no such device.

    Attributes
    ----------
    input_size : int, px
        The side of the training crops of the network.
    samples : FeatureSamples
        Which frames or clips of a video the network looks at.
    time : TimeShape
        What the network does to time.
    sizes : dict from stream to int
        D, the number of features of each stream.
    """

    def __init__(
        self, checkpoint: Checkpoint, source: str, *, quantiser: Quantiser, settings: FeatureSettings, execution: Execution
    ) -> None:
        config = checkpoint.provenance.config
        if config.network.learns_from_features:
            (before,) = starts_from(config.phase)
            raise ParameterError(f"{config.phase} classifies whole videos by the features of {before}; give --of {before}")
        plan = config.network.clip_plan
        self.samples = FeatureSamples(settings, plan, plan is not None and config.network.num_outputs(config.phase, 2) == 1)
        self.device = execution.torch_device()
        self.input_size = config.network.input_size
        self.time = TimeShape.of(config.phase, config.network) if plan is None else TimeShape(is_joined=self.samples.is_joined)
        self._layer, self._mirror, self._execution = settings.layer, settings.mirror, execution
        self._network = trained_network(checkpoint, source)
        self.sizes = self._sizes()
        if not self.sizes:
            raise ParameterError(f"the network of {config.phase} has no layer {settings.layer}; pool5 is the input of its classifier")
        execution.place(self._network, self.device)
        self._inputs = ClipInputs(quantiser, self.device)
        self._batches = FittingBatches("a shorter --window takes less, and `--device cpu` none of it")

    def features(self, clips: Sequence[WholeClip], window: Window) -> list[Mapping[str, NDArray[np.float32]]]:
        """Return the features of the time steps that are kept of a window of videos that have the same frame size.

        Returns
        -------
        list of (dict from stream to float32 array, shape (kept, D))
            Those of each video.

        Raises
        ------
        DeviceError
            If a GPU has too little memory for one video. If it has too little for several, fewer at once are computed from then on.
        """
        return self._batches.compute(lambda batch: self._features(batch, window), clips)

    def _features(self, clips: Sequence[WholeClip], window: Window) -> list[Mapping[str, NDArray[np.float32]]]:
        rgb, flow = self._inputs.of(clips, mirror=self._mirror)
        with torch.inference_mode(), self._execution.arithmetic(self.device), self._execution.autocast(self.device):
            found = self._outputs(rgb, flow)
        results: list[dict[str, NDArray[np.float32]]] = [{} for _ in clips]
        for stream in self.sizes:
            kept = found[stream][:, window.skipped : window.skipped + window.kept]
            means = (
                kept.double().reshape(-1, len(clips), *kept.shape[1:]).mean(0)
            )  # (2n, T, D), all mirror images after all videos -> (n, T, D)
            for result, values in zip(results, means.float().cpu().numpy(), strict=True):
                result[stream] = values
        return list(results)

    def _outputs(self, rgb: Tensor, flow: Tensor) -> dict[str, Tensor]:
        """Return the features (B, T', D) of each stream. Clips that the network does not join pass through it one after the other.

        So the features of a clip do not depend, to the last digit, on the others of its window, and memory not on their number.
        """
        plan = self.samples.plan
        length = rgb.shape[1] if plan is None or self.samples.is_joined else plan.length
        parts = [
            self._layer_of(rgb[:, first : first + length], flow[:, first : first + length]) for first in range(0, rgb.shape[1], length)
        ]
        return {stream: torch.cat([part[stream] for part in parts], 1) for stream in self.sizes}

    def _layer_of(self, rgb: Tensor, flow: Tensor) -> dict[str, Tensor]:
        """Return the wanted layer (B, T', D) of each stream."""
        if self._layer == "fc6":
            return self._network.first_hidden(rgb, flow)
        found = stream_features(self._network, rgb, flow)
        return {stream: found[stream][self._layer == "logits"] for stream in self.sizes}

    def _sizes(self) -> dict[str, int]:
        """Return the size of the wanted layer of each stream; empty if the network has no such layer."""
        if self._layer == "fc6":
            return self._network.hidden_sizes
        classifiers = self._network.classifiers.items()
        return {stream: layer.out_features if self._layer == "logits" else layer.in_features for stream, layer in classifiers}
