"""Which values that were read before are still what is there?

Most reads are of few keys, again and again: flags, settings, who has which session. What a read costs is to pack the
key and to unpack the value; a memo has both, next to the packed write that was read. A write never changes, so while
that very object is what is live under the key, the value is too, and nobody has to tell the memo of anything.

A read of a number took 0.50 us without it, and takes 0.20 where the memo knows it. Who goes through more keys than it
takes must not pay for what will be forgotten before it is read again: a memo that is full takes nothing more until so
many reads were in vain that other keys must be the ones that matter, and then begins anew.

Invariants: what is here nobody can change, and it neither ends nor is owned; where another write is live it counts for
nothing. It is bounded in keys and bytes, and may be cleared at any moment.
Not here: how it is asked (`shared`, in line).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from crdt import Live, encode_element

MOST: Final = 10_000
"""Keys at once, of some 300 bytes each."""
PATIENCE: Final = 10 * MOST
"""Reads of other keys until it begins anew: to fill it costs a tenth of those, at most."""
LONGEST: Final = 152
"""Bytes of a packed write, its head among them: what is remembered is there twice, so it must be small."""
LASTING: Final = frozenset({type(None), bool, int, float, str, bytes})
"""Types of which nobody can change a value, so that all readers may have the same."""


class Memo(dict[str, tuple[bytes, bytes, Any]]):
    """By key its element, the packed write that was read, and the value of that; it holds while
    `elements.get(element)` is that write.

    Only keys that are texts: `1`, `True` and `1.0` are one key of a dict, and three of a map.

    >>> from crdt import LWWMap, Store
    >>> store = Store()
    >>> flags, memo = LWWMap(store, "flags"), Memo()
    >>> _ = store.merge(flags.set("beta", "on", replica=7, stamp=1))
    >>> memo.keep("beta", flags.live("beta"), "on", store.elements(flags.name))
    >>> element, live, value = memo["beta"]
    >>> value, memo.elements.get(element) is live
    ('on', True)
    >>> _ = store.merge(flags.delete("beta", replica=7, stamp=2))
    >>> memo.elements.get(element) is live
    False
    """

    __slots__ = ("_in_vain", "elements")

    def __init__(self) -> None:
        self.elements: Mapping[bytes, Live] = {}
        """Those of the map, when it was last read without a memo. If it ended since, this is empty, and nothing holds:
        a `Store` keeps the elements of an object in one dict, until none is left in it."""
        self._in_vain = 0
        """Reads that it could not keep since it was full."""

    def keep(self, key: str, live: bytes, value: Any, elements: Mapping[bytes, Live]) -> None:
        """Remembers what was read of a packed write, which is not longer than `LONGEST`."""
        self.elements = elements
        if len(self) >= MOST and key not in self:
            self._in_vain += 1
            if self._in_vain < PATIENCE:
                return
            self._in_vain = 0
            self.clear()
        self[key] = (encode_element(key), live, value)
