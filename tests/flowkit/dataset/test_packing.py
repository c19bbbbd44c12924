"""Pack: all clips into shards, once; manifests from lists; the same bytes always; and nothing lost, whenever it is killed."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from command_lines import call_flowkit, run_flowkit
from shard_files import clip_arrays, make_root, write_clip

import flowkit.dataset.shard_update as shard_set
from flowkit.cli.main import flowkit as command
from flowkit.dataset.clips import packed_videos
from flowkit.dataset.lists.choosing import SeveralListsError
from flowkit.dataset.packing import pack
from flowkit.dataset.paths import MOST_SPLITS, clip_path, split_folder
from flowkit.dataset.progress import StageProgress
from flowkit.dataset.root import Dataset
from flowkit.dataset.verify import verify
from flowkit.describe.contents import describe_root
from flowkit.errors import BusyError, ManifestError, ParameterError, ShardFormatError
from flowkit.shards.check import check_file
from flowkit.shards.reader import ShardReader
from flowkit.shards.writer import write_shard

CLASSES = ("Jump", "Run", "Walk")
VIDEOS = {f"{name}/v_{name}_g{group:02d}_c01": 12 for name in CLASSES for group in range(1, 5)}
SHARD_BYTES = 40_000  # about two of these clips


def packed_video_ids(root: Path) -> dict[str, Path]:
    """Return the shard that holds each packed video."""
    return {video_id: packed.path for video_id, packed in packed_videos(root).items()}


def shards(root: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((root / "shards").glob("*.h5"))}


def members(root: Path) -> list[list[str]]:
    found = []
    for path in sorted((root / "shards").glob("*.h5")):
        with ShardReader(path) as reader:
            found.append(list(reader.video_ids))
    return found


run = partial(call_flowkit, "pack", code=0)


def assert_whole(root: Path, videos: dict[str, int], *, shard_count: int | None = None) -> None:
    """Every video is in one shard, in order, as it was extracted, and the records agree."""
    assert [video_id for shard in members(root) for video_id in shard] == sorted(videos)
    for video_id, path in packed_video_ids(root).items():
        with ShardReader(path) as reader:
            flow = clip_arrays(videos[video_id], seed=sorted(videos).index(video_id))[1]
            assert np.array_equal(reader.clip(video_id).flow(0, len(flow)), flow)
    for path in (root / "shards").glob("*.h5"):
        assert check_file(path, deep=False, digest=False)["faults"] == []
    data_set = Dataset.open(root)
    for number in data_set.splits:
        split = data_set.split(number)
        assert split.shards == shards(root)
        assert all(packed_video_ids(root)[record.video_id] == data_set.shard_path(record) for record in (*split.train, *split.test))
    assert not [path.name for path in (root / "shards").iterdir() if path.suffix in (".part", ".new")]
    if shard_count is not None:
        assert len(members(root)) == shard_count


def write_lists(folder: Path, number: int, train: list[str], test: list[str]) -> None:
    """Write UCF101's lists."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = {name: k for k, name in enumerate(CLASSES, start=1)}
    (folder / "classInd.txt").write_text("".join(f"{k} {name}\n" for name, k in labels.items()))
    (folder / f"trainlist{number:02d}.txt").write_text("".join(f"{v}.avi {labels[v.split('/')[0]]}\n" for v in train))
    (folder / f"testlist{number:02d}.txt").write_text("".join(f"{v}.avi\n" for v in test))


# -- shards ------------------------------------------------------------------------------------------------------------------------


def test_shards_end_with_the_first_video_that_brings_them_past_the_size(tmp_path: Path) -> None:
    root = make_root(tmp_path, VIDEOS)
    report = pack(root, shard_bytes=SHARD_BYTES)
    assert len(members(root)) == report.num_shards > 3
    for number, shard in enumerate(members(root)):
        sizes = []
        with ShardReader(root / "shards" / f"shard-{number:05d}.h5") as reader:
            sizes = [reader.clip(video_id).stored_bytes for video_id in shard]
        assert sum(sizes[:-1]) < SHARD_BYTES
        if number < report.num_shards - 1:
            assert sum(sizes) >= SHARD_BYTES
    assert_whole(root, VIDEOS)


def test_a_split_whose_folder_would_not_be_found_again_is_refused(tmp_path: Path) -> None:
    root = make_root(tmp_path, VIDEOS)
    pack(root, split=MOST_SPLITS)
    assert Dataset.open(root).splits == [MOST_SPLITS]
    with pytest.raises(ParameterError, match="split must be at most 999,999,999, got 1000000000"):
        pack(root, split=MOST_SPLITS + 1)
    assert [path.name for path in (root / "splits").iterdir()] == [f"split{MOST_SPLITS}"]


def test_packing_again_does_nothing_and_says_so(tmp_path: Path) -> None:
    root = make_root(tmp_path, VIDEOS)
    assert not pack(root, shard_bytes=SHARD_BYTES).did_nothing
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    assert pack(root).did_nothing  # with the shard size of before
    assert pack(root, shard_bytes=SHARD_BYTES).did_nothing
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before
    result = run("--data", root)
    assert "nothing to do" in result.err


def test_the_same_clips_give_the_same_bytes_in_any_order_and_process(tmp_path: Path) -> None:
    first = make_root(tmp_path / "a", VIDEOS)
    pack(first, shard_bytes=SHARD_BYTES)
    second = make_root(tmp_path / "b", {})
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2] / 'support')!r})\n"
        "from pathlib import Path\nfrom shard_files import write_clip\nfrom flowkit.dataset.paths import clip_path\n"
        "for line in sys.stdin:\n"
        "    seed, video_id = line.rstrip('\\n').split(' ')\n"
        f"    write_clip(clip_path(Path({str(second)!r}), video_id), video_id, seed=int(seed))\n"
    )
    numbered = list(enumerate(sorted(VIDEOS)))
    for part in (numbered[1::2][::-1], numbered[0::2]):
        lines = "".join(f"{seed} {video_id}\n" for seed, video_id in part)
        subprocess.run([sys.executable, "-c", code], input=lines, text=True, check=True)
    pack(second, shard_bytes=SHARD_BYTES)
    assert shards(first) == shards(second)
    # One by one, too.
    third = make_root(tmp_path / "c", {})
    for seed, video_id in numbered[::-1]:
        write_clip(clip_path(third, video_id), video_id, seed=seed)
        if seed % 4 == 0:
            pack(third, shard_bytes=SHARD_BYTES, move=True)
    assert shards(first) == shards(third)


def test_adding_a_video_rewrites_only_the_shards_whose_members_change(tmp_path: Path) -> None:
    root = make_root(tmp_path, VIDEOS)
    pack(root, shard_bytes=SHARD_BYTES)
    before, members_before = shards(root), members(root)
    write_clip(clip_path(root, "Walk/v_Walk_g09_c01"), "Walk/v_Walk_g09_c01", seed=12)
    report = pack(root)
    after, members_after = shards(root), members(root)
    changed = {name for name in after if after[name] != before.get(name)}
    assert set(report.shards_written) == changed
    assert changed == {f"shard-{k:05d}.h5" for k, shard in enumerate(members_after) if shard not in members_before}
    assert len(changed) < len(after)
    assert_whole(root, VIDEOS | {"Walk/v_Walk_g09_c01": 12})


def test_a_video_that_was_extracted_again_replaces_the_one_in_the_shard(tmp_path: Path) -> None:
    root = make_root(tmp_path, VIDEOS)
    pack(root, shard_bytes=SHARD_BYTES, move=True)
    video_id = sorted(VIDEOS)[3]
    _, flow = write_clip(clip_path(root, video_id), video_id, num_frames=15, seed=77)
    report = pack(root, move=True)
    assert len(report.shards_written) >= 1
    with ShardReader(packed_video_ids(root)[video_id]) as reader:
        assert np.array_equal(reader.clip(video_id).flow(0, 14), flow)
    assert {record.video_id: record.num_frames for record in (*report.split.train, *report.split.test)}[video_id] == 15
    assert verify(root) == []


def test_a_smaller_or_larger_shard_size_packs_anew_and_removes_what_is_over(tmp_path: Path) -> None:
    root = make_root(tmp_path, VIDEOS)
    pack(root, shard_bytes=1)
    assert_whole(root, VIDEOS, shard_count=12)
    report = pack(root, shard_bytes=1 << 30, move=True)
    assert_whole(root, VIDEOS, shard_count=1)
    assert len(report.shards_removed) == 11
    pack(root, shard_bytes=SHARD_BYTES)
    assert_whole(root, VIDEOS)


def test_move_deletes_clips_once_they_are_in_a_shard_and_not_before(tmp_path: Path) -> None:
    root = make_root(tmp_path, VIDEOS)
    report = pack(root, shard_bytes=SHARD_BYTES, move=True)
    assert report.num_moved == len(VIDEOS)
    assert list((root / "clips").rglob("*.h5")) == []
    assert set(packed_video_ids(root)) == set(VIDEOS)
    assert_whole(root, VIDEOS)
    assert pack(root, move=True).did_nothing


def test_a_pack_without_move_can_be_moved_later(tmp_path: Path) -> None:
    root = make_root(tmp_path, VIDEOS)
    pack(root)
    before = shards(root)
    assert pack(root, move=True).num_moved == len(VIDEOS)
    assert shards(root) == before
    assert_whole(root, VIDEOS)


def test_move_makes_room_before_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack that a full disk stopped is gone on with by --move: the clips of the shards that are there go first."""
    root = make_root(tmp_path, VIDEOS)
    pack(root, shard_bytes=SHARD_BYTES)
    before = shards(root)
    assert len(before) > 3
    for name in sorted(before)[2:]:
        (root / "shards" / name).unlink()
    packed = set(packed_video_ids(root))
    left = []

    def write(path: Path, *arguments: object, **options: object) -> int:
        left.append(sum(clip_path(root, video_id).exists() for video_id in packed))
        return write_shard(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("flowkit.shards.writer.write_shard", write)
    report = pack(root, move=True)
    assert left == [0] * (len(before) - 2)
    assert report.num_moved == len(VIDEOS)
    assert shards(root) == before


def test_move_keeps_the_clips_of_a_shard_that_was_damaged_since(tmp_path: Path) -> None:
    root = make_root(tmp_path, VIDEOS)
    pack(root)
    shard = root / "shards" / "shard-00000.h5"
    with ShardReader(shard) as reader:
        place = reader.clip(reader.video_ids[3])._layout.frames.start + 500
    data = bytearray(shard.read_bytes())
    data[place] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ShardFormatError, match="its clips are kept"):
        pack(root, move=True)
    assert len(list((root / "clips").rglob("*.h5"))) == len(VIDEOS)
    shard.unlink()
    pack(root, move=True)
    assert_whole(root, VIDEOS)


def test_move_deletes_a_clip_only_if_it_is_the_one_that_was_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something that knows of no locks replaces a clip after its shard was written."""
    root = make_root(tmp_path, VIDEOS)
    changed, gone = sorted(VIDEOS)[3:5]

    def write(path: Path, *arguments: object, **options: object) -> int:
        size = write_shard(path, *arguments, **options)  # type: ignore[arg-type]
        write_clip(clip_path(root, changed), changed, num_frames=14, seed=99)
        clip_path(root, gone).unlink()
        return size

    with monkeypatch.context() as patch:
        patch.setattr("flowkit.shards.writer.write_shard", write)
        report = pack(root, move=True)
    assert report.kept == (changed, gone)
    assert report.num_moved == len(VIDEOS) - 2
    with ShardReader(clip_path(root, changed)) as reader:
        assert reader.clip(changed).num_frames == 14
    again = pack(root, move=True)
    assert (again.num_moved, again.kept) == (1, ())
    with ShardReader(packed_video_ids(root)[changed]) as reader:
        assert reader.clip(changed).num_frames == 14


def test_videos_of_any_manifest_that_are_gone_are_named_and_nothing_is_changed(tmp_path: Path) -> None:
    root = make_root(tmp_path, VIDEOS)
    pack(root, shard_bytes=SHARD_BYTES, move=True)
    pack(root, split=2)
    (root / "shards" / "shard-00001.h5").unlink()
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    first = members(root)[0]
    gone = sorted(set(VIDEOS) - {video_id for shard in members(root) for video_id in shard})
    with pytest.raises(ManifestError, match=rf"{len(gone)} videos of earlier manifests are gone.*{gone[0]}.*--allow-missing"):
        pack(root, split=3)
    result = run_flowkit("pack", "--data", root)
    assert (result.code, gone[0] in result.err) == (1, True)
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert run("--data", str(root), "--allow-missing").code == 0
    assert {record.video_id for record in Dataset.open(root).split(2)} == set(VIDEOS) - set(gone)
    assert members(root)[0][: len(first)] == first


# -- killed ------------------------------------------------------------------------------------------------------------------------


class KilledError(BaseException):
    """Stands for a kill: nothing in the code catches it."""


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("move", [False, True])
def test_killed_at_any_step_nothing_is_lost_and_the_next_pack_repairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, move: bool, stride: int
) -> None:
    """Shards shift (a video is added at the front), and the run is killed before each step on disk, or before every fifth."""
    videos = dict(sorted(VIDEOS.items())[2:9])  # two of Jump, four of Run, one of Walk
    start = make_root(tmp_path / "start", videos)
    late = [video_id for video_id in videos if video_id.startswith("Jump")]
    for video_id in late:
        clip_path(start, video_id).rename(tmp_path / video_id.replace("/", "-"))
    pack(start, shard_bytes=SHARD_BYTES, move=move)
    clip_path(start, late[0]).parent.mkdir(exist_ok=True)
    for video_id in late:
        (tmp_path / video_id.replace("/", "-")).rename(clip_path(start, video_id))

    steps_left = 0

    def step() -> None:
        nonlocal steps_left
        steps_left -= 1
        if steps_left < 0:
            raise KilledError

    def stepping(target: object, name: str) -> None:
        whole = getattr(target, name)

        def wrapped(*arguments: object, **options: object) -> object:
            step()
            return whole(*arguments, **options)

        monkeypatch.setattr(target, name, wrapped)

    for name in ("replace", "unlink"):
        stepping(Path, name)
    killed = 0
    for num_steps in range(0, 200, stride):
        root = tmp_path / "run"
        steps_left = 1 << 30
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(start, root)
        steps_left = num_steps
        try:
            pack(root, move=move)
            finished = True
        except KilledError:
            finished = False
            killed += 1
        steps_left = 1 << 30
        if not finished:
            stored = set(packed_video_ids(root)) | {str(p.relative_to(root / "clips"))[:-3] for p in (root / "clips").rglob("*.h5")}
            state = shard_set.read_state(root)
            if not state.replacing:
                assert stored == set(videos)
            pack(root, move=move)
        assert_whole(root, videos)
        if finished:
            break
    assert finished
    assert killed > 10 // stride


def test_what_a_killed_pack_left_is_removed(tmp_path: Path) -> None:
    root = make_root(tmp_path, VIDEOS)
    pack(root)
    for name in ("shard-00000.h5.part", "shard-00001.h5.new", "shard-00001.h5.new.part"):
        (root / "shards" / name).write_bytes(b"half")
    assert pack(root).did_nothing
    assert_whole(root, VIDEOS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": "flowkit-pack", "format_version": 1, "shard_bytes": 5, "unsettled": ["../x"], "replacing": [], "removing": []}',
    ],
)
def test_a_state_that_is_not_flowkits_is_refused(tmp_path: Path, text: str) -> None:
    root = make_root(tmp_path, VIDEOS)
    (root / "shards").mkdir()
    (root / "shards" / "pack.json").write_text(text)
    with pytest.raises(ManifestError, match=r"pack\.json"):
        pack(root)


# -- what is refused ---------------------------------------------------------------------------------------------------------------


def test_clips_of_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    root = make_root(tmp_path, VIDEOS)
    for name, changes in {
        "quantiser": {"quantiser": {"bound": 15.0, "mapping": "symmetric"}},
        "tvl1": {"tvl1": {"tau": 0.5}},
        "solver": {"solver": "fast"},
        "codec": {"codec": "gzip"},
    }.items():
        write_clip(clip_path(root, "Walk/z"), "Walk/z", **changes)  # type: ignore[arg-type]
        with pytest.raises(ParameterError, match=rf"'Walk/z'.*{name}"):
            pack(root)
    assert shards(root) == {}


def test_a_damaged_clip_stops_the_pack_and_nothing_is_written(tmp_path: Path) -> None:
    root = make_root(tmp_path, VIDEOS)
    clip = clip_path(root, sorted(VIDEOS)[5])
    clip.write_bytes(clip.read_bytes()[:-100])
    with pytest.raises(ShardFormatError, match="truncated"):
        pack(root)
    assert shards(root) == {}


def test_a_renamed_clip_is_refused(tmp_path: Path) -> None:
    root = make_root(tmp_path, VIDEOS)
    clip_path(root, "Run/v_Run_g01_c01").rename(clip_path(root, "Run/other"))
    with pytest.raises(ShardFormatError, match="cannot be renamed"):
        pack(root)


def test_what_is_no_root_or_holds_no_clip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="not a data root"):
        pack(tmp_path)
    with pytest.raises(ManifestError, match="no clip yet"):
        pack(make_root(tmp_path, {}))


# -- splits ------------------------------------------------------------------------------------------------------------------------


def test_without_lists_the_split_is_automatic_and_said_so(tmp_path: Path) -> None:
    root = make_root(tmp_path, VIDEOS)
    result = run("--data", root)
    assert "split 1 is automatic" in result.err
    split = Dataset.open(root).split(1)
    assert (split.protocol, split.classes) == ("automatic", CLASSES)
    assert {record.class_name for record in split.test} == set(CLASSES)
    assert len(split.train) + len(split.test) == len(VIDEOS)
    assert "| train" in result.out


def test_lists_around_the_videos_are_found(tmp_path: Path) -> None:
    names = sorted(VIDEOS)
    write_lists(tmp_path / "lists", 1, [*names[:6], "Run/absent"], names[6:10])
    root = make_root(tmp_path, VIDEOS)
    report = pack(root)
    assert report.lists == tmp_path / "lists"
    assert [record.video_id for record in report.split.train] == names[:6]
    assert [record.video_id for record in report.split.test] == names[6:10]
    assert [entry.video_id for entry in report.matched.missing_train] == ["Run/absent"]
    assert report.matched.unlisted == tuple(names[10:])
    assert report.matched.untrained_classes == ("Walk",)
    assert (report.split.num_listed_train, report.split.num_listed_test) == (7, 4)
    said = run("--data", root).err
    assert "Run/absent" in said
    assert "test classes without a training video: 1 (Walk)" in said


def test_another_split_writes_manifests_only(tmp_path: Path) -> None:
    names = sorted(VIDEOS)
    write_lists(tmp_path / "lists", 1, names[::2], names[1::2])
    write_lists(tmp_path / "lists", 2, names[1::2], names[::2])
    root = make_root(tmp_path, VIDEOS)
    pack(root, split=1)
    before = {path: path.stat().st_mtime_ns for path in [*(root / "shards").iterdir(), *split_folder(root, 1).iterdir()]}
    result = run("--data", root, "--split", 2)
    assert "only manifests were written" in result.err
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [record.video_id for record in Dataset.open(root).split(2).train] == names[1::2]


def test_new_clips_renew_every_split(tmp_path: Path) -> None:
    names = sorted(VIDEOS)
    write_lists(tmp_path / "lists", 1, names[::2], names[1::2])
    write_lists(tmp_path / "lists", 2, names[1::2], names[::2])
    root = make_root(tmp_path, dict.fromkeys(names[3:], 12))
    pack(root, split=1, shard_bytes=SHARD_BYTES)
    pack(root, split=2)
    csv = tmp_path / "own.csv"
    csv.write_text("video_id,class_name,subset\n" + "".join(f"{name},all,train\n" for name in names[4:8]))
    pack(root, split=3, lists=csv)
    shutil.rmtree(root / "clips")
    for seed, name in enumerate(names):
        write_clip(clip_path(root, name), name, seed=seed)
    report = pack(root, split=1)
    assert report.splits_written == (1, 2, 3)
    assert_whole(root, VIDEOS)
    assert [record.video_id for record in Dataset.open(root).split(2).train] == names[1::2]
    assert [record.video_id for record in Dataset.open(root).split(3).train] == names[4:8]


def test_lists_of_another_folder_do_not_change_an_earlier_split(tmp_path: Path) -> None:
    names = sorted(VIDEOS)
    write_lists(tmp_path / "lists", 1, names[::2], names[1::2])
    root = make_root(tmp_path, VIDEOS)
    first = pack(root, split=1).split
    write_lists(tmp_path / "deep" / "er" / "own", 1, names[1::2], names[::2])
    write_lists(tmp_path / "deep" / "er" / "own", 2, names[:5], names[5:])
    assert pack(root, split=2, lists=tmp_path / "deep" / "er" / "own").splits_written == (2,)
    assert Dataset.open(root).split(1) == first


def test_videos_too_short_for_a_stack_are_left_out_and_named(tmp_path: Path) -> None:
    videos = VIDEOS | {"Run/short": 10, "Run/just": 11}
    root = make_root(tmp_path, videos)
    csv = tmp_path / "own.csv"
    csv.write_text("video_id,class_name,subset\nRun/short,Run,train\nRun/just,Run,test\n")
    result = call_flowkit("pack", "--data", root, "--lists", csv, code=1)  # no training video is left
    assert "left out because they are too short for a flow stack (11 frames): 1 (Run/short (10 frames))" in result.err
    split = Dataset.open(root).split(1)
    assert (split.train, [record.video_id for record in split.test]) == ((), ["Run/just"])
    assert_whole(root, videos)
    csv.write_text("video_id,class_name,subset\nRun/short,Run,train\n")
    with pytest.raises(ManifestError, match="11 frames"):
        pack(root, lists=csv)


def test_a_split_of_short_videos_only_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    root = make_root(tmp_path, {"Run/short": 10, "Walk/shorter": 5})
    before = sorted(root.rglob("*"))
    with pytest.raises(ManifestError, match="11 frames"):
        pack(root)
    assert sorted(path for path in root.rglob("*") if path.name != ".lock") == before


def test_several_folders_of_lists_are_a_usage_error_that_names_them(tmp_path: Path) -> None:
    names = sorted(VIDEOS)
    for folder in ("one", "two"):
        write_lists(tmp_path / folder, 1, names[:6], names[6:])
    root = make_root(tmp_path, VIDEOS)
    with pytest.raises(SeveralListsError):
        pack(root)
    result = CliRunner().invoke(command, ["pack", "--data", str(root)])
    assert result.exit_code == 2
    assert all(word in result.stderr for word in ("one", "two", "--lists"))
    assert run("--data", root, "--lists", tmp_path / "two").code == 0


def test_lists_that_match_no_clip_are_an_error(tmp_path: Path) -> None:
    write_lists(tmp_path / "lists", 1, ["Run/x"], ["Walk/y"])
    root = make_root(tmp_path, VIDEOS)
    for given in (None, tmp_path / "lists"):
        with pytest.raises(ManifestError, match="match no clip"):
            pack(root, lists=given)
    assert shards(root) == {}
    assert pack(root, lists="automatic").lists is None


def test_flat_folders_need_a_csv(tmp_path: Path) -> None:
    root = make_root(tmp_path, {"a": 12, "b": 12})
    with pytest.raises(ManifestError, match="--lists"):
        pack(root)
    csv = tmp_path / "own.csv"
    csv.write_text("video_id,class_name,subset\na,cats,train\nb,dogs,test\n")
    assert pack(root, lists=csv).split.classes == ("cats", "dogs")


@pytest.mark.parametrize("arguments", [["--shard-size", "0"], ["--shard-size", "big"], ["--lists", "nowhere.csv"], ["--split", "0"]])
def test_options_that_make_no_sense_are_usage_errors(tmp_path: Path, arguments: list[str]) -> None:
    root = make_root(tmp_path, {"a/b": 12})
    assert CliRunner().invoke(command, ["pack", "--data", str(root), *arguments]).exit_code == 2


@pytest.mark.parametrize(("text", "num_bytes"), [("1", 1), ("500MB", 500_000_000), ("1GiB", 1 << 30), ("1.5 gib", 3 << 29), ("2k", 2000)])
def test_shard_sizes_are_read_as_people_write_them(tmp_path: Path, text: str, num_bytes: int) -> None:
    root = make_root(tmp_path, {"a/b": 12, "a/c": 12, "d/e": 12, "d/f": 12})
    assert run("--data", root, "--shard-size", text).code == 0
    if num_bytes != shard_set.DEFAULT_SHARD_BYTES:
        assert json.loads((root / "shards" / "pack.json").read_text())["shard_bytes"] == num_bytes


def test_names_of_any_kind_are_packed(tmp_path: Path) -> None:
    names = ['quo"te', "two\nlines", "🏃 [red]x[/red]", "<script>", "-rf", "a.b.c", " space ", "é" * 100, "A", "a"]
    names += [".hidden", "folder.h5"]
    videos = {f"{folder}/{name}": 12 for folder, name in zip([*names, "..x"], [*names, "..."], strict=True)}
    root = make_root(tmp_path, videos)
    (root / "clips" / ".index").mkdir()
    (root / "clips" / ".index" / "x.h5").write_bytes(b"not a clip")
    assert verify(root) == []
    assert (describe_root(root).num_clip_files, describe_root(root).unreadable) == (len(videos), ())
    pack(root, move=True)
    assert_whole(root, videos)
    split = Dataset.open(root).split(1)
    assert {record.video_id for record in (*split.train, *split.test)} == set(videos)


def test_a_second_process_does_not_pack_the_same_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_root(tmp_path, VIDEOS)
    stages = []

    def pack_too(progress: StageProgress, stage: str, *counts: float, unit: str) -> None:
        stages.append(stage)
        with pytest.raises(BusyError, match="packs"):
            pack(root, move=True)

    monkeypatch.setattr(StageProgress, "update", pack_too)
    pack(str(root), move=True)
    assert set(stages) == {"pack: reading clips", "pack: writing shards"}
    assert_whole(root, VIDEOS)


def test_numbers_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for numbers in ({"split": 0}, {"shard_bytes": 0}):
        with pytest.raises(ParameterError, match="at least 1"):
            pack(tmp_path, **numbers)


def test_a_shard_that_holds_videos_of_another_root_is_found_out(tmp_path: Path) -> None:
    root = make_root(tmp_path, VIDEOS)
    write_clip(tmp_path / "x.h5", "Run/x", solver="fast")
    (root / "shards").mkdir()
    write_shard(root / "shards" / "shard-00000.h5", [tmp_path / "x.h5"])
    with pytest.raises(ParameterError, match="solver"):
        pack(root)
