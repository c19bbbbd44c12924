"""Compilation of tvl1.cu by NVRTC for every GPU that it supports, the cache of the result, and the path through cuda-core to a driver."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowkit.errors import DeviceError
from flowkit.flow.cuda import compile as cuda_kernels
from flowkit.flow.cuda.card import KNOWN_CARDS
from flowkit.flow.cuda.compile import (
    CompiledKernels,
    cached_kernels,
    compile_kernels,
    kernel_parameters,
    ordered_arguments,
    parse_resources,
    supported_archs,
)
from flowkit.flow.cuda.cost import best_tiling
from flowkit.flow.cuda.device import list_devices, packed_arguments
from flowkit.flow.cuda.plan import Level
from flowkit.flow.cuda.tiles import DEFAULT_TILE, HALF_VARIANTS, REGISTERS_PER_SM, SPILLING_VARIANTS, VARIANTS, TileShape
from flowkit.flow.params import TVL1Params

sys.path.append(str(Path(__file__).parents[3] / "support" / "emulation"))
from emulated_device import EmulatedDevice, build_driver, has_compiler


def nvrtc_archs() -> Any:
    try:
        return supported_archs()
    except DeviceError:
        return ()


needs_nvrtc = pytest.mark.skipif(not nvrtc_archs(), reason="needs cuda-core and NVRTC (extra `cuda`)")


DEFAULT_PLAN = [best_tiling(KNOWN_CARDS[90], Level(width, 0).pitch, height) for height, width in TVL1Params().level_sizes(256, 340)]


def check_variant(arch: int, tile: TileShape) -> None:
    """Check that `iterate` for a tile spills nothing, and that a multiprocessor has room for all of its blocks."""
    compiled = compile_kernels(arch, tile)
    assert set(compiled.resources) == {"iterate"}
    iterate = compiled.resources["iterate"]
    assert (iterate.spill_bytes, iterate.stack_bytes) == (0, 0), (arch, tile, iterate)
    assert iterate.registers <= tile.registers, (arch, tile, iterate)
    warps_per_scheduler = -(-tile.threads * tile.blocks_per_sm // 32 // 4)  # each of the four has a quarter of the registers
    assert -(-iterate.registers // 8) * 8 * 32 * warps_per_scheduler <= REGISTERS_PER_SM / 4, (arch, tile, iterate)
    assert iterate.shared_bytes + tile.dynamic_bytes <= tile.shared_bytes, (arch, tile, iterate)


class TestCompilation:
    @needs_nvrtc
    @pytest.mark.parametrize("arch", [arch if arch == 90 else pytest.param(arch, marks=pytest.mark.slow) for arch in nvrtc_archs()])
    def test_no_kernel_but_iterate_spills(self, arch: int) -> None:
        compiled = compile_kernels(arch)
        assert compiled.code_type == "cubin"
        assert set(compiled.resources) == set(kernel_parameters()) - {"iterate"}
        assert not {name for name, kernel in compiled.resources.items() if kernel.spill_bytes or kernel.stack_bytes}

    @needs_nvrtc
    @pytest.mark.parametrize("tile", sorted({tiling.tile for tiling in DEFAULT_PLAN}, key=str), ids=str)
    def test_no_variant_of_the_default_plan_of_an_h200_spills(self, tile: TileShape) -> None:
        check_variant(90, tile)

    @needs_nvrtc
    @pytest.mark.slow  # a second or two for each of 8 variants
    @pytest.mark.parametrize("arch", nvrtc_archs())
    def test_no_variant_that_a_plan_may_choose_spills(self, arch: int) -> None:
        for tile in (*VARIANTS, *(HALF_VARIANTS if arch == 90 else ())):
            check_variant(arch, tile)  # also where the known card of this architecture has no room: another one may have

    @needs_nvrtc
    def test_from_the_oldest_to_the_newest_architecture_all_have_been_asked_for(self) -> None:
        assert {75, 80, 86, 89, 90, 100, 120} <= set(nvrtc_archs())

    @needs_nvrtc
    @pytest.mark.slow
    @pytest.mark.parametrize("tile", SPILLING_VARIANTS, ids=str)
    def test_what_no_plan_may_choose_for_its_spills_does_spill_wherever_there_is_room_for_it(self, tile: TileShape) -> None:
        archs = [arch for arch, card in KNOWN_CARDS.items() if card.holds(tile) and arch in nvrtc_archs()]
        assert archs
        for arch in archs:
            assert compile_kernels(arch, tile).resources["iterate"].spill_bytes > 0, arch

    @needs_nvrtc
    def test_this_check_sees_a_spill(self, monkeypatch: pytest.MonkeyPatch) -> None:
        starved = cuda_kernels.kernel_source().replace("__launch_bounds__(THREADS, BLOCKS_PER_SM)", "__launch_bounds__(THREADS, 8)")
        monkeypatch.setattr(cuda_kernels, "kernel_source", lambda: starved)
        assert compile_kernels(90, DEFAULT_TILE).resources["iterate"].spill_bytes > 0

    @needs_nvrtc
    def test_a_gpu_too_old_is_named(self) -> None:
        with pytest.raises(DeviceError, match=r"compute capability 6\.1; the GPU solver needs 7\.5 or newer"):
            compile_kernels(61)

    @needs_nvrtc
    def test_an_error_of_the_compiler_is_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cuda_kernels, "kernel_source", lambda: "no such thing;")
        with pytest.raises(DeviceError, match=r"(?s)cannot compile the TV-L1 kernels for sm_90: .*error"):
            compile_kernels(90)

    def test_assembler_report_is_read(self) -> None:
        log = (
            "ptxas info    : Compiling entry function 'warp' for 'sm_75'\nptxas info    : Function properties for warp\n"
            "ptxas         .     24 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads\n"
            "ptxas info    : Used 40 registers, used 1 barriers, 17921 bytes smem, 480 bytes cmem[0]\n"
        )
        assert parse_resources(log) == {"warp": cuda_kernels.KernelResources(40, 17921, 24, 20)}


class TestParameters:
    def test_every_kernel_of_the_source_is_found(self) -> None:
        assert len(kernel_parameters()) == cuda_kernels.kernel_source().count("__global__ void")
        assert [(p.name, p.kind) for p in kernel_parameters()["load_frames"]] == [
            ("width", "int"),
            ("height", "int"),
            ("frames", "pointer"),
            ("image", "pointer"),
        ]
        assert {p.kind for p in kernel_parameters()["quantise_flow"]} == {"int", "double", "pointer"}
        assert {p.kind for p in kernel_parameters()["shrink"]} == {"int", "float", "pointer"}

    def test_arguments_are_packed_in_order_and_width(self) -> None:
        arguments = {"image": 1 << 40, "height": 3, "frames": 7, "width": 2}
        assert [value for _, value in ordered_arguments("load_frames", arguments)] == [2, 3, 7, 1 << 40]
        packed = packed_arguments("load_frames", arguments)
        assert [type(value).__name__ for value in packed] == ["c_int", "c_int", "int", "int"]
        assert packed[2:] == [7, 1 << 40]
        kinds = {
            type(value).__name__ for value in packed_arguments("quantise_flow", {p.name: 0 for p in kernel_parameters()["quantise_flow"]})
        }
        assert kinds == {"c_int", "c_double", "int"}

    @pytest.mark.parametrize(
        "arguments", [{"width": 1, "height": 1, "frames": 1}, {"width": 1, "height": 1, "frames": 1, "image": 1, "more": 1}]
    )
    def test_a_missing_or_surplus_argument_is_an_error(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(TypeError, match="load_frames: arguments and parameters differ in"):
            packed_arguments("load_frames", arguments)


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replaces the compiler and records the requests."""
    asked = []

    def compile_to_name(arch: Any, tile: Any) -> Any:
        asked.append((arch, tile))
        return CompiledKernels(f"code {arch} {tile}".encode() * 50, "cubin", {})

    monkeypatch.setattr(cuda_kernels, "compile_kernels", compile_to_name)
    monkeypatch.setattr(cuda_kernels, "_query_nvrtc", lambda: ((13, 0), (75, 90)))
    return asked


class TestCache:
    def test_a_second_use_does_not_compile(self, tmp_path: Path, compilations: Any) -> None:
        first = cached_kernels(90, folder=tmp_path / "new")
        assert cached_kernels(90, folder=tmp_path / "new") == first
        assert len(compilations) == 1
        assert len(list((tmp_path / "new").iterdir())) == 1

    @pytest.mark.parametrize("change", ["arch", "tile", "source", "nvrtc"])
    def test_another_gpu_tile_source_or_compiler_compiles_again(
        self, tmp_path: Path, compilations: Any, monkeypatch: pytest.MonkeyPatch, change: str
    ) -> None:
        cached_kernels(90, folder=tmp_path)
        if change == "source":
            monkeypatch.setattr(cuda_kernels, "kernel_source", lambda: "another")
        if change == "nvrtc":
            monkeypatch.setattr(cuda_kernels, "_query_nvrtc", lambda: ((13, 1), (75, 90)))
        cached_kernels(75 if change == "arch" else 90, TileShape(8, 8) if change == "tile" else None, folder=tmp_path)
        assert len(compilations) == 2
        assert len(list(tmp_path.iterdir())) == 2

    @pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
    def test_a_damaged_file_is_compiled_again_and_replaced(self, tmp_path: Path, compilations: Any, damage: str) -> None:
        code = cached_kernels(90, folder=tmp_path)
        (path,) = tmp_path.iterdir()
        content = bytearray(path.read_bytes())
        content[100] ^= 1
        path.write_bytes({"cut": path.read_bytes()[:-1], "flipped": bytes(content), "empty": b""}[damage])
        assert cached_kernels(90, folder=tmp_path) == code
        assert len(compilations) == 2
        assert cached_kernels(90, folder=tmp_path) == code
        assert len(compilations) == 2

    def test_a_folder_that_cannot_be_made_costs_only_the_compilation(self, tmp_path: Path, compilations: Any) -> None:
        (tmp_path / "file").write_text("not a folder")
        assert cached_kernels(90, folder=tmp_path / "file" / "cache")[1] == "cubin"
        assert len(compilations) == 1

    def test_a_full_disk_leaves_no_part_file(self, tmp_path: Path, compilations: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(self: Any, target: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "replace", full)
        assert cached_kernels(90, folder=tmp_path)[1] == "cubin"
        assert not list(tmp_path.iterdir())

    def test_the_user_chooses_the_cache_folder(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cuda_kernels.cache_folder() == tmp_path / "flowkit" / "cuda"


class TestMissingSoftware:
    def test_without_cuda_core_the_extra_is_named(self) -> None:
        code = """
import sys
sys.modules["cuda.core"] = None
from flowkit.errors import DeviceError
from flowkit.flow.cuda.device import list_devices
from flowkit.flow.cuda.solver import CudaSolver
from flowkit.flow.params import TVL1Params
for call in (list_devices, lambda: CudaSolver(32, 32, TVL1Params())):
    try:
        call()
    except DeviceError as error:
        print(error)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.count('pip install "flowkit-video[cuda]"') == 2

    @needs_nvrtc
    def test_without_a_driver_the_error_says_so(self) -> None:
        from cuda.bindings import driver

        try:
            driver.cuInit(0)
        except Exception:
            with pytest.raises(DeviceError, match="there is no NVIDIA driver on this machine"):
                list_devices()
        else:
            pytest.skip("there is a driver on this machine")

    def test_importing_the_solver_loads_nothing_of_cuda(self) -> None:
        code = """
import sys
import flowkit.flow.cuda.solver
print([name for name in sys.modules if name.split(".")[0] in ("cuda", "cv2", "numba", "torch")])
"""
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.fixture(scope="module")
def driver_folder() -> Any:
    if not has_compiler() or not nvrtc_archs() or sys.platform != "linux":
        pytest.skip("needs Linux, g++, cuda-core and NVRTC")
    return build_driver()


PREAMBLE = """
import sys
import numpy as np
from flowkit.errors import DeviceError
from flowkit.flow.cuda.device import list_devices
from flowkit.flow.cuda.solver import CudaSolver, compute_flow
from flowkit.flow.params import TVL1Params
params = TVL1Params(num_scales=2, num_warps=2, outer_iterations=2)
frames = np.random.default_rng(0).integers(0, 256, (5, 33, 47), dtype=np.uint8)
"""


@pytest.fixture(scope="module")
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tmp_path_factory.mktemp("cache")


class TestThroughCudaCore:
    """The real path (NVRTC, cuda-core's loading, packing and launching, copies) down to a driver that runs kernels on the CPU."""

    @staticmethod
    def run(driver_folder: Any, cache: Any, code: Any, **settings: Any) -> Any:
        environment = {**os.environ, "LD_LIBRARY_PATH": str(driver_folder), "XDG_CACHE_HOME": str(cache), **settings}
        command = [sys.executable, "-c", PREAMBLE + code]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)

    def test_the_flow_is_that_of_the_emulated_kernels(self, driver_folder: Any, kernel_cache: Any, tmp_path: Path) -> None:
        names: dict[str, Any] = {}
        exec(PREAMBLE, names)
        with names["CudaSolver"](33, 47, names["params"], device=EmulatedDevice) as emulated:
            np.save(tmp_path / "expected.npy", emulated.solve(names["frames"]))
        code = f"""
from flowkit.quantise import Quantiser
print([(d.index, d.name, d.compute_capability, d.num_multiprocessors) for d in list_devices()])
expected = np.load({str(tmp_path / "expected.npy")!r})
assert np.array_equal(compute_flow(frames, params), expected)
with CudaSolver(33, 47, params, bound=2.0, max_pairs=2) as solver:
    first = solver.solve(frames)
    long, short = solver.submit(frames), solver.submit(frames[:2])
    assert np.array_equal(long.result(), first)
    assert np.array_equal(short.result(), first[:1])
    print(solver.device_name)
assert np.array_equal(first, Quantiser(2.0).encode(expected))
"""
        done = self.run(driver_folder, kernel_cache, code)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "[(0, 'fake GPU', (9, 0), 132)]\nfake GPU\n"
        assert {path.name[:9] for path in (kernel_cache / "flowkit" / "cuda").iterdir()} == {"tvl1-sm90"}

    def test_a_gpu_newer_than_nvrtc_gets_ptx(self, driver_folder: Any, tmp_path: Path) -> None:
        done = self.run(driver_folder, tmp_path, "print(compute_flow(frames[:2], params).shape)", FAKE_CUDA_CAPABILITY="990")
        assert done.stdout == "(1, 2, 33, 47)\n", done.stderr
        for kept in (tmp_path / "flowkit" / "cuda").iterdir():
            assert kept.suffix == ".ptx"
            assert f".target sm_{max(nvrtc_archs())}".encode() in kept.read_bytes()

    def test_what_is_wrong_with_the_machine_is_said(self, driver_folder: Any, kernel_cache: Any) -> None:
        cases = [
            ({"FAKE_CUDA_DEVICES": "0"}, 0, "the NVIDIA driver sees no CUDA device"),
            ({"FAKE_CUDA_VERSION": "11080"}, 0, "the NVIDIA driver is too old: it runs CUDA 11.8"),
            ({"FAKE_CUDA_CAPABILITY": "61"}, 0, "the GPU has compute capability 6.1"),
            ({}, 1, "there is no CUDA device 1: this machine has 1"),
            ({"FAKE_CUDA_FREE_BYTES": "100000"}, 0, "fake GPU has too little free memory"),
            (
                {"FAKE_CUDA_FREE_BYTES": "100000", "FAKE_CUDA_LIES": "1"},
                0,
                "cuMemAlloc of 0 MiB on fake GPU failed: CUDA_ERROR_OUT_OF_MEMORY",
            ),
        ]
        code = f"""
import os
for settings, index, message in {cases!r}:
    for name in [name for name in os.environ if name.startswith("FAKE_CUDA")]:
        os.unsetenv(name)  # the driver reads them by getenv
    for name, value in settings.items():
        os.putenv(name, value)
    try:
        compute_flow(frames, params, device_index=index)
    except DeviceError as error:
        assert message in str(error), (message, error)
        print("said")
    for name in settings:
        os.unsetenv(name)
"""
        done = self.run(driver_folder, kernel_cache, code)
        assert done.stdout == "said\n" * len(cases), done.stderr
