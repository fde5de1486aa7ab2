"""How much of a flood of datagrams is received, and what becomes of a ping in the middle of it?

A process sends as many datagrams as it can to the transport of a node, in bursts, as a large cluster after a pause of
the receiver, or somebody who means harm. What the kernel finds no room for is lost.

  burst  so many at once, and then silence: the share that arrived
  flood  for so many seconds without an end: the share that arrived, and how late the loop was for others

    python benchmarks/flood.py [--burst 2000] [--seconds 3] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import uvloop

from benchmarks.measure import OURS, Result, alone, in_turn
from discovery import Address
from gossip.transport import Transport

SIZE = 300
SPAWN = multiprocessing.get_context("spawn")
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def send(port: int, burst: int, seconds: float, sent: Any) -> None:
    """Sends a burst, or for so long."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
        flood.connect(("127.0.0.1", port))
        until, packet = time.monotonic() + seconds, bytes(SIZE)
        count = 0
        while count < burst or time.monotonic() < until:
            flood.send(packet)
            count += 1
        sent.value = count


class Heard(NamedTuple):
    """What arrived, in percent, and by how many milliseconds a timer was late at most."""

    share: float
    late: float


async def receive(burst: int, seconds: float) -> Heard:
    """What of it arrives, and the longest that a timer of the loop was late."""
    received = 0

    def take(*_: object) -> bool:
        nonlocal received
        received += 1
        return True

    transport = Transport(take, lambda peer: None, 1 << 20, 16)
    address = await transport.listen_network(Address("127.0.0.1", 0))
    sent = SPAWN.Value("q", 0)
    sender = SPAWN.Process(target=send, args=(address.port, burst, seconds, sent))
    sender.start()
    late, quiet, before = 0.0, 0, 0
    while quiet < 20 or sender.is_alive():
        due = time.monotonic() + 0.01
        await asyncio.sleep(0.01)
        late = max(late, time.monotonic() - due)
        quiet, before = (quiet + 1 if received == before else 0), received
    sender.join()
    await transport.close()
    return Heard(100 * received / sent.value, late * 1e3)


async def ask(options: argparse.Namespace, result: Result) -> None:
    burst, seconds = options.burst, options.seconds or (0.5 if options.quick else 3.0)
    for _, name in in_turn(LOOPS, 2 if options.quick else 5):
        for what, count, lasts in (("burst", burst, 0.0), ("flood", 0, seconds)):
            # a loop of its own, in a thread of its own: each kind of loop is to receive
            found = await asyncio.to_thread(heard_by, LOOPS[name], count, lasts)
            result.add(f"{what}, received, {name}", OURS, found.share, "%", more=True)
            result.add(f"{what}, a timer is late by, {name}", OURS, found.late, "ms")
    result.notes.append(f"a burst is {burst} datagrams of {SIZE} bytes, a flood as many as a process can send")


def heard_by(loop: Callable[[], asyncio.AbstractEventLoop], burst: int, seconds: float) -> Heard:
    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(receive(burst, seconds))


def own_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--burst", type=int, default=2000, metavar="DATAGRAMS")
    parser.add_argument("--seconds", type=float, help="of the flood")


if __name__ == "__main__":
    alone(__file__, __doc__ or "", ask, own_options)
