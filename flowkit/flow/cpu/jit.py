# mypy: disable-error-code="attr-defined, no-untyped-call, unused-ignore"
"""Compile kernels once per machine: machine code on disk, in a separate folder that processes and machines can share.

numba's own cache beside the source file has four shortcomings here: it does not notice changes in modules that the kernel
imports, it keeps the code for different processors in one index (in a home folder that a cluster shares), it fails where no
folder is writable, and it executes whatever its files hold. So each kernel is kept in one file with a checksum, in a folder that
is named after the processor, numba's version and the contents of the kernel sources. The names of kernels of other packages also
depend on all sources beside them. A file that is damaged, or that another user wrote, is not used: the kernel is compiled and stored
again. Without a writable folder kernels are compiled in every process.

Every kernel has exactly one signature. Processes that start at the same time then write the same code under the same name, and
no process finds the code of another kernel.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
import sys
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from llvmlite import binding  # type: ignore[import-untyped, unused-ignore]
from numba.core import config as numba_config
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.extending import register_jitable

from flowkit.files import user_cache_folder
from flowkit.flow.kernel_cache import read_entry, write_entry

# numba takes settings from a file in the working folder, where the data of others may lie: one of them is a folder of pickles.
numba_config._config_fname = str(Path(__file__).parent / "no-settings-file")
numba_config.reload_config()

logger = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])

_SOURCES = ("fields.py", "jit.py", "kernels.py", "median.py", "own_warp.py", "shuffles.py", "simd.py", "updates.py", "warp.py")


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


@lru_cache
def _sources_of(folder: Path) -> str:
    """Return what the names of a folder's kernels hold about its sources; for this folder `CACHE_FOLDER` has it."""
    if folder == Path(__file__).parent:
        return ""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.read_bytes())
    return f"-{digest.hexdigest()[:12]}"


class _KernelCache:
    """What numba asks for the machine code of one kernel; see `numba.core.caching._Cache`."""

    def __init__(self, function: Callable[..., Any], folder: Path) -> None:
        code = function.__code__
        sources = _sources_of(Path(code.co_filename).parent)
        name = f"{function.__name__}-{code.co_firstlineno}{sources}.py{sys.version_info.major}{sys.version_info.minor}.kernel"
        self.cache_path = folder / name
        self._code = hashlib.sha256(code.co_code).hexdigest()

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """Return the compiled kernel if the file holds it; None lets numba compile it."""
        stored = read_entry(self.cache_path)
        if stored is None:
            return None
        target_context.refresh()
        try:
            key, parts = pickle.loads(stored)  # noqa: S301 - of a file that only this user could write
            return CompileResult._rebuild(target_context, *parts) if key == self._key(signature, target_context.codegen()) else None
        except Exception as error:  # code that another environment made: whatever unpickling and linking raise
            logger.warning("compiling again: the kernel cache %s cannot be used (%r)", self.cache_path, error)
            return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Store a compiled kernel."""
        write_entry(self.cache_path, dumps((self._key(signature, compiled.codegen), compiled._reduce())))

    def _key(self, signature: Any, codegen: Any) -> tuple[str, str, str]:
        return str(signature), repr(codegen.magic_tuple()), self._code


def compile_kernel(function: Function) -> Function:
    """Compile a function that Python calls, when it is first called, and keep the machine code on disk."""
    kernel = numba.njit(nogil=True, error_model="numpy")(function)
    if CACHE_FOLDER is not None:
        kernel._cache = _KernelCache(function, CACHE_FOLDER)
    return cast("Function", kernel)


def compile_part(function: Function) -> Function:
    """Compile a function into the kernels that call it; it has no separate file in the cache."""
    return cast("Function", numba.njit(nogil=True, error_model="numpy", forceinline=True)(function))


def compile_also(function: Function) -> Function:
    """Leave a function as it is for Python, and let kernels call it too."""
    compiled_too: Function = register_jitable(function)
    return compiled_too
