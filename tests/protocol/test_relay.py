"""Does a write reach everybody in a large cluster, once, and soon even where one that should hand it on dies?"""

from __future__ import annotations

from math import ceil, log2

from hypothesis import given
from hypothesis import strategies as st

from crdt import Batch, Write, encode_batch
from gossip.protocol.codec import Codec
from gossip.protocol.members import Status
from gossip.protocol.messages import Gossip, Pull, Push
from gossip.protocol.relay import Part, Recent, handed
from gossip.protocol.settings import Settings
from tests.protocol.wire import EPOCH, Node, Wire, agree

FEW = Settings(full_fanout=2)
ids = st.sets(st.integers(1, 2**64 - 1), min_size=1, max_size=200)


def inside(part: Part, peer: int) -> int:
    """How far a peer lies from the beginning of a part; 0 if it is not in it."""
    length = (part.before - part.after) % 2**64 or 2**64
    place = (peer - part.after) % 2**64
    return place if place < length else 0


@given(ids, st.integers(1, 20), st.data())
def test_with_equal_lists_everybody_is_told_once_in_few_hops(members: set[int], few: int, data: st.DataObject) -> None:
    author = data.draw(st.sampled_from(sorted(members)))
    told = {author: 0}
    waiting = [(author, Part(author, author))]
    while waiting:
        hop, part = waiting.pop()
        for peer, further in handed(part, members - {hop}, few):
            assert peer not in told, "twice"
            told[peer] = told[hop] + 1
            if further is not None:
                waiting.append((peer, further))
    assert told.keys() == members
    assert max(told.values()) <= max(1, ceil(log2(max(2, len(members) / few))) + 1)


@given(st.lists(ids, min_size=1, max_size=8), ids, st.integers(1, 4), st.data())
def test_lists_that_differ_cost_messages_and_never_go_round(
    lists: list[set[int]], doubtful: set[int], few: int, data: st.DataObject
) -> None:
    """Everybody has some list, whoever he is, and may even not be whom he was taken for."""
    author = data.draw(st.integers(1, 2**64 - 1))
    waiting = [Part(author, author)]
    messages = 0
    while waiting:
        part = waiting.pop()
        peers = lists[messages % len(lists)]
        told = handed(part, peers, few, doubtful)
        messages += len(told)
        assert len({peer for peer, _ in told}) == len(told) <= len(peers)
        for peer, further in told:
            assert inside(part, peer)
            assert further is None or peer not in doubtful, "nothing is handed on to whom nobody can reach"
            if further is not None:
                assert further.after == peer and inside(part, peer) > 0
                ends = (further.before - part.after) % 2**64 or 2**64
                length = (part.before - part.after) % 2**64 or 2**64
                assert inside(part, peer) < ends <= length, "a part is truly inside the one that it is taken from"
                waiting.append(further)
    assert messages <= len(set().union(*lists)) * 2 ** len(lists)


def test_a_doubtful_member_is_told_and_the_next_hands_on() -> None:
    peers = [10, 20, 30, 40, 50, 60, 70]
    told = dict(handed(Part(0, 0), peers, few=1, doubtful={40}))
    assert told[40] is None and told[50] == Part(50, 0)
    assert set(told) == {10, 20, 40, 50}
    everybody = dict(handed(Part(0, 0), peers, few=1, doubtful=set(peers)))
    assert everybody == dict.fromkeys(peers), "if all are, each is told by the author itself"


# -- engines -----------------------------------------------------------------------------------------------------------


def large(count: int, settings: Settings = FEW) -> tuple[Wire, list[Node]]:
    wire = Wire(settings)
    nodes = wire.cluster(*(f"n{number}" for number in range(count)))
    wire.advance(5.0)
    wire.sent.clear()
    return wire, nodes


def test_a_write_takes_one_message_a_peer_and_reaches_all() -> None:
    wire, nodes = large(21)
    nodes[7].write(k=1)
    assert [node.data for node in nodes] == [{"k": 1}] * 21
    packets = wire.packets(Push)
    assert len(packets) == 20 and len({packet.target for packet in packets}) == 20
    assert len({packet.source for packet in packets}) > 5, "many hands"


def test_up_to_the_bound_the_author_tells_each_itself() -> None:
    wire, nodes = large(12, Settings())
    nodes[3].write(k=1)
    assert {packet.source for packet in wire.packets(Push)} == {"n3"}


def hops_of(wire: Wire, author: Node) -> list[str]:
    """Those to whom the author hands parts on."""
    return [packet.target for packet in wire.packets(Push, author.name) if packet.message.part]  # type: ignore[union-attr]


def test_what_a_dead_hop_did_not_hand_on_comes_within_seconds() -> None:
    wire, nodes = large(21)
    author = nodes[0]
    author.write(k=0)
    hop = hops_of(wire, author)[0]
    wire.crash(wire.nodes[hop])
    author.write(k=1)
    left = [node for node in nodes if node.name != hop]
    assert sum(node.data == {"k": 0} for node in left) > 5, "nobody knows of its death yet"
    took = wire.until(lambda: all(node.data == {"k": 1} for node in left), within=5.0)
    assert took <= 3 * wire.settings.probe_interval
    wire.until(lambda: all(hop not in node.living for node in left), within=30.0)
    wire.sent.clear()
    author.write(k=2)
    assert all(node.data == {"k": 2} for node in left), "and then the next one does"
    assert len(wire.packets(Push)) == 19


def test_what_a_hop_did_not_hand_on_goes_another_way_when_its_stream_ends() -> None:
    wire, nodes = large(21)
    author = nodes[0]
    author.write(k=0)
    hop = wire.nodes[hops_of(wire, author)[0]]
    wire.crash(hop)
    author.write(k=1)
    left = [node for node in nodes if node is not hop]
    assert not all(node.data == {"k": 1} for node in left)
    wire.perform(author, author.engine.lost(hop.instance, wire.now))
    wire.deliver()
    assert all(node.data == {"k": 1} for node in left), "at once"
    wire.sent.clear()
    wire.perform(author, author.engine.lost(hop.instance, wire.now))
    wire.deliver()
    assert wire.packets(Push) == [], "and once"


def test_what_a_hop_that_leaves_did_not_hand_on_goes_another_way() -> None:
    """Ours: its goodbye and our write crossed, and it read no more; the stream ended in order, so nothing was lost."""
    wire, nodes = large(21)
    author = nodes[0]
    author.write(k=0)
    hop = wire.nodes[hops_of(wire, author)[0]]
    goodbye = hop.engine.me._replace(status=Status.LEFT)
    wire.crash(hop)
    author.write(k=1)
    left = [node for node in nodes if node is not hop]
    assert not all(node.data == {"k": 1} for node in left)
    wire.perform(author, author.hear(hop.engine.codec.encode(hop.instance, Gossip((goodbye,)))))
    wire.deliver()
    assert all(node.data == {"k": 1} for node in left), "at once"


def test_a_hop_that_takes_less_than_is_sent_hands_nothing_on_meanwhile() -> None:
    """What finds no room on its way is lost to all whom the hop would have told."""
    wire, nodes = large(21)
    author = nodes[0]
    author.write(k=0)
    hop = wire.nodes[hops_of(wire, author)[0]]
    with wire.losing(lambda packet: packet.target == hop.name and isinstance(packet.message, Push)):
        author.write(k=1)
        left = [node for node in nodes if node is not hop]
        assert not all(node.data == {"k": 1} for node in left)
        wire.perform(author, author.engine.lags(hop.instance, True))
        wire.deliver()
        assert all(node.data == {"k": 1} for node in left), "at once"
        wire.sent.clear()
        author.write(k=2)
        assert all(node.data == {"k": 2} for node in left) and hop.name not in hops_of(wire, author)
    author.engine.lags(hop.instance, False)
    wire.sent.clear()
    author.write(k=3)
    assert hop.name in hops_of(wire, author) and all(node.data == {"k": 3} for node in left)


def test_what_was_handed_on_long_ago_is_not_again() -> None:
    wire, nodes = large(21)
    nodes[0].write(k=0)
    hop = wire.nodes[hops_of(wire, nodes[0])[0]]
    wire.advance(5.0)
    wire.sent.clear()
    wire.crash(hop)
    wire.perform(nodes[0], nodes[0].engine.lost(hop.instance, wire.now))
    wire.deliver()
    assert wire.packets(Push) == []


def test_one_who_can_not_take_it_hands_it_on_all_the_same() -> None:
    """Its clock is wrong, or it lacks what comes before: that is its own affair."""
    wire, nodes = large(21)
    author = nodes[0]
    author.write(k=0)
    hop = wire.nodes[hops_of(wire, author)[0]]
    hop.clock = -3_600_000
    with wire.losing(lambda packet: packet.target == nodes[4].name and isinstance(packet.message, Push)):
        author.write(k=1)
    assert hop.data == {"k": 0}
    author.write(k=2)
    for node in nodes:
        if node not in (hop, nodes[4]):
            assert node.data == {"k": 2}, node.name


def test_what_is_malformed_is_not_handed_on_nor_what_was_asked_for() -> None:
    wire, nodes = large(21)
    author, hop = nodes[0], nodes[1]
    around = Part(hop.instance, hop.instance)
    codec = Codec("shop")
    good = encode_batch(Batch(99, 1, 1, (Write((99, 1), (1, "m", b"\xa1k"), EPOCH << 16, b"\x01", ()),)))
    assert hop.hear(codec.encode(author.instance, Push((good, b"\xc1"), part=around))) == []
    assert hop.engine.counters["malformed"] == 1 and hop.store.context == {}
    wire.perform(hop, hop.hear(codec.encode(author.instance, Push((good,), pull=7, parts=1))))
    assert wire.packets(Push, hop.name) == []
    wire.perform(hop, hop.hear(codec.encode(author.instance, Push((good,), part=around))))
    assert len(wire.packets(Push, hop.name)) > 2, "whether or not it was new to it"


def test_a_lost_push_is_repaired_without_waiting_for_a_round_of_probes() -> None:
    """A peer's difference was looked at when it was heard again: with 32 members after half a minute."""
    wire, nodes = large(32, Settings())
    with wire.losing(lambda packet: isinstance(packet.message, Push) and packet.target in ("n5", "n9")):
        nodes[0].write(k=1)
    took = wire.until(lambda: agree(*nodes), within=5.0)
    assert took <= wire.settings.probe_interval + 2 * wire.settings.settle


def test_who_lacks_nothing_pulls_little_while_others_write_all_the_time() -> None:
    """Under load contexts always differ when a ping arrives, and what differs is on its way."""
    wire = Wire(Settings(), latency=0.001)
    nodes = [wire.start(f"n{number}") for number in range(8)]
    for node in nodes[1:]:
        node.join("n0")
    wire.until(lambda: all(len(node.living) == 8 for node in nodes), within=10.0)
    wire.sent.clear()
    for turn in range(600):
        for node in nodes[:4]:
            node.set("k", turn)
            node.flush()
        wire.advance(0.05)
    pulls = len(wire.packets(Pull))
    assert pulls <= 8 * 30 / 4, f"{pulls} pulls of 8 nodes in 30 s"
    wire.until(lambda: agree(*nodes), within=5.0)


def test_what_was_handed_on_is_remembered_for_a_second_or_two() -> None:
    recent, part = Recent(), Part(1, 9)
    recent.turn(10.0)
    recent.add(7, part, (b"x",))
    recent.turn(10.9)
    recent.turn(11.0)
    assert recent.lost(8) == [] and recent.lost(7) == [(part, (b"x",))], "it is kept beyond one turn"
    assert recent.lost(7) == []
    recent.add(7, part, (b"x",))
    recent.turn(12.1)
    recent.turn(13.2)
    assert recent.lost(7) == []
