"""How does the command line, or any other program of this user, speak to a running node?

Over a second unix socket beside the node's own: one JSON object a line in, one or more a line out. The directory it
lies in is open to its user alone, so whoever can connect may do all that the program itself may.

    {"do": "get", "object": "flags", "key": "beta"}     ->  {"ok": true}
    {"do": "get", "object": "flags", "key": "gone"}     ->  {"error": "'gone' is not in 'flags'", "kind": "missing"}
    {"do": "get", "object": "flags"}                    ->  {"part": [["beta", true], ...]} ... {"ok": "map"}
    {"do": "restore", "path": "/x.gossamesh"}           ->  {"progress": [1000, 7000]} ... {"part": ...} ... {"ok": ...}
    {"do": "watch", "object": "flags"}                  ->  {"ok": {...}} a change, until one side closes

Invariants: a bad request is answered with what is wrong with it and changes nothing; lines and connections are bounded;
nobody who is slow, silent or gone keeps the node from anything, nor others from speaking to it.
Not here: what is answered (`answers`), HTTP, and anybody from elsewhere.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossip import forks
from gossip.answers import (
    ACTIONS,
    LISTS,
    WORKS,
    Missing,
    Request,
    Watched,
    Work,
    act,
    change_told,
    event_told,
    explained,
    watched_of,
)
from gossip.errors import GossipError
from gossip.transport import stop_accepting
from gossip.watch import Watch

if TYPE_CHECKING:
    from gossip.node import Node

_MAX_LINE = 7 << 20
"""Bytes of a request: a largest value (1 MiB) of which JSON writes every byte as six, and what is around it."""
_MAX_CONNECTIONS = 64
_PART = 256
_PART_SIZE = 1 << 18
"""Entries, and characters, answered in one go: a node has a protocol to serve, and its program has users."""
_PATIENCE = 30.0
"""Seconds that an answer may wait for its reader, with all of it in memory. A watch keeps little and may wait."""
_PROGRESS = 0.5
"""Seconds between two words on how far something is."""
_ASK = 0.5
"""Seconds in which members may say whether they have something."""
_GOODBYE = 0.25
"""Seconds that a node which leaves gives to conversations under way, out of the second that a leave may take."""


class Control:
    """The control socket of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._server: asyncio.Server | None = None
        self._writers: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._idle: dict[asyncio.Task[None], None] = {}
        """Those that asked nothing yet or again, the one silent for longest first."""

    async def start(self, path: Path) -> None:
        """Listens at this path."""
        # serving begins in a step of its own: cancelled in the middle, asyncio would keep a server that nobody has
        self._server = await asyncio.start_unix_server(self._accept, str(path), limit=_MAX_LINE, start_serving=False)
        os.chmod(path, 0o600)
        await self._server.start_serving()
        forks.enter(self)

    async def stop(self, patience: float = _GOODBYE) -> None:
        """Ends every conversation, which may take so many seconds, and closes the socket."""
        forks.leave(self)
        if self._server is not None:
            stop_accepting(self._server)
        for task in list(self._idle):
            task.cancel()
        try:
            await asyncio.sleep(0)  # for whom was accepted in this very turn
            if self._writers:
                await asyncio.wait(list(self._writers), timeout=min(patience, _GOODBYE))
        finally:  # also where this is cancelled: nothing of the node may outlive it
            if self._server is not None:
                self._server.close()
            for task in list(self._writers):
                task.cancel()
        await asyncio.gather(*self._writers, return_exceptions=True)

    def abandon(self) -> None:
        """In a forked child: lets go of the parent's connections, or who speaks to it would not see it end."""
        sockets = [writer.get_extra_info("socket") for writer in self._writers.values()]
        sockets += self._server.sockets if self._server is not None else []
        forks.let_go(each.fileno() for each in sockets if each is not None and each.fileno() >= 0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if not self._make_room():
                await _say(writer, _error("too many connections to this node at once", "busy"))
                return
            self._writers[task] = writer
            await self._converse(task, reader, writer)
        except (ConnectionError, TimeoutError, asyncio.CancelledError):
            writer.transport.abort()  # the other side went away or does not read, or we leave
        finally:
            self._writers.pop(task, None)
            self._idle.pop(task, None)
            writer.close()

    def _make_room(self) -> bool:
        """Whether another conversation may begin. If there are too many, the one silent for longest gives way."""
        if len(self._writers) < _MAX_CONNECTIONS:
            return True
        silent = next(iter(self._idle), None)
        self._count("control_refused" if silent is None else "control_silent")
        if silent is None:
            return False
        del self._idle[silent]
        self._writers.pop(silent).transport.abort()
        silent.cancel()
        return True

    def _count(self, what: str) -> None:
        assert self._node._runtime is not None
        self._node._runtime.engine.counters[what] += 1

    async def _converse(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            self._idle[task] = None
            try:
                asked = await reader.readline()
            except ValueError:
                self._count("control_overlong")
                await _say(writer, _error(f"a request of more than {_MAX_LINE} bytes", "bad"))
                return
            self._idle.pop(task, None)
            if not asked:
                return
            try:
                request = _request(asked)
                if request.get("do") == "watch":
                    await self._tell_changes(request, reader, writer)
                    return
                if request.get("do") == "events":
                    await self._tell_events(reader, writer)
                    return
                if request.get("do") == "explain":
                    await _say(writer, _json({"ok": await self._explain(request)}))
                    continue
                async for line in self._answer(request):
                    async with asyncio.timeout(_PATIENCE):
                        await _say(writer, line)
            except Missing as error:
                await _say(writer, _error(error, "missing"))
            except (GossipError, ValueError, TypeError, OverflowError, RecursionError) as error:
                await _say(writer, _error(error, "bad"))

    async def _explain(self, request: Request) -> dict[str, Any]:
        """The story of a write, and who of the members has it: that, they have to be asked."""
        told, wanted = explained(self._node, request)
        runtime = self._node._running()
        holders, silent = await runtime.waits.holders(wanted, _ASK)
        names = [self._node.me.name, *map(runtime.name_of, holders)]
        return told | {"holders": names, "silent": [*map(runtime.name_of, silent)]}

    async def _answer(self, request: Request) -> AsyncIterator[str]:
        do = str(request.get("do"))
        if do in ACTIONS:
            yield _json({"ok": act(self._node, request)})
        elif do in LISTS:
            async for line in _told(*LISTS[do](self._node, request)):
                yield line
        elif do in WORKS:
            async for line in self._work(WORKS[do], request):
                yield line
        else:
            known = sorted([*ACTIONS, *LISTS, *WORKS, "events", "explain", "watch"])
            raise ValueError(f"{do!r} is none of: {', '.join(known)}")

    async def _work(self, work: Work, request: Request) -> AsyncIterator[str]:
        """What takes its time: how far it is, again and again, and then what comes of it."""
        progress = (0, 0)

        def tell(done: int, total: int) -> None:
            nonlocal progress
            progress = (done, total)

        task = asyncio.ensure_future(work(self._node, request, tell))
        try:
            while not (await asyncio.wait((task,), timeout=_PROGRESS))[0]:
                yield _json({"progress": progress})
            try:
                entries, ok = task.result()
            except GossipError:
                raise
            except OSError as error:  # of a file: our own connection is not its business
                what = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
                raise (Missing if isinstance(error, FileNotFoundError) else ValueError)(what) from None
            async for line in _told(entries, ok):
                yield line
        finally:
            task.cancel()

    async def _tell_changes(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Watches all objects of these names, until the other side closes or the node leaves."""
        watched = watched_of(self._node, request)
        snapshot, resume = request.get("snapshot") is not False, request.get("resume")
        async with self._node.watch(*(each.handle for each in watched), snapshot=snapshot, resume=resume) as watch:
            await self._until_closed(self._tell(watch, watched, request.get("cursors") is True, writer), reader, writer)

    async def _tell_events(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Tells what happens, until the other side closes or the node leaves."""
        async with self._node.events() as events:
            await _say(writer, _json({"ok": None}))  # from here on

            async def tell() -> None:
                async for event in events:
                    await _say(writer, _json({"ok": event_told(event)}))

            await self._until_closed(tell(), reader, writer)

    async def _until_closed(
        self, tell: Coroutine[Any, Any, None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        telling = asyncio.ensure_future(tell)
        closed = asyncio.ensure_future(_closed(reader))
        try:
            await asyncio.wait((telling, closed), return_when=asyncio.FIRST_COMPLETED)
            if telling.done():
                telling.result()
                await _say(writer, _error(f"the node {self._node.me.name!r} has left", "left"))
        finally:
            telling.cancel()
            closed.cancel()
            await asyncio.gather(telling, closed, return_exceptions=True)

    async def _tell(
        self, watch: Watch[Any, Any], watched: Sequence[Watched], cursors: bool, writer: asyncio.StreamWriter
    ) -> None:
        number = 0
        async for change in watch:
            number += 1
            if number % _PART == 0:
                await asyncio.sleep(0)  # what is unread comes without a pause otherwise, however much it is
            cursor = watch.cursor if cursors or change.kind == "complete" else None
            await _say(writer, _json({"ok": change_told(watched, change, cursor)}))


async def _told(entries: Iterator[Any], ok: Any) -> AsyncIterator[str]:
    """A long answer, in pieces."""
    while part := _next_part(entries):
        yield f'{{"part": [{", ".join(part)}]}}'
        await asyncio.sleep(0)
    yield _json({"ok": ok})


async def _closed(reader: asyncio.StreamReader) -> None:
    """Returns when the other side has closed; otherwise it would be noticed at the next change only, if any."""
    while await reader.read(1 << 16):
        pass


async def _say(writer: asyncio.StreamWriter, line: str) -> None:
    writer.write(line.encode() + b"\n")
    await writer.drain()


def _error(message: object, kind: str) -> str:
    return _json({"error": str(message), "kind": kind})


def _json(answer: Any) -> str:
    try:
        return json.dumps(answer, default=_jsonable)
    except TypeError:  # a dict with bytes for keys
        return json.dumps(_with_text_keys(answer), default=_jsonable)


def _jsonable(value: object) -> object:
    """What JSON has no word for: bytes."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return str(value)


def _with_text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            base64.b64encode(key).decode() if isinstance(key, bytes) else key: _with_text_keys(part)
            for key, part in value.items()
        }
    return list(map(_with_text_keys, value)) if isinstance(value, (list, tuple)) else value


def _request(line: bytes) -> Request:
    request = json.loads(line)
    if not isinstance(request, dict):
        raise ValueError('a request is a JSON object: {"do": "get", "object": "flags", "key": "beta"}')
    return request


def _next_part(entries: Iterator[Any]) -> list[str]:
    part: list[str] = []
    size = 0
    while len(part) < _PART and size < _PART_SIZE:
        try:
            part.append(_json(next(entries)))
        except StopIteration:
            break
        size += len(part[-1])
    return part
