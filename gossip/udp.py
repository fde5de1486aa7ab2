"""How do datagrams get out of the kernel before they are lost, and when did each of them come?

The socket is ours and not a transport of the loop: asyncio reads one datagram a turn, uvloop some, and of a burst of
2 000 there arrived 17 to 46 of 100. Here it is read until it is empty, and its buffer is as large as the kernel lets it
be: all 2 000 arrive, in either loop, and of an endless flood 63 of 100 instead of 43 (benchmarks/flood.py).

The kernel notes when each datagram came. So an answer is judged by when it was there, and not by when our loop had time
for it. It notes that by the wall clock, which may be set at any time: what it says counts only between the moment when
the socket was last found empty, and now.

Invariants: a turn of the loop reads a bounded number; no error of a socket is raised, each is a counter; what can not
be a datagram to that address at all is not sent, and says so.
Source: socket(7) on SO_TIMESTAMPNS and SO_RXQ_OVFL, ip(7) on why an unconnected socket is told of no error of others.
Not here: what is in a datagram (`datagrams`), and what goes by stream instead (`transport`).
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, TypeAlias

_RECEIVE_BUFFER: Final = 4 << 20
"""Bytes asked of the kernel, which gives less where its `net.core.rmem_max` is: what comes to a member of a thousand
while its loop stands still for some seconds, 2 000 datagrams of the largest kind. Memory only while it is full."""
_A_TURN: Final = 64
"""Datagrams read in one turn of the loop: a flood takes it for 4 ms if all of them are good, and others have theirs."""
_A_VERDICT: Final = 4096
"""Datagrams read before somebody is judged: as many of the largest as the buffer holds, so that a flood has an end."""
_LARGEST: Final = 1 << 16
# Not in Python's socket module.
_SO_TIMESTAMPNS: Final = 35
_SO_RXQ_OVFL: Final = 40
_TIMESPEC: Final = struct.Struct("@ll")
_DROPPED: Final = struct.Struct("@I")
_ANCILLARY: Final = socket.CMSG_SPACE(_TIMESPEC.size) + socket.CMSG_SPACE(_DROPPED.size)

_Ancillary: TypeAlias = Sequence[tuple[int, int, bytes]]


class Datagrams:
    """The datagram socket of one node, bound to an address. Raises `OSError` if that can not be had.

    `take` is called with each datagram, from the loop, and how many seconds ago it came; None where nobody knows.
    """

    def __init__(
        self, host: str, port: int, take: Callable[[bytes, float | None], None], counters: Counter[str]
    ) -> None:
        self._take = take
        self._counters = counters
        self._room = bytearray(_LARGEST)
        self._view = memoryview(self._room)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._both = host == "::" and socket.has_dualstack_ipv6()
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            if family == socket.AF_INET6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not self._both)
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            if sys.platform == "linux":
                # from a moment later on, if this is the first socket that asks: until then it notes when one is read
                for option in (_SO_TIMESTAMPNS, _SO_RXQ_OVFL):
                    with suppress(OSError):  # then nobody knows
                        self._socket.setsockopt(socket.SOL_SOCKET, option, 1)
            self._socket.bind((host, port))
        except BaseException:
            self._socket.close()
            raise
        self._emptied = time.monotonic()
        """When there was nothing to be read."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._read, _A_TURN)

    def catch_up(self) -> None:
        """Takes all that has come: before somebody is judged by what has not."""
        self._read(_A_VERDICT)

    def _read(self, most: int) -> None:
        for _ in range(most):
            if self._socket.fileno() < 0:
                return
            try:
                size, ancillary, flags, _ = self._socket.recvmsg_into([self._room], _ANCILLARY)
            except (BlockingIOError, InterruptedError):
                self._emptied = time.monotonic()
                return
            except OSError:
                self._counters["datagram_failed"] += 1
                continue
            if flags & socket.MSG_TRUNC:
                self._counters["oversized_datagrams"] += 1
                continue
            self._take(bytes(self._view[:size]), self._ago(ancillary))

    def _ago(self, ancillary: _Ancillary) -> float | None:
        ago = None
        for level, kind, data in ancillary:
            if level != socket.SOL_SOCKET:
                continue
            if kind == _SO_TIMESTAMPNS and len(data) == _TIMESPEC.size:
                seconds, nanoseconds = _TIMESPEC.unpack(data)
                since = (time.time_ns() - seconds * 1_000_000_000 - nanoseconds) / 1e9
                ago = max(0.0, min(since, time.monotonic() - self._emptied))
            elif kind == _SO_RXQ_OVFL and len(data) == _DROPPED.size:
                self._counters["datagrams_overrun"] = _DROPPED.unpack(data)[0]
        return ago

    def send(self, datagram: bytes, host: str, port: int) -> bool:
        """Sends it, or loses it, as the network would; False if none can get there at all, and a stream has to."""
        if ":" in host:
            if self._socket.family == socket.AF_INET:
                return False
        elif self._socket.family == socket.AF_INET6:
            if not self._both:
                return False
            host = f"::ffff:{host}"
        try:
            self._socket.sendto(datagram, (host, port))
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                return False
            # no buffer, no way, forbidden: for now, or for ever, which the probe that follows by stream finds out
            self._counters["datagram_failed"] += 1
        return True

    def fileno(self) -> int:
        """The descriptor, for a forked child to close."""
        return self._socket.fileno()

    def close(self) -> None:
        """Reads and sends no more."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
