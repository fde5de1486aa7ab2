"""Where do the other nodes of this host find us, and has the process of one of them ended?

A node has a place in the runtime directory: a lock that it holds for its life, and its sockets. Of each neighbour whose
claim was heard, its lock is kept open: when the kernel frees it, the node has ended, which is proof. Of each to which a
stream was opened, a pidfd is: it is readable when the process has ended, even where a forked child has its lock.

Up to 32 nodes of a host watch each other, each all. With more, which would cost each of them four descriptors for each
other one, a node watches six: the three that follow it on the ring of instances, so that nobody is watched by less than
three, and one in each further quarter, so that a part of the ring that dies at once is seen from outside.

Invariants: an end is proved only of processes whose lock was seen on this host, never by a file that is missing; a lock
once taken is held until we end, even after somebody removed its file, for others may have it open as well.
Not here: who is a member, and what an end means (the engine's part).
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable
from itertools import count
from pathlib import Path

from discovery import HostDirectory, Place, Witness, parse_address, process_of, runtime_directory
from gossip.errors import ConfigError, StartError

_MOST_WITNESSES = 1024
"""Descriptors kept for neighbours: more nodes than that on one host are not what this is for."""
MESH = 32
"""Nodes of one host that watch each other, each all."""
_RING = 1 << 64
_SUCCESSORS = 3
_QUARTERS = 4


def to_watch(me: int, others: Iterable[int]) -> set[int]:
    """Whom of the other nodes of its host a node watches.

    >>> to_watch(1, range(2, 5))
    {2, 3, 4}
    >>> eighths = [number << 58 for number in range(1, 64)]
    >>> sorted(each >> 58 for each in to_watch(0, eighths))
    [1, 2, 3, 16, 32, 48]
    """
    ring = sorted((other - me) % _RING for other in others)
    if len(ring) < MESH:
        return {(me + place) % _RING for place in ring}
    places = {*range(_SUCCESSORS)}
    for number in range(1, _QUARTERS):
        place = bisect_left(ring, number * _RING // _QUARTERS)
        places.add(next(each % len(ring) for each in count(place) if each % len(ring) not in places))
    return {(me + ring[place]) % _RING for place in places}


class Neighbours:
    """This node's place among the nodes of its host, and what it knows of theirs.

    Raises `StartError` if there is no place to be had, `ConfigError` if the directory can not be one.
    """

    def __init__(self, cluster: str, base: str, instance: int) -> None:
        self._cluster = cluster
        self._base = Path(base) if base else None
        self._former: list[Place] = []
        self._witnesses: dict[int, Witness] = {}
        self._processes: dict[int, int] = {}
        """Their pidfds."""
        try:
            self._directory = HostDirectory(runtime_directory(cluster, self._base))
            self.place = self._directory.claim(instance)
        except OSError as error:
            raise StartError(error.errno, f"{error.filename}: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(str(error)) from None

    def others(self) -> list[str]:
        """The addresses of other living nodes: of all, or of as many as lead to all. Raises `OSError`."""
        found = {int(Path(address.path).stem, 16): str(address) for address in self._directory.others()}
        wanted = to_watch(self.place.instance, found)  # who is asked tells of the rest, and each has others to ask
        return [address for instance, address in found.items() if instance in wanted]

    def claim_anew(self) -> None:
        """Takes the same place again, after somebody removed its files. Raises `OSError`.

        The instance stays, and with it the paths: who knows us need learn nothing new.
        """
        runtime_directory(self._cluster, self._base)
        self._former.append(self.place)
        self.place = self._directory.claim(self.place.instance)

    def meet(self, instance: int, addresses: tuple[str, ...]) -> bool:
        """A living member was heard of: if it is of this host, its end can be proved from here on. Says whether."""
        if instance in self._witnesses:
            return True
        if len(self._witnesses) >= _MOST_WITNESSES:
            return False
        for text in addresses:
            if text.startswith("unix:"):
                try:
                    witness = self._directory.witness(parse_address(text))
                except ValueError:
                    continue  # an address that nobody could listen at
                if witness is not None:
                    self._witnesses[instance] = witness
                    return True
        return False

    def process(self, instance: int, stream: int) -> int | None:
        """A pidfd of the member to whom this stream was opened; None if there is none, or there was one before."""
        if instance in self._processes or len(self._processes) >= _MOST_WITNESSES:
            return None
        pidfd = process_of(stream)
        if pidfd is not None:
            self._processes[instance] = pidfd
        return pidfd

    @property
    def processes(self) -> dict[int, int]:
        """The pidfd of each member that has one."""
        return dict(self._processes)

    def forget(self, instance: int) -> None:
        """The member is gone, or is no longer watched by this node."""
        pidfd = self._processes.pop(instance, None)
        if pidfd is not None:
            os.close(pidfd)
        witness = self._witnesses.pop(instance, None)
        if witness is not None:
            witness.close()

    def knows(self, instance: int) -> bool:
        """Whether the end of this member could be proved here."""
        return instance in self._witnesses

    def has_ended(self, instance: int) -> bool:
        """Whether it is proved that the process of this member has ended."""
        witness = self._witnesses.get(instance)
        return witness is not None and witness.ended

    def release(self) -> None:
        """Lets go of the place, and removes its files."""
        for place in [*self._former, self.place]:
            place.release()
        for instance in {*self._witnesses, *self._processes}:
            self.forget(instance)

    def abandon(self) -> None:
        """In a forked child: lets go without removing anything, for it is the parent's."""
        for place in [*self._former, self.place]:
            place.abandon()
        for instance in {*self._witnesses, *self._processes}:
            self.forget(instance)
