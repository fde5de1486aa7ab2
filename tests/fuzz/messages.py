"""What does each kind of message look like when nodes really say it?

Engines on the fake wire go through a story in which each kind is needed: they join, write, lose packets, fall behind,
ask each other whether they hold something. What they said is what the fuzzing begins with.
Not here: what becomes of it (`mutation`, `targets`).
"""

from __future__ import annotations

from functools import cache

from crdt import LWWMap, Note
from gossip.protocol.effects import Send
from gossip.protocol.messages import Busy, Message, Pull, Push, StatePart
from gossip.protocol.settings import Settings
from tests.protocol.wire import Node, Packet, Wire

CLUSTER = "shop"
_EACH = 4
"""Packets of a kind that are kept: the shortest, the longest, and some between."""
_LONGEST = 3_000
"""Bytes of a packet that is kept: what is longer takes longer to bend, and says nothing that a shorter one does not."""


def _told(wire: Wire, node: Node, message: Message, peer: Node) -> None:
    """Has a node say something to another."""
    wire.perform(node, [Send((peer.instance,), message)])
    wire.deliver()


def _writes(node: Node) -> None:
    """A little of everything that can be written."""
    node.write(flag=True, text="héllo", number=-7, nested={"a": [1, 2.5, None, b"\xff"]})
    node.delete("number")
    node.engine.begin()
    store, engine = node.store, node.engine
    stamp = engine.stamp(node.wall)
    write = LWWMap(store, "m").set("noted", [1], engine.replication.replica, stamp)._replace(expires=stamp + (1 << 40))
    node.wire.perform(node, engine.update(write, node.wire.now, Note("ann", "prices of May")))
    node.set("in", 1)
    node.set("one", 2)
    node.engine.end()
    node.flush()
    node.wire.deliver()


@cache
def packets() -> tuple[Packet, ...]:
    """Some packets of each kind, as nodes sent them."""
    wire = Wire(Settings(log_bytes=2_000, part_bytes=700, max_transfers=1))
    ann, bob = wire.start("ann", tags=(("role", "web"),)), wire.start("bob")
    bob.join("ann")
    _writes(ann)
    _writes(bob)
    wire.perform(ann, ann.engine.sync([bob.instance], ann.store.context, durable=False)[1])
    wire.deliver()
    with wire.losing(lambda packet: isinstance(packet.message, Push)):
        ann.write(lost=1)
    wire.advance(5.0)  # pulled from the log
    ann.write(**{f"k{number}": "x" * 30 for number in range(60)})
    with wire.losing(lambda packet: isinstance(packet.message, Push)):
        ann.write(k7="changed", new="added")
        ann.write(**{f"l{number}": "y" * 30 for number in range(60)})
    wire.advance(8.0)  # found by comparing ranges
    cat, dan = wire.start("cat"), wire.start("dan")
    with wire.losing(lambda packet: isinstance(packet.message, StatePart) and packet.message.number > 0):
        cat.join("ann")  # whose state is on its way
        dan.join("ann")
        _told(wire, ann, Busy(7), dan)
        wire.advance(1.0)
    wire.advance(8.0)
    wire.cut("ann", "bob")
    wire.advance(6.0)  # asked for through others
    wire.heal()
    wire.crash(bob)
    wire.advance(20.0)
    cat.leave()
    _told(wire, dan, Pull(1, b"\x90", True), ann)
    return tuple(wire.sent)


@cache
def contents() -> dict[str, tuple[bytes, ...]]:
    """By the name of the kind, some packets of it."""
    found: dict[str, set[bytes]] = {}
    for packet in packets():
        if len(packet.payload) <= _LONGEST:
            found.setdefault(type(packet.message).__name__, set()).add(packet.payload)
    return {kind: _some(sorted(of_kind, key=lambda each: (len(each), each))) for kind, of_kind in found.items()}


def _some(by_length: list[bytes]) -> tuple[bytes, ...]:
    last = len(by_length) - 1
    return tuple(by_length[place] for place in sorted({last * step // (_EACH - 1) for step in range(_EACH)}))
