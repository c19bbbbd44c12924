"""``flowkit completion``: the script with which a shell completes commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from flowkit.cli.help.format import Command
from flowkit.cli.shared.console import say

# A shell -> how it reads the script when it starts.
_START = {
    "bash": 'add to ~/.bashrc:  eval "$(flowkit completion bash)"',
    "zsh": 'add to ~/.zshrc:  eval "$(flowkit completion zsh)"',
    "fish": "write it to ~/.config/fish/completions/flowkit.fish",
}


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(list(_START)))
def completion(shell: str) -> None:
    """Print the script with which SHELL completes flowkit's commands, options and values.

    The script begins with a comment that says where to put it.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(click.get_current_context().find_root().command, {}, "flowkit", "_FLOWKIT_COMPLETE").source()
    say(f"# {_START[shell]}\n{script}")
