# mypy: disable-error-code="attr-defined, unused-ignore"
"""Compile kernels once per machine: numba's disk cache, in a folder of its own that is always safe to share.

numba's default cache beside the source file has three gaps that matter here: it does not notice when a module that the
kernel imports has changed, it mixes the code of different processors in one index (a home folder shared by a cluster), and
it raises where no folder can be written. So the kernels are cached under a folder named after the processor, numba's
version and the content of the kernel sources; without a writable folder they are compiled in every process.

Every kernel has exactly one signature. Processes that start at once then write the same bytes under the same name, and a
process never finds another kernel's code under its own.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from llvmlite import binding  # type: ignore[import-untyped, unused-ignore]
from numba.core import config as numba_config
from numba.extending import register_jitable

logger = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])

_CACHE_FAULTS = (OSError, EOFError, pickle.UnpicklingError)  # disk full, folder gone, file cut short
_SOURCES = ("fields.py", "jit.py", "kernels.py", "median.py", "simd.py", "warp.py")


def _candidate_folders() -> list[Path]:
    """Return where compiled kernels may be kept, best first; NUMBA_CACHE_DIR, where set, is the user's wish and stands first."""
    folders = []
    if numba_config.CACHE_DIR:
        folders.append(Path(numba_config.CACHE_DIR))
    if sys.platform == "win32":
        user_cache = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    elif sys.platform == "darwin":
        user_cache = "~/Library/Caches"
    else:
        user_cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folders.append(Path(os.path.expanduser(user_cache)))  # Path.expanduser raises where there is no home
    folders.append(Path(__file__).parent / "__pycache__")
    return folders


def _cache_folder() -> Path | None:
    """Return a writable folder for this processor, this numba and these sources, or None."""
    digest = hashlib.sha256(f"{numba.__version__} {sorted(binding.get_host_cpu_features().items())}".encode())
    for name in _SOURCES:
        digest.update((Path(__file__).parent / name).read_bytes())
    name = f"{binding.get_host_cpu_name()}-{digest.hexdigest()[:12]}"
    for parent in _candidate_folders():
        folder = parent / "flowkit" / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            logger.debug("no kernel cache in %s: %s", folder, error)
            continue
        return folder
    logger.info("no folder to keep compiled kernels in: they are compiled anew by each process (set NUMBA_CACHE_DIR)")
    return None


CACHE_FOLDER = _cache_folder()


def compile_kernel(function: Function) -> Function:
    """Compile `function` when it is first called, and keep the machine code on disk. For functions called from Python."""
    uncached = numba.njit(nogil=True, error_model="numpy")(function)
    if CACHE_FOLDER is None:
        return cast("Function", uncached)
    before = numba_config.CACHE_DIR
    numba_config.CACHE_DIR = str(CACHE_FOLDER)  # read when the dispatcher is made, which is now
    try:
        cached = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    finally:
        numba_config.CACHE_DIR = before
    kernel = cached

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        nonlocal kernel
        try:
            return kernel(*arguments)
        except _CACHE_FAULTS as error:  # kernels raise nothing themselves
            logger.info("%s is compiled, but not kept on disk: %r", function.__name__, error)
            kernel = uncached
            return kernel(*arguments)

    call.stats = cached.stats  # type: ignore[attr-defined]
    return cast("Function", call)


def compile_part(function: Function) -> Function:
    """Compile `function` as a part of the kernels that call it; it has no file of its own in the cache."""
    return cast("Function", numba.njit(nogil=True, error_model="numpy", forceinline=True)(function))


def compile_also(function: Function) -> Function:
    """Leave `function` as it is for Python, and let kernels call it too."""
    compiled_too: Function = register_jitable(function)
    return compiled_too
