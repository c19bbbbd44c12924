"""The kernels of tvl1.cu: their parameters, which are read from the source, and their compilation by NVRTC, which is cached."""

from __future__ import annotations

import hashlib
import io
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from flowkit.errors import DeviceError
from flowkit.files import user_cache_folder
from flowkit.flow.cuda.tiles import TileShape
from flowkit.flow.kernel_cache import read_entry, write_entry

logger = logging.getLogger(__name__)

SOURCE_PATH = Path(__file__).with_name("tvl1.cu")
MIN_ARCH = 75  # compute capability 7.5: the oldest for which NVRTC 13 compiles
INSTALL_HINT = 'install it with: pip install "flowkit-video[cuda]" (with a build of torch without CUDA also "cuda-core[cu13]")'

ParameterKind = Literal["pointer", "int", "float", "double"]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel."""

    name: str
    kind: ParameterKind
    c_type: str


@cache
def kernel_source() -> str:
    """Return the CUDA C++ source."""
    return SOURCE_PATH.read_text(encoding="utf-8")


@cache
def kernel_parameters() -> dict[str, tuple[Parameter, ...]]:
    """Return the parameters of every kernel, as declared in the source."""
    source = re.sub(r"//[^\n]*", "", kernel_source())
    kernels = {}
    for name, declared in re.findall(r'extern "C" __global__ void(?:\s+__launch_bounds__\([^)]*\))?\s+(\w+)\(([^)]*)\)', source):
        kernels[name] = tuple(_parameter(" ".join(text.split())) for text in declared.split(","))
    return kernels


def _parameter(declared: str) -> Parameter:
    c_type, name = re.fullmatch(r"(.*?)\s*(\w+)", declared).groups()  # type: ignore[union-attr]
    if c_type.endswith("*"):
        return Parameter(name, "pointer", c_type)
    kinds: dict[str, ParameterKind] = {"int": "int", "float": "float", "double": "double"}
    return Parameter(name, kinds[c_type], c_type)


def ordered_arguments(kernel: str, arguments: Mapping[str, float]) -> list[tuple[ParameterKind, float]]:
    """Return (kind, value) of each argument in the order of the kernel's parameters.

    Raises
    ------
    TypeError
        If a parameter has no argument or an argument has no parameter, so that arguments are never shifted.
    """
    parameters = kernel_parameters()[kernel]
    if len(arguments) != len(parameters) or any(parameter.name not in arguments for parameter in parameters):
        differing = sorted({parameter.name for parameter in parameters} ^ set(arguments))
        raise TypeError(f"kernel {kernel}: arguments and parameters differ in {', '.join(differing)}")
    return [(parameter.kind, arguments[parameter.name]) for parameter in parameters]


@dataclass(frozen=True)
class KernelResources:
    """The resources of a multiprocessor that a compiled kernel uses, as the assembler reports them."""

    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_bytes: int


@dataclass(frozen=True)
class CompiledKernels:
    """Machine code (`cubin`), or, for a GPU that is newer than NVRTC, `ptx`, which the driver compiles."""

    code: bytes
    code_type: Literal["cubin", "ptx"]
    resources: Mapping[str, KernelResources]


def nvrtc_version() -> tuple[int, int]:
    """Return the version of the installed NVRTC.

    Raises
    ------
    DeviceError
        If the Python bindings or the NVRTC library are not installed.
    """
    return _query_nvrtc()[0]


def supported_archs() -> tuple[int, ...]:
    """Return ten times the compute capabilities for which the installed NVRTC compiles; raise as `nvrtc_version` does."""
    return _query_nvrtc()[1]


@cache
def _query_nvrtc() -> tuple[tuple[int, int], tuple[int, ...]]:
    try:
        from cuda.bindings import nvrtc
        from cuda.core import Program  # noqa: F401
    except (ImportError, AttributeError) as error:  # AttributeError: cuda-bindings is installed incompletely
        raise DeviceError(f"the GPU solver needs the Python package cuda-core ({error}); {INSTALL_HINT}") from error
    try:
        error_code, major, minor = nvrtc.nvrtcVersion()
        error_code_archs, archs = nvrtc.nvrtcGetSupportedArchs()
    except Exception as error:  # cuda.pathfinder raises its own error if it does not find the library
        raise DeviceError(
            f"NVRTC, NVIDIA's run-time compiler, cannot be loaded ({error}); install a CUDA build of torch, which contains it, or run: "
            "pip install nvidia-cuda-nvrtc"
        ) from error
    if int(error_code) or int(error_code_archs):
        raise DeviceError(f"NVRTC does not work: error {int(error_code) or int(error_code_archs)} when asked for its version")
    return (int(major), int(minor)), tuple(sorted(int(arch) for arch in archs))


def compile_kernels(arch: int, tile: TileShape | None = None) -> CompiledKernels:
    """Compile kernels for a compute capability (times ten: 90 is 9.0), which takes about a second.

    Parameters
    ----------
    arch : int
        Compute capability times ten.
    tile : TileShape, optional
        The block for which `iterate`, and nothing else, is compiled; by default all other kernels are.

    Raises
    ------
    DeviceError
        If NVRTC is missing, does not support such old GPUs, or refuses the source.
    """
    version, known = nvrtc_version(), supported_archs()
    if arch < max(MIN_ARCH, known[0]):
        needed = max(MIN_ARCH, known[0])
        raise DeviceError(
            f"the GPU has compute capability {arch / 10}; the GPU solver needs {needed / 10} or newer with NVRTC "
            f"{version[0]}.{version[1]}; use --device cpu"
        )
    from cuda.core import Program, ProgramOptions

    code_type: Literal["cubin", "ptx"] = "cubin" if arch in known else "ptx"
    target = f"sm_{arch}" if code_type == "cubin" else f"compute_{max(a for a in known if a < arch)}"
    options = ProgramOptions(
        name="tvl1",
        arch=target,
        std="c++17",
        use_fast_math=True,
        define_macro=_macros(tile),
        ptxas_options=["-v"] if code_type == "cubin" else None,
    )
    log = io.StringIO()
    try:
        compiled = Program(kernel_source(), "c++", options).compile(code_type, logs=log)
    except Exception as error:
        raise DeviceError(f"NVRTC {version[0]}.{version[1]} cannot compile the TV-L1 kernels for {target}: {error}") from error
    code = compiled.code
    return CompiledKernels(code.encode() if isinstance(code, str) else bytes(code), code_type, parse_resources(log.getvalue()))


def _macros(tile: TileShape | None) -> list[tuple[str, str]]:
    """Return the macros that select what is compiled."""
    return [("ALL_BUT_ITERATE", "1")] if tile is None else [("ONLY_ITERATE", "1"), *tile.macros()]


def parse_resources(log: str) -> dict[str, KernelResources]:
    """Return the resources of each kernel from the verbose log of the assembler."""
    resources = {}
    for section in re.split(r"Compiling entry function ", log)[1:]:
        name = re.match(r"'(\w+)'", section)
        frame = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", section)
        used = re.search(r"Used (\d+) registers", section)
        shared = re.search(r"(\d+) bytes smem", section)
        if not (name and frame and used):
            raise DeviceError(f"the report of the assembler has an unknown form: {section[:400]}")
        resources[name[1]] = KernelResources(int(used[1]), int(shared[1]) if shared else 0, int(frame[1]), int(frame[2]) + int(frame[3]))
    return resources


def cache_folder() -> Path:
    """Return the user's folder for compiled GPU kernels, which may not exist yet."""
    return user_cache_folder() / "flowkit" / "cuda"


def cached_kernels(arch: int, tile: TileShape | None = None, *, folder: Path | None = None) -> tuple[bytes, str]:
    """Return (code, code type) for a compute capability: from the cache, or compiled and then put into the cache.

    Parameters
    ----------
    arch : int
        Compute capability times ten.
    tile : TileShape, optional
        As for `compile_kernels`.
    folder : Path, optional
        The cache; by default `cache_folder`. If it cannot be read or written, the kernels are compiled every time.

    Notes
    -----
    The name of a file is a hash of the source, the options and the version of NVRTC. Processes that start at the same time do not
    disturb each other, and a file that is damaged, or that another user wrote, is compiled again; see `kernel_cache`.
    """
    folder = cache_folder() if folder is None else folder
    version = nvrtc_version()
    code_type = "cubin" if arch in supported_archs() else "ptx"
    settings: Sequence[object] = (kernel_source(), arch, code_type, tile, version)
    path = folder / f"tvl1-sm{arch}-{hashlib.sha256(repr(settings).encode()).hexdigest()[:24]}.{code_type}"
    code = read_entry(path)
    if code is not None:
        return code, code_type
    compiled = compile_kernels(arch, tile)
    write_entry(path, compiled.code)
    return compiled.code, compiled.code_type
