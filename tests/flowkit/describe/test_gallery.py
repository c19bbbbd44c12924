"""The gallery as a folder: what is drawn, reused, removed and left alone, and what remains of a run that was stopped."""

from __future__ import annotations

import doctest
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from command_lines import Ended, run_flowkit
from shard_files import write_clip

from flowkit.dataset.clips import find_clips
from flowkit.dataset.paths import clip_path
from flowkit.dataset.root import Dataset
from flowkit.describe import gallery
from flowkit.describe.gallery import plan_gallery
from flowkit.describe.gallery_files import GalleryFolder, pictures_name
from flowkit.describe.gallery_pictures import MOST_BYTES
from flowkit.describe.gallery_videos import find_videos
from flowkit.errors import ParameterError

pytestmark = pytest.mark.usefixtures("kept_workers")

PICTURE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}\.(jpg|webm)")


def draw(root: Path, *options: object) -> Ended:
    return run_flowkit("inspect", "--gallery", "--data", root, "--jobs", 1, *options)


def read_page(folder: Path) -> list[dict[str, Any]]:
    """Return the videos that the page of a gallery shows."""
    text = (folder / "index.html").read_text(encoding="utf-8")
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert match is not None
    videos: list[dict[str, Any]] = json.loads(match[1])["videos"]
    return videos


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def expected_names(folder: Path) -> set[str]:
    """Return what a gallery consists of, as its page says."""
    pictures = [video["pictures"]["name"] for video in read_page(folder) if "pictures" in video]
    return {"index.html", "gallery.json", *(f"pictures/{name}{suffix}" for name in pictures for suffix in (".jpg", ".webm"))}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, packed_root: Path) -> Path:
    """A data root with its gallery. Treat it as read-only."""
    root = tmp_path_factory.mktemp("drawn") / "root"
    shutil.copytree(packed_root, root)
    assert draw(root).code == 0
    return root


@pytest.fixture
def own(drawn: Path, tmp_path: Path) -> Path:
    """The same for a test that changes it."""
    return Path(shutil.copytree(drawn, tmp_path / "own"))


def test_the_folder_holds_the_page_its_record_and_two_small_files_for_each_video(drawn: Path) -> None:
    folder = drawn / "reports" / "gallery"
    videos = read_page(folder)
    assert len(videos) == 18
    assert names_in(folder) == expected_names(folder)
    assert len(names_in(folder)) == 2 + 2 * 18
    for video in videos:
        still, film = (folder / "pictures" / f"{video['pictures']['name']}{suffix}" for suffix in (".jpg", ".webm"))
        assert PICTURE.fullmatch(still.name)
        assert PICTURE.fullmatch(film.name)
        assert 0 < still.stat().st_size + film.stat().st_size <= MOST_BYTES


def test_the_command_says_size_and_time_first_and_the_page_last(packed_root: Path, tmp_path: Path) -> None:
    ended = draw(packed_root, "--output", tmp_path / "out")
    assert ended.code == 0
    forecast = re.search(r"gallery: 18 videos to draw; (\d[\d.]*) kB on disk, about .* with 1 process", ended.err)
    assert forecast is not None
    assert ended.err.index(forecast[0]) < ended.err.index("gallery: drawing")
    assert "gallery: 18 videos (18 drawn, 0 there already), " in ended.out
    assert ended.out.splitlines()[-1] == str(tmp_path / "out" / "index.html")
    pictures = sum(path.stat().st_size for path in (tmp_path / "out" / "pictures").iterdir())
    assert float(forecast[1]) == pytest.approx(pictures / 1000, rel=0.3)


def test_a_gallery_lies_with_the_reports_wherever_they_are(own: Path, tmp_path: Path) -> None:
    shutil.rmtree(own / "shards")
    shutil.rmtree(own / "splits")
    write_clip(clip_path(own, "new/a"), "new/a")
    for path in (own / "clips").glob("colour*"):
        shutil.rmtree(path)
    assert draw(own, "--reports", tmp_path / "elsewhere").code == 0
    assert names_in(tmp_path / "elsewhere") == {f"gallery/{name}" for name in expected_names(tmp_path / "elsewhere" / "gallery")}


def test_a_dry_run_writes_nothing_and_says_what_a_run_would_draw(packed_root: Path, own: Path, tmp_path: Path) -> None:
    ended = draw(packed_root, "--output", tmp_path / "out", "--dry-run")
    assert ended.code == 0
    assert re.fullmatch(r"gallery: 18 videos to draw; .* kB on disk, about .* with 1 process; nothing was written\n", ended.out)
    assert not (tmp_path / "out").exists()
    write_clip(clip_path(own, "new/a"), "new/a")
    values = json.loads(draw(own, "--dry-run", "--json").out)
    assert (values["num_videos"], values["num_to_draw"], values["num_reused"]) == (19, 1, 18)
    assert values["seconds"] > 0, "also of the few videos that the forecast itself draws"
    clip_path(own, "new/a").unlink()
    before = {name: (own / name).stat().st_mtime_ns for name in names_in(own)}
    values = json.loads(draw(own, "--dry-run", "--json").out)
    assert (values["num_videos"], values["num_to_draw"], values["num_reused"], values["seconds"]) == (18, 0, 18, 0)
    assert {name: (own / name).stat().st_mtime_ns for name in names_in(own)} == before


def test_a_second_run_draws_nothing_and_gives_the_same_page(own: Path) -> None:
    folder = own / "reports" / "gallery"
    assert draw(own).code == 0  # the page names the data root, which was copied
    before, page = {path: path.stat().st_mtime_ns for path in (folder / "pictures").iterdir()}, (folder / "index.html").read_bytes()
    ended = draw(own)
    assert (ended.code, "nothing to draw, the pictures of 18 videos are there" in ended.err) == (0, True)
    assert {path: path.stat().st_mtime_ns for path in (folder / "pictures").iterdir()} == before
    assert (folder / "index.html").read_bytes() == page


def test_only_what_is_new_changed_or_broken_is_drawn_and_what_is_gone_is_removed(own: Path) -> None:
    for name in ("new/a", "new/b"):
        write_clip(clip_path(own, name), name)
    assert "20 videos (2 drawn, 18 there already)" in draw(own).out
    folder = own / "reports" / "gallery"
    before = names_in(folder)
    write_clip(clip_path(own, "new/a"), "new/a", seed=5)
    clip_path(own, "new/b").unlink()
    broken = sorted(path for path in (folder / "pictures").iterdir() if path.name.startswith("v00"))[0]
    broken.write_bytes(b"")
    assert "19 videos (2 drawn, 17 there already, 2 removed)" in draw(own).out
    assert names_in(folder) == expected_names(folder)
    assert len(before - names_in(folder)) == 4, "the old pictures of both"
    assert broken.stat().st_size > 0


def test_the_sample_is_on_the_page_and_pictures_of_other_videos_stay_for_all(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = own / "reports" / "gallery"
    before = names_in(folder)
    monkeypatch.setattr(gallery, "SAMPLE_SIZE", 6)
    ended = draw(own)
    assert "6 videos (0 drawn, 6 there already)" in ended.out
    assert "A sample of 6 of 18 videos" in (folder / "index.html").read_text()
    assert len({video["class"] for video in read_page(folder)}) == 6
    assert names_in(folder) == before
    gallery_folder = GalleryFolder(folder)
    assert len(gallery_folder.facts) == 18
    on_page = {video["id"] for video in read_page(folder)}
    assert {gallery_folder.facts[name].video_id for name in gallery_folder.shown} == on_page, "reports link to these only"
    assert "18 videos (0 drawn, 18 there already)" in draw(own, "--all").out
    assert len(GalleryFolder(folder).shown) == 18


def test_a_run_that_was_stopped_leaves_the_page_as_it_was_and_the_next_goes_on(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = own / "reports" / "gallery"
    before = {name: (folder / name).read_bytes() for name in ("index.html",)}
    for k in range(6):
        write_clip(clip_path(own, f"new/{k}"), f"new/{k}", seed=k)
    with monkeypatch.context() as patch:
        stop_after(4, patch)
        ended = draw(own, "--all")
    assert ended.code == 130
    assert f"to resume: flowkit inspect --gallery --data {own} --jobs 1 --all" in ended.err
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert expected_names(folder) <= names_in(folder), "the earlier page has its pictures"
    assert "24 videos (2 drawn, 22 there already)" in draw(own, "--all").out
    assert names_in(folder) == expected_names(folder)


def test_a_first_run_that_was_stopped_leaves_no_page(packed_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_after(5, patch)
        assert draw(packed_root, "--output", tmp_path / "out").code == 130
    assert not (tmp_path / "out" / "index.html").exists()
    (tmp_path / "out" / "pictures" / "v00-0123456789abcdef.jpg").write_bytes(b"half a picture whose record was not written")
    assert "18 videos (13 drawn, 5 there already, 1 removed)" in draw(packed_root, "--output", tmp_path / "out").out
    assert names_in(tmp_path / "out") == expected_names(tmp_path / "out")


def stop_after(count: int, patch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C arrive after so many videos are drawn."""
    run_tasks, left = gallery.run_tasks, [count]

    def interrupted(*arguments: Any, **options: Any) -> Iterator[Any]:
        for outcome in run_tasks(*arguments, **options):
            yield outcome
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt

    patch.setattr(gallery, "run_tasks", interrupted)


def test_a_clip_that_cannot_be_drawn_is_named_and_on_the_page(own: Path) -> None:
    path = clip_path(own, "new/a")
    write_clip(path, "new/a")
    data = bytearray(path.read_bytes())
    start = data.index(b"\xff\xd8\xff")  # the first frame
    data[start + 300 : start + 320] = bytes(20)
    path.write_bytes(data)
    ended = draw(own)
    assert ended.code == 3
    assert "new/a" in ended.err
    (video,) = [video for video in read_page(own / "reports" / "gallery") if video["id"] == "new/a"]
    assert "it could not be drawn" in video["reason"]
    assert "pictures" not in video
    assert draw(own).code == 3, "it is tried again"


def test_a_video_that_failed_is_on_the_page_with_its_reason(own: Path) -> None:
    failed = [{"video_id": "jump/x", "status": "undecodable", "error": "no frame could be decoded"}]
    report = {"format": "flowkit-extract-report", "format_version": 1, "done": [], "skipped": [], "failed": failed}
    (own / "extract-report.json").write_text(json.dumps(report))
    assert draw(own).code == 0
    (video,) = [video for video in read_page(own / "reports" / "gallery") if video["status"] == "failed"]
    assert (video["id"], video["reason"]) == ("jump/x", "no frame could be decoded")


def test_a_folder_with_other_files_is_refused_and_left_as_it_is(packed_root: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "index.html").write_text("mine")
    ended = draw(packed_root, "--output", tmp_path / "out")
    assert ended.code == 1
    assert "holds 'index.html' and no gallery that flowkit made: choose a new or empty folder with --output DIR" in ended.err
    assert names_in(tmp_path / "out") == {"index.html"}


def test_files_that_others_put_into_a_gallery_stay(own: Path) -> None:
    folder = own / "reports" / "gallery"
    foreign = ("notes.txt", "pictures/holiday.jpg", "pictures/more/v00-0123456789abcdef.jpg", "pictures/v00.webm")
    for name in foreign:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    assert draw(own).code == 0
    assert names_in(folder) == expected_names(folder) | set(foreign)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
@pytest.mark.parametrize("name", ["pictures", "index.html"])
def test_nothing_is_written_or_deleted_behind_a_link(own: Path, tmp_path: Path, name: str) -> None:
    folder, elsewhere = own / "reports" / "gallery", tmp_path / "elsewhere"
    (folder / name).rename(elsewhere)
    (folder / name).symlink_to(elsewhere)
    before = sorted(elsewhere.iterdir()) if elsewhere.is_dir() else elsewhere.read_bytes()
    ended = draw(own)
    assert ended.code == 1
    assert "is a link, and nothing is written behind it" in ended.err
    assert (sorted(elsewhere.iterdir()) if elsewhere.is_dir() else elsewhere.read_bytes()) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record | {"format": "flowkit-demo"},
        lambda record: record | {"format_version": 99},
        lambda record: record | {"pictures": []},
        lambda record: record | {"shown": 7},
        lambda record: record | {"shown": [[]]},
        lambda record: record | {"pictures": {"../../x": {}}},
        lambda record: record | {"pictures": {name: facts | {"speed_px": -1} for name, facts in record["pictures"].items()}},
        lambda record: record | {"pictures": {name: facts | {"num_frames": "7"} for name, facts in record["pictures"].items()}},
    ],
)
def test_a_record_that_is_not_valid_is_refused(own: Path, change: Any) -> None:
    path = own / "reports" / "gallery" / "gallery.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ParameterError, match=r"gallery\.json"):
        GalleryFolder(path.parent)


def test_names_of_files_are_safe_and_different_for_every_clip() -> None:
    ids = [
        "a/x y",
        "a/x_y",
        "b/x_y",
        "a/X_y",
        "x/-rf",
        "x/.hidden",
        "x/con",
        "日本/動画 \U0001f600",
        "x/" + "é" * 100,
        "x/" + "n" * 200,
        "x/%s{}*?",
    ]
    names = [pictures_name(video_id, sha256) for video_id in ids for sha256 in ("0" * 64, "1" * 64)]
    assert len({name.casefold() for name in names}) == len(names)
    assert all(PICTURE.fullmatch(f"{name}.webm") for name in names)


def test_another_process_cannot_draw_the_same_gallery(own: Path) -> None:
    with GalleryFolder(own / "reports" / "gallery").writing():
        ended = draw(own)
    assert ended.code == 1
    assert "another process draws the gallery" in ended.err


def test_a_plan_opens_only_what_it_needs(packed_root: Path, tmp_path: Path) -> None:
    stored = find_clips(packed_root)
    videos, _ = find_videos(Dataset.open(packed_root), stored, split=1)
    plan = plan_gallery(videos, stored, GalleryFolder(tmp_path / "new"), most=5)
    assert len(plan.videos) == len(plan.names) == len(plan.tasks) == 5
    assert plan.num_reused == 0
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a VIDEO_ID, or --gallery"),
        (["a/b", "--gallery"], "leave out VIDEO_ID or --gallery"),
        (["a/b", "--all"], "--all would do nothing here: only --gallery shows many videos"),
        (["a/b", "--run", "x"], "--run would do nothing here"),
        (["--gallery", "--animation", "gif"], "--animation would do nothing here"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(packed_root: Path, arguments: list[str], message: str) -> None:
    ended = run_flowkit("inspect", *arguments, "--data", packed_root)
    assert ended.code == 2
    assert message in ended.err


def test_a_root_without_clips_says_what_to_do(own: Path) -> None:
    for name in ("shards", "clips", "splits"):
        shutil.rmtree(own / name)
    ended = draw(own)
    assert ended.code == 1
    assert f"holds no clips yet: run `flowkit extract VIDEOS --data {own}` first" in ended.err


def test_a_run_that_the_command_names_must_have_results_and_others_need_not(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert draw(own).code == 0
    monkeypatch.setenv("FLOWKIT_RUN", "another")  # for all commands
    assert draw(own).code == 0
    ended = draw(own, "--run", "slow")
    assert ended.code == 1
    assert f"{own / 'reports' / 'slow' / 'split1'} holds no results; make them with `flowkit evaluate" in ended.err
    shutil.rmtree(own / "splits")
    ended = draw(own, "--run", "slow")
    assert (ended.code, "--run needs a split, and none is packed yet" in ended.err) == (2, True)


def test_a_gallery_without_predictions_needs_no_torch(own: Path) -> None:
    code = (
        "import sys\nfrom flowkit.cli.main import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as ended:\n"
        "    print(ended.code, 'torch' in sys.modules)"
    )
    line = [sys.executable, "-c", code, "inspect", "--gallery", "--data", str(own)]
    assert subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()[-1] == "0 False"


@pytest.mark.parametrize("name", ["films", "gallery_files", "gallery_page", "gallery_pictures", "gallery_videos"])
def test_the_examples_in_docstrings_are_true(name: str) -> None:
    found = doctest.testmod(import_module(f"flowkit.describe.{name}"))
    assert found.attempted > 0
    assert found.failed == 0
