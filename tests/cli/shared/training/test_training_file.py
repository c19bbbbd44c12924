"""``train --config``: a file gives a training again; the command line wins over it, and it wins over everything else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_lines import Ended, run_flowkit
from phases import PHASES
from training_runs import same, share_root, weights

from flowkit.cli.shared.settings_file import MAX_FILE_BYTES, NOT_FROM_FILE
from flowkit.files import file_sha256
from flowkit.model.runs.recorded import read_recorded
from flowkit.model.settings.recipes import RECIPE_NAMES, TrainSettings
from flowkit.model.settings.training import Phase, TrainConfig
from flowkit.model.settings.validation import Validation
from flowkit.model.systems.configs import make_configs
from flowkit.model.systems.replay import values_of
from flowkit.model.training import chain


class Trained:
    """What `train_phases` was called with, instead of training."""

    settings: TrainSettings
    called: dict[str, Any]

    def configs(self, **data: Any) -> dict[Phase, TrainConfig]:
        settings = self.settings
        recipe = settings.recipe_on("cpu", is_official_list=False)
        sizes = {"num_classes": 6, "num_videos": 12, "short_side": 40} | data
        return make_configs(
            recipe,
            paper_schedule=settings.paper_schedule,
            file=settings.file,
            overrides=settings.overrides,
            weights=str(settings.weights_for(recipe)),
            **sizes,
        )


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trained:
    seen = Trained()

    def stand_in(root: Path, settings: TrainSettings, **rest: Any) -> chain.TrainReport:
        seen.settings, seen.called = settings, rest
        return chain.TrainReport((), (), False)

    monkeypatch.setattr(chain, "train_phases", stand_in)
    monkeypatch.chdir(tmp_path)
    return seen


def train(text: str, *options: str) -> Ended:
    Path("config.toml").write_text(text, encoding="utf-8")
    return run_flowkit("train", "--device", "cpu", "--config", "config.toml", *options)


def test_a_file_sets_options_values_of_all_phases_and_of_one(trained: Trained) -> None:
    text = (
        'recipe = "small"\nsplit = 3\nrun = "mine"\nbatch = 8\nbase-width = 4\n[motion]\nlr = 0.25\nsteps = 7\n[st-resnet]\ntau_max = 9\n'
    )
    assert train(text).code == 0
    configs = trained.configs()
    assert (trained.called["split"], trained.called["run"]) == (3, "mine")
    assert {config.batch for config in configs.values()} == {8}
    assert {config.network.base_width for config in configs.values()} == {4}
    assert configs["motion"].schedule == ((7, 0.25),)
    assert configs["motion"].warmup_steps == 0
    assert [config.tau_max for config in configs.values()] == [1, 1, 9, 15]


def test_the_command_line_wins_over_the_file_and_the_file_over_the_environment_and_flowkit_toml(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'recipe = "small"\nsplit = 3\nrun = "mine"\nbatch = 8\namp = "bf16"\n[motion]\nweight_decay = 0.25\n'
    Path("flowkit.toml").write_text('amp = "tf32"\nsplit = 5\n[train]\nset = ["motion.weight_decay=0.5"]\nlr = 0.5\n', encoding="utf-8")
    monkeypatch.setenv("FLOWKIT_BATCH", "2")
    monkeypatch.setenv("FLOWKIT_RUN", "other")
    assert train(text).code == 0
    configs = trained.configs()
    assert {config.batch for config in configs.values()} == {8}
    assert configs["motion"].weight_decay == 0.25
    assert (trained.called["run"], trained.called["split"], trained.called["execution"].amp) == ("mine", 3, "bf16")
    assert configs["motion"].schedule[0][1] == 0.5  # of which the file says nothing
    assert train(text, "--batch", "16", "--split", "2", "--amp", "float32", "--set", "weight_decay=0.125").code == 0
    configs = trained.configs()
    assert {config.batch for config in configs.values()} == {16}
    assert configs["motion"].weight_decay == 0.125  # also over a value that the file has for one phase
    assert (trained.called["run"], trained.called["split"], trained.called["execution"].amp) == ("mine", 2, "float32")


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("schedule = [[20, 0.1], [10, 0.01]]", ["--lr", "0.2"], {"schedule": ((20, 0.2), (10, 0.02))}),
        ("schedule = [[20, 0.1], [10, 0.01]]", ["--steps-per-phase", "6"], {"schedule": ((4, 0.1), (2, 0.01))}),
        ("steps = 30\nlr = 0.5", ["--lr", "1"], {"schedule": ((30, 1.0),)}),
        ("steps = 30", ["--set", "schedule=[[4,0.5]]"], {"schedule": ((4, 0.5),)}),
        ("steps = 30\nwarmup_steps = 12", [], {"warmup_steps": 12}),
        ("warmup_steps = 12", ["--steps-per-phase", "30"], {"warmup_steps": 3}),
        ("batch = 12", [], {"bn_group": 12}),
        ("batch = 12\nbn_group = 4", ["--batch", "6"], {"bn_group": 3}),
        ("bn_renewal_steps = 0", ["--lr", "1"], {"bn_renewal_steps": 0}),
        ("bn_renewal_steps = 0", ["--steps-per-phase", "5"], {"bn_renewal_steps": 5}),
        ("depth = 101", [], {"units": (3, 4, 23, 3)}),
        ("stage_units = [2, 2, 2, 3]", ["--depth", "101"], {"units": (3, 4, 23, 3)}),
        ("seed = 3", ["--seed", "4"], {"seed": 4}),
    ],
)
def test_values_of_the_command_line_change_those_of_the_file_as_they_change_a_recipes(
    trained: Trained, text: str, options: list[str], expected: dict[str, Any]
) -> None:
    assert train(f'recipe = "small"\n{text}\n', *options).code == 0
    config = trained.configs()["motion"]
    assert {name: getattr(config.network if name == "units" else config, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bach = 8", "there is no setting 'bach'; did you mean batch?"),
        ("[motoin]\nlr = 1", "there is no phase 'motoin'; did you mean motion?"),
        ("[train]\nlr = 1", "there is no phase 'train'; the phases are appearance"),
        ("[motion]\ndropuot = 1", "[motion]: there is no setting 'dropuot' of a phase"),
        ("[motion]\nmotion_dropuot = 0.5", "did you mean motion-dropout?"),
        ("[motion]\nsplit = 1", "there is no setting 'split' of a phase"),
        ("motion = 3", "[motion] must be a table"),
        ('batch = "8"', "batch must be a whole number, got '8'"),
        ("batch = 8.0", "batch must be a whole number, got 8.0"),
        ("batch = true", "batch must be a whole number, got True"),
        ("batch = [8]", "batch must be a whole number, got [8]"),
        ("batch = {a = 1}", "there is no phase 'batch'"),
        ("[motion.batch]\na = 1", "batch must be a whole number, got a table"),
        ("batch = 0x" + "f" * 5000, "batch must be a whole number, got a number that is too large"),
        ("batch = 1979-05-27", "batch must be a whole number"),
        ("[motion]\nlr = nan", "lr must be a number, got nan"),
        ('flip = "yes"', "flip must be true or false"),
        ('crop = "middle"', "crop must be one of borders25, regular, uniform, none"),
        ("schedule = [[1, 2, 3]]", "schedule must be a list of steps and rates"),
        ("injection_stages = [[2]]", "injection_stages must be a list of numbers"),
        ("injection_stages = [7]", "injection_stages must be a list of some of 2, 3, 4, 5"),
        ("batch = 6\nbn_group = 4", "batch must be a multiple of bn_group (4), got 6"),
        ("[motion]\nbase_width = 8", "base_width must be the same in all phases"),
        ("steps = 3\nschedule = [[1, 0.1]]", "leave out steps"),
        ('split = "one"', "config.toml: split: 'one' is not a valid integer range"),
        ("split = [1]", "split must be one value"),
        ('recipe = "paper"', "'paper' is now called 'official'"),
        ("set = ['batch=1']", "set: write each value under its own name"),
        ('config = "other.toml"', "names another file"),
        ("seed = 1\nseeds = [1, 2]", "seed and seeds exclude each other"),
        ("seeds = [1, 1]", "given twice"),
        (f'weights_sha256 = "{"0" * 64}"', "weights names none"),
        (f'init_from_sha256 = ["{"0" * 64}"]', "init_from names none"),
        ('init_from = "first"\ninit_from_sha256 = ["0"]', "must be a list of SHA-256"),
        (f'weights = "gone.pth"\nweights_sha256 = "{"0" * 64}"', "gone.pth (SHA-256 000000000000...), which does not exist"),
        (f'weights = "config.toml"\nweights_sha256 = "{"0" * 64}"', "has other contents than when this was recorded"),
        ("batch = " + "[" * 100 + "]" * 100, "nested more than 64 deep"),
        ("batch = " + "[" * 20_000 + "]" * 20_000, "nested too deeply"),
        ("# " + "x" * MAX_FILE_BYTES, "too large"),
        ("batch", "not valid TOML"),
        ("batch = 1\nbatch = 2", "not valid TOML"),
        ('"\\u001b[2J" = 1', "there is no setting"),
        ("x" * 3000 + " = 1", "there is no setting"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it_and_the_key(trained: Trained, text: str, said: str) -> None:
    ended = train(text)
    assert ended.code == 2, ended
    assert said in ended.err
    line = ended.err.splitlines()[-1]
    assert said in line
    assert len(line) < 500
    assert line.isprintable()
    assert not hasattr(trained, "settings")


@pytest.mark.parametrize("name", sorted(NOT_FROM_FILE))
def test_a_file_cannot_delete_replace_or_connect(trained: Trained, name: str) -> None:
    for text in (f"{name} = true\n", f"[motion]\n{name.replace('_', '-')} = true\n"):
        ended = train(text)
        assert ended.code == 2
        assert NOT_FROM_FILE[name] in ended.err


def test_what_is_no_file_is_refused(trained: Trained) -> None:
    os.mkfifo("pipe.toml")
    Path("empty").mkdir()
    Path("config.json").write_text("[1]", encoding="utf-8")
    for name, said in (("pipe.toml", "not a regular file"), ("empty", "holds no config.json"), ("config.json", "foreign"), ("no", "exist")):
        ended = run_flowkit("train", "--device", "cpu", "--config", name)
        assert ended.code == 2, ended
        assert said in ended.err


def test_paths_in_a_file_are_relative_to_it(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    text = 'recipe = "small"\ndata = "root"\nruns = "/elsewhere"\nweights = "r50.pth"\n'
    (tmp_path / "here" / "a.toml").write_text(text, encoding="utf-8")
    assert run_flowkit("train", "--device", "cpu", "--config", "here/a.toml").code == 0
    assert trained.settings.weights == Path("here/r50.pth")
    assert trained.called["runs"] == Path("/elsewhere")
    assert run_flowkit("train", "--device", "cpu", "--config", "here/a.toml", "--weights", "mine.safetensors").code == 0
    assert trained.settings.weights == Path("mine.safetensors")


def test_seeds_of_the_command_line_replace_the_seed_of_a_file(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train('recipe = "small"\nseed = 3\n[motion]\nseed = 4\n', "--seeds", "5").code == 0
    assert {config.seed for config in trained.configs().values()} == {5}
    assert trained.called["run"] == "default-seed5"
    monkeypatch.setenv("FLOWKIT_SEEDS", "6,7")
    assert train('recipe = "small"\nseed = 3\n').code == 0
    assert {config.seed for config in trained.configs().values()} == {3}
    monkeypatch.setenv("FLOWKIT_SEED", "8")
    monkeypatch.delenv("FLOWKIT_SEEDS")
    assert train('recipe = "small"\nseeds = [9]\n').code == 0
    assert {config.seed for config in trained.configs().values()} == {9}


def recorded(root: Path, phase: Phase) -> TrainConfig:
    return read_recorded(root / "runs/default/split1" / phase / "config.json").provenance.config


def test_a_run_given_back_has_exactly_the_settings_of_all_its_phases(
    trained: Trained, undisturbed: tuple[Path, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = undisturbed[0]
    for name, value in (
        ("BATCH", "2"),
        ("SEED", "7"),
        ("RECIPE", "official"),
        ("WEIGHTS", "imagenet"),
        ("AMP", "bf16"),
        ("SET", "flip=false"),
    ):
        monkeypatch.setenv(f"FLOWKIT_{name}", value)
    for folder in ("runs/default/split1", "runs/default"):
        assert run_flowkit("train", "--device", "cpu", "--config", root / folder, "--run", "again").code == 0
        configs = trained.configs(num_videos=999, short_side=256)  # whatever the recipe would make of other data
        assert configs == {phase: recorded(root, phase) for phase in PHASES}
        assert trained.called["phases"] == PHASES
        assert (trained.called["split"], trained.called["execution"].amp) == (1, "float32")


@pytest.mark.parametrize("phase", PHASES)
def test_the_config_json_of_a_phase_trains_that_phase_with_its_settings(
    trained: Trained, undisturbed: tuple[Path, list[Any]], phase: Phase
) -> None:
    path = undisturbed[0] / "runs/default/split1" / phase / "config.json"
    assert run_flowkit("train", "--device", "cpu", "--config", path, "--run", "again").code == 0
    assert trained.configs(num_videos=999, short_side=256)[phase] == recorded(undisturbed[0], phase)
    assert trained.called["phases"] == (phase,)
    ended = run_flowkit("train", "--device", "cpu", "--config", path, "--phase", "all")
    assert ended.code == 2
    assert f"has the settings of {phase}, and not of" in ended.err
    ended = run_flowkit("train", "--device", "cpu", "--config", path, "--recipe", "small")
    assert "--recipe would do nothing here" in ended.err


def test_a_phase_that_is_trained_again_from_its_config_json_has_the_same_weights(
    undisturbed: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    root = share_root(undisturbed[0], tmp_path)
    config = undisturbed[0] / "runs/default/split1/motion/config.json"
    ended = run_flowkit("train", "--data", root, "--device", "cpu", "--config", config, "--run", "again")
    assert ended.code == 0, ended
    assert same(weights(root, "motion", "again"), weights(undisturbed[0], "motion"))
    again = read_recorded(root / "runs/again/split1/motion/config.json").provenance
    assert read_recorded(config).provenance.differences(again) == []


@pytest.fixture
def from_a_file(undisturbed: tuple[Path, list[Any]], tmp_path: Path) -> Path:
    """The config.json of a training that started from a file of weights, which is there."""
    weights_file = tmp_path / "weights" / "mine.safetensors"
    weights_file.parent.mkdir()
    shutil.copy(undisturbed[0] / "runs/default/split1/motion/weights.safetensors", weights_file)
    record = json.loads((undisturbed[0] / "runs/default/split1/motion/config.json").read_text(encoding="utf-8"))
    record["config"]["weights"] = f"sha256:{file_sha256(weights_file)}"
    path = tmp_path / "run" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(record | {"weights_file": str(weights_file)}), encoding="utf-8")
    return path


def test_the_weights_of_a_recorded_training_are_found_or_asked_for(trained: Trained, from_a_file: Path, tmp_path: Path) -> None:
    def again(*options: object) -> Ended:
        return run_flowkit("train", "--device", "cpu", "--config", from_a_file, *options)

    first = tmp_path / "weights" / "mine.safetensors"
    assert again().code == 0
    assert trained.settings.weights == first
    moved = shutil.move(first, from_a_file.parent / "mine.safetensors")  # beside the record
    assert again().code == 0
    assert trained.settings.weights == Path(moved)
    elsewhere = Path(shutil.move(moved, tmp_path / "elsewhere.safetensors"))
    ended = again()
    assert ended.code == 2
    assert "mine.safetensors (SHA-256 " in ended.err
    assert "does not exist; give it with --weights FILE" in ended.err
    ended = again("--weights", elsewhere)
    assert (ended.code, ended.err) == (0, "")
    elsewhere.write_bytes(b"second")
    ended = again("--weights", elsewhere)
    assert ended.code == 0
    assert "is not what the training" in ended.err
    shutil.move(elsewhere, first)
    ended = again()
    assert ended.code == 2
    assert "has other contents than when this was recorded" in ended.err
    record = json.loads(from_a_file.read_text(encoding="utf-8"))
    del record["weights_file"]
    from_a_file.write_text(json.dumps(record), encoding="utf-8")
    assert "whose name is not recorded; give it with --weights FILE" in again().err


def test_phases_of_different_recipes_are_not_one_training(trained: Trained, undisturbed: tuple[Path, list[Any]], tmp_path: Path) -> None:
    run = Path(shutil.copytree(undisturbed[0] / "runs/default/split1", tmp_path / "mixed"))
    path = run / "motion" / "config.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["config"]["recipe"] = "official"
    path.write_text(json.dumps(record), encoding="utf-8")
    ended = run_flowkit("train", "--device", "cpu", "--config", run)
    assert ended.code == 2
    assert "trained with different recipe" in ended.err
    shutil.rmtree(run / "motion")
    ended = run_flowkit("train", "--device", "cpu", "--config", run)
    assert ended.code == 2
    assert "and not of motion; give --phase appearance or --phase st-resnet" in ended.err


def test_videos_that_were_held_out_are_held_out_again(
    trained: Trained, undisturbed: tuple[Path, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(undisturbed[0] / "runs/default/split1", tmp_path / "held"))
    for phase in PHASES:
        path = run / phase / "config.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(record | {"validation": {"fraction": 0.25, "seed": 3, "video_ids": ["a"]}}), encoding="utf-8")
    monkeypatch.setenv("FLOWKIT_VALIDATION_GROUPS", "9")
    for config in (run, run / "motion" / "config.json"):
        assert run_flowkit("train", "--device", "cpu", "--config", config).code == 0
        assert trained.settings.validation == Validation(0.25)
        assert trained.settings.all_overrides["seed"] == 3  # of the draw
        assert trained.configs()["motion"].seed == recorded(undisturbed[0], "motion").seed
    assert run_flowkit("train", "--device", "cpu", "--config", undisturbed[0] / "runs/default/split1").code == 0
    assert trained.settings.validation is None
    monkeypatch.delenv("FLOWKIT_VALIDATION_GROUPS")
    assert run_flowkit("train", "--device", "cpu", "--config", run, "--validation-groups", "1,2").code == 0
    assert trained.settings.validation == Validation(groups=(1, 2))
    assert train('recipe = "small"\nvalidation-groups = [4]\n', "--validation", "0.5").code == 0
    assert trained.settings.validation == Validation(0.5)


def test_the_settings_that_are_written_to_a_file_are_those_of_the_training(root: Path, trained: Trained) -> None:
    options = [
        "--recipe",
        "small",
        "--batch",
        "6",
        "--lr",
        "0.125",
        "--set",
        "motion.tau_max=3",
        "--injection-stages",
        "4,5",
        "--amp",
        "bf16",
    ]
    line = ["train", "--data", root, "--device", "cpu", *options]
    ended = run_flowkit(*line, "--write-config", "mine.toml")
    assert ended.code == 0, ended
    assert not hasattr(trained, "settings")
    assert run_flowkit(*line).code == 0
    straight = trained.configs(), trained.called["execution"].amp
    assert run_flowkit("train", "--data", root, "--device", "cpu", "--config", "mine.toml").code == 0
    assert (trained.configs(num_videos=999, short_side=256), trained.called["execution"].amp) == straight
    ended = run_flowkit(*line, "--write-config", "mine.toml")
    assert ended.code == 1
    assert "mine.toml exists already" in ended.err


def test_the_written_file_names_weights_by_path_and_digest(trained: Trained, from_a_file: Path, root: Path) -> None:
    ended = run_flowkit("train", "--data", root, "--device", "cpu", "--config", from_a_file, "--write-config", "mine.toml")
    assert ended.code == 0, ended
    text = Path("mine.toml").read_text(encoding="utf-8")
    assert "weights_sha256 = " in text
    assert 'phase = "motion"' in text
    assert run_flowkit("train", "--device", "cpu", "--config", "mine.toml").code == 0
    assert trained.settings.weights == from_a_file.parents[1] / "weights" / "mine.safetensors"
    (from_a_file.parents[1] / "weights" / "mine.safetensors").write_bytes(b"changed")
    assert "has other contents" in run_flowkit("train", "--device", "cpu", "--config", "mine.toml").err


def test_a_training_from_a_trained_network_is_replayed_with_that_network_only(
    undisturbed: tuple[Path, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = share_root(undisturbed[0], tmp_path / "root")
    first = Path(shutil.copytree(undisturbed[0] / "runs/default/split1/motion", root / "runs/first/split1/motion"))
    line = ["train", "--data", root, "--device", "cpu"]
    begun = [*line, "--phase", "motion", "--init-from", "first", "--steps-per-phase", "1", "--batch", "4", "--bn-group", "2"]
    assert run_flowkit(*begun, "--write-config", tmp_path / "mine.toml").code == 0
    assert run_flowkit(*begun, "--run", "second").code == 0
    second = root / "runs/second/split1/motion/config.json"
    made = read_recorded(second).provenance
    for number, config in enumerate((second, tmp_path / "mine.toml")):
        ended = run_flowkit(*line, "--config", config, "--run", f"again{number}")
        assert ended.code == 0, ended
        again = read_recorded(root / f"runs/again{number}/split1/motion/config.json").provenance
        assert again.config == made.config
        assert again.first_network == made.first_network
    monkeypatch.setattr(chain, "train_phases", lambda *_, **__: chain.TrainReport((), (), False))
    shutil.rmtree(first)
    shutil.copytree(second.parent, first)
    for config in (second, tmp_path / "mine.toml"):
        ended = run_flowkit(*line, "--config", config, "--run", "third")
        assert ended.code == 2
        assert "has other contents than when this was recorded" in ended.err
        ended = run_flowkit(*line, "--config", config, "--run", "third", "--init-from", "first")
        assert ended.code == 0, ended
        assert "is not what the training in" in ended.err


def test_values_of_settings_give_the_settings_again() -> None:
    for recipe in RECIPE_NAMES:
        configs = make_configs(recipe, num_classes=6, num_videos=50, short_side=90, overrides={"depth": 101, "motion.flip": False})
        values = values_of(configs)
        assert make_configs(recipe, num_classes=6, num_videos=9, short_side=256, file=values) == configs
        assert json.loads(json.dumps(values)) == values
        one = {"motion": configs["motion"]}
        again = make_configs(recipe, num_classes=6, num_videos=9, short_side=256, file=values_of(one))
        assert again["motion"] == configs["motion"]
