"""The manifest of a split: which clips, in which shards, make it up.

On disk a split is ``splits/split1/{train.csv,test.csv,split.json}``. split.json is written last and holds the digests of the
tables and shards, so that its presence means that the split is complete. What is read is checked before it is used.

A split is identified by its videos, their labels and the contents of their clips, whichever shards hold them; see `Split.digest`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowkit.dataset.csv_fields import csv_line, harmless_field, is_harmful, original_field
from flowkit.dataset.paths import is_shard_name, split_folder
from flowkit.errors import ManifestError, ParameterError
from flowkit.files import write_atomically
from flowkit.quantise import Quantiser
from flowkit.records import RecordFormat, is_sha256
from flowkit.video.ids import check_video_id
from flowkit.words import counted

SPLIT_RECORD = RecordFormat("flowkit-split", 1, ManifestError, "pack the split again")
TABLE_COLUMNS = ("video_id", "label", "class_name", "num_frames", "shard", "sha256")
OLD_TABLE_COLUMNS = TABLE_COLUMNS[:-1]  # until flowkit recorded the contents of clips
TABLES = ("train", "test")
MIN_FRAMES = 11  # of a video in a split: the shortest with a stack of 10 flow fields around a frame

_TABLE_FILES = {f"{name}.csv" for name in TABLES}


@dataclass(frozen=True)
class ClipRecord:
    """One row of a split's table: a clip, its label and where it is stored.

    Parameters
    ----------
    video_id : str
        The video: its path below the folder of videos, without suffix.
    label : int
        The index of its class in `Split.classes`, from 0.
    class_name : str
        The name of its class.
    num_frames : int
        Frames of the clip; it has one flow field fewer.
    shard : str
        The name of the shard file that holds the clip.
    sha256 : str
        The digest of the clip's contents, as its attribute ``sha256`` gives it. Empty in manifests that do not say, which earlier
        versions of flowkit wrote.

    Examples
    --------
    >>> import flowkit
    >>> from flowkit.dataset.example import example_root
    >>> record = flowkit.Dataset.open(example_root()).split(1).test[0]
    >>> record.video_id, record.label, record.class_name, record.num_frames, record.shard
    ('colour0-motion0/v12', 0, 'colour0-motion0', 18, 'shard-00000.h5')
    """

    video_id: str
    label: int
    class_name: str
    num_frames: int
    shard: str
    sha256: str = ""


@dataclass(frozen=True, repr=False)
class Split:
    """One split of a data set, as its manifest says: a sequence of clips, those to train first.

    Parameters
    ----------
    number : int
        The number of the split, from 1.
    protocol : str
        Where it comes from: ``ucf101``, ``hmdb51``, ``csv``, ``folders (train for training, val for test)``, ``automatic``, ...
    classes : tuple of str
        ``classes[label]``; some may have no clip.
    train, test : tuple of ClipRecord
        The clips of each half, sorted by video id.
    num_listed_train, num_listed_test : int
        Videos that the lists name, whether or not they were found and are long enough.
    quantiser : Quantiser
        How the flow of all clips is quantised.
    shards : dict of str to str
        SHA-256 of each shard file by its name.
    digest : str
        What identifies the split: SHA-256 over the id, label and class of every video in each half, and over the contents of its
        clip. Packing again into other shards does not change it. If the manifest does not say what the clips contain, it is the
        SHA-256 of split.json.
    earlier_digests : tuple of str
        Further digests under which runs may know exactly these rows and clips, from when the digest was that of split.json.
    left_out_classes : tuple of str
        Classes of the lists that were left out when the split was packed, in the order of the lists.

    Examples
    --------
    >>> import flowkit
    >>> from flowkit.dataset.example import example_root
    >>> split = flowkit.Dataset.open(example_root()).split(1)
    >>> split
    Split(1, automatic: 6 classes, 12 videos to train and 6 to test)
    >>> len(split), "colour0-motion0/v00" in split
    (18, True)
    >>> [record.video_id for record in split.test][:2]
    ['colour0-motion0/v12', 'colour0-motion1/v13']
    """

    number: int
    protocol: str
    classes: tuple[str, ...]
    train: tuple[ClipRecord, ...]
    test: tuple[ClipRecord, ...]
    num_listed_train: int
    num_listed_test: int
    quantiser: Quantiser
    shards: dict[str, str]
    digest: str
    earlier_digests: tuple[str, ...] = ()
    left_out_classes: tuple[str, ...] = ()

    @property
    def digests(self) -> frozenset[str]:
        """All digests under which these rows and clips are known."""
        return frozenset({self.digest, *self.earlier_digests})

    def __repr__(self) -> str:
        counts = f"{counted(len(self.classes), 'class')}, {counted(len(self.train), 'video')} to train and {len(self.test):,} to test"
        return f"Split({self.number}, {self.protocol}: {counts})"

    def __len__(self) -> int:
        return len(self.train) + len(self.test)

    def __iter__(self) -> Iterator[ClipRecord]:
        yield from self.train
        yield from self.test

    def __contains__(self, video: object) -> bool:
        """Whether a video, by its id or its record, is in either half."""
        return any(video in (record.video_id, record) for record in self)


def read_split(root: Path, number: int) -> Split:
    """Read the manifest of a split.

    Raises
    ------
    ManifestError
        If a file is missing, a table does not have the digest that split.json gives, or anything in them is not valid;
        names the file and the row.
    """
    folder = split_folder(root, number)
    text = SPLIT_RECORD.read_bytes(folder / "split.json")
    return _parse_split(folder, number, text, {name: SPLIT_RECORD.read_bytes(folder / f"{name}.csv") for name in TABLES})


def write_split(
    root: Path,
    number: int,
    *,
    protocol: str,
    classes: Sequence[str],
    train: Sequence[ClipRecord],
    test: Sequence[ClipRecord],
    num_listed_train: int,
    num_listed_test: int,
    quantiser: Quantiser,
    shards: Mapping[str, str],
    earlier_digests: Sequence[str] = (),
    left_out_classes: Sequence[str] = (),
) -> Split:
    """Write a split's manifest: the tables, then split.json; the same arguments give the same bytes.

    Parameters
    ----------
    root : Path
        The data root.
    number, protocol, classes, train, test, num_listed_train, num_listed_test, quantiser, shards, earlier_digests, left_out_classes
        What the manifest says; see `Split`. The records may be in any order.

    Returns
    -------
    Split
        The split as a reader sees it.

    Raises
    ------
    ManifestError
        If the manifest would contradict itself; then nothing is written.
    """
    folder = split_folder(root, number)
    escaped = any(is_harmful(text) for record in (*train, *test) for text in (record.video_id, record.class_name))
    tables = {name: _table_text(records, escaped=escaped) for name, records in (("train", train), ("test", test))}
    record = {
        **SPLIT_RECORD.header,
        "number": number,
        "protocol": protocol,
        "classes": list(classes),
        "quantiser": quantiser.to_dict(),
        "num_listed": {"train": num_listed_train, "test": num_listed_test},
        "tables": {f"{name}.csv": hashlib.sha256(text).hexdigest() for name, text in tables.items()},
        "shards": dict(sorted(shards.items())),
        **({"escaped": True} if escaped else {}),
        **({"earlier_digests": sorted(earlier_digests)} if earlier_digests else {}),
        **({"left_out_classes": list(left_out_classes)} if left_out_classes else {}),
    }
    text = (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode("utf-8")
    split = _parse_split(folder, number, text, tables)
    for name, table in tables.items():
        write_atomically(folder / f"{name}.csv", table)
    write_atomically(folder / "split.json", text)
    return split


def split_identity(train: Sequence[ClipRecord], test: Sequence[ClipRecord]) -> str:
    """Return the digest of a split's rows and the contents of their clips; empty if the contents of a clip are not known."""
    if not all(record.sha256 for record in (*train, *test)):
        return ""
    digest = hashlib.sha256(b"flowkit-split-identity 1\n")
    for name, records in (("train", train), ("test", test)):
        rows = sorted((r.video_id, r.label, r.class_name, r.sha256) for r in records)
        for row in rows:
            digest.update(json.dumps([name, *row], ensure_ascii=False).encode("utf-8") + b"\n")
    return digest.hexdigest()


def _table_text(records: Sequence[ClipRecord], *, escaped: bool) -> bytes:
    """Return a table as CSV. Fields are escaped only if one of the split needs it, so that other tables are the plain names."""
    rows = [
        (r.video_id, str(r.label), r.class_name, str(r.num_frames), r.shard, r.sha256) for r in sorted(records, key=lambda r: r.video_id)
    ]
    return "".join(csv_line(map(harmless_field, row) if escaped else row) for row in [TABLE_COLUMNS, *rows]).encode("utf-8")


def _parse_split(folder: Path, number: int, text: bytes, tables: Mapping[str, bytes]) -> Split:
    """Make a split from the bytes of its files, which must be as `write_split` would write them."""
    path = folder / "split.json"
    record = SPLIT_RECORD.parse(text, path)
    keys = ("classes", "shards", "tables", "num_listed", "quantiser", "protocol")
    values: list[Any] = [record.get(key) for key in keys]
    classes, shards, digests, num_listed, stored_quantiser, protocol = values
    if record.get("number") != number:
        raise ManifestError(f"{path} is the manifest of split {record.get('number')!r}, not {number}; pack the split again")
    if not _is_list_of_names(classes) or not isinstance(protocol, str):
        raise ManifestError(f"{path}: classes must be different names, and protocol must be a text; pack the split again")
    try:
        quantiser = Quantiser.from_dict(stored_quantiser)
    except ParameterError as cause:
        raise ManifestError(f"{path}: {cause}; pack the split again") from cause
    names_fit = isinstance(shards, dict) and all(map(is_shard_name, shards)) and isinstance(digests, dict) and {*digests} == _TABLE_FILES
    if not names_fit or not all(map(is_sha256, (*shards.values(), *digests.values()))):
        raise ManifestError(f"{path}: shards and tables must give the SHA-256 of each file by its name; pack the split again")
    if not isinstance(num_listed, dict) or any(not _is_count(num_listed.get(name)) for name in TABLES):
        raise ManifestError(f"{path}: num_listed must give the numbers of videos listed for train and test; pack the split again")
    earlier = record.get("earlier_digests", [])
    if not isinstance(earlier, list) or not all(map(is_sha256, earlier)):
        raise ManifestError(f"{path}: earlier_digests must be a list of SHA-256 digests; pack the split again")
    left_out = record.get("left_out_classes", [])
    if not _is_list_of_names(left_out) or {*left_out} & {*classes}:
        raise ManifestError(f"{path}: left_out_classes must be different names, of no class of the split; pack the split again")
    records = {}
    for name in TABLES:
        if hashlib.sha256(tables[name]).hexdigest() != digests[f"{name}.csv"]:
            raise ManifestError(f"{folder / name}.csv is not the table that split.json was written with; pack the split again")
        records[name] = _parse_table(tables[name], folder / f"{name}.csv", classes, shards, escaped=record.get("escaped") is True)
    seen: set[str] = set()
    for clip in (*records["train"], *records["test"]):
        if clip.video_id in seen:
            raise ManifestError(f"{folder}: {clip.video_id!r} is in the split twice; pack the split again")
        seen.add(clip.video_id)
    return Split(
        number=number,
        protocol=protocol,
        classes=tuple(classes),
        train=records["train"],
        test=records["test"],
        num_listed_train=num_listed["train"],
        num_listed_test=num_listed["test"],
        quantiser=quantiser,
        shards=shards,
        digest=split_identity(records["train"], records["test"]) or hashlib.sha256(text).hexdigest(),
        earlier_digests=tuple(earlier),
        left_out_classes=tuple(left_out),
    )


def _parse_table(table: bytes, path: Path, classes: Sequence[str], shards: Mapping[str, str], *, escaped: bool) -> tuple[ClipRecord, ...]:
    records = []
    try:
        rows = csv.reader(io.StringIO(table.decode("utf-8"), newline=""), strict=True)
        columns = next(rows, None)
        if columns not in (list(TABLE_COLUMNS), list(OLD_TABLE_COLUMNS)):
            raise ManifestError(f"{path}: its first line must be {','.join(TABLE_COLUMNS)}; pack the split again")
        for row in rows:
            if len(row) != len(columns):
                raise ManifestError(f"{path}, line {rows.line_num}: expected {len(columns)} fields, got {len(row)}")
            texts = [original_field(field) for field in row] if escaped else row
            records.append(_parse_row(texts, f"{path}, line {rows.line_num}", classes, shards))
    except (csv.Error, UnicodeDecodeError) as cause:
        raise ManifestError(f"{path} is not valid CSV in UTF-8 ({cause}); pack the split again") from cause
    return tuple(records)


def _parse_row(row: list[str], where: str, classes: Sequence[str], shards: Mapping[str, str]) -> ClipRecord:
    video_id, label, class_name, num_frames, shard, sha256 = row if len(row) == len(TABLE_COLUMNS) else [*row, ""]
    try:
        check_video_id(video_id)
    except ManifestError as cause:
        raise ManifestError(f"{where}: {cause}") from cause
    if not _is_number(label) or int(label) >= len(classes) or classes[int(label)] != class_name:
        raise ManifestError(f"{where}: label {label!r} is not the label of class {class_name!r} in split.json")
    if not _is_number(num_frames) or int(num_frames) < 1:
        raise ManifestError(f"{where}: num_frames must be a number above 0, got {num_frames!r}")
    if shard not in shards:
        raise ManifestError(f"{where}: shard {shard!r} is not listed in split.json")
    if sha256 and not is_sha256(sha256):
        raise ManifestError(f"{where}: sha256 must be the digest of a clip or empty, got {sha256!r:.80}")
    return ClipRecord(video_id, int(label), class_name, int(num_frames), shard, sha256)


def _is_list_of_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) and name for name in value) and len(set(value)) == len(value)


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_number(text: str) -> bool:
    """Whether a field is a number as `write_split` writes it: ASCII digits, and not more than a clip could have."""
    return re.fullmatch(r"0|[1-9][0-9]{0,11}", text) is not None
