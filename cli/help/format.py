"""How a command's help page looks: options under headings, readable placeholders, defaults as values, and a page to read on.

Command              a command whose help page looks like this
name_placeholders    gives the numbers of a command readable placeholders
"""

from __future__ import annotations

import re

import click

from flowkit.cli.help.pages import EXAMPLES, HEADINGS, PAGES, heading_of

_RANGES = ((r"(\S+)<=x<=(\S+)\]", r"\1 to \2]"), (r"x>=(\S+)\]", r"at least \1]"), (r"x<=(\S+)\]", r"at most \1]"))


class Command(click.Command):
    """A command whose help shows its options under headings, and ends with the page of the documentation to read."""

    def get_help_option_names(self, ctx: click.Context) -> list[str]:
        """Return the names of ``--help``, which click would otherwise keep from the first context that a command ever had."""
        return ["-h", "--help"]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, under the headings of `HEADINGS`."""
        rows: dict[str, list[tuple[str, str]]] = {heading: [] for heading in HEADINGS}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                rows[heading_of(self.name or "", parameter)].append((record[0], _readable(record[1])))
        for heading, options in rows.items():
            if options:
                with formatter.section(heading):
                    formatter.write_dl(options)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the epilog, the examples, and where to read on."""
        super().format_epilog(ctx, formatter)
        with formatter.section("Examples"):
            for line in EXAMPLES[str(self.name)]:
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")
        formatter.write_paragraph()
        formatter.write_text(f"To read on: docs/{PAGES[str(self.name)]} in flowkit's source.")


def name_placeholders(command: click.Command) -> None:
    """Let numbers without a placeholder of their own be N in the help, and X if they need not be whole."""
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.metavar is None and not parameter.is_flag:
            if isinstance(parameter.type, click.types.IntParamType):
                parameter.metavar = "N"
            elif isinstance(parameter.type, click.types.FloatParamType):
                parameter.metavar = "X"


def _readable(text: str) -> str:
    """Return an option's help with its range in words."""
    for pattern, words in _RANGES:
        text = re.sub(pattern, words, text)
    return text
