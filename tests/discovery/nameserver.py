"""What does a name server say? A real one, by UDP and TCP, whose answers a test writes down, also while it runs.

    python -m tests.discovery.nameserver ADDRESS PORT     answers what stands in its input, a zone as JSON a line

It serves what it is given, and what it is not given does not exist. Names under `silent.` are never answered.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import cast

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

Zone = dict[str, dict[str, list[str]]]
"""`{"shop.example.": {"A": ["10.0.0.1"]}}`"""

_MOST = 512
"""Bytes of an answer by UDP; a longer one is asked for again by TCP."""


class NameServer(asyncio.DatagramProtocol):
    def __init__(self, zone: Zone, along: bool) -> None:
        self.zone = zone
        self.along = along
        """Whether the addresses of what SRV records point to are sent along."""
        self.asked: list[tuple[str, str]] = []
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: object) -> None:
        assert self._transport is not None
        if answer := self._answer(data):
            wire = answer.to_wire()
            if len(wire) > _MOST:
                answer.flags |= dns.flags.TC
                for section in (answer.answer, answer.additional):
                    section.clear()
                wire = answer.to_wire()
            self._transport.sendto(wire, address)  # type: ignore[arg-type]

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:  # the system asks for A and AAAA in one stream
                size = int.from_bytes(await reader.readexactly(2), "big")
                if answer := self._answer(await reader.readexactly(size)):
                    wire = answer.to_wire()
                    writer.write(len(wire).to_bytes(2, "big") + wire)
        writer.close()

    def _answer(self, data: bytes) -> dns.message.Message | None:
        query = dns.message.from_wire(data)
        (question,) = query.question
        name, kind = question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        if name.startswith("silent."):
            return None
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        if name not in self.zone:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        answer.answer = self._records(name, kind)
        if kind == "SRV" and self.along:
            targets = {each.target.to_text() for records in answer.answer for each in records}
            answer.additional = [
                each for target in targets for kind in ("A", "AAAA") for each in self._records(target, kind)
            ]
        return answer

    def _records(self, name: str, kind: str) -> list[dns.rrset.RRset]:
        values = self.zone.get(name, {}).get(kind, [])
        return [dns.rrset.from_text(name, 5, "IN", kind, *values)] if values else []


@asynccontextmanager
async def name_server(zone: Zone, host: str, port: int = 53, along: bool = True) -> AsyncIterator[NameServer]:
    """A server at this address until the block ends."""
    server = NameServer(zone, along)
    loop = asyncio.get_running_loop()
    datagrams, _ = await loop.create_datagram_endpoint(lambda: server, local_addr=(host, port))
    streams = await asyncio.start_server(server.stream, host, port)
    try:
        yield server
    finally:
        datagrams.close()
        streams.close()
        await streams.wait_closed()
        await asyncio.sleep(0)


async def _serve(host: str, port: int) -> None:
    async with name_server({}, host, port) as server:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        print("ready", flush=True)
        while line := await reader.readline():
            server.zone = json.loads(line)
            print("served", flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2])))
