"""Exported trees: read by code written from mmaction2's documented layout, exact with PNG, never outside their folder."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from command_lines import run_flowkit
from shard_files import make_smooth_root

from flowkit.dataset.clips import ClipSource, find_clips
from flowkit.dataset.progress import ProgressBar
from flowkit.dataset.root import Dataset
from flowkit.errors import BusyError, ParameterError
from flowkit.exchange.export_trees import ExportReport, export
from flowkit.exchange.flow_images import convert
from flowkit.exchange.image_runs import missing_numbers
from flowkit.exchange.layouts import folder_name
from flowkit.exchange.record import RECORD_NAME
from flowkit.locks import exclusive_lock
from flowkit.quantise import Quantiser

run = partial(run_flowkit, "export")


@dataclass
class RawframeDataset:
    """What mmaction2's RawframeDataset and RawFrameDecode document, in the words of its documentation and nothing else.

    An annotation file has on each line the directory of a video's frames, its total frames and its label, cut at white space.
    Images lie under data_prefix; RGB names are filename_tmpl.format(index), flow names filename_tmpl.format('x' or 'y', index);
    indices begin at start_index, which is 1.
    """

    ann_file: Path
    data_prefix: Path
    filename_tmpl: str
    modality: str
    start_index: int = 1

    def __len__(self) -> int:
        return len(self.ann_file.read_text().splitlines())

    def __getitem__(self, number: int) -> dict[str, Any]:
        frame_dir, total_frames, label = self.ann_file.read_text().splitlines()[number].strip().split()
        folder, images = self.data_prefix / frame_dir, []
        for index in range(self.start_index, self.start_index + int(total_frames)):
            if self.modality == "RGB":
                images.append(cv2.imread(str(folder / self.filename_tmpl.format(index)), cv2.IMREAD_COLOR))
            else:
                for axis in ("x", "y"):
                    images.append(cv2.imread(str(folder / self.filename_tmpl.format(axis, index)), cv2.IMREAD_GRAYSCALE))
        assert all(image is not None for image in images)
        return {"imgs": np.stack(images), "label": int(label), "frame_dir": frame_dir}


@pytest.mark.parametrize("flow", ["jpeg", "png"])
def test_an_mmaction2_reader_finds_the_frames_flow_and_labels_of_a_split(packed_root: Path, tmp_path: Path, flow: Any) -> None:
    report = export(packed_root, tmp_path / "out", layout="rawframes", flow=flow, split=1)
    assert (report.num_done, report.failed) == (18, ())
    split = Dataset.open(packed_root).split(1)
    suffix = {"jpeg": "jpg", "png": "png"}[flow]
    with ClipSource(find_clips(packed_root)) as source:
        for subset, records in (("train", split.train), ("test", split.test)):
            ann = tmp_path / "out" / f"{subset}_split_1"
            rgb = RawframeDataset(Path(f"{ann}_rgb.txt"), tmp_path / "out" / "rawframes", "img_{:05}.jpg", "RGB")
            fields = RawframeDataset(Path(f"{ann}_flow.txt"), tmp_path / "out" / "rawframes", f"flow_{{}}_{{:05d}}.{suffix}", "Flow")
            assert len(rgb) == len(fields) == len(records)
            for number, record in enumerate(records):
                clip = source.clip(record.video_id)
                video, motion = rgb[number], fields[number]
                assert video["frame_dir"] == motion["frame_dir"] == record.video_id
                assert video["label"] == motion["label"] == record.label
                assert (video["imgs"][..., ::-1] == clip.frames(range(clip.num_frames))).all()
                q = clip.flow(0, clip.num_frames - 1).reshape(-1, 40, 56)
                if flow == "png":
                    assert (motion["imgs"] == q).all()
                else:
                    assert np.abs(motion["imgs"].astype(int) - q).mean() < 3
    assert (tmp_path / "out" / "classes.txt").read_text().splitlines() == list(split.classes)
    assert not list((tmp_path / "out").rglob("*.part"))


def test_gpu_flow_and_denseflow_trees_have_their_names_and_first_numbers(tmp_path: Path) -> None:
    root = make_smooth_root(tmp_path / "root", ["run/a"], num_frames=3)
    export(root, tmp_path / "gpu", layout="gpu_flow")
    export(root, tmp_path / "dense", layout="denseflow")
    images = {folder: sorted(p.relative_to(tmp_path).as_posix() for p in (tmp_path / folder).rglob("*.jpg")) for folder in ("gpu", "dense")}
    assert images["gpu"] == [
        *(f"gpu/rgb/run/a/frame00000{k}.jpg" for k in (1, 2, 3)),
        *(f"gpu/u/run/a/frame00000{k}.jpg" for k in (1, 2)),
        *(f"gpu/v/run/a/frame00000{k}.jpg" for k in (1, 2)),
    ]
    assert images["dense"] == [
        *(f"dense/denseflow/run/a/flow_{axis}_0000{k}.jpg" for axis in "xy" for k in (0, 1)),
        *(f"dense/denseflow/run/a/img_0000{k}.jpg" for k in (0, 1, 2)),
    ]


def test_flow_stored_as_jpeg_is_exported_as_the_same_jpegs(tmp_path: Path) -> None:
    root = make_smooth_root(tmp_path / "root", ["run/a"], codec="jpeg")
    report = export(root, tmp_path / "out", layout="rawframes")
    with ClipSource(find_clips(root)) as source:
        stored = source.clip("run/a").encoded_flow(0, 4)
    folder = tmp_path / "out" / "rawframes" / "run" / "a"
    assert [(folder / f"flow_{axis}_0000{k}.jpg").read_bytes() for k in range(1, 5) for axis in "xy"] == stored
    assert report.max_error_px == 0


def test_the_stated_error_is_that_of_the_images(tmp_path: Path) -> None:
    root = make_smooth_root(tmp_path / "root", ["run/a"], num_frames=2)
    report = export(root, tmp_path / "out", layout="rawframes")
    folder = tmp_path / "out" / "rawframes" / "run" / "a"
    q = np.stack([cv2.imread(str(folder / f"flow_{axis}_00001.jpg"), cv2.IMREAD_GRAYSCALE) for axis in "xy"])
    with ClipSource(find_clips(root)) as source:
        error = np.abs(Quantiser().decode(q) - Quantiser().decode(source.clip("run/a").flow(0, 1)[0]))
    assert report.max_error_px == pytest.approx(float(error.max()))
    assert report.mean_error_px == pytest.approx(float(error.mean()))
    assert 0 < report.max_error_px < 2
    assert export(root, tmp_path / "png", layout="rawframes", flow="png").max_error_px == 0


@pytest.mark.parametrize(("own", "other"), [("symmetric", "paper"), ("paper", "symmetric")])
def test_converting_the_mapping_costs_at_most_half_a_step_and_no_motion_stays_none(own: Any, other: Any) -> None:
    q = np.arange(1, 256, dtype=np.uint8)
    converted = convert(q, Quantiser(20, own), Quantiser(20, other))
    error = np.abs(Quantiser(20, other).decode(converted) - Quantiser(20, own).decode(q))
    assert np.delete(error, 127).max() <= Quantiser(20, other).max_error_px
    assert converted[127] == 128


def test_paper_mapping_is_written_on_request_and_recorded(tmp_path: Path) -> None:
    root = make_smooth_root(tmp_path / "root", ["run/a"])
    export(root, tmp_path / "out", layout="gpu_flow", flow="png", mapping="paper")
    with ClipSource(find_clips(root)) as source:
        q = source.clip("run/a").flow(0, 1)
    image = cv2.imread(str(tmp_path / "out" / "u" / "run" / "a" / "frame000001.png"), cv2.IMREAD_GRAYSCALE)
    assert (image == convert(q, Quantiser(20), Quantiser(20, "paper"))[0, 0]).all()
    assert json.loads((tmp_path / "out" / "flowkit-export.json").read_text())["settings"]["quantiser"]["mapping"] == "paper"


HOSTILE = [
    "a b/c d",
    "-rf/x",
    "%2e%2e/%2E%2E",
    "日本/動画 🎬",
    "x/new\nline",
    "x/[b]",
    "x/<script>",
    "x/'quote\"",
    "x/tab\tstop",
    "x",
    "x/" + "\t" * 90,
]


def test_hostile_ids_stay_inside_and_come_apart_again_in_the_lists(tmp_path: Path) -> None:
    root = make_smooth_root(tmp_path / "root", HOSTILE, num_frames=2)
    before = sorted(tmp_path.rglob("*"))
    code, _, err = run("--data", root, "--layout", "rawframes", "--output", tmp_path / "out")
    assert code == 0, err
    outside = [path for path in tmp_path.rglob("*") if tmp_path / "out" not in (path, *path.parents)]
    assert sorted(outside) == before
    rgb = RawframeDataset(tmp_path / "out" / "all_rgb.txt", tmp_path / "out" / "rawframes", "img_{:05}.jpg", "RGB")
    assert len(rgb) == len(HOSTILE) - 1, "a video in no folder has no label"
    assert all(len(rgb[k]["imgs"]) == 2 for k in range(len(rgb)))
    assert len({rgb[k]["frame_dir"] for k in range(len(rgb))}) == len(rgb)


def test_folders_of_different_ids_differ_and_have_no_white_space() -> None:
    ids = ["a b", "a%20b", "a%2520b", "a\u00a0b", "a\nb", "a/b", "é" * 100 + "\t" * 20]
    names = [folder_name(video_id) for video_id in ids]
    assert len(set(names)) == len(ids)
    assert all(len(name.split()) == 1 and name.isprintable() for name in names)
    assert all(len(part.encode()) <= 240 for name in names for part in name.split("/"))
    assert folder_name("ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01") == "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01"


def test_a_folder_that_holds_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    root = make_smooth_root(tmp_path / "root", ["run/a"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    code, _, err = run("--data", root, "--layout", "rawframes", "--output", tmp_path / "mine")
    assert code == 1
    assert "neither empty nor an export of flowkit" in err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_another_export_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    root = make_smooth_root(tmp_path / "root", ["run/a"])
    export(root, tmp_path / "out", layout="rawframes")
    for changed in ({"layout": "gpu_flow"}, {"layout": "rawframes", "flow": "png"}, {"layout": "rawframes", "mapping": "paper"}):
        with pytest.raises(ParameterError, match="other options"):
            export(root, tmp_path / "out", **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", ["rawframes", "gpu_flow"])
def test_an_export_that_was_stopped_is_finished_and_equals_one_in_one_go(
    tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_smooth_root(tmp_path / "root", ["run/a", "run/b", "run/b/c", "walk/d"], num_frames=3)
    export(root, tmp_path / "whole", layout=layout)

    class Stop(Exception):
        pass

    def stop(bar: ProgressBar, done: float) -> None:
        bar.done = done
        if done == 2:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(ProgressBar, "advance", lambda bar: stop(bar, bar.done + 1))
        with pytest.raises(Stop):
            export(root, tmp_path / "out", layout=layout)
    assert not json.loads((tmp_path / "out" / "flowkit-export.json").read_text())["complete"]
    report = export(root, tmp_path / "out", layout=layout)
    assert (report.num_done, report.num_skipped) == (2, 2)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no fcntl")
def test_two_exports_to_one_folder_exclude_each_other(tmp_path: Path) -> None:
    root, output = make_smooth_root(tmp_path / "root", ["a/1"]), tmp_path / "out"
    output.mkdir()
    with exclusive_lock(output / ".export.lock", "exports to 'out'"), pytest.raises(BusyError, match="another process exports to 'out'"):
        export(root, output, layout="denseflow")
    assert list(output.iterdir()) == []
    (output / ".export.lock").touch()  # left by a killed process
    export(root, output, layout="denseflow")
    assert not (output / ".export.lock").exists()


def test_an_export_removes_the_temporary_files_of_killed_ones_and_no_others(tmp_path: Path) -> None:
    root, output = make_smooth_root(tmp_path / "root", ["a/1"]), tmp_path / "out"
    export(root, output, layout="webdataset")
    before = contents(output)
    for name in ("all-000000.tar.part", "all-000000.tar.node7-0123abcd-77-89abcdef.part", "classes.txt.part", "mine.part"):
        (output / name).write_bytes(b"half")
    export(root, output, layout="webdataset")
    assert contents(output) == {**before, "mine.part": b"half"}


def test_an_export_that_was_killed_while_it_wrote_its_first_record_begins_again(tmp_path: Path) -> None:
    root, output = make_smooth_root(tmp_path / "root", ["a/1"]), tmp_path / "out"
    output.mkdir()
    (output / ".export.lock").touch()
    (output / f"{RECORD_NAME}.node7-0123abcd-77-89abcdef.part").write_bytes(b"half")
    (output / "classes.txt.node7-0123abcd-77-89abcdef.part").write_bytes(b"another's")
    with pytest.raises(ParameterError, match="neither empty nor an export"):
        export(root, output, layout="denseflow")
    (output / "classes.txt.node7-0123abcd-77-89abcdef.part").unlink()
    export(root, output, layout="denseflow")
    export(root, tmp_path / "whole", layout="denseflow")
    assert contents(output) == contents(tmp_path / "whole")


def damage(root: Path, video_id: str) -> bytes:
    """Flip bits in the middle of a clip's frames; return what was there."""
    path = root / "clips" / f"{video_id}.h5"
    whole = path.read_bytes()
    with ClipSource(find_clips(root)) as source:
        start = source.clip(video_id)._layout.frames.start
    path.write_bytes(whole[: start + 300] + bytes([whole[start + 300] ^ 255]) + whole[start + 301 :])
    return whole


@pytest.mark.parametrize("layout", ["rawframes", "webdataset"])
def test_a_damaged_clip_is_reported_the_others_are_written_and_it_follows_once_repaired(tmp_path: Path, layout: str) -> None:
    root = make_smooth_root(tmp_path / "root", ["run/a", "run/b", "run/c"])
    export(root, tmp_path / "whole", layout=layout)
    whole = damage(root, "run/b")
    code, out, err = run("--data", root, "--layout", layout, "--output", tmp_path / "out")
    assert code == 3
    assert "exported 2 videos" in out
    assert "run/b" in err
    assert "CRC" in err
    (root / "clips" / "run" / "b.h5").write_bytes(whole)
    assert run("--data", root, "--layout", layout, "--output", tmp_path / "out")[0] == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("layout", ["rawframes", "gpu_flow", "webdataset"])
def test_an_export_run_again_after_the_clips_changed_equals_a_new_one(tmp_path: Path, layout: str) -> None:
    """Videos are added before and after the one that was there, and that one is extracted again and shorter."""

    def same() -> ExportReport:
        report = export(root, tmp_path / "out", layout=layout, shard_bytes=1)  # a tar a video
        shutil.rmtree(tmp_path / "new", ignore_errors=True)
        export(root, tmp_path / "new", layout=layout, shard_bytes=1)
        assert contents(tmp_path / "out") == contents(tmp_path / "new")
        return report

    root = make_smooth_root(tmp_path / "root", ["run/b"], num_frames=5)
    assert same().num_done == 1
    make_smooth_root(root, ["run/a", "run/c"])
    assert same().num_done == (3 if layout == "webdataset" else 2)  # tars are numbered
    make_smooth_root(root, ["run/b"], num_frames=4)
    report = same()
    assert (report.num_done, report.num_skipped) == (1, 2)
    if layout == "webdataset":
        (root / "clips" / "run" / "c.h5").unlink()
        assert same().num_done == 0
        assert export(root, tmp_path / "out", layout=layout).num_done == 2  # larger tars
        assert [path.name for path in sorted((tmp_path / "out").glob("*.tar"))] == ["all-000000.tar"]


def test_an_export_that_was_stopped_notices_what_changed_meanwhile(tmp_path: Path) -> None:
    root = make_smooth_root(tmp_path / "root", ["run/a"], num_frames=5)
    export(root, tmp_path / "out", layout="rawframes")
    (tmp_path / "out" / "flowkit-export.json").write_text(
        json.dumps(json.loads((tmp_path / "out" / "flowkit-export.json").read_text()) | {"complete": False, "videos": {}, "times": {}})
    )
    assert export(root, tmp_path / "out", layout="rawframes").num_skipped == 1
    make_smooth_root(root, ["run/a"], num_frames=3)
    (tmp_path / "out" / "flowkit-export.json").write_text(
        json.dumps(json.loads((tmp_path / "out" / "flowkit-export.json").read_text()) | {"complete": False, "videos": {}, "times": {}})
    )
    assert export(root, tmp_path / "out", layout="rawframes").num_done == 1
    export(root, tmp_path / "new", layout="rawframes")
    assert contents(tmp_path / "out") == contents(tmp_path / "new")


def samples_of(folder: Path, pattern: str) -> dict[str, dict[str, dict[str, bytes]]]:
    """WebDataset's rule: files of a tar that share the part before the first dot are one sample; the rest is the field's name."""
    found: dict[str, dict[str, dict[str, bytes]]] = {}
    for path in sorted(folder.glob(pattern)):
        samples = found.setdefault(path.name, {})
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, field = member.name.partition(".")
                content = tar.extractfile(member)
                assert content is not None
                samples.setdefault(key, {})[field] = content.read()
                assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
    return found


def test_webdataset_tars_hold_a_sample_a_video_with_its_label(packed_root: Path, tmp_path: Path) -> None:
    export(packed_root, tmp_path / "out", layout="webdataset", flow="png", split=1, shard_bytes=150_000)
    split = Dataset.open(packed_root).split(1)
    with ClipSource(find_clips(packed_root)) as source:
        for subset, records in (("train", split.train), ("test", split.test)):
            tars = samples_of(tmp_path / "out", f"{subset}-*.tar")
            assert len(tars) > 1
            samples = [sample for tar in tars.values() for sample in tar.values()]
            assert len({key for tar in tars.values() for key in tar}) == len(records)
            for record, sample in zip(records, samples, strict=True):
                clip = source.clip(record.video_id)
                about = json.loads(sample["json"])
                assert (about["video_id"], about["subset"], int(sample["cls"])) == (record.video_id, subset, record.label)
                assert about.get("times") == (None if clip.times is None else clip.times.tolist())
                assert [sample[f"frame{k:05d}.jpg"] for k in range(clip.num_frames)] == clip.encoded_frames(0, clip.num_frames)
                q = clip.flow(0, clip.num_frames - 1)
                for axis, name in enumerate("uv"):
                    images = [np.frombuffer(sample[f"{name}{k:05d}.png"], np.uint8) for k in range(clip.num_frames - 1)]
                    assert all((cv2.imdecode(i, cv2.IMREAD_UNCHANGED) == q[k, axis]).all() for k, i in enumerate(images))
                assert len(sample) == 2 + clip.num_frames + 2 * (clip.num_frames - 1)


def test_webdataset_tars_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    root = make_smooth_root(tmp_path / "root", ["run/a", "run/b c", "walk/d"])
    for name in ("one", "two"):
        export(root, tmp_path / name, layout="webdataset")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    report = export(root, tmp_path / "two", layout="webdataset")
    assert (report.num_done, report.num_skipped) == (0, 3)
    assert isinstance(report, ExportReport)


def test_a_root_without_clips_or_split_says_what_to_do(tmp_path: Path) -> None:
    root = make_smooth_root(tmp_path / "root", [])
    assert "flowkit extract" in run("--data", root, "--layout", "rawframes", "--output", tmp_path / "out")[2]
    root = make_smooth_root(tmp_path / "root", ["run/a"])
    code, _, err = run("--data", root, "--layout", "rawframes", "--output", tmp_path / "out", "--split", 1)
    assert code == 1
    assert "no split 1" in err


def test_gaps_are_named() -> None:
    assert missing_numbers([1, 2, 3]) == ""
    assert missing_numbers([1, 3, 4, 9]) == "2, 5-8"
    assert missing_numbers(list(range(0, 40, 2))).endswith("and 11 more")


def everything(folder: Path) -> dict[str, bytes | None]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("layout", ["rawframes", "gpu_flow", "denseflow"])
@pytest.mark.parametrize("where", ["top", "class", "video", "v of the video"])
def test_an_export_writes_and_deletes_nothing_behind_a_linked_folder(tmp_path: Path, layout: str, where: str) -> None:
    root = make_smooth_root(tmp_path / "root", ["run/a", "run/b", "walk/c"], num_frames=3)
    export(root, tmp_path / "out", layout=layout)
    top = {"rawframes": "rawframes", "gpu_flow": "v" if where == "v of the video" else "u", "denseflow": "denseflow"}[layout]
    linked = tmp_path / "out" / top / {"top": ".", "class": "run"}.get(where, "run/a")
    elsewhere = tmp_path / "elsewhere"
    linked.rename(elsewhere)
    linked.symlink_to(elsewhere)
    for path in elsewhere.rglob("*.jpg"):
        path.write_bytes(b"somebody else's")
    make_smooth_root(root, ["run/a", "run/b", "walk/c"], num_frames=4)  # every video is newer than its images
    before = everything(elsewhere)
    code, _, err = run("--data", root, "--layout", layout, "--output", tmp_path / "out")
    assert code == 3
    assert "is a link, and nothing is written behind it" in " ".join(err.split())
    assert everything(elsewhere) == before
    linked.unlink()
    assert run("--data", root, "--layout", layout, "--output", tmp_path / "out")[0] == 0
    assert everything(elsewhere) == before


def test_linked_images_records_lists_and_tars_are_replaced_and_their_targets_stay(tmp_path: Path) -> None:
    root = make_smooth_root(tmp_path / "root", ["run/a"], num_frames=3)
    for layout, name in (("rawframes", "rawframes/run/a/img_00001.jpg"), ("webdataset", "all-000000.tar")):
        out, aside = tmp_path / layout, tmp_path / f"aside-{layout}"
        export(root, out, layout=layout)
        whole = contents(out)
        aside.mkdir()
        for linked in (name, "flowkit-export.json", "classes.txt"):
            target = aside / Path(linked).name
            (out / linked).rename(target)
            (out / linked).symlink_to(target)
        before = everything(aside)
        assert export(root, out, layout=layout).num_done == 1
        assert contents(out) == whole
        assert not any(path.is_symlink() for path in out.rglob("*"))
        assert everything(aside) == before


def test_an_export_deletes_only_images_from_the_folder_of_a_video(tmp_path: Path) -> None:
    root = make_smooth_root(tmp_path / "root", ["run/a"], num_frames=5)
    export(root, tmp_path / "out", layout="rawframes")
    notes = tmp_path / "out" / "rawframes" / "run" / "a" / "notes.txt"
    notes.write_text("mine")
    make_smooth_root(root, ["run/a"], num_frames=3)
    assert export(root, tmp_path / "out", layout="rawframes").num_done == 1
    assert notes.read_text() == "mine"
    assert not (notes.parent / "img_00005.jpg").exists()
