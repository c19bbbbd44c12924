"""Real clips of UCF101, from video files to the rows IDT, two-streams + IDT, TDD and TDD + IDT."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from command_lines import call_flowkit

CHOSEN = ("ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c02", "BabyCrawling/v_BabyCrawling_g18_c06")  # short training videos of two classes
TINY = ("--recipe", "small", "--base-width", 4, "--input-size", 32, "--batch", 2, "--bn-group", 2, "--steps-per-phase", 2)


@pytest.mark.slow  # about a minute: it follows trajectories through four videos, twice
def test_trajectories_of_real_videos_become_rows_of_the_table(shared_data: Path, tmp_path: Path) -> None:
    with (shared_data / "splits" / "mini.csv").open(encoding="utf-8") as file:
        rows = [
            row for row in csv.DictReader(file) if row["video_id"] in CHOSEN or row["video_id"].endswith(("eup_g01_c04", "ing_g19_c01"))
        ]
    for row in rows:
        path = tmp_path / "videos" / f"{row['video_id']}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((shared_data / "videos" / "ucf101" / f"{row['video_id']}.avi").read_bytes())
    with (tmp_path / "split.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    data = ("--data", tmp_path / "data")
    call_flowkit("extract", tmp_path / "videos", "--short-side", 64, *data, code=0)
    call_flowkit("pack", "--lists", tmp_path / "split.csv", *data, code=0)
    how = ("--components", 8, "--camera-motion", "none", "--device", "cpu")
    _, _, err = call_flowkit("train", "--system", "two-streams+idt", *TINY, *how, *data, code=0)
    assert "idt: a linear SVM on 2 training videos, vectors of 3,408 numbers" in err
    told = json.loads(call_flowkit("evaluate", "--system", "two-streams+idt", "--device", "cpu", "--json", *data, code=0)[1])
    found = told["splits"][0]["rows"]
    assert list(found) == ["appearance", "motion", "two-streams", "IDT", "two-streams + IDT"]
    assert {row["num_videos"] for row in found.values()} == {2}
    assert found["IDT"]["top1"] == 1.0
    vgg = ("--recipe", "small", "--set", "width=0.03", "--set", "input_size=64", "--batch", 2, "--bn-group", 2, "--steps-per-phase", 2)
    _, _, err = call_flowkit("train", "--system", "tdd+idt", *vgg, *how, *data, code=0)
    assert "tdd: a linear SVM on 2 training videos" in err
    # In the folder of the first evaluation, which has rows of other phases, this one would be refused.
    tested = ("--device", "cpu", "--json", "--output", tmp_path / "tdd")
    told = json.loads(call_flowkit("evaluate", "--system", "tdd+idt", *tested, *data, code=0)[1])
    found = told["splits"][0]["rows"]
    assert list(found)[-3:] == ["IDT", "TDD", "TDD + IDT"]
    assert {row["num_videos"] for row in found.values()} == {2}
