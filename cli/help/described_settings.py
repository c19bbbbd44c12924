"""The settings of training, described for help: default in each recipe and phase, type, meaning and phases.

default_text          the default of a setting, as an option's help shows it
described_settings    all settings that ``--set`` takes, from the docstrings of the settings
settings_text         the same as text
did_you_mean          a question about the setting that was probably meant
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from flowkit.model.settings.recipes import RECIPE_NAMES, RecipeName
from flowkit.model.settings.training import TrainConfig
from flowkit.model.systems.configs import OVERRIDES, phases_with
from flowkit.model.systems.registry import DEFAULT_SYSTEM, PHASES, SYSTEMS

if TYPE_CHECKING:
    from flowkit.model.settings.phase import PhaseDescription

_SHORT_SIDE = 256  # of frames, for which the small recipe's network is shown
# What depends on the data, in words.
_IN_WORDS = {
    ("official", "steps"): "the official code's epochs",
    ("own", "steps"): "at least 300, 600, 300, 150 by phase",
    ("small", "input_size"): "7/8 of the frames' short side and at most 112",
}


def default_text(name: str) -> str:
    """Return the default of a setting in words, such as ``256, 128, 128, 128 by phase; 32, 32, 16, 16 by phase in recipes own and small``.

    Parameters
    ----------
    name : str
        A name of `flowkit.model.systems.configs.OVERRIDES`.

    Returns
    -------
    str
        The value in the official recipe and, where it is another, in each other recipe. Values that differ between phases are in the
        order of the phases.
    """
    texts = {recipe: _IN_WORDS.get((recipe, name)) or _by_phase(recipe, name) for recipe in RECIPE_NAMES}
    first = texts["official"]
    recipes_of: dict[str, list[str]] = {}
    for recipe, text in texts.items():
        recipes_of.setdefault(text, []).append(recipe)
    others = [
        f"{text} in {'recipe' if len(recipes) == 1 else 'recipes'} {' and '.join(recipes)}"
        for text, recipes in recipes_of.items()
        if text != first
    ]
    return "; ".join([first, *others])


def _by_phase(recipe: RecipeName, name: str) -> str:
    usual = SYSTEMS[DEFAULT_SYSTEM].networks
    concerned = [PHASES[phase] for phase in phases_with(name)]
    shown = [PHASES[phase] for phase in usual] if any(phase.name in usual for phase in concerned) else concerned
    values = [_text(_value(recipe, phase, name)) for phase in shown]
    return values[0] if len(set(values)) == 1 else f"{', '.join(values)} by phase"


def _value(recipe: RecipeName, phase: PhaseDescription, name: str) -> Any:
    """Return the value of a setting in one phase of a recipe."""
    entry = phase.recipes[recipe]
    if name == "lr":
        return (entry.steps or entry.epochs)[0][1]
    if name == "steps":
        return sum(steps for steps, _ in entry.steps)
    defaults = {item.name: item.default for kind in (phase.network, TrainConfig) for item in fields(kind)}  # type: ignore[arg-type]
    value = (entry.network_at(_SHORT_SIDE) | entry.settings).get(name, defaults[name])
    assert value is not MISSING, name
    return value


def _text(value: Any) -> str:
    """Return a value as it is typed."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)


_OF_SCHEDULE = {  # names that `make_configs` takes beside the fields of the settings
    "steps": ("int", "The steps of a phase; the schedule is scaled to them."),
    "lr": ("float", "The first learning rate of a phase; later ones keep their ratio to it."),
}
_ENTRY = re.compile(r"^    (\w+(?:, \w+)*) : (.+)\n((?:        .+\n)+)", re.MULTILINE)


@dataclass(frozen=True)
class Setting:
    """What one name means.

    Parameters
    ----------
    name, kind, meaning : str
        The name, the type of the value, and what it does.
    phases : str
        The phases that it concerns.
    default : str
        Its value in each recipe.
    """

    name: str
    kind: str
    meaning: str
    phases: str
    default: str


def described_settings() -> list[Setting]:
    """Return all settings that ``--set`` takes, sorted by name."""
    texts = dict(_OF_SCHEDULE)
    kinds = dict.fromkeys(phase.network for phase in reversed(PHASES.values()))  # those of the first phases are the last, and stay
    for kind in (*kinds, TrainConfig):
        for names, of_type, meaning in _ENTRY.findall(kind.__doc__ or ""):
            texts |= {name: (of_type, " ".join(meaning.split())) for name in names.split(", ")}
    return [Setting(name, *texts.get(name, ("", "")), _phases_of(name), _default_of(name)) for name in OVERRIDES]


def _phases_of(name: str) -> str:
    """Return the names of the phases that a setting concerns, or ``all``."""
    phases = phases_with(name)
    return "all" if len(phases) == len(PHASES) else ", ".join(phases)


def settings_text() -> str:
    """Return the description of all settings as text, a paragraph for each."""
    paragraphs = []
    for setting in described_settings():
        facts = f"default: {setting.default}" + ("" if setting.phases == "all" else f"; phases: {setting.phases}")
        body = textwrap.fill(f"{setting.meaning}  [{facts}]", 100, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
        paragraphs.append(f"{setting.name} : {setting.kind}\n{body}")
    return "\n".join(paragraphs)


def did_you_mean(name: str) -> str:
    """Return a question about the setting that was probably meant; empty if no name is close."""
    inner = [known for known in OVERRIDES if name and name in known.split("_")]
    close = get_close_matches(name, OVERRIDES, n=1) or inner[:1]
    return f"; did you mean {close[0]}?" if close else ""


def _default_of(name: str) -> str:
    """Return the default, where a recipe has one."""
    return {"schedule": "the recipe's steps and rates", "bn_renewal_steps": "what the schedule needs", "temporal_pool": "by phase"}.get(
        name
    ) or default_text(name)
