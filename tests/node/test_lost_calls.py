"""What if a signal handler raises between two lines of the loop's own code, and a call that was due never comes?

A handle that is cancelled behind our back is what remains then: the loop has forgotten it, and we wait for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

import gossip
from gossip.runtime import Runtime
from tests.waiting import nodes, until

INTERVAL = 0.1


def timer(runtime: Runtime) -> None:
    """The engine is never asked again what is due."""
    handle = runtime._pulse._timer
    assert handle is not None
    handle.cancel()


def timer_and_look_at_deadlines(runtime: Runtime) -> None:
    """Nor does a packet have anybody look."""
    timer(runtime)
    runtime._schedule_asked = time.monotonic()


def timer_put_off(runtime: Runtime) -> None:
    """It was late, and gave the streams a turn."""
    timer(runtime)
    runtime._pulse._timer_at = runtime._pulse._comes_at = float("-inf")


@pytest.mark.parametrize("lose", [timer, timer_and_look_at_deadlines, timer_put_off])
def test_a_lost_timer_is_made_anew(cluster: str, lose: Callable[[Runtime], None]) -> None:
    """Ours: a node never asked anybody again, and gave its disk no state, as long as it lived."""

    async def story() -> None:
        async with nodes(cluster, probe_interval=INTERVAL) as (ann, _):
            runtime = ann._running()
            detector = runtime.engine.membership.detector
            lose(runtime)
            before = detector.next_round
            await until(lambda: detector.next_round > before + 3 * INTERVAL)

    asyncio.run(story())


def test_a_lone_node_looks_at_its_timer_when_it_writes(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            m = node.map("m")
            m.set("short", 1, ttl=0.2)
            await until(lambda: node._running()._pulse._timer)
            timer(node._running())

            def ended() -> bool:
                m["other"] = 1
                return not node._store.shown((1, "m", b"\xa5short"))  # what is dropped, not only what is not shown

            await until(ended)

    asyncio.run(story())


def test_lost_beats_begin_anew(cluster: str) -> None:
    """Ours: whatever came counted as late for ever, and nobody's silence as his own."""

    async def story() -> None:
        async with nodes(cluster, probe_interval=INTERVAL) as (ann, _):
            pulse = ann._running()._pulse
            lost = asyncio.get_running_loop().call_later(60, lambda: None)
            pulse._beating, pulse._last, pulse._before = lost, time.monotonic() - 60, time.monotonic() - 60
            lost.cancel()
            await until(lambda: pulse._beating is not lost and not pulse.late)

    asyncio.run(story())


def test_after_a_lost_flush_writes_leave_with_their_turn_again(cluster: str) -> None:
    """Ours: each waited for the next tick, or for a packet."""

    async def story() -> None:
        async with nodes(cluster, probe_interval=INTERVAL) as (ann, bob):
            writing = ann._running().writing
            writing.flush_due = True
            ann.map("m")["k"] = 1
            await until(lambda: bob.map("m").get("k") == 1)
            await until(lambda: not writing.flush_due)

    asyncio.run(story())
