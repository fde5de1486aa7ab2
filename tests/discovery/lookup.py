"""What does a name stand for, on a host with this name server? A program for test_dns.py to start and to talk to.

    python -m tests.discovery.lookup

It serves names at 127.0.0.1:53, and looks up what each line of JSON on its input asks for, until that ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from typing import Any

from discovery import Resolver, parse_seeds
from discovery import dns as looked_at
from tests.discovery.nameserver import NameServer, name_server


async def look_up(server: NameServer, resolver: Resolver, request: dict[str, Any]) -> dict[str, Any]:
    server.zone, server.along = request["zone"], request.get("along", True)
    server.asked.clear()
    looked_at.PATIENCE = request.get("patience", 5.0)  # type: ignore[misc]
    begun = time.monotonic()
    answers = await asyncio.gather(
        *(resolver.addresses(seed) for seed in parse_seeds(request["seeds"])), return_exceptions=True
    )
    took = time.monotonic() - begun
    found, wrong = [], []
    for answer in answers:
        if isinstance(answer, OSError):
            wrong.append(str(answer))
        elif isinstance(answer, BaseException):
            raise answer
        else:
            found += [str(address) for address in answer]
    threads = sum(thread.name.startswith("look up") for thread in threading.enumerate())
    return {"found": found, "wrong": wrong, "asked": server.asked, "took": took, "threads": threads}


async def main() -> None:
    async with name_server({}, "127.0.0.1") as server:
        reader, resolver = asyncio.StreamReader(limit=1 << 20), Resolver()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            print(json.dumps(await look_up(server, resolver, json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
