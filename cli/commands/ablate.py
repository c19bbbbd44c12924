"""``flowkit ablate``: variants of ST-ResNet from the same base streams, trained, tested and set beside the paper's in one table."""

from __future__ import annotations

import json
import re
import signal
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import click

from flowkit.cli.commands.evaluate import EvaluationDisplay
from flowkit.cli.commands.train import (
    TrainingDisplay,
    execution_options,
    read_setting,
    recipe_options,
    train_settings,
)
from flowkit.cli.shared.compute_options import read_execution
from flowkit.cli.shared.console import say, show_name, table, warn
from flowkit.cli.shared.exit_codes import EXIT_SOME_FAILED
from flowkit.cli.shared.options import data_option, json_option, split_option
from flowkit.cli.shared.stopping import resume_command, stop_signals
from flowkit.model.ablation.variants import ST_PHASES, VARIANT_SETS, Variant, chosen_variants
from flowkit.model.settings.recipes import OVERRIDES

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from flowkit.model.ablation.run import PlannedVariant
    from flowkit.model.runs.events import AblationEvent

_SETS = "\n\n".join(
    f"\b\n{name}: {', '.join(variant.name for variant in one.variants)}\n{textwrap.indent(textwrap.fill(one.question, 74), '  ')}"
    for name, one in VARIANT_SETS.items()
)


@click.command(epilog="The sets:\n\n" + _SETS)
@click.argument("sets", nargs=-1, type=click.Choice([*VARIANT_SETS, "all"]), metavar="[SET]...")
@data_option
@split_option
@click.option(
    "--variants",
    "own",
    multiple=True,
    metavar="NAME=SETTING=VALUE[,SETTING=VALUE]...",
    help="A variant of one's own, as --variants early=injection_stages=[2,3],temporal_init=center.",
)
@click.option(
    "--run",
    default="default",
    show_default=True,
    metavar="NAME",
    help="The run whose base streams all variants start from; it is trained where it is not. A variant's run is NAME+VARIANT.",
)
@click.option(
    "--phase",
    type=click.Choice(["all", "st-resnet"]),
    default="all",
    show_default=True,
    help="Compare ST-ResNet and ST-ResNet*, or ST-ResNet alone.",
)
@recipe_options
@execution_options
@click.option("--restart", is_flag=True, help="Discard what the variants' runs have and train them anew; the base run is left alone.")
@click.option("--dry-run", is_flag=True, help="Say which variants there are, and how many steps each takes; do nothing.")
@json_option
def ablate(
    sets: tuple[str, ...],
    data: Path,
    split: int,
    own: tuple[str, ...],
    run: str,
    phase: str,
    recipe: str,
    schedule: str,
    weights: str | None,
    others: tuple[str, ...],
    device: str,
    grace: float,
    restart: bool,
    dry_run: bool,
    as_json: bool,
    **settings: Any,
) -> int:
    """Train and test variants of ST-ResNet, all from the same base streams, beside the paper's network.

    What is trained and tested already is left alone, and what was stopped goes on, when the same line is run again. A variant that
    cannot be trained (its loss is no number any more, say) is told in the table and does not stop the others.
    """
    if "list" in others:
        say("\n".join(OVERRIDES))
        return 0
    names = list(VARIANT_SETS) if "all" in sets else list(sets)
    variants = chosen_variants(names, map(_own_variant, own))
    if not variants:
        raise click.UsageError(f"name sets of variants ({', '.join(VARIANT_SETS)}, all), or give variants of your own with --variants")
    from flowkit.cli.shared.ranks import is_elastic_restart, ranks_from_environment
    from flowkit.model.ablation.run import ablate as run_ablation
    from flowkit.model.ablation.run import plan_ablation
    from flowkit.model.ablation.table import NOTES, ablation_dict, ablation_table, failure_lines

    with ranks_from_environment(device) as (rank, world, own_device), stop_signals(grace) as stop:
        execution = read_execution(settings, device=own_device, rank=rank, world=world)
        phases = ST_PHASES if phase == "all" else ST_PHASES[:1]
        training = train_settings(recipe, schedule, weights, settings, others)
        planned, same = plan_ablation(data, variants, training, split=split, run=run, phases=phases, execution=execution)
        if rank == 0 and same:
            warn(f"No different from the paper in {', '.join(phases)}, so left out: {', '.join(variant.name for variant in same)}.")
        if dry_run:
            say(json.dumps(_plan_dict(planned), indent=1) if as_json else _plan_table(planned))
            return 0
        with AblationDisplay(quiet=rank > 0) as display:
            report = run_ablation(
                data,
                variants,
                training,
                split=split,
                run=run,
                phases=phases,
                execution=execution,
                restart=restart and not is_elastic_restart(),
                on_event=display.tell,
                should_stop=stop.asked,
            )
    if rank:
        return 128 + (stop.signal_number or signal.SIGTERM) if report.stopped else 0
    if report.results:
        if as_json:
            say(json.dumps(ablation_dict(report.results, split=split, base_run=run, complete=not report.stopped)))
        else:
            say(table(*ablation_table(report.results)))
            say("\n".join(f"* {note}" for note in NOTES))
        warn(f"Results in {show_name(report.folder)}: ablation.md, ablation.json.")
    for line in failure_lines(report.results):
        warn(show_name(line))
    for result in report.results:
        if result.num_failed_videos:
            warn(f"{result.variant.name}: {result.num_failed_videos} test videos could not be scored; `flowkit evaluate` names them.")
    if report.stopped:
        warn(f"Stopped with a checkpoint. The same line goes on from there:\n  {resume_command(sys.argv[1:])}")
        return 128 + (stop.signal_number or signal.SIGTERM)
    bad = any(result.failure is not None or result.num_failed_videos for result in report.results)
    return EXIT_SOME_FAILED if bad else 0


class AblationDisplay:
    """Turns an ablation's events into progress on stderr."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet, self._runs = quiet, 0
        self._training, self._evaluation = TrainingDisplay(quiet=quiet), EvaluationDisplay(quiet=quiet)

    def __enter__(self) -> AblationDisplay:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._training.__exit__(kind, error, trace)
        self._evaluation.close()

    def tell(self, event: AblationEvent) -> None:
        """Show one event."""
        from flowkit.model.runs import events

        if self._quiet:
            return
        if isinstance(event, events.VariantStarted):
            place = f"[{event.number + 1}/{event.num_variants}]"
            warn(f"{place} {event.name} ({event.settings}): {' and '.join(event.phases)} in run {event.run}")
        elif isinstance(event, events.VariantFailed):
            self._training.__exit__(None, None, None)
            self._evaluation.close()
            warn(f"{event.name} failed: {show_name(event.reason)}")
        elif isinstance(event, events.VariantTested):
            self._evaluation.close()
        elif isinstance(event, (events.SplitStarted, events.VideosScored)):
            self._evaluation.tell(event)
        elif isinstance(event, events.RunStarted):
            self._runs += 1
            if self._runs == 1:  # the others say the same
                self._training.tell(event)
        else:
            self._training.tell(event)


def _plan_table(planned: list[PlannedVariant]) -> str:
    phases = planned[0].phases
    rows = []
    for one in planned:
        steps = [str(one.configs[phase].num_steps) if phase in one.configs else "-" for phase in phases]
        rows.append([one.variant.name, one.run, str(one.variant), *steps])
    return table(["variant", "run", "settings", *(f"{phase} steps" for phase in phases)], rows)


def _plan_dict(planned: list[PlannedVariant]) -> dict[str, Any]:
    variants = [
        {
            "name": one.variant.name,
            "run": one.run,
            "settings": one.variant.settings,
            "steps": {p: c.num_steps for p, c in one.configs.items()},
        }
        for one in planned
    ]
    return {"format": "flowkit-ablation-plan", "format_version": 1, "variants": variants}


def _own_variant(text: str) -> Variant:
    """Read NAME=SETTING=VALUE[,SETTING=VALUE]...; a comma that no SETTING= follows belongs to the value."""
    name, equals, settings = text.partition("=")
    if not equals or not settings:
        raise click.UsageError(f"--variants takes NAME=SETTING=VALUE[,SETTING=VALUE]..., got {text!r}")
    parts = re.split(r",(?=[\w.-]+=)", settings)
    return Variant(name, dict(read_setting(part, option=f"--variants {name}") for part in parts))
