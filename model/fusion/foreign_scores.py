"""Scores as other projects save them: TSN's NPZ, mmaction2's and 3D-ResNets' JSON, and files whose classes are label numbers.

All are foreign data: bounded in size, never unpickled. Where a file names no videos, a list gives them in the order of its rows; and
where it has labels, they must be ours for every video, since a wrong order would otherwise give wrong scores to all videos.
"""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.dataset.csv_fields import harmless_field, original_field
from flowkit.errors import ScoresError
from flowkit.files import read_file
from flowkit.model.evaluation.scores import SUFFIXES, ScoreTable, read_scores
from flowkit.model.fusion.matching import first_names, match_videos
from flowkit.model.scoring.plain_hdf5 import MAX_BYTES, refusing
from flowkit.video.ids import comparable_name
from flowkit.words import counted

MAX_JSON_BYTES = 1 << 28
MAX_LIST_BYTES = 1 << 26

_PICKLES = (".pkl", ".pickle", ".pt", ".pth")
_SCORE_KEYS, _LABEL_KEYS = ("pred_score", "pred_scores", "scores"), ("gt_label", "gt_labels", "label")  # of mmaction2's samples


def read_system_scores(path: Path, ours: ScoreTable, *, order: Path | None = None) -> tuple[ScoreTable, tuple[str, ...]]:
    """Read the scores of another system, in flowkit's forms or in those of other projects.

    Parameters
    ----------
    path : Path
        A CSV, NPZ, HDF5 or JSON file.
    ours : ScoreTable
        Our scores, whose classes in order of label name the columns of a file without class names.
    order : Path, optional
        A list of videos, one on each line, in the order of the rows of a file that does not name its videos: a test list of UCF101,
        TSN or mmaction2, whose numbers at the end of a line do not matter, or a CSV file with the column ``video_id``.

    Returns
    -------
    table : ScoreTable
        The scores, with our classes if the file has numbers for them.
    notes : tuple of str
        What was assumed that the file does not say.

    Raises
    ------
    ScoresError
        If the file is missing, damaged, a pickle or of another kind, or its rows, columns or labels do not fit.
    """
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise ScoresError(
            f"{path} is a pickle, and reading one may run any code that it holds; write the scores as JSON where they were made: a list "
            "with a list of scores for each video, in the order of the annotation file (--order)"
        )
    if suffix not in (*SUFFIXES, ".json"):
        raise ScoresError(f"{path}: scores are read from {', '.join(SUFFIXES)} and .json files")
    if suffix == ".json":
        with refusing(path, "JSON with a score for each video and class", ScoresError):
            return _read_json(path, ours, order)
    if suffix == ".npz" and path.is_file():
        with refusing(path, "an NPZ file of plain arrays", ScoresError):
            arrays = _plain_arrays(path, ("scores", "labels")) if _lacks_names(path) else None
        if arrays is not None:
            return _listed_table(path, arrays["scores"], arrays.get("labels"), ours, order)
    table = read_scores(path)
    return _by_label_number(table, ours)


def _by_label_number(table: ScoreTable, ours: ScoreTable) -> tuple[ScoreTable, tuple[str, ...]]:
    """Give a table whose classes are numbers our names for them, unless we have numbers too."""
    count = len(ours.classes)
    for first in (0, 1):
        numbers = [str(number) for number in range(first, first + count)]
        if set(table.classes) == set(numbers) and not set(ours.classes) & set(numbers):
            columns = [table.classes.index(number) for number in numbers]
            note = (
                f"the columns of {table.source} were matched by label number, from {first} ({ours.classes[0]}) to "
                f"{first + count - 1} ({ours.classes[-1]})"
            )
            return ScoreTable(table.source, table.video_ids, ours.classes, table.scores[:, columns], table.labels), (note,)
    return table, ()


def _lacks_names(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        names = {member.filename for member in archive.infolist()}
    return "scores.npy" in names and not names & {"video_ids.npy", "classes.npy"}


def _plain_arrays(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Read arrays of numbers from an NPZ file, after checking that each has the size that the archive's directory states."""
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        for name in names:
            member = members.get(f"{name}.npy")
            if member is None:
                continue
            if member.file_size > MAX_BYTES:
                raise ScoresError(f"{name} unpacks to {member.file_size} bytes; arrays of up to {MAX_BYTES} are read")
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read_header(file)
            if dtype.hasobject:
                raise ScoresError(_OBJECTS)
            if dtype.itemsize * int(np.prod(shape, dtype=object)) > member.file_size:
                raise ScoresError(f"{name} declares shape {shape}, but has {member.file_size} bytes")
            with archive.open(member) as file:
                arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
    return arrays


_OBJECTS = (
    "holds pickled objects, as TSN saves them, and reading those may run any code; if you made the file, save its numbers alone: "
    "python -c \"import numpy as np; d = np.load('IN.npz', allow_pickle=True); np.savez('OUT.npz', scores=np.stack([s[0].mean((0, 1)) "
    "for s in d['scores']]), labels=np.array([int(k) for k in d['labels']]))\""
)


def _listed_table(
    path: Path, scores: NDArray[Any], labels: NDArray[Any] | None, ours: ScoreTable, order: Path | None
) -> tuple[ScoreTable, tuple[str, ...]]:
    """Make a table of scores (n, ..., C) whose videos are in the order of a list; what lies between is averaged."""
    if scores.dtype.kind not in "fiu" or scores.ndim < 2 or 0 in scores.shape:
        raise ScoresError(f"{path}: scores must be numbers of shape (videos, ..., classes), got {scores.dtype} {scores.shape}")
    if order is None:
        raise ScoresError(
            f"{path} has scores of {counted(len(scores), 'video')} without names; give the test list that was used with --order LIST"
        )
    if scores.shape[-1] != len(ours.classes):
        raise ScoresError(f"{path} has scores for {counted(scores.shape[-1], 'class')}, but there are {len(ours.classes)} of ours")
    names = read_order(order)
    if len(names) != len(scores):
        raise ScoresError(f"{path} has scores of {counted(len(scores), 'video')}, but {order} lists {len(names)}")
    if labels is not None and (labels.shape != (len(scores),) or labels.dtype.kind not in "iu"):
        raise ScoresError(f"{path}: labels must be one whole number for each of {len(scores)} videos, got {labels.dtype} {labels.shape}")
    means = scores.reshape(len(scores), -1, scores.shape[-1]).mean(axis=1, dtype=np.float64)
    table = _with_matching_ids(str(path), names, means, ours)
    notes = [f"the columns of {path} are matched with our classes by label number"]
    if labels is None:
        notes.append(f"{path} has no labels, so nothing shows whether its rows are in the order of {order}")
        return table, tuple(notes)
    if wrong := _differing(table, labels, ours):
        alphabetic = _with_matching_ids(str(path), sorted(names), means, ours)
        hint = "; they agree if the list is sorted, as tsn-pytorch sorts it: sort it first" * (not _differing(alphabetic, labels, ours))
        raise ScoresError(
            f"{path}: labels that are not ours: {len(wrong)} ({first_names(wrong)}), so the rows are not in the order of {order}, "
            f"or the classes are numbered otherwise{hint}"
        )
    if names != sorted(names) and not _differing(_with_matching_ids(str(path), sorted(names), means, ours), labels, ours):
        notes.append(
            f"labels agree in the order of {order} and also in alphabetic order, in which tsn-pytorch saves scores; see which it is"
        )
    return table, tuple(notes)


def _differing(table: ScoreTable, labels: NDArray[Any], ours: ScoreTable) -> list[str]:
    """Return our videos for which another system has another label."""
    assert ours.labels is not None  # our own scores always have labels
    rows = match_videos(ours, table)
    return [ours.video_ids[k] for k, row in enumerate(rows) if row is not None and int(labels[row]) != int(ours.labels[k])]


def _with_matching_ids(source: str, names: Sequence[str], scores: NDArray[np.float64], ours: ScoreTable) -> ScoreTable:
    """Make a table whose ids are the names of a list, without the folders that keep all of them from matching ours."""
    table = ScoreTable(source, tuple(names), ours.classes, scores)
    for num_parts in (2, 1):
        if any(row is not None for row in match_videos(ours, table)):
            break
        table = ScoreTable(source, tuple("/".join(name.split("/")[-num_parts:]) for name in names), ours.classes, scores)
    return table


def read_order(path: Path) -> list[str]:
    """Read the names of videos from a list, one on each line; numbers behind a name are left out.

    Raises
    ------
    ScoresError
        If the file is missing, too large, not UTF-8, or empty.
    """
    try:
        lines = read_file(path, most_bytes=MAX_LIST_BYTES).decode("utf-8-sig").splitlines()
        if lines and lines[0].split(",")[0].strip() == "video_id":
            names = [_as_packed(row[0]) for row in csv.reader(lines[1:], strict=True) if row]
        else:
            names = [_without_numbers(line) for line in lines if line.strip()]
    except (OSError, UnicodeDecodeError, csv.Error) as cause:
        raise ScoresError(f"{path} is not a list of videos that can be read ({cause})") from cause
    if not names:
        raise ScoresError(f"{path} lists no video")
    return names


def _as_packed(field: str) -> str:
    """Return an id as it was before flowkit wrote it into a table of a split."""
    return original_field(field) if harmless_field(original_field(field)) == field else field


def _without_numbers(line: str) -> str:
    """Return the name in ``name``, ``name label`` or ``name num_frames label``."""
    words = line.split()
    for _ in range(2):
        if len(words) > 1 and words[-1].lstrip("-").isdecimal():
            words.pop()
    return " ".join(words)


def _read_json(path: Path, ours: ScoreTable, order: Path | None) -> tuple[ScoreTable, tuple[str, ...]]:
    try:
        data = read_file(path, most_bytes=MAX_JSON_BYTES)
    except FileNotFoundError as cause:
        raise ScoresError(f"no scores file at {path}") from cause
    try:
        values = json.loads(data, object_pairs_hook=_without_twins)
    except RecursionError as cause:
        raise ScoresError(f"{path} is nested too deeply") from cause
    if isinstance(values, dict) and isinstance(values.get("results"), dict):
        return _label_score_table(path, values["results"], ours)
    if isinstance(values, list) and values:
        if all(isinstance(sample, dict) for sample in values):
            rows = [_value(sample, _SCORE_KEYS) for sample in values]
            labels = [_value(sample, _LABEL_KEYS) for sample in values]
            known = None if any(label is None for label in labels) else np.array(labels).reshape(len(labels), -1)
            if known is not None and known.shape[1] != 1:
                raise ScoresError(f"{path}: each video must have one label")
            return _listed_table(path, np.array(rows), None if known is None else known[:, 0], ours, order)
        return _listed_table(path, np.array(values), None, ours, order)
    raise ScoresError(
        f"{path} holds no scores in a form that is read: mmaction2's list with the scores of each video, or 3D-ResNets' "
        '{"results": {video: [{"label": ..., "score": ...}, ...]}}'
    )


def _value(sample: dict[str, Any], keys: Sequence[str]) -> Any:
    """Return what a sample of mmaction2 has under one of some keys, perhaps inside ``item``."""
    value = next((sample[key] for key in keys if key in sample), None)
    return value.get("item") if isinstance(value, dict) else value


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ScoresError(f"{next(name for name in names if names.count(name) > 1)!r} occurs twice in an object")
    return values


def _label_score_table(path: Path, results: dict[str, Any], ours: ScoreTable) -> tuple[ScoreTable, tuple[str, ...]]:
    """Make a table of 3D-ResNets' results: the classes with the highest probabilities of each video."""
    spelling = {comparable_name(name): name for name in ours.classes}
    columns: dict[str, int] = {}
    found: list[dict[int, float]] = []
    for video_id, entries in results.items():
        own: dict[int, float] = {}
        for entry in entries if isinstance(entries, list) else [None]:
            label, score = (entry.get("label"), entry.get("score")) if isinstance(entry, dict) else (None, None)
            if not isinstance(label, str) or isinstance(score, bool) or not isinstance(score, int | float):
                hint = " (write averaged scores, without --inference_no_average)" if isinstance(entry, dict) and "segment" in entry else ""
                raise ScoresError(f"{path}: video {video_id!r} must have a list of objects with a label and a score{hint}")
            column = columns.setdefault(spelling.get(comparable_name(label), label), len(columns))
            if column in own:
                raise ScoresError(f"{path}: video {video_id!r} has label {label!r} twice")
            try:
                own[column] = float(score)
            except OverflowError as cause:
                raise ScoresError(f"{path}: video {video_id!r} has a score that is too large") from cause
        found.append(own)
    notes: tuple[str, ...] = ()
    if any(len(own) < len(columns) for own in found) or len(columns) < len(ours.classes):
        if any(not 0 <= score <= 1 for own in found for score in own.values()):
            raise ScoresError(f"{path} lacks scores of some classes, and those it has are no probabilities; write all classes")
        for name in ours.classes:
            columns.setdefault(name, len(columns))
        fewest = min(map(len, found), default=0)
        notes = (f"{path} has only {fewest} of {len(columns)} classes for a video; those it lacks count as 0 (--output_topk writes more)",)
    if len(found) * len(columns) * 8 > MAX_BYTES:
        raise ScoresError(f"{path} has {len(found)} videos and {len(columns)} labels, which is too much")
    scores = np.zeros((len(found), len(columns)))
    for row, own in enumerate(found):
        scores[row, list(own)] = list(own.values())
    return ScoreTable(str(path), tuple(results), tuple(columns), scores), notes
