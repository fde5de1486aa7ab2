"""What is a line on which everything arrives late, and not in the order in which it left?

Every machine gets a second address, 10.78.0.n, at a device of which this process holds the other end: each packet that
leaves there is kept for a time that is drawn for it alone, and then given to the machine it is for. So the delays are
those of a bad line, and all that is above them, UDP and TCP, is the kernel's own.

Not here: loss, which the kernel does itself (`namespaces.Machine.refuse`).
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import selectors
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from random import Random

import pytest

from tests.namespaces import Machine

_TUNSETIFF = 0x400454CA
_TUN, _NO_HEADER = 0x0001, 0x1000
_NEW_NET = 0x40000000
needs_tun = pytest.mark.skipif(not os.access("/dev/net/tun", os.W_OK), reason="needs /dev/net/tun")


def address(machine: Machine) -> str:
    """That of a machine on the slow line."""
    return f"10.78.0.{machine.number}"


def _end_in(machine: Machine) -> int:
    """Our end of a device in the namespace of a machine."""
    got: list[int | OSError] = []

    def open_there() -> None:
        # a namespace is a thread's own, and this one ends; what was opened there stays there
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            with open(f"/run/netns/{machine.netns}", "rb") as place:
                if libc.setns(place.fileno(), _NEW_NET):
                    raise OSError(ctypes.get_errno(), "setns")
            device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"slow", _TUN | _NO_HEADER))
            got.append(device)
        except OSError as error:
            got.append(error)

    thread = threading.Thread(target=open_there)
    thread.start()
    thread.join()
    if isinstance(got[0], OSError):
        raise got[0]
    machine.run("ip", "address", "add", f"{address(machine)}/24", "dev", "slow")
    machine.run("ip", "link", "set", "slow", "up")
    return got[0]


class SlowLine:
    """Carries packets between machines, each after `least` to `most` seconds; `carried` counts them."""

    def __init__(self, machines: list[Machine], least: float, most: float) -> None:
        self.carried = 0
        self._ends = {machine.number: _end_in(machine) for machine in machines}
        self._least, self._most = least, most
        self._chance = Random(1)
        self._under_way: list[tuple[float, int, int, bytes]] = []
        self._stopping, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()

    def _carry(self) -> None:
        with selectors.DefaultSelector() as selector:
            for end in (*self._ends.values(), self._stopping):
                selector.register(end, selectors.EVENT_READ)
            while True:
                left = max(0.0, self._under_way[0][0] - time.monotonic()) if self._under_way else None
                for key, _ in selector.select(left):
                    if key.fd == self._stopping:
                        return
                    self._take(key.fd)
                self._give()

    def _take(self, end: int) -> None:
        with suppress(BlockingIOError):
            while packet := os.read(end, 1 << 16):
                if packet[0] >> 4 == 4 and packet[19] in self._ends:  # IPv4, and the last byte of whom it is for
                    self.carried += 1
                    due = time.monotonic() + self._chance.uniform(self._least, self._most)
                    heapq.heappush(self._under_way, (due, self.carried, packet[19], packet))

    def _give(self) -> None:
        while self._under_way and self._under_way[0][0] <= time.monotonic():
            _, _, number, packet = heapq.heappop(self._under_way)
            with suppress(OSError):  # a full queue loses it, as a real one would
                os.write(self._ends[number], packet)

    def close(self) -> None:
        os.write(self._stop, b"x")
        self._thread.join()
        for each in (*self._ends.values(), self._stopping, self._stop):
            os.close(each)


@contextmanager
def slow_line(machines: list[Machine], least: float, most: float) -> Iterator[SlowLine]:
    line = SlowLine(machines, least, most)
    try:
        yield line
    finally:
        line.close()
