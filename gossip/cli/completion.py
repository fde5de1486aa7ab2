"""How does a shell learn to complete our commands?"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script that makes a shell complete commands and options.

    \b
    Example:
      eval "$(gossip completion bash)"                                    in ~/.bashrc
      eval "$(gossip completion zsh)"                                     in ~/.zshrc
      gossip completion fish > ~/.config/fish/completions/gossip.fish
    """
    completion = get_completion_class(shell)
    assert completion is not None
    click.echo(completion(ctx.find_root().command, {}, "gossip", "_GOSSIP_COMPLETE").source())
