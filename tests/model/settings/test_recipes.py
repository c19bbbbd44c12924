"""Recipes: the official code's table as data, schedules that fit a list, overrides, learning rates by step."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from phases import PHASES

from flowkit.errors import ParameterError
from flowkit.model.settings.recipes import RECIPE_NAMES, TrainSettings, scaled
from flowkit.model.settings.training import TrainConfig
from flowkit.model.systems.configs import OVERRIDES, make_configs, phases_with
from flowkit.model.systems.shared.residual_recipes import small_network


def official(num_videos: int = 9537, **settings: Any) -> Any:
    return make_configs("official", num_classes=101, num_videos=num_videos, short_side=256, **settings)


def test_the_official_recipe_on_ucf101_split_1_is_the_official_codes_table() -> None:
    configs = official()
    assert {phase: config.schedule for phase, config in configs.items()} == {
        "appearance": ((746, 1e-2), (746, 1e-3), (746, 1e-4)),
        "motion": ((7451, 1e-2), (7451, 1e-3), (7451, 1e-4), (7451, 1e-5)),
        "st-resnet": ((2238, 1e-3), (2238, 1e-4), (1492, 1e-5)),
        "st-resnet-star": ((75, 1e-4), (75, 1e-5)),
    }
    settings = {p: (c.num_samples, c.tau_min, c.tau_max, c.batch, c.bn_group, c.crop, c.network.motion_dropout) for p, c in configs.items()}
    assert settings == {
        "appearance": (1, 1, 1, 256, 32, "borders25", 0.0),
        "motion": (1, 1, 1, 128, 32, "regular", 0.8),
        "st-resnet": (5, 5, 15, 128, 4, "borders25", 0.0),
        "st-resnet-star": (11, 1, 15, 128, 4, "borders25", 0.0),
    }
    for phase, config in configs.items():
        assert (config.momentum, config.weight_decay, config.bn_momentum, config.decay) == (0.9, 5e-4, 0.05, "steps")
        assert (config.network.input_size, config.network.base_width, config.network.units) == (224, 64, (3, 4, 6, 3))
        assert config.network.temporal_pool == (phase == "st-resnet-star")


def test_the_paper_s_schedule_as_far_as_it_is_known_has_the_paper_s_batches() -> None:
    for num_videos in (9537, 90):  # for lists of any length
        assert {phase: config.schedule for phase, config in official(num_videos, paper_schedule=True).items()} == {
            "appearance": ((10_000, 1e-2), (10_000, 1e-3)),
            "motion": ((30_000, 1e-2), (10_000, 1e-3)),
            "st-resnet": ((30_000, 1e-3), (30_000, 1e-4), (20_000, 1e-5)),
            "st-resnet-star": ((2_000, 1e-4), (2_000, 1e-5)),
        }
        groups = {phase: (config.batch, config.bn_group) for phase, config in official(num_videos, paper_schedule=True).items()}
        assert groups == {"appearance": (256, 8), "motion": (258, 86), "st-resnet": (128, 4), "st-resnet-star": (128, 4)}
    assert official(paper_schedule=True)["st-resnet"].num_steps == 80_000
    smaller = official(paper_schedule=True, overrides={"batch": 129})["motion"]
    assert (smaller.batch, smaller.bn_group, smaller.num_steps) == (129, 43, 40_000)


def test_the_schedule_follows_the_list_and_the_batch() -> None:
    assert [steps for steps, _ in official(3570)["st-resnet"].schedule] == [3 * 279, 3 * 279, 2 * 279]  # HMDB51
    assert official(10, overrides={"batch": 8, "bn_group": 4})["appearance"].schedule[0] == (2 * 13, 1e-2)  # ceil(10 * 10 / 8)


def test_learning_rate_by_step_follows_the_schedule() -> None:
    config = official()["motion"]
    for step, rate in ((0, 1e-2), (7450, 1e-2), (7451, 1e-3), (14902, 1e-4), (22353, 1e-5), (29803, 1e-5)):
        assert config.learning_rate(step) == rate
    assert config.num_steps == 29804


def test_cosine_rises_over_the_warm_up_and_falls_to_nothing() -> None:
    config = make_configs("small", num_classes=9, num_videos=90, short_side=64)["appearance"]
    rates = [config.learning_rate(step) for step in range(config.num_steps)]
    peak = config.schedule[0][1]
    warm = config.warmup_steps
    assert rates[0] == pytest.approx(peak / (warm + 1))
    assert max(rates) == pytest.approx(peak)
    assert all(a < b for a, b in itertools.pairwise(rates[:warm]))
    assert all(a > b for a, b in itertools.pairwise(rates[warm:]))
    assert rates[-1] < 1e-3 * peak


@pytest.mark.parametrize(("short_side", "input_size"), [(256, 112), (128, 112), (64, 56), (48, 40), (32, 32)])
def test_the_small_recipe_sees_seven_eighths_of_the_frame_up_to_112_px(short_side: int, input_size: int) -> None:
    assert small_network(short_side)["input_size"] == input_size


def test_steps_scale_the_schedule_and_lr_keeps_its_ratios() -> None:
    configs = official(overrides={"steps": 20, "lr": 0.5})
    assert {phase: config.num_steps for phase, config in configs.items()} == dict.fromkeys(PHASES, 20)
    assert [rate for _, rate in configs["motion"].schedule] == pytest.approx([0.5, 0.05, 0.005, 0.0005])


@pytest.mark.parametrize(("batch", "groups"), [(8, [8, 8, 4, 4]), (48, [24, 24, 4, 4]), (9, [9, 9, 3, 3]), (7, [7, 7, 1, 1])])
def test_a_batch_without_a_group_takes_the_largest_that_divides_it(batch: int, groups: list[Any]) -> None:
    assert [config.bn_group for config in official(overrides={"batch": batch}).values()] == groups


@pytest.mark.parametrize("num_steps", [1, 2, 7, 20, 1000])
def test_a_scaled_schedule_has_exactly_the_steps(num_steps: int) -> None:
    parts = scaled(((2238, 1e-3), (2238, 1e-4), (1492, 1e-5)), num_steps)
    assert sum(steps for steps, _ in parts) == num_steps
    assert all(steps > 0 for steps, _ in parts)


def test_overrides_may_be_for_one_phase_and_the_phase_s_own_wins() -> None:
    configs = official(overrides={"motion.batch": 64, "batch": 32, "bn_group": 16, "st-resnet.temporal_init": "center"})
    assert {phase: config.batch for phase, config in configs.items()} == dict.fromkeys(PHASES, 32) | {"motion": 64}
    assert configs["st-resnet"].network.temporal_init == "center"
    assert configs["st-resnet-star"].network.temporal_init == "average"


def test_a_phase_s_own_schedule_wins_over_the_steps_and_rate_of_all() -> None:
    configs = official(overrides={"motion.schedule": [[9, 0.5]], "steps": 12, "lr": 0.125})
    assert configs["motion"].schedule == ((9, 0.5),)
    assert {config.num_steps for phase, config in configs.items() if phase != "motion"} == {12}


def test_settings_of_two_streams_do_not_tell_base_streams_apart() -> None:
    plain, ablated = official(), official(overrides={"injection": "direct", "temporal_padding": "replicate"})
    assert plain["appearance"] == ablated["appearance"]
    assert plain["motion"] == ablated["motion"]
    assert plain["st-resnet"] != ablated["st-resnet"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"bacth": 3}, "no setting 'bacth'"),
        ({"st.batch": 3}, "no setting 'st.batch'"),
        ({"weights": "x"}, "no setting"),
        ({"batch": 0}, "batch must be"),
        ({"batch": 10, "bn_group": 4}, "multiple of bn_group"),
        ({"batch": 1, "bn_group": 1}, "bn_group must be at least 2"),
        ({"steps": 0}, "steps must be"),
        ({"lr": "fast"}, "lr must be"),
        ({"tau_min": 9, "tau_max": 3}, "tau_max must be at least tau_min"),
        ({"tau_drawn": "step"}, "tau_drawn must be one of clip, sub_batch"),
        ({"corners": "two"}, "corners must be one of four, diagonal"),
        ({"flip": 1}, "flip must be true or false"),
        ({"momentum": 2}, "momentum must be in"),
        ({"schedule": [[0, 0.1]]}, "schedule must be"),
        ({"motion.base_width": 32}, "base_width must be the same in all phases"),
        ({"depth": 51}, "depth must be one of"),
        ({"depth": [50]}, "depth must be one of"),
        ({"stage_units": 5}, "stage_units must be four"),
        ({"motion_dropout": "x"}, "motion_dropout must be in"),
        ({"input_size": 5000}, "input_size must be a whole number of 32 to 4096"),
        ({"schedule": [[9, 0.1]], "lr": 0.2}, "leave out lr"),
        ({"schedule": [[9, 0.1]], "motion.steps": 3}, "leave out steps"),
        ({"motion.schedule": [[9, 0.1]], "motion.lr": 0.2}, "leave out lr"),
        ({"injection_stages": [1, 2]}, "injection_stages must be a list of some of 2, 3, 4, 5"),
        ({"injection_stages": []}, "for none: injection none"),
        ({"temporal_stages": ()}, "for none: temporal_convolution false"),
        ({"temporal_stages": "2,3"}, "temporal_stages must be a list"),
        ({"temporal_stages": [True]}, "temporal_stages must be a list"),
    ],
)
def test_values_that_cannot_be_are_refused_by_name(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        official(overrides=overrides)


def test_a_config_survives_json() -> None:
    for config in (*official().values(), *make_configs("small", num_classes=9, num_videos=90, short_side=64).values()):
        assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(("depth", "units"), [(50, (3, 4, 6, 3)), (101, (3, 4, 23, 3)), (152, (3, 8, 36, 3))])
@pytest.mark.parametrize("recipe", ["official", "small"])
def test_a_depth_that_is_asked_for_is_that_of_every_phase(recipe: str, depth: int, units: tuple[Any, ...]) -> None:
    configs = make_configs(recipe, num_classes=9, num_videos=90, short_side=64, overrides={"depth": depth})
    assert {config.network.units for config in configs.values()} == {units}


def test_stages_are_kept_in_order_each_once() -> None:
    network = official(overrides={"injection_stages": [5, 3, 5], "temporal_stages": (4,)})["st-resnet"].network
    assert (network.injection_stages, network.temporal_stages) == ((3, 5), (4,))


def test_a_config_from_before_there_were_stages_to_choose_has_all_of_them() -> None:
    config = official()["st-resnet"]
    values = config.to_dict()
    for name in ("injection_stages", "temporal_stages"):
        assert values["network"].pop(name) == [2, 3, 4, 5]
    assert TrainConfig.from_dict(values) == config


def test_a_config_from_before_the_rules_for_running_moments_could_be_chosen_has_the_old_ones() -> None:
    values = official()["motion"].to_dict()
    assert (values.pop("bn_moments"), values.pop("bn_renewal_steps")) == ("std", 0)
    old = TrainConfig.from_dict(values)
    assert (old.bn_moments, old.bn_renewal_steps) == ("variance", 0)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"schedule": [[1000, 0.01], [60, 0.001]]}, 0),
        ({"schedule": [[1000, 0.01], [59, 0.001]]}, 20),
        ({"schedule": [[7, 0.01], [6, 0.001]]}, 13),
        ({"schedule": [[7, 0.01], [59, 0.001]], "decay": "cosine"}, 0),
        ({"schedule": [[7, 0.01], [52, 0.001]], "decay": "cosine"}, 20),
        ({"schedule": [[29, 0.01]], "bn_momentum": 0.1}, 10),
        ({"schedule": [[30, 0.01]], "bn_momentum": 0.1}, 0),
        ({"schedule": [[1, 0.01]], "bn_momentum": 0}, 0),
        ({"schedule": [[1, 0.01]], "bn_renewal_steps": 0}, 0),
    ],
)
def test_moments_are_renewed_where_the_last_learning_rate_lasts_for_fewer_steps_than_they_remember(
    settings: dict[str, Any], expected: int
) -> None:
    assert {config.bn_renewal_steps for config in official(overrides=settings).values()} == {expected}


@pytest.mark.parametrize(("num_videos", "expected"), [(9537, [0, 0, 0, 0]), (3570, [0, 0, 0, 20]), (10, [6, 20, 8, 2])])
def test_of_the_official_schedules_only_short_ones_renew_their_moments(num_videos: int, expected: list[int]) -> None:
    configs = make_configs("official", num_classes=9, num_videos=num_videos, short_side=256)
    assert [config.bn_renewal_steps for config in configs.values()] == expected


@pytest.mark.parametrize("recipe", ["official", "own", "small"])
@pytest.mark.parametrize("phase", PHASES)
def test_every_value_of_a_recipe_can_be_set(recipe: str, phase: str) -> None:
    """Each name that `--set list` prints reaches the configuration of this phase."""
    other = {
        "batch": 8, "bn_group": 4, "schedule": [[7, 0.5]], "num_samples": 3, "tau_min": 2, "tau_max": 9, "tau_drawn": "sub_batch",
        "seed": 5, "decay": "cosine", "warmup_steps": 3, "momentum": 0.5, "weight_decay": 0.1, "bn_momentum": 0.2, "bn_average_first": True,
        "bn_moments": "variance", "bn_renewal_steps": 7, "select": "best", "validation_steps": 4,
        "balance": "weights", "skip_cuts": True,
        "crop": "none", "corners": "diagonal", "flip": False, "depth": 101, "stage_units": [2, 2, 3, 2], "base_width": 8, "input_size": 96,
        "stride_in_1x1": True, "injection": "direct", "injection_direction": "both", "injection_kind": "multiplicative",
        "injection_stages": [2], "temporal_convolution": False, "temporal_stages": [5], "temporal_init": "center",
        "temporal_padding": "replicate", "temporal_pool": True, "temporal_pool_position": "before_pool5", "head_pool": "global",
        "motion_dropout": 0.25, "stem_pool": "ceil", "rgb_offset": [0.5, 0.25, 0.0], "temporal_pool_stride": 1,
    }  # fmt: skip
    for name, value in other.items():
        needed = {"batch": 12} if name == "bn_group" else {"tau_max": 15} if name == "tau_min" else {}
        config = make_configs(recipe, num_classes=9, num_videos=90, short_side=64, overrides={**needed, name: value})[phase]
        reached = config.to_dict() | config.network.to_dict()
        if phase.startswith("st-") or name not in ABOUT_TWO_STREAMS | {OF_THE_OTHER_STREAM.get(phase)}:
            assert reached[name] == value, name
    steps = make_configs(recipe, num_classes=9, num_videos=90, short_side=64, overrides={"steps": 12, "lr": 0.125})[phase]
    assert (steps.num_steps, steps.schedule[0][1]) == (12, 0.125)
    assert {name for name in OVERRIDES if set(phases_with(name)) & set(PHASES)} == {*other, "steps", "lr"}


OF_THE_OTHER_STREAM = {"appearance": "motion_dropout", "motion": "rgb_offset"}  # which a base stream does not have
ABOUT_TWO_STREAMS = {
    *("injection", "injection_direction", "injection_kind", "injection_stages", "temporal_pool", "temporal_pool_position"),
    *("temporal_convolution", "temporal_stages", "temporal_init", "temporal_padding", "temporal_pool_stride"),
}


def test_a_config_of_the_recipe_paper_reads_as_official() -> None:
    for config in official().values():
        assert TrainConfig.from_dict({**config.to_dict(), "recipe": "paper"}) == config
        assert TrainConfig.from_dict({**config.to_dict(), "recipe": "mine"}).recipe == "mine"


def test_an_unknown_or_missing_setting_of_a_stored_config_is_refused() -> None:
    values = official()["motion"].to_dict()
    with pytest.raises(ParameterError, match="unknown training settings: speed"):
        TrainConfig.from_dict({**values, "speed": 1})
    del values["network"]
    with pytest.raises(ParameterError, match=r"incomplete.*network"):
        TrainConfig.from_dict(values)


def test_what_a_recipe_leaves_open_depends_on_the_device() -> None:
    places = [("cpu", True), ("cpu", False), ("cuda", True), ("cuda", False)]

    def of(settings: TrainSettings, what: str) -> list[str]:
        return [getattr(settings, what)(device, is_official_list=official) for device, official in places]

    assert of(TrainSettings(), "recipe_on") == ["small", "small", "official", "own"]
    why = ["the device is not a GPU", "the device is not a GPU", "UCF101's or HMDB51's lists", "not UCF101's or HMDB51's lists"]
    assert of(TrainSettings(), "why_recipe") == why
    for recipe in ("official", "own", "small"):
        assert of(TrainSettings(recipe), "recipe_on") == [recipe] * 4
        assert of(TrainSettings(recipe), "why_recipe") == [""] * 4
    assert {recipe: TrainSettings().weights_for(recipe) for recipe in RECIPE_NAMES} == {
        "official": "imagenet",
        "own": "imagenet",
        "small": "none",
    }
    assert TrainSettings("official", "none").weights_for("official") == "none"
    assert TrainSettings(weights="a/resnet.pth").weights_for("own") == Path("a/resnet.pth")
    with pytest.raises(ParameterError, match="recipe must be one of auto, official, own, small"):
        TrainSettings("tiny")
    with pytest.raises(ParameterError, match="the recipe paper is now called official"):
        TrainSettings("paper")  # type: ignore[arg-type]


def test_the_recipe_own_has_steps_enough_for_short_lists_and_follows_long_ones() -> None:
    def steps(num_videos: int, **settings: Any) -> dict[str, int]:
        configs = make_configs("own", num_classes=5, num_videos=num_videos, short_side=256, **settings)
        assert all(config.network.units == (3, 4, 6, 3) for config in configs.values())
        assert configs["motion"].network.motion_dropout < 0.5
        return {phase: config.num_steps for phase, config in configs.items()}

    assert official(213)["st-resnet-star"].num_steps == 4
    assert steps(10) == steps(213)
    assert min(steps(10).values()) >= 100
    assert all(few < many for few, many in zip(steps(213).values(), steps(20_000).values(), strict=True))
    assert set(steps(10, overrides={"steps": 7}).values()) == {7}
    assert steps(10, overrides={"schedule": [[3, 0.1]]})["motion"] == 3
    with pytest.raises(ParameterError, match="the paper's schedule is one of the recipe official; the recipe own has one schedule"):
        steps(10, paper_schedule=True)


def test_more_overrides_leave_the_settings_alone() -> None:
    settings = TrainSettings("official", overrides={"lr": 1, "batch": 4})
    assert settings.but({"lr": 2}) == TrainSettings("official", overrides={"lr": 2, "batch": 4})
    assert settings.overrides == {"lr": 1, "batch": 4}


def test_settings_are_shown_without_their_defaults() -> None:
    config = official()["motion"]
    assert repr(config.network) == "STResNetConfig(num_classes=101, motion_dropout=0.8)"
    assert repr(config).startswith(
        "TrainConfig(phase='motion', network=STResNetConfig(num_classes=101, motion_dropout=0.8), recipe='official'"
    )
    assert "tau_min" not in repr(config)
