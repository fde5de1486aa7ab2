"""How does a node give what is shared as of one moment, and how does a running cluster go back to that?

By ordinary writes: what is different is written, everybody gets it as all else, and nothing is special about it. Each
write takes the place of what was seen when the two were compared, and of nothing else.

Invariants: what somebody writes meanwhile stays, be it lost in the snapshot or not; what is owned is left alone; what
would have ended by now is not brought back; a counter is counted up or down by the difference, so that what others
count meanwhile is not lost.

Not here: the comparing, and files (`snapshot`); what the log knows of the past (`past`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from crdt import FOREVER, WITH_AUTHOR, PNCounter, Write, chain
from crdt.codec import COUNTER, object_name
from crdt.timestamp import at
from gossip.errors import SnapshotError
from gossip.snapshot import TYPES, Difference, Snapshot, differences

if TYPE_CHECKING:
    from gossip.node import Node
    from gossip.records import Kept
    from gossip.runtime import Runtime

Progress: TypeAlias = Callable[[int, int], None]
"""Is told how many of how many differences are done."""

_NUMBERS = {name: number for number, name in TYPES.items()}
_STEP = 1_000
_STEP_BYTES = 1 << 18
"""Writes, and bytes of their values, in one visible step: the loop is not held up for long."""
_OVERHEAD = 1_200
"""Bytes of a write beside its key and its value, with a longest name, and some conflicts."""
_LOOK = 0.005
"""Seconds between two looks whether an open batch has ended."""


async def taken(node: Node, runtime: Runtime) -> Snapshot:
    """What is visible here, between two steps: no batch is in it by half."""
    while (snapshot := await asyncio.to_thread(_taken, node, runtime)) is None:
        await asyncio.sleep(_LOOK)
    return snapshot


def _taken(node: Node, runtime: Runtime) -> Snapshot | None:
    """In a thread, since it waits for its turn among those that have batches; None if the loop has one just now."""
    with node.batch(), runtime.lock:
        if runtime.door.others:
            return None
        store, now = runtime.store, time.time_ns() // 1_000_000
        state, mortal = store.state(), {name: list(keys) for name, keys in store.mortal.items()}
    return Snapshot._of(node.config.cluster, node.me.name, state, mortal, now)


async def taken_as_of(node: Node, runtime: Runtime, moment: datetime) -> Snapshot:
    """What was visible here at a moment that is past, as far as the durable log reaches back."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} can be any time of the day: give a datetime with its time zone")
    now = int(moment.timestamp() * 1000)
    if now > time.time_ns() // 1_000_000:
        raise ValueError(f"{moment.isoformat()} is in the future: what will be written until then is not known")
    while runtime.door.open:
        await asyncio.sleep(_LOOK)  # none of a batch is in the log before its end
    await asyncio.sleep(0)  # what was written in this turn goes to the log at its end
    kept = await runtime.keeping.read()
    return await asyncio.to_thread(_as_of, node, kept, now)


def _as_of(node: Node, kept: Kept, now: int) -> Snapshot:
    from gossip.past import store_as_of  # here, since it needs SQLite, as those do that have a directory

    store = store_as_of(kept, at(now + 1) - 1)
    return Snapshot._of(node.config.cluster, node.me.name, store.state(), store.mortal, now)


async def restored(
    node: Node, runtime: Runtime, snapshot: Snapshot | str | Path, objects: Collection[str] | None, delete: bool,
    dry_run: bool, foreign: bool, progress: Progress | None,
) -> list[Difference]:  # fmt: skip
    """Goes back to a snapshot; gives what was, or would be, written for it."""
    if isinstance(objects, str):
        raise TypeError(f"objects is a list of names: [{objects!r}]")
    if not isinstance(snapshot, Snapshot):
        snapshot = await asyncio.to_thread(Snapshot.load, snapshot)
    if snapshot.cluster != node.config.cluster and not foreign:
        raise SnapshotError(
            f"this snapshot is of the cluster {snapshot.cluster!r}, and this node of {node.config.cluster!r}: say "
            "foreign=True (--foreign) if that is meant"
        )
    here = await taken(node, runtime)
    for name in objects or ():
        if not any(name == called for state in (here._state, snapshot._state) for _, called in state.objects):
            raise ValueError(f"there is no object {name!r}, neither in the snapshot nor here")
    moment = at(time.time_ns() // 1_000_000)
    found = await asyncio.to_thread(list, differences(here._state, snapshot._state, objects, moment))
    wanted = found if delete else [each for each in found if each._after is not None]
    if dry_run:
        return wanted
    note = f"restored from a snapshot of {snapshot.at.isoformat(timespec='seconds')}"
    return await _apply(node, wanted, note, progress)


async def _apply(node: Node, wanted: Sequence[Difference], note: str, progress: Progress | None) -> list[Difference]:
    """Writes what leads from the one to the other, in visible steps; gives what was written."""
    applied: list[Difference] = []
    done, largest = 0, node.config.max_transaction // 2
    for step, size in _steps(wanted, min(_STEP_BYTES, largest)):
        with node.batch(note=note) if size <= largest else nullcontext():
            applied += [each for each in step if _write(node, each)]
        done += len(step)
        if progress is not None:
            progress(done, len(wanted))
        await asyncio.sleep(0)
    return applied


def _steps(wanted: Sequence[Difference], limit: int) -> Iterator[tuple[list[Difference], int]]:
    """What is written in one visible step, and about how many bytes that are."""
    step: list[Difference] = []
    size = 0
    for each in wanted:
        more = _OVERHEAD + len(each._element) + (0 if each._after is None else len(each._after[3]))
        if step and (len(step) == _STEP or size + more > limit):
            yield step, size
            step, size = [], 0
        step.append(each)
        size += more
    if step:
        yield step, size


def _write(node: Node, difference: Difference) -> bool:
    """Makes one write; False if nothing has to be written, or what was compared is no longer there."""
    store, kind = node._store, _NUMBERS[difference.type]
    if kind == COUNTER:
        amount = (difference.after or 0) - (difference.before or 0)
        return node._write(PNCounter(store, difference.name).add, amount)
    key = (kind, object_name(difference.name), difference._element)
    seen, wanted = difference._before, difference._after

    def ask(replica: int, stamp: int) -> Write | None:
        shown = next(node._visible(store.shown(key)), None)
        if (shown and shown[:3]) != (seen and seen[:3]):
            return None
        value, expires = (None, FOREVER) if wanted is None else wanted[3:5]
        write = store.write(key, value, replica, stamp, expires)
        owned = {(link[1], link[2]) for link in chain(store.shown(key)) if link[4] == WITH_AUTHOR}
        return write._replace(names=tuple(dot for dot in write.names if dot not in owned))

    return node._write(ask)
