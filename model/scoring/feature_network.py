"""A trained network that turns videos into features: window by window, with or without mirror images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flowkit.model.compute.execution import Execution, explain_out_of_memory
from flowkit.model.data.whole_videos import WholeClip
from flowkit.model.networks.features import stream_features, streams_of
from flowkit.model.runs.checkpoint import Checkpoint
from flowkit.model.runs.trained_network import trained_network
from flowkit.model.scoring.clip_inputs import ClipInputs
from flowkit.model.scoring.feature_settings import Layer
from flowkit.model.scoring.windows import TimeShape, Window
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
    layer : {"pool5", "logits"}
        The input of the classifier, or its output.
    mirror : bool
        Whether features are the mean of those of a video and of its mirror image.
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
    time : TimeShape
        What the network does to time.
    sizes : dict from stream to int
        D, the number of features of each stream.
    """

    def __init__(
        self, checkpoint: Checkpoint, source: str, *, quantiser: Quantiser, layer: Layer, mirror: bool, execution: Execution
    ) -> None:
        config = checkpoint.provenance.config
        self.device = execution.torch_device()
        self.input_size = config.network.input_size
        self.time = TimeShape.of(config.phase, config.network)
        self.sizes: dict[str, int] = {}
        self._layer, self._mirror, self._execution = layer, mirror, execution
        self._network = trained_network(checkpoint, source)
        for name, stream in streams_of(self._network).items():
            self.sizes[name] = stream.fc.out_features if layer == "logits" else stream.fc.in_features
        execution.place(self._network, self.device)
        self._inputs = ClipInputs(quantiser, self.device)

    def features(self, clip: WholeClip, window: Window) -> Mapping[str, NDArray[np.float32]]:
        """Return the features of the time steps that are kept of a window: float32 (kept, D) for each stream.

        Raises
        ------
        DeviceError
            If a GPU has too little memory.
        """
        with explain_out_of_memory("a shorter --window takes less, and `--device cpu` none of it"):
            rgb, flow = self._inputs.of([clip], mirror=self._mirror)
            with torch.inference_mode(), self._execution.arithmetic(self.device), self._execution.autocast(self.device):
                found = stream_features(self._network, rgb, flow)
        last = window.skipped + window.kept
        chosen: dict[str, Any] = {stream: found[stream][self._layer == "logits"] for stream in self.sizes}
        return {stream: values[:, window.skipped : last].double().mean(0).float().cpu().numpy() for stream, values in chosen.items()}
