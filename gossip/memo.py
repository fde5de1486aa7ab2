"""What of the keys that were read before need not be found out again?

Most reads are of few keys, again and again: flags, settings, who has which session. What a read costs is to pack the
key, and to unpack the value. A memo has the packed key; and, if nobody can change it and it is short, the value, next
to the packed write that it is of. A write never changes: while that very object is what is live under the key, the
value is what is shown, and nobody has to tell the memo of anything.

A read of a number took 0.50 us without a memo, and takes 0.16; of a dict 0.95, and takes 0.75. Who goes through more
keys than it takes must not pay for what will be forgotten before it is read again: a memo that is full takes nothing
more until so many reads were in vain that other keys must be the ones that matter, and then begins anew.

Invariants: a value that is here neither ends nor is owned, and is of a type of the map; where another write is live it
counts for nothing. A memo is bounded in keys and bytes, and may be cleared at any moment.
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

_LASTING: Final = frozenset({type(None), bool, int, float, str, bytes})
_NOTHING: Final = b""
"""In place of a packed write: no write is empty."""


class Memo(dict[object, tuple[bytes, bytes, Any]]):
    """By key its element, the packed write that was read, and the value of that, which holds while
    `elements.get(element)` is that write. `types` are those of which the map's values are as they were packed.

    Only keys that are texts: `1`, `True` and `1.0` are one key of a dict, and three of a map.

    >>> from crdt import LWWMap, Store
    >>> store, memo = Store(), Memo(frozenset({str}))
    >>> flags = LWWMap(store, "flags")
    >>> _ = store.merge(flags.set("beta", "on", replica=7, stamp=1))
    >>> memo.keep("beta", flags.live("beta"), "on", store.elements(flags.name))
    >>> element, live, value = memo["beta"]
    >>> value, memo.elements.get(element) is live
    ('on', True)
    >>> _ = store.merge(flags.delete("beta", replica=7, stamp=2))
    >>> memo.elements.get(element) is live
    False
    """

    __slots__ = ("_in_vain", "elements", "lasting")

    def __init__(self, types: frozenset[type]) -> None:
        self.lasting = types & _LASTING
        """Those of them of which nobody can change a value, so that all readers may have the same."""
        self.elements: Mapping[bytes, Live] = {}
        """Those of the map, when it was last read without a memo. If it ended since, this is empty, and nothing holds:
        a `Store` keeps the elements of an object in one dict, until none is left in it."""
        self._in_vain = 0
        """Reads that it could not keep since it was full."""

    def keep(self, key: object, live: bytes, value: Any, elements: Mapping[bytes, Live]) -> None:
        """Remembers what was read of a packed write."""
        self.elements = elements
        if len(self) >= MOST and key not in self:
            self._in_vain += 1
            if self._in_vain < PATIENCE:
                return
            self._in_vain = 0
            self.clear()
        lasts = len(live) <= LONGEST and type(value) in self.lasting
        self[key] = (encode_element(key), live, value) if lasts else (encode_element(key), _NOTHING, None)
