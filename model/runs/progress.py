"""Progress of training, evaluation and ablation on stderr, from their events."""

from __future__ import annotations

from flowkit.dataset.progress import StageProgress
from flowkit.model.runs import events
from flowkit.words import counted, duration, printable_name


class RunProgress:
    """Shows the events of `flowkit.model.runs.events` as bars and messages; give it as `on_event`, inside a `with` block.

    Parameters
    ----------
    progress : bool or None
        Whether to show anything; None: on a terminal and in a notebook.
    """

    def __init__(self, progress: bool | None = None) -> None:
        self._stages = StageProgress(progress)
        self._run_is_described = False
        self._first_step: int | None = None
        self._steps_done: tuple[int, int] | None = None

    def __enter__(self) -> RunProgress:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        self._stages.close(failed=kind is not None)

    def __call__(self, event: events.AblationEvent) -> None:
        """Show one event."""
        message = self._stages.message
        if isinstance(event, events.StepDone):
            self._show_step(event)
        elif isinstance(event, events.Validating):
            if self._steps_done is not None and self._steps_done[0] < self._steps_done[1]:  # after the last step its bar is complete
                note = f"validation {event.done}/{event.num_videos}"
                self._stages.update(event.phase, *self._steps_done, unit="steps", note=note)
        elif isinstance(event, events.Validated):
            message(_validated_text(event))
        elif isinstance(event, events.WeightsSelected):
            which = f"step {event.step} of {event.num_steps}, which had the best validation accuracy ({100 * event.accuracy:.1f} %)"
            message(f"{event.phase}: keeps the weights of {which}.")
        elif isinstance(event, events.MomentsRenewed):
            self._stages.update(f"{event.phase}, batch norm", event.done, event.num_steps, unit="steps")
        elif isinstance(event, events.FeaturesComputed):
            self._stages.update(f"features of {event.of}", event.done, event.num_videos)
        elif isinstance(event, events.VideosScored):
            note = f"{event.num_failed} failed" if event.num_failed else ""
            what = "validate" if event.of_validation else "evaluate"
            self._stages.update(f"{what} split {event.split}", event.done, event.num_videos, note=note)
        elif isinstance(event, events.RunStarted):
            if not self._run_is_described:  # each variant of an ablation begins with the same description
                start = f"weights {printable_name(event.weights)}" if event.weights else "the phases before it"
                start = "random weights" if event.weights == "none" else start
                why = f" (auto: {event.why_recipe})" if event.why_recipe else ""
                held_out = f"{event.num_held_out} more held out for validation, " if event.num_held_out else ""
                message(
                    f"Recipe {event.recipe}{why} on {event.device}, from {start}: {counted(event.num_videos, 'training video')}, "
                    f"{held_out}{counted(event.num_classes, 'class')}."
                )
                if len(event.num_steps) > 1:
                    steps = (f"{phase} ({counted(number, 'step')})" for phase, number in event.num_steps)
                    message(f"To train: {', '.join(steps)}.")
                if event.num_empty_classes:
                    message(
                        f"Without a training video: {event.num_empty_classes} of the classes. They are never drawn, whatever --balance, "
                        "and the network only learns not to choose them."
                    )
                for note in event.notes:
                    message(f"Validation: {printable_name(note)}.")
            self._run_is_described = True
        elif isinstance(event, events.NetworksTaken):
            for line in event.lines:
                message(printable_name(line))
            for text in event.warnings:
                self._stages.warning(f"Warning: {printable_name(text)}.")
        elif isinstance(event, events.PhaseSkipped):
            message(f"{event.phase}: already done ({printable_name(event.folder)}); nothing to do.")
        elif isinstance(event, events.PhaseStarted):
            self._first_step = self._steps_done = None
            if event.first_step:
                message(f"{event.phase}: continues at step {event.first_step} of {event.num_steps}.")
            if event.changes:
                message(f"{event.phase}: not bit-equal to an uninterrupted run, because {printable_name('; '.join(event.changes))}.")
        else:
            self._stages.close()
            if isinstance(event, events.SplitStarted):
                if event.num_kept:
                    scored = f"{counted(event.num_kept, 'video')} {'was' if event.num_kept == 1 else 'were'} scored"
                    message(f"split {event.split}: {scored} by an earlier call that was interrupted.")
                self._stages.update(f"evaluate split {event.split}", 0, event.num_videos)
            elif isinstance(event, events.VariantStarted):
                phases = " and ".join(event.phases)
                message(f"[{event.number + 1}/{event.num_variants}] {event.name} ({event.settings}): {phases} in run {event.run}")
            elif isinstance(event, events.VariantFailed):
                message(f"{event.name} failed: {printable_name(event.reason)}")

    def _show_step(self, event: events.StepDone) -> None:
        """Count a step; after the first of a phase, say how long the others will take."""
        if self._first_step is None:
            self._first_step = event.step
            remaining = event.num_steps - event.step - 1
            self._stages.message(
                f"{event.phase}: {counted(remaining + 1, 'step')}; the first took {event.seconds:.2g} s, so the rest takes "
                f"{duration(remaining * event.seconds)} or less."
            )
        self._steps_done = event.step + 1, event.num_steps
        self._stages.update(event.phase, *self._steps_done, unit="steps", note=f"loss {event.loss:.3f}", first=self._first_step)


def _validated_text(event: events.Validated) -> str:
    loss = "not a finite number" if event.loss is None else f"{event.loss:.3f}"
    when = f"step {event.step} of {event.num_steps}"
    best = ", the best so far" if event.is_best else ""
    videos = counted(event.num_videos, "video")
    return f"{event.phase}: {when}: validation accuracy {100 * event.accuracy:.1f} %, loss {loss} ({videos}){best}."
