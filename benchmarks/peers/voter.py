"""One voter of PySyncObj: what `raft` has in its own process, and starts in two others.

A file of its own, since a class can only be made where PySyncObj is installed, and must be found by name when its state
is put on disk; `raft` itself is read everywhere.

    python -m benchmarks.peers.voter "ADDRESS ADDRESS ADDRESS" PLACE
"""

from __future__ import annotations

import os
import queue
import sys
import time

from pysyncobj import SyncObj
from pysyncobj.batteries import ReplCounter, ReplDict, ReplSet
from pysyncobj.syncobj import replicated

heard: queue.Queue[bytes] = queue.Queue()
table, elements, count = ReplDict(), ReplSet(), ReplCounter()


class Voter(SyncObj):  # type: ignore[misc]
    """The voter of this place, in a thread of its own."""

    def __init__(self, address: str, place: int) -> None:
        members = address.split()
        super().__init__(members[place], members[:place] + members[place + 1 :], consumers=[table, elements, count])

    @replicated  # type: ignore[untyped-decorator]
    def tell(self, payload: bytes) -> None:
        heard.put(payload)


if __name__ == "__main__":
    alive, parent = Voter(sys.argv[1], int(sys.argv[2])), os.getppid()
    while os.getppid() == parent:  # one that is killed ends nobody, and who waits for its output waits for ours
        time.sleep(1)
