"""How does a map live in a store? One key, one element; the last write by (timestamp, replica) is shown.

Writes that did not see each other stay live side by side: the lesser ones are readable as conflicts until somebody
writes the key again, which names them all. Deleting names what is live and puts nothing in its place; a concurrent
write is not named, so it stays.

Not here: the typed mapping of a running node (`gossip.shared`). This is the reading of a `Store`, thin and alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crdt.codec import MAP, decode_element, decode_value, encode_element, encode_value, object_name
from crdt.live import Live, chain, value_of
from crdt.store import Store
from crdt.timestamp import Timestamp
from crdt.write import Key, Write


class LWWMap:
    """A last-writer-wins map in a store. Methods that write only ask: merge the `Write` they give.

    >>> store = Store()
    >>> flags = LWWMap(store, "flags")
    >>> _ = store.merge(flags.set("beta", True, replica=7, stamp=1))
    >>> flags.get("beta"), list(flags.keys())
    (True, ['beta'])
    >>> _ = store.merge(flags.delete("beta", replica=7, stamp=2))
    >>> flags.get("beta", default="gone")
    'gone'
    """

    __slots__ = ("name", "store")

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = (MAP, object_name(name))

    def set(self, key: object, value: object, replica: int, stamp: Timestamp) -> Write:
        """The write that sets a key. Raises `TypeError` or `ValueError` for what can not be a key or a value."""
        return self.store.write(self._key(key), encode_value(value), replica, stamp)

    def delete(self, key: object, replica: int, stamp: Timestamp) -> Write | None:
        """The write that deletes a key; None if nothing is live under it."""
        full = self._key(key)
        return None if self.store.shown(full) is None else self.store.write(full, None, replica, stamp)

    def get(self, key: object, default: Any = None) -> Any:
        """The value shown for this key."""
        live = self.live(key)
        return default if live is None else decode_value(value_of(live))

    def live(self, key: object) -> Live | None:
        """What is live under this key: `head_of` gives stamp and author of what is shown, `chain` the conflicts too."""
        return self.store.elements(self.name).get(encode_element(key))

    def conflicts(self, key: object) -> list[Any]:
        """The values of concurrent writes that are not shown, greatest first.

        >>> a, b = Store(), Store()
        >>> ours, theirs = LWWMap(a, "m").set("k", 1, 7, stamp=5), LWWMap(b, "m").set("k", 2, 8, stamp=6)
        >>> for write in (ours, theirs):
        ...     _ = a.merge(write)
        >>> LWWMap(a, "m").get("k"), LWWMap(a, "m").conflicts("k")
        (2, [1])
        """
        return [decode_value(link[3]) for link in chain(self.live(key))][1:]

    def keys(self) -> Iterator[Any]:
        """The keys, as of now."""
        return map(decode_element, list(self.store.elements(self.name)))

    def items(self) -> Iterator[tuple[Any, Any]]:
        """The keys and the values shown, as of now."""
        for element, live in list(self.store.elements(self.name).items()):
            yield decode_element(element), decode_value(value_of(live))

    def __len__(self) -> int:
        return len(self.store.elements(self.name))

    def __contains__(self, key: object) -> bool:
        return self.live(key) is not None

    def _key(self, key: object) -> Key:
        return (*self.name, encode_element(key))
