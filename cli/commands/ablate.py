"""``flowkit ablate``: variants of ST-ResNet that start from the same base streams, compared in one table."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowkit.cli.help.format import Command
from flowkit.cli.shared.compute_options import read_execution
from flowkit.cli.shared.console import counted, inform, say, say_json, show_name, table, warn
from flowkit.cli.shared.exit_codes import EXIT_SOME_FAILED
from flowkit.cli.shared.options import data_option, json_option, refuse_unused, reports_option, runs_option, split_option
from flowkit.cli.shared.seeds import chosen_seeds, seeds_option, show_seed
from flowkit.cli.shared.stopping import report_stopped, stop_signals
from flowkit.cli.shared.training.recipe_options import execution_options, read_setting, recipe_options, train_settings
from flowkit.cli.shared.training.training_commands import command_in_another_run, refuse_unused_schedule, with_lower_rate
from flowkit.model.ablation.variants import BASE_PHASES, ST_PHASES, VARIANT_SETS, Variant, chosen_variants

if TYPE_CHECKING:
    from flowkit.model.ablation.run import AblationReport, PlannedVariant
    from flowkit.model.ablation.seeds import SeedAblation

_SETS = "\n\n".join(
    f"\b\n{name}: {', '.join(variant.name for variant in variants.variants)}\n{textwrap.indent(textwrap.fill(variants.question, 74), '  ')}"
    for name, variants in VARIANT_SETS.items()
)


@click.command(cls=Command, epilog="The sets:\n\n" + _SETS)
@click.argument("sets", nargs=-1, type=click.Choice([*VARIANT_SETS, "all"]), metavar="[SET]...")
@data_option
@split_option
@click.option(
    "--variants",
    "own",
    multiple=True,
    metavar="NAME=SETTING=VALUE[,SETTING=VALUE]...",
    help="Your own variant, such as --variants early=injection_stages=[2,3],temporal_init=center.",
)
@click.option(
    "--run",
    default="default",
    show_default=True,
    metavar="NAME",
    help="The run whose base streams all variants start from; they are trained if necessary. A variant's run is NAME+VARIANT.",
)
@runs_option
@reports_option
@click.option(
    "--phase",
    type=click.Choice(["all", "st-resnet"]),
    default="all",
    show_default=True,
    help="Compare ST-ResNet and ST-ResNet*, or only ST-ResNet.",
)
@seeds_option("Repeat the ablation for each of these seeds, from the runs NAME-seed0, NAME-seed1, ..., and average over them.")
@recipe_options
@execution_options
@click.option("--restart", is_flag=True, help="Discard the variants' runs and train them again; the base run is kept.")
@click.option("--dry-run", is_flag=True, help="Print the variants and the steps that each takes, and do nothing.")
@json_option
def ablate(
    sets: tuple[str, ...],
    data: Path,
    split: int,
    own: tuple[str, ...],
    run: str,
    runs: Path | None,
    reports: Path | None,
    phase: str,
    seeds: tuple[int, ...] | None,
    device: str,
    grace: float,
    restart: bool,
    dry_run: bool,
    as_json: bool,
    **settings: Any,
) -> int:
    """Train and test variants of ST-ResNet and the reference, the network without changes, all from the same base streams.

    When the same line is run again, variants that are trained and tested already are skipped, and one that was stopped resumes. A
    variant that cannot be trained (for example because its loss is not a number) is named in the table and does not stop the others.
    """
    names = list(VARIANT_SETS) if "all" in sets else list(sets)
    variants = chosen_variants(names, map(_own_variant, own))
    if not variants:
        raise click.UsageError(f"name sets of variants ({', '.join(VARIANT_SETS)}, all), or give your own variants with --variants")
    if dry_run:
        refuse_unused("--dry-run discards and trains nothing", "restart")
    from flowkit.cli.shared.ranks import is_elastic_restart, ranks_from_environment
    from flowkit.errors import CheckpointError, ParameterError
    from flowkit.model.ablation.run import ablate as run_ablation
    from flowkit.model.ablation.run import plan_ablation
    from flowkit.model.ablation.seeds import SeedAblation, refuse_to_lose_seeds
    from flowkit.model.runs.places import report_folder
    from flowkit.model.runs.progress import RunProgress
    from flowkit.model.runs.run_folder import writing_report
    from flowkit.model.runs.seeds import seed_run
    from flowkit.model.runs.training_data import OtherSettingsError
    from flowkit.model.training.loop import NotFiniteLossError
    from flowkit.model.training.prepare import prepare_training

    seeds = chosen_seeds(seeds, seed=settings["seed"], others=settings["others"])
    bases = [run] if seeds is None else [seed_run(run, seed) for seed in seeds]
    reports_of_all: list[AblationReport] = []
    folder = report_folder(data, run, split, reports=reports)
    try:
        with ranks_from_environment(device) as (rank, world, own_device), stop_signals(grace) as stop:
            execution = read_execution(settings, device=own_device, rank=rank, world=world)
            phases = ST_PHASES if phase == "all" else ST_PHASES[:1]
            training = train_settings(settings)
            refuse_unused_schedule(training, execution.torch_device().type)
            plans = [plan_ablation(data, variants, training, split=split, run=base, phases=phases, execution=execution) for base in bases]
            same = plans[0][1]
            if rank == 0 and same:
                left_out = ", ".join(variant.name for variant in same)
                inform(f"left out because they equal the reference in {', '.join(phases)}: {left_out}.")
            if dry_run:
                planned = [plan for planned, _ in plans for plan in planned]
                say_json("ablation-plan", _plan_dict(planned)) if as_json else say(_plan_table(planned))
                return 0
            if seeds is not None:
                refuse_to_lose_seeds(folder, seeds)
                if rank == 0:
                    click.get_current_context().with_resource(writing_report(folder, "ablate"))
            trainings = [training] if seeds is None else [training.with_seed(seed) for seed in seeds]
            for own_training, base in zip(trainings[1:], bases[1:], strict=True):  # refused before the first, not after hours
                prepare_training(data, own_training, split=split, run=base, runs=runs, phases=BASE_PHASES, execution=execution)
            for number, base in enumerate(bases):
                if seeds is not None and rank == 0:
                    show_seed(seeds, number, run=base)
                with RunProgress(rank == 0) as show:
                    report = run_ablation(
                        data,
                        variants,
                        trainings[number],
                        split=split,
                        run=base,
                        runs=runs,
                        reports=reports,
                        phases=phases,
                        execution=execution,
                        restart=number == 0 and restart and not is_elastic_restart(),
                        restart_too=bases[1:],
                        on_event=show,
                        should_stop=stop.asked,
                    )
                reports_of_all.append(report)
                if report.stopped:
                    break
    except NotFiniteLossError as error:
        lower = with_lower_rate(error.config, sys.argv[1:])
        another = command_in_another_run(sys.argv[1:], runs=runs or data / "runs", run=run, seeds=seeds, more=lower)
        raise ParameterError(f"{error}. With a tenth of it, in another run: `{another}`") from error
    except OtherSettingsError as error:
        another = command_in_another_run(sys.argv[1:], runs=runs or data / "runs", run=run, seeds=seeds)
        raise CheckpointError(f"{error}. To keep this run and train another: `{another}`") from error
    if rank:
        return report_stopped(stop) if report.stopped else 0
    if seeds is None:
        _print_results(report, run, split, as_json)
    for base, one in zip(bases, reports_of_all, strict=False):
        _print_notes(one, of="" if seeds is None else f"{base}: ")
    if report.stopped:
        return report_stopped(stop, "stopped with a checkpoint")
    if seeds is not None:
        _print_seeds(
            SeedAblation(run, {seed: one.results for seed, one in zip(seeds, reports_of_all, strict=True)}), folder, split, as_json
        )
    failed = any(result.failure is not None or result.num_failed_videos for one in reports_of_all for result in one.results)
    return EXIT_SOME_FAILED if failed else 0


def _print_results(report: AblationReport, run: str, split: int, as_json: bool) -> None:
    """Print the results of one ablation to stdout, if it has any."""
    from flowkit.model.ablation.table import NOTES, ablation_dict, ablation_table

    if not report.results:
        return
    if as_json:
        say(json.dumps(ablation_dict(report.results, split=split, base_run=run, complete=not report.stopped)))
    else:
        say(table(*ablation_table(report.results)))
        say("\n".join(f"* {note}" for note in NOTES))


def _print_notes(report: AblationReport, *, of: str) -> None:
    """Print where the results of one ablation are, and what failed; `of` says of which run, if there are several."""
    from flowkit.model.ablation.table import failure_lines

    if report.results:
        inform(f"Results in {show_name(report.folder)}: ablation.md, ablation.json.")
    for line in failure_lines(report.results):
        warn(show_name(f"{of}{line}"))
    for result in report.results:
        if result.num_failed_videos:
            warn(
                f"{of}{result.variant.name}: {counted(result.num_failed_videos, 'test video')} could not be scored; "
                "`flowkit evaluate` names each."
            )


def _print_seeds(made: SeedAblation, folder: Path, split: int, as_json: bool) -> None:
    """Write and print the table over seeds."""
    from flowkit.model.ablation.seeds import seeds_dict, seeds_notes, seeds_table, write_seeds

    paths = write_seeds(folder, made, split=split)
    if as_json:
        say(json.dumps(seeds_dict(made, split=split)))
    else:
        say(table(*seeds_table(made)))
        say("\n".join(f"* {note}" for note in seeds_notes(made)))
    inform(f"Table over the seeds in {show_name(folder)}: {', '.join(path.name for path in paths)}.")


def _plan_table(planned: list[PlannedVariant]) -> str:
    phases = planned[0].phases
    rows = []
    for plan in planned:
        steps = [str(plan.configs[phase].num_steps) if phase in plan.configs else "-" for phase in phases]
        rows.append([plan.variant.name, plan.run, str(plan.variant), *steps])
    return table(["variant", "run", "settings", *(f"{phase} steps" for phase in phases)], rows)


def _plan_dict(planned: list[PlannedVariant]) -> dict[str, Any]:
    variants = [
        {
            "name": plan.variant.name,
            "run": plan.run,
            "settings": plan.variant.settings,
            "steps": {phase: config.num_steps for phase, config in plan.configs.items()},
        }
        for plan in planned
    ]
    return {"variants": variants}


def _own_variant(text: str) -> Variant:
    """Read NAME=SETTING=VALUE[,SETTING=VALUE]...; a comma that is not followed by SETTING= belongs to the value."""
    name, equals, settings = text.partition("=")
    if not equals or not settings:
        raise click.UsageError(f"--variants takes NAME=SETTING=VALUE[,SETTING=VALUE]..., got {text!r}")
    parts = re.split(r",(?=[\w.-]+=)", settings)
    return Variant(name, dict(read_setting(part, option=f"--variants {name}") for part in parts))
