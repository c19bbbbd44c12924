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
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowkit.errors import DeviceError
from flowkit.files import file_sha256
from flowkit.flow.cuda.card import KNOWN_CARDS, Card
from flowkit.flow.cuda.compile import SOURCE_PATH, kernel_parameters, ordered_arguments
from flowkit.flow.cuda.device import PinnedMemory
from flowkit.flow.cuda.tiles import HALF_VARIANTS, VARIANTS, TileShape

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping, Sequence

HERE = Path(__file__).parent
POISON = 0xFF  # four of them are a NaN
GUARD_BYTES = 4096
FORWARD, BACKWARD = 0, 1  # orders of threads and blocks; greater numbers are seeds of a shuffle
_WITH_BARRIERS = {"iterate"}
_FAILURES = {
    1: "threads of a block part at a barrier",
    2: "a barrier in a kernel that is run as one without",
    3: "a block writes beyond its shared memory",
}
_C_TYPES: dict[str, Any] = {"pointer": ctypes.c_void_p, "int": ctypes.c_int, "float": ctypes.c_float, "double": ctypes.c_double}


def has_compiler() -> bool:
    """Return whether g++ is installed."""
    return shutil.which("g++") is not None


@cache
def build_kernels(tile: TileShape | None) -> ctypes.CDLL:
    """Build `iterate` for a tile, or all other kernels, and load them."""
    return ctypes.CDLL(str(_build("kernels.so", _others() if tile is None else _variant(tile, "iterate"))))


def build_driver(tiles: Sequence[TileShape] = (*VARIANTS, *HALF_VARIANTS)) -> Path:
    """Build a ``libcuda.so.1`` that runs the kernels, `iterate` for these tiles, on the CPU; return its folder, for ``LD_LIBRARY_PATH``."""
    source, kernels = _others(), [f'{{"{name}", run_{name}, {{}}}}' for name in kernel_parameters() if name != "iterate"]
    for number, tile in enumerate(tiles):
        source += f"namespace variant_{number} {{\n{_variant(tile, f'iterate_{number}')}}}\n"
        kernels.append(
            f'{{"iterate", variant_{number}::run_iterate_{number}, {{{tile.threads_x}, {tile.threads_y}, {tile.dynamic_bytes}}}}}'
        )
    fill = f"static const int filled = (fake_driver::kernels = {{{', '.join(kernels)}}}, 0);\n"
    return _build("libcuda.so.1", f'{source}#include "fake_driver.h"\n{fill}').parent


def _others() -> str:
    """Return the source of all kernels but `iterate`."""
    entries = "".join(_entry(name, name) for name in kernel_parameters() if name != "iterate")
    return f'#define ALL_BUT_ITERATE\n#include "{SOURCE_PATH}"\n#undef ALL_BUT_ITERATE\n{entries}'


def _variant(tile: TileShape, name: str) -> str:
    """Return the source of `iterate` for a tile, under a name of its own."""
    macros = [*tile.macros(), ("ONLY_ITERATE", "1"), *([("iterate", name)] if name != "iterate" else [])]
    defined = "".join(f"#undef {macro}\n#define {macro} {value}\n" for macro, value in macros)
    ended = "".join(f"#undef {macro}\n" for macro, _ in macros)
    return f'{defined}#include "{SOURCE_PATH}"\n{ended}{_entry("iterate", name)}'


def _build(name: str, source: str) -> Path:
    """Build a library once per machine: it lies in a folder named after everything that it is made of."""
    import fcntl  # not on Windows, where there is no g++ either

    warnings = ["-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Wno-unused-function", "-Wno-unused-variable"]
    flags = ["-std=c++17", "-O2", "-fno-math-errno", "-march=native", "-shared", "-fPIC", "-Wl,-Bsymbolic", "-U_FORTIFY_SOURCE", *warnings]
    sources = [SOURCE_PATH, *sorted(HERE.glob("*.h"))]
    ingredients = [source, *flags, _compiler(), *(path.read_text(encoding="utf-8") for path in sources)]
    folder = cache_folder() / hashlib.sha256("\0".join(ingredients).encode()).hexdigest()[:24]
    library = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other test processes wait for the one that builds
        known = library.with_name(f"{name}.sha256")
        if not (library.is_file() and known.is_file() and known.read_text() == file_sha256(library)):  # a damaged one would crash tests
            made = folder / f"{name}.{os.getpid()}"
            command = ["g++", *flags, "-I", str(HERE), "-x", "c++", "-", "-o", str(made)]
            built = subprocess.run(command, input=f'#include "host_emulation.h"\n{source}', text=True, capture_output=True, check=False)
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


def _entry(kernel: str, name: str) -> str:
    """Return a C function that runs a kernel, under a name, with arguments as the CUDA driver takes them: a pointer to each."""
    values = ", ".join(f"*({parameter.c_type}*)arguments[{i}]" for i, parameter in enumerate(kernel_parameters()[kernel]))
    barriers = str(kernel in _WITH_BARRIERS).lower()
    return (
        f'extern "C" int run_{name}(const int* grid, const int* block, int shared_bytes, int order, void** arguments) {{\n'
        "  return emulation::launch({grid[0], grid[1], grid[2]}, {block[0], block[1], 1}, "
        f"shared_bytes, order, {barriers}, [=] {{ {name}({values}); }});\n"
        "}\n"
    )


class EmulatedDevice:
    """A `ComputeDevice` made of the CPU.

    Parameters
    ----------
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
    like : Card
        The GPU whose other limits it has.
    """

    def __init__(
        self,
        *,
        order: int = FORWARD,
        operations_per_poll: int = 0,
        free_bytes: int = 1 << 40,
        fail_at: str = "",
        released: threading.Event | None = None,
        num_multiprocessors: int = 1,
        like: Card = KNOWN_CARDS[90],
    ) -> None:
        self.card = replace(like, name="emulated device", num_multiprocessors=num_multiprocessors)
        self.loaded: set[TileShape] = set()
        self.order = order
        self.operations_per_poll = operations_per_poll
        self.fail_at = fail_at
        self.released = released
        self.launches: list[tuple[str, tuple[int, int, int], dict[str, float]]] = []
        self.is_closed = False
        self.damaged_guards = 0
        self._free_bytes = free_bytes
        self._memory: list[np.ndarray] = []

    def load_tile(self, tile: TileShape) -> None:
        assert self.card.blocks_per_sm(tile) > 0
        self.loaded.add(tile)

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

    def run(
        self, kernel: str, grid: tuple[int, int, int], block: tuple[int, int], arguments: Mapping[str, float], tile: TileShape | None = None
    ) -> None:
        """Run a kernel now, `iterate` for a tile."""
        assert (kernel == "iterate") == (tile is not None)
        assert tile is None or block == (tile.threads_x, tile.threads_y)
        if kernel == self.fail_at:
            raise DeviceError("a kernel or copy failed: CUDA_ERROR_ILLEGAL_ADDRESS")
        boxed = [_C_TYPES[kind](value) for kind, value in ordered_arguments(kernel, arguments)]
        pointers = (ctypes.c_void_p * len(boxed))(*(ctypes.addressof(box) for box in boxed))
        run = getattr(build_kernels(tile), f"run_{kernel}")
        shared_bytes = 0 if tile is None else tile.dynamic_bytes
        failure = run((ctypes.c_int * 3)(*grid), (ctypes.c_int * 2)(*block), shared_bytes, self.order, pointers)
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

    def launch(
        self, kernel: str, grid: tuple[int, int, int], block: tuple[int, int], arguments: Mapping[str, float], tile: TileShape | None = None
    ) -> None:
        assert tile is None or tile in self._device.loaded
        assert min(grid) > 0, (kernel, grid)
        assert max(grid[1:]) < 1 << 16, (kernel, grid)
        arguments = dict(arguments)
        self._device.launches.append((kernel, grid, arguments))
        self._enqueue(lambda: self._device.run(kernel, grid, block, arguments, tile))

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
