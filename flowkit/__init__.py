"""flowkit turns folders of videos into motion: frames, TV-L1 optical flow, HDF5 shards, and a trained ST-ResNet.

* Make a data root: `extract` computes the flow of a folder of videos, `pack` gathers it in shards, `stats` and `verify` describe
  and check the result.
* Read a data root: `Dataset` gives its `Split` and each `ClipRecord`; `ShardReader` and `Clip` give frames and flow.
* Work with single videos: `probe`, `read_frames`, `compute_flow` with `TVL1Params`, `Quantiser`, which stores flow in bytes, and
  `improved_trajectories`.
* Train and evaluate networks: see `flowkit.model`.

Every error that flowkit raises on purpose is a `FlowkitError`. Importing flowkit is fast: NumPy, OpenCV, PyAV, h5py, numba and
torch are loaded only by the functions that need them.
"""

import os
import sys

if sys.argv[:1] == ["-m"] and sys.path[:1] == [os.getcwd()]:  # `python -m flowkit.cli`: modules beside the data must not be imported
    del sys.path[0]  # this package has been found, and finds its modules in its own folder

from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

from flowkit.dataset.settings import ExtractSettings
from flowkit.errors import (
    BusyError,
    CheckpointError,
    DeviceError,
    FeaturesError,
    FlowkitError,
    ManifestError,
    NoFlowError,
    ParameterError,
    RankError,
    ScoresError,
    ShardFormatError,
    VideoDecodeError,
)
from flowkit.flow import FlowMethod, TVL1Params
from flowkit.quantise import Quantiser
from flowkit.versions import __version__
from flowkit.video.decode import FrameBatch, VideoInfo, probe, read_frames
from flowkit.video.reading import Reading
from flowkit.warped_flow import compute_flow

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

    from flowkit.dataset.manifest import ClipRecord, Split
    from flowkit.dataset.packing import PackReport, pack
    from flowkit.dataset.root import Dataset
    from flowkit.dataset.verify import verify
    from flowkit.describe.statistics import DataStats, stats
    from flowkit.extraction.results import ExtractReport
    from flowkit.extraction.run import extract
    from flowkit.shards.reader import Clip, ShardReader
    from flowkit.shards.verify import Problem
    from flowkit.trajectories.improved import improved_trajectories
    from flowkit.trajectories.trajectories import Trajectories

_LAZY = {  # the modules of these names import NumPy, or take a noticeable part of the start-up time of the command line
    "Clip": "flowkit.shards.reader",
    "ClipRecord": "flowkit.dataset.manifest",
    "DataStats": "flowkit.describe.statistics",
    "Dataset": "flowkit.dataset.root",
    "ExtractReport": "flowkit.extraction.results",
    "PackReport": "flowkit.dataset.packing",
    "Problem": "flowkit.shards.verify",
    "ShardReader": "flowkit.shards.reader",
    "Split": "flowkit.dataset.manifest",
    "Trajectories": "flowkit.trajectories.trajectories",
    "extract": "flowkit.extraction.run",
    "improved_trajectories": "flowkit.trajectories.improved",
    "pack": "flowkit.dataset.packing",
    "stats": "flowkit.describe.statistics",
    "verify": "flowkit.dataset.verify",
}

__all__ = [  # in full, because type checkers read it too
    "BusyError", "CheckpointError", "Clip", "ClipRecord", "DataStats", "Dataset", "DeviceError", "ExtractReport", "ExtractSettings",
    "FeaturesError", "FlowMethod", "FlowkitError", "FrameBatch", "ManifestError", "NoFlowError", "PackReport", "ParameterError", "Problem",
    "Quantiser", "RankError", "Reading", "ScoresError", "ShardFormatError", "ShardReader", "Split", "TVL1Params", "Trajectories",
    "VideoDecodeError", "VideoInfo",
    "__version__", "compute_flow", "extract", "improved_trajectories", "pack", "probe", "read_frames", "stats", "verify",
]  # fmt: skip

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

    @staticmethod
    def invalidate_caches() -> None:
        """Do nothing: there is no cache, but `importlib.invalidate_caches` asks every finder."""


if (_CHECKOUT / "setup.py").is_file():
    sys.meta_path.insert(0, _CheckoutFinder)  # before that of another checkout, which may be installed


def __getattr__(name: str) -> object:
    if name == "model":
        return import_module("flowkit.model")
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'flowkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "model"]
