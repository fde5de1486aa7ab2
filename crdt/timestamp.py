"""When was a write made, in an order that all can agree on?

A timestamp is a hybrid logical clock packed into one integer: 48 bits of milliseconds since 1970, 16 bits of counter.
Comparing stamps is comparing integers. `tick` and `observe` are the whole clock; the last stamp is the caller's.

Invariant: a stamp made after another was made or observed here is greater, even if the machine's clock was set back by
an hour in between, or if 65 536 writes fall into one millisecond (the counter then borrows from the next one).

Source: Kulkarni et al., Logical Physical Clocks (2014). Not here: reading a clock; `now` is always an argument.
"""

from __future__ import annotations

from typing import TypeAlias

Timestamp: TypeAlias = int
"""Milliseconds since 1970 shifted left by 16, plus a counter. 64 bits, unsigned."""

COUNTER_BITS = 16
LATEST = 2**64 - 1
"""The greatest stamp that the format can hold, in the year 10889."""


def at(milliseconds: int) -> Timestamp:
    """The first stamp of this millisecond of wall-clock time.

    >>> at(1_000)
    65536000
    """
    return milliseconds << COUNTER_BITS


def milliseconds(stamp: Timestamp) -> int:
    """The wall-clock part of a stamp: milliseconds since 1970.

    >>> milliseconds(at(1_000) + 5)
    1000
    """
    return stamp >> COUNTER_BITS


def tick(last: Timestamp, now: int) -> Timestamp:
    """The stamp of a write made now, given the last stamp made or observed here. `now` is wall-clock milliseconds.

    >>> tick(at(1_000), now=2_000) == at(2_000)
    True
    >>> tick(at(2_000), now=1_000) == at(2_000) + 1  # the clock was set back; the order is kept
    True
    """
    physical = now << COUNTER_BITS
    return physical if physical > last else last + 1


def observe(last: Timestamp, remote: Timestamp, now: int, max_skew: int) -> Timestamp:
    """The last stamp after a remote one was seen; `now` and `max_skew` are milliseconds.

    Raises `ClockSkew` if the remote stamp is more than `max_skew` ahead of our clock. Accepting it would
    drag every later stamp of the whole cluster along, so that one wrong clock would win every tie for ever.

    >>> observe(at(5), remote=at(9), now=6, max_skew=10_000) == at(9)
    True
    >>> observe(at(5), remote=at(90_000), now=6, max_skew=10_000)
    Traceback (most recent call last):
    crdt.timestamp.ClockSkew: a stamp is 89994 ms ahead of this clock (at most 10000 are allowed): one of them is wrong
    """
    ahead = (remote >> COUNTER_BITS) - now
    if ahead > max_skew:
        raise ClockSkew(ahead, max_skew)
    return max(last, remote)


class ClockSkew(ValueError):
    """A stamp lies further in the future than clocks may differ. `ahead` is by how many milliseconds."""

    def __init__(self, ahead: int, max_skew: int) -> None:
        super().__init__(
            f"a stamp is {ahead} ms ahead of this clock (at most {max_skew} are allowed): one of them is wrong"
        )
        self.ahead = ahead
