"""The tutorial shows what flowkit prints: its commands run on generated videos with the names and lengths of the real ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import Block, blocks_of, first_difference, run_page
from small_videos import write_video

TUTORIAL = Path(__file__).resolve().parents[1] / "docs" / "tutorial.md"
# The videos of UCF101 that the page was written with: class, group, number -> frames.
NUM_FRAMES = {
    "ApplyEyeMakeup": {"g01_c01": 164, "g01_c02": 123, "g01_c03": 259, "g01_c04": 235, "g01_c05": 296},
    "BabyCrawling": {"g18_c06": 180, "g19_c01": 94},
    "BenchPress": {"g01_c01": 151, "g01_c02": 180, "g01_c03": 104, "g01_c04": 105, "g01_c05": 88},
    "BrushingTeeth": {"g17_c02": 139, "g20_c03": 171},
    "HammerThrow": {"g10_c03": 172, "g23_c05": 139},
    "RopeClimbing": {"g01_c02": 170, "g04_c01": 155},
}
# Small networks and short trainings, and (below) small frames; nothing that is compared depends on them.
QUICK = """
device = "cpu"
jobs = 2
workers = 0
base_width = 4
input_size = 32
batch = 4
bn_group = 2
steps_per_phase = 2
"""


@pytest.mark.slow
def test_the_tutorial_shows_what_its_commands_print(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for class_name, videos in NUM_FRAMES.items():
        for number, (name, num_frames) in enumerate(videos.items()):
            write_video(tmp_path / "videos" / class_name / f"v_{class_name}_{name}.avi", num_frames, width=32, height=32, seed=number)
    (tmp_path / "flowkit.toml").write_text(QUICK)
    monkeypatch.chdir(tmp_path)
    run_page(TUTORIAL, {}, instead={"64": "32"})
    assert (tmp_path / "flowkit-data/reports/default/split1/report.html").is_file()


def test_the_videos_of_the_tutorial_are_those_of_its_list() -> None:
    (listed,) = [block.code for block in blocks_of(TUTORIAL) if block.file_name]
    assert {line.split(",")[0] for line in listed.splitlines()[1:]} == {
        f"{class_name}/v_{class_name}_{name}" for class_name, videos in NUM_FRAMES.items() for name in videos
    }


SHOWN = [
    "pack: 12/12 files in 3 s, 4.5 files/s",
    "| a | n |",
    "|---|--:|",
    "| b | 1 |",
    "| c | 2.5 |",
    "12 videos in 1 shard, 5.3 MB",
]


@pytest.mark.parametrize(
    ("printed", "differs"),
    [
        (SHOWN, False),
        ([line.replace("3 s", "1 min 20 s").replace("2.5", "17.25").replace("5.3 MB", "1.2 GB") for line in SHOWN], False),
        ([*SHOWN[:3], SHOWN[4], SHOWN[3], SHOWN[5]], False),
        (["pack: 3/12 files in 1 s, 4.0 files/s, 3 s left", *SHOWN], False),
        (["pack: 0/12 files in 10 s, 0.0 files/s", *SHOWN], False),
        ([SHOWN[0].replace("4.5 files/s", "1.7 s per file"), *SHOWN], False),
        ([line.replace("12 videos", "13 videos") for line in SHOWN], True),
        ([line.replace("shard", "file") for line in SHOWN], True),
        (SHOWN[:-1], True),
        ([*SHOWN, "one more line"], True),
        ([SHOWN[0], *SHOWN[3:]], True),
    ],
)
def test_output_is_compared_without_what_is_measured(printed: list[str], differs: bool) -> None:
    assert (first_difference(SHOWN, printed) is not None) is differs


def test_a_line_of_three_dots_stands_for_any_lines() -> None:
    assert first_difference(["a", "...", "d"], ["a", "b", "c", "d"]) is None
    assert first_difference(["a", "..."], ["a", "b"]) is None
    assert first_difference(["a", "...", "d"], ["a", "d", "e"]) is not None
    assert first_difference(["b", "..."], ["a", "b"]) is not None


@pytest.mark.parametrize(
    ("session", "complaint"),
    [
        ("$ flowkit pack --no-such-option\n", "ended with 2|No such option"),
        ("$ ls\n", "only lines of flowkit"),
        ("output first\n$ flowkit --version\n", "begins with output"),
        ("$ flowkit --version\nflowkat, version 0.1.0\n", "shown"),
        ("$ flowkit --version\nflowkit, version 0.1.0\n$ echo $?\n1\n", "exit code is 0"),
    ],
)
def test_a_session_that_is_wrong_is_found(tmp_path: Path, session: str, complaint: str) -> None:
    (tmp_path / "page.md").write_text(f"```console\n{session}```\n")
    with pytest.raises(AssertionError, match=complaint):
        run_page(tmp_path / "page.md", {})


def test_a_session_that_is_correct_passes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ flowkit --version\nflowkit, version 9.9.9\n$ echo $?\n0\n```\n")
    run_page(page, {})
    assert blocks_of(page) == [Block(page, 1, "console", "$ flowkit --version\nflowkit, version 9.9.9\n$ echo $?\n0\n")]
