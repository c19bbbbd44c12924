"""Progress: what the events of training, evaluation and ablation look like on stderr, and where they are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowkit.dataset.progress import Verbosity, set_verbosity
from flowkit.errors import ParameterError
from flowkit.model.runs import events
from flowkit.model.runs.progress import RunProgress
from flowkit.model.training.chain import train

TRAINING = [
    events.RunStarted("small", "cpu", "none", 12, 6),
    events.PhaseSkipped("appearance", Path("runs/default/split1/appearance")),
    events.PhaseStarted("motion", 2, 4, ("device was cpu, now x\n",)),
    events.StepDone("motion", 2, 4, 1.5, 0.1, 3.0, 0.0),
    events.StepDone("motion", 3, 4, 1.25, 0.1, 3.0, 0.0),
    events.PhaseDone("motion", Path("motion"), 6.0),
]
EVALUATION = [events.SplitStarted(2, 5), events.VideosScored(2, 4, 5, 1), events.VideosScored(2, 5, 5, 1)]
VARIANT = events.VariantStarted("direct", "injection direct", 1, 3, "default+direct", ("st-resnet", "st-resnet-star"))


def shown(capsys: pytest.CaptureFixture[str], given: Any, progress: bool = True) -> Any:
    with RunProgress(progress) as show:
        for event in given:
            show(event)
    return capsys.readouterr().err.splitlines()


def test_training_is_described_phase_by_phase(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, TRAINING)
    assert lines[:5] == [
        "Recipe small on cpu, from random weights: 12 training videos, 6 classes.",
        "appearance: already done (runs/default/split1/appearance); nothing to do.",
        "motion: continues at step 2 of 4.",
        "motion: not bit-equal to an uninterrupted run, because device was cpu, now x\\n.",
        "motion: 2 steps; the first took 3 s, so the rest takes 3.0 s or less.",
    ]
    assert lines[5].startswith("motion: 4/4 steps in ")
    assert lines[5].endswith(", loss 1.250")
    assert len(lines) == 6


def test_a_quiet_process_leaves_out_everything_but_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    given = [*TRAINING, events.NetworksTaken(("From other: motion from motion.",), ("other saw\nother flow",))]
    set_verbosity(Verbosity.QUIET)
    try:
        assert shown(capsys, given) == ["Warning: other saw\\nother flow."]
        assert shown(capsys, given, progress=False) == []
    finally:
        set_verbosity(Verbosity.NORMAL)


def test_validation_is_said_in_one_line_and_which_weights_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    told = [
        events.RunStarted(
            "small",
            "cpu",
            "none",
            12,
            6,
            num_held_out=3,
            notes=("1 class without a validation video: b",),
            num_steps=(("motion", 4), ("st-resnet", 1200)),
        ),
        events.Validating("motion", 1, 3),
        events.Validated("motion", 2, 4, 3, 2 / 3, 0.5, is_best=True),
        events.Validated("motion", 4, 4, 3, 1 / 3, None),
        events.WeightsSelected("motion", 2, 4, 2 / 3),
    ]
    assert shown(capsys, told) == [
        "Recipe small on cpu, from random weights: 12 training videos, 3 more held out for validation, 6 classes.",
        "To train: motion (4 steps), st-resnet (1,200 steps).",
        "Validation: 1 class without a validation video: b.",
        "motion: step 2 of 4: validation accuracy 66.7 %, loss 0.500 (3 videos), the best so far.",
        "motion: step 4 of 4: validation accuracy 33.3 %, loss not a finite number (3 videos).",
        "motion: keeps the weights of step 2 of 4, which had the best validation accuracy (66.7 %).",
    ]


def test_evaluation_has_a_bar_of_videos(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = shown(capsys, EVALUATION)
    assert line.startswith("evaluate split 2: 5/5 videos in ")
    assert line.endswith(", 1 failed")


def test_classes_without_a_training_video_are_counted_with_what_becomes_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    (described, told) = shown(
        capsys, [events.RunStarted("own", "cuda:0", "imagenet", 12, 6, num_empty_classes=2, why_recipe="not UCF101's lists")]
    )
    assert described.startswith("Recipe own (auto: not UCF101's lists) on cuda:0, from weights imagenet: 12 training videos, 6 classes.")
    assert told.startswith("Without a training video: 2 of the classes.")


def test_an_ablation_names_its_variants_and_describes_the_run_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, [TRAINING[0], VARIANT, TRAINING[0], *EVALUATION, events.VariantFailed("direct", "loss\nnan")])
    assert lines[0].startswith("Recipe small")
    assert lines[1] == "[2/3] direct (injection direct): st-resnet and st-resnet-star in run default+direct"
    assert lines[2].startswith("evaluate split 2: 5/5")
    assert lines[3] == "direct failed: loss\\nnan"
    assert len(lines) == 4


def test_nothing_is_shown_unless_it_is_wanted_or_somebody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    for progress in (False, None):  # the stderr of a test is not a terminal
        assert shown(capsys, [*TRAINING, VARIANT, *EVALUATION], progress) == []


def test_a_phase_that_fails_leaves_no_line_of_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    def diverge() -> None:
        with RunProgress(True) as show:
            show(TRAINING[3])
            raise ParameterError("the loss is nan")

    with pytest.raises(ParameterError):
        diverge()
    (line,) = capsys.readouterr().err.splitlines()
    assert "the first took" in line


def test_training_shows_progress_when_asked_and_reports_events_all_the_same(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    received = []
    overrides = {"base_width": 4, "input_size": 32, "batch": 4, "bn_group": 2, "steps": 2}
    train(str(root), phases=["motion"], overrides=overrides, progress=True, on_event=received.append)
    assert "motion: 2/2 steps" in capsys.readouterr().err
    assert sum(isinstance(event, events.StepDone) for event in received) == 2
    train(root, phases=["motion"], overrides=overrides)
    assert capsys.readouterr().err == ""
