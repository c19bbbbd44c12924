"""``flowkit features --of idt``: what it prints, what it refuses, and how it is stopped."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_lines import call_flowkit, run_flowkit
from trajectory_roots import VIDEOS, make_trajectory_root

from flowkit.model.scoring.feature_files import FeatureFile
from flowkit.model.scoring.feature_journal import journal_of

OPTIONS = ("--of", "idt", "--components", "2", "--camera-motion", "none", "--jobs", "1")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root beside its videos, without features."""
    return make_trajectory_root(tmp_path_factory.mktemp("made"))


def test_the_command_encodes_all_videos_and_reports_those_that_it_cannot(root: Path, tmp_path: Path) -> None:
    damaged = root.parent / "videos" / "Sliding" / "test000.avi"
    whole = damaged.read_bytes()
    ended = call_flowkit("features", "--data", root, *OPTIONS, code=0)
    path = root / "features" / "idt-k2-camera-none-split1.h5"
    assert ended.out == f"{path}: 6 videos; features for each video: idt 852\n"
    assert FeatureFile(path).video_ids == VIDEOS

    ended = call_flowkit("features", "--data", root, *OPTIONS, "--json", code=0)
    assert json.loads(ended.out)["num_kept"] == 6

    damaged.write_bytes(whole[:-1000])
    try:
        ended = call_flowkit("features", "--data", root, *OPTIONS, "--output", tmp_path / "f.h5", code=3)
        assert "no features: Sliding/test000: " in ended.err
        assert ended.out.startswith(f"{tmp_path / 'f.h5'}: 5 videos")
    finally:
        damaged.write_bytes(whole)

    encoder = path.with_name("idt-k2-camera-none-split1-encoder.safetensors")
    ended = call_flowkit("features", damaged, "--of", "idt", "--encoder", encoder, "--output", tmp_path / "vectors", "--jobs", "1", code=0)
    assert (tmp_path / "vectors" / "idt" / "test000.npy").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--of", "idt", "--layer", "logits"), "--layer would do nothing here: --of idt needs no network"),
        (("--of", "motion", "--components", "16"), "--components would do nothing here: it is about trajectories, --of idt"),
        (("--of", "idt", "--camera-motion", "surf"), "'surf' is not one of"),
        (("--of", "idt", "--components", "0"), "must be at least 1, got 0"),
    ],
)
def test_options_that_would_do_nothing_are_usage_errors(root: Path, arguments: tuple[str, ...], message: str) -> None:
    ended = run_flowkit("features", "--data", root, *arguments)
    assert ended.code == 2
    assert message in ended.err


def test_a_video_file_needs_an_encoder(root: Path) -> None:
    ended = run_flowkit("features", root.parent / "videos" / "Sliding" / "test000.avi", "--of", "idt")
    assert ended.code == 2
    assert "name it with --encoder FILE" in ended.err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_killed_and_interrupted_at_random_moments_and_run_again_the_files_are_the_same(root: Path, tmp_path: Path) -> None:
    def command(name: str) -> subprocess.Popen[bytes]:
        line = [
            sys.executable,
            "-m",
            "flowkit",
            "features",
            "--data",
            str(root),
            *OPTIONS,
            "--output",
            str(tmp_path / name),
            "--grace",
            "0",
        ]
        return subprocess.Popen(line, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    assert command("whole.h5").wait(600) == 0
    encoder = "{}-encoder.safetensors"
    journals = [journal_of(tmp_path / name) for name in ("stopped.h5", encoder.format("stopped"))]
    draw, codes = random.Random(1), []
    while len(codes) < 4 or (len({*codes} - {0}) < 2 and len(codes) < 20):  # until both kinds of signal came in time
        child = command("stopped.h5")
        before = [path.stat().st_size if path.exists() else 0 for path in journals]
        while child.poll() is None and [path.stat().st_size if path.exists() else 0 for path in journals] == before:
            time.sleep(0.002)  # until a video is kept, whatever the machine is busy with
        time.sleep(draw.uniform(0, 0.3))
        child.send_signal(signal.SIGINT if len(codes) % 2 else signal.SIGKILL)
        codes.append(child.wait(600))
        if codes[-1] == -signal.SIGINT:  # Python was ending already, after flowkit: nothing handles the signal then
            assert (tmp_path / "stopped.h5").exists()
            codes[-1] = 0
        if (tmp_path / "stopped.h5").exists():
            for name in ("{}.h5", encoder):
                assert (tmp_path / name.format("stopped")).read_bytes() == (tmp_path / name.format("whole")).read_bytes()
                (tmp_path / name.format("stopped")).unlink()
    assert {*codes} <= {0, 128 + signal.SIGINT, -signal.SIGKILL}
    assert len({*codes} - {0}) == 2
    assert command("stopped.h5").wait(600) == 0
    assert (tmp_path / "stopped.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        name.format(run) for run in ("whole", "stopped") for name in ("{}.h5", encoder)
    )
