"""What was written in this turn, and is not told to the engine yet?

A write is a draft until its turn ends: it has a stamp, and no number. So a later write of the same key just takes its
place, and the engine numbers, merges and gathers all of a turn in one go, which costs a third of doing so one by one.
Who reads a key sees its draft; who reads anything else, or writes what depends on what is there, has drafts *settled*
first, and so does whatever comes from outside.

Invariants: a reader of a key, who takes no lock, never finds less than before: a draft is replaced in one step, and
there until its write is in the store; those of a batch of the program and those of before or after it are never drafts
at the same time.
Not here: when they are settled (`runtime`), and what becomes of them (`protocol.replication`).
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

from crdt import Key, Link, Note

MOST = 1024
"""Drafts at once: a turn that writes more is settled in pieces, which the cache of a processor holds."""
MOST_BYTES = 1 << 20
"""Bytes of their values, likewise."""


class Drafts(dict[Key, Link]):
    """Drafts by key, each like a live write of this node, as a link; its sequence is 0.

    >>> drafts, on, off = Drafts(), (1, "flags", b"on"), (1, "flags", b"off")
    >>> for stamp, key, value in ((5, on, b"1"), (6, off, b"2"), (7, on, b"3")):
    ...     drafts.written += 1
    ...     drafts[key] = (stamp, 7, 0, value, 0, None)
    >>> [draft[3] for _, draft in drafts.in_order()], drafts.replaced
    ([b'2', b'3'], 1)
    """

    __slots__ = ("_replaced", "note", "size", "written")

    def __init__(self) -> None:
        self.written = 0
        """How many there were, with those that later ones replaced. Counted and not looked for: that took longer."""
        self.size = 0
        """Bytes of their values, those of replaced ones included."""
        self.note: Note | None = None
        """That of all of them."""
        self._replaced = 0

    @property
    def replaced(self) -> int:
        """How many were never more than drafts, in all turns."""
        return self._replaced + self.written - len(self)

    def in_order(self) -> Sequence[tuple[Key, Link]]:
        """All of them, in the order in which they were written."""
        drafts = list(self.items())
        if self.written != len(drafts):
            drafts.sort(key=_by_stamp)
        return drafts

    def clear(self) -> None:
        """They are settled."""
        self._replaced = self.replaced
        super().clear()
        self.written, self.size, self.note = 0, 0, None


_by_stamp = itemgetter(1)
"""A draft begins with its stamp, and no two have the same."""
