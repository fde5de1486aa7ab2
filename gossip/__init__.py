"""Shared state for Python workers without a server: each worker embeds a gossip node.

    async with gossip.Node("shop") as node:
        flags = node.map("flags", bool)
        flags["beta"] = True

Nodes of one cluster name find each other, keep one replicated state in every worker's own memory, and know which
workers live. Importing this starts nothing: no thread, no socket, no loop.
"""

import os as _os
import typing as _typing
from importlib.util import find_spec as _find_spec


def _check_neighbours() -> None:
    """Other distributions on PyPI install top-level packages of the same names: say so, instead of failing oddly."""
    home = _os.path.dirname(_os.path.realpath(__file__))
    for name in ("crdt", "discovery"):
        spec = _find_spec(name)
        found = _os.path.dirname(_os.path.realpath(spec.origin)) if spec is not None and spec.origin else None
        if found != _os.path.join(_os.path.dirname(home), name):
            raise ImportError(
                f"gossamesh needs its own package {name!r}, but Python finds {found or 'none'}. Another distribution "
                f"has put its files there, or a file {name}.py of yours stands in the way. See with `pip list` which; "
                f"uninstall or rename it, then: pip install --force-reinstall --no-deps gossamesh"
            )
    foreign = sorted(each for each in _os.listdir(home) if each.endswith(".py") and each[:-3] not in _OURS)
    if foreign:
        raise ImportError(
            f"{home} has files that are not of gossamesh ({', '.join(foreign)}): another distribution that is called "
            "'gossip' as well was installed over it. Uninstall that one, then: "
            "pip install --force-reinstall --no-deps gossamesh"
        )


_OURS = frozenset(
    """
    __init__ __main__ answers bell checks checkup config control counting datadir datagrams door drafts endings errors
    events forks handle handshake identity keeping keyring memo neighbours node past pulse reach records restore roster
    runtime schema seal search shared snapshot sources status storage streams thread token transport udp verdicts
    version waits watch watches whereabouts writing
    """.split()  # noqa: SIM905
)

_check_neighbours()

from gossip.config import Config  # noqa: E402
from gossip.counting import Counter, Counters  # noqa: E402
from gossip.errors import (  # noqa: E402
    AlreadyStarted,
    ConfigError,
    GossipError,
    NotRunning,
    SnapshotError,
    StartError,
    StorageFailed,
    WrongType,
)
from gossip.events import Event, Events  # noqa: E402
from gossip.handle import Entry  # noqa: E402
from gossip.node import Node  # noqa: E402
from gossip.roster import Member, Roster  # noqa: E402
from gossip.shared import Map, Register, Set  # noqa: E402
from gossip.version import __version__ as __version__  # noqa: E402
from gossip.watch import Change, Watch  # noqa: E402

if _typing.TYPE_CHECKING:
    from gossip.snapshot import Difference, Snapshot
else:  # a type checker that saw this would take any misspelt name for one of ours

    def __getattr__(name):
        """`Snapshot` and `Difference` are loaded when somebody asks for them: few programs do, and all import this."""
        if name not in ("Difference", "Snapshot"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from gossip import snapshot

        globals()[name] = found = getattr(snapshot, name)
        return found

    def __dir__():
        return sorted({*globals(), *__all__})


__all__ = [
    "AlreadyStarted",
    "Change",
    "Config",
    "ConfigError",
    "Counter",
    "Counters",
    "Difference",
    "Entry",
    "Event",
    "Events",
    "GossipError",
    "Map",
    "Member",
    "Node",
    "NotRunning",
    "Register",
    "Roster",
    "Set",
    "Snapshot",
    "SnapshotError",
    "StartError",
    "StorageFailed",
    "Watch",
    "WrongType",
]
