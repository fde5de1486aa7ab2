"""What does a forked child do with what was open in its parent?

It lets go of all of it before anything else runs there: a copy of a socket keeps a dead parent looking alive, and what
a child says on it is said in the parent's name.

Invariant: a number that is held stays held. It is pointed at nothing instead of closed: objects of the parent's loop
still have it, and would close it again when it may be that of somebody else's file.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable
from typing import Protocol


class Holder(Protocol):
    """Whoever has something open."""

    def abandon(self) -> None:
        """In a forked child: lets go of all that is the parent's, without a word to anybody."""


_holders: weakref.WeakSet[Holder] = weakref.WeakSet()


def enter(holder: Holder) -> None:
    """Has `abandon` called in every child that is forked from here on."""
    _holders.add(holder)


def leave(holder: Holder) -> None:
    """Forgets a holder that has nothing open any more."""
    _holders.discard(holder)


def let_go(descriptors: Iterable[int]) -> None:
    """Points these file descriptors at nothing; their objects may close them as if nothing had happened."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(nothing, descriptor, inheritable=False)
    os.close(nothing)


def _abandon_all() -> None:
    for holder in list(_holders):
        holder.abandon()
    _holders.clear()


os.register_at_fork(after_in_child=_abandon_all)
