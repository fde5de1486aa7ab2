"""Does what was true once change anything when somebody plays it again?

S1: a recorded packet is as good as new, with a key too. After a second, an hour, and when the dead are forgotten; to
whoever said it, to whom it was said, and to others.
"""

from __future__ import annotations

import pytest

from gossip.protocol.effects import Changed, MemberChanged
from gossip.protocol.settings import Settings
from tests.protocol.wire import Node, Wire, agree


def a_day_in_the_life(remember_dead: float) -> tuple[Wire, Node, Node, list[bytes]]:
    """Three nodes that joined, wrote, deleted, suspected each other, and one that left; and all that they said."""
    wire = Wire(Settings(remember_dead=remember_dead))
    ann, bob, cat = wire.start("ann"), wire.start("bob"), wire.start("cat")
    bob.join("ann")
    cat.join("ann")
    ann.write(kept="first", gone=1)
    bob.write(kept="second")
    ann.delete("gone")
    ann.flush()
    wire.deliver()
    wire.cut("bob", "cat")
    wire.advance(3.0)
    wire.heal()
    cat.leave()
    wire.advance(3.0)
    return wire, ann, bob, [packet.payload for packet in wire.sent]


@pytest.mark.parametrize(("seconds", "remembered"), [(1.0, 86_400.0), (3600.0, 86_400.0), (300.0, 60.0)])
def test_all_that_was_ever_said_changes_nothing_however_late_it_comes_again(seconds: float, remembered: float) -> None:
    wire, ann, bob, said = a_day_in_the_life(remembered)
    wire.advance(seconds)
    assert ann.data == bob.data == {"kept": "second"} and ann.living == {"ann", "bob"}
    before = (ann.state, bob.state)
    ann.effects.clear()
    bob.effects.clear()
    for payload in said:
        for node in (ann, bob):
            wire.perform(node, node.hear(payload))
    wire.deliver()
    assert (ann.state, bob.state) == before and agree(ann, bob)
    assert not ann.saw(Changed) and not bob.saw(Changed), "nobody saw an old value, not even for a moment"
    if seconds < remembered:  # later it is forgotten that cat has left
        assert not ann.saw(MemberChanged) and not bob.saw(MemberChanged)
    wire.advance(120.0)
    assert ann.living == bob.living == {"ann", "bob"}, "and who was forgotten is looked for, and not found"
    assert (ann.state, bob.state) == before
