"""How do many count together without losing one? Each replica keeps its own part; the sum is shown.

The element is the replica, the value its (increments, decrements) so far, and each write names its predecessor: nobody
else ever writes that element, so nothing is concurrent with it and nothing can be lost.

Invariant: a replica's parts only grow. Source: the PN-counter of Shapiro et al. (2011).
Not here: bounds, and anything that would need the others' consent ("never below zero").
"""

from __future__ import annotations

from crdt.codec import COUNTER, decode_value, encode_part, object_name
from crdt.live import Live, value_of
from crdt.store import Store
from crdt.timestamp import Timestamp
from crdt.write import Write

_LIMIT = 2**64 - 1


class PNCounter:
    """A counter in a store.

    >>> store = Store()
    >>> hits = PNCounter(store, "hits")
    >>> for replica, amount in ((7, 2), (8, 5), (7, -1)):
    ...     _ = store.merge(hits.add(amount, replica, stamp=1))
    >>> hits.value
    6
    """

    __slots__ = ("name", "store")

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = (COUNTER, object_name(name))

    def add(self, amount: int, replica: int, stamp: Timestamp) -> Write:
        """The write that adds `amount`, which may be negative.

        Raises `TypeError` for what is not an integer, `OverflowError` when one replica's part would pass 64 bits.
        """
        element = replica.to_bytes(8, "big")
        part = self.counted(self.store.elements(self.name).get(element), amount)
        return self.store.write((*self.name, element), part, replica, stamp)

    @staticmethod
    def counted(live: Live | None, amount: int) -> bytes:
        """The value of a replica's part after it has added `amount`, given what is live of it. Raises as `add` does."""
        if type(amount) is not int:
            raise TypeError(f"a counter counts in integers, not in {type(amount).__name__}")
        up, down = (0, 0) if live is None else decode_value(value_of(live))
        if amount >= 0:
            up += amount
        else:
            down -= amount
        if up > _LIMIT or down > _LIMIT:
            raise OverflowError("a counter's part must fit 64 bits")
        return encode_part(up, down)

    @property
    def value(self) -> int:
        """The sum over all replicas."""
        total = 0
        for live in list(self.store.elements(self.name).values()):
            up, down = decode_value(value_of(live))
            total += up - down
        return total
