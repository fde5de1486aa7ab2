"""How does a single value live in a store? As a map of one key: last write shown, concurrent ones as conflicts.

Not here: anything of its own. A register is a name for a common use of the same rule.
"""

from __future__ import annotations

from typing import Any

from crdt.codec import REGISTER, decode_value, encode_value, object_name
from crdt.live import Live, chain, value_of
from crdt.store import Store
from crdt.timestamp import Timestamp
from crdt.write import Write


class LWWRegister:
    """A last-writer-wins register in a store.

    >>> store = Store()
    >>> motd = LWWRegister(store, "motd")
    >>> motd.value is None
    True
    >>> _ = store.merge(motd.set("hello", replica=7, stamp=1))
    >>> motd.value
    'hello'
    """

    __slots__ = ("_key", "name", "store")

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = (REGISTER, object_name(name))
        self._key = (*self.name, b"")

    def set(self, value: object, replica: int, stamp: Timestamp) -> Write:
        """The write that sets the value."""
        return self.store.write(self._key, encode_value(value), replica, stamp)

    def delete(self, replica: int, stamp: Timestamp) -> Write | None:
        """The write that empties the register; None if it is empty."""
        return None if self.live is None else self.store.write(self._key, None, replica, stamp)

    @property
    def live(self) -> Live | None:
        """What is live: `head_of` gives stamp and author of what is shown, `chain` the conflicts too."""
        return self.store.shown(self._key)

    @property
    def value(self) -> Any:
        """The value shown; None if the register is empty."""
        live = self.live
        return None if live is None else decode_value(value_of(live))

    @property
    def conflicts(self) -> list[Any]:
        """The values of concurrent writes that are not shown, greatest first."""
        return [decode_value(link[3]) for link in chain(self.live)][1:]
