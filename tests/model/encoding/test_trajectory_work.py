"""Fitting the types of descriptors in processes: what is fitted is kept when a run is stopped, and is what one process fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowkit.errors import ParameterError
from flowkit.model.encoding import trajectory_work
from flowkit.model.encoding.fitting import encoder_of, fit_encoder
from flowkit.model.encoding.trajectory_tasks import FitTask
from flowkit.model.encoding.trajectory_work import fit_types
from flowkit.model.scoring.feature_journal import FeatureJournal
from flowkit.workers.stopping import StopRequest

RNG = np.random.default_rng(5)
SAMPLES = {name: RNG.normal(size=(300, size)).astype(np.float32) for name, size in (("shape", 4), ("hog", 8), ("hof", 6))}


def tasks(samples: Any = SAMPLES, *, num_components: int = 3) -> list[FitTask]:
    return [FitTask(name, sample, num_components, 0) for name, sample in samples.items()]


def fitted(folder: Path, todo: list[FitTask], *, jobs: int = 1, stop_after: int = 99) -> tuple[Any, list[tuple[int, int]]]:
    """Return what was fitted, and the progress that was reported; a stop is requested as soon as some types are done."""
    stop, seen = StopRequest(), []

    def show(num_done: int, num_types: int) -> None:
        seen.append((num_done, num_types))
        if num_done >= stop_after:
            stop.request()

    with FeatureJournal(folder / "journal", {}) as journal:
        return fit_types(todo, journal, jobs=jobs, stop=stop, grace_seconds=0.0, on_progress=show), seen


@pytest.mark.parametrize("jobs", [1, 2])
def test_processes_fit_what_one_process_fits(tmp_path: Path, jobs: int) -> None:
    types, seen = fitted(tmp_path, tasks(), jobs=jobs)
    expected = fit_encoder(SAMPLES, num_components=3, seed=0, provenance={"of": "a test"})
    assert encoder_of(types, num_components=3, seed=0, provenance={"of": "a test"}).digest() == expected.digest()
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_types_that_are_fitted_are_kept_when_the_run_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    types, seen = fitted(tmp_path, tasks(), stop_after=1)
    assert (types, seen[-1]) == (None, (1, 3))
    types, seen = fitted(tmp_path, tasks())
    assert seen[0] == (1, 3)
    assert [one.encoder.name for one in types] == ["shape", "hog", "hof"]
    monkeypatch.setattr(trajectory_work, "run_trajectory_task", None)  # nothing is left to do
    again, seen = fitted(tmp_path, tasks())
    assert seen == [(3, 3)]
    arrays, others = (encoder_of(found, num_components=3, seed=0, provenance={}).arrays() for found in (types, again))
    assert all(array.tobytes() == others[name].tobytes() for name, array in arrays.items())


def test_what_was_fitted_to_another_sample_is_not_used(tmp_path: Path) -> None:
    fitted(tmp_path, tasks())
    changed = SAMPLES | {"hog": SAMPLES["hog"] * np.float32(2)}
    _, seen = fitted(tmp_path, tasks(changed))
    assert seen[0] == (2, 3)


def test_a_type_that_cannot_be_fitted_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="hog: a descriptor of the sample is not finite"):
        fitted(tmp_path, tasks(SAMPLES | {"hog": np.full((300, 8), np.nan, np.float32)}))
