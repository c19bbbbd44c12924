"""Results: of a video, in the append-only index from which an extraction resumes, and in the report of a run."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from flowkit.files import read_file, this_host, with_file_name
from flowkit.scenes.rule import RULE, SceneChanges
from flowkit.video.damage import DecodeReport, count_words

Status = Literal["ok", "damaged", "short", "undecodable", "failed"]
_MAX_INDEX_BYTES = 1 << 32

INDEX_FOLDER = ".index"
WRITTEN = ("ok", "damaged")  # statuses that leave a clip file


@dataclass(frozen=True)
class VideoResult:
    """The result of extracting one video.

    Parameters
    ----------
    video_id : str
        The path of the video below the video folder, without its suffix.
    status : {"ok", "damaged", "short", "undecodable", "failed"}
        ``damaged``: something was lost (see `flowkit.video.damage`), but a clip file was written. ``short``: the
        video has one frame. ``undecodable``: it has none. ``failed``: not the video but flowkit or the disk failed; the next run
        tries again.
    source_bytes, source_mtime_ns : int
        Size and modification time of the video file, by which the next run sees whether it has changed.
    num_frames, header_frames, decode_errors : int
        Frames of the clip; frames that the header promises (0: it does not say); packets or frames that could not be decoded.
    clip_bytes : int
        Size of the clip file.
    seconds : float, s
        Time that the video took.
    error : str
        Why there is no clip file, or what was damaged.
    source_ctime_ns : int
        When the video file or its properties changed last, which no program can set; 0 if that was not noted.
    source_sha256 : str
        The SHA-256 of the video file that the clip was extracted from; empty if there is no clip, or if it was not noted.
    notes : str
        What is odd about the video but no damage: empty chunks, several video streams, and the like.
    source_frames : int
        Frames of the video that were decoded, if only some of them were chosen; otherwise 0.
    clipped_share, zero_share : float
        The shares of the flow that are clipped at the bound, and rounded to zero.
    fitting_px : float, px/frame
        A bound that would hold 99.9 % of the flow; 0 if that was not measured.
    cuts : tuple of int
        Flow fields that lead across a cut.
    num_repeated : int
        The number of frames that repeat the frame before them.
    scene_rule : int
        The version of the rule by which cuts and repeated frames were found; 0 if nobody looked for them.
    clip_sha256 : str
        The SHA-256 of the clip, as `Clip.sha256` gives it; empty if it was not noted.
    has_flow : bool
        Whether the clip has flow, and not frames only.
    """

    video_id: str
    status: Status
    source_bytes: int
    source_mtime_ns: int
    num_frames: int = 0
    header_frames: int = 0
    decode_errors: int = 0
    clip_bytes: int = 0
    seconds: float = 0.0
    error: str = ""
    source_ctime_ns: int = 0
    source_sha256: str = ""
    notes: str = ""
    source_frames: int = 0
    clipped_share: float = 0.0
    zero_share: float = 0.0
    fitting_px: float = 0.0
    cuts: tuple[int, ...] = ()
    num_repeated: int = 0
    scene_rule: int = 0
    clip_sha256: str = ""
    has_flow: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "cuts", tuple(self.cuts))  # out of JSON it is a list

    @property
    def num_pairs(self) -> int:
        """Number of flow fields of the clip that was written; 0 if there is none."""
        return self.num_frames - 1 if self.status in WRITTEN and self.has_flow else 0

    @property
    def num_steps(self) -> int:
        """How much work the clip was, for the progress of a run: its flow fields, or the frames of one that has frames only."""
        return self.num_pairs if self.has_flow or self.status not in WRITTEN else self.num_frames


def with_status(result: VideoResult, *, losses: str = "") -> VideoResult:
    """Return the result with the status, and the reason, that its counts and what was lost besides call for.

    Parameters
    ----------
    result : VideoResult
        The result, with its counts.
    losses : str
        Everything that was lost, in words; if empty, the counts say it.
    """
    num_decoded = result.source_frames or result.num_frames
    troubles = [losses] if losses else count_words(num_decoded, result.header_frames, result.decode_errors)
    status: Status = "damaged" if troubles else "ok"
    if result.num_frames < 2:
        status = "short" if result.num_frames else "undecodable"
        only = f"only 1 of {num_decoded} frames is chosen" if num_decoded > 1 else "only 1 frame could be decoded"
        troubles.insert(0, f"{only}; flow needs 2" if result.num_frames else "no frame could be decoded")
    return replace(result, status=status, error=", ".join(troubles))


def with_report(result: VideoResult, report: DecodeReport) -> VideoResult:
    """Return the result of a video, with its number of frames, with what decoding it has shown."""
    source_frames = report.num_decoded if report.num_decoded != result.num_frames else 0
    counts = replace(
        result,
        header_frames=report.header_frames,
        decode_errors=report.decode_errors,
        notes=report.notes,
        source_frames=source_frames,
    )
    return with_status(counts, losses=report.losses)


def with_scenes(result: VideoResult, changes: SceneChanges) -> VideoResult:
    """Return the result of a video with its cuts and repeated frames."""
    return replace(result, cuts=changes.cuts, num_repeated=changes.num_repeated, scene_rule=RULE)


def unstated_losses(result: VideoResult) -> str:
    """Return what was lost of a damaged video, in words, if its counts do not say it all; else an empty text."""
    return result.error if result.status == "damaged" and result.error != with_status(result).error else ""


@dataclass(frozen=True, repr=False)
class ExtractReport:
    """The results of a run of `extract`; saved as ``extract-report.json``. Iterating over it gives all results.

    Parameters
    ----------
    done, skipped, failed : tuple of VideoResult
        Videos whose clip file was written in this run; those that were done before; those without a clip file.
    ignored : int
        Number of files that are not videos, by their suffix, and of hidden files and folders.
    pending : int
        Number of videos that were not started or not finished when the run was stopped.
    seconds : float, s
        Time that the run took.
    ignored_by_suffix : dict of str to int
        The ignored files by suffix, the most frequent first.

    Examples
    --------
    >>> import flowkit, tempfile
    >>> from pathlib import Path
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "videos").mkdir()
    >>> _ = (folder / "videos" / "text.avi").write_text("no video")
    >>> report = flowkit.extract(folder / "videos", folder / "data", jobs=1, progress=False)
    >>> report
    ExtractReport(0 done, 0 skipped, 1 failed, 0 damaged)
    >>> report.failed[0].video_id, report.failed[0].status
    ('text', 'undecodable')
    >>> len(report)
    1
    """

    done: tuple[VideoResult, ...]
    skipped: tuple[VideoResult, ...]
    failed: tuple[VideoResult, ...]
    ignored: int = 0
    pending: int = 0
    seconds: float = 0.0
    ignored_by_suffix: Mapping[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        pending = f", {self.pending} pending" if self.pending else ""
        counts = f"{len(self.done)} done, {len(self.skipped)} skipped, {len(self.failed)} failed, {len(self.damaged)} damaged{pending}"
        return f"ExtractReport({counts})"

    def __len__(self) -> int:
        return len(self.done) + len(self.skipped) + len(self.failed)

    def __iter__(self) -> Iterator[VideoResult]:
        return iter((*self.done, *self.skipped, *self.failed))

    @property
    def damaged(self) -> tuple[VideoResult, ...]:
        """Videos whose clip file was written although not all of the video could be decoded."""
        return tuple(result for result in (*self.done, *self.skipped) if result.status == "damaged")

    @property
    def noted(self) -> tuple[VideoResult, ...]:
        """Undamaged videos of this run about which something is odd."""
        return tuple(result for result in self.done if result.status == "ok" and result.notes)

    @property
    def num_pairs(self) -> int:
        """Number of flow fields in the clip files that this run wrote."""
        return sum(result.num_pairs for result in self.done)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as built-in types."""
        return {
            "format": "flowkit-extract-report",
            "format_version": 1,
            "counts": {
                "done": len(self.done),
                "skipped": len(self.skipped),
                "failed": len(self.failed),
                "damaged": len(self.damaged),
                "ignored": self.ignored,
                "pending": self.pending,
            },
            "ignored_by_suffix": dict(self.ignored_by_suffix),
            "pairs": self.num_pairs,
            "seconds": round(self.seconds, 3),
            "done": [asdict(result) for result in self.done],
            "skipped": [asdict(result) for result in self.skipped],
            "failed": [asdict(result) for result in self.failed],
        }


def read_index(root: Path, folder: str = INDEX_FOLDER) -> dict[str, VideoResult]:
    """Read the latest result of each video from ``clips/.index``, where earlier runs on all machines noted them.

    `folder` is another folder in ``clips`` that an `IndexWriter` wrote to. A line that a kill truncated, or that `IndexWriter` does not
    write, is skipped; its video counts as not done.
    """
    latest: dict[str, tuple[int, VideoResult]] = {}
    for path in sorted((root / "clips" / folder).glob("*.jsonl")):
        for line in read_file(path, most_bytes=_MAX_INDEX_BYTES).decode("utf-8", "replace").splitlines():
            try:
                record = json.loads(line)
                when = record.pop("time_ns")
                result = VideoResult(**record)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                continue
            if type(when) is not int or not _is_sound(result):
                continue
            if when >= latest.get(result.video_id, (-1, None))[0]:
                latest[result.video_id] = (when, result)
    return {video_id: result for video_id, (_, result) in latest.items()}


def _is_sound(result: VideoResult) -> bool:
    """Whether each field has its declared type: an index may come from elsewhere."""
    kinds = {"str": (str,), "Status": (str,), "int": (int,), "float": (int, float), "bool": (bool,), "tuple[int, ...]": (tuple,)}
    have_types = all(type(getattr(result, field.name)) in kinds[str(field.type)] for field in fields(VideoResult))
    return have_types and result.status in get_args(Status) and all(type(cut) is int for cut in result.cuts)


class IndexWriter:
    """Appends results to an index file of its own, ``clips/.index/<host>-<process>-<random>.jsonl``, or in another such folder."""

    def __init__(self, root: Path, folder_name: str = INDEX_FOLDER) -> None:
        folder = root / "clips" / folder_name
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{this_host()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        self._file = (folder / name).open("x", encoding="utf-8")

    def append(self, result: VideoResult) -> None:
        """Add one line and wait until it is on the disk."""
        with with_file_name(Path(self._file.name)):
            self._file.write(json.dumps({**asdict(result), "time_ns": time.time_ns()}) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file, and remove it if it is empty."""
        with with_file_name(Path(self._file.name)):
            empty = self._file.tell() == 0
            self._file.close()
        if empty:
            Path(self._file.name).unlink(missing_ok=True)
