"""What can go wrong that is the program's or the operator's to mend?

One root, `GossipError`. What Python has a name for keeps that name: a missing key is a `KeyError`, a wrong argument
a `TypeError` or `ValueError`, a wait that was too long a `TimeoutError`. Malformed packets are not here: they are
weather.
"""

from __future__ import annotations


class GossipError(Exception):
    """The root of all errors of this package. The message says what happened, whose fault it is, and what to do."""


class NotRunning(GossipError, RuntimeError):
    """A node was read or written before it started, after it left, or in a process forked from the one it runs in."""


class AlreadyStarted(GossipError, RuntimeError):
    """A node was started that runs already."""


class ConfigError(GossipError, ValueError):
    """A setting is wrong. The message names the setting, where it came from, and what it may be."""


class StartError(GossipError, OSError):
    """A node could not start: a port that is taken, a directory that is not ours."""


class StorageFailed(GossipError, OSError):
    """What was to be durable is not: the disk has refused, or there is none. The node goes on in memory."""


class SnapshotError(GossipError, ValueError):
    """A file is no snapshot, is damaged, or of another cluster; or a log does not reach back to what was asked for."""


class WrongType(GossipError, TypeError):
    """A value is not of the type that the object was given, when it was set, or as another node wrote it."""
