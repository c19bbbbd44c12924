"""A JSON record is read only if it is a bounded JSON object in UTF-8 of the expected format and version; every refusal names the file."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from flowkit.errors import FlowkitError, ManifestError, ScoresError
from flowkit.records import RecordFormat, canonical_json

if TYPE_CHECKING:
    from pathlib import Path

TABLE = RecordFormat("flowkit-table", 2, ManifestError, "make it again", max_bytes=1000)
HEADER = '{"format": "flowkit-table", "format_version": 2'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table.json"


def test_a_record_is_read_as_it_was_written(path: Path) -> None:
    path.write_text(json.dumps({**TABLE.header, "name": "çà", "sizes": [1, 2.5, None]}, ensure_ascii=False), encoding="utf-8")
    expected = {"format": "flowkit-table", "format_version": 2, "name": "çà", "sizes": [1, 2.5, None]}
    assert TABLE.read(path) == TABLE.read_if_present(path) == TABLE.parse(TABLE.read_bytes(path), path) == expected


def test_the_last_value_of_a_key_counts(path: Path) -> None:
    path.write_text(HEADER + ', "a": 1, "a": 2}')
    assert TABLE.read(path)["a"] == 2


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"", "is not valid JSON"),
        (b"{", "is not valid JSON"),
        (b"\xff{}", "is not valid JSON"),
        (b"\xef\xbb\xbf{}", "is not valid JSON"),
        (b"[" * 900, "is not valid JSON|must hold a JSON object"),
        (b"[]", "must hold a JSON object, got list"),
        (b"3", "must hold a JSON object, got int"),
        (b"{}", r"is not a flowkit-table file \(its format is None\)"),
        (b'{"format": "flowkit-tables", "format_version": 2}', "is not a flowkit-table file"),
        (b'{"format": ["flowkit-table"], "format_version": 2}', r"is not a flowkit-table file \(its format is of type list\)"),
        (b'{"format": "flowkit-table"}', "has format version None, but this flowkit reads version 2"),
        (b'{"format": "flowkit-table", "format_version": 3}', "has format version 3, but this flowkit reads version 2"),
        (b'{"format": "flowkit-table", "format_version": 2.0}', "has format version of type float"),
        (b'{"format": "flowkit-table", "format_version": "2"}', "has format version '2'"),
    ],
)
def test_what_is_not_such_a_record_is_refused(path: Path, text: bytes, what: str) -> None:
    path.write_bytes(text)
    with pytest.raises(ManifestError, match=rf"table\.json ({what}).*make it again") as caught:
        TABLE.read(path)
    with pytest.raises(ManifestError) as again:
        TABLE.read_if_present(path)
    assert str(caught.value) == str(again.value)


def test_true_is_not_version_one(path: Path) -> None:
    path.write_text('{"format": "flowkit-table", "format_version": true}')
    with pytest.raises(ManifestError, match="has format version True"):
        RecordFormat("flowkit-table", 1, ManifestError, "make it again").read(path)


def test_deep_nesting_is_refused(path: Path) -> None:
    path.write_text(HEADER + ', "a": ' + "[" * 100_000)
    with pytest.raises(ManifestError, match=r"table\.json is not valid JSON"):
        RecordFormat("flowkit-table", 2, ManifestError, "make it again").read(path)


def test_a_refusal_shows_little_of_a_foreign_file(path: Path) -> None:
    for record in ({"format": "x" * 900}, {"format": [["x"]] * 100}, {**TABLE.header, "format_version": "\ud800" * 100}):
        path.write_text(json.dumps(record))
        with pytest.raises(ManifestError) as caught:
            TABLE.read(path)
        assert len(str(caught.value)) < len(str(path)) + 200
        str(caught.value).encode("utf-8")


def test_a_file_that_is_too_large_or_no_file_is_refused_unread(path: Path) -> None:
    path.write_text(HEADER + ', "a": "' + "x" * 1000 + '"}')
    with pytest.raises(ManifestError, match=r"cannot read .*table\.json: too large"):
        TABLE.read(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ManifestError, match=r"cannot read .*table\.json: not a regular file"):
        TABLE.read_if_present(path)


def test_a_missing_file_is_none_or_an_error(path: Path) -> None:
    assert TABLE.read_if_present(path) is None
    with pytest.raises(ManifestError, match=r"cannot read .*table\.json: No such file"):
        TABLE.read(path)


@pytest.mark.parametrize("error", [ManifestError, ScoresError])
def test_the_format_says_which_error_is_raised(path: Path, error: type[FlowkitError]) -> None:
    path.write_text("[]")
    with pytest.raises(error):
        RecordFormat("flowkit-table", 1, error, "make it again").read(path)


def test_equal_objects_have_one_canonical_text() -> None:
    assert canonical_json({"b": 1, "a": {"d": "é", "c": 1.5}}) == canonical_json({"a": {"c": 1.5, "d": "é"}, "b": 1})
    assert canonical_json({"b": 1, "a": {"d": "é", "c": 1.5}}) == '{"a":{"c":1.5,"d":"é"},"b":1}'
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json({"a": float("nan")})
