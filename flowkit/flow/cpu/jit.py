# mypy: disable-error-code="attr-defined, no-untyped-call, unused-ignore"
"""Compile kernels once per machine: numba's disk cache, in a separate folder that processes and machines can share.

numba's default cache beside the source file has three shortcomings here: it does not notice changes in modules that the kernel
imports, it keeps the code for different processors in one index (in a home folder that a cluster shares), and it fails where no
folder is writable. So the kernels are cached in a folder named after the processor, numba's version and the content of the
kernel sources. Without a writable folder they are compiled in every process.

Every kernel has exactly one signature. Processes that start at the same time then write the same bytes under the same name, and
no process finds the code of another kernel.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from llvmlite import binding  # type: ignore[import-untyped, unused-ignore]
from numba.core import config as numba_config
from numba.extending import register_jitable

from flowkit.files import user_cache_folder

# numba takes settings from a file in the working folder, where the data of others may lie: one of them is a folder of pickles.
numba_config._config_fname = str(Path(__file__).parent / "no-settings-file")
numba_config.reload_config()

logger = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])

_CACHE_FAULTS = (OSError, EOFError, pickle.UnpicklingError)  # disk full, folder gone, file cut short
_SOURCES = ("fields.py", "jit.py", "kernels.py", "median.py", "simd.py", "warp.py")


def _cache_folder() -> Path | None:
    """Return a writable folder for this processor, this numba and these sources, or None."""
    digest = hashlib.sha256(f"{numba.__version__} {sorted(binding.get_host_cpu_features().items())}".encode())
    for name in _SOURCES:
        digest.update((Path(__file__).parent / name).read_bytes())
    name = f"{binding.get_host_cpu_name()}-{digest.hexdigest()[:12]}"
    chosen = [Path(numba_config.CACHE_DIR)] if numba_config.CACHE_DIR else []  # NUMBA_CACHE_DIR, if the user has set it
    for parent in (*chosen, user_cache_folder(), Path(__file__).parent / "__pycache__"):
        folder = parent / "flowkit" / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            logger.debug("no kernel cache in %s: %s", folder, error)
            continue
        return folder
    logger.info("there is no writable folder for compiled kernels, so each process compiles them (set NUMBA_CACHE_DIR)")
    return None


CACHE_FOLDER = _cache_folder()


def compile_kernel(function: Function) -> Function:
    """Compile a function that Python calls, when it is first called, and keep the machine code on disk."""
    uncached = numba.njit(nogil=True, error_model="numpy")(function)
    if CACHE_FOLDER is None:
        return cast("Function", uncached)
    before = numba_config.CACHE_DIR
    numba_config.CACHE_DIR = str(CACHE_FOLDER)  # numba reads it when it makes the dispatcher, which is now
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
        except _CACHE_FAULTS as error:  # the kernels themselves raise nothing
            logger.info("%s is compiled but cannot be kept on disk: %r", function.__name__, error)
            kernel = uncached
            return kernel(*arguments)

    call.stats = cached.stats  # type: ignore[attr-defined]
    return cast("Function", call)


def compile_part(function: Function) -> Function:
    """Compile a function into the kernels that call it; it has no separate file in the cache."""
    return cast("Function", numba.njit(nogil=True, error_model="numpy", forceinline=True)(function))


def compile_also(function: Function) -> Function:
    """Leave a function as it is for Python, and let kernels call it too."""
    compiled_too: Function = register_jitable(function)
    return compiled_too
