"""About how long the phases will train that a system lacks, on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flowkit.errors import FlowkitError
from flowkit.model.compute.execution import Execution
from flowkit.model.settings.recipes import TrainSettings
from flowkit.model.settings.training import Phase
from flowkit.model.systems.configs import overrides_of
from flowkit.model.systems.registry import PHASES
from flowkit.model.systems.system import System
from flowkit.model.training.prepare import prepare_training, with_fitting_weights
from flowkit.model.training.step_time import phase_seconds
from flowkit.words import rough_duration

NO_NETWORK = "it is an SVM, and the time of its vectors depends on the videos; docs/features.md has that of trajectories per frame"


@dataclass(frozen=True)
class Estimate:
    """About how long the missing phases of a system will train.

    Parameters
    ----------
    seconds : dict from phase to float
        The phases for which there is an estimate.
    recorded : tuple of str
        Those of them that were begun, so that their own steps tell how long a step takes; the others were measured.
    unknown : dict from phase to str
        The phases for which there is none, and why.
    """

    seconds: dict[Phase, float] = field(default_factory=dict)
    recorded: tuple[Phase, ...] = ()
    unknown: dict[Phase, str] = field(default_factory=dict)

    def __str__(self) -> str:
        known = [f"about {rough_duration(sum(self.seconds.values()))}"] if self.seconds else []
        return " + ".join([*known, *(f"{phase} (unknown)" for phase in self.unknown)]) or "-"

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as built-in types, for JSON."""
        seconds = {phase: round(value, 1) for phase, value in self.seconds.items()}
        return {"seconds": seconds, "recorded": list(self.recorded), "unknown": dict(self.unknown)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Estimate:
        """Return the estimate that `to_dict` gave; other errors than `KeyError`, `TypeError` and `ValueError` do not occur."""
        seconds = {str(phase): float(value) for phase, value in dict(values["seconds"]).items()}
        unknown = {str(phase): str(reason) for phase, reason in dict(values["unknown"]).items()}
        return cls(seconds, tuple(map(str, values["recorded"])), unknown)


class Estimates:
    """Estimates for the systems of a comparison; each phase is measured once.

    Parameters
    ----------
    root : Path
        The data root.
    training : TrainSettings
        How the phases would be trained.
    split : int
        The number of the split.
    run : str
        The run.
    runs : Path, optional
        The folder of the runs.
    execution : Execution
        Where and how to compute.
    should_stop : callable
        When it returns True, nothing more is measured.
    """

    def __init__(
        self,
        root: Path,
        training: TrainSettings,
        *,
        split: int,
        run: str,
        runs: Path | None,
        execution: Execution,
        should_stop: Callable[[], bool],
    ) -> None:
        self._root, self._training, self._places = root, training, {"split": split, "run": run, "runs": runs}
        self._execution, self._should_stop = execution, should_stop
        self._known: dict[Phase, tuple[float, bool] | str] = {}

    def of(self, system: System, missing: Sequence[Phase]) -> Estimate:
        """Return the estimate for the phases that a system lacks."""
        unmeasured = [phase for phase in missing if phase in PHASES and phase not in self._known]
        if unmeasured and not self._should_stop():
            self._measure(system, unmeasured)
        known = {phase: self._known.get(phase, NO_NETWORK if phase not in PHASES else "it was not measured") for phase in missing}
        return Estimate(
            {phase: found[0] for phase, found in known.items() if isinstance(found, tuple)},
            tuple(phase for phase, found in known.items() if isinstance(found, tuple) and found[1]),
            {phase: found for phase, found in known.items() if isinstance(found, str)},
        )

    def _measure(self, system: System, phases: Sequence[Phase]) -> None:
        try:
            own = replace(self._training, overrides=overrides_of(self._training.overrides, system.networks))
            how: dict[str, Any] = {**self._places, "phases": system.networks, "execution": self._execution}
            ready = prepare_training(self._root, with_fitting_weights(self._root, own, **how), **how)
        except (FlowkitError, OSError) as error:
            self._known |= dict.fromkeys(phases, str(error))
            return
        for phase in phases:
            if self._should_stop():
                return
            try:
                self._known[phase] = phase_seconds(ready, phase, should_stop=self._should_stop)
            except (FlowkitError, OSError) as error:
                self._known[phase] = str(error)
