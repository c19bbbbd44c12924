"""Measure how fast a training clip (10 flow fields and 1 frame, at a random place) is read from a shard, loose JPEGs and a tar.

    python benchmarks/bench_read.py --data DATA_ROOT                  # the clips of a data root
    python benchmarks/bench_read.py --video FILE --frames 120         # first extracts the beginning of a real video
    python benchmarks/bench_read.py                                   # generated moving textures (no video needed)

All storage forms hold the same content, which this program writes. The loose form has JPEGs of quality 95 for u, v and the frame,
as is usual for flow. The tar has one sample per window, as a WebDataset reader streams it: a sample holds 10 flow fields and their
centre frame, and samples are read in order, which is the best case of a tar. Every codec of flowkit is measured. The readers take
turns (A B C ...) for `--rounds` rounds; the table shows medians, and the median of the rounds' ratios to the loose JPEGs. CPU time
is user and system time of the reading processes after every video was read once; the cost of that first read is shown separately.
Cold: the files are dropped from the page cache (posix_fadvise) before each round.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import tarfile
import tempfile
import time
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from flowkit.dataset.clips import ClipSource, find_clips
from flowkit.quantise import Quantiser
from flowkit.shards.reader import ShardReader
from flowkit.shards.schema import CODECS, ClipAttributes
from flowkit.shards.writer import ClipWriter, write_shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing import Queue
    from multiprocessing.synchronize import Barrier

WINDOW = 10  # flow fields of a clip
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 95]

Bytes = NDArray[np.uint8]
Window = tuple[str, int]  # video id, first pair


@dataclass(frozen=True)
class Video:
    """The content of a video: frames (T, H, W, 3) RGB and quantised flow (T-1, 2, H, W)."""

    video_id: str
    frames: Bytes
    flow: Bytes
    quantiser: Quantiser


@dataclass(frozen=True)
class Form:
    """One way to store the videos: its files, its size, and how a window is read from it."""

    name: str
    files: tuple[Path, ...]
    num_bytes: int
    num_frames: int
    open: Callable[[], Callable[[Window], tuple[Bytes, Bytes]]]


@dataclass(frozen=True)
class Result:
    """The medians of one storage form over the rounds."""

    form: str
    workers: int
    cold: bool
    bytes_per_frame: int
    clips_per_second: float
    cpu_ms_per_clip: float
    clips_per_cpu_second: float
    ratio_to_loose: float


# --- content ------------------------------------------------------------------------------------------------------------


def videos_of_root(root: Path) -> list[Video]:
    """Return eight videos, spread over the classes of the data root."""
    stored = find_clips(root)
    videos, video_ids = [], list(stored.paths)
    with ClipSource(stored) as source:
        for video_id in video_ids[:: max(1, len(video_ids) // 8)][:8]:
            clip = source.clip(video_id)
            num_frames = min(clip.num_frames, 150)
            flow = clip.flow(0, num_frames - 1)
            videos.append(Video(video_id, clip.frames(range(num_frames)), flow, clip.quantiser))
    return videos


def video_of_file(path: Path, num_frames: int) -> list[Video]:
    from flowkit.flow import compute_flow
    from flowkit.video.decode import read_frames

    batches: list[Bytes] = []
    for batch in read_frames(path, short_side=256):
        batches.append(batch.frames)
        if sum(map(len, batches)) >= num_frames:
            break
    frames = np.concatenate(batches)[:num_frames]
    return [Video(path.stem, frames, Quantiser().encode(compute_flow(frames, mode="fast")), Quantiser())]


def generated_videos(num_videos: int = 4, num_frames: int = 60, height: int = 256, width: int = 340) -> list[Video]:
    """Return drifting textures over a still ground, with flow fields that are smooth inside and sharp at edges, as those of TV-L1."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    videos = []
    for number in range(num_videos):
        draw = np.random.default_rng(number)
        ground = cv2.GaussianBlur(draw.integers(0, 255, (height, width, 3), dtype=np.uint8), (0, 0), 2.5)
        thing = cv2.GaussianBlur(draw.integers(0, 255, (height, width, 3), dtype=np.uint8), (0, 0), 1.5)
        frames, fields = [], []
        for t in range(num_frames):
            x, y = width * (0.3 + 0.4 * t / num_frames), height * (0.5 + 0.2 * np.sin(t / 9))
            inside = (columns - x) ** 2 / 60**2 + (rows - y) ** 2 / 90**2 < 1
            frames.append(np.where(inside[..., None], np.roll(thing, (int(y), int(x)), (0, 1)), ground))
            wave = cv2.resize(draw.normal(0, 0.4, (8, 11, 2)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
            wave[inside] += (3, 4 * np.cos(t / 9))
            fields.append(cv2.medianBlur(wave, 5).transpose(2, 0, 1))
        videos.append(Video(f"generated/{number}", np.stack(frames), Quantiser().encode(np.stack(fields[:-1])), Quantiser()))
    return videos


# --- forms ---------------------------------------------------------------------------------------------------------------


def write_shard_form(folder: Path, videos: list[Video], codec: str) -> Form:
    clips = []
    for number, video in enumerate(videos):
        num_frames, height, width = video.frames.shape[:3]
        attributes = ClipAttributes(
            video_id=video.video_id,
            class_name="",
            source_name="",
            source_sha256="",
            frame_rate="25/1",
            num_frames=num_frames,
            header_frames=0,
            decode_errors=0,
            codec=codec,
            quantiser=video.quantiser.to_dict(),
            tvl1={},
            solver="fast",
        )
        clips.append(folder / f"{codec}-{number}.h5")
        with ClipWriter(clips[-1], codec=codec, height=height, width=width) as writer:
            writer.append_frames(video.frames)
            writer.append_flow(video.flow)
            writer.finish(attributes)
    path = folder / f"{codec}.h5"
    write_shard(path, clips)

    def open_() -> Callable[[Window], tuple[Bytes, Bytes]]:
        reader = ShardReader(path)

        def read(window: Window) -> tuple[Bytes, Bytes]:
            clip = reader.clip(window[0])
            return clip.flow(window[1], window[1] + WINDOW), clip.frames([window[1] + WINDOW // 2])[0]

        return read

    num_frames = sum(len(video.frames) for video in videos)
    return Form(f"flowkit {codec}", (path,), path.stat().st_size, num_frames, open_)


def jpeg(image: Bytes) -> bytes:
    return cv2.imencode(".jpg", image[..., ::-1] if image.ndim == 3 else image, QUALITY)[1].tobytes()


def write_loose_form(folder: Path, videos: list[Video]) -> Form:
    files = []
    for number, video in enumerate(videos):
        subfolder = folder / "loose" / str(number)
        subfolder.mkdir(parents=True)
        for k, pair in enumerate(video.flow):
            for axis, plane in zip("xy", pair, strict=True):
                files.append(subfolder / f"flow_{axis}_{k:05d}.jpg")
                files[-1].write_bytes(jpeg(plane))
        for k, frame in enumerate(video.frames):
            files.append(subfolder / f"img_{k:05d}.jpg")
            files[-1].write_bytes(jpeg(frame))
    folders = {video.video_id: folder / "loose" / str(number) for number, video in enumerate(videos)}

    def open_() -> Callable[[Window], tuple[Bytes, Bytes]]:
        def read(window: Window) -> tuple[Bytes, Bytes]:
            subfolder, start = folders[window[0]], window[1]
            names = [str(subfolder / f"flow_{axis}_{k:05d}.jpg") for k in range(start, start + WINDOW) for axis in "xy"]
            flow = np.stack([cv2.imread(name, cv2.IMREAD_GRAYSCALE) for name in names])
            frame = cv2.imread(str(subfolder / f"img_{start + WINDOW // 2:05d}.jpg"), cv2.IMREAD_COLOR)
            return flow.reshape(WINDOW, 2, *flow.shape[1:]), cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

        return read

    return Form("loose JPEGs", tuple(files), sum(p.stat().st_size for p in files), sum(len(v.frames) for v in videos), open_)


def write_tar_form(folder: Path, videos: list[Video], windows: list[Window]) -> Form:
    """Write the windows themselves as samples, in the order in which they will be read, which is the best case of a tar."""
    path = folder / "samples.tar"
    by_id = {video.video_id: video for video in videos}
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, (video_id, start) in enumerate(windows):
            pairs = [
                (f"{axis}{k}.jpg", jpeg(plane))
                for k in range(WINDOW)
                for axis, plane in zip("uv", by_id[video_id].flow[start + k], strict=True)
            ]
            for name, data in [*pairs, ("frame.jpg", jpeg(by_id[video_id].frames[start + WINDOW // 2]))]:
                entry = tarfile.TarInfo(f"{key:06d}.{name}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))

    def open_() -> Callable[[Window], tuple[Bytes, Bytes]]:
        stream: Iterator[tuple[str, bytes]] = iter(())

        def members() -> Iterator[tuple[str, bytes]]:
            with tarfile.open(path, "r|") as tar:
                for entry in tar:
                    content = tar.extractfile(entry)
                    assert content is not None
                    yield entry.name, content.read()

        def read(window: Window) -> tuple[Bytes, Bytes]:
            nonlocal stream
            sample = [member for _, member in zip(range(2 * WINDOW + 1), stream, strict=False)]
            if len(sample) < 2 * WINDOW + 1:
                stream = members()
                sample = [next(stream) for _ in range(2 * WINDOW + 1)]
            flow = np.stack([cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE) for _, data in sample[:-1]])
            frame = cv2.imdecode(np.frombuffer(sample[-1][1], np.uint8), cv2.IMREAD_COLOR)
            return flow.reshape(WINDOW, 2, *flow.shape[1:]), cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

        return read

    return Form("tar, streamed", (path,), path.stat().st_size, 0, open_)  # holds windows, not videos: no bytes per frame


# --- measuring -----------------------------------------------------------------------------------------------------------


def drop_pages(files: tuple[Path, ...]) -> None:
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)  # because pages that are not written yet cannot be dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _worker(form: Form, windows: list[Window], cold: bool, barrier: Barrier, results: Queue[tuple[float, float]]) -> None:
    """Open the form, read from every video once, then read the windows and measure that."""
    cv2.setNumThreads(1)
    read = form.open()
    for window in dict(windows).items():
        read(window)
    if cold:
        drop_pages(form.files)
    barrier.wait()
    started, cpu_started = time.perf_counter(), time.process_time()
    for window in windows:
        read(window)
    results.put((time.perf_counter() - started, time.process_time() - cpu_started))


def measure(form: Form, windows: list[Window], *, workers: int, cold: bool) -> tuple[float, float]:
    """Return (seconds, CPU seconds) of reading all windows in forked processes, like those of a DataLoader (0: in one process)."""
    context = get_context("fork")
    parts = [windows[k :: max(workers, 1)] for k in range(max(workers, 1))]
    barrier, results = context.Barrier(len(parts)), context.Queue()
    processes = [context.Process(target=_worker, args=(form, part, cold, barrier, results)) for part in parts]
    for process in processes:
        process.start()
    times = [results.get(timeout=300) for _ in processes]
    for process in processes:
        process.join()
    return max(seconds for seconds, _ in times), sum(cpu for _, cpu in times)


def first_touch_ms(form: Form, windows: list[Window]) -> float:
    """Return the CPU time per video of opening the form and first reading from each video, minus that of a later read."""
    videos = list(dict(windows).items())
    times = []
    for _ in range(5):
        started = time.process_time()
        read = form.open()
        for window in videos:
            read(window)
        opened = time.process_time()
        for window in videos:
            read(window)
        times.append(1000 * (2 * opened - started - time.process_time()) / len(videos))
    return statistics.median(times)


def compare(forms: list[Form], windows: list[Window], *, workers: int, cold: bool, rounds: int) -> list[Result]:
    times: dict[str, list[tuple[float, float]]] = {form.name: [] for form in forms}
    for _ in range(rounds):
        for form in forms:
            times[form.name].append(measure(form, windows, workers=workers, cold=cold))
    results = []
    for form in forms:
        seconds = statistics.median(t[0] for t in times[form.name])
        cpu = statistics.median(t[1] for t in times[form.name])
        ratio = statistics.median(loose[1] / own[1] for loose, own in zip(times["loose JPEGs"], times[form.name], strict=True))
        num = len(windows)
        results.append(
            Result(
                form.name,
                workers,
                cold,
                round(form.num_bytes / form.num_frames) if form.num_frames else 0,
                num / seconds,
                1000 * cpu / num,
                num / cpu,
                ratio,
            )
        )
    return results


def same_content(forms: list[Form], window: Window) -> None:
    """Check that all forms give the same content: bit for bit if lossless, approximately if JPEG."""
    (flow, frame) = forms[0].open()(window)
    for form in forms[1:]:
        if form.name.startswith("tar"):
            continue  # which is read in its own order
        other_flow, other_frame = form.open()(window)
        assert (other_frame == frame).all(), form.name
        difference = np.abs(other_flow.astype(int) - flow).mean()
        assert difference < 3 if "JPEG" in form.name or "jpeg" in form.name else difference == 0, (form.name, difference)


def machine() -> dict[str, object]:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), ""
    )
    return {
        "cpu": model or platform.processor(),
        "cores": os.cpu_count(),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "opencv": cv2.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="a data root")
    parser.add_argument("--video", type=Path, help="a video file")
    parser.add_argument("--frames", type=int, default=120, help="frames of --video to extract")
    parser.add_argument("--clips", type=int, default=60, help="number of windows that are read in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2, 4])
    parser.add_argument("--codecs", nargs="+", default=list(CODECS), choices=CODECS)
    parser.add_argument("--no-cold", action="store_true")
    parser.add_argument("--json", type=Path, help="file for the results")
    arguments = parser.parse_args()

    cv2.setNumThreads(1)
    about = machine()
    content = (
        videos_of_root(arguments.data)
        if arguments.data
        else video_of_file(arguments.video, arguments.frames)
        if arguments.video
        else generated_videos()
    )
    content = [video for video in content if len(video.flow) >= WINDOW]
    draw = np.random.default_rng(0)
    chosen = [content[int(draw.integers(len(content)))] for _ in range(arguments.clips)]
    windows = [(video.video_id, int(draw.integers(len(video.flow) - WINDOW + 1))) for video in chosen]
    with tempfile.TemporaryDirectory(prefix="bench-read-") as name:
        folder = Path(name)
        forms = [write_shard_form(folder, content, codec) for codec in arguments.codecs]
        forms += [write_loose_form(folder, content), write_tar_form(folder, content, windows)]
        same_content(forms, windows[0])
        results = []
        for cold in (False, True)[: 1 if arguments.no_cold or not hasattr(os, "posix_fadvise") else 2]:
            for workers in arguments.workers:
                results += compare(forms, windows, workers=workers, cold=cold, rounds=arguments.rounds)
        touch = {form.name: round(first_touch_ms(form, windows), 2) for form in forms if not form.name.startswith("tar")}
    height, width = content[0].frames.shape[1:3]
    print(
        f"{about}\n{len(content)} videos, {width}x{height} px, {arguments.clips} clips of 10 fields + 1 frame, {arguments.rounds} rounds\n"
    )
    print("| stored as | workers | cache | bytes/frame | clips/s | CPU ms/clip | clips per CPU second, to loose JPEGs |")
    print("|---|--:|---|--:|--:|--:|--:|")
    for r in results:
        cache = "cold" if r.cold else "warm"
        print(
            f"| {r.form} | {r.workers} | {cache} | {r.bytes_per_frame or '-'} | {r.clips_per_second:.0f} | {r.cpu_ms_per_clip:.2f} "
            f"| {r.ratio_to_loose:.2f}x |"
        )
    print(f"\nadditional CPU ms when a process reads a video for the first time: {touch}")
    if arguments.json:
        record = {"machine": about, "size": [width, height], "clips": arguments.clips, "rounds": arguments.rounds, "first_touch_ms": touch}
        arguments.json.write_text(json.dumps(record | {"results": [asdict(r) for r in results]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
