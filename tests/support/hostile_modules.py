"""A folder of files that are named like Python's modules and leave a mark when one of them is imported.

Commands that work in such a folder must not run any of the files, and neither must the processes that they start.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# What flowkit imports, itself or by way of others. `flowkit` is not among them: `python -m flowkit.cli` would run it by design.
_LIBRARIES = """
    _distutils_hack attr av certifi click cloudpickle colorama contourpy cuda cv2 cycler dask dateutil distributed dill filelock
    fsspec fontTools h5py hdf5plugin jinja2 joblib kiwisolver llvmlite locket markupsafe matplotlib ml_dtypes mpmath msgpack networkx
    numba numpy onnx onnxruntime packaging partd PIL pkg_resources pkgutil psutil pygments pyparsing rich safetensors scipy
    setuptools sitecustomize six sklearn sortedcontainers sympy tblib tensorboard threadpoolctl tomli tomllib toolz torch
    torchvision tornado tqdm triton typing_extensions urllib3 usercustomize yaml zict
    model cli tests setup conftest check child main
"""
_MARK = """
import os, sys
with open({marker!r}, "a") as file:
    file.write(f"{{__name__}} in process {{os.getpid()}}: {{sys.argv}}\\n")
"""


def write_hostile_modules(folder: Path, marker: Path) -> None:
    """Write the files; each writes a line into `marker` when it runs."""
    # Files that libraries look for in the working folder.
    (folder / ".numba_config.yaml").write_text(f"cache_dir: {folder / 'pickles'}\n")
    (folder / "matplotlibrc").write_text("text.usetex: True\n")
    for name in {*sys.stdlib_module_names, *_LIBRARIES.split()}:
        (folder / f"{name}.py").write_text(_MARK.format(marker=str(marker)))
