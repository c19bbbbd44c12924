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
from flowkit.flow.cpu import fields, kernels, own_warp, updates, warp
from flowkit.flow.cpu.jit import compile_part
from flowkit.flow.cpu.median import SCRATCH_ROWS, median_5x5, scratch_row
from flowkit.flow.cpu.simd import LANES, load, splat, store
from flowkit.flow.cpu.solver import CpuSolver

ROOT = Path(__file__).parents[4]
SOLVE = """
import json, sys
import numpy as np
from flowkit.flow.cpu import fields, jit, solver, own_warp, warp
flow = solver.CpuSolver(40, 56).solve(*np.random.default_rng(0).integers(0, 256, size=(2, 40, 56), dtype=np.uint8))
kernels = (solver.iterate_strict, solver.median_5x5, warp._differentiate, warp._linearise, warp._set_coordinates)
kernels += (own_warp._set_framed, own_warp._warp_and_linearise, fields._copy_image)
hits = [sum(kernel.stats.cache_hits.values()) for kernel in kernels]
print(json.dumps({"sum": float(abs(flow).sum()), "hits": hits, "folder": str(jit.CACHE_FOLDER)}))
"""

WRITE_CACHE = """
import numpy as np
from flowkit.flow.cpu import warp
warp._differentiate(np.ones(256, np.float32), np.zeros(768, np.float32), 16, 16, 3, 1)
"""


@compile_part
def roots(a: np.ndarray, b: np.ndarray, result: np.ndarray, doubt: np.float32) -> None:
    for at in range(0, a.size, LANES):
        store(result, at, updates.hypot(load(a, at), load(b, at), splat(doubt)))


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
    roots(a, b, result, updates.ROOT_DOUBT)
    exact = float64_roots(a, b)
    large = exact >= 2.0**-36
    np.testing.assert_array_equal(result[large], exact[large])
    assert np.all(result[~large] < 2.0**-35)
    assert np.count_nonzero(large) > 1 << 17


def test_hypot_of_zero_vanishes_beside_one_and_of_infinity_is_infinite() -> None:
    a, b, result = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32), np.empty(LANES, np.float32)
    a[1], a[2], b[2] = np.inf, 3, 4
    roots(a, b, result, updates.ROOT_DOUBT)
    np.testing.assert_array_equal(result[1:3], [np.inf, 5])
    assert np.all(np.float32(1) + np.float32(1024) * result[[0, *range(3, LANES)]] == 1)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 31), (20, 33)])
def test_differences_repeat_the_border_in_every_layout(height: int, width: int) -> None:
    image = np.random.default_rng(0).random((height, width)).astype(np.float32)
    expected = np.stack([image, *reference.centred_gradient(image)])
    result = np.full((height, width, 4), -1, np.float32)
    warp._differentiate(image.ravel(), result.reshape(-1), height, width, 4, 1)
    np.testing.assert_allclose(result[..., :3].transpose(2, 0, 1), expected, rtol=1e-6)
    assert np.all(result[..., 3] == -1)

    rows, columns = own_warp._FRAME_ROWS, own_warp._FRAME_COLUMNS
    framed = np.full((3, height + 2 * rows, width + 2 * columns), np.nan, np.float32)
    own_warp._set_framed(np.append(image, np.full(LANES, np.nan, np.float32)), framed.reshape(-1), height, width)
    np.testing.assert_allclose(framed, np.pad(expected, ((0, 0), (rows, rows), (columns, columns))), rtol=1e-6)


def linearisation(way: warp.Warp, flow: np.ndarray, image_0: np.ndarray, image_1: np.ndarray) -> np.ndarray:
    _, height, width = flow.shape
    made = fields.make_fields(height, width)
    fields.write_flow(made, 0, flow.ravel(), height, width)
    padding = np.zeros(LANES, np.float32)
    way.set_image(np.append(image_1, padding), height, width)
    way.linearise(made, 0, np.append(image_0, padding), height, width)
    return fields.coefficient_images(made, height, width)


@pytest.mark.parametrize("scale_px", [0.02, 3.0, 90.0])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (31, 50)])
def test_the_two_warps_agree_with_the_reference(height: int, width: int, scale_px: float) -> None:
    rng = np.random.default_rng(1)
    flow = np.rint(rng.normal(scale=scale_px, size=(2, height, width)) * 32).astype(np.float32) / 32  # OpenCV 4 rounds to 1/32 px
    image_0, image_1 = 255 * rng.random((2, height, width), dtype=np.float32)
    expected = reference.linearise(image_0.astype(float), image_1.astype(float), flow.astype(float))
    for like_opencv in (True, False):
        way = warp.make_warp(height, width, True, like_opencv)
        ix, iy, constant, squared = linearisation(way, flow, image_0, image_1)
        np.testing.assert_allclose(ix, expected.ix, atol=1e-3)
        np.testing.assert_allclose(iy, expected.iy, atol=1e-3)
        np.testing.assert_allclose(constant, expected.constant, atol=1e-3 * max(1, 3 * scale_px))
        np.testing.assert_allclose(squared, expected.squared_gradient, atol=0.2)


@pytest.mark.parametrize("mode", ["strict", "fast"])
@pytest.mark.parametrize(("height", "width"), [(150, 163), (260, 130), (40, 56)])
@pytest.mark.parametrize("epsilon", [0.3, 0.05, 0.01])
def test_passes_of_several_iterations_equal_single_ones(height: int, width: int, epsilon: float, mode: str) -> None:
    rng = np.random.default_rng(8)
    flow = rng.normal(size=(2, height, width)).astype(np.float32)
    image_0, image_1 = (cv2.GaussianBlur(255 * rng.random((height, width), dtype=np.float32), (0, 0), 2) for _ in range(2))
    iterate = kernels.iterate_strict if mode == "strict" else kernels.iterate_fast
    threshold = float(np.float32(epsilon**2 * height * width))

    def solve(steps: int) -> tuple[int, np.ndarray]:
        made = fields.make_fields(height, width)
        fields.write_flow(made, 0, flow.reshape(-1), height, width)
        way = warp.make_warp(height, width, mode == "strict", False)
        way.set_image(np.append(image_1, np.zeros(LANES, np.float32)), height, width)
        way.linearise(made, 0, np.append(image_0, np.zeros(LANES, np.float32)), height, width)
        done, error, state = 0, np.inf, 0
        while error > threshold and done < 30:
            more, error, state = iterate(
                made, state, height, width, np.float32(0.045), np.float32(0.3), np.float32(0.25 / 0.3), threshold, steps
            )
            done += more
        result = np.empty_like(flow)
        fields.read_flow(made, state, result.reshape(-1), height, width)
        return done, result

    (done, at_once), (done_singly, singly) = solve(30), solve(1)
    assert done == done_singly
    np.testing.assert_array_equal(at_once, singly)


def test_the_fast_modes_warp_stores_the_reciprocal_of_the_squared_gradient() -> None:
    rng = np.random.default_rng(4)
    flow, (image_0, image_1) = rng.normal(size=(2, 20, 37)).astype(np.float32), 255 * rng.random((2, 20, 37), dtype=np.float32)
    exact, fast = (linearisation(warp.make_warp(20, 37, exact, False), flow, image_0, image_1) for exact in (True, False))
    np.testing.assert_array_equal(fast[:3], exact[:3])
    np.testing.assert_allclose(fast[3], 1 / (exact[3] + np.finfo(np.float32).eps), rtol=1e-6)


@pytest.mark.parametrize("kind", ["still", "noise", "zoom", "edge", "far", "rows", "not a number"])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (19, 17), (33, 47), (20, 64), (16, 100)])
def test_our_warp_gives_each_pixel_what_a_warp_of_that_pixel_alone_gives(height: int, width: int, kind: str) -> None:
    rng = np.random.default_rng(5)
    flow = np.zeros((2, height, width), np.float32)
    if kind == "noise":
        flow += rng.normal(scale=5, size=flow.shape).astype(np.float32)
    elif kind == "zoom":
        flow[0], flow[1] = np.linspace(-9, 9, width), np.linspace(-7, 7, height)[:, None]
    elif kind == "edge":
        flow[:, :, width // 2 + 3 :] = 12.3
    elif kind == "far":
        flow += rng.normal(scale=1e6, size=flow.shape).astype(np.float32)
    elif kind == "rows":
        flow[0] = np.arange(height)[:, None] - 7.5
    elif kind == "not a number":
        flow[0, 3, 5], flow[1, 4, 6], flow[0, 5, 7] = np.nan, np.inf, -np.inf
    image_0, image_1 = 255 * rng.random((2, height, width), dtype=np.float32)
    found, by_opencv = (linearisation(warp.make_warp(height, width, True, like), flow, image_0, image_1) for like in (False, True))
    real = np.isfinite(flow).all(axis=0)
    np.testing.assert_allclose(found[:, real], by_opencv[:, real], rtol=1e-4, atol=0.02)
    if kind in ("still", "edge", "rows"):  # few moves: each of them for the whole image
        for move in np.unique(np.floor(flow).reshape(2, -1), axis=1).T:
            alike = np.all(np.floor(flow) == move[:, None, None], axis=0)
            others = np.where(alike, flow, flow[:, alike][:, :1, None])
            alone = linearisation(warp.make_warp(height, width, True, False), others, image_0, image_1)
            np.testing.assert_array_equal(found[:, alike], alone[:, alike])


def test_a_warp_that_differs_from_opencv_in_one_bit_is_not_used_for_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    class NearlyOwnWarp(warp.OpenCVWarp):
        def __init__(self, height: int, width: int, *others: object) -> None:
            super().__init__(height, width)

        def linearise(self, made: np.ndarray, *others: object) -> None:
            super().linearise(made, *others)
            at = fields.coefficients_at(29, 40) + 39 // LANES * fields.COEFFICIENT_BLOCK + fields.RHO + 39 % LANES
            made[at] = np.nextafter(made[at], np.float32(1e9))

    warp.own_warp_is_exact.cache_clear()
    monkeypatch.setattr(warp, "OwnWarp", lambda height, width, *others: warp.OpenCVWarp(height, width))
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
    np.testing.assert_array_equal(median(image), cv2.medianBlur(image, 5))


def median(image: np.ndarray, step: int = LANES) -> np.ndarray:
    """Filter an image whose vectors are `step` apart in memory; the values between them have to stay."""
    height, width = image.shape
    blocks = fields.num_blocks(width)
    made = np.full((height, blocks, step), -7, np.float32)
    made[:, :, :LANES] = np.pad(image, ((0, 0), (0, blocks * LANES - width)), constant_values=99).reshape(height, blocks, LANES)
    median_5x5(made.reshape(-1), 0, blocks * step, step, np.zeros(SCRATCH_ROWS * scratch_row(width), np.float32), height, width)
    assert np.all(made[:, :, LANES:] == -7)
    return made[:, :, :LANES].reshape(height, -1)[:, :width]


def test_the_median_of_a_state_filters_one_component() -> None:
    image = np.random.default_rng(6).normal(size=(21, 45)).astype(np.float32)
    np.testing.assert_array_equal(median(image, fields.STATE_BLOCK), cv2.medianBlur(image, 5))


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 31), (16, 33), (40, 100)])
def test_a_flow_that_is_written_to_a_state_is_read_back(height: int, width: int) -> None:
    flow = np.random.default_rng(7).normal(size=(2, height, width)).astype(np.float32)
    made, back = fields.make_fields(height, width), np.empty_like(flow)
    for state in (0, 1):
        made[:] = -7
        fields.write_flow(made, state, flow.reshape(-1), height, width)
        fields.read_flow(made, state, back.reshape(-1), height, width)
        np.testing.assert_array_equal(back, flow)
        assert np.count_nonzero(made != -7) == flow.size


def test_median_of_every_window_of_zeros_and_ones_with_sorted_columns() -> None:
    ones = np.array(list(itertools.product(range(6), repeat=5)))  # how many in each column
    windows = (np.arange(5)[None, :, None] >= 5 - ones[:, None, :]).astype(np.float32)  # (7776, 5, 5)
    image = windows.transpose(1, 0, 2).reshape(5, -1)
    image = np.concatenate([np.repeat(image[:1], 6, axis=0), image[1:4], np.repeat(image[4:], 7, axis=0)])  # (16, W), row 7 the middle
    np.testing.assert_array_equal(median(image)[7, 2::5], np.median(windows, axis=(1, 2)))


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
    assert len([path for path in made if path.suffix == ".kernel"]) == 8, "one file a kernel"

    second = run(SOLVE, NUMBA_CACHE_DIR=str(tmp_path))
    assert second["hits"] == [1] * 8
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
warp._differentiate(np.ones(256, np.float32), result, 16, 16, 3, 1)
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
def differentiate(): warp._differentiate(np.ones(256, np.float32), result, 16, 16, 3, 1)
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
