"""What rows must reach on the generated videos of `flowkit.demo_videos`, whose class is one of three hues and one of three motions."""

from __future__ import annotations

from dataclasses import dataclass

from flowkit.demo_videos import APPEARANCES, MOTIONS
from flowkit.model.evaluation.row_results import RowResult
from flowkit.model.systems.system import System

# Their networks see one frame, which shows the hue and not the motion. Those that see several frames can know both halves.
SEE_ONE_FRAME = ("appearance", "vgg-m-appearance", "vgg-16-appearance")
LEAST = 0.95  # of rows that join both streams


@dataclass(frozen=True)
class Bar:
    """What one row must reach.

    Parameters
    ----------
    value : float
        An accuracy.
    is_ceiling : bool
        Whether the row's 95 % interval must reach down to it, because the networks see only one half of each class and must guess the
        other. Else the row must have at least this accuracy.
    """

    value: float
    is_ceiling: bool

    def holds(self, row: RowResult) -> bool:
        """Return whether a row does what it must."""
        return row.interval[0] <= self.value if self.is_ceiling else row.top1 >= self.value

    def __str__(self) -> str:
        return f"{'the interval reaches down to' if self.is_ceiling else 'at least'} {100 * self.value:.1f} %"


def bars_of(system: System) -> dict[str, Bar]:
    """Return what the rows of a system's networks must reach, by their names; a row of several frames without flow has no bar."""
    bars = {}
    for row in system.rows:
        phases = {phase for phase, _ in row.parts}
        if phases <= set(SEE_ONE_FRAME):
            bars[row.name] = Bar(1 / len(MOTIONS), is_ceiling=True)
        elif all(phase == "motion" or phase.endswith("-motion") for phase in phases):  # flow is computed on grey frames
            bars[row.name] = Bar(1 / len(APPEARANCES), is_ceiling=True)
        elif len({stream for _, stream in row.parts}) > 1:
            bars[row.name] = Bar(LEAST, is_ceiling=False)
    return bars
