"""Systems as data: their phases exist, their rows are in the table, and no file of one is long."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from phases import PHASES, ROWS

import flowkit.model.systems.registry as registry
from flowkit.errors import ParameterError
from flowkit.model.data.sampling import phase_number
from flowkit.model.evaluation.published import PUBLISHED
from flowkit.model.evaluation.rows import ALL_ROWS, SYSTEM_ROWS, last_row, table_rows
from flowkit.model.settings.recipes import RECIPE_NAMES
from flowkit.model.settings.training import TrainConfig
from flowkit.model.systems.configs import make_configs
from flowkit.model.systems.registry import SYSTEMS, find_system
from flowkit.model.systems.replay import values_of

MOST_LINES = 80


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_names_phases_and_rows_that_exist(name: str) -> None:
    system = find_system(name)
    assert system.name == name
    assert set(system.phases) <= {*registry.PHASES, *registry.SVM_PHASES}
    assert {phase for row in system.rows for phase, _ in row.parts} <= set(system.phases)
    assert system.row in ALL_ROWS
    assert set(system.joined) <= set(ALL_ROWS)
    assert not system.joined or system.row == " + ".join(system.joined)
    assert system.citation
    for key, figure in system.published.items():
        by_row = {row.name: row.published.get(key) for row in system.rows}
        assert figure == (by_row | PUBLISHED[key].top1 | PUBLISHED[key].top1_with_idt)[system.row]


def test_the_networks_are_the_phases_that_training_knows() -> None:
    assert SYSTEMS["st-resnet"].networks == PHASES
    assert SYSTEMS["idt"].networks == ()
    assert SYSTEMS["two-streams+idt"].networks == ("appearance", "motion")
    with pytest.raises(ParameterError, match=r"system must be one of st-resnet, idt"):
        find_system("c4d")


def test_a_joined_row_comes_after_the_rows_that_it_joins() -> None:
    for row, joined in SYSTEM_ROWS.items():
        assert all(ALL_ROWS.index(part) < ALL_ROWS.index(row) for part in joined)


def test_reports_are_about_the_last_network_or_else_about_the_last_row() -> None:
    assert last_row(["motion", "IDT", "two-streams + IDT"]) == "motion"
    assert last_row(["IDT"]) == "IDT"
    assert table_rows(["motion"]) == tuple(ROWS)
    assert table_rows(["IDT"]) == (*ROWS, "IDT")
    assert last_row(["VGG-M motion", "appearance"]) == "appearance"
    assert table_rows(["VGG-M motion"]) == ("VGG-M appearance", "VGG-M motion", "VGG-M two-streams")
    assert table_rows(["VGG-M motion", "appearance"])[: len(ROWS)] == tuple(ROWS)


def test_no_two_phases_draw_the_same_numbers() -> None:
    numbers = {phase: phase_number(phase) for phase in registry.PHASES}
    assert len(set(numbers.values())) == len(numbers)
    assert [numbers[phase] for phase in PHASES] == [0, 1, 2, 3]


@pytest.mark.parametrize("name", registry.PHASES)
def test_a_phase_starts_from_phases_of_its_system_and_has_all_recipes(name: str) -> None:
    phase = registry.description_of(name)
    assert set(phase.recipes) == set(RECIPE_NAMES)
    assert all(set(phase.starts_from) <= set(system.networks) for system in SYSTEMS.values() if name in system.networks)
    for recipe in RECIPE_NAMES:
        config = make_configs(recipe, phases=[name], num_classes=3, num_videos=50, short_side=64)[name]
        assert TrainConfig.from_dict(config.to_dict()) == config
        values = values_of(make_configs(recipe, phases=[name], num_classes=3, num_videos=50, short_side=64))
        assert make_configs(recipe, phases=[name], num_classes=3, num_videos=9, short_side=256, file=values)[name] == config


def test_a_system_is_a_short_file() -> None:
    files = sorted(Path(registry.__file__).parent.glob("*.py"))
    made = {path: re.findall(r"^\w+ = (?:System|with_idt)\(", path.read_text(encoding="utf-8"), re.MULTILINE) for path in files}
    ours = [path for path, names in made.items() if names]
    assert sum(map(len, made.values())) == len(SYSTEMS) + len(registry.NOT_BUILT)
    assert all(len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES for path in ours)
