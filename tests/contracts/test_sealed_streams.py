"""Does a stream keep its contract when it is sealed, and does nobody in between get anything out of it, or in?

Over unix streams and TCP, in both loops. The pure part, and every bit that may be bent: tests/node/test_handshake.py.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from gossip.handshake import FIRST, GREETING, Call, answered
from gossip.identity import KeyPair
from gossip.keyring import Keyring, fingerprint
from gossip.seal import Seal
from gossip.streams import MAX_FRAME
from tests.contracts.ends import LOOPS, Play, World, closed, frame, play
from tests.waiting import until

KEY, NEW = secrets.token_bytes(32), secrets.token_bytes(32)
HELLO = 4 + GREETING
PROOF = 4 + FIRST
BOB = KeyPair("shop", secrets.token_bytes(32))
"""Who listens, where a test does that itself."""


def seal() -> Seal:
    """One of somebody with the key of the cluster."""
    return Seal(Keyring([KEY]), "shop", secrets.token_bytes(16))


async def send(raw: Any, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(raw, data)


async def read(raw: Any, count: int) -> bytes:
    got = b""
    while len(got) < count:
        part = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(raw, count - len(got)), 10)
        assert part, f"it ended after {len(got)} of {count} bytes"
        got += part
    return got


# --- what is sent arrives -----------------------------------------------------------------------------------------


def test_what_is_sent_arrives_whole_and_in_order_both_ways(run: Play) -> None:
    async def story(world: World) -> None:
        here, there = await world.end(keys=[KEY]), await world.end(keys=[KEY])
        chance = random.Random(7)
        packets = [chance.randbytes(chance.choice((0, 1, 3, 4, 5, 1000, 70_000))) for _ in range(300)]
        for packet in packets:
            here.send(there, packet)
            there.send(here, packet)
        here.transport.dial(there.address, b"from somebody who only calls once")
        await until(lambda: len(there.received) == 301 and len(here.received) == 300)
        assert here.received == packets and [each for each in there.received if b"only" not in each] == packets
        assert here.lost == there.lost == [] and here.counters == there.counters == {} and not here.strange

    run(story)


def test_a_largest_packet_arrives(run: Play) -> None:
    async def story(world: World) -> None:
        here, there = await world.end(keys=[KEY]), await world.end(keys=[KEY])
        here.send(there, bytes(MAX_FRAME - 16))
        await until(lambda: there.received)
        assert there.received == [bytes(MAX_FRAME - 16)] and there.counters == {}

    run(story)


@pytest.mark.parametrize("loop", LOOPS)
def test_datagrams_go_when_their_stream_has_begun_and_count_once(loop: str) -> None:
    """Until then what would be one goes by the stream. One that was recorded is nothing, while the stream is open, when
    it has ended, and to a receiver that was started again."""

    async def story(world: World) -> None:
        here, there = await world.end(keys=[KEY]), await world.end(keys=[KEY])
        came: list[bytes] = []
        take = there.transport._datagram

        def heard(data: bytes, ago: float | None) -> None:
            came.append(data)
            take(data, ago)

        assert there.transport._datagrams is not None
        there.transport._datagrams._take = heard
        here.send(there, b"by stream", datagram=True)
        await until(lambda: there.received)
        assert not came
        # Long enough that no sealed bytes hold them by chance.
        plain = [b"plain text no. %d" % number for number in range(5)]
        for data in plain:
            here.send(there, data, datagram=True)
        await until(lambda: len(there.received) == 6)
        assert len(came) == 5 and sorted(there.received[1:]) == plain
        assert not any(data in sealed for data in plain for sealed in came)
        recorded = list(came)

        def replay(target: Any) -> None:
            host, _, port = target.address.rpartition(":")
            for data in recorded:
                here.transport._datagrams.send(data, host, int(port))  # type: ignore[union-attr]

        replay(there)
        await until(lambda: there.counters.get("repeated") == 5)
        here.transport.forget(there.me)
        await until(lambda: not there.transport._inbound)
        again = await world.end(keys=[KEY])
        for target in (there, again):
            replay(target)
            await until(lambda target=target: target.counters.get("unsealed") == 5)
        assert len(there.received) == 6 and again.received == [] and there.transport._receipts == {}
        assert not there.strange, "nobody is told of what a stranger can send as often as he likes"

    play("tcp", loop, story)


def test_what_is_sent_before_the_answer_waits_and_a_goodbye_among_it_still_leaves(run: Play) -> None:
    async def story(world: World) -> None:
        here, there = await world.end(keys=[KEY], send_buffer=1 << 20), await world.end(keys=[KEY])
        for _ in range(200):
            here.send(there, b"x" * 50_000)
        assert here.counters == {"dropped": 180}
        here.transport.forget(there.me)
        await until(lambda: len(there.received) == 20)
        await until(lambda: not there.transport._inbound)
        assert here.lost == [] and set(there.received) == {b"x" * 50_000}

    run(story)


def test_a_goodbye_leaves_even_if_its_stream_is_forgotten_before_the_answer(run: Play) -> None:
    async def story(world: World) -> None:
        here = await world.end(keys=[KEY])
        listener, address = world.listener()
        here.send(address, b"goodbye", BOB.instance)
        raw = await world.accept(listener)
        hello = await read(raw, HELLO)
        here.transport.forget(BOB.instance)
        answer, opening = answered(seal(), BOB, hello[4:], secrets.token_bytes(32))
        await send(raw, frame(answer))
        opening.prove((await read(raw, PROOF))[4:])
        assert opening.open((await read(raw, 4 + 16 + 7))[4:]) == b"goodbye"
        assert await closed(raw) and here.lost == []

    run(story)


def test_a_stream_shows_nobodys_process_until_its_other_end_is_proved_and_then_forgets_its_secret(run: Play) -> None:
    async def story(world: World) -> None:
        here = await world.end(keys=[KEY])
        listener, address = world.listener()
        here.send(address, b"who is there?", BOB.instance)
        raw = await world.accept(listener)
        hello = await read(raw, HELLO)
        link = here.transport._links[BOB.instance]
        assert here.transport.stream_to(BOB.instance) is None and link._call is not None
        answer, _ = answered(seal(), BOB, hello[4:], secrets.token_bytes(32))
        await send(raw, frame(answer))
        await read(raw, PROOF)
        assert (here.transport.stream_to(BOB.instance) is not None) == (world.kind == "unix")
        assert link._call is None and not link.outdated

    run(story)


def test_a_caller_with_nothing_to_say_is_no_stranger_all_the_same(run: Play) -> None:
    """Ours: whoever only sent datagrams said nothing on the stream, and was closed for it."""

    async def story(world: World) -> None:
        here, there = await world.end(keys=[KEY]), await world.end(keys=[KEY])
        here.send(there, b"ping", datagram=True)
        await until(lambda: len(there.transport._inbound) == 1 and not there.transport._strangers)

    run(story)


# --- who may not speak --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", (4 << 20).to_bytes(4, "big"), frame(b"x" * (GREETING - 1)),
        frame(bytes(GREETING)), frame(b""), GREETING.to_bytes(4, "big") + b"never whole",
    ],
)  # fmt: skip
def test_a_stranger_is_closed_without_a_word(run: Play, said: bytes) -> None:
    async def story(world: World) -> None:
        end = await world.end(keys=[KEY], silence=0.1)
        raw = await world.stranger(end)
        await send(raw, said)
        loop = asyncio.get_running_loop()
        try:
            assert await asyncio.wait_for(loop.sock_recv(raw, 100), 10) == b""
        except ConnectionError:
            pass  # what it had said was not read
        assert end.received == [] and end.strange == end.counters.get("unsealed", 0) == (b"never" not in said)

    run(story)


def test_who_has_another_key_or_none_is_not_answered_and_not_heard(run: Play) -> None:
    async def story(world: World) -> None:
        end = await world.end(keys=[KEY])
        for keys in ([NEW], []):
            stranger = await world.end(keys=keys)
            stranger.send(end, b"let me in")
            await until(lambda stranger=stranger: stranger.lost == [end.me])
            assert stranger.counters == {}, "nothing was said to it"
        open_ = await world.end()
        open_.foreign.add(b"?")
        insider = await world.end(keys=[KEY])
        insider.send(open_, b"a secret")
        await until(lambda: open_.received)
        assert b"secret" not in open_.received[0] and end.received == []
        assert end.counters["unsealed"] == end.strange == 2

    run(story)


def test_nothing_is_said_to_a_listener_that_can_not_prove_itself(run: Play) -> None:
    """Neither to one that answers with rubbish, nor to one that only listens; and what waits for it is bounded."""

    async def story(world: World) -> None:
        for answer in (frame(secrets.token_bytes(GREETING)), bytes(2000), b""):
            here = await world.end(keys=[KEY], send_buffer=1 << 16)
            here.transport.patience = 0.2
            listener, address = world.listener()
            for _ in range(10):
                here.send(address, b"secret" * 2000)
            raw = await world.accept(listener)
            hello = await read(raw, HELLO)
            await send(raw, answer)
            assert await closed(raw) and b"secret" not in hello
            await until(lambda here=here: here.lost == [1])
            assert here.counters["dropped"] == 5 and here.counters.get("unproved", 0) == bool(answer)

    run(story)


def test_what_comes_after_the_answer_is_passed_over(run: Play) -> None:
    async def story(world: World) -> None:
        here = await world.end(keys=[KEY])
        listener, address = world.listener()
        here.send(address, b"1", BOB.instance)
        raw = await world.accept(listener)
        hello = await read(raw, HELLO)
        answer, opening = answered(seal(), BOB, hello[4:], secrets.token_bytes(32))
        await send(raw, frame(answer) + b"unasked" * 1000)
        opening.prove((await read(raw, PROOF))[4:])
        assert opening.open((await read(raw, 4 + 17))[4:]) == b"1"
        await send(raw, b"unasked" * 1000)
        here.send(address, b"2", BOB.instance)
        assert opening.open((await read(raw, 4 + 17))[4:]) == b"2" and here.lost == []

    run(story)


def test_who_repeats_a_hello_stays_a_stranger(run: Play) -> None:
    async def story(world: World) -> None:
        end = await world.end(keys=[KEY], silence=0.1)
        raw = await world.stranger(end)
        await send(raw, frame(Call(seal(), secrets.token_bytes(32)).hello))
        assert len(await read(raw, HELLO)) == HELLO
        assert end.transport._strangers
        assert await closed(raw)

    run(story)


# --- who listens in -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("later", ["at once", "an hour later", "after a restart"])
def test_of_a_recorded_stream_nothing_is_ever_delivered_again(run: Play, later: str) -> None:
    """S1."""

    async def story(world: World) -> None:
        here, there = await world.end(keys=[KEY]), await world.end(keys=[KEY])
        tap = await world.tap(there)
        for number in range(5):
            here.send(tap, b"write %d" % number)
        await until(lambda: len(there.received) == 5)
        here.transport.forget(there.me)
        await until(lambda: not there.transport._inbound)
        recorded = bytes(tap.said[0])
        loop, target = asyncio.get_running_loop(), there
        if later == "an hour later":
            if not isinstance(loop, asyncio.SelectorEventLoop):
                return  # a loop whose clock can not be set; nothing in the handshake looks at one
            real = loop.time
            loop.time = lambda: real() + 3600  # type: ignore[method-assign]
        if later == "after a restart":
            target = await world.end(keys=[KEY])
        first = recorded[:HELLO]
        for said in (recorded, recorded + recorded, first + recorded[HELLO + PROOF :], recorded[HELLO:], first * 2):
            before = target.counters.get("unsealed", 0)
            raw = await world.stranger(target)
            await send(raw, said)
            assert await closed(raw)
            assert target.counters["unsealed"] == before + 1
        patient = await world.stranger(target)
        await send(patient, first)
        assert len(await read(patient, HELLO)) == len(first), "it is answered, by no more than it said"
        await send(patient, recorded[HELLO:])
        assert await closed(patient)
        assert there.received == [b"write %d" % number for number in range(5)] and target.received in (
            [],
            there.received,
        )

    run(story)


def test_what_somebody_on_the_way_cuts_swaps_or_bends_ends_the_stream(run: Play) -> None:
    async def story(world: World) -> None:
        def nth(number: int, do: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
            seen = iter(range(1000))
            return lambda data: do(data) if next(seen) == number else data

        bend = lambda data: data[:-1] + bytes([data[-1] ^ 1])  # noqa: E731
        for change in (
            nth(0, bend),
            nth(1, bend),
            nth(3, bend),
            nth(3, lambda data: b""),
            nth(3, lambda data: data * 2),
        ):
            here, there = await world.end(keys=[KEY]), await world.end(keys=[KEY])
            tap = await world.tap(there, change)
            for number in range(8):
                here.send(tap, b"%d" % number)
                if here.lost:
                    break
                link = here.transport._links[there.me]
                await until(lambda link=link: link._opened or link.ending)
                for _ in range(20):
                    await asyncio.sleep(0)  # each packet is a piece of its own on its way
            await until(lambda there=there: there.counters.get("unsealed"))
            assert there.received == [b"%d" % number for number in range(len(there.received))], "a beginning of it"
            assert len(there.received) < 8

    run(story)


def test_who_listens_in_reads_nothing_and_finds_nothing_twice(run: Play) -> None:
    async def story(world: World) -> None:
        here, there = await world.end(keys=[KEY]), await world.end(keys=[KEY])
        tap = await world.tap(there)
        for _ in range(2):
            here.send(tap, b"attack at dawn")
            await until(lambda: not here.transport._links[there.me].unsent and here.transport._links[there.me]._opened)
            here.transport.forget(there.me)
        await until(lambda: len(there.received) == 2)
        one, two = map(bytes, tap.said)
        assert len(one) == len(two) == HELLO + PROOF + 4 + 16 + len(b"attack at dawn")
        assert b"attack" not in one and not {one[at : at + 8] for at in range(4, HELLO - 8)} & {
            two[at : at + 8] for at in range(28, HELLO - 8)
        }

    run(story)


# --- another key --------------------------------------------------------------------------------------------------


def test_streams_give_way_to_new_ones_when_another_key_is_used_and_nothing_is_lost(run: Play) -> None:
    async def story(world: World) -> None:
        here, there = await world.end(keys=[KEY]), await world.end(keys=[KEY])
        number = 0

        def write() -> None:
            nonlocal number
            for _ in range(20):
                here.send(there, b"%d" % number)
                number += 1

        def change(do: Callable[[Keyring], None], *ends: Any) -> None:
            for end in ends:
                do(end.keyring)
                end.transport.rekeyed()
            write()

        write()
        change(lambda ring: ring.add(NEW), here, there)
        await until(lambda: len(there.received) == number)
        (stream,) = there.transport._inbound
        change(lambda ring: ring.use(fingerprint(NEW)), here)
        await until(lambda: there.transport._inbound and stream not in there.transport._inbound)
        change(lambda ring: ring.use(fingerprint(NEW)), there)
        change(lambda ring: ring.remove(fingerprint(KEY)), there, here)
        await until(lambda: len(there.received) == number)
        assert sorted(there.received, key=int) == [b"%d" % each for each in range(number)]
        assert here.lost == [] and here.counters == there.counters == {}

    run(story)


def test_who_began_with_a_key_that_is_removed_is_closed(run: Play) -> None:
    async def story(world: World) -> None:
        late, there = await world.end(keys=[KEY]), await world.end(keys=[NEW, KEY])
        late.send(there, b"1")
        await until(lambda: there.received)
        there.keyring.remove(fingerprint(KEY))
        there.transport.rekeyed()
        await until(lambda: late.lost == [there.me])
        late.send(there, b"2")
        await until(lambda: late.lost == [there.me] * 2)
        assert there.received == [b"1"]

    run(story)


def test_close_in_the_middle_of_a_handshake_leaves_nothing(run: Play) -> None:
    async def story(world: World) -> None:
        here, there = await world.end(keys=[KEY]), await world.end(keys=[KEY])
        listener, address = world.listener()
        here.send(address, b"1", peer=1)
        here.transport.dial(address, b"2")
        calls = [await world.accept(listener), await world.accept(listener)]
        for raw in calls:
            await read(raw, HELLO)
        raw = await world.stranger(there)
        await send(raw, frame(Call(seal(), secrets.token_bytes(32)).hello))
        await read(raw, HELLO)
        for turns in range(4):
            here.send(there, b"3", peer=10 + turns)
            await asyncio.sleep(0)
        await here.transport.close()
        await there.transport.close()
        for each in [*calls, raw]:
            assert await closed(each)
        assert here.lost == []

    run(story)


# --- who is at the other end --------------------------------------------------------------------------------------


def test_every_packet_is_handed_on_with_who_sent_it(run: Play) -> None:
    async def story(world: World) -> None:
        here, there = await world.end(keys=[KEY]), await world.end(keys=[KEY])
        here.send(there, b"by stream")
        await until(lambda: there.received)
        here.send(there, b"as a datagram, where there are such", datagram=True)
        here.transport.dial(there.address, b"to whoever is there")
        await until(lambda: len(there.received) == 3)
        assert there.senders == [here.me] * 3 and here.me != there.me

    run(story)


def test_a_stream_to_a_member_leads_to_that_one_or_ends(run: Play) -> None:
    """Its address is that of somebody else by now, who has the key as well. He is told nothing, and who dials an
    address takes whoever is there."""

    async def story(world: World) -> None:
        here, there = await world.end(keys=[KEY]), await world.end(keys=[KEY])
        here.send(there.address, b"meant for who was here before", peer=7)
        await until(lambda: here.lost == [7])
        assert here.counters == {"replaced": 1} and there.received == [] and not there.strange
        here.transport.dial(there.address, b"anybody here?")
        await until(lambda: there.received == [b"anybody here?"])

    run(story)


def test_who_goes_on_as_another_says_so_by_new_streams_and_nothing_is_lost(run: Play) -> None:
    """What was to be said as who it was before is said so, even by a stream that was not open yet."""

    async def story(world: World) -> None:
        here, there, late = [await world.end(keys=[KEY]) for _ in range(3)]
        before = here.me
        here.send(there, b"1")
        await until(lambda: there.received)
        for end in (there, late):
            here.send(end, b"2")
        here.transport.dial(late.address, b"3")
        assert here.identity is not None
        here.identity = here.identity.another(bytes(32))
        here.transport.reborn(here.identity)
        for end in (there, late):
            here.send(end, b"4")
        await until(lambda: len(there.received) == len(late.received) == 3)
        said = [sorted(zip(end.received, end.senders, strict=True)) for end in (there, late)]
        assert said == [
            [(b"1", before), (b"2", before), (b"4", here.me)],
            [(b"2", before), (b"3", before), (b"4", here.me)],
        ]
        await until(lambda: len(there.transport._inbound) == 1)
        assert here.lost == [] and here.counters == there.counters == {}

    run(story)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_datagram_that_overtakes_the_proof_of_who_sent_it_is_dropped(loop: str) -> None:
    async def story(world: World) -> None:
        there = await world.end(keys=[KEY])
        raw = await world.stranger(there)
        call = Call(seal(), secrets.token_bytes(32))
        await send(raw, frame(call.hello))
        sealing = call.accept((await read(raw, HELLO))[4:])
        there.transport._datagram(sealing.posting.seal(b"who am I?"), 0.0)
        assert there.received == [] and there.counters == {"early": 1} and not there.strange
        ann = KeyPair("shop", secrets.token_bytes(32))
        await send(raw, frame(sealing.proof(ann)))
        await until(lambda: not there.transport._strangers)
        there.transport._datagram(sealing.posting.seal(b"ann"), 0.0)
        assert (there.received, there.senders) == ([b"ann"], [ann.instance])

    play("tcp", loop, story)


@pytest.mark.parametrize("proof", [b"", BOB.prove(b"")[:32] + bytes(64), BOB.prove(b"something else")], ids=len)
def test_who_does_not_prove_who_he_is_stays_a_stranger(run: Play, proof: bytes) -> None:
    """He has the key, and the name and the public key of another: not his private one."""

    async def story(world: World) -> None:
        there = await world.end(keys=[KEY])
        raw = await world.stranger(there)
        call = Call(seal(), secrets.token_bytes(32))
        await send(raw, frame(call.hello))
        sealing = call.accept((await read(raw, HELLO))[4:])
        await send(raw, frame(sealing.seal(proof)) + frame(sealing.seal(b"pay ann")))
        assert await closed(raw)
        assert there.received == [] and there.counters["unsealed"] == there.strange == 1

    run(story)
