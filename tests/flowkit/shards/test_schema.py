"""The declarations of the shard format: the page of the documentation agrees, and attributes are checked whenever they are made."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
from shard_files import attributes

from flowkit.errors import ShardFormatError
from flowkit.shards.schema import (
    CODECS,
    DATA_SETS,
    FILTERS,
    FORMAT,
    FORMAT_VERSION,
    GZIP_LEVEL,
    ROOT_ATTRIBUTES,
    VIDEO_ATTRIBUTES,
    ZSTD_LEVEL,
    ClipAttributes,
    data_sets,
)

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "format.md").read_text(encoding="utf-8")


def table_after(text: str) -> list[list[str]]:
    """Return the rows of the first table after a text, without its header."""
    lines = PAGE[PAGE.index(text) :].splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("|---"))
    rows = []
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    return rows


def test_the_page_lists_every_attribute_with_its_type() -> None:
    assert [row[:2] for row in table_after("Attributes of the root:")] == [[a.name, a.kind] for a in ROOT_ATTRIBUTES]
    assert [row[:2] for row in table_after("Attributes of each video:")] == [[a.name, a.kind] for a in VIDEO_ATTRIBUTES]
    assert table_after("Attributes of the root:")[0][2] == f"`{FORMAT}`".strip("`")
    assert table_after("Attributes of the root:")[1][2] == str(FORMAT_VERSION)


def test_the_page_lists_every_data_set_with_type_shape_chunk_and_codecs() -> None:
    def shown(shape: tuple[str, ...]) -> str:
        return f"({', '.join(shape)})" if shape else ""

    expected = [[d.name, d.dtype, shown(d.shape), shown(d.chunk), ", ".join(d.codecs)] for d in DATA_SETS]
    assert table_after("## Data sets") == expected


def test_the_page_lists_every_codec_with_its_filters() -> None:
    rows = dict(table_after("## Codecs"))
    assert tuple(rows) == CODECS
    for codec, filters in FILTERS.items():
        assert [int(number) for number in re.findall(r"(\d+) \(", rows[codec])] == list(filters)
    assert f"level {ZSTD_LEVEL}" in rows["zstd"]
    assert f"level {GZIP_LEVEL}" in rows["gzip"]


def test_the_attributes_of_a_clip_are_those_of_the_format() -> None:
    assert [field.name for field in fields(ClipAttributes)] == [a.name for a in VIDEO_ATTRIBUTES if a.name != "sha256"]


def test_each_codec_has_flow_frames_and_their_index() -> None:
    assert set(data_sets("zstd")) == {"flow", "frames", "frame_offsets", "frame_crc32", "times"}
    assert set(data_sets("jpeg")) == {*data_sets("zstd"), "flow_offsets", "flow_crc32"}


def test_stored_attributes_come_back() -> None:
    made = attributes('a/ü "quoted"\n🏃 [red]', 12, frame_rate="30000/1001", class_name="")
    assert ClipAttributes.from_stored(made.to_stored()) == made


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("video_id", "../up"),
        ("video_id", "/etc/passwd"),
        ("video_id", "a//b"),
        ("video_id", "a/./b"),
        ("video_id", "C:/x"),
        ("video_id", "a\\b"),
        ("video_id", "nul\0"),
        ("video_id", "con"),
        ("video_id", ""),
        ("video_id", "\udcff"),
        ("video_id", "x" * 300),
        ("video_id", 3),
        ("class_name", "a\0b"),
        ("class_name", None),
        ("source_name", "x" * 20_000),
        ("source_sha256", "AB" * 32),
        ("source_sha256", "ab"),
        ("frame_rate", "25"),
        ("frame_rate", "25/0"),
        ("frame_rate", "-1/2"),
        ("frame_rate", "25/1\n"),
        ("num_frames", 1),
        ("num_frames", True),
        ("num_frames", 12.0),
        ("num_frames", 1 << 63),
        ("header_frames", -1),
        ("decode_errors", "0"),
        ("codec", "lzma"),
        ("quantiser", {"bound": 20.0}),
        ("quantiser", {"bound": 0.0, "mapping": "symmetric"}),
        ("quantiser", {"bound": float("nan"), "mapping": "symmetric"}),
        ("quantiser", {"bound": 20.0, "mapping": 3}),
        ("quantiser", {"bound": 20.0, "mapping": "linear"}),
        ("quantiser", []),
        ("tvl1", {"tau": [1]}),
        ("tvl1", {"tau": float("inf")}),
        ("solver", ""),
    ],
)
def test_attributes_out_of_range_are_refused(name: str, value: object) -> None:
    with pytest.raises(ShardFormatError):
        replace(attributes("Run/v", 12), **{name: value})


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"bound":20.0}', "[" * 5000, '{"bound":1e999,"mapping":"symmetric"}'])
def test_settings_that_are_not_the_json_they_must_be_are_refused(text: str) -> None:
    stored = attributes("Run/v", 12).to_stored() | {"quantiser": text}
    with pytest.raises(ShardFormatError):
        ClipAttributes.from_stored(stored)
