"""A split is known by its rows and the contents of its clips, whichever shards hold them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from shard_files import make_root, write_clip

from flowkit.dataset.manifest import Split, write_split
from flowkit.dataset.packing import pack
from flowkit.dataset.paths import clip_path
from flowkit.dataset.root import Dataset
from flowkit.dataset.verify import verify
from flowkit.errors import ManifestError

if TYPE_CHECKING:
    from pathlib import Path

VIDEOS = {f"{name}/v_{name}_g{group:02d}_c01": 12 for name in ("Run", "Jump") for group in range(3)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = make_root(tmp_path, VIDEOS)
    rows = "".join(f"{video_id},{video_id.split('/')[0]},{'test' if 'g00' in video_id else 'train'}\n" for video_id in VIDEOS)
    (tmp_path / "lists.csv").write_text("video_id,class_name,subset\n" + rows)
    pack(root, lists=tmp_path / "lists.csv")
    return root


def split_of(root: Path) -> Split:
    return Dataset.open(root).split(1)


def write_old(root: Path) -> str:
    """Write the manifest as an earlier flowkit did, without the contents of clips; return its digest."""
    split = split_of(root)
    old = {name: tuple(replace(row, sha256="") for row in getattr(split, name)) for name in ("train", "test")}
    names = ("protocol", "classes", "num_listed_train", "num_listed_test", "quantiser", "shards")
    arguments: dict[str, Any] = {name: getattr(split, name) for name in names}
    digest = write_split(root, 1, **old, **arguments).digest
    assert digest != split.digest
    return digest


@pytest.mark.parametrize("change", [{"shard_bytes": 1}, {"move": True}, {"shard_bytes": 60_000, "move": True}])
def test_packing_into_other_shards_leaves_it(root: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    before = split_of(root)
    pack(root, lists=tmp_path / "lists.csv", **change)
    assert split_of(root).digest == before.digest
    assert verify(root) == []


def test_a_video_that_the_split_does_not_list_leaves_it(root: Path, tmp_path: Path) -> None:
    before = split_of(root)
    write_clip(clip_path(root, "Jump/another"), "Jump/another", seed=9)
    report = pack(root, lists=tmp_path / "lists.csv")
    assert report.shards_written
    assert split_of(root).digest == before.digest


@pytest.mark.parametrize("change", ["class", "half", "clip", "row"])
def test_other_rows_and_other_clips_change_it(root: Path, tmp_path: Path, change: str) -> None:
    before, lists = split_of(root), tmp_path / "lists.csv"
    text = lists.read_text()
    first = "Run/v_Run_g00_c01"
    changed = {
        "class": text.replace(f"{first},Run", f"{first},Jump"),
        "half": text.replace(f"{first},Run,test", f"{first},Run,train"),
        "clip": text,
        "row": text.replace(f"{first},Run,test\n", ""),
    }
    lists.write_text(changed[change])
    if change == "clip":
        write_clip(clip_path(root, first), first, seed=77)
    pack(root, lists=lists)
    assert not split_of(root).digests & before.digests


def test_an_old_manifest_keeps_its_digest_as_an_earlier_one_when_shards_change(root: Path, tmp_path: Path) -> None:
    identity, digest = split_of(root).digest, write_old(root)
    assert split_of(root).digest == digest
    assert pack(root, lists=tmp_path / "lists.csv").did_nothing
    pack(root, lists=tmp_path / "lists.csv", shard_bytes=1)
    assert (split_of(root).digest, split_of(root).earlier_digests) == (identity, (digest,))
    pack(root, lists=tmp_path / "lists.csv", shard_bytes=1 << 30)
    assert (split_of(root).digest, split_of(root).earlier_digests) == (identity, (digest,))
    write_clip(clip_path(root, "Run/v_Run_g00_c01"), "Run/v_Run_g00_c01", seed=78)
    pack(root, lists=tmp_path / "lists.csv")
    assert split_of(root).earlier_digests == ()


def test_an_old_manifest_is_carried_along_by_a_pack_of_another_split(root: Path, tmp_path: Path) -> None:
    digest = write_old(root)
    pack(root, split=2, lists=tmp_path / "lists.csv", shard_bytes=1)
    assert digest in split_of(root).digests


def test_an_old_manifest_whose_clips_were_replaced_is_not_carried_along(root: Path, tmp_path: Path) -> None:
    digest = write_old(root)
    write_clip(clip_path(root, "Run/v_Run_g00_c01"), "Run/v_Run_g00_c01", seed=78)
    pack(root, lists=tmp_path / "lists.csv", shard_bytes=1)
    assert digest not in split_of(root).digests


def test_an_old_manifest_whose_shards_are_gone_is_not_carried_along(root: Path, tmp_path: Path) -> None:
    digest = write_old(root)
    for path in (root / "shards").glob("*.h5"):
        path.unlink()
    pack(root, lists=tmp_path / "lists.csv", shard_bytes=1)
    assert digest not in split_of(root).digests


def test_an_old_manifest_is_carried_along_although_the_pack_is_killed(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = write_old(root)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("flowkit.dataset.packing.ManifestWriter", killed)
        with pytest.raises(KeyboardInterrupt):
            pack(root, lists=tmp_path / "lists.csv", shard_bytes=1)
    pack(root, lists=tmp_path / "lists.csv")
    assert digest in split_of(root).digests


def test_verify_finds_a_clip_that_the_split_was_not_packed_with(root: Path) -> None:
    split = split_of(root)
    other = (replace(split.train[0], sha256="00" * 32), *split.train[1:])
    names = ("protocol", "classes", "test", "num_listed_train", "num_listed_test", "quantiser", "shards")
    arguments: dict[str, Any] = {name: getattr(split, name) for name in names}
    write_split(root, 1, train=other, **arguments)
    (problem,) = verify(root)
    assert problem.video_id == split.train[0].video_id
    assert "other contents" in problem.what


@pytest.mark.parametrize("sha256", ["00", "AB" * 32, "x" * 64])
def test_a_digest_that_is_none_is_refused(root: Path, sha256: str) -> None:
    split = split_of(root)
    names = ("protocol", "classes", "test", "num_listed_train", "num_listed_test", "quantiser", "shards")
    arguments: dict[str, Any] = {name: getattr(split, name) for name in names}
    with pytest.raises(ManifestError, match="sha256 must be"):
        write_split(root, 1, train=[replace(split.train[0], sha256=sha256)], **arguments)
    with pytest.raises(ManifestError, match="earlier_digests"):
        write_split(root, 1, train=split.train, earlier_digests=[sha256], **arguments)
