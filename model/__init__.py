"""ST-ResNet: the two-stream network, its training and its evaluation. The folder ``model/`` installs as ``flowkit.model``.

* Train and evaluate the networks of a data root: `train` and `evaluate`; `Execution` says where and how fast they compute.
* Use a trained network: `Predictor` classifies video files, each with a `Prediction`; `load_network` and `load_checkpoint` read what
  `train` wrote.
* Write your own training loop: `STResNet` with an `STResNetConfig` returns `StreamLogits`; `ClipDataset` reads training clips as a
  `TrainConfig` says.

Importing this package loads nothing heavy: each public name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowkit.model.compute.execution import Execution
    from flowkit.model.data.training_clips import ClipDataset
    from flowkit.model.encoding.trajectory_features import trajectory_features
    from flowkit.model.evaluation.prediction.predictor import Predictor
    from flowkit.model.evaluation.prediction.result import Prediction
    from flowkit.model.evaluation.protocol import evaluate
    from flowkit.model.networks.stresnet import StreamLogits, STResNet
    from flowkit.model.runs.checkpoint import load_checkpoint
    from flowkit.model.runs.trained_network import load_network
    from flowkit.model.scoring.feature_files import FeatureFile, VideoFeatures
    from flowkit.model.scoring.video_features import FeatureReport, features
    from flowkit.model.settings.network import STResNetConfig
    from flowkit.model.settings.training import TrainConfig
    from flowkit.model.training.chain import train

_LAZY = {
    "STResNet": "flowkit.model.networks.stresnet",
    "STResNetConfig": "flowkit.model.settings.network",
    "StreamLogits": "flowkit.model.networks.stresnet",
    "TrainConfig": "flowkit.model.settings.training",
    "ClipDataset": "flowkit.model.data.training_clips",
    "Execution": "flowkit.model.compute.execution",
    "Prediction": "flowkit.model.evaluation.prediction.result",
    "Predictor": "flowkit.model.evaluation.prediction.predictor",
    "evaluate": "flowkit.model.evaluation.protocol",
    "FeatureFile": "flowkit.model.scoring.feature_files",
    "FeatureReport": "flowkit.model.scoring.video_features",
    "VideoFeatures": "flowkit.model.scoring.feature_files",
    "features": "flowkit.model.scoring.video_features",
    "load_checkpoint": "flowkit.model.runs.checkpoint",
    "load_network": "flowkit.model.runs.trained_network",
    "train": "flowkit.model.training.chain",
    "trajectory_features": "flowkit.model.encoding.trajectory_features",
}

__all__ = [  # in full, because type checkers read it too
    "ClipDataset", "Execution", "FeatureFile", "FeatureReport", "Prediction", "Predictor", "STResNet", "STResNetConfig", "StreamLogits",
    "TrainConfig", "VideoFeatures", "evaluate", "features", "load_checkpoint", "load_network", "train",
    "trajectory_features",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'flowkit.model' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
