"""flowkit turns folders of videos into motion: frames, TV-L1 optical flow, HDF5 shards, and a trained ST-ResNet.

Public names are imported lazily (PEP 562), so that ``import flowkit`` loads none of torch, click, cv2, h5py, av, numba.
"""

import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

from flowkit.versions import __version__

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

    from flowkit.dataset.manifest import ClipRecord, Split
    from flowkit.dataset.root import Dataset
    from flowkit.dataset.verify import verify
    from flowkit.errors import (
        CheckpointError,
        DeviceError,
        FlowkitError,
        ManifestError,
        ParameterError,
        ScoresError,
        ShardFormatError,
        VideoDecodeError,
    )
    from flowkit.flow import TVL1Params, compute_flow
    from flowkit.quantise import Quantiser
    from flowkit.shards.reader import Clip, ShardReader
    from flowkit.shards.verify import Problem
    from flowkit.video.decode import FrameBatch, VideoInfo, probe, read_frames

# setup.py installs model/ and cli/ inside this package. In a checkout they lie beside it, and this finder says where.
_CHECKOUT = Path(__file__).resolve().parent.parent
_BESIDE = {"flowkit.model": _CHECKOUT / "model", "flowkit.cli": _CHECKOUT / "cli"}


class _CheckoutFinder(MetaPathFinder):
    """Finds the two packages that lie beside this one."""

    @staticmethod
    def find_spec(fullname: str, path: object = None, target: object = None) -> "ModuleSpec | None":
        if fullname not in _BESIDE:
            return None
        folder = _BESIDE[fullname]
        return spec_from_file_location(fullname, folder / "__init__.py", submodule_search_locations=[str(folder)])


if (_CHECKOUT / "setup.py").is_file():
    sys.meta_path.insert(0, _CheckoutFinder)  # before that of another checkout, which may be installed

_HOME_OF = {
    "CheckpointError": "flowkit.errors",
    "DeviceError": "flowkit.errors",
    "FlowkitError": "flowkit.errors",
    "ManifestError": "flowkit.errors",
    "ParameterError": "flowkit.errors",
    "ScoresError": "flowkit.errors",
    "ShardFormatError": "flowkit.errors",
    "VideoDecodeError": "flowkit.errors",
    "TVL1Params": "flowkit.flow",
    "compute_flow": "flowkit.flow",
    "ClipRecord": "flowkit.dataset.manifest",
    "Dataset": "flowkit.dataset.root",
    "Split": "flowkit.dataset.manifest",
    "Quantiser": "flowkit.quantise",
    "Clip": "flowkit.shards.reader",
    "ShardReader": "flowkit.shards.reader",
    "Problem": "flowkit.shards.verify",
    "verify": "flowkit.dataset.verify",
    "FrameBatch": "flowkit.video.decode",
    "VideoInfo": "flowkit.video.decode",
    "probe": "flowkit.video.decode",
    "read_frames": "flowkit.video.decode",
}

__all__ = ["__version__", *sorted(_HOME_OF)]  # noqa: PLE0604


def __getattr__(name: str) -> object:
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'flowkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
