"""metrics.jsonl: what each step of a phase measured, one JSON object per line, and the scale of its losses.

Losses are cross-entropies per frame and stream: ``loss_<stream>`` is the mean over the outputs of a stream in time, and ``loss`` the
mean over the streams. Guessing among C classes therefore gives ln C in every phase. Each line says in ``outputs`` how many outputs in
time a stream has. A line without it is from an earlier flowkit, whose losses were sums over these outputs and over the streams.

A measurement on the validation videos has a line of its own, with the step that it follows: ``validation_accuracy`` and
``validation_loss`` of the scores of complete videos, and the same of each stream as ``validation_accuracy_<stream>``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flowkit.model.settings.training import TrainConfig
from flowkit.records import parse_json

OUTPUTS = "outputs"
VALIDATION_ACCURACY, VALIDATION_LOSS = "validation_accuracy", "validation_loss"


def read_metrics(path: Path, config: TrainConfig) -> dict[int, dict[str, Any]]:
    """Return the lines of a metrics.jsonl by step, with all losses per frame and stream, whichever flowkit wrote them.

    Parameters
    ----------
    path : Path
        The file, which may be missing.
    config : TrainConfig
        The settings of its phase.

    Returns
    -------
    dict from int to dict
        In the order of steps. Lines that are cut off or foreign are left out. If a step was taken twice, its later line counts.
        What was measured on the validation videos after a step is among its values.
    """
    lines: dict[int, dict[str, Any]] = {}
    for text in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            line = parse_json(text)
            step = line["step"]
        except (ValueError, KeyError, TypeError):
            continue
        if type(step) is not int or not 0 <= step < 1 << 53:
            continue
        if VALIDATION_ACCURACY in line:
            lines[step] = lines.get(step, {}) | line
        else:
            lines[step] = line if OUTPUTS in line else _per_output(line, config)
    return dict(sorted(lines.items()))


def _per_output(line: dict[str, Any], config: TrainConfig) -> dict[str, Any]:
    """Return a line of an earlier flowkit with its losses as means instead of sums."""
    streams = config.streams
    parts = {f"loss_{stream}": config.num_outputs for stream in streams} | {"loss": config.num_outputs * len(streams)}
    sums = {name: line[name] for name in parts if type(line.get(name)) is float}
    return line | dict.fromkeys(parts) | {name: value / parts[name] for name, value in sums.items()}
