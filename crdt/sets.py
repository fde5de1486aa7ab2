"""How does a set live in a store? One element, one key without a value; it is present while any write of it is live.

A remove names the adds that its author saw. A concurrent add is not among them, so it stays: add wins. Adding an
element that is there already is a write all the same, for it must survive a remove that another replica makes now.

Source: optimized OR-sets (Bieniusa et al. 2012). Not here: the typed set of a running node (`gossip.shared`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crdt.codec import SET, decode_element, encode_element, object_name
from crdt.live import Live
from crdt.store import Store
from crdt.timestamp import Timestamp
from crdt.write import Write


class ORSet:
    """An observed-remove set in a store.

    >>> store = Store()
    >>> online = ORSet(store, "online")
    >>> _ = store.merge(online.add("ann", replica=7, stamp=1))
    >>> "ann" in online, list(online)
    (True, ['ann'])
    >>> _ = store.merge(online.remove("ann", replica=7, stamp=2))
    >>> len(online)
    0
    """

    __slots__ = ("name", "store")

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = (SET, object_name(name))

    def add(self, element: object, replica: int, stamp: Timestamp) -> Write:
        """The write that adds an element."""
        return self.store.write((*self.name, encode_element(element)), b"", replica, stamp)

    def remove(self, element: object, replica: int, stamp: Timestamp) -> Write | None:
        """The write that removes an element; None if it is not there."""
        key = (*self.name, encode_element(element))
        return None if self.store.shown(key) is None else self.store.write(key, None, replica, stamp)

    def live(self, element: object) -> Live | None:
        """What is live of this element: `head_of` gives stamp and author of the greatest add, `chain` all adds."""
        return self.store.elements(self.name).get(encode_element(element))

    def __contains__(self, element: object) -> bool:
        return self.live(element) is not None

    def __iter__(self) -> Iterator[Any]:
        return map(decode_element, list(self.store.elements(self.name)))

    def __len__(self) -> int:
        return len(self.store.elements(self.name))
