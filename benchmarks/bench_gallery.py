"""The gallery: how long its page takes to open and to scroll with many videos, and what its films take in other formats.

``python benchmarks/bench_gallery.py page GALLERY [N ...]``: the pictures of an existing gallery are linked under N names (2,000 and
13,320), and the page is opened in headless Chromium, which needs chromedriver. ``python benchmarks/bench_gallery.py films ROOT``: the
same frames as VP9, H.264, animated WebP and animated AVIF; bytes, seconds of one core, and the error as PSNR.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
from PIL import Image

from flowkit.dataset.clips import ClipSource, find_clips
from flowkit.describe import gallery_pictures
from flowkit.describe.films import write_film
from flowkit.describe.flow_colour import round_scale
from flowkit.describe.gallery_files import GalleryFolder
from flowkit.describe.gallery_page import GalleryAbout, render_page
from flowkit.describe.gallery_videos import GalleryVideo, Prediction
from flowkit.describe.pictures import measure_flow

ROUNDS = 3
# Scrolls to the end in steps of a screen, one a frame, and gives the time of each frame in ms.
SCROLL = """
const done = arguments[0], times = [];
let before = performance.now();
function step(now) {
  times.push(now - before); before = now;
  scrollBy(0, innerHeight);
  if (times.length < 30 && scrollY + innerHeight < document.documentElement.scrollHeight - 1) requestAnimationFrame(step);
  else done(times);
}
requestAnimationFrame(step);
"""
FILTER = """
const done = arguments[0], started = performance.now(), field = document.getElementById("class");
field.value = "3";
field.dispatchEvent(new Event("input", {bubbles: true}));
requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - started)));
"""
FILMS: dict[str, tuple[str, str, dict[str, str]]] = {
    "VP9": ("libvpx-vp9", "webm", {"crf": "34", "b": "0", "deadline": "realtime", "cpu-used": "6"}),
    "H.264": ("libx264", "mp4", {"crf": "26", "preset": "fast"}),
}
IMAGES: dict[str, dict[str, Any]] = {"WEBP": {"quality": 60, "method": 4}, "AVIF": {"quality": 50, "speed": 8, "max_threads": 1}}


def bench_page(gallery: Path, number: int) -> None:
    """Open a page of so many videos several times."""
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "support"))
    from browser import Browser

    folder = GalleryFolder(gallery)
    known = sorted(folder.facts.items())
    with tempfile.TemporaryDirectory(dir=gallery.parent) as temporary:
        made = Path(temporary)
        (made / "pictures").mkdir()
        videos, facts, names = [], {}, {}
        for k in range(number):
            name, about = known[k % len(known)]
            class_name = f"class{k * 101 // number:03d}"
            said = Prediction(class_name, ((class_name, 0.9), ("class000", 0.1)))
            video = GalleryVideo(f"{class_name}/v_{class_name}_{k:05d}", class_name, ("train", "test")[k % 3 == 0], prediction=said)
            videos.append(video)
            facts[video.video_id] = replace(about, video_id=video.video_id, speed_px=k % 97 / 10)
            names[video.video_id] = f"video{k:05d}"
            for suffix in (".jpg", ".webm"):
                os.link(gallery / "pictures" / f"{name}{suffix}", made / "pictures" / f"video{k:05d}{suffix}")
        page = made / "index.html"
        page.write_text(render_page(GalleryAbout("data", number, 1, "run", "row"), videos, facts, names, {}), encoding="utf-8")
        browser = Browser(made / "profile")
        try:
            opened, computed, scrolled, filtered = [], [], [], []
            browser.ask("/timeouts", {"script": 300_000})
            browser.command("Performance.enable", timeDomain="threadTicks")
            for _ in range(ROUNDS):
                browser.open(page)
                computed.append(_metric(browser, "TaskDuration"))
                opened.append(browser.run("return performance.getEntriesByType('navigation')[0].loadEventEnd"))
                loaded = browser.run("return [...document.images].filter(image => image.complete && image.naturalWidth).length")
                scrolled += browser.ask("/execute/async", {"script": SCROLL, "args": []})
                filtered.append(browser.ask("/execute/async", {"script": FILTER, "args": []}))
        finally:
            browser.close()
        print(
            f"{number} videos, page of {page.stat().st_size / 1e6:.1f} MB: open in {median(opened):.0f} ms, "
            f"{median(computed):.0f} ms of one core ({loaded} pictures loaded), "
            f"a screen scrolled in {median(scrolled):.0f} ms (95 %: {np.percentile(scrolled, 95):.0f} ms), "
            f"a class chosen in {median(filtered):.0f} ms; load {os.getloadavg()[0]:.1f}"
        )


def _metric(browser: Any, name: str) -> float:
    """Return a sum over the page's main thread since the page was opened, in ms of its own time."""
    metrics = {entry["name"]: entry["value"] for entry in browser.command("Performance.getMetrics")["metrics"]}
    return 1000 * float(metrics[name])


def bench_films(root: Path) -> None:
    """Encode the films of up to six videos in each format."""
    stored = find_clips(root)
    rows: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    with ClipSource(stored) as source:
        for video_id in sorted(stored.paths)[:: max(len(stored.paths) // 6, 1)][:6]:
            clip = source.clip(video_id)
            stats = measure_flow(clip, most=50).stats()
            assert stats is not None
            shown = gallery_pictures.shown_fields(clip.num_frames, clip.frame_rate)
            frames, _ = gallery_pictures._drawn(clip, shown.indices, round_scale(stats.p99_px))
            for name in (*FILMS, *IMAGES):
                started = time.process_time()
                data = film(frames, shown.rate, *FILMS[name]) if name in FILMS else animation(frames, shown.rate, name)
                seconds = time.process_time() - started
                rows[name].append((len(data) / 1000, seconds, psnr(frames, decoded(data, is_film=name in FILMS))))
    for name, values in rows.items():
        kilobytes, seconds, error = np.mean(values, axis=0)
        print(f"{name:6} {kilobytes:6.1f} kB  {seconds:.2f} s  {error:.1f} dB")


def film(frames: np.ndarray, rate: Fraction, codec: str, container_format: str, options: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    write_film(buffer, frames, frames.shape[1:3], rate=rate, container=container_format, codec=codec, options=options)
    return buffer.getvalue()


def animation(frames: np.ndarray, rate: Fraction, kind: str) -> bytes:
    buffer, images = io.BytesIO(), [Image.fromarray(frame) for frame in frames]
    images[0].save(buffer, format=kind, save_all=True, append_images=images[1:], duration=round(1000 / rate), loop=0, **IMAGES[kind])
    return buffer.getvalue()


def decoded(data: bytes, *, is_film: bool) -> np.ndarray:
    if is_film:
        with av.open(io.BytesIO(data)) as container:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    with Image.open(io.BytesIO(data)) as image:
        frames = []
        for k in range(getattr(image, "n_frames", 1)):
            image.seek(k)
            frames.append(np.asarray(image.convert("RGB")))
        return np.stack(frames)


def psnr(frames: np.ndarray, others: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(frames.astype(np.float64) - others).mean()))


if __name__ == "__main__":
    what, path, *counts = sys.argv[1:]
    if what == "films":
        bench_films(Path(path))
    else:
        for count in map(int, counts or ("2000", "13320")):
            bench_page(Path(path).resolve(), count)
