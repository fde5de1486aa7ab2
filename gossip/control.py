"""How does the command line, or any other program of this user, speak to a running node?

Over a second unix socket beside the node's own: one JSON object a line in, one or more a line out. The directory it
lies in is open to its user alone, so whoever can connect may do all that the program itself may.

    {"do": "get", "object": "flags", "key": "beta"}     ->  {"ok": true}
    {"do": "get", "object": "flags", "key": "gone"}     ->  {"error": "'gone' is not in 'flags'", "kind": "missing"}
    {"do": "get", "object": "flags"}                    ->  {"part": [["beta", true], ...]} ... {"ok": "map"}
    {"do": "watch", "object": "flags"}                  ->  {"ok": {...}} a change, until one side closes

Invariants: a bad request is answered with what is wrong with it and changes nothing; lines and connections are bounded;
nobody who is slow, silent or gone keeps the node from anything, nor others from speaking to it.
Not here: HTTP, and anybody from elsewhere.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossip.errors import GossipError
from gossip.watch import Change, Watch

if TYPE_CHECKING:
    from gossip.node import Node
    from gossip.shared import Map

_MAX_LINE = 7 << 20
"""Bytes of a request: a largest value (1 MiB) of which JSON writes every byte as six, and what is around it."""
_MAX_CONNECTIONS = 64
_PART = 256
_PART_SIZE = 1 << 18
"""Entries, and characters, answered in one go: a node has a protocol to serve, and its program has users."""
_PATIENCE = 30.0
"""Seconds that an answer may wait for its reader, with all of it in memory. A watch keeps little and may wait."""
_GOODBYE = 0.25
"""Seconds that a node which leaves gives to conversations under way, out of the second that a leave may take."""

Request = dict[str, Any]


class Missing(LookupError):
    """What was asked for is not there."""


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
        _listening.add(self)

    async def stop(self) -> None:
        """Ends every conversation and closes the socket."""
        _listening.discard(self)
        if self._server is not None:
            self._server.close()
        for task in list(self._idle):
            task.cancel()
        try:
            if self._writers:
                await asyncio.wait(list(self._writers), timeout=_GOODBYE)
        finally:  # also where this is cancelled: nothing of the node may outlive it
            for task in list(self._writers):
                task.cancel()
        await asyncio.gather(*self._writers, return_exceptions=True)

    def abandon(self) -> None:
        """In a forked child: lets go of the parent's connections, or who speaks to it would not see it end."""
        sockets = [writer.get_extra_info("socket") for writer in self._writers.values()]
        sockets += self._server.sockets if self._server is not None else []
        nothing = os.open(os.devnull, os.O_RDWR)
        for each in sockets:
            # Not closed: objects of the parent's loop still hold these numbers, and would close what bears them next.
            if each is not None and each.fileno() >= 0:
                os.dup2(nothing, each.fileno(), inheritable=False)
        os.close(nothing)

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
                async for line in self._answer(request):
                    async with asyncio.timeout(_PATIENCE):
                        await _say(writer, line)
            except Missing as error:
                await _say(writer, _error(error, "missing"))
            except (GossipError, ValueError, TypeError, OverflowError, RecursionError) as error:
                await _say(writer, _error(error, "bad"))

    async def _answer(self, request: Request) -> AsyncIterator[str]:
        do = str(request.get("do"))
        if do in _LISTS:
            entries, ok = _LISTS[do](self._node, request)
            while part := _next_part(entries):
                yield f'{{"part": [{", ".join(part)}]}}'
                await asyncio.sleep(0)
            yield _json({"ok": ok})
        elif do in _ACTIONS:
            yield _json({"ok": _ACTIONS[do](self._node, request)})
        else:
            raise ValueError(f"{do!r} is none of: {', '.join(sorted([*_ACTIONS, *_LISTS, 'watch']))}")

    async def _tell_changes(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Watches all objects of this name, until the other side closes or the node leaves."""
        name, asked = _text(request, "object"), _type(request)
        async with AsyncExitStack() as block:
            watches = []
            for kind in _TYPES if asked is None else (asked,):
                watch = await block.enter_async_context(_handle(self._node, kind, name).watch())
                if request.get("snapshot") is False:
                    watch.skip()
                watches.append((kind, watch))
            one_at_a_time = asyncio.Lock()
            telling = asyncio.gather(*(self._tell(name, *each, writer, one_at_a_time) for each in watches))
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
        self, name: str, kind: str, watch: Watch[Any, Any], writer: asyncio.StreamWriter, turn: asyncio.Lock
    ) -> None:
        total: int | None = None
        number = 0
        async for change in watch:
            number += 1
            if number % _PART == 0:
                await asyncio.sleep(0)  # what is unread comes without a pause otherwise, however much it is
            told = _told(kind, change)
            if kind == "counter" and change.kind != "lagged":
                # people count in sums: which worker counted which part is an inner matter
                value = self._node.counter(name).value
                if value == total:
                    continue
                told |= {"key": None, "value": value, "previous": total}
                total = value
            async with turn:
                await _say(writer, _json({"ok": told}))


def _told(kind: str, change: Change[Any, Any]) -> dict[str, Any]:
    told = {"type": kind, **asdict(change)}
    stamp = told.pop("stamp")
    told["author"] = f"{change.author:016x}" if change.author else None
    told["at"] = (stamp >> 16) / 1000 if stamp else None
    return told


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


# -- reading requests ------------------------------------------------------------------------------------------------

_TYPES = ("map", "set", "counter", "register")


def _request(line: bytes) -> Request:
    request = json.loads(line)
    if not isinstance(request, dict):
        raise ValueError('a request is a JSON object: {"do": "get", "object": "flags", "key": "beta"}')
    return request


def _text(request: Request, field: str) -> str:
    value = request.get(field)
    if not isinstance(value, str) or not value:
        raise ValueError(f"the request needs a text as {field!r}")
    return value


def _type(request: Request) -> str | None:
    kind = request.get("type")
    if kind is not None and kind not in _TYPES:
        raise ValueError(f"type {kind!r} is none of: {', '.join(_TYPES)}")
    return kind


def _key(value: Any) -> Any:
    """A key or an element: JSON writes tuples as lists, and no list is a key."""
    return tuple(map(_key, value)) if isinstance(value, list) else value


def _element(request: Request) -> Any:
    if "element" not in request:
        raise ValueError("the request needs an 'element'")
    return _key(request["element"])


def _handle(node: Node, kind: str, name: str) -> Any:
    match kind:
        case "map":
            return node.map(name, key=object)
        case "set":
            return node.set(name)
        case "counter":
            return node.counter(name)
    return node.register(name)


def _types(node: Node, name: str) -> list[str]:
    """The types under which there is something of this name."""
    return [each["type"] for each in node.status()["objects"] if each["name"] == name]


def _read(node: Node, request: Request) -> tuple[str, Any]:
    """What a request without a key is about: a type that was asked for, else the only one there is."""
    name, kind = _text(request, "object"), _type(request)
    if kind is None:
        types = _types(node, name)
        if not types:
            raise Missing(f"there is nothing called {name!r}")
        if len(types) > 1:
            raise ValueError(f"{name!r} is a {' and a '.join(types)}: say which: --type {types[0]}")
        kind = types[0]
    return kind, _handle(node, kind, name)


def _written(node: Node, request: Request, kind: str) -> Any:
    """The handle to write to. One name may stand for objects of several types, but who meant that says so."""
    name, asked = _text(request, "object"), _type(request)
    if asked not in (None, kind):
        raise ValueError(f"this can not be done to a {asked}, only to a {kind}")
    types = _types(node, name)
    if types and kind not in types and asked is None:
        raise ValueError(
            f"{name!r} is a {' and a '.join(types)}, and this is for a {kind}. "
            f"To have a {kind} of the same name besides, say so: --type {kind}"
        )
    return _handle(node, kind, name)


# -- answers ---------------------------------------------------------------------------------------------------------


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


def _items(handle: Map[Any, Any]) -> Iterator[tuple[Any, Any]]:
    keys = handle._view.keys()  # these are decoded one by one; the handle decodes all before it gives the first
    for key in keys:
        try:
            yield key, handle[key]
        except KeyError:
            pass  # deleted since we began


def _get(node: Node, request: Request) -> tuple[Iterator[Any], Any]:
    """The value of one key of a map; without a key, all of an object: parts, and at the end its type."""
    if request.get("key") is not None:
        if _type(request) not in (None, "map"):
            raise ValueError("only a map has keys")
        return iter(()), _entry(node, _text(request, "object"), _key(request["key"]))
    kind, handle = _read(node, request)
    match kind:
        case "map":
            return _items(handle), kind
        case "set":
            return iter(handle._view), kind
    return iter([handle.value]), kind


def _entry(node: Node, name: str, key: Any) -> Any:
    try:
        return node.map(name, key=object)[key]
    except KeyError:
        raise Missing(f"{key!r} is not in {name!r}") from None


def _keys(node: Node, request: Request) -> tuple[Iterator[Any], Any]:
    """The keys of a map, or without an object all objects."""
    if request.get("object") is None:
        return iter(node.status()["objects"]), "objects"
    kind, handle = _read(node, request)
    if kind != "map":
        raise ValueError(f"{request['object']!r} is a {kind}, and only a map has keys")
    return handle._view.keys(), kind


def _hello(node: Node, request: Request) -> Any:
    """Who is asked."""
    me = node.me
    return {"cluster": node.config.cluster, "name": me.name, "instance": f"{me.instance:016x}", "pid": os.getpid()}


def _status(node: Node, request: Request) -> Any:
    return node.status()


def _members(node: Node, request: Request) -> Any:
    members, claims = node.members.all, node._running().engine.members.table
    return [
        {
            **asdict(member),
            "instance": f"{member.instance:016x}",
            "addresses": list(claims[member.instance].addresses),
            "me": member.instance == node.me.instance,
        }
        for member in members
        if member.instance in claims
    ]


def _set(node: Node, request: Request) -> Any:
    """A key of a map; without a key, a register."""
    if "value" not in request:
        raise ValueError("the request needs a 'value'")
    if request.get("key") is None:
        _written(node, request, "register").set(request["value"])
    else:
        _written(node, request, "map")[_key(request["key"])] = request["value"]
    return None


def _delete(node: Node, request: Request) -> Any:
    """A key of a map; without a key, what is in a register."""
    name, key = _text(request, "object"), _key(request.get("key"))
    if key is None:
        types = _types(node, name)
        if "register" not in types:
            of_map = ", which is a map: name the key to delete" if "map" in types else ""
            raise Missing(f"there is no register {name!r}{of_map}")
        node.register(name).delete()
        return None
    try:
        del node.map(name, key=object)[key]
    except KeyError:
        raise Missing(f"{key!r} is not in {name!r}") from None
    return None


def _incr(node: Node, request: Request) -> Any:
    amount = request.get("amount", 1)
    if type(amount) is not int or amount == 0:
        raise ValueError("'amount' is an integer other than 0")
    counter = _written(node, request, "counter")
    if amount > 0:
        counter.increment(amount)
    else:
        counter.decrement(-amount)
    return counter.value


def _add(node: Node, request: Request) -> Any:
    _written(node, request, "set").add(_element(request))
    return None


def _remove(node: Node, request: Request) -> Any:
    elements = node.set(_text(request, "object"))
    element = _element(request)
    if element not in elements:
        raise Missing(f"{element!r} is not in {request['object']!r}")
    elements.discard(element)
    return None


_LISTS: dict[str, Callable[[Node, Request], tuple[Iterator[Any], Any]]] = {"get": _get, "keys": _keys}
_ACTIONS: dict[str, Callable[[Node, Request], Any]] = {
    "hello": _hello,
    "status": _status,
    "members": _members,
    "set": _set,
    "delete": _delete,
    "incr": _incr,
    "add": _add,
    "remove": _remove,
}

_listening: weakref.WeakSet[Control] = weakref.WeakSet()


def _abandon_all() -> None:
    for control in list(_listening):
        control.abandon()
    _listening.clear()


os.register_at_fork(after_in_child=_abandon_all)
