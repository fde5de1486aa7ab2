"""What happens when somebody types `gossip`?

Each command is a file of its own, imported when it is called. All but `run` and `keygen` speak to a node of this user
on this host, through its control socket.

Invariant: importing this needs nothing beyond the standard library, so that whoever lacks the extra is told so.
Not here: anything that a program could want; it imports `gossip`.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

__all__ = ["main"]


def main() -> int:
    """Runs the command that the process was called with; gives its exit code."""
    if find_spec("click") is None or find_spec("rich") is None:
        print("gossip: the command line needs click and rich: pip install 'gossamesh[cli]'", file=sys.stderr)
        return 2
    from gossip.cli.program import run_program

    return run_program(sys.argv[1:])
