"""How can tests call two hundred commands without importing Python's world two hundred times?

A program that has imported `gossip.cli`, and for each line of JSON on its input forks: the child becomes the command,
with the arguments and the environment it was given, and a line of JSON says how it ended. So every command is a
process of its own, as from the installed script, and costs a tenth. The script itself has tests too.
"""

import io
import json
import os
import signal
import sys
import tempfile
from importlib import import_module
from typing import Any

import click.shell_completion

import gossip.cli
from gossip.cli.program import _COMMANDS

for _name in _COMMANDS:
    import_module(f"gossip.cli.{_name}")


def become(arguments: list[str], environment: dict[str, str], out: int, err: int) -> None:
    """Runs the command here, and ends the process."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb"), encoding="utf-8")
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb"), encoding="utf-8", errors="backslashreplace")
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["gossip", *arguments]
    code: Any = 70
    try:
        code = gossip.cli.main()
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def answer(arguments: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            become(arguments, environment, out.fileno(), err.fileno())
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for file in (out, err):
            file.seek(0)
        return code, out.read().decode(), err.read().decode()


if __name__ == "__main__":
    assert click.shell_completion is not None
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin:
        print(json.dumps(answer(*json.loads(line))), flush=True)
