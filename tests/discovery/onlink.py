"""What happens on a link? A program for test_mdns.py to start on a host of its own, and to talk to, a line a request.

It opens and closes `Mdns`, sends whatever packets it is told to, and listens to what is said.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
import time
from typing import Any

from zeroconf import IPVersion
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from discovery import Address
from discovery.mdns import Mdns

GROUP = ("224.0.0.251", 5353)


class World:
    def __init__(self) -> None:
        self.mdns: Mdns | None = None
        self.lent: AsyncZeroconf | None = None
        self.ear: socket.socket | None = None

    async def obey(self, request: dict[str, Any]) -> Any:
        match request["do"]:
            case "open":
                address = Address(request["host"], request["port"]) if request.get("host") else None
                bind = Address(request.get("bind", "0.0.0.0"), request["port"])
                self.mdns = Mdns(request["cluster"], 1, request["instance"], address, bind, self.lent)
                await self.mdns.open()
            case "candidates":
                assert self.mdns is not None
                return [str(address) for address in self.mdns.candidates]
            case "remembered":
                assert self.mdns is not None
                return [len(self.mdns._places), len(self.mdns._placeless)]
            case "look again":
                assert self.mdns is not None
                await self.mdns.look_again()
            case "close":
                assert self.mdns is not None
                begun = time.monotonic()
                await self.mdns.close()
                await self.mdns.close()
                return [time.monotonic() - begun, self.mdns.descriptors()]
            case "lend":
                self.lent = AsyncZeroconf(ip_version=IPVersion.V4Only)
                own = AsyncServiceInfo("_own._tcp.local.", "x._own._tcp.local.", 1, parsed_addresses=["10.93.0.1"])
                await (await self.lent.async_register_service(own))
            case "lent":
                assert self.lent is not None
                found = await self.lent.async_get_service_info("_own._tcp.local.", "x._own._tcp.local.", 500)
                listeners = len(self.lent.zeroconf.listeners)
                names = len(self.lent.zeroconf.registry.async_get_service_infos())
                done = self.lent.zeroconf.done
                await self.lent.async_close()
                return [found is not None, listeners, names, done]
            case "send":
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
                    for packet in request["packets"]:
                        mouth.sendto(bytes.fromhex(packet), tuple(request.get("to", GROUP)))
                        await asyncio.sleep(0)
            case "ask":
                return await asyncio.to_thread(ask, bytes.fromhex(request["packet"]), tuple(request["to"]))
            case "announced":
                assert self.mdns is not None and self.mdns._announcing is not None
                await self.mdns._announcing
            case "asked enough":
                # as after 14 s, when zeroconf has asked four times; and a minute later it is time to ask again
                assert self.mdns is not None and self.mdns._browser is not None
                self.mdns._browser.query_scheduler.stop()
                self.mdns._asked_at -= 60
            case "listen":
                self.ear = ear()
            case "heard":
                assert self.ear is not None
                return heard(self.ear)
        return None


def ask(packet: bytes, to: tuple[str, int]) -> list[str]:
    """What is answered to us, and nobody else."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.sendto(packet, to)
        asking.settimeout(1.0)
        try:
            return [asking.recv(9000).hex()]
        except TimeoutError:
            return []


def ear() -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    listening.bind(GROUP)
    listening.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("4sl", socket.inet_aton(GROUP[0]), 0))
    listening.setblocking(False)
    return listening


def heard(listening: socket.socket) -> list[str]:
    packets = []
    while True:
        try:
            packets.append(listening.recv(9000).hex())
        except BlockingIOError:
            return packets


async def main() -> None:
    reader, world = asyncio.StreamReader(limit=64 << 20), World()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        try:
            answer = {"answer": await world.obey(json.loads(line))}
        except OSError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)
    if world.ear is not None:
        world.ear.close()
    if world.mdns is not None:
        await world.mdns.close()


if __name__ == "__main__":
    asyncio.run(main())
