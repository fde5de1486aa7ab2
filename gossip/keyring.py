"""Which keys does this cluster have, and which of them seals?

The first seals, all of them open. So a key is changed while everybody runs, in three rounds: each node is given the new
one, then each seals with it, then each forgets the old one. At every moment each opens what any other seals.

Invariants: what had a key never comes to have none; no key is ever shown, in a `repr` or an error: only its
fingerprint, from which nobody gets it back, and by which people tell keys apart.
Not here: how anything is sealed (`seal`), and where keys come from (`config`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Final

KEY_BYTES: Final = 32
MOST_KEYS: Final = 8
"""A rotation needs two; each one more is tried on what strangers send."""


def fingerprint(key: bytes) -> str:
    """What people call a key: 8 hex digits.

    >>> fingerprint(bytes(32))
    '5186b527'
    """
    return blake2b(key, person=b"gossamesh key", digest_size=4).hexdigest()


class Keyring:
    """The keys of one node, of 32 bytes each.

    >>> ring = Keyring([bytes(32)])
    >>> ring.add(b"n" * 32)
    >>> ring.use(fingerprint(b"n" * 32))
    >>> ring.remove(fingerprint(bytes(32)))
    >>> ring, list(ring) == [b"n" * 32]
    (Keyring(c54a929d), True)
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(keys)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self.fingerprints)})"

    @property
    def first(self) -> bytes:
        """The one that seals."""
        return self._keys[0]

    @property
    def fingerprints(self) -> list[str]:
        """What they are called, that of the one that seals first."""
        return [fingerprint(key) for key in self._keys]

    def add(self, key: bytes) -> None:
        """From here on this one opens, too; one that is there stays where it is. Raises `ValueError`."""
        if not self._keys:
            raise ValueError("this node runs without a key: it can be given one when it is started, and not before")
        if key in self._keys:
            return
        if len(self._keys) == MOST_KEYS:
            raise ValueError(f"there are {MOST_KEYS} keys already: remove one that nobody seals with any more")
        self._keys += (key,)

    def use(self, name: str) -> None:
        """From here on the one of this fingerprint seals. Raises `ValueError`."""
        key = self._named(name)
        if key is None:
            raise ValueError(f"there is no key {name} here: add it first. There are: {self._told()}")
        self._keys = (key, *(each for each in self._keys if each != key))

    def remove(self, name: str) -> None:
        """From here on the one of this fingerprint opens nothing; nor did it, if it is not there. Raises `ValueError`
        for the one that seals."""
        key = self._named(name)
        if key is not None and key == self.first:
            raise ValueError(f"the key {name} seals: have another one used before it is removed")
        self._keys = tuple(each for each in self._keys if each != key)

    def _named(self, name: str) -> bytes | None:
        return next((key for key in self._keys if fingerprint(key) == name), None)

    def _told(self) -> str:
        return ", ".join(self.fingerprints) or "none"
