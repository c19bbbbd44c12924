"""Write clips as WebDataset tars: one sample per video, the same bytes every time.

The files of a sample share the key (a number) before the first dot: ``000007.json`` (attributes, label, subset), ``000007.cls`` (the
label), ``000007.frame00000.jpg``, ``000007.u00000.jpg``, ``000007.v00000.jpg``, and so on.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from flowkit.dataset.clips import ClipSource
from flowkit.dataset.progress import ProgressBar
from flowkit.errors import FlowkitError
from flowkit.exchange.flow_images import FlowEncoder, Labelled
from flowkit.exchange.layouts import SUFFIX
from flowkit.exchange.own_files import is_own_file
from flowkit.files import replacing
from flowkit.shards.reader import Clip
from flowkit.shards.schema import ClipAttributes

_TAR_NAME = re.compile(r"(all|train|test)-\d{6,}\.tar")
_MAX_ABOUT_BYTES = 1 << 20  # of the JSON of a sample


class TarExport:
    """Writes videos as samples in tars of about `shard_bytes`, separately for each subset.

    Parameters
    ----------
    output : Path
        The folder for the tars.
    encoder : FlowEncoder
        What makes the flow images.
    shard_bytes : int
        A tar ends with the first video that brings it past this size.
    redo : frozenset of str
        Videos that an earlier run could not export: their tars are written again.
    """

    def __init__(self, output: Path, encoder: FlowEncoder, shard_bytes: int, *, redo: frozenset[str] = frozenset()) -> None:
        self.output, self.encoder, self.shard_bytes, self.redo = output, encoder, shard_bytes, redo
        self.num_done, self.num_skipped, self.num_bytes = 0, 0, 0
        self.failed: list[tuple[str, str]] = []
        self.exported: dict[str, ClipAttributes] = {}
        self.times: dict[str, tuple[float, ...]] = {}  # are with each video, in its tar

    def write(self, videos: Sequence[Labelled], source: ClipSource, bar: ProgressBar) -> None:
        """Write every tar that does not exist or holds other samples; remove surplus tars of earlier exports."""
        done = 0
        planned: set[str] = set()
        for name, members in self._planned(videos, source):
            path = self.output / name
            planned.add(name)
            redo = any(video.video_id in self.redo for _, video in members)
            if not redo and self._holds(path, members, source):
                self.num_skipped += len(members)
                for _, video in members:
                    self.exported[video.video_id] = source.clip(video.video_id).attributes
            else:
                self._write_tar(path, members, source, bar)
            done += len(members)
            bar.update(done)
        for path in self.output.glob("*.tar"):
            if _TAR_NAME.fullmatch(path.name) and path.name not in planned and not (path.is_dir() and not path.is_symlink()):
                path.unlink()

    def _holds(self, path: Path, members: Sequence[tuple[int, Labelled]], source: ClipSource) -> bool:
        """Return whether a tar holds exactly these videos, in their present versions and with their present labels."""
        if not is_own_file(path):
            return False
        expected = {f"{key:06d}.json": self._about(source.clip(video.video_id), video) for key, video in members}
        try:
            with tarfile.open(path) as tar:
                return expected == {entry.name: _read(tar, entry) for entry in tar if entry.name.endswith(".json")}
        except (FileNotFoundError, tarfile.TarError, EOFError):
            return False

    def _planned(self, videos: Sequence[Labelled], source: ClipSource) -> Iterator[tuple[str, list[tuple[int, Labelled]]]]:
        """Yield (tar, its videos with their keys), which depends on the clips alone."""
        for subset in dict.fromkeys(video.subset for video in videos):
            number, filled, members = 0, 0, list[tuple[int, "Labelled"]]()
            for key, video in enumerate(video for video in videos if video.subset == subset):
                try:
                    filled += source.clip(video.video_id).stored_bytes
                except (FlowkitError, OSError) as error:
                    self.failed.append((video.video_id, str(error)))
                    continue
                members.append((key, video))
                if filled >= self.shard_bytes:
                    yield f"{subset}-{number:06d}.tar", members
                    number, filled, members = number + 1, 0, []
            if members:
                yield f"{subset}-{number:06d}.tar", members

    def _write_tar(self, path: Path, members: Sequence[tuple[int, Labelled]], source: ClipSource, bar: ProgressBar) -> None:
        with replacing(path) as part, tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as tar:
            for key, video in members:
                try:
                    clip = source.clip(video.video_id)
                    files = list(self._files(clip, video))  # complete before any of it is in the tar
                except FlowkitError as error:
                    self.failed.append((video.video_id, str(error)))
                    continue
                for name, data in files:
                    entry = tarfile.TarInfo(f"{key:06d}.{name}")  # time, owner and group stay 0: the same bytes every time
                    entry.size, entry.mode = len(data), 0o644
                    tar.addfile(entry, io.BytesIO(data))
                    self.num_bytes += len(data)
                self.exported[video.video_id] = clip.attributes
                self.num_done += 1
                bar.advance()

    def _about(self, clip: Clip, video: Labelled) -> bytes:
        about: dict[str, object] = {
            **clip.attributes.to_stored(),
            "label": video.label,
            "subset": video.subset,
            "flow_mapping": self.encoder.quantiser.mapping,
        }
        if clip.times is not None:
            about["times"] = clip.times.tolist()
        return json.dumps(about, sort_keys=True, ensure_ascii=False).encode("utf-8")

    def _files(self, clip: Clip, video: Labelled) -> Iterator[tuple[str, bytes]]:
        yield "json", self._about(clip, video)
        if video.label >= 0:
            yield "cls", str(video.label).encode()
        for k, frame in enumerate(clip.encoded_frames(0, clip.num_frames)):
            yield f"frame{k:05d}.jpg", frame
        suffix = SUFFIX[self.encoder.flow]
        for k, (u, v) in enumerate(self.encoder.pairs(clip)):
            yield f"u{k:05d}{suffix}", u
            yield f"v{k:05d}{suffix}", v


def _read(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(entry) if entry.size <= _MAX_ABOUT_BYTES else None
    return b"" if file is None else file.read()
