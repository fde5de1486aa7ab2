"""How much of a flood of datagrams is received, and what becomes of a ping in the middle of it?

A process sends as many datagrams as it can to the transport of a node, in bursts, as a large cluster after a pause of
the receiver, or somebody who means harm. What the kernel finds no room for is lost.

  burst  so many at once, and then silence: the share that arrived
  flood  for so many seconds without an end: the share that arrived, and how late the loop was for others

    python benchmarks/flood.py [--burst 2000] [--seconds 3] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import socket
import time
from typing import Any

import uvloop

from discovery import Address
from gossip.transport import Transport

SIZE = 300
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


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


async def receive(burst: int, seconds: float) -> dict[str, float]:
    """What of it arrives, and the longest that a timer of the loop was late."""
    received = 0

    def take(*_: object) -> bool:
        nonlocal received
        received += 1
        return True

    transport = Transport(take, lambda peer: None, 1 << 20, 16)
    address = await transport.listen_network(Address("127.0.0.1", 0))
    sent = multiprocessing.Value("q", 0)
    sender = multiprocessing.Process(target=send, args=(address.port, burst, seconds, sent))
    sender.start()
    late, quiet, before = 0.0, 0, 0
    while quiet < 20 or sender.is_alive():
        due = time.monotonic() + 0.01
        await asyncio.sleep(0.01)
        late = max(late, time.monotonic() - due)
        quiet, before = (quiet + 1 if received == before else 0), received
    sender.join()
    await transport.close()
    return {"sent": sent.value, "received": round(received / sent.value, 3), "late_ms": round(late * 1000, 1)}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="how much of a flood of datagrams is received")
    parser.add_argument("--burst", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    multiprocessing.set_start_method("spawn")
    found = {}
    for name, loop in LOOPS.items():
        for what, burst, seconds in (("burst", options.burst, 0.0), ("flood", 0, options.seconds)):
            with asyncio.Runner(loop_factory=loop) as runner:
                found[f"{name} {what}"] = runner.run(receive(burst, seconds))
    if options.json:
        print(json.dumps(found))
        return
    for name, each in found.items():
        print(
            f"{name:14} sent {each['sent']:8}  received {each['received']:6.1%}  a timer late by {each['late_ms']} ms"
        )


if __name__ == "__main__":
    main()
