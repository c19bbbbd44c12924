"""The compiled kernels: exact roots from estimates, the borders of the layout, and a disk cache that works in any folder."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from flowkit.flow import reference
from flowkit.flow.cpu import fields, kernels, warp
from flowkit.flow.cpu.jit import compile_part
from flowkit.flow.cpu.median import SCRATCH_ROWS, median_5x5
from flowkit.flow.cpu.simd import LANES, load, splat, store
from flowkit.flow.cpu.solver import CpuSolver

ROOT = Path(__file__).parents[4]
SOLVE = """
import json, sys
import numpy as np
from flowkit.flow.cpu import jit, solver, warp
flow = solver.CpuSolver(40, 56).solve(*np.random.default_rng(0).integers(0, 256, size=(2, 40, 56), dtype=np.uint8))
kernels = (solver.iterate_strict, solver.median_5x5, warp._differentiate, warp._linearise, warp._set_coordinates, warp._warp_and_linearise)
hits = [sum(kernel.stats.cache_hits.values()) for kernel in kernels]
print(json.dumps({"sum": float(abs(flow).sum()), "hits": hits, "folder": str(jit.CACHE_FOLDER)}))
"""

WRITE_CACHE = """
import numpy as np
from flowkit.flow.cpu import warp
warp._differentiate(np.ones(256, np.float32), np.zeros(768, np.float32), 16, 16, 0, 48, 3, 1)
"""


@compile_part
def roots(a: np.ndarray, b: np.ndarray, result: np.ndarray, doubt: np.float32) -> None:
    for at in range(0, a.size, LANES):
        store(result, at, kernels._hypot(load(a, at), load(b, at), splat(doubt)))


def float64_roots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sqrt(a.astype(np.float64) ** 2 + b.astype(np.float64) ** 2).astype(np.float32)


@pytest.mark.parametrize("exponent", [-34, -22, -10, 0, 20, 40])
def test_hypot_equals_the_float64_root_bit_for_bit(exponent: int) -> None:
    rng = np.random.default_rng(exponent + 100)
    a, b = (rng.normal(size=(2, 1 << 19)) * 2.0 ** (exponent + rng.uniform(-8, 8, size=(2, 1 << 19)))).astype(np.float32)
    a[::5] = b[::5]  # where the order of the two must not matter
    b[1::7] = 0
    scale = np.float32(2.0 ** (8 - exponent))  # short mantissas: sums and roots near and on rounding boundaries
    a[2::3], b[2::3] = np.rint(a[2::3] * scale) / scale, np.rint(b[2::3] * scale) / scale
    result = np.empty_like(a)
    roots(a, b, result, kernels._DOUBT)
    exact = float64_roots(a, b)
    large = exact >= 2.0**-36
    np.testing.assert_array_equal(result[large], exact[large])
    assert np.all(result[~large] < 2.0**-35)
    assert np.count_nonzero(large) > 1 << 17


def test_hypot_of_zero_vanishes_beside_one_and_of_infinity_is_infinite() -> None:
    a, b, result = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32), np.empty(LANES, np.float32)
    a[1], a[2], b[2] = np.inf, 3, 4
    roots(a, b, result, kernels._DOUBT)
    np.testing.assert_array_equal(result[1:3], [np.inf, 5])
    assert np.all(np.float32(1) + np.float32(1024) * result[[0, *range(3, LANES)]] == 1)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 31), (20, 33)])
def test_differentiate_repeats_the_border_and_keeps_to_its_layout(height: int, width: int) -> None:
    image = np.random.default_rng(0).random((height, width)).astype(np.float32)
    expected = np.stack([image, *reference.centred_gradient(image)])
    result = np.full((height + 4, width + 6, 4), -1, np.float32)
    warp._differentiate(image.ravel(), result.ravel(), height, width, 4 * (2 * (width + 6) + 3), 4 * (width + 6), 4, 1)
    np.testing.assert_allclose(result[2:-2, 3:-3, :3].transpose(2, 0, 1), expected, rtol=1e-6)
    assert np.count_nonzero(result != -1) == np.count_nonzero(expected != -1)


def linearisation(way: warp.Warp, flow: np.ndarray, image_0: np.ndarray, image_1: np.ndarray) -> np.ndarray:
    _, height, width = flow.shape
    state, made = fields.STATES[0], fields.make_fields(height, width)
    planes = fields.images(made, height, width)
    planes[state : state + 2] = flow
    padding = np.zeros(LANES, np.float32)
    way.set_image(np.append(image_1, padding), height, width)
    way.linearise(made, state, np.append(image_0, padding), height, width)
    return planes[: fields.SQUARES]


@pytest.mark.parametrize("scale_px", [0.02, 3.0, 90.0])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (31, 50)])
def test_the_two_warps_agree_with_the_reference(height: int, width: int, scale_px: float) -> None:
    rng = np.random.default_rng(1)
    flow = np.rint(rng.normal(scale=scale_px, size=(2, height, width)) * 32).astype(np.float32) / 32  # OpenCV 4 rounds to 1/32 px
    image_0, image_1 = 255 * rng.random((2, height, width), dtype=np.float32)
    expected = reference.linearise(image_0.astype(float), image_1.astype(float), flow.astype(float))
    for way in (warp.OpenCVWarp(height, width), warp.OwnWarp(height, width)):
        ix, iy, constant, squared = linearisation(way, flow, image_0, image_1)
        np.testing.assert_allclose(ix, expected.ix, atol=1e-3)
        np.testing.assert_allclose(iy, expected.iy, atol=1e-3)
        np.testing.assert_allclose(constant, expected.constant, atol=1e-3 * max(1, 3 * scale_px))
        np.testing.assert_allclose(squared, expected.squared_gradient, atol=0.2)


def test_a_warp_that_differs_from_opencv_in_one_bit_is_not_used_for_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    class NearlyOwnWarp(warp.OpenCVWarp):
        def linearise(self, made: np.ndarray, *others: object) -> None:
            super().linearise(made, *others)
            planes = fields.images(made, 30, 40)
            planes[fields.RHO, 29, 39] = np.nextafter(planes[fields.RHO, 29, 39], np.float32(1e9))

    warp.own_warp_is_exact.cache_clear()
    monkeypatch.setattr(warp, "OwnWarp", warp.OpenCVWarp)
    assert warp.own_warp_is_exact(30, 40)
    warp.own_warp_is_exact.cache_clear()
    monkeypatch.setattr(warp, "OwnWarp", NearlyOwnWarp)
    assert not warp.own_warp_is_exact(30, 40)
    warp.own_warp_is_exact.cache_clear()


def test_strict_gives_the_same_bytes_by_either_warp(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.random.default_rng(2).integers(0, 256, size=(2, 40, 56), dtype=np.uint8)
    flow = CpuSolver(40, 56).solve(*frames)
    monkeypatch.setattr("flowkit.flow.cpu.solver.own_warp_is_exact", lambda height, width: False)
    np.testing.assert_array_equal(CpuSolver(40, 56).solve(*frames), flow)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (19, 31), (40, 50)])
@pytest.mark.parametrize("values", ["real", "whole", "binary"])
def test_the_median_equals_opencvs(height: int, width: int, values: str) -> None:
    image = np.random.default_rng(3).normal(scale=2, size=(height, width)).astype(np.float32)
    if values == "whole":
        image = np.rint(image)
    elif values == "binary":  # a network of minima and maxima that sorts all zeros and ones sorts everything
        image = (image > 0).astype(np.float32)
    made = fields.make_fields(height, width)
    plane = fields.images(made, height, width)[0]
    plane[:] = image
    stride = fields.row_stride(width)
    median_5x5(made, stride + fields.PAD, stride, np.zeros(SCRATCH_ROWS * (stride + 32), np.float32), height, width)
    np.testing.assert_array_equal(plane, cv2.medianBlur(image, 5))


def test_median_of_every_window_of_zeros_and_ones_with_sorted_columns() -> None:
    ones = np.array(list(itertools.product(range(6), repeat=5)))  # how many in each column
    windows = (np.arange(5)[None, :, None] >= 5 - ones[:, None, :]).astype(np.float32)  # (7776, 5, 5)
    image = windows.transpose(1, 0, 2).reshape(5, -1)
    image = np.concatenate([np.repeat(image[:1], 6, axis=0), image[1:4], np.repeat(image[4:], 7, axis=0)])  # (16, W), row 7 the middle
    made = fields.make_fields(*image.shape)
    fields.images(made, *image.shape)[0][:] = image
    stride = fields.row_stride(image.shape[1])
    median_5x5(made, stride + fields.PAD, stride, np.zeros(SCRATCH_ROWS * (stride + 32), np.float32), *image.shape)
    np.testing.assert_array_equal(fields.images(made, *image.shape)[0][7, 2::5], np.median(windows, axis=(1, 2)))


def run(code: str, **environment: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return answer


def files_under(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_processes_that_start_at_once_share_one_cache_and_the_next_one_hits_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor() as threads:
        answers = list(threads.map(lambda _: run(SOLVE, NUMBA_CACHE_DIR=str(tmp_path)), range(2)))
    made = files_under(tmp_path)
    assert len([path for path in made if path.suffix == ".kernel"]) == 6, "one file a kernel"

    second = run(SOLVE, NUMBA_CACHE_DIR=str(tmp_path))
    assert second["hits"] == [1] * 6
    assert second["sum"] == answers[0]["sum"] == answers[1]["sum"]
    assert str(second["folder"]).startswith(str(tmp_path))
    assert files_under(tmp_path) == made


def test_without_a_folder_to_write_to_the_kernels_are_compiled_in_memory(tmp_path: Path) -> None:
    # A file where the folder should be cannot be written into, even by root.
    blocked = tmp_path / "file"
    blocked.write_text("")
    code = """
import json, tempfile
import numpy as np
def refuse(**options): raise PermissionError("read-only")
tempfile.TemporaryFile = refuse
from flowkit.flow.cpu import jit, warp
result = np.zeros(3 * 256, np.float32)
warp._differentiate(np.ones(256, np.float32), result, 16, 16, 0, 48, 3, 1)
print(json.dumps({"folder": str(jit.CACHE_FOLDER), "sum": float(result.sum())}))
"""
    answer = run(code, NUMBA_CACHE_DIR=str(blocked / "cache"))
    assert answer == {"folder": "None", "sum": 256}


@pytest.mark.parametrize("fault", ["jit.CACHE_FOLDER.write_text('no folder any more')", "cut_short()"])
def test_kernels_run_though_their_cache_folder_has_gone_or_is_damaged(tmp_path: Path, fault: str) -> None:
    code = f"""
import json, logging, shutil
import numpy as np
from flowkit.flow import kernel_cache
from flowkit.flow.cpu import jit, warp
said, result = [], np.zeros(3 * 256, np.float32)
def differentiate(): warp._differentiate(np.ones(256, np.float32), result, 16, 16, 0, 48, 3, 1)
def cut_short():
    import subprocess, sys
    subprocess.run([sys.executable, "-c", {WRITE_CACHE!r}], check=True)
    for path in jit.CACHE_FOLDER.rglob("*.kernel"): path.write_bytes(path.read_bytes()[:100])
shutil.rmtree(jit.CACHE_FOLDER)
{fault}
handler = logging.Handler()
handler.emit = lambda record: said.append(record.getMessage())
kernel_cache.logger.addHandler(handler)
kernel_cache.logger.setLevel("INFO")
differentiate()
print(json.dumps({{"said": len(said), "sum": float(result.sum())}}))
"""
    assert run(code, NUMBA_CACHE_DIR=str(tmp_path)) == {"said": 1, "sum": 256}


def test_an_unusable_cache_folder_is_passed_over_for_the_next(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    code = "import json\nfrom flowkit.flow.cpu import jit\nprint(json.dumps({'folder': str(jit.CACHE_FOLDER)}))"
    answer = run(code, NUMBA_CACHE_DIR=str(blocked / "cache"), XDG_CACHE_HOME=str(tmp_path / "home"), LOCALAPPDATA=str(tmp_path / "home"))
    assert answer["folder"] not in ("None", str(blocked / "cache"))


def test_a_kernel_of_another_folder_is_compiled_again_when_a_source_beside_it_has_changed(tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text(
        "from flowkit.flow.cpu.jit import compile_part\n@compile_part\ndef part(x):\n    return 2 * x\n", encoding="utf-8"
    )
    (tmp_path / "whole.py").write_text(
        "from parts import part\nfrom flowkit.flow.cpu.jit import compile_kernel\n@compile_kernel\ndef whole(x):\n    return part(x) + 1\n",
        encoding="utf-8",
    )
    code = f"""
import json, sys
sys.path.append({str(tmp_path)!r})
from whole import whole
print(json.dumps({{"result": whole(3), "hits": sum(whole.stats.cache_hits.values())}}))
"""
    cache = str(tmp_path / "cache")
    assert run(code, NUMBA_CACHE_DIR=cache) == {"result": 7, "hits": 0}
    assert run(code, NUMBA_CACHE_DIR=cache) == {"result": 7, "hits": 1}
    text = (tmp_path / "parts.py").read_text(encoding="utf-8")
    (tmp_path / "parts.py").write_text(text.replace("2 * x", "20 * x"), encoding="utf-8")
    assert run(code, NUMBA_CACHE_DIR=cache) == {"result": 61, "hits": 0}
