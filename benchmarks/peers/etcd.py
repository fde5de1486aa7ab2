"""How fast is etcd, one member on a disk of this machine?

Spoken to by gRPC, with the few messages that are needed written by hand: less work than any client for Python does, and
none that depends on another version of protobuf. A put is acknowledged when it is on disk, which is etcd's promise and
the greater part of what it costs. Writes become known by a watch.
"""

from __future__ import annotations

import queue
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from msgpack import packb, unpackb

from benchmarks.peers import READY, Channel, Client, Peer, free_port, served

KEY, VALUE, RANGE_END = 1, 2, 2
PREFIX = b"probe/"


@contextmanager
def running(directory: Path) -> Iterator[str]:
    clients, members = free_port(), free_port()
    arguments = ["etcd", "--data-dir", str(directory / "data"), "--log-level", "error"]
    for name, port in (("client", clients), ("peer", members)):
        own = f"http://127.0.0.1:{port}"
        initial = "initial-advertise-peer-urls" if name == "peer" else "advertise-client-urls"
        arguments += [f"--listen-{name}-urls", own, f"--{initial}", own]
    arguments += ["--initial-cluster", f"default=http://127.0.0.1:{members}"]
    with served(arguments, directory, clients):
        yield f"127.0.0.1:{clients}"


# -- protobuf, as much as is needed --------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*made, number))


def part(number: int, content: bytes) -> bytes:
    """A field of bytes, or of a message."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def parts(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of bytes; numbers are passed over."""
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        tag = number()
        if tag & 7 == 2:
            size = number()
            yield tag >> 3, message[at : at + size]
            at += size
        else:
            number()


def first(message: bytes, field: int) -> bytes:
    return next((content for number, content in parts(message) if number == field), b"")


@contextmanager
def calls(address: str) -> Iterator[tuple[Any, Any]]:
    """Range and Put."""
    import grpc

    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(30)
        yield channel.unary_unary("/etcdserverpb.KV/Range"), channel.unary_unary("/etcdserverpb.KV/Put")


def pair(key: str, value: Any) -> bytes:
    return part(KEY, key.encode()) + part(VALUE, packb(value))


@asynccontextmanager
async def client(address: str) -> AsyncIterator[Client]:
    with calls(address) as (fetch, put):

        def write_many(pairs: list[tuple[str, Any]]) -> None:
            """All are asked at once, so that one sync of the disk is for many."""
            for answer in [put.future(pair(*each)) for each in pairs]:
                answer.result()

        yield Client(
            read=lambda key: unpackb(first(first(fetch(part(KEY, key.encode())), 2), 5)),
            write=lambda key, value: put(pair(key, value)),
            write_many=write_many,
        )


@asynccontextmanager
async def tell(address: str) -> AsyncIterator[Callable[[int, bytes], Any]]:
    with calls(address) as (_, put):
        yield lambda number, payload: put(part(KEY, PREFIX + b"%d" % number) + part(VALUE, payload))


def hear(address: str) -> Iterator[bytes]:
    import grpc

    create = part(1, part(KEY, PREFIX) + part(RANGE_END, PREFIX[:-1] + bytes([PREFIX[-1] + 1])))
    asked: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    asked.put(create)
    with grpc.insecure_channel(address) as channel:
        answers = channel.stream_stream("/etcdserverpb.Watch/Watch")(iter(asked.get, None))
        next(answers)  # it was created
        yield READY
        for answer in answers:
            for number, event in parts(answer):
                if number == 11:
                    yield first(first(event, 2), 5)


PEER = Peer(
    "etcd",
    running,
    clients={"etcd": client},
    channels={"etcd watch": Channel(tell, hear)},
    programs=("etcd",),
    modules=("grpc",),
    packages=("grpcio",),
)
