"""``flowkit demo``: a miniature run of the four commands, what it says about the results, and what it never deletes."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from command_lines import run_flowkit

from flowkit.cli.commands import demo
from flowkit.cli.main import flowkit
from flowkit.demo_videos import SceneSettings, class_names, write_scenes
from flowkit.files import this_host

CLASSES = class_names()
ROWS = ["appearance", "motion", "two-streams", "ST-ResNet", "ST-ResNet*"]
MINIATURE = ["--train-videos", "1", "--test-videos", "1", "--frames", "11", "--steps-per-phase", "1"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(flowkit, ["demo", *arguments])


@pytest.fixture
def no_stages(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Small videos and no stages: only what the demo does around them; the calls are recorded."""
    calls: list[tuple[str, ...]] = []

    def draw_small(root: Path, **options: Any) -> Any:
        return write_scenes(root, **{**options, "settings": SceneSettings(num_frames=2, width=84, height=64)})

    def record(name: str, *options: str) -> int:
        calls.append((name, *options))
        if name == "extract":
            data = Path(options[options.index("--data") + 1])
            data.mkdir(exist_ok=True)
            (data / "dataset.json").write_text(f"{len(calls)}")
        return 7 if name == "pack" else 0

    monkeypatch.setattr(demo, "run_command", record)
    monkeypatch.setattr("flowkit.demo_videos.write_scenes", draw_small)
    return calls


@pytest.mark.slow
def test_a_miniature_runs_the_four_ordinary_commands_and_ends_with_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "EXTRACT_OPTIONS", ("--short-side", "32"))
    monkeypatch.setattr(demo, "TRAIN_OPTIONS", ("--recipe", "small", "--base-width", "4"))
    output = tmp_path / "my demo"
    result = run("--output", str(output), "--seed", "3", *MINIATURE)
    assert result.exit_code == 0, result.output

    lines = [shlex.split(line[2:]) for line in result.stdout.splitlines() if line.startswith("$ ")]
    data = str(output / "flowkit-data")
    assert lines == [
        ["flowkit", "extract", str(output / "videos"), "--data", data, "--short-side", "32"],
        ["flowkit", "pack", "--split", "1", "--data", data, "--lists", str(output / "split.csv")],
        ["flowkit", "train", "--data", data, "--recipe", "small", "--base-width", "4", "--seed", "3", "--steps-per-phase", "1"],
        ["flowkit", "evaluate", "--data", data],
    ]
    results = json.loads((output / "flowkit-data/reports/default/split1/results.json").read_text())
    assert results["num_scored"] == results["num_listed"] == 9
    assert list(results["rows"]) == ROWS
    assert sorted(results["classes"]) == sorted(CLASSES)
    knows = result.stdout.split("What each row recognises: 3 hues x 3 motions, 9 test videos\n")[1]
    shown = re.findall(r"^\| (\S+) +\| +([\d.]+) \| +([\d.]+) \| +([\d.]+) \| +([\d.]+) \|$", knows, re.MULTILINE)
    assert [row[0] for row in shown] == ROWS
    assert [float(row[1]) for row in shown] == [round(100 * row["top1"], 1) for row in results["rows"].values()]
    assert [float(row[4]) for row in shown] == [33.3, 33.3, 100, 100, 100]
    assert re.findall(r"^\| (\w+) +\| +\d", knows, re.MULTILINE)[-6:] == ["generate", "extract", "pack", "train", "evaluate", "all"]

    page = output / "flowkit-data/reports/default/split1/report.html"
    assert result.stdout.endswith(f"The report, a page for the browser: {page}\n")
    assert page.is_file()

    # The very lines it showed find all done when they are typed again.
    for line in lines[:3]:
        again = CliRunner().invoke(flowkit, line[1:])
        assert again.exit_code == 0, again.output
        assert re.search(r"0 done, 18 skipped|nothing to do", again.output)


def test_the_default_demo_stays_within_its_size() -> None:
    defaults = {parameter.name: parameter.default for parameter in demo.demo.params}
    assert 9 * (defaults["train_videos"] + defaults["test_videos"]) * (defaults["frames"] - 1) <= 1800  # pairs of frames
    assert 9 * defaults["test_videos"] >= 54
    assert demo.EXTRACT_OPTIONS == ("--short-side", "64")


def test_a_stage_that_fails_ends_the_demo_with_its_exit_code(tmp_path: Path, no_stages: list[tuple[str, ...]]) -> None:
    result = CliRunner().invoke(flowkit, ["demo", "--output", str(tmp_path / "demo"), *MINIATURE], standalone_mode=False)
    assert result.return_value == 7
    assert [call[0] for call in no_stages] == ["extract", "pack"]
    assert "flowkit pack ended with exit code 7" in result.stderr


def test_stages_see_their_own_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    seen: list[list[str]] = []
    monkeypatch.setattr(flowkit, "main", lambda args, **_: seen.append([*sys.argv[1:]]) or 3)
    before = list(sys.argv)
    with click.Context(flowkit):
        assert demo.run_command("pack", "--data", "a b") == 3
    assert seen == [["pack", "--data", "a b"]]
    assert sys.argv == before
    assert capsys.readouterr().out == "\n$ flowkit pack --data 'a b'\n"


# -- the folder --------------------------------------------------------------------------------------------------------------------


def test_a_folder_of_something_else_is_never_touched(tmp_path: Path, no_stages: list[tuple[str, ...]]) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "mine.avi").write_text("precious")
    for more in ([], ["--overwrite"]):
        result = run("--output", str(tmp_path), *MINIATURE, *more)
        assert result.exit_code == 2
        assert "is not empty, and its files are not from a demo; choose another folder with --output" in result.output
    assert (tmp_path / "videos" / "mine.avi").read_text() == "precious"
    assert not no_stages


def test_an_earlier_demo_is_replaced_only_when_asked_and_nothing_beside_it(tmp_path: Path, no_stages: list[tuple[str, ...]]) -> None:
    output = tmp_path / "demo"
    run("--output", str(output), *MINIATURE)
    assert (output / "flowkit-data" / "dataset.json").exists()
    (output / "notes.txt").write_text("mine")
    old = output / "videos" / "CoralSliding" / "v_CoralSliding_g02_c01.avi"
    before = old.read_bytes()

    refused = run("--output", str(output), *MINIATURE)
    assert refused.exit_code == 2
    assert "--overwrite" in refused.output
    assert old.exists()
    assert (output / "flowkit-data" / "dataset.json").exists()

    again = run("--output", str(output), "--overwrite", "--seed", "5", *MINIATURE)
    assert len(no_stages) == 4, again.output  # two runs as far as pack
    assert old.read_bytes() != before
    assert (output / "notes.txt").read_text() == "mine"
    assert len(list((output / "videos").rglob("*.avi"))) == 18


@pytest.mark.parametrize(
    "where",
    [
        "videos/mine.avi",
        "videos/CoralSliding/holiday.mp4",
        "videos/CoralSliding/v_CoralSliding_g09_c01.avi",
        "videos/v_Mine_g01_c01.avi/film.mov",
        "flowkit-data/runs/mythesis.txt",
        "flowkit-data/runs/mine/split1/st-resnet/weights.safetensors",
        "flowkit-data/dataset.json",
        "split.csv",
    ],
)
def test_a_demo_folder_with_something_else_in_it_is_not_replaced(tmp_path: Path, no_stages: object, where: str) -> None:
    run("--output", str(tmp_path / "demo"), *MINIATURE)
    mine = tmp_path / "demo" / where
    mine.parent.mkdir(exist_ok=True, parents=True)
    mine.write_text("precious")
    result = run("--output", str(tmp_path / "demo"), "--overwrite", *MINIATURE)
    assert result.exit_code == 2
    assert "was not made by the demo, or was changed since, so nothing is deleted" in result.output
    assert mine.read_text() == "precious"
    assert len(list((tmp_path / "demo" / "videos").rglob("v_*_g0?_c01.avi"))) >= 18  # nor is anything else gone


@pytest.mark.slow
def test_what_a_killed_stage_left_is_replaced(tmp_path: Path, no_stages: object, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "demo"

    def killed(*_: str) -> int:
        (output / "flowkit-data" / "clips" / "c").mkdir(parents=True)
        (output / "flowkit-data" / "clips" / "c" / "half.h5").write_text("half")
        (output / "flowkit-data" / ".write.lock").touch()
        (output / "flowkit-data" / "dataset.json.node7-0123abcd-77-89abcdef.part").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(demo, "run_command", killed)
        run("--output", str(output), *MINIATURE)
    mine = output / "flowkit-data" / "mine.txt"
    mine.write_text("precious")
    assert "mine.txt was not made by the demo" in run("--output", str(output), "--overwrite", *MINIATURE).output
    mine.unlink()
    assert "demo: flowkit pack ended with exit code 7" in run("--output", str(output), "--overwrite", *MINIATURE).output
    assert [path.name for path in (output / "flowkit-data").iterdir()] == ["dataset.json"]


def test_a_demo_that_was_killed_while_it_wrote_its_first_record_begins_again(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    leftover = tmp_path / f"{demo.RECORD}.{this_host()}-{ended.pid}-89abcdef.part"
    leftover.write_text("half")
    demo.make_room(tmp_path, overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == [demo.RECORD]


def test_a_demo_without_a_record_of_its_files_is_not_replaced(tmp_path: Path, no_stages: object) -> None:
    """As flowkit 0.1 made them."""
    (tmp_path / ".flowkit-demo.json").write_text('{"format": "flowkit-demo", "created_by": "flowkit 0.1.0"}')
    (tmp_path / "split.csv").write_text("precious")
    result = run_flowkit("demo", "--output", tmp_path, "--overwrite", *MINIATURE)
    assert result.code == 1
    assert "format version None" in result.err
    assert "delete the folder yourself, or choose another one" in result.err
    assert (tmp_path / "split.csv").read_text() == "precious"


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
@pytest.mark.parametrize("name", ["videos", "flowkit-data"])
def test_links_are_not_followed_when_replacing(tmp_path: Path, no_stages: object, name: str) -> None:
    output, elsewhere = tmp_path / "demo", tmp_path / "elsewhere"
    run("--output", str(output), *MINIATURE)
    elsewhere.mkdir()
    (elsewhere / "v_Mine_g01_c01.avi").write_text("precious")
    (output / name).rename(tmp_path / "gone")
    (output / name).symlink_to(elsewhere)
    result = run("--output", str(output), "--overwrite", *MINIATURE)
    assert result.exit_code == 2
    assert (elsewhere / "v_Mine_g01_c01.avi").read_text() == "precious"


# -- what it says ------------------------------------------------------------------------------------------------------------------


def test_hue_and_motion_are_counted_separately() -> None:
    names = sorted(CLASSES)
    confusion = [[0] * 9 for _ in names]
    confusion[names.index("CoralSliding")][names.index("CoralPulsing")] = 3  # the hue is correct
    confusion[names.index("FernPulsing")][names.index("AzurePulsing")] = 2  # the motion is correct
    confusion[names.index("FernBobbing")][names.index("FernBobbing")] = 5
    assert demo.half_accuracies(confusion, names, CLASSES) == (0.8, 0.7)


CEILINGS = {"appearance": 1 / 3, "motion": 1 / 3}


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        (
            (0.35, 0.30, 0.98, 1.0, 0.96),
            "Appearance and motion together go far beyond it: two-streams 98.0 %, ST-ResNet 100.0 %, ST-ResNet* 96.0 %.",
        ),
        (
            (0.35, 0.30, 0.98, 0.40, 0.30),
            "Together, some go far beyond it (two-streams 98.0 %), others do not: they need more training.",
        ),
        ((0.30, 0.30, 0.33, 0.31, 0.30), "Together they do not do much better here: they need more training."),
        ((0.35, 0.60, 0.98, 1.0, 0.96), "Unexpected: motion did better than guessing the other half allows."),
    ],
)
def test_the_verdict_follows_the_numbers(accuracies: tuple[float, ...], expected: str) -> None:
    assert expected in demo.verdict(dict(zip(ROWS, accuracies, strict=True)), CEILINGS)
