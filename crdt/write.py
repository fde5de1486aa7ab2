"""What is a write, and in what company does it travel?

Alone it is a `Write`. Those of one replica that follow each other are a `Batch`; all that a store holds is a `State`.
These are values: nothing here changes.

Not here: what they do to a store (`store`), and their bytes (`codec`; those of a `State`: `state`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from crdt.causality import Context, Dot, range_of
from crdt.live import FOREVER, Live
from crdt.timestamp import Timestamp

Object: TypeAlias = tuple[int, str]
"""`(type, name)`. The type is part of it, so one name under two types is two objects."""

Key: TypeAlias = tuple[int, str, bytes]
"""`(type, object name, element)`: what a write is about. Elements are canonical bytes of map keys or set members."""

MAX_NAMES = 4096
"""Writes that one write replaces: it takes as many that did not see each other."""


class Write(NamedTuple):
    """One change, deletes included.

    `value` is encoded bytes, or None for a delete. `names` are the dots of the live writes that its author saw and
    replaces. `expires` is a stamp, or `FOREVER`, or `WITH_AUTHOR`.
    """

    dot: Dot
    key: Key
    stamp: Timestamp
    value: bytes | None
    names: tuple[Dot, ...]
    expires: int = FOREVER


class Note(NamedTuple):
    """On whose behalf something was written, and why: for people."""

    by: str | None
    text: str | None


class Batch(NamedTuple):
    """Consecutive writes of one replica: exactly the sequences `first` to `last`.

    Sequences in the range that no write has are *blanks*: delivered, with nothing in them. `open` says that a
    transaction goes on in the batch after this one; the two become visible in one step. A `note` is that of all of its
    writes.
    """

    replica: int
    first: int
    last: int
    writes: tuple[Write, ...]
    open: bool = False
    note: Note | None = None


class Scope(NamedTuple):
    """Of which live writes a state tells that does not tell of all: those whose dots lie in these `ranges`.

    Of the others it holds what its receiver held when ranges were `compared`; that is the context it had then.
    """

    ranges: frozenset[int]
    compared: Context


class State(NamedTuple):
    """All that a store holds, at one moment; with a `scope`, what of it another one needs (see `ranges`).

    Cheap to take: entries never change, so only the outer maps are copied.
    """

    context: Context
    named: frozenset[Dot]
    objects: Mapping[Object, Mapping[bytes, Live]]
    scope: Scope | None = None
    notes: Mapping[Dot, Note] = {}

    def buries(self, dot: Dot) -> bool:
        """Whether a write that this state does not hold is dead by it: it was delivered there, or named early."""
        if self.scope is not None and self.scope.compared.covers(dot) and range_of(*dot) not in self.scope.ranges:
            return False
        return self.context.covers(dot) or dot in self.named


Change: TypeAlias = tuple[Key, Live | None, Live | None]
"""`(key, before, after)`: what a merge did to one key."""
