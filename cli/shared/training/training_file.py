"""``--config FILE``: how to train, from a TOML file, from the config.json of a phase, or from the folder of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from flowkit.cli.help.format import Command
from flowkit.cli.shared.console import warn
from flowkit.cli.shared.settings_file import checked, meant, read_toml, refuse_if_not_from_file, setting_name, short
from flowkit.errors import CheckpointError, ParameterError
from flowkit.files import file_sha256, write_if_new
from flowkit.model.systems.configs import OVERRIDES, make_configs
from flowkit.model.systems.registry import PHASES, first_phases, starts_from
from flowkit.model.systems.replay import check_kind, values_of
from flowkit.records import check_depth, is_sha256
from flowkit.versions import __version__

if TYPE_CHECKING:
    from flowkit.model.settings.recipes import RecipeName
    from flowkit.model.settings.training import Phase
    from flowkit.model.training.prepare import PreparedTraining

_OTHER_NAMES = {"steps_per_phase": "steps"}  # options whose setting has another name
_FIX_STEPS = {"steps", "lr", "schedule"}  # a schedule of a file leaves no room for the others
_EXCLUSIVE = ({"validation", "validation_groups"},)
_DIGEST = "weights_sha256"
_NETWORK_DIGESTS = "init_from_sha256"


@dataclass(frozen=True)
class TrainingFile:
    """What ``--config`` names, after its options have been taken from it.

    Parameters
    ----------
    path : Path
        The file, or the folder of a run.
    values : dict
        Values that stand in the place of the recipe's, by the names of `make_configs`.
    options : dict
        Values of options of `flowkit train`, by the names of the settings.
    networks : tuple of str
        SHA-256 of the files of the trained networks from which it starts, where it records them.
    recorded : tuple of str
        The phases whose settings it has, if it records a training and so has every setting of theirs; empty for a TOML file.
    """

    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    networks: tuple[str, ...] = ()
    recorded: tuple[Phase, ...] = ()

    def check(self, recipe: RecipeName, *, phases: Sequence[Phase], paper_schedule: bool) -> None:
        """Raise a usage error that names the file if its values, with those of the recipe, are impossible."""
        try:
            make_configs(
                recipe,
                phases=phases,
                num_classes=2,
                num_videos=1000,
                short_side=256,
                paper_schedule=paper_schedule and recipe == "official",
                file=self.values,
            )
        except ParameterError as error:
            raise click.UsageError(f"{self.path}: {error}") from error

    def check_phases(self, phases: tuple[Phase, ...]) -> None:
        """Raise a usage error if the settings of some phases are wanted that a recorded training does not have."""
        missing = [phase for phase in phases if phase not in self.recorded] if self.recorded else []
        if missing:
            raise click.UsageError(
                f"{self.path} has the settings of {', '.join(self.recorded)}, and not of {', '.join(missing)}; give --phase "
                f"{' or --phase '.join(self.recorded)}"
            )

    def check_networks(self, now: Mapping[Path, str]) -> None:
        """Raise a usage error if trained networks are not those of the record; only a warning if the command line names them.

        Parameters
        ----------
        now : dict from path to str
            SHA-256 of each file of weights that is taken.
        """
        changed = next((path for path, digest in now.items() if digest not in self.networks), None)
        if not self.networks or changed is None:
            return
        if click.get_current_context().get_parameter_source("init_from") is ParameterSource.COMMANDLINE:
            warn(f"{changed} is not what the training in {self.path} started from")
            return
        raise click.UsageError(
            f"{self.path}: {changed} has other contents than when this was recorded (SHA-256 {now[changed][:12]}... now); give the former "
            "network, or another one to start from, with --init-from"
        )


class TrainCommand(Command):
    """A command that takes settings from the file that ``--config`` names: they win over the environment and flowkit.toml."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        path = ctx.params.get("config")
        if path is not None and not ctx.resilient_parsing:
            file = read_training_file(path, self)
            _refuse_typed_recipe(ctx, file)
            _take_options(ctx, self, file)
            ctx.params["config"] = file
        return rest


def config_option(command: Any) -> Any:
    """Add ``--config FILE``."""
    return click.option(
        "--config",
        type=click.Path(exists=True, path_type=Path),
        metavar="FILE",
        help="Take settings from a TOML file, from the config.json of a trained phase, or from the folder runs/NAME/split<n> of a run; "
        "options on the command line win over it.",
    )(command)


def read_training_file(path: Path, command: click.Command) -> TrainingFile:
    """Read what ``--config`` names.

    Parameters
    ----------
    path : Path
        A TOML file, a ``config.json``, or the folder of a phase, of a run's split, or of a run that has one split.
    command : click.Command
        The command, whose options a TOML file may set.

    Raises
    ------
    click.UsageError
        If it cannot be read, or has a key that is unknown or that a file may not set, or a value of the wrong kind.
    """
    try:
        if path.is_dir() or path.suffix.casefold() == ".json":
            return _read_run(path)
        return _read_toml(path, command)
    except (ParameterError, CheckpointError) as error:
        raise click.UsageError(str(error)) from error


def _read_toml(path: Path, command: click.Command) -> TrainingFile:
    """Read a TOML file: options of the command and values of the recipe at the top, and tables of values for one phase."""
    parameters = {setting_name(parameter): parameter for parameter in command.params if isinstance(parameter, click.Option)}
    names = {*parameters, *OVERRIDES} - {"config", "write_config", "set"}
    options: dict[str, Any] = {}
    values: dict[str, Any] = {}
    digest: Any = None
    networks: Any = []
    contents = read_toml(path)
    try:
        check_depth(contents)
    except ValueError as error:
        raise click.UsageError(f"{path}: {error}") from error
    for key, value in contents.items():
        name, where = key.replace("-", "_"), str(path)
        refuse_if_not_from_file(key, where)
        if key.replace("_", "-") in PHASES:
            values |= _phase_values(key.replace("_", "-"), value, where)
        elif name == _DIGEST:
            digest = value
        elif name == _NETWORK_DIGESTS:
            networks = value
        elif name == "set":
            raise click.UsageError(f"{where}: {key}: write each value under its own name, or in a table such as [motion]")
        elif isinstance(value, dict):
            raise click.UsageError(f"{where}: there is no phase {short(key)}{meant(key, PHASES)}; the phases are {', '.join(PHASES)}")
        elif _is_value(name, value):
            values |= {_OTHER_NAMES.get(name, name): value}
            _check(_OTHER_NAMES.get(name, name), value, where)
        elif name in parameters:
            options[name] = _from_folder(path, parameters[name], checked(value, parameters[name], f"{where}: {key}"))
        else:
            raise click.UsageError(f"{where}: there is no setting {short(key)}{meant(key, names)}")
    if {"seed", "seeds"} <= {*options, *values}:
        raise click.UsageError(f"{path}: seed and seeds exclude each other: give one seed, or several")
    if digest is not None:
        _check_weights(options.get("weights"), digest, path)
    if not isinstance(networks, list) or not all(map(is_sha256, networks)):
        raise click.UsageError(f"{path}: {_NETWORK_DIGESTS} must be a list of SHA-256 in hexadecimal")
    if networks and "init_from" not in options:
        raise click.UsageError(f"{path}: {_NETWORK_DIGESTS} has the digests of networks, and init_from names none")
    return TrainingFile(path, values, options, tuple(networks))


def _phase_values(phase: str, table: Any, where: str) -> dict[str, Any]:
    """Return the values of a table for one phase."""
    if not isinstance(table, dict):
        raise click.UsageError(f"{where}: [{phase}] must be a table of values of that phase")
    values = {}
    for key, value in table.items():
        name = _OTHER_NAMES.get(key.replace("-", "_"), key.replace("-", "_"))
        refuse_if_not_from_file(key, f"{where}, [{phase}]")
        if name not in OVERRIDES:
            raise click.UsageError(f"{where}, [{phase}]: there is no setting {short(key)} of a phase{meant(key, OVERRIDES)}")
        _check(name, value, f"{where}, [{phase}]")
        values[f"{phase}.{name}"] = value
    return values


def _is_value(name: str, value: Any) -> bool:
    """Return whether a key is one of the recipe's values; ``schedule = "paper"`` is the option of that name."""
    return _OTHER_NAMES.get(name, name) in OVERRIDES and not (name == "schedule" and isinstance(value, str))


def _check(name: str, value: Any, where: str) -> None:
    try:
        check_kind(name, value)
    except ParameterError as error:
        raise click.UsageError(f"{where}: {error}") from error


def _from_folder(path: Path, parameter: click.Parameter, value: Any) -> Any:
    """Return a path relative to the folder of the file, unless it is absolute; anything else as it is."""
    is_path = isinstance(parameter.type, click.Path) or (parameter.name == "weights" and value not in ("imagenet", "none"))
    return str(path.parent / value) if is_path else value


def _read_run(path: Path) -> TrainingFile:
    """Read what a training recorded: of one phase, or of all phases in the folder of a run."""
    from flowkit.model.runs.recorded import read_recorded

    files = _config_files(path)
    records = {made.provenance.config.phase: made for made in map(read_recorded, files)}
    values = values_of({phase: records[phase].provenance.config for phase in PHASES if phase in records})
    made = [record.provenance for record in records.values()]
    options: dict[str, Any] = {
        "recipe": _same(path, "recipe", [one.config.recipe for one in made]),
        "schedule": "code",  # what was chosen is in the values
        "split": _same(path, "split", [one.split for one in made]),
        "amp": _same(path, "precision", [one.precision for one in made]),
    }
    held = _same(path, "validation", [{key: value for key, value in one.validation.items() if key != "video_ids"} for one in made])
    options |= {"validation": held.get("fraction"), "validation_groups": held.get("groups")}
    if "seed" in held:  # of the draw of the videos; a phase may have another one
        values |= {"seed": held["seed"], **{f"{one.config.phase}.seed": one.config.seed for one in made}}
    if len(records) == 1:
        options["phase"] = made[0].config.phase
    given = next((record.init_from for record in records.values() if record.init_from), None)
    options |= {"init_from": given} if given else {}
    bases = [record for phase, record in records.items() if not starts_from(phase) and record.provenance.first_network is None]
    if bases:
        options["weights"] = _same(path, "weights", [record.provenance.config.weights for record in bases])
        if options["weights"].startswith("sha256:"):
            options["weights_file"] = next((record.weights_file for record in bases if record.weights_file), None)
    first = [one.first_network for one in made if one.first_network is not None]
    networks = dict.fromkeys(digest for network in first for digest in network.files.values())
    return TrainingFile(path, values, options, tuple(networks), tuple(phase for phase in PHASES if phase in records))


def _config_files(path: Path) -> list[Path]:
    """Return the ``config.json`` of a phase, or those of all phases in the folder of a run."""
    if not path.is_dir():
        return [path]
    if (path / "config.json").is_file():
        return [path / "config.json"]
    splits = sorted(folder for folder in path.glob("split*") if folder.is_dir())
    folder = splits[0] if len(splits) == 1 else path
    found = [folder / phase / "config.json" for phase in PHASES if (folder / phase / "config.json").is_file()]
    if not found:
        several = f"; it has {', '.join(split.name for split in splits[:5])}, of which one must be named" if len(splits) > 1 else ""
        raise click.UsageError(f"{path} holds no config.json of a phase{several}")
    return found


def _same(path: Path, what: str, values: list[Any]) -> Any:
    """Return the value that all phases of a run share."""
    if any(value != values[0] for value in values):
        raise click.UsageError(f"{path}: its phases were trained with different {what}; give the config.json of one phase at a time")
    return values[0]


def _refuse_typed_recipe(ctx: click.Context, file: TrainingFile) -> None:
    """Refuse options that do nothing, because a recorded training has every value of the recipe."""
    for name in ("recipe", "schedule") if file.recorded else ():
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name} would do nothing here: {file.path} has every value that a recipe has")


def _take_options(ctx: click.Context, command: click.Command, file: TrainingFile) -> None:
    """Give the parameters of a command the file's values, unless the command line sets them."""

    def is_typed(name: str) -> bool:
        return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE

    options = dict(file.options)
    weights_file = options.pop("weights_file", None)
    if str(options.get("weights", "")).startswith("sha256:"):
        options["weights"] = _found_weights(
            file.path, options["weights"], weights_file, typed=ctx.params["weights"] if is_typed("weights") else None
        )
    for names in _EXCLUSIVE:  # what is typed takes the place of all of them, and so does what the file has
        if any(map(is_typed, names)):
            options = {name: value for name, value in options.items() if name not in names}
        elif names & options.keys():
            options = dict.fromkeys(names) | options
    for parameter in command.params:
        name, setting = str(parameter.name), setting_name(parameter)
        if setting in options and not is_typed(name):
            try:
                ctx.params[name] = None if options[setting] is None else parameter.process_value(ctx, options[setting])
            except click.BadParameter as error:
                raise click.UsageError(f"{file.path}: {setting}: {error.message}") from error
            ctx.set_parameter_source(name, ParameterSource.DEFAULT_MAP)
    # What the environment and flowkit.toml say about values that the file sets.
    chosen = {name.rpartition(".")[2] for name in file.values}
    chosen |= _FIX_STEPS if "schedule" in chosen else set()
    chosen |= {"seeds"} if "seed" in chosen else {"seed"} if "seeds" in options else set()
    for name in chosen & ctx.params.keys():
        if name not in options and not is_typed(name):
            ctx.params[name] = None
    if not is_typed("others"):
        ctx.params["others"] = tuple(text for text in ctx.params["others"] if text.partition("=")[0].rpartition(".")[2] not in chosen)


def _found_weights(path: Path, identity: str, recorded: str | None, *, typed: str | None) -> str:
    """Return the file from which a recorded training started; a usage error if it is gone or has changed, unless another one is given."""
    digest = identity.removeprefix("sha256:")
    if typed is not None:
        if typed in ("imagenet", "none") or not Path(typed).is_file() or file_sha256(Path(typed)) != digest:
            warn(f"--weights {typed} is not what the training in {path} started from (a file with the SHA-256 {digest[:12]}...)")
        return typed
    if recorded is None:
        raise click.UsageError(
            f"{path}: the training started from a file with the SHA-256 {digest}, whose name is not recorded; give it with --weights FILE"
        )
    beside = (path if path.is_dir() else path.parent) / Path(recorded).name
    found = next((str(one) for one in (Path(recorded), beside) if one.is_file()), recorded)
    _check_weights(found, digest, path)
    return found


def _check_weights(weights: Any, digest: Any, path: Path) -> None:
    """Raise a usage error unless a file of weights has the digest that was recorded."""
    if not is_sha256(digest):
        raise click.UsageError(f"{path}: {_DIGEST} must be a SHA-256 in hexadecimal")
    if weights in (None, "imagenet", "none"):
        raise click.UsageError(f"{path}: {_DIGEST} is the digest of a file, and weights names none")
    if not Path(weights).is_file():
        raise click.UsageError(
            f"{path}: the training starts from {weights} (SHA-256 {digest[:12]}...), which does not exist; give it with --weights FILE"
        )
    now = file_sha256(Path(weights))
    if now != digest:
        raise click.UsageError(
            f"{path}: {weights} has other contents than when this was recorded (SHA-256 {digest[:12]}... then, {now[:12]}... now); give "
            "the former file, or another one to train from, with --weights FILE"
        )


# Options of `flowkit train` that are about one call or one machine, and not about what is trained.
_NOT_WRITTEN = {"config", "write_config", "set", "resume", "data", "runs", "run", "device", "grace", "tensorboard", "workers"}


def write_training_file(path: Path, ready: PreparedTraining) -> None:
    """Write a TOML file with which ``--config`` trains with the settings of this command.

    Parameters
    ----------
    path : Path
        The file, which must not exist.
    ready : PreparedTraining
        The training.

    Raises
    ------
    ParameterError
        If the file exists.
    """
    context = click.get_current_context()
    options: dict[str, Any] = {"recipe": ready.recipe, "split": ready.listed.number}
    if first_phases(ready.folders) and ready.initial.source is None:
        weights = ready.start.source
        options["weights"] = str(weights.absolute()) if isinstance(weights, Path) else weights
        options |= {_DIGEST: file_sha256(weights)} if isinstance(weights, Path) else {}
    if ready.initial.source is not None:
        source = str(ready.initial.source)
        is_run = (ready.weights.runs or ready.weights.root / "runs").joinpath(source).is_dir()
        options["init_from"] = source if is_run or not Path(source).exists() else str(Path(source).absolute())
        options[_NETWORK_DIGESTS] = list(ready.initial.digests.values())
    for parameter in context.command.params:
        name, value = setting_name(parameter), context.params.get(str(parameter.name))
        given = context.get_parameter_source(str(parameter.name)) not in (ParameterSource.DEFAULT, None)
        if given and value is not None and not {name, _OTHER_NAMES.get(name, name)} & {*_NOT_WRITTEN, *OVERRIDES, *options}:
            options[name] = value
    values = values_of({phase: ready.configs[phase] for phase in ready.folders})
    if "seeds" in options:
        values = {name: value for name, value in values.items() if name.rpartition(".")[2] != "seed"}
    comment = (
        f"How to train, as `flowkit train --write-config` of flowkit {__version__} wrote it: `flowkit train --config FILE` takes it.\n"
    )
    text = _toml_text(options, values, comment=f"{comment}Options on the command line win over it. Paths are relative to this file.")
    if not write_if_new(path, text):
        raise ParameterError(f"{path} exists already; delete it, or give another name with --write-config")


def _toml_text(options: Mapping[str, Any], values: Mapping[str, Any], *, comment: str) -> str:
    """Return a TOML file for ``--config``: options, then the values of all phases, then a table for each phase."""
    lines = [f"# {line}" for line in comment.splitlines()]
    lines += [f"{name} = {_toml(value)}" for name, value in options.items()]
    lines += ["", *(f"{name} = {_toml(value)}" for name, value in values.items() if "." not in name)]
    for phase in PHASES:
        own = {name.rpartition(".")[2]: value for name, value in values.items() if name.startswith(f"{phase}.")}
        lines += ["", f"[{phase}]", *(f"{name} = {_toml(value)}" for name, value in own.items())] if own else []
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """Return a value as TOML."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return json.dumps(value if isinstance(value, bool) else str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
