"""Frames without flow, and the flow added later: the bytes are those of one pass, and no flow is added to the frames of another file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cv2
import pytest
from command_lines import call_flowkit, run_flowkit
from odd_videos import truncate
from small_videos import SETTINGS, files_of, write_video
from worker_tasks import run_here

from flowkit import ExtractSettings, FlowMethod, ParameterError, Quantiser, Reading, ShardReader, extract, pack, read_frames, verify
from flowkit.dataset.clips import find_clips
from flowkit.dataset.root import Dataset
from flowkit.errors import NoFlowError
from flowkit.extraction.results import read_index

if TYPE_CHECKING:
    from flowkit.extraction.results import ExtractReport


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("flowkit.extraction.run", "flowkit.extraction.segments.resolving"):
        monkeypatch.setattr(f"{place}.run_tasks", run_here)


def write_videos(folder: Path) -> Path:
    """Two classes of two: lossless videos, one that was cut off, and a folder of pictures."""
    for k, name in enumerate(("Run/a", "Jump/c", "Jump/cut")):
        write_video(folder / f"{name}.mkv", 14 + k, seed=k)
    truncate(folder / "Jump" / "cut.mkv", 0.6)
    (folder / "Run" / "pictures").mkdir()
    frames = [frame for batch in read_frames(folder / "Run" / "a.mkv") for frame in batch.frames]
    for k, frame in enumerate(frames):
        cv2.imwrite(str(folder / "Run" / "pictures" / f"{k}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    return folder


def run(videos: Path, root: Path, settings: ExtractSettings | None, **options: Any) -> ExtractReport:
    return extract(videos, root, settings=settings, jobs=1, progress=False, **options)


def contents(root: Path) -> dict[str, object]:
    """All that a data root holds, without the times at which it was made."""
    names = ["dataset.json", *(str(path.relative_to(root)) for path in root.rglob("s*/*") if path.suffix in (".h5", ".csv", ".json"))]
    index = {name: replace(result, seconds=0) for name, result in read_index(root).items()}
    return {**files_of(root), **{name: (root / name).read_bytes() for name in sorted(set(names))}, "index": index}


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        replace(
            SETTINGS, reading=Reading(fps="20", frame_rate="25"), codec="jpeg", quantiser=Quantiser(15.0), method=FlowMethod.named("dis")
        ),
    ],
)
def test_frames_first_and_flow_later_are_the_bytes_of_one_pass(tmp_path: Path, settings: ExtractSettings) -> None:
    videos = write_videos(tmp_path / "videos")
    report = run(videos, tmp_path / "once", settings)
    assert (len(report.done), len(report.damaged), report.failed) == (4, 1, ())
    data = tmp_path / "twice"
    first = run(videos, data, settings.frames_only())
    assert (len(first.done), len(first.damaged), first.num_pairs) == (4, 1, 0)
    for path in (data / "clips").rglob("*.h5"):
        with ShardReader(path) as reader, ShardReader(tmp_path / "once" / path.relative_to(data)) as other:
            clip = reader.clip(reader.video_ids[0])
            whole = other.clip(clip.video_id)
            assert clip.encoded_frames(0, len(clip)) == whole.encoded_frames(0, len(clip))
            assert (clip.times is None) == (whole.times is None)
            with pytest.raises(NoFlowError, match="has frames without flow: add it with `flowkit extract VIDEOS`"):
                clip.flow(0, 1)
    assert verify(data) == []
    again = run(videos, data, None)  # goes on as the root was begun
    assert (len(again.done), len(again.skipped)) == (0, 4)
    second = run(videos, data, settings)
    assert (len(second.done), len(second.skipped), len(second.damaged)) == (4, 0, 1)
    assert contents(data) == contents(tmp_path / "once")
    for root in (data, tmp_path / "once"):
        pack(root, lists="automatic", progress=False)
    assert contents(data) == contents(tmp_path / "once")
    assert run(videos, data, settings).num_pairs == 0, "all are done"


def test_flow_is_added_to_frames_that_are_in_shards_only(tmp_path: Path) -> None:
    videos = write_videos(tmp_path / "videos")
    once, data = tmp_path / "once", tmp_path / "twice"
    run(videos, once, SETTINGS)
    pack(once, lists="automatic", progress=False)
    run(videos, data, SETTINGS.frames_only())
    packed = pack(data, lists="automatic", move=True, progress=False)
    assert (packed.num_videos, packed.num_moved) == (4, 4)
    assert verify(data, deep=True) == []
    assert len(run(videos, data, None).skipped) == 4

    (data / "clips" / ".index").rename(tmp_path / "index")  # as if the run had been killed before it noted anything
    assert len(run(videos, data, None).skipped) == 4
    run(videos / "Run" / "a.mkv", data, SETTINGS)  # one of them first
    assert Dataset.open(data).settings == SETTINGS
    assert find_clips(data).paths["Run/a"] == data / "clips" / "Run" / "a.h5"
    assert find_clips(data).paths["Jump/c"] == data / "shards" / "shard-00000.h5"
    with pytest.raises(NoFlowError, match=r"3 videos of .* have frames without flow so far: 'Jump/c'.* `flowkit extract .*videos"):
        pack(data, lists="automatic", progress=False)
    (problem,) = [problem for problem in verify(data) if "frames only" in problem.what]
    assert problem.path == data / "dataset.json"
    assert problem.what.endswith("; then pack again")

    assert len(run(videos, data, SETTINGS).done) == 3
    pack(data, lists="automatic", move=True, progress=False)
    pack(once, lists="automatic", move=True, progress=False)
    assert contents(data).keys() == contents(once).keys()
    differ = {name for name, value in contents(once).items() if value != contents(data)[name]}
    assert differ == set(), differ
    assert verify(data) == []


def test_segments_get_their_flow_later_too(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "game.mkv", 40)
    listed = tmp_path / "s.csv"
    listed.write_text("video_id,start_frame,end_frame\ngame,0,9\ngame,5,30\ngame,28,40\n")
    run(tmp_path / "videos", tmp_path / "once", SETTINGS, segments=listed)
    run(tmp_path / "videos", tmp_path / "twice", SETTINGS.frames_only(), segments=listed)
    (tmp_path / "twice" / "clips" / "game_0_9.h5").unlink()
    second = run(tmp_path / "videos", tmp_path / "twice", SETTINGS, segments=listed)
    assert [result.status for result in second.done] == ["ok"] * 3
    assert contents(tmp_path / "twice") == contents(tmp_path / "once")


@pytest.mark.parametrize("place", ["clip file", "shard", "segments"])
def test_no_flow_is_added_to_the_frames_of_another_file(tmp_path: Path, place: str) -> None:
    videos, data = tmp_path / "videos", tmp_path / "data"
    for k in range(4):
        write_video(videos / "Run" / f"v{k}.mkv", 13, seed=k)
    listed = None
    if place == "segments":
        listed = tmp_path / "s.csv"
        listed.write_text("video_id,start_frame,end_frame\n" + "".join(f"v{k},0,12\n" for k in range(4)))
    run(videos, data, SETTINGS.frames_only(), segments=listed)
    if place == "shard":
        pack(data, lists="automatic", move=True, progress=False)
    original = (videos / "Run" / "v1.mkv").read_bytes()
    write_video(videos / "Run" / "v1.mkv", 13, seed=9)
    before = files_of(data)
    for _ in range(2):
        report = run(videos, data, SETTINGS, segments=listed)
        (failed,) = report.failed
        assert failed.status == "failed"
        assert "v1.mkv' is not the file whose frames are stored (its SHA-256 differs), so no flow is added to them" in failed.error
        assert len(report.done) + len(report.skipped) == 3
    name = next((name for name in before if "v1" in name), None)
    assert name is None or files_of(data)[name] == before[name], "the frames are kept"
    (videos / "Run" / "v1.mkv").write_bytes(original)
    assert [result.status for result in run(videos, data, SETTINGS, segments=listed).done] == ["ok"]
    assert len(files_of(data)) == 4


def test_each_command_takes_frames_alone_or_says_what_adds_the_flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for k in range(6):
        write_video(tmp_path / "videos" / ("Run", "Jump")[k % 2] / f"v{k}.mkv", 13, seed=k)
    common = ("extract", "videos", "--short-side", 32, "--jobs", 1)
    planned = call_flowkit(*common, "--no-flow", "--dry-run", code=0)
    assert re.search(r"would extract 6 videos, about \d+ frames", planned.out)
    made = call_flowkit(*common, "--no-flow", code=0)
    assert "no flow, short side 32 px\n" in made.err
    assert "scenes: 0 flow fields across a cut" in made.err
    assert "78 frames in" in made.out
    assert json.loads(Path("flowkit-data/dataset.json").read_text())["settings"]["codec"] == "no-flow"
    assert "0 flow fields, solver no-flow" in call_flowkit("info", code=0).out
    call_flowkit("pack", code=0)
    assert "0 flow fields" in call_flowkit("info", code=0).out
    measured = call_flowkit("stats", code=0).out
    assert "flow: no flow" in measured
    assert "scenes: 0 flow fields across a cut" in measured
    call_flowkit("verify", code=0)
    adds = "`flowkit extract .*videos --short-side 32 --data flowkit-data`; then pack again"
    for line in (
        ("inspect", "Run/v0"),
        ("inspect", "--gallery"),
        ("export", "--layout", "rawframes", "--output", "out"),
        ("train", "--phase", "appearance"),
    ):
        with pytest.raises(NoFlowError, match=f"needs flow, and 'flowkit-data' has frames only: add the flow with {adds}"):
            call_flowkit(*line)
    assert {path.name for path in tmp_path.iterdir()} == {"videos", "flowkit-data"}
    for option in (("--bound", 10), ("--method", "dis"), ("--tvl1-tau", 0.2), ("--codec", "none")):
        with pytest.raises(click.UsageError, match=f"{option[0]} would do nothing here: --no-flow computes no flow"):
            call_flowkit(*common, "--no-flow", *option)
    with pytest.raises(ParameterError, match="short_side: 32, not 64"):
        call_flowkit("extract", "videos", "--short-side", 64)
    added = call_flowkit(*common, "--bound", 10, code=0)
    assert "flow is added to 6 videos whose frames are stored; they are decoded again" in added.err
    assert Dataset.open("flowkit-data").settings.quantiser.bound == 10
    ended = run_flowkit("inspect", "Run/v0", "--animation", "none")
    assert ended.code == 0, "the clip file is newer than the shard"
    call_flowkit("pack", code=0)
    call_flowkit("verify", code=0)
    with pytest.raises(ParameterError, match="has flow, so none can be added without it: leave out --no-flow"):
        call_flowkit(*common, "--no-flow")


def test_settings_without_flow_have_nothing_of_flow() -> None:
    plain = SETTINGS.frames_only()
    assert not plain.has_flow
    assert plain.frames_only() == plain
    assert ExtractSettings.from_dict(plain.to_dict()) == plain
    assert SETTINGS.differences(plain) == ["flow: stored, not none"]
    wrong: list[dict[str, Any]] = [{"codec": "zstd"}, {"solver": "strict"}, {"quantiser": Quantiser(3.0)}, {"camera_motion": "flow"}]
    for changes in wrong:
        with pytest.raises(ParameterError):
            replace(plain, **changes)


@pytest.mark.slow  # starts flowkit several times, and kills it
def test_a_run_that_is_killed_while_it_adds_flow_goes_on(tmp_path: Path) -> None:
    videos, data = tmp_path / "videos", tmp_path / "data"
    for k in range(12):
        write_video(videos / "Run" / f"v{k:02d}.mkv", 40, width=96, height=64, seed=k)
    settings = replace(SETTINGS, short_side=64)
    run(videos, tmp_path / "once", settings)
    line = [
        sys.executable,
        "-m",
        "flowkit",
        "extract",
        str(videos),
        "--short-side",
        "64",
        "--jobs",
        "2",
        "--data",
        str(data),
        "--device",
        "cpu",
    ]
    subprocess.run([*line[:-2], "--no-flow"], check=True, capture_output=True, timeout=600)
    num_kills = 0
    for _ in range(3):
        sizes = {name: len(data_of) for name, data_of in files_of(data).items()}
        with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and {name: len(data_of) for name, data_of in files_of(data).items()} == sizes:
                time.sleep(0.02)
            num_kills += process.poll() is None
            process.kill()
    assert num_kills >= 2
    subprocess.run(line, check=True, capture_output=True, timeout=600)
    assert files_of(data) == files_of(tmp_path / "once")
    assert verify(data) == []
