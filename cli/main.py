"""The command group: finds commands lazily, turns errors into exit codes."""

from __future__ import annotations

import codecs
import errno
import os
import signal
import sys
from difflib import get_close_matches
from importlib import import_module
from keyword import iskeyword
from pathlib import Path

import click

from flowkit.children import leave_working_folder_out
from flowkit.cli.help.error_hints import explained, with_flags
from flowkit.cli.help.format import name_placeholders
from flowkit.cli.help.pages import COMMAND_GROUPS
from flowkit.cli.help.suggestions import Given, remember_given
from flowkit.cli.shared.console import complete, inform, open_closed_streams, show, warn
from flowkit.cli.shared.exit_codes import EXIT_ERROR, EXIT_SIGINT, EXIT_SIGTERM
from flowkit.cli.shared.old_options import OldOption, add_old_options
from flowkit.cli.shared.option_sources import option_values, own_variables, unknown_variables
from flowkit.cli.shared.options import name_paths
from flowkit.cli.shared.settings_file import (
    COMMAND_LINE_ONLY,
    environment_names,
    read_settings_file,
    refuse_environment,
    setting_name,
    setting_names,
)
from flowkit.cli.shared.stopping import Terminated, print_resume_command
from flowkit.dataset.progress import Verbosity, set_verbosity
from flowkit.errors import FlowkitError, ParameterError
from flowkit.versions import __version__

# Name of the command -> its line in the help. The command is in flowkit.cli.commands.<name with _> (import_ for a keyword); that
# module is imported only when the command runs.
COMMANDS = {
    "extract": "Decode videos, compute TV-L1 flow and write one clip file per video.",
    "pack": "Gather clips into HDF5 shards and write a split's manifests.",
    "train": "Train appearance, motion, ST-ResNet and ST-ResNet*, each starting from the phases before it.",
    "evaluate": "Run the paper's test protocol and print its table.",
    "compare": "Put all systems in one table, beside their published figures; train those that are missing.",
    "ablate": "Train and test variants of ST-ResNet from the same base streams, in one table.",
    "fuse": "Combine a run's scores with those of other systems (IDT and others).",
    "predict": "Classify any video with a trained network.",
    "features": "Compute what a trained network sees in videos, for other programs.",
    "verify": "Test every checksum, and manifests against shards.",
    "info": "Show what a shard, a clip file or a data root holds.",
    "stats": "Count videos, hours and bytes, measure the flow, find leaks between train and test.",
    "inspect": "Draw a video's frames and flow as pictures, or a gallery of many videos for the browser.",
    "import": "Import JPEG flow trees of gpu_flow, denseflow or dense_flow.",
    "export": "Write frames and flow as images or WebDataset tars.",
    "convert": "Write a trained network as a safetensors or ONNX file.",
    "lists": "Check downloaded official lists of UCF101 or HMDB51, and which of their videos are there.",
    "doctor": "Show versions and devices, what is missing and how to fix it.",
    "demo": "Run the whole pipeline on generated videos, in minutes.",
    "config": "Show the value of every option, and where it comes from.",
    "completion": "Print the script with which a shell completes commands and options.",
}


_NAMES_ARE_UTF8 = codecs.lookup(sys.getfilesystemencoding()).name == "utf-8"
_OTHER_NAMES = (
    f"the locale of this environment lets names of files be {sys.getfilesystemencoding()}, so names with other letters get ids that no "
    "other machine knows, or cannot be written; set PYTHONUTF8=1, or a locale such as LC_ALL=C.UTF-8"
)


class LazyGroup(click.Group):
    """A group that imports a command's module only when that command runs, so that ``--help`` stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = cmd_name.replace("-", "_") + ("_" if iskeyword(cmd_name) else "")
        command: click.Command = getattr(import_module("flowkit.cli.commands." + module), module)
        add_old_options(cmd_name, command)
        name_placeholders(command)
        name_paths(command)
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                name = setting_name(parameter)
                if name in COMMAND_LINE_ONLY:
                    continue
                parameter.envvar = environment_names(cmd_name, name)
                if isinstance(parameter, OldOption) and parameter.old.only_here:
                    del parameter.envvar[1]
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments name; for a name that does not exist, the error asks about the one that was meant."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            close = get_close_matches(name, COMMANDS, n=1)
            meant = f" Did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"No such command {name!r}.{meant}")
        _, command, rest = found = super().resolve_command(ctx, args)
        if command is not None:
            remember_given(ctx, name, command, rest)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, in groups, with columns that are aligned over all groups."""
        widest = max(map(len, COMMANDS))
        for heading, names in COMMAND_GROUPS.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(widest), COMMANDS[name]) for name in names])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}, no_args_is_help=True)
@click.version_option(__version__, prog_name="flowkit")
@click.option("-q", "--quiet", is_flag=True, envvar="FLOWKIT_QUIET", help="Print results, warnings and errors only.")
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    envvar="FLOWKIT_VERBOSE",
    help="Print which options are not at their defaults, and progress every second.",
)
@click.option("--debug", is_flag=True, envvar="FLOWKIT_DEBUG", help="Show a traceback when something goes wrong.")
@click.pass_context
def flowkit(ctx: click.Context, quiet: bool, verbose: bool, debug: bool) -> None:
    """Turn folders of videos into optical flow, HDF5 shards and a trained ST-ResNet.

    \b
    In a folder that holds videos/<class>/<video>:
      flowkit extract videos/
      flowkit pack --split 1
      flowkit train
      flowkit evaluate

    Options can also be set by FLOWKIT_<OPTION>, FLOWKIT_<COMMAND>_<OPTION>, or in ./flowkit.toml, except those that delete, replace
    or connect.
    """
    if quiet and verbose:
        raise click.UsageError("--quiet and --verbose exclude each other")
    set_verbosity(Verbosity.QUIET if quiet else Verbosity.VERBOSE if verbose else Verbosity.NORMAL)
    if not _NAMES_ARE_UTF8:
        warn(f"warning: {_OTHER_NAMES}")
    settings = Path("flowkit.toml")
    if os.path.lexists(settings) and not settings.is_file():
        raise click.UsageError(f"{settings} is no file, so it sets nothing (a dangling link, or a folder); repair or remove it")
    name = ctx.invoked_subcommand
    command = flowkit.get_command(ctx, name) if name else None
    if not name or not command:
        return
    refuse_environment(name, map(setting_name, command.params), os.environ)
    _warn_of_unknown_variables(ctx, name, command)
    from_file = {}
    if settings.is_file():
        from_file = read_settings_file(settings, COMMANDS, command, name, lambda: setting_names(_all_commands(ctx).values()))
        ctx.default_map = {name: from_file}
    if verbose:
        for value in option_values(command, name, from_file, os.environ):
            if value.source != "default":
                inform(f"{name}: {value.option} is {show(value.value)}, from {value.source}")


def _all_commands(ctx: click.Context) -> dict[str, click.Command]:
    """Return all commands by name; this imports the modules of all."""
    return {name: command for name in COMMANDS if (command := flowkit.get_command(ctx, name)) is not None}


def _warn_of_unknown_variables(ctx: click.Context, name: str, command: click.Command) -> None:
    """Print a warning for each variable FLOWKIT_... that sets nothing, such as a misspelled one."""
    own = {variable for variable in os.environ if variable.startswith("FLOWKIT_")}
    others = own - own_variables({name: command})  # only these need the modules of all commands, which take a moment to import
    for sentence in unknown_variables(others, _all_commands(ctx)) if others else ():
        warn(f"warning: {show(sentence)}")


def _terminated(signum: int, frame: object) -> None:
    raise Terminated(EXIT_SIGTERM)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with a code: 0 good, 1 error, 2 usage, 3 some failed, 4 damage, 130 or 143 stopped."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments or os.environ.get("FLOWKIT_DEBUG", "") not in ("", "0")
    open_closed_streams()
    leave_working_folder_out()
    signal.signal(signal.SIGTERM, _terminated)
    kept: dict[str, Given] = {}
    try:
        code = flowkit.main(args=arguments, prog_name="flowkit", standalone_mode=False, obj=kept)
    except (click.Abort, KeyboardInterrupt, Terminated) as stop:
        print_resume_command(arguments)
        code = EXIT_SIGTERM if isinstance(stop, Terminated) else EXIT_SIGINT
    except click.ClickException as error:
        _print_click_error(error, arguments, kept.get("given"))
        code = error.exit_code
    except Exception as error:
        if debug:
            raise
        _print_error(error, kept.get("given"))
        code = EXIT_ERROR
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # an exception must not interrupt Python's own clean-up
    sys.exit(code if isinstance(code, int) else 0)


def _print_click_error(error: click.ClickException, arguments: list[str], given: Given | None) -> None:
    """Print an error of the command line to stderr, with what is known about what was meant."""
    text = explained(error)
    if isinstance(error, click.NoSuchOption):
        text += _hint_about_names(error.option_name, arguments)
    text = complete(text, given)
    (click.UsageError(text, error.ctx) if isinstance(error, click.UsageError) else click.ClickException(text)).show()


def _hint_about_names(option: str, arguments: list[str]) -> str:
    """Return how to write the name of a file that was read as an option, since it begins with ``-`` as names from YouTube may."""
    for name in arguments:
        looks_like_a_file = "." in name or os.path.lexists(name) or (not name.startswith("--") and name != option)
        if name.startswith(option) and "=" not in name and looks_like_a_file:
            return f" To name the file {name!r}, write './{name}', or '-- {name}' after all options."
    return ""


def _print_error(error: Exception, given: Given | None) -> None:
    """Print what happened to stderr; an error that flowkit does not expect is a bug."""
    if isinstance(error, (FlowkitError, OSError)):
        message = describe(error)
        if isinstance(error, ParameterError) and given is not None:
            message = with_flags(message, given.parameters)
        warn(f"flowkit: error: {show(complete(message, given))}")
    elif isinstance(error, MemoryError):
        warn("flowkit: error: there is not enough memory for this; close other programs, or use fewer processes or smaller files")
    elif isinstance(error, UnicodeError) and not _NAMES_ARE_UTF8:
        warn(f"flowkit: error: {show(str(error))}: {_OTHER_NAMES}")
    elif isinstance(error, ImportError):
        warn(f"flowkit: error: a package cannot be imported ({show(str(error))}); `flowkit doctor` shows what is missing and how to fix it")
    else:
        warn(f"flowkit: internal error: {type(error).__name__}: {show(str(error))}")
        warn("This is a bug in flowkit: please run the command again with `flowkit --debug ...` and report what it prints.")


_MAKE_SPACE = "; what is finished stays: make space there, or choose another place, and run the same command again"
_REMEDIES = {
    errno.ENOSPC: _MAKE_SPACE,
    errno.EDQUOT: _MAKE_SPACE,
    errno.EMFILE: "; let processes open more files: `ulimit -n 4096`, and run the same command again",
}


def describe(error: BaseException) -> str:
    """Return an error's message; for a plain OSError, what went wrong, with which file, and what to do if the system is at a limit."""
    if isinstance(error, OSError) and not isinstance(error, FlowkitError) and error.strerror:
        named = " and ".join(repr(name) for name in (error.filename, error.filename2) if name is not None)
        return (f"{error.strerror}: {named}" if named else error.strerror) + _REMEDIES.get(error.errno or 0, "")
    return str(error) or type(error).__name__
