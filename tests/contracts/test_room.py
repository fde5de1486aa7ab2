"""What becomes of that which is in the room, where all streams of a transport read, for a moment only?"""

from __future__ import annotations

from random import Random

import pytest

from gossip.streams import Inbound
from tests.contracts.ends import End, frame


def read(inbound: Inbound, data: bytes) -> None:
    """As the loop does: it puts what it has read into the room, and says how much that is."""
    room = inbound.get_buffer(-1)
    room[: len(data)] = data
    if data:
        inbound.buffer_updated(len(data))


def test_frames_are_whole_wherever_a_read_ends() -> None:
    """All streams share one room: what of a frame has come is kept by its own stream, and by no other."""
    end = End()
    streams = [Inbound(end.transport), Inbound(end.transport)]
    said = [[b"%d of %d" % (number, which) * number for number in range(1, 20)] for which in range(2)]
    wires = [bytearray(b"".join(map(frame, each))) for each in said]
    chance = Random(5)
    while any(wires):
        which = chance.randrange(2)
        read(streams[which], bytes(wires[which][: (size := chance.choice((1, 3, 4, 5, 50, 300)))]))
        del wires[which][:size]
    heard: list[list[bytes]] = [[], []]
    for packet in end.received:
        heard[packet.endswith(b"1")].append(packet)
    assert heard == said and end.counters == {}


def test_a_handler_that_raises_amid_what_was_read_costs_no_frame() -> None:
    """What is in the room is there only now, and the rest of it would be taken for the middle of something else. What
    was taken before is taken again, which changes nothing."""
    end = End()
    inbound, take, interrupted = Inbound(end.transport), end.transport._received, False

    def received(packet: bytes, stream: bool, peer: int | None, ago: float | None) -> bool:
        nonlocal interrupted
        if packet == b"second" and not interrupted:
            interrupted = True
            raise KeyboardInterrupt
        return take(packet, stream, peer, ago)

    end.transport._received = received
    with pytest.raises(KeyboardInterrupt):
        read(inbound, frame(b"first") + frame(b"second") + frame(b"third")[:6])
    read(inbound, frame(b"third")[6:] + frame(b"fourth"))
    assert end.received == [b"first", b"first", b"second", b"third", b"fourth"] and end.counters == {}
