"""The GPU kernels on the CPU: tvl1.cu built by g++ through host_emulation.h, as a device that the solver's driver can use.

What it shows beyond the arithmetic: memory starts poisoned (floats are NaN), so that nothing may depend on what was never written;
every array lies between guards, so that no kernel writes beside it; threads and blocks take turns in any order; launches can be
held back, so that the driver runs ahead of the device as on a GPU.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections import deque
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowkit.errors import DeviceError
from flowkit.files import file_sha256
from flowkit.flow.cuda.compile import DEFAULT_TILE, SOURCE_PATH, TileShape, kernel_parameters, ordered_arguments
from flowkit.flow.cuda.device import PinnedMemory

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

HERE = Path(__file__).parent
POISON = 0xFF  # four of them are a NaN
GUARD_BYTES = 4096
FORWARD, BACKWARD = 0, 1  # orders of threads and blocks; greater numbers are seeds of a shuffle
_WITH_BARRIERS = {"iterate"}
_FAILURES = {1: "threads of a block part at a barrier", 2: "a barrier in a kernel that is run as one without"}
_C_TYPES: dict[str, Any] = {"pointer": ctypes.c_void_p, "int": ctypes.c_int, "float": ctypes.c_float, "double": ctypes.c_double}


def has_compiler() -> bool:
    """Return whether g++ is installed."""
    return shutil.which("g++") is not None


@cache
def build_kernels(tile: TileShape) -> ctypes.CDLL:
    """Build the kernels for a tile shape and load them."""
    return ctypes.CDLL(str(_build("kernels.so", tile)))


def build_driver() -> Path:
    """Build a ``libcuda.so.1`` that runs the kernels on the CPU; return its folder, for ``LD_LIBRARY_PATH``."""
    kernels = ", ".join(f'{{"{name}", run_{name}, {len(parameters)}}}' for name, parameters in kernel_parameters().items())
    fill = f"static const int filled = (fake_driver::kernels = {{{kernels}}}, 0);\n"
    return _build("libcuda.so.1", DEFAULT_TILE, f'#include "fake_driver.h"\n{fill}').parent


def _build(name: str, tile: TileShape, appended: str = "") -> Path:
    """Build a library once per machine: it lies in a folder named after everything that it is made of."""
    import fcntl  # not on Windows, where there is no g++ either

    entries = "".join(map(_entry, kernel_parameters())) + appended
    macros = [f"-D{macro}={value}" for macro, value in tile.macros()]
    warnings = ["-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Wno-unused-function", "-Wno-unused-variable"]
    flags = ["-std=c++17", "-O2", "-fno-math-errno", "-march=native", "-shared", "-fPIC", "-Wl,-Bsymbolic", "-U_FORTIFY_SOURCE", *warnings]
    sources = [SOURCE_PATH, *sorted(HERE.glob("*.h"))]
    ingredients = [entries, *macros, *flags, _compiler(), *(path.read_text(encoding="utf-8") for path in sources)]
    folder = cache_folder() / hashlib.sha256("\0".join(ingredients).encode()).hexdigest()[:24]
    library = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other test processes wait for the one that builds
        known = library.with_name(f"{name}.sha256")
        if not (library.is_file() and known.is_file() and known.read_text() == file_sha256(library)):  # a damaged one would crash tests
            made = folder / f"{name}.{os.getpid()}"
            unit = f'#include "host_emulation.h"\n#include "{SOURCE_PATH}"\n{entries}'
            command = ["g++", *flags, *macros, "-I", str(HERE), "-x", "c++", "-", "-o", str(made)]
            built = subprocess.run(command, input=unit, text=True, capture_output=True, check=False)
            assert built.returncode == 0, built.stderr
            assert not built.stderr, built.stderr  # no warnings
            known.unlink(missing_ok=True)
            made.replace(library)
            known.write_text(file_sha256(library))
    return library


@cache
def cache_folder() -> Path:
    """Return where built libraries are kept: in the user's cache, or in a temporary folder if that cannot be written."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "flowkit" / "emulated-kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return Path(tempfile.mkdtemp(prefix="flowkit-emulation-"))
    return folder


@cache
def _compiler() -> str:
    """Return what g++ predefines: its version, and the instructions that ``-march=native`` stands for on this processor."""
    return subprocess.run(["g++", "-march=native", "-dM", "-E", "-x", "c++", os.devnull], capture_output=True, text=True, check=True).stdout


def _entry(kernel: str) -> str:
    """Return a C function that runs a kernel with arguments as the CUDA driver takes them: a pointer to each."""
    values = ", ".join(f"*({parameter.c_type}*)arguments[{i}]" for i, parameter in enumerate(kernel_parameters()[kernel]))
    barriers = str(kernel in _WITH_BARRIERS).lower()
    return (
        f'extern "C" int run_{kernel}(const int* grid, const int* block, int order, void** arguments) {{\n'
        "  return emulation::launch({grid[0], grid[1], grid[2]}, {block[0], block[1], 1}, "
        f"order, {barriers}, [=] {{ {kernel}({values}); }});\n"
        "}\n"
    )


class EmulatedDevice:
    """A `ComputeDevice` made of the CPU.

    Parameters
    ----------
    tile : TileShape
        The block of `iterate`.
    order : int
        In which order threads and blocks take turns: FORWARD, BACKWARD, or the seed of a shuffle.
    operations_per_poll : int
        How much of its work a stream does each time the driver asks whether it has finished; 0: everything at once when it is
        handed in.
    free_bytes : int
        Memory it claims to have.
    fail_at : str
        A kernel that fails, as a GPU's fault would, when it comes to run.
    released : threading.Event, optional
        Until it is set, streams that are polled do nothing.
    num_multiprocessors : int
        As many blocks as so many would hold are launched; with one, a block of `iterate` has many tiles.
    """

    name = "emulated device"

    def __init__(
        self,
        tile: TileShape = DEFAULT_TILE,
        *,
        order: int = FORWARD,
        operations_per_poll: int = 0,
        free_bytes: int = 1 << 40,
        fail_at: str = "",
        released: threading.Event | None = None,
        num_multiprocessors: int = 1,
    ) -> None:
        self.tile = tile
        self.num_multiprocessors = num_multiprocessors
        self.order = order
        self.operations_per_poll = operations_per_poll
        self.fail_at = fail_at
        self.released = released
        self.launches: list[tuple[str, tuple[int, int, int], dict[str, float]]] = []
        self.is_closed = False
        self.damaged_guards = 0
        self._free_bytes = free_bytes
        self._memory: list[np.ndarray] = []
        self._library = build_kernels(tile)

    def free_bytes(self) -> int:
        return self._free_bytes

    def allocate(self, num_bytes: int) -> int:
        return self._guarded(num_bytes).ctypes.data

    def allocate_pinned(self, num_bytes: int) -> PinnedMemory:
        array = self._guarded(num_bytes)
        return PinnedMemory(array, array.ctypes.data)

    def _guarded(self, num_bytes: int) -> np.ndarray:
        whole = np.full(num_bytes + 2 * GUARD_BYTES + 256, POISON, np.uint8)
        self._free_bytes -= num_bytes
        start = GUARD_BYTES + -(whole.ctypes.data + GUARD_BYTES) % 256
        inner = whole[start : start + num_bytes]
        self._memory.append(whole)
        self._memory.append(inner)
        return inner

    def open_stream(self) -> EmulatedStream:
        return EmulatedStream(self)

    def close(self) -> None:
        """Note whether all guards are as they were."""
        for whole, inner in zip(self._memory[::2], self._memory[1::2], strict=True):
            start = inner.ctypes.data - whole.ctypes.data
            beside = [whole[:start], whole[start + inner.size :]]
            self.damaged_guards += any((guard != POISON).any() for guard in beside)
            whole[:] = POISON  # what is freed may hold anything
        self._memory.clear()
        self.is_closed = True

    def run(self, kernel: str, grid: tuple[int, int, int], block: tuple[int, int], arguments: Mapping[str, float]) -> None:
        """Run a kernel now."""
        if kernel == self.fail_at:
            raise DeviceError("a kernel or copy failed: CUDA_ERROR_ILLEGAL_ADDRESS")
        boxed = [_C_TYPES[kind](value) for kind, value in ordered_arguments(kernel, arguments)]
        pointers = (ctypes.c_void_p * len(boxed))(*(ctypes.addressof(box) for box in boxed))
        run = getattr(self._library, f"run_{kernel}")
        failure = run((ctypes.c_int * 3)(*grid), (ctypes.c_int * 2)(*block), self.order, pointers)
        assert not failure, f"{kernel}: {_FAILURES[failure]}"


class EmulatedStream:
    """Work in order, done when asked for."""

    def __init__(self, device: EmulatedDevice) -> None:
        self._device = device
        self._queue: deque[Callable[[], object]] = deque()

    def upload(self, address: int, source: PinnedMemory, num_bytes: int) -> None:
        assert num_bytes <= source.bytes.size
        self._enqueue(lambda: ctypes.memmove(address, source.address, num_bytes))

    def download(self, target: PinnedMemory, address: int, num_bytes: int) -> None:
        assert num_bytes <= target.bytes.size
        self._enqueue(lambda: ctypes.memmove(target.address, address, num_bytes))

    def launch(self, kernel: str, grid: tuple[int, int, int], block: tuple[int, int], arguments: Mapping[str, float]) -> None:
        assert min(grid) > 0, (kernel, grid)
        assert max(grid[1:]) < 1 << 16, (kernel, grid)
        arguments = dict(arguments)
        self._device.launches.append((kernel, grid, arguments))
        self._enqueue(lambda: self._device.run(kernel, grid, block, arguments))

    def is_finished(self) -> bool:
        released = self._device.released
        for _ in range(self._device.operations_per_poll):
            if self._queue and (released is None or released.is_set()):
                self._queue.popleft()()
        return not self._queue

    def _enqueue(self, operation: Callable[[], object]) -> None:
        if self._device.operations_per_poll:
            self._queue.append(operation)
        else:
            operation()
