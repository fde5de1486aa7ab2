"""What of the keys that were read before need not be found out again?

Most reads are of few keys, again and again: flags, settings, who has which session. What a read costs is to pack the
key, and to unpack the value. A memo has the packed key; and, if nobody can change it and it is short, the value, next
to the packed write that it is of. A write never changes: while that very object is what is live under the key, the
value is what is shown, and nobody has to tell the memo of anything.

It pays from the third read of a key on. In microseconds, without it and with it: a number that was read before 0.52
and 0.17, a dict of five fields 1.0 and 0.9, the first read since a write 0.56 and 0.53; the first that is remembered
0.6 and 1.25, one of more keys than it takes, in turn, 0.52 and 0.68, one of an absent key 0.55 and 0.74.

Invariants: a value that is here neither ends nor is owned, and is of a type of the map; where another write is live it
counts for nothing. What is seen to be deleted, or overwritten, is forgotten. A memo is bounded in keys and bytes, and
may be cleared at any moment.
Not here: how it is asked (`shared`, in line).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from crdt import Live, LWWMap, encode_element
from crdt.codec import SHORT_TEXT
from crdt.live import AT_VALUE

MOST: Final = 10_000
"""Keys at once of a handle: of short ones and numbers 160 bytes each, of the longest in the widest characters 2 100."""
PATIENCE: Final = 10 * MOST
"""Reads in vain until a full memo begins anew. It is filled by one read in eleven then, at most: who goes through more
keys than it takes gains nothing by it, and should pay little."""
LONGEST: Final = AT_VALUE + 128
"""Bytes of a packed write whose value is remembered: it is there twice then, so it must be small."""
NOTHING: Final = b""
"""In place of a packed write whose value is not: no write is empty."""


class Memo(dict[object, tuple[bytes, bytes, Any]]):
    """By key its element, the packed write that was read, and its value. That holds while `elements.get(element)` is
    this write.

    Only keys that are texts and pass as they are: `1`, `True` and `1.0` are one key of a dict, and three of a map.
    `types` are those of which values pass as they are (`Schema.plain`).

    >>> from crdt import LWWMap, Store
    >>> store, memo = Store(), Memo(frozenset({str}))
    >>> flags = LWWMap(store, "flags")
    >>> _ = store.merge(flags.set("beta", "on", replica=7, stamp=1))
    >>> for _ in range(2):
    ...     memo.keep("beta", flags.live("beta"), "on", flags)
    >>> element, live, value = memo["beta"]
    >>> value, memo.elements.get(element) is live
    ('on', True)
    >>> _ = store.merge(flags.delete("beta", replica=7, stamp=2))
    >>> memo.elements.get(element) is live
    False
    """

    __slots__ = ("_in_vain", "_used", "elements", "lasting")

    def __init__(self, types: frozenset[type]) -> None:
        self.lasting = _lasting(types)
        """Those of them of which nobody can change a value, so that all readers may have the same."""
        self.elements: Mapping[bytes, Live] = {}
        """Those of the map, when something was kept last. If it ended since, this is empty, and nothing holds: a
        `Store` keeps the elements of an object in one dict, until none is left in it."""
        self._used = False
        self._in_vain = 0
        """Reads that it could not keep since it was full."""

    def keep(self, key: str, live: bytes, value: Any, view: LWWMap) -> None:
        """Remembers what was read of a packed write: from the second on, for many handles are made for one read."""
        if len(self) >= MOST and key not in self:
            self._in_vain += 1
            if self._in_vain < PATIENCE:
                return
            self._in_vain = 0
            self.clear()
        if not self._used or len(key) > SHORT_TEXT:
            self._used = True
            return
        elements = view.store.elements(view.name)
        if elements is not self.elements:
            self.clear()  # the map had ended: nothing that is here can hold again
            self.elements = elements
        element = encode_element(key)
        lasts = len(live) <= LONGEST and type(value) in self.lasting
        self[key] = (element, live, value) if lasts else (element, NOTHING, None)

    def forget(self, key: object) -> None:
        """What was there is no more, and is not to be kept in memory."""
        if type(key) is str:
            self.pop(key, None)


@cache
def _lasting(types: frozenset[type]) -> frozenset[type]:
    return types & {type(None), bool, int, float, str, bytes}
