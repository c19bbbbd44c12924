"""The bundled ST-ResNet: network, training, evaluation. Installs as ``flowkit.model``; exports lazily (PEP 562)."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowkit.model.checkpoint import load_checkpoint
    from flowkit.model.config import STResNetConfig
    from flowkit.model.dataset import ClipDataset
    from flowkit.model.evaluate import evaluate
    from flowkit.model.recipes import TrainConfig
    from flowkit.model.stresnet import StreamLogits, STResNet
    from flowkit.model.train import train

_HOME_OF = {
    "STResNet": "flowkit.model.stresnet",
    "STResNetConfig": "flowkit.model.config",
    "StreamLogits": "flowkit.model.stresnet",
    "TrainConfig": "flowkit.model.recipes",
    "ClipDataset": "flowkit.model.dataset",
    "evaluate": "flowkit.model.evaluate",
    "load_checkpoint": "flowkit.model.checkpoint",
    "train": "flowkit.model.train",
}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605


class _Package(ModuleType):
    """Keeps `train` and `evaluate` functions: importing the submodule of that name would otherwise replace them."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME_OF and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> object:
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'flowkit.model' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
