"""A CUDA device as the solver sees it: memory, pinned memory, and streams that copy and launch, through NVIDIA's cuda-core.

The solver uses only the two protocols here, so that its tests can run it on kernels that the CPU emulates.
"""

from __future__ import annotations

import ctypes
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import DeviceError
from flowkit.flow.cuda.card import Card
from flowkit.flow.cuda.compile import (
    INSTALL_HINT,
    MIN_ARCH,
    cached_kernels,
    kernel_parameters,
    nvrtc_version,
    ordered_arguments,
    supported_archs,
)
from flowkit.flow.cuda.tiles import TileShape

logger = logging.getLogger(__name__)

Grid = tuple[int, int, int]
Block = tuple[int, int]


@dataclass(frozen=True)
class PinnedMemory:
    """Host memory that the device reads and writes, with its bytes for the host and its address for the device."""

    bytes: NDArray[np.uint8]
    address: int


class DeviceStream(Protocol):
    """A sequence of work: copies between pinned and device memory, and launches."""

    def upload(self, address: int, source: PinnedMemory, num_bytes: int) -> None:
        """Copy the first bytes of pinned memory to the device, without waiting."""

    def download(self, target: PinnedMemory, address: int, num_bytes: int) -> None:
        """Copy bytes of the device to the start of pinned memory, without waiting."""

    def launch(self, kernel: str, grid: Grid, block: Block, arguments: Mapping[str, float], tile: TileShape | None = None) -> None:
        """Launch a kernel with its arguments by name, without waiting; `iterate` in the variant for a tile that has been loaded."""

    def is_finished(self) -> bool:
        """Return whether everything given so far is done; raises DeviceError if some of it failed."""


class ComputeDevice(Protocol):
    """The device on which the kernels run."""

    card: Card

    def load_tile(self, tile: TileShape) -> None:
        """Load the variant of `iterate` for a tile, which may be loaded already."""

    def free_bytes(self) -> int:
        """Return the number of free bytes of device memory."""

    def allocate(self, num_bytes: int) -> int:
        """Return the address of new device memory (a multiple of 256), whose content is undefined."""

    def allocate_pinned(self, num_bytes: int) -> PinnedMemory:
        """Return new pinned host memory."""

    def open_stream(self) -> DeviceStream:
        """Return a new stream."""

    def close(self) -> None:
        """Free all memory when the device has finished."""


@dataclass(frozen=True)
class DeviceInfo:
    """A CUDA device of this machine."""

    index: int
    name: str
    compute_capability: tuple[int, int]
    total_bytes: int
    num_multiprocessors: int
    card: Card


class CudaDevice:
    """A CUDA device on which the kernels are loaded. Only the thread that made it may call it.

    Parameters
    ----------
    index : int
        Index of the device, as CUDA counts them (``CUDA_VISIBLE_DEVICES`` is honoured).

    Raises
    ------
    DeviceError
        If the driver, the device or the software is missing, too old, or does not work.
    """

    def __init__(self, index: int = 0) -> None:
        self._driver = _loaded_driver()
        count = _checked(self._driver.cuDeviceGetCount(), "cuDeviceGetCount")
        check_index(index, count)
        from cuda.core import Device

        self._index = index
        self.kernels: dict[str, Any] = {}
        self.variants: dict[TileShape, Any] = {}  # of `iterate`
        try:
            self._device = Device(index)
            self._device.set_current()
            self.card = card_of(self._driver, self._device)
        except DeviceError:
            raise
        except Exception as error:
            raise self._unusable(error) from error
        self._load()
        self._allocated: list[int] = []
        self._pinned: list[int] = []
        logger.info("TV-L1 on CUDA device %d: %s, compute capability %.1f", index, self.card.name, self.card.arch / 10)

    def _unusable(self, error: Exception) -> DeviceError:
        return DeviceError(f"CUDA device {self._index} cannot be used: {error}")

    def load_tile(self, tile: TileShape) -> None:
        if tile not in self.variants:
            self._load(tile)

    def _load(self, tile: TileShape | None = None) -> None:
        """Load the variant of `iterate` for a tile, or all other kernels."""
        from cuda.core import ObjectCode

        code, code_type = cached_kernels(self.card.arch, tile)
        try:
            module = ObjectCode.from_cubin(code) if code_type == "cubin" else ObjectCode.from_ptx(code)
            if tile is None:
                self.kernels = {name: module.get_kernel(name) for name in kernel_parameters() if name != "iterate"}
                return
            kernel = self.variants[tile] = module.get_kernel("iterate")
        except Exception as error:
            raise self._unusable(error) from error
        attribute = self._driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES  # without it, 48 KB at most
        result = self._driver.cuKernelSetAttribute(attribute, tile.dynamic_bytes, kernel.handle, self._device.device_id)
        _checked(result, f"asking for {tile.dynamic_bytes} bytes of shared memory")

    def free_bytes(self) -> int:
        free, _total = _checked(self._driver.cuMemGetInfo(), "cuMemGetInfo")
        return int(free)

    def allocate(self, num_bytes: int) -> int:
        address = int(_checked(self._driver.cuMemAlloc(num_bytes), f"cuMemAlloc of {num_bytes / 2**20:.0f} MiB on {self.card.name}"))
        self._allocated.append(address)
        return address

    def allocate_pinned(self, num_bytes: int) -> PinnedMemory:
        call = f"cuMemHostAlloc of {num_bytes / 2**20:.0f} MiB of page-locked host memory"
        address = int(_checked(self._driver.cuMemHostAlloc(num_bytes, 0), call))
        self._pinned.append(address)
        view = (ctypes.c_uint8 * num_bytes).from_address(address)
        return PinnedMemory(np.ctypeslib.as_array(view), address)

    def open_stream(self) -> DeviceStream:
        return _CudaStream(self, self._device.create_stream())

    def close(self) -> None:
        """Wait for the device and free all memory. The memory of a device that has failed is freed when the process ends."""
        try:
            _checked(self._driver.cuCtxSynchronize(), "cuCtxSynchronize")
            while self._allocated:
                _checked(self._driver.cuMemFree(self._allocated.pop()), "cuMemFree")
            while self._pinned:
                _checked(self._driver.cuMemFreeHost(self._pinned.pop()), "cuMemFreeHost")
        except DeviceError as error:
            logger.warning("the memory of the CUDA device is not freed: %s", error)


class _CudaStream:
    """A stream of cuda-core, which copies through the driver API, because that takes plain addresses."""

    def __init__(self, device: CudaDevice, stream: Any) -> None:
        from cuda.core import launch

        self._launch = launch
        self._driver = device._driver
        self._kernels, self._variants = device.kernels, device.variants
        self._stream = stream
        self._handle = stream.handle

    def upload(self, address: int, source: PinnedMemory, num_bytes: int) -> None:
        _checked(self._driver.cuMemcpyHtoDAsync(address, source.address, num_bytes, self._handle), "cuMemcpyHtoDAsync")

    def download(self, target: PinnedMemory, address: int, num_bytes: int) -> None:
        _checked(self._driver.cuMemcpyDtoHAsync(target.address, address, num_bytes, self._handle), "cuMemcpyDtoHAsync")

    def launch(self, kernel: str, grid: Grid, block: Block, arguments: Mapping[str, float], tile: TileShape | None = None) -> None:
        values = packed_arguments(kernel, arguments)
        function, shared_bytes = (self._kernels[kernel], 0) if tile is None else (self._variants[tile], tile.dynamic_bytes)
        try:
            self._launch(self._stream, _launch_config(grid, block, shared_bytes), function, *values)
        except Exception as error:
            raise DeviceError(f"the GPU refuses kernel {kernel} with grid {grid}, block {block}: {error}") from error

    def is_finished(self) -> bool:
        result = self._driver.cuStreamQuery(self._handle)
        if result[0] == self._driver.CUresult.CUDA_ERROR_NOT_READY:
            return False
        _checked(result, "a kernel or copy")
        return True


def packed_arguments(kernel: str, arguments: Mapping[str, float]) -> list[Any]:
    """Return the arguments in order, each with the width that the kernel declares; cuda-core treats a plain int as a pointer.

    Raises
    ------
    TypeError
        If arguments and parameters differ.
    """
    packers = _packers(kernel)
    if len(arguments) != len(packers) or any(name not in arguments for name, _ in packers):
        ordered_arguments(kernel, arguments)  # raises an error that names them
    return [pack(arguments[name]) for name, pack in packers]


@cache
def _packers(kernel: str) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    """Return the name and the conversion of each parameter; cached because a launch takes only microseconds."""
    scalars: dict[str, Callable[[Any], Any]] = {"int": ctypes.c_int, "float": ctypes.c_float, "double": ctypes.c_double, "pointer": int}
    return tuple((parameter.name, scalars[parameter.kind]) for parameter in kernel_parameters()[kernel])


@lru_cache(maxsize=4096)
def _launch_config(grid: Grid, block: Block, shared_bytes: int) -> Any:
    from cuda.core import LaunchConfig

    return LaunchConfig(grid=grid, block=(*block, 1), shmem_size=shared_bytes)


def card_of(driver: Any, device: Any) -> Card:
    """Return the limits of a device of cuda-core, whose name and properties the driver knows."""
    attributes = driver.CUdevice_attribute

    def attribute(name: str) -> int:
        value = driver.cuDeviceGetAttribute(getattr(attributes, f"CU_DEVICE_ATTRIBUTE_{name}"), device.device_id)
        return int(_checked(value, f"cuDeviceGetAttribute of {name}"))

    major, minor = device.compute_capability
    return Card(
        name=device.name,
        arch=10 * major + minor,
        num_multiprocessors=attribute("MULTIPROCESSOR_COUNT"),
        # Some drivers for virtual machines give 0 for what they do not know.
        clock_hz=1e3 * attribute("CLOCK_RATE") or 1.5e9,
        bytes_per_second=2 * 1e3 * attribute("MEMORY_CLOCK_RATE") * attribute("GLOBAL_MEMORY_BUS_WIDTH") / 8 or math.inf,  # both edges
        shared_bytes_per_sm=attribute("MAX_SHARED_MEMORY_PER_MULTIPROCESSOR"),
        shared_bytes_per_block=attribute("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN"),
        reserved_bytes_per_block=attribute("RESERVED_SHARED_MEMORY_PER_BLOCK"),
        threads_per_sm=attribute("MAX_THREADS_PER_MULTIPROCESSOR"),
    )


def check_index(index: int, count: int) -> None:
    """Raise `DeviceError` unless there is a device with this index among `count`."""
    if not 0 <= index < count:
        raise DeviceError(f"there is no CUDA device {index}: this machine has {count} (CUDA_VISIBLE_DEVICES is honoured)")


def list_devices() -> tuple[DeviceInfo, ...]:
    """Return the CUDA devices of this machine, which may be none.

    Raises
    ------
    DeviceError
        If the software or the NVIDIA driver is missing or too old.
    """
    driver = _loaded_driver()
    from cuda.core import Device

    devices = []
    for index in range(_checked(driver.cuDeviceGetCount(), "cuDeviceGetCount")):
        handle = _checked(driver.cuDeviceGet(index), "cuDeviceGet")
        total = _checked(driver.cuDeviceTotalMem(handle), "cuDeviceTotalMem")
        device = Device(index)
        major, minor = device.compute_capability
        devices.append(
            DeviceInfo(index, device.name, (major, minor), int(total), device.properties.multiprocessor_count, card_of(driver, device))
        )
    return tuple(devices)


def has_gpu() -> bool:
    """Return whether the first GPU is one that the cuda solver can use."""
    try:
        major, minor = next((device.compute_capability for device in list_devices()), (0, 0))
        return 10 * major + minor >= max(MIN_ARCH, supported_archs()[0])
    except (DeviceError, ImportError):
        return False


def _loaded_driver() -> Any:
    """Return the initialised driver API, after checking that the driver can run the code that NVRTC generates."""
    try:
        from cuda.bindings import driver
        from cuda.core import Device  # noqa: F401
    except (ImportError, AttributeError) as error:  # the latter from a cuda-bindings that is there in part
        raise DeviceError(f"the GPU solver needs the Python package cuda-core ({error}); {INSTALL_HINT}") from error
    try:
        result = driver.cuInit(0)
    except Exception as error:  # the bindings raise their own error if they do not find libcuda
        raise DeviceError(f"there is no NVIDIA driver on this machine ({error}); use --device cpu") from error
    if result[0] == driver.CUresult.CUDA_ERROR_NO_DEVICE:
        raise DeviceError("the NVIDIA driver sees no CUDA device (CUDA_VISIBLE_DEVICES is honoured); use --device cpu")
    _checked(result, "cuInit")
    version = int(_checked(driver.cuDriverGetVersion(), "cuDriverGetVersion"))
    major, minor = nvrtc_version()
    if version // 1000 < major:
        raise DeviceError(
            f"the NVIDIA driver is too old: it runs CUDA {version // 1000}.{version % 1000 // 10}, but the installed compiler (NVRTC "
            f"{major}.{minor}) generates code for CUDA {major}; update the driver, or install a CUDA {version // 1000} build of torch"
        )
    return driver


def _checked(result: tuple[Any, ...], call: str) -> Any:
    """Return the values of a driver call; raise `DeviceError` if it failed."""
    code, *values = result
    if int(code):
        name = getattr(code, "name", str(code))
        advice = "; free memory on the GPU, or give the solver a smaller max_pairs" if name == "CUDA_ERROR_OUT_OF_MEMORY" else ""
        raise DeviceError(f"{call} failed: {name}{advice}")
    if not values:
        return None
    return values[0] if len(values) == 1 else tuple(values)
