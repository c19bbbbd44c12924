"""`train --system idt`: from videos to a row of the table, again, in another way, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from command_lines import call_flowkit
from trajectory_roots import make_trajectory_root

from flowkit.dataset.root import Dataset
from flowkit.errors import CheckpointError, FeaturesError
from flowkit.model.encoding.encoder_files import load_encoder
from flowkit.model.settings.recipes import RECIPE_NAMES
from flowkit.model.systems.registry import SVM_PHASES
from flowkit.model.training.svm_phase import find_phase
from flowkit.model.training.svm_vectors import VectorChoices, VectorRequest, vectors_name

IDT = SVM_PHASES["idt"]
QUICK = ("--components", 2, "--camera-motion", "none")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the trained phase `idt`."""
    home = make_trajectory_root(tmp_path_factory.mktemp("idt"))
    _, _, err = call_flowkit("train", "--system", "idt", *QUICK, "--data", home, code=0)
    assert "idt: a linear SVM on 4 training videos, vectors of 852 numbers" in err
    return home


def test_the_row_is_in_the_table_of_evaluate(root: Path) -> None:
    told = json.loads(call_flowkit("evaluate", "--data", root, "--json", code=0)[1])
    rows = told["splits"][0]["rows"]
    assert list(rows) == ["IDT"]
    assert rows["IDT"]["num_videos"] == 2
    assert told["splits"][0]["svms"]["idt"]["features"] == "idt-k2-camera-none-split1.h5"


def test_training_again_computes_nothing_and_other_settings_are_refused(root: Path) -> None:
    split = Dataset.open(root).split(1)
    found = find_phase(IDT, Dataset.open(root), split, run="default")
    assert found is not None
    before = {path: path.stat().st_mtime_ns for path in [found.features.path, *found.folder.iterdir()]}
    call_flowkit("train", "--system", "idt", *QUICK, "--data", root, code=0)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    with pytest.raises(CheckpointError, match=r"features of other settings \(idt-k2-camera-none-split1.h5, not idt-k3-.*--restart"):
        call_flowkit("train", "--system", "idt", "--components", 3, "--camera-motion", "none", "--data", root)
    call_flowkit("train", "--system", "idt", "--components", 3, "--camera-motion", "none", "--data", root, "--run", "three", code=0)
    call_flowkit("evaluate", "--run", "three", "--data", root, code=0)


def test_the_recipe_small_has_fewer_components_unless_the_user_says_how_many(root: Path) -> None:
    motion = ("--camera-motion", "none", "--data", root)
    _, _, err = call_flowkit("train", "--system", "idt", "--recipe", "small", "--run", "few", *motion, code=0)
    assert "idt: 16 Gaussians for each type of descriptors, as the recipe small has" in err
    assert f"vectors of {16 * 426:,} numbers" in err
    encoder = load_encoder(root / "features/idt-k16-camera-none-split1-encoder.safetensors")
    assert encoder.provenance["num_components"] == 16
    names = {recipe: vectors_name(VectorRequest(IDT, root, 1, "few", None, VectorChoices(recipe=recipe))) for recipe in RECIPE_NAMES}
    assert names == {"official": "idt-split1.h5", "own": "idt-split1.h5", "small": "idt-k16-split1.h5"}
    _, _, err = call_flowkit("train", "--system", "idt", "--recipe", "small", "--components", 2, *motion, code=0)
    assert "Gaussians" not in err  # and the vectors are those of the fixture, so that nothing is computed


def test_features_that_are_gone_are_said_with_what_makes_them(root: Path, tmp_path: Path) -> None:
    moved = next((root / "features").glob("idt-k2*.h5"))
    kept = moved.rename(tmp_path / moved.name)
    with pytest.raises(FeaturesError, match="no file of features"):
        call_flowkit("evaluate", "--data", root)
    kept.rename(moved)


def test_options_that_would_do_nothing_are_refused(root: Path) -> None:
    for arguments, message in {
        ("--system", "idt", "--lr", 0.1): "--lr would do nothing here: --system idt trains no network",
        ("--system", "idt", "--phase", "motion"): "--phase would do nothing here: --system idt names the phases",
        ("--components", 3): "--components would do nothing here: --system st-resnet has no trajectories",
        ("--system", "st-resnet-star+idt", "--write-config", "a.toml"): "--write-config would do nothing here",
    }.items():
        with pytest.raises(click.UsageError, match=message):
            call_flowkit("train", *arguments, "--data", root)


@pytest.mark.slow
def test_a_system_trains_what_it_needs_and_no_more(root: Path) -> None:
    tiny = ("--recipe", "small", "--base-width", 4, "--input-size", 32, "--batch", 2, "--bn-group", 2, "--steps-per-phase", 1)
    call_flowkit("train", "--system", "two-streams+idt", *tiny, *QUICK, "--run", "two", "--data", root, "--device", "cpu", code=0)
    assert sorted(path.name for path in (root / "runs/two/split1").iterdir() if path.is_dir()) == ["appearance", "idt", "motion"]
    told = json.loads(
        call_flowkit("evaluate", "--run", "two", "--system", "two-streams+idt", "--data", root, "--device", "cpu", "--json", code=0)[1]
    )
    assert list(told["splits"][0]["rows"]) == ["appearance", "motion", "two-streams", "IDT", "two-streams + IDT"]
