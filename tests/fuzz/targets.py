"""What reads what others wrote, and what must hold of it, whatever the bytes?

A target takes bytes and returns, or raises for a bug: an exception that is not the refusal it is documented to be, a
refusal that changed something, something that was taken and can not be written again. Each begins with real bytes
(`seeds`), and counts how many of those it was given it took, since a target that refuses all of them tests nothing.

Not here: how bytes are made (`mutation`, atheris), and files of SQLite (tests/storage/test_damage.py turns each bit).
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Protocol

import gossip
from crdt import (
    FOREVER,
    WITH_AUTHOR,
    LWWMap,
    Malformed,
    Note,
    PNCounter,
    Store,
    decode_batch,
    decode_context,
    decode_state,
    encode_batch,
    encode_context,
    encode_state,
)
from crdt.codec import pack, unpack
from gossip import token
from gossip.answers import WORKS
from gossip.errors import SnapshotError
from gossip.keyring import Keyring
from gossip.protocol.codec import Codec
from gossip.protocol.effects import Dial, Effect, MemberChanged, Ready, Send
from gossip.protocol.engine import Engine
from gossip.protocol.members import Claim
from gossip.protocol.messages import Digest, Ping
from gossip.protocol.settings import Settings
from gossip.seal import Seal
from gossip.snapshot import Snapshot, _write_frame
from gossip.streams import Inbound
from gossip.transport import Transport
from tests.fuzz.messages import CLUSTER, contents, packets
from tests.protocol.wire import EPOCH

_HEADER = 11
_SOME_TIME = 64
"""Packets after which time passes for the engine."""
_LIFE = 512
"""Packets after which another engine takes its place: it was told of hundreds of members by then."""


class Target(Protocol):
    """Something that reads bytes."""

    taken: int
    """How many of those that it was given were no refusal."""

    def seeds(self) -> list[bytes]:
        """Bytes to begin with."""
        ...

    def run(self, data: bytes) -> None:
        """Gives it these. Raises for a bug."""
        ...

    def close(self) -> None:
        """Lets go of what it holds."""
        ...


class _Plain:
    def __init__(self) -> None:
        self.taken = 0

    def close(self) -> None:
        """There is nothing to let go of."""


def _is_harmless(effect: Effect) -> bool:
    """Whether it may come of a packet of which only the inside is malformed: its sender has spoken all the same."""
    return isinstance(effect, Ready) or (isinstance(effect, MemberChanged) and effect.why == "it spoke to us")


class Messages(_Plain):
    """A packet, from its decoding to what the engine wants done for it."""

    def __init__(self) -> None:
        super().__init__()
        self._codec = Codec(CLUSTER)
        self._head = self._codec.encode(1, Ping(0, Digest(0, 0, False), ()))[:_HEADER]
        self._engine = self._born()
        self._age = 0

    def seeds(self) -> list[bytes]:
        return [packet[_HEADER:] for of_kind in contents().values() for packet in of_kind]

    def run(self, data: bytes) -> None:
        with suppress(Malformed):
            self._codec.decode(data)
        engine = self._engine
        store = engine.replication.store
        before = (store.context_fingerprint(), store.fingerprint, len(engine.members.table), engine.me)
        refused = engine.counters["malformed"] + engine.counters["unknown"]
        effects = engine.receive(self._head + data, float(self._age), EPOCH)
        if engine.counters["malformed"] + engine.counters["unknown"] == refused:
            self.taken += 1
        else:
            assert all(map(_is_harmless, effects)), "what was refused has consequences"
            after = (store.context_fingerprint(), store.fingerprint, len(engine.members.table), engine.me)
            assert before == after, "what was refused changed something"
        assert not engine.me.gone
        for effect in effects:
            if isinstance(effect, Send | Dial):
                said = self._codec.decode(self._codec.encode(engine.me.instance, effect.message))[1]
                assert said == effect.message, "what it answers is what its peers can read"
        self._grow_older()

    def _grow_older(self) -> None:
        self._age += 1
        if self._age % _SOME_TIME == 0:
            self._engine.tick(max(self._engine.deadline, float(self._age)), EPOCH)
        if self._age == _LIFE:
            store = self._engine.replication.store
            counted = (store.fingerprint, list(store.sums))
            store.recount()
            assert counted == (store.fingerprint, list(store.sums)), "what was counted is what is there"
            assert encode_state(decode_state(encode_state(store.state()))) == encode_state(store.state())
            self._engine, self._age = self._born(), 0

    def _born(self) -> Engine:
        """An engine that knows those who speak, has data, and waits for more: as in the middle of its life."""
        store = Store()
        for key, value in (("a", 1), ("b", [1, 2])):
            store.merge(LWWMap(store, "m").set(key, value, replica=7, stamp=1))
        engine = Engine(CLUSTER, Claim(99, "zoe", ("unix:/zoe",), EPOCH), Settings(), Random(1), store)
        for instance, name in ((1, "ann"), (2, "bob"), (3, "cat")):
            hello = Ping(1, Digest(5, 5, False), (Claim(instance, name, (f"unix:/{name}",), EPOCH),))
            engine.receive(self._codec.encode(instance, hello), 0.0, EPOCH)
        engine.repair.ask(1, now=0.0)
        return engine


class Batches(_Plain):
    """A batch, and merging it."""

    def seeds(self) -> list[bytes]:
        found = {batch for packet in packets() for batch in getattr(packet.message, "batches", ())}
        return sorted(found, key=lambda each: (len(each), each))[:24]

    def run(self, data: bytes) -> None:
        try:
            batch = decode_batch(data)
        except Malformed:
            return
        self.taken += 1
        assert decode_batch(encode_batch(batch)) == batch
        store = Store()
        store._join(type(store.context)({batch.replica: batch.first - 1}))
        store.merge_batch(batch)
        counted = store.fingerprint
        store.recount()
        assert counted == store.fingerprint
        assert encode_state(decode_state(encode_state(store.state()))) == encode_state(store.state())


class States(_Plain):
    """A state in its parts, from the first to the merge; and a context, which is in each of them."""

    def seeds(self) -> list[bytes]:
        store = Store()
        for place in range(12):
            write = LWWMap(store, "m").set(f"k{place % 9}", {"n": place}, replica=7, stamp=place)
            store.merge(
                write._replace(expires=(FOREVER, WITH_AUTHOR, 1 << 60)[place % 3]), Note("ann", f"n{place % 2}")
            )
        store.merge(PNCounter(store, "c").add(3, replica=8, stamp=2))
        parts = [packet.message.payload for packet in packets() if type(packet.message).__name__ == "StatePart"]  # type: ignore[union-attr]
        return [encode_state(store.state()), encode_state(Store().state()), pack(parts[:3]), pack(parts[-2:])]

    def run(self, data: bytes) -> None:
        with suppress(Malformed):
            context = decode_context(data)
            assert decode_context(encode_context(context)) == context
        try:
            state = decode_state(data)
        except Malformed:
            return
        self.taken += 1
        again = decode_state(encode_state(state))
        assert encode_state(again) == encode_state(state)
        if state.scope is None:
            store = Store()
            store.merge(LWWMap(store, "m").set("k1", "mine", replica=9, stamp=5))
            store.merge_state(state)
            counted = store.fingerprint
            store.recount()
            assert counted == store.fingerprint
            encode_state(store.state())


class Frames(_Plain):
    """What comes by a stream, through a real pair of sockets, cut anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self._codec = Codec(CLUSTER)
        self._loop = asyncio.new_event_loop()
        self._transport = Transport(self._received, lambda peer: None, 1 << 20, 16)

    def _received(self, packet: bytes, stream: bool, peer: int | None, ago: float | None) -> bool:
        try:
            self._codec.decode(packet)
        except Malformed:
            return False
        self.taken += 1
        return True

    def seeds(self) -> list[bytes]:
        framed = [len(each).to_bytes(4, "big") + each for of_kind in contents().values() for each in of_kind[:2]]
        return [*framed, b"".join(framed[:5])]

    def run(self, data: bytes) -> None:
        self._loop.run_until_complete(self._through(data))
        assert not self._transport._inbound and not self._transport.strange_bytes, "nothing is left of a stream"

    async def _through(self, data: bytes) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        inbound, ended = Inbound(self._transport), asyncio.get_running_loop().create_future()
        lost = inbound.connection_lost

        def told(error: Exception | None) -> None:
            lost(error)
            ended.set_result(None)

        inbound.connection_lost = told  # type: ignore[method-assign]
        await asyncio.get_running_loop().connect_accepted_socket(lambda: inbound, ours)
        with theirs:
            cut = len(data) // 2 if len(data) % 2 else len(data)
            for piece in (data[:cut], data[cut:]):
                with suppress(BrokenPipeError, ConnectionResetError):  # what is not good ends it
                    theirs.sendall(piece)
                await asyncio.sleep(0)
        await ended

    def close(self) -> None:
        self._loop.run_until_complete(self._transport.close())
        self._loop.close()


class Seals(_Plain):
    """A sealed packet: nothing but what was sealed is ever opened."""

    def __init__(self) -> None:
        super().__init__()
        keys = Keyring([bytes(range(32)), bytes(32)])
        self._seal = Seal(keys, CLUSTER, salt=b"a" * 16)
        self._sealed = {
            Seal(keys, CLUSTER, salt=bytes([place]) * 16).seal(packet, b"kind"): packet
            for place, of_kind in enumerate(contents().values())
            for packet in of_kind[:1]
        }

    def seeds(self) -> list[bytes]:
        return list(self._sealed)

    def run(self, data: bytes) -> None:
        try:
            opened, _ = self._seal.open(data, b"kind")
        except Malformed:
            return
        self.taken += 1
        assert self._sealed.get(data) == opened, "a packet was opened that nobody sealed"


class Requests(_Plain):
    """What is said to the control socket of a real node: every line is answered, in JSON, and the node lives on."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.mkdtemp(prefix="gm-")
        self._node = gossip.Node("fuzz", runtime_dir=self._directory).open()
        self._path = str(self._node._runtime.whereabouts.place.control_path)  # type: ignore[union-attr]
        self._wrong: list[dict[str, Any]] = []
        loop = self._node._runtime.loop  # type: ignore[union-attr]
        loop.call_soon_threadsafe(loop.set_exception_handler, lambda loop, context: self._wrong.append(context))

    def seeds(self) -> list[bytes]:
        requests: list[dict[str, Any]] = [
            {"do": "hello"}, {"do": "status"}, {"do": "members"}, {"do": "keys"}, {"do": "get", "object": "m"},
            {"do": "set", "object": "m", "key": "k", "value": {"a": [1, None]}, "ttl": 5, "by": "ann", "note": "why"},
            {"do": "set", "object": "r", "value": 1.5}, {"do": "get", "object": "m", "key": "k"},
            {"do": "delete", "object": "m", "key": "k"}, {"do": "delete", "object": "r"},
            {"do": "incr", "object": "c", "amount": -3}, {"do": "add", "object": "s", "element": ["a", 1]},
            {"do": "remove", "object": "s", "element": "a"}, {"do": "get", "object": "s", "type": "set"},
            {"do": "explain", "object": "r"}, {"do": "watch", "objects": ["m", "s"], "snapshot": False},
            {"do": "watch", "object": "m", "resume": "AAAA", "cursors": True}, {"do": "events"},
        ]  # fmt: skip
        lines = [json.dumps(request).encode() + b"\n" for request in requests]
        return [*lines, b"".join(lines[:6]), b"[" * 5_000 + b"\n", b'{"do": 1e999}\n', b'{"do": "set", "value": NaN}\n']

    def run(self, data: bytes) -> None:
        if any(map(_touches_files, data.split(b"\n"))):
            return
        answers = self._answers(data)
        assert not self._wrong, self._wrong
        for line in answers.splitlines():
            self.taken += "ok" in json.loads(line)
        if self._grown():
            self.close()
            taken = self.taken
            self.__init__()  # type: ignore[misc]
            self.taken = taken

    def _answers(self, data: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10.0)
            connection.connect(self._path)
            connection.sendall(data)
            with suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
            answers = b""
            with suppress(ConnectionResetError):
                while part := connection.recv(1 << 16):
                    answers += part
        return answers

    def _grown(self) -> bool:
        return self._node._store.delivered() > 20_000

    def close(self) -> None:
        self._node.close()
        shutil.rmtree(self._directory, ignore_errors=True)


def _touches_files(line: bytes) -> bool:
    """Whether a request would read or write a file: such paths as these come to are not for this machine."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(request, dict) and str(request.get("do")) in WORKS


class Snapshots(_Plain):
    """A file of a snapshot: as bytes, and as parts whose checksums are right."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = Path(tempfile.mkdtemp(prefix="gm-"))
        self._file = self._directory / "some.gossamesh"
        self._whole = self._directory / "whole.gossamesh"
        store = Store()
        store.merge(LWWMap(store, "m").set("k", [1, "two"], replica=7, stamp=1))
        store.merge(PNCounter(store, "c").add(3, replica=8, stamp=2))
        Snapshot._of(CLUSTER, "ann", store.state(), store.mortal, EPOCH).save(self._whole)

    def seeds(self) -> list[bytes]:
        whole = Snapshot.load(self._whole)
        parts = [pack(whole.head), *unpack(encode_state(whole._state))]
        return [self._whole.read_bytes(), pack(parts), pack(parts[:1])]

    def run(self, data: bytes) -> None:
        content = data if data.startswith(b"gossamesh") else self._framed(data)
        if content is None:
            return
        self._file.write_bytes(content)
        try:
            loaded = Snapshot.load(self._file)
        except SnapshotError:
            return
        self.taken += 1
        again = self._directory / "again.gossamesh"
        again.unlink(missing_ok=True)
        loaded.save(again)
        assert encode_state(Snapshot.load(again)._state) == encode_state(loaded._state), "it can be written again"

    def _framed(self, data: bytes) -> bytes | None:
        """A file with these parts, and the right checksums."""
        from zstandard import ZstdCompressor

        try:
            parts = unpack(data)
        except Malformed:
            return None
        if type(parts) is not tuple or not all(type(part) is bytes for part in parts):
            return None
        with tempfile.SpooledTemporaryFile(1 << 20) as file:
            file.write(b"gossamesh snapshot 1\n")
            checksum = b""
            for part in parts:
                checksum = _write_frame(file, checksum, ZstdCompressor().compress(part))  # type: ignore[arg-type]
            _write_frame(file, checksum, b"")  # type: ignore[arg-type]
            file.seek(0)
            return file.read()

    def close(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)


class Tokens(_Plain):
    """A token or a cursor, as a browser sends it back; also with a checksum that is right."""

    def seeds(self) -> list[bytes]:
        context = decode_context(encode_context(Store().context))
        context.update({7: 300, 2**64 - 1: 2**63 - 1})
        return [
            token.make(CLUSTER, context).encode(),
            token.make(CLUSTER, context, at=1_700_000_000_000).encode(),
            b"==",
        ]

    def run(self, data: bytes) -> None:
        text = data.decode(errors="surrogateescape")
        for parse in (token.parse, token.parse_cursor):
            try:
                parsed: Any = parse(CLUSTER, text)
            except ValueError:
                continue
            self.taken += 1
            assert parsed is not None
        token._pairs(data)


TARGETS: dict[str, Callable[[], Target]] = {
    "messages": Messages,
    "batches": Batches,
    "states": States,
    "frames": Frames,
    "seals": Seals,
    "requests": Requests,
    "snapshots": Snapshots,
    "tokens": Tokens,
}
