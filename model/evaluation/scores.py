"""Files with the scores of videos: those of any system, read as foreign data (CSV, NPZ without pickle, HDF5), and flowkit's own.

| file | holds |
|---|---|
| ``.csv`` | a header ``video_id,<class>,<class>,...`` and one row per video |
| ``.npz`` | arrays ``video_ids`` (n,) and ``classes`` (C,) of text, ``scores`` (n, C) of numbers |
| ``.h5``, ``.hdf5`` | data sets with the same names and shapes; or flowkit's own ``scores.h5`` |
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ScoresError
from flowkit.files import replacing
from flowkit.model.evaluation.rows import ALL_ROWS, last_row
from flowkit.model.scoring.metrics import ranks_of_labels
from flowkit.model.scoring.plain_hdf5 import MAX_BYTES, group_of, read_data_set, refusing, text_of
from flowkit.model.scoring.scored_videos import Scores
from flowkit.model.settings.network_config import STREAMS
from flowkit.model.settings.training import Phase
from flowkit.model.systems.registry import PHASES
from flowkit.words import counted

SUFFIXES = (".csv", ".npz", ".h5", ".hdf5")
OWN_FORMAT, OWN_FORMAT_VERSION = "flowkit-scores", 1


@dataclass(frozen=True)
class ScoreTable:
    """The scores that one system gives some videos.

    Parameters
    ----------
    source : str
        The file, for messages.
    video_ids, classes : tuple of str
        Names of the rows and columns of `scores`.
    scores : float64 array, shape (n, C)
        The higher, the likelier the class; on any scale.
    labels : int64 array, shape (n,), optional
        The correct classes, if the file has them.

    Raises
    ------
    ScoresError
        If shapes do not agree, a name occurs twice or is empty, a score is not a finite number, or a label is not a class.
    """

    source: str
    video_ids: tuple[str, ...]
    classes: tuple[str, ...]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        shape = (len(self.video_ids), len(self.classes))
        if self.scores.shape != shape:
            raise ScoresError(
                f"{self.source}: scores have shape {self.scores.shape}, but there are {shape[0]} video ids and {shape[1]} classes"
            )
        if 0 in shape:
            raise ScoresError(f"{self.source}: holds no scores ({counted(shape[0], 'video')}, {counted(shape[1], 'class')})")
        for what, names in (("video id", self.video_ids), ("class", self.classes)):
            first: dict[str, int] = {}
            for index, name in enumerate(names):
                if not name:
                    raise ScoresError(f"{self.source}: {what} {index + 1} is empty")
                if name in first:
                    raise ScoresError(f"{self.source}: {what} {name!r} occurs twice, as number {first[name] + 1} and {index + 1}")
                first[name] = index
        bad = np.argwhere(~np.isfinite(self.scores))
        if len(bad):
            row, column = bad[0]
            raise ScoresError(
                f"{self.source}: the score of video {self.video_ids[row]!r} (number {row + 1}) for class {self.classes[column]!r} is "
                f"{self.scores[row, column]}; scores must be finite numbers"
            )
        if self.labels is not None and (self.labels.shape != shape[:1] or ((self.labels < 0) | (self.labels >= shape[1])).any()):
            raise ScoresError(f"{self.source}: labels must be a class of {shape[1]} for each of {shape[0]} videos")


def read_scores(path: Path) -> ScoreTable:
    """Read the scores of any system; of a flowkit ``scores.h5``, those of the last row of the results table.

    Raises
    ------
    ScoresError
        If the file is missing, of another kind or damaged, or does not hold what it must; names the row or video.
    """
    _check_file(path)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return _read_csv(path)
    if suffix == ".npz":
        return _read_npz(path)
    if suffix in (".h5", ".hdf5"):
        with refusing(path, "an HDF5 file of plain arrays", ScoresError):
            arrays, row = _read_hdf5(path)
            return _table(str(path) if row is None else f"{path} ({row})", arrays)
    raise ScoresError(f"{path}: scores are read from {', '.join(SUFFIXES)} files")


def read_own_scores(path: Path, *, row: str | None = None) -> tuple[ScoreTable, str]:
    """Read the scores that `flowkit evaluate` wrote.

    Parameters
    ----------
    path : Path
        ``scores.h5``.
    row : str, optional
        A row of the results table. Default: the last that the file has, ``ST-ResNet*`` if that is trained.

    Returns
    -------
    table : ScoreTable
        The scores, with labels.
    row : str
        The row that they belong to.

    Raises
    ------
    ScoresError
        As `read_scores`; or if the file is of another kind, or lacks the row.
    """
    _check_file(path)
    with refusing(path, "an HDF5 file of plain arrays", ScoresError):
        arrays, own_row = _read_hdf5(path, row=row)
        if own_row is None:
            raise ScoresError(f"{path} is not a scores file of flowkit's; make it with `flowkit evaluate`")
        return _table(f"{path} ({own_row})", arrays), own_row


def read_own_ranks(path: Path, row: str) -> dict[str, int]:
    """Return the rank of each video's correct class in a row of flowkit's own scores, 0 for the highest score; there may be no video."""
    _check_file(path)
    with refusing(path, "an HDF5 file of plain arrays", ScoresError):
        arrays, _ = _read_hdf5(path, row=row)
        ranks = ranks_of_labels(arrays["scores"], arrays["labels"])
        return dict(zip(_texts(arrays["video_ids"], "video_ids", str(path)), ranks.tolist(), strict=True))


def read_own_streams(path: Path, *, shape: tuple[int, ...]) -> Scores:
    """Return the mean logits of each network's streams in flowkit's own scores, which must have the shape of the rows' scores."""
    import h5py

    with refusing(path, "an HDF5 file of plain arrays", ScoresError), h5py.File(path, "r", locking=False) as file:
        if "streams" not in file:
            return {}
        stored = group_of(file, "streams")
        groups = {phase: group_of(stored, phase) for phase in PHASES if phase in stored}
        parts = [(phase, stream) for phase, group in groups.items() for stream in STREAMS if stream in group]
        found = {(phase, stream): read_data_set(groups[phase], stream) for phase, stream in parts}
        if any(scores.shape != shape or scores.dtype.kind != "f" or not np.isfinite(scores).all() for scores in found.values()):
            raise ScoresError(f"the scores of each stream must be finite numbers of shape {shape}")
        return {part: scores.astype(np.float64) for part, scores in found.items()}


def write_scores(path: Path, table: ScoreTable) -> None:
    """Write scores as an HDF5 file that `read_scores` reads, with ``labels`` if there are any."""
    arrays = {"video_ids": _encoded(table.video_ids), "classes": _encoded(table.classes), "scores": table.scores}
    with replacing(path) as part:
        _write(part, arrays if table.labels is None else arrays | {"labels": table.labels}, {})


def write_own_scores(
    path: Path,
    *,
    video_ids: Sequence[str],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    rows: Mapping[str, NDArray[np.float64]],
    streams: Mapping[tuple[Phase, str], NDArray[np.float64]],
) -> None:
    """Write every video's scores (n, C) in each row of the table, and its mean logits by (phase, stream), into a file as it is.

    The caller gives the file its final name, together with the other files of the evaluation.
    """
    arrays = {"video_ids": _encoded(video_ids), "labels": labels, "classes": _encoded(classes)}
    arrays |= {f"rows/{name}": scores for name, scores in rows.items()}
    arrays |= {f"streams/{phase}/{stream}": scores for (phase, stream), scores in streams.items()}
    _write(path, arrays, {"format": np.bytes_(OWN_FORMAT), "format_version": OWN_FORMAT_VERSION})


def _write(path: Path, arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any]) -> None:
    import h5py

    with h5py.File(path, "w", track_order=False, locking=False) as file:
        for name, value in attributes.items():
            file.attrs[name] = value
        for name, array in arrays.items():
            file[name] = array


def _encoded(texts: Sequence[str]) -> NDArray[Any]:
    """Return texts as fixed-length UTF-8."""
    import h5py

    encoded = [text.encode("utf-8") for text in texts]
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(map(len, encoded), default=1)))


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise ScoresError(f"no scores file at {path}")
    if path.stat().st_size > MAX_BYTES:
        raise ScoresError(f"{path} has {path.stat().st_size} bytes; scores files of up to {MAX_BYTES} are read")


def _read_csv(path: Path) -> ScoreTable:
    ids: list[str] = []
    values: list[list[float]] = []
    first: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = next(rows, [])
            if len(header) < 2 or header[0].strip() != "video_id":
                raise ScoresError(f"{path}: its first line must be video_id and the names of the classes, got {','.join(header)[:80]!r}")
            classes = [name.strip() for name in header[1:]]
            for row in rows:
                if not row:  # an empty line
                    continue
                where = f"{path}, line {rows.line_num}"
                if len(row) != len(header):
                    raise ScoresError(f"{where}: {len(row)} fields, but the header has {len(header)}")
                if row[0] in first:
                    raise ScoresError(f"{where}: video id {row[0]!r} is already in line {first[row[0]]}")
                first[row[0]] = rows.line_num
                ids.append(row[0])
                values.append([_number(text, name, where) for text, name in zip(row[1:], classes, strict=True)])
    except (csv.Error, UnicodeDecodeError) as cause:
        raise ScoresError(f"{path} is not valid CSV in UTF-8 ({cause})") from cause
    return ScoreTable(str(path), tuple(ids), tuple(classes), np.array(values, np.float64).reshape(len(ids), len(classes)))


def _number(text: str, class_name: str, where: str) -> float:
    try:
        value = float("nan" if "_" in text else text)  # Python reads 1_5 as 15
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise ScoresError(f"{where}: the score for class {class_name[:80]!r} must be a finite number, got {text[:80]!r}")
    return value


def _read_npz(path: Path) -> ScoreTable:
    with refusing(path, "an NPZ file of plain arrays", ScoresError):
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_BYTES:
                raise ScoresError(f"{path} unpacks to more than {MAX_BYTES} bytes")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _names_there(path, file.files)}
    return _table(str(path), arrays)


def _read_hdf5(path: Path, *, row: str | None = None) -> tuple[dict[str, NDArray[Any]], str | None]:
    """Return the arrays of a file of scores and, if it is flowkit's own, which row they are."""
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        if text_of(file.attrs.get("format", "")) != OWN_FORMAT:
            return {name: read_data_set(file, name) for name in _names_there(path, list(file))}, None
        version = file.attrs.get("format_version")
        if version != OWN_FORMAT_VERSION:
            raise ScoresError(f"{path} has format version {version!r}; this flowkit reads {OWN_FORMAT_VERSION}: upgrade flowkit")
        stored = [name for name in ALL_ROWS if name in group_of(file, "rows")]
        row = row or last_row(stored)
        if row is None or row not in stored:
            raise ScoresError(f"{path} has no scores of {row or 'any row'}; it has {', '.join(stored) or 'none'}")
        arrays = {name: read_data_set(file, name) for name in ("video_ids", "classes", "labels")}
        return arrays | {"scores": read_data_set(group_of(file, "rows"), row)}, row


def _names_there(path: Path, names: list[str]) -> list[str]:
    """Return which arrays to read."""
    missing = [name for name in ("video_ids", "classes", "scores") if name not in names]
    if missing:
        raise ScoresError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(map(repr, names[:10])) or 'nothing'}")
    return ["video_ids", "classes", "scores"]


def _table(source: str, arrays: dict[str, NDArray[Any]]) -> ScoreTable:
    scores, labels = arrays["scores"], arrays.get("labels")
    if scores.dtype.kind not in "fiu" or scores.ndim != 2:
        raise ScoresError(f"{source}: scores must be numbers of shape (videos, classes), got {scores.dtype} {scores.shape}")
    if labels is not None and labels.dtype.kind not in "iu":
        raise ScoresError(f"{source}: labels must be whole numbers, got {labels.dtype}")
    return ScoreTable(
        source,
        _texts(arrays["video_ids"], "video_ids", source),
        _texts(arrays["classes"], "classes", source),
        scores.astype(np.float64),
        None if labels is None else labels.astype(np.int64),
    )


def _texts(array: NDArray[Any], name: str, source: str) -> tuple[str, ...]:
    if array.ndim != 1 or array.dtype.kind not in "USO":
        raise ScoresError(f"{source}: {name} must be a list of texts, got {array.dtype} {array.shape}")
    return tuple(text_of(item) for item in array.tolist())
