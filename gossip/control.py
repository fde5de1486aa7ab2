"""How does the command line, or any other program of this user, speak to a running node?

Over a second unix socket beside the node's own: one JSON object a line in, one or more a line out. The directory it
lies in is open to its user alone, so whoever can connect may do all that the program itself may.

    {"do": "get", "object": "flags", "key": "beta"}     ->  {"ok": true}
    {"do": "get", "object": "flags", "key": "gone"}     ->  {"error": "'gone' is not in 'flags'", "kind": "missing"}
    {"do": "watch", "object": "flags"}                  ->  {"ok": {...}} a change, until one side closes

Invariant: a bad request is answered with what is wrong with it and changes nothing; lines and connections are bounded.
Not here: HTTP, and anybody from elsewhere.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossip.errors import GossipError
from gossip.watch import Watch

if TYPE_CHECKING:
    from gossip.node import Node

_MAX_LINE = 4 << 20
"""Bytes of a request: a largest value, escaped."""
_MAX_CONNECTIONS = 64

Request = dict[str, Any]


class Missing(LookupError):
    """What was asked for is not there."""


class Control:
    """The control socket of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._server: asyncio.Server | None = None
        self._path: Path | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, path: Path) -> None:
        """Listens at this path."""
        self._path = path
        self._server = await asyncio.start_unix_server(self._accept, str(path), limit=_MAX_LINE)
        os.chmod(path, 0o600)

    async def stop(self) -> None:
        """Ends every conversation and closes the socket."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if len(self._tasks) > _MAX_CONNECTIONS:
                await _say(writer, {"error": "too many connections to this node at once", "kind": "busy"})
                return
            await self._converse(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the other side went away, or we do
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                line = await reader.readline()
            except ValueError:
                await _say(writer, {"error": f"a request of more than {_MAX_LINE} bytes", "kind": "bad"})
                return
            if not line:
                return
            try:
                async for answer in self._answer(line):
                    await _say(writer, {"ok": answer})
            except Missing as error:
                await _say(writer, {"error": str(error), "kind": "missing"})
            except (GossipError, ValueError, TypeError, OverflowError, RecursionError) as error:
                await _say(writer, {"error": str(error), "kind": "bad"})

    async def _answer(self, line: bytes) -> AsyncIterator[Any]:
        request = json.loads(line)
        if not isinstance(request, dict):
            raise ValueError('a request is a JSON object: {"do": "get", "object": "flags", "key": "beta"}')
        do = request.get("do")
        if do == "watch":
            async with self._watch(request) as changes:
                async for change in changes:
                    yield asdict(change)
            return
        action = _ACTIONS.get(str(do))
        if action is None:
            raise ValueError(f"{do!r} is none of: {', '.join(sorted([*_ACTIONS, 'watch']))}")
        yield action(self._node, request)

    def _watch(self, request: Request) -> Watch[Any, Any]:
        name = _text(request, "object")
        kind = request.get("type") or _kind(self._node, name)
        handles: dict[str, Callable[[str], Any]] = {
            "map": self._node.map, "set": self._node.set,
            "counter": self._node.counter, "register": self._node.register,
        }  # fmt: skip
        if kind not in handles:
            raise ValueError(f"type {kind!r} is none of: {', '.join(handles)}")
        watch: Watch[Any, Any] = handles[kind](name).watch()
        return watch


async def _say(writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
    writer.write(json.dumps(answer, default=_jsonable).encode() + b"\n")
    await writer.drain()


def _jsonable(value: object) -> object:
    """What JSON has no word for: bytes."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return str(value)


def _text(request: Request, field: str) -> str:
    value = request.get(field)
    if not isinstance(value, str) or not value:
        raise ValueError(f"the request needs a text as {field!r}")
    return value


def _kind(node: Node, name: str) -> str:
    """The one type under which an object of this name exists here; a map if there is none."""
    kinds = [each["type"] for each in node.status()["objects"] if each["name"] == name]
    if len(kinds) > 1:
        raise ValueError(f"{name!r} exists as {' and '.join(kinds)}: say which with 'type'")
    return str(kinds[0]) if kinds else "map"


def _status(node: Node, request: Request) -> Any:
    return node.status()


def _members(node: Node, request: Request) -> Any:
    return [
        {**asdict(member), "instance": f"{member.instance:016x}", "me": member.instance == node.me.instance}
        for member in node.members.all
    ]


def _get(node: Node, request: Request) -> Any:
    """One key of a map; without a key, all of an object."""
    name, key = _text(request, "object"), request.get("key")
    kind = request.get("type") or ("map" if key is not None else _kind(node, name))
    match kind:
        case "map" if key is not None:
            return _entry(node, name, key)
        case "map":
            return {str(each): value for each, value in node.map(name, key=object).items()}
        case "set":
            return list(node.set(name))
        case "counter":
            return node.counter(name).value
        case "register":
            return node.register(name).value
    raise ValueError(f"type {kind!r} is none of: map, set, counter, register")


def _entry(node: Node, name: str, key: Any) -> Any:
    try:
        return node.map(name, key=object)[key]
    except KeyError:
        raise Missing(f"{key!r} is not in {name!r}") from None


def _set(node: Node, request: Request) -> Any:
    """A key of a map; without a key, a register."""
    name = _text(request, "object")
    if "value" not in request:
        raise ValueError("the request needs a 'value'")
    if request.get("key") is None:
        node.register(name).set(request["value"])
    else:
        node.map(name, key=object)[request["key"]] = request["value"]
    return None


def _delete(node: Node, request: Request) -> Any:
    """A key of a map; without a key, what is in a register."""
    name, key = _text(request, "object"), request.get("key")
    if key is None:
        if node.register(name).value is None:
            raise Missing(f"there is no register {name!r}; to delete a key of a map, name it")
        node.register(name).delete()
        return None
    try:
        del node.map(name, key=object)[key]
    except KeyError:
        raise Missing(f"{key!r} is not in {name!r}") from None
    return None


def _keys(node: Node, request: Request) -> Any:
    """The keys of a map, or without an object all objects."""
    if request.get("object") is None:
        return node.status()["objects"]
    return list(node.map(_text(request, "object"), key=object))


def _incr(node: Node, request: Request) -> Any:
    amount = request.get("amount", 1)
    if type(amount) is not int or amount == 0:
        raise ValueError("'amount' is an integer other than 0")
    counter = node.counter(_text(request, "object"))
    if amount > 0:
        counter.increment(amount)
    else:
        counter.decrement(-amount)
    return counter.value


def _add(node: Node, request: Request) -> Any:
    node.set(_text(request, "object")).add(_element(request))
    return None


def _remove(node: Node, request: Request) -> Any:
    elements = node.set(_text(request, "object"))
    element = _element(request)
    if element not in elements:
        raise Missing(f"{element!r} is not in {request['object']!r}")
    elements.discard(element)
    return None


def _element(request: Request) -> Any:
    if "element" not in request:
        raise ValueError("the request needs an 'element'")
    return request["element"]


_ACTIONS: dict[str, Callable[[Node, Request], Any]] = {
    "status": _status,
    "members": _members,
    "get": _get,
    "set": _set,
    "delete": _delete,
    "keys": _keys,
    "incr": _incr,
    "add": _add,
    "remove": _remove,
}
