"""Which commands are there, and how does any of them end?

Exit codes: 0 done, 1 what was asked for is not there (or `doctor` found a problem), 2 not understood, 3 no node to
speak to, 4 refused (by the node, or by the system: a port that is taken, a file that exists), 130 and 143 ended by
Ctrl-C and by SIGTERM.

Invariant: whatever goes wrong is one message on stderr, as JSON if that was asked for, and never a traceback.
"""

from __future__ import annotations

import difflib
import io
import os
import re
import sys
from importlib import import_module

import click

from gossip.cli.printing import Failure, forget_output, say_error

_COMMANDS = {
    "run": "Run a node of its own, until SIGTERM or Ctrl-C.",
    "status": "What a node knows, for debugging.",
    "members": "Who is in the cluster, and who was.",
    "why": "What was found of a member, and on what evidence.",
    "keys": "All objects, or the keys of a map.",
    "get": "A key of a map, or all of an object.",
    "set": "Set a key of a map, or a register.",
    "delete": "Delete a key of a map, or what is in a register.",
    "incr": "Count: add to a counter, or take from it.",
    "add": "Add an element to a set.",
    "remove": "Remove an element from a set.",
    "explain": "Who wrote a key, when, and which members have it.",
    "watch": "Print every change of an object as it happens.",
    "events": "Print what happens to members, as it happens.",
    "snapshot": "Keep all in a file, look at it, compare, go back to it.",
    "doctor": "Look for what is wrong, whose fault it is, and what to do.",
    "keygen": "Make a key that seals a cluster.",
    "keyring": "Change the key of a cluster while it runs.",
    "completion": "Print the script that completes commands in a shell.",
}
"""Described here too, so that `gossip --help` imports none of them."""
_GROUPS = ("keyring", "snapshot")
"""Those that have commands of their own."""


_MEANT = {
    "decr": "gossip incr OBJECT -1 takes from a counter",
    "list": "gossip keys lists what is there",
    "ls": "gossip keys lists what is there",
    "rm": "gossip delete OBJECT KEY, or gossip remove OBJECT ELEMENT for a set",
    "put": "gossip set OBJECT [KEY] VALUE",
    "start": "gossip run -c CLUSTER",
    "check": "gossip doctor looks for what is wrong",
    "diagnose": "gossip doctor looks for what is wrong",
    "version": "gossip --version",
    "backup": "gossip snapshot save",
    "restore": "gossip snapshot restore FILE",
}
"""What people type who come from elsewhere."""


class _Commands(click.Group):
    """The commands, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"gossip.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            meant = _MEANT.get(args[0]) or (f"did you mean gossip {near[0]}?" if near else None)
            ctx.fail(f"there is no command {args[0]!r}: {meant or 'there are ' + ', '.join(_COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
@click.version_option(package_name="gossamesh", prog_name="gossip", message="%(prog)s %(version)s (gossamesh)")
def program() -> None:
    """Shared state of a cluster of Python workers, from the shell.

    Commands speak to a running node of yours on this host: one inside a program of yours, or one that `gossip run`
    started. Of several clusters, -c NAME (--cluster, or GOSSAMESH_CLUSTER) says which, before the command or after it.

    \b
    Example:
      gossip run -c shop &
      gossip set flags beta true
      gossip get flags
      gossip watch flags

    Every command has --help, with an example, and --json, for programs. Exit codes: 0 done, 1 what was asked for is
    not there (or doctor found a problem), 2 not understood, 3 no node to speak to, 4 refused.

    Completion: eval "$(gossip completion bash)" in ~/.bashrc; zsh and fish likewise.
    """


def _in_order(arguments: list[str]) -> list[str]:
    """The arguments as click wants them: the options of a command after it, and its help by an option.

    >>> _in_order(["-c", "shop", "--json", "get", "flags"]), _in_order(["help", "get"]), _in_order(["help"])
    (['get', '-c', 'shop', '--json', 'flags'], ['get', '--help'], ['--help'])
    """
    moved: list[str] = []
    rest = list(arguments)
    while rest:
        if rest[0] == "--json":
            moved.append(rest.pop(0))
        elif rest[0] in ("-c", "--cluster", "--node") and len(rest) > 1:
            moved += (rest.pop(0), rest.pop(0))
        elif rest[0].startswith(("--cluster=", "--node=")) or re.match("-c.", rest[0]):
            moved.append(rest.pop(0))
        else:
            break
    if not rest or rest[0].startswith("-"):
        return rest if moved and rest else list(arguments)
    if rest[0] == "help":
        return [*rest[1:3], "--help"]
    command = 2 if rest[0] in _GROUPS and rest[1:] and not rest[1].startswith("-") else 1
    return [*rest[:command], *moved, *rest[command:]]


def run_program(arguments: list[str]) -> int:
    """Runs one command; gives the exit code."""
    as_json = "--json" in (arguments[: arguments.index("--")] if "--" in arguments else arguments)
    if sys.stdout is None:  # the process was started with it closed
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal of another encoding is no reason to fail
    try:
        result = program.main(_in_order(arguments), prog_name="gossip", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except Failure as failure:
        say_error(str(failure), failure.kind, as_json)
        return failure.code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.UsageError as error:
        hint = "" if error.ctx is None else f"\n{error.ctx.get_usage()}\nTry: {error.ctx.command_path} --help"
        message = error.format_message()
        if isinstance(error, click.MissingParameter):
            message = " ".join(message.split())  # click lists choices on lines of their own
        say_error(message, "usage", as_json, hint)
        return 2
    except click.ClickException as error:
        say_error(error.format_message(), "usage", as_json)
        return error.exit_code
    except click.Abort:
        return 130
    except BrokenPipeError:
        forget_output()
        return 0  # whoever read us has read enough
