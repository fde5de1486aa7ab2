"""Does every wire keep the one contract? What is sent arrives whole and in order, and nobody's fault is another's loss.

The same suite over unix streams and TCP with UDP, each in asyncio's own loop and in uvloop. The wire of the simulation
has no streams and no addresses: it takes packets from the engine, so there is nothing of this for it to keep.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from discovery import Address
from gossip.errors import StartError
from gossip.streams import MAX_FRAME
from gossip.udp import Datagrams
from tests.contracts.ends import LOOPS, End, Play, World, closed, descriptors, frame, play, reset
from tests.waiting import until


def stuff(end: End, address: str, peer: int) -> None:
    """Sends more than the kernel takes for a reader who does not read (see `World.listener`)."""
    for _ in range(3):
        end.send(address, bytes(MAX_FRAME), peer)


# --- what is sent arrives -----------------------------------------------------------------------------------------


def test_what_is_sent_arrives_whole_and_in_order(run: Play) -> None:
    async def story(world: World) -> None:
        here, there = await world.end(), await world.end()
        chance = random.Random(7)
        packets = [chance.randbytes(chance.choice((0, 1, 3, 4, 5, 1000, 70_000))) for _ in range(300)]
        for packet in packets:
            here.send(there.address, packet)
        await until(lambda: len(there.received) == len(packets))
        assert there.received == packets and here.lost == there.lost == []

    run(story)


def test_both_directions_at_once(run: Play) -> None:
    async def story(world: World) -> None:
        here, there = await world.end(), await world.end()
        for number in range(200):
            here.send(there.address, b"to %d" % number)
            there.send(here.address, b"fro %d" % number)
            if number % 10 == 0:
                await asyncio.sleep(0)
        await until(lambda: len(there.received) == len(here.received) == 200)
        assert there.received[-1] == b"to 199" and here.received[-1] == b"fro 199"

    run(story)


@pytest.mark.parametrize("pieces", [1, 3, 4, 5, 1 << 16])
def test_frames_arrive_whole_however_the_stream_cuts_them(run: Play, pieces: int) -> None:
    async def story(world: World) -> None:
        end = await world.end()
        stream = b"".join(map(frame, (b"", b"a", b"b" * 300, b"", b"c" * 5)))
        raw = await world.stranger(end)
        for start in range(0, len(stream), pieces):
            await asyncio.get_running_loop().sock_sendall(raw, stream[start : start + pieces])
            await asyncio.sleep(0)
        await until(lambda: len(end.received) == 5)
        assert end.received == [b"", b"a", b"b" * 300, b"", b"c" * 5]

    run(story)


def test_a_frame_of_exactly_the_limit_arrives_and_one_byte_more_ends_the_stream(run: Play) -> None:
    async def story(world: World) -> None:
        end = await world.end()
        loop = asyncio.get_running_loop()
        raw = await world.stranger(end)
        largest = os.urandom(1024) * (MAX_FRAME // 1024) + b"x" * (MAX_FRAME % 1024)
        await asyncio.gather(loop.sock_sendall(raw, frame(largest)), until(lambda: end.received))
        assert end.received == [largest]
        await loop.sock_sendall(raw, frame(b"still there") + (MAX_FRAME + 1).to_bytes(4, "big"))
        assert await closed(raw)
        assert end.received[1:] == [b"still there"] and end.counters == {"oversized_frames": 1}

    run(story)


def test_nothing_is_allocated_on_the_word_of_a_length(run: Play) -> None:
    async def story(world: World) -> None:
        end = await world.end()
        for length in (MAX_FRAME, MAX_FRAME - 1):
            raw = await world.stranger(end)
            await asyncio.get_running_loop().sock_sendall(raw, length.to_bytes(4, "big") + b"x")
        await until(lambda: len(end.transport._inbound) == 2 and all(each._begun for each in end.transport._inbound))
        assert [len(each._begun) for each in end.transport._inbound] == [5, 5]

    run(story)


def test_a_dial_delivers_one_packet_and_closes(run: Play) -> None:
    async def story(world: World) -> None:
        here, there = await world.end(), await world.end(max_connections=64)
        for number in range(10):
            here.transport.dial(there.address, b"join %d" % number)
        await until(lambda: len(there.received) == 10)
        await until(lambda: not there.transport._inbound and not here.transport._tasks)
        assert here.lost == [] and here.counters == {}

    run(story)


def test_datagrams_go_where_there_are_datagrams_and_streams_elsewhere(run: Play) -> None:
    async def story(world: World) -> None:
        here, there = await world.end(), await world.end()
        here.send(there.address, b"ping", datagram=True)
        await until(lambda: there.received == [b"ping"])
        there.send(here.address, b"x" * 60_000, datagram=True)
        await until(lambda: here.received == [b"x" * 60_000])

    run(story)


def test_a_peer_that_has_moved_is_spoken_to_where_it_is_now(run: Play) -> None:
    async def story(world: World) -> None:
        here, there, now = await world.end(), await world.end(), await world.end()
        here.send(there.address, b"here?", peer=7)
        await until(lambda: there.received == [b"here?"])
        here.send(now.address, b"or here?", peer=7)
        await until(lambda: now.received == [b"or here?"])
        await until(lambda: not there.transport._inbound)
        assert here.lost == [] and there.received == [b"here?"]

    run(story)


def test_who_has_moved_itself_begins_anew_what_leads_to_other_hosts(run: Play) -> None:
    async def story(world: World) -> None:
        here, there = await world.end(), await world.end()
        here.send(there.address, b"before", peer=7)
        await until(lambda: there.received == [b"before"])
        (stream,) = there.transport._inbound
        here.transport.moved()
        here.send(there.address, b"after", peer=7)
        await until(lambda: there.received == [b"before", b"after"])
        assert (stream in there.transport._inbound) == (world.kind == "unix")
        assert here.lost == []

    run(story)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_stream_whose_other_end_vanished_without_a_word_is_ended_by_the_kernel(loop: str) -> None:
    """Who listens would keep it for ever, and who speaks for a quarter of an hour."""

    async def story(world: World) -> None:
        here, there = await world.end(), await world.end()
        here.send(there.address, b"hello", peer=7)
        await until(lambda: there.received == [b"hello"])
        for stream in (here.transport._links[7], *there.transport._inbound):
            assert stream.transport is not None
            kernels = stream.transport.get_extra_info("socket")
            assert kernels.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                assert kernels.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000

    play("tcp", loop, story)


# --- bad streams ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [b"", b"\0", b"\0\0\0\5abcd", b"\0\0\0"])
def test_who_says_no_whole_frame_in_time_is_closed(run: Play, said: bytes) -> None:
    async def story(world: World) -> None:
        end = await world.end(silence=0.1)
        speaks = await world.stranger(end)
        await asyncio.get_running_loop().sock_sendall(speaks, frame(b"I belong here"))
        await until(lambda: end.received)
        silent = await world.stranger(end)
        await asyncio.get_running_loop().sock_sendall(silent, said)
        assert await closed(silent)
        await asyncio.get_running_loop().sock_sendall(speaks, frame(b"and still do"))
        await until(lambda: len(end.received) == 2)
        assert len(end.transport._inbound) == 1

    run(story)


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\xff" * 100, b"SSH-2.0-x\r\n", os.urandom(5000)]
)
def test_garbage_before_the_first_frame_ends_that_stream_alone(run: Play, said: bytes) -> None:
    async def story(world: World) -> None:
        end = await world.end(silence=0.2)
        friend, stranger = await world.stranger(end), await world.stranger(end)
        await asyncio.get_running_loop().sock_sendall(friend, frame(b"1"))
        await until(lambda: end.received)
        await asyncio.get_running_loop().sock_sendall(stranger, said)
        assert await closed(stranger)
        await asyncio.get_running_loop().sock_sendall(friend, frame(b"2"))
        await until(lambda: end.received[-1:] == [b"2"])

    run(story)


def test_what_comes_back_on_our_own_stream_is_passed_over(run: Play) -> None:
    async def story(world: World) -> None:
        here = await world.end()
        listener, address = world.listener()
        here.send(address, b"1")
        stream = await world.accept(listener)
        await asyncio.get_running_loop().sock_sendall(stream, frame(b"unasked") * 100)
        here.send(address, b"2")
        got = b""
        while len(got) < 10:
            got += await asyncio.get_running_loop().sock_recv(stream, 100)
        assert got == frame(b"1") + frame(b"2") and here.received == [] and here.lost == []

    run(story)


def test_no_more_streams_than_allowed_and_room_again_when_one_ends(run: Play) -> None:
    async def story(world: World) -> None:
        end = await world.end(max_connections=3)
        loop = asyncio.get_running_loop()
        taken = []
        for number in range(3):
            taken.append(await world.stranger(end))
            await loop.sock_sendall(taken[-1], frame(b"%d" % number))
            await until(lambda number=number: len(end.received) == number + 1)
        for _ in range(5):
            assert await closed(await world.stranger(end))
        assert end.counters == {"refused_connections": 5}
        taken[0].close()
        await until(lambda: len(end.transport._inbound) == 2)
        await loop.sock_sendall(await world.stranger(end), frame(b"room"))
        await until(lambda: b"room" in end.received)

    run(story)


def test_strangers_never_keep_friends_out(run: Play) -> None:
    """Whoever says nothing good has a quarter of the streams, and the oldest of them gives way."""

    async def story(world: World) -> None:
        end = await world.end(max_connections=8)
        loop = asyncio.get_running_loop()
        friends = []
        for number in range(8):
            strangers = [await world.stranger(end) for _ in range(3)]
            for each in strangers:
                await loop.sock_sendall(each, b"\0\0\1\0never whole")
            assert await closed(strangers[0])
            assert len(end.transport._strangers) <= 2
            friends.append(await world.stranger(end))
            await loop.sock_sendall(friends[-1], frame(b"%d" % number))
            await until(lambda number=number: len(end.received) == number + 1)
        for each in friends:
            await loop.sock_sendall(each, frame(b"again"))
        await until(lambda: end.received[8:] == [b"again"] * 8)

    run(story)


def test_the_first_packet_that_is_not_ours_ends_its_stream(run: Play) -> None:
    async def story(world: World) -> None:
        end = await world.end()
        end.foreign.add(b"foreign")
        loop = asyncio.get_running_loop()
        first, later = await world.stranger(end), await world.stranger(end)
        await loop.sock_sendall(first, frame(b"foreign") + frame(b"unread"))
        assert await closed(first)
        await loop.sock_sendall(later, frame(b"good") + frame(b"foreign") + frame(b"unread"))
        assert await closed(later)
        assert end.received == [b"foreign", b"good", b"foreign"] and end.counters == {"foreign_streams": 2}
        await until(lambda: not end.transport._inbound and not end.transport._strangers)

    run(story)


# --- slow and gone ----------------------------------------------------------------------------------------------


def test_a_slow_reader_has_a_bounded_buffer_and_others_are_unaffected(run: Play) -> None:
    async def story(world: World) -> None:
        bound = 1 << 20
        here, friend = await world.end(send_buffer=bound), await world.end()
        listener, slow = world.listener()
        packet = b"x" * 50_000
        for _ in range(200):
            here.send(slow, packet, peer=1)
            here.send(friend.address, packet, peer=2)
            assert here.transport._links[1]._waiting_bytes <= bound + 50_000
            if transport := here.transport._links[1].transport:
                assert transport.get_write_buffer_size() <= bound + 50_000
            await until(lambda: here.transport._links[2].transport)
            await asyncio.wait_for(here.transport._links[2].drained(), 10)
        await until(lambda: len(friend.received) == 200)
        dropped = here.counters["dropped"]
        assert dropped > 100 and here.lost == []
        stream, frames = await world.accept(listener), 200 - dropped
        got = 0
        while got < frames * 50_004:  # it wakes: what was not dropped is there, whole
            got += len(await asyncio.wait_for(asyncio.get_running_loop().sock_recv(stream, 1 << 20), 10))
        assert got == frames * 50_004 and here.counters == {"dropped": dropped}

    run(story)


def test_what_waits_for_a_stream_that_is_not_open_yet_is_bounded_too(run: Play) -> None:
    async def story(world: World) -> None:
        here, there = await world.end(send_buffer=1 << 20), await world.end()
        for _ in range(200):
            here.send(there.address, b"x" * 50_000)
        assert here.counters == {"dropped": 180}
        await until(lambda: len(there.received) == 20)
        here.send(there.address, b"and on it goes")
        await until(lambda: there.received[20:] == [b"and on it goes"])
        assert here.lost == []

    run(story)


def test_drain_waits_for_the_slow_and_not_for_the_gone(run: Play) -> None:
    async def story(world: World) -> None:
        here, there = await world.end(), await world.end()
        listener, slow = world.listener()
        here.send(there.address, b"x" * 1_000_000, peer=1)
        await asyncio.wait_for(here.transport.drain(), 10)
        stuff(here, slow, peer=2)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(here.transport.drain(), 0.1)
        listener.close()
        (await_end := asyncio.ensure_future(here.transport.drain()))
        await here.transport.close()
        await asyncio.wait_for(await_end, 10)

    run(story)


@pytest.mark.parametrize("how", ["refused", "reset", "ended"])
def test_a_stream_that_is_lost_is_told_once(run: Play, how: str) -> None:
    async def story(world: World) -> None:
        here = await world.end()
        listener, address = world.listener()
        if how == "refused":
            listener.close()
        here.send(address, b"1", peer=7)
        here.send(address, b"2", peer=7)
        if how != "refused":
            stream = await world.accept(listener)
            if how == "reset":
                reset(stream)
            else:
                stream.close()
        await until(lambda: here.lost)
        for _ in range(20):
            await asyncio.sleep(0)
        assert here.lost == [7] and here.transport._links == {}
        assert here.counters == ({"connect_failed": 1} if how == "refused" else {})
        there = await world.end()
        here.send(there.address, b"again", peer=7)  # and the next packet opens another
        await until(lambda: there.received == [b"again"])
        assert here.lost == [7]

    run(story)


def test_whose_stream_ended_while_he_lagged_lags_no_more(run: Play) -> None:
    """Ours: as long as he lived, nothing was handed on by him that others waited for."""

    async def story(world: World) -> None:
        here = await world.end(send_buffer=32 << 20)  # more than the kernel takes
        listener, address = world.listener()
        here.send(address, b"x", peer=7)
        stream = await world.accept(listener)
        for _ in range(100):
            here.send(address, bytes(1 << 20), peer=7)
        await until(lambda: here.lags == [(7, True)])
        reset(stream)
        await until(lambda: here.lost == [7])
        assert here.lags == [(7, True), (7, False)]
        there = await world.end()
        here.send(there.address, b"again", peer=7)
        await until(lambda: there.received == [b"again"])
        assert here.lags == [(7, True), (7, False)]

    run(story)


def test_a_peer_without_an_address_that_can_be_reached_is_lost(run: Play) -> None:
    async def story(world: World) -> None:
        here = await world.end()
        here.transport.send(7, ("unix:/nowhere/at.all",), b"x", False)
        here.transport.send(8, (), b"x", True)
        await until(lambda: sorted(here.lost) == [7, 8])
        assert here.counters == {"unreachable": 2}

    run(story)


@pytest.mark.parametrize("loop", LOOPS)
def test_no_member_has_us_speak_to_a_socket_that_is_not_beside_our_own(loop: str, tmp_path: Path) -> None:
    """What a member says of its addresses may name the socket of any program of this host."""

    async def story(world: World) -> None:
        here = await world.end()
        with socket.socket(socket.AF_UNIX) as program:
            program.bind(str(tmp_path / "program.sock"))
            program.listen()
            program.setblocking(False)
            here.send(f"unix:{tmp_path}/program.sock", b"hello")
            await until(lambda: here.lost == [1])
            here.transport.dial(f"unix:{tmp_path}/program.sock", b"are you there again?")
            assert here.counters == {"unreachable": 2} and not here.transport._tasks
            with pytest.raises(BlockingIOError):
                program.accept()

    play("unix", loop, story)


@pytest.mark.parametrize(
    "address", ["nonsense", "127.0.0.1:99999", "127.0.0.1:-1", "0.0.0.0:80", "224.0.0.251:5353", ":", "[::1",
                "a" * 280 + ":1",
                "127.0.0.1:0", "255.255.255.255:9", "host name:1", "%s:1"],
)  # fmt: skip
@pytest.mark.parametrize("datagram", [True, False])
def test_an_address_that_is_none_harms_nobody(run: Play, address: str, datagram: bool) -> None:
    """Addresses come from others' claims. One that cannot be used must cost its owner only."""

    async def story(world: World) -> None:
        here, there = await world.end(), await world.end()
        here.send(address, b"x", peer=7, datagram=datagram)
        here.transport.dial(address, b"x")
        await until(lambda: here.lost == [7])
        await until(lambda: not here.transport._tasks)
        assert here.counters == {"connect_failed": 1, "dial_failed": 1}
        here.send(there.address, b"lives", peer=1, datagram=datagram)
        await until(lambda: there.received == [b"lives"])

    run(story)


def test_a_forgotten_peer_gets_what_waits_and_is_not_told_as_lost(run: Play) -> None:
    async def story(world: World) -> None:
        here = await world.end()
        listener, address = world.listener()
        here.send(address, b"goodbye", peer=7)
        here.transport.forget(7)
        here.transport.forget(7)
        stream = await world.accept(listener)
        got = b""
        while part := await asyncio.wait_for(asyncio.get_running_loop().sock_recv(stream, 100), 10):
            got += part
        assert got == frame(b"goodbye")
        stuff(here, address, peer=8)  # one that takes nothing more
        await world.accept(listener)
        here.transport.forget(8)
        await here.transport.close()  # does not wait for it, and leaves nothing of it (see `play`)
        assert here.lost == []

    run(story)


# --- the end ----------------------------------------------------------------------------------------------------


def test_close_ends_everything_whatever_is_under_way_and_tells_nothing(run: Play) -> None:
    async def story(world: World) -> None:
        before, tasks = descriptors(), asyncio.all_tasks()
        here, there = await world.end(), await world.end()
        listener, slow = world.listener()
        half = await world.stranger(here)
        await asyncio.get_running_loop().sock_sendall(half, b"\0\0\0\5ab")
        stuff(here, slow, peer=1)
        await world.accept(listener)
        here.send(there.address, b"x", peer=2)
        there.send(here.address, b"x", peer=1)
        await until(lambda: here.received and there.received)
        here.transport.dial(slow, b"never taken")
        await asyncio.sleep(0)
        here.send(slow, b"x", peer=3)
        here.transport.dial(there.address, b"x")
        await here.transport.close()
        await here.transport.close()
        assert asyncio.all_tasks() == tasks
        assert await closed(half)
        await until(lambda: there.lost == [1])
        await there.transport.close()
        await world.over()
        await until(lambda: descriptors() == before)
        assert here.lost == []

    run(story)


@pytest.mark.parametrize("turns", range(6))
def test_a_stream_that_comes_just_before_close_is_closed_with_it(run: Play, turns: int) -> None:
    """Ours: it was accepted in the turn in which we closed, and stayed open, for the loop ended before it was told."""

    async def story(world: World) -> None:
        before = descriptors()
        here = await world.end()
        await world.stranger(here)
        for _ in range(turns):
            await asyncio.sleep(0)
        await here.transport.close()
        assert len(descriptors() - before) == 1, "the stranger's own"

    run(story)


def test_lost_is_not_told_after_close_even_if_it_was_on_its_way(run: Play) -> None:
    async def story(world: World) -> None:
        here = await world.end()
        here.transport.send(7, (), b"x", False)
        await here.transport.close()
        for _ in range(10):
            await asyncio.sleep(0)
        assert here.lost == []

    run(story)


def test_the_descriptors_are_all_there_are(run: Play) -> None:
    """A forked child closes these: one that is missing would keep a dead parent's streams open."""

    async def story(world: World) -> None:
        before = descriptors()
        here = await world.end()
        listener, address = world.listener()
        raw = await world.stranger(here)
        here.send(address, b"x", peer=1)
        stream = await world.accept(listener)
        await until(lambda: len(here.transport._inbound) == 1)
        await until(lambda: here.transport._links[1].transport)
        stuff(here, address, peer=1)
        here.transport.forget(1)
        held = {os.readlink(f"/proc/self/fd/{number}") for number in here.transport.descriptors()}
        others = {os.readlink(f"/proc/self/fd/{each.fileno()}") for each in (listener, raw, stream)}
        assert held == descriptors() - before - others

    run(story)


def test_a_place_that_can_not_be_listened_at_is_a_start_error_and_leaves_nothing(run: Play) -> None:
    async def story(world: World) -> None:
        end = await world.end()
        before = descriptors()
        with pytest.raises(StartError) as failed:
            if world.kind == "unix":
                await end.transport.listen_unix(end.address.removeprefix("unix:"))
            else:
                await end.transport.listen_network(Address("127.0.0.1", int(end.address.rpartition(":")[2])))
        assert end.address.removeprefix("unix:") in str(failed.value) and failed.value.errno
        assert descriptors() == before

    run(story)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_a_unix_socket_is_for_its_owner_alone_whatever_the_mask(mask: int) -> None:
    async def story(world: World) -> None:
        end = await world.end()
        assert stat.S_IMODE(os.stat(end.address.removeprefix("unix:")).st_mode) == 0o600

    before = os.umask(mask)
    try:
        play("unix", "asyncio", story)
    finally:
        os.umask(before)


def test_a_port_that_is_free_for_streams_only_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        end = await world.end()
        refused: list[int] = []

        def refuse_twice(host: str, port: int, *arguments: Any) -> Datagrams:
            if len(refused) < 2:
                refused.append(port)
                raise OSError(98, "address already in use")
            return Datagrams(host, port, *arguments)

        monkeypatch.setattr("gossip.transport.Datagrams", refuse_twice)
        address = await end.transport.listen_network(Address("127.0.0.1", 0))
        for port in refused:
            with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                pass
        assert address.port not in refused

    play("unix", "asyncio", story)
