"""What does a node answer to whom it is asked by through its control socket?

Each answer is a function from a node and a request, a JSON object, to what JSON can say; those of `LISTS` give it in
pieces, since it may be long, and those of `WORKS` take their time besides. Raises `Missing` for what is not there, and
`ValueError` for a request that is none.

Not here: the socket, and watching (`control`).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from crdt import FOREVER, WITH_AUTHOR, Context, Dot, Link, Live, Note, Write, decode_batch, decode_element, decode_value
from crdt.codec import COUNTER, MAP, REGISTER, SET, object_name
from gossip.checks import keys_of
from gossip.checkup import examined
from gossip.events import Event
from gossip.handle import NO_NOTE
from gossip.version import __version__
from gossip.watch import Change, time_of

if TYPE_CHECKING:
    from gossip.node import Node
    from gossip.restore import Progress
    from gossip.shared import Map
    from gossip.snapshot import Snapshot

log = logging.getLogger("gossip")

Request = dict[str, Any]
Work: TypeAlias = "Callable[[Node, Request, Progress], Coroutine[Any, Any, tuple[Iterator[Any], Any]]]"
"""What takes its time, and tells how far it is."""

_MOST_WATCHED = 256
"""Objects of one watch: each change that is told looks for its own among them."""


class Missing(LookupError):
    """What was asked for is not there."""


TYPES = {"map": MAP, "set": SET, "counter": COUNTER, "register": REGISTER}


def text_of(request: Request, field: str) -> str:
    """The text that a request must have in this field."""
    value = request.get(field)
    if not isinstance(value, str) or not value:
        raise ValueError(f"the request needs a text as {field!r}")
    return value


def type_of(request: Request) -> str | None:
    """The type of object that a request names, if it does."""
    kind = request.get("type")
    if kind is not None and kind not in TYPES:
        raise ValueError(f"type {kind!r} is none of: {', '.join(TYPES)}")
    return kind


def _key(value: Any) -> Any:
    """A key or an element: JSON writes tuples as lists, and no list is a key."""
    return tuple(map(_key, value)) if isinstance(value, list) else value


def _element(request: Request) -> Any:
    if "element" not in request:
        raise ValueError("the request needs an 'element'")
    return _key(request["element"])


def handle_of(node: Node, kind: str, name: str) -> Any:
    """The handle of an object, for keys and values of any type."""
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
    raw, objects = object_name(name), node._settled().objects
    return [kind for kind, number in TYPES.items() if objects.get((number, raw))]


def _read(node: Node, request: Request) -> tuple[str, Any]:
    """What a request without a key is about: a type that was asked for, else the only one there is."""
    name, kind = text_of(request, "object"), type_of(request)
    if kind is None:
        types = _types(node, name)
        if not types:
            raise Missing(f"there is nothing called {name!r}")
        if len(types) > 1:
            raise ValueError(f"{name!r} is a {' and a '.join(types)}: say which: --type {types[0]}")
        kind = types[0]
    return kind, handle_of(node, kind, name)


def _there(node: Node, request: Request) -> tuple[str, Any]:
    """The same for who wants what is in it: of what was asked for by its type there may be nothing."""
    kind, handle = _read(node, request)
    if kind not in _types(node, handle.name):
        raise Missing(f"there is no {kind} called {handle.name!r}")
    return kind, handle


def _written(node: Node, request: Request, kind: str) -> Any:
    """The handle to write to. One name may stand for objects of several types, but who meant that says so."""
    name, asked = text_of(request, "object"), type_of(request)
    if asked not in (None, kind):
        raise ValueError(f"this can not be done to a {asked}, only to a {kind}")
    types = _types(node, name)
    if types and kind not in types and asked is None:
        raise ValueError(
            f"{name!r} is a {' and a '.join(types)}, and this is for a {kind}. "
            f"To have a {kind} of the same name besides, say so: --type {kind}"
        )
    return handle_of(node, kind, name)


def _check(node: Node, handle: Any, *content: Any) -> None:
    """Refuses what this node's own program could not read: it would fail at every walk through the object."""
    typed = node._handles.get(handle._view.name)
    if typed is not None:
        typed._check(*content)


# -- answers -----------------------------------------------------------------------------------------------------------


def _visible(handle: Any) -> Iterator[Any]:
    """The keys or elements, decoded one by one: the handle would decode all before it gives the first."""
    return (decode_element(element) for element, _ in handle._elements(handle._view))


def _items(handle: Map[Any, Any]) -> Iterator[tuple[Any, Any]]:
    for key in _visible(handle):
        try:
            yield key, handle[key]
        except KeyError:
            pass  # deleted since we began


def _get(node: Node, request: Request) -> tuple[Iterator[Any], Any]:
    """The value of one key of a map; without a key, all of an object: parts, and at the end its type."""
    if request.get("key") is not None:
        if type_of(request) not in (None, "map"):
            raise ValueError("only a map has keys")
        return iter(()), _entry(node, text_of(request, "object"), _key(request["key"]))
    kind, handle = _there(node, request)
    match kind:
        case "map":
            return _items(handle), kind
        case "set":
            return _visible(handle), kind
    return iter([handle.value]), kind


def _entry(node: Node, name: str, key: Any) -> Any:
    try:
        return node.map(name, key=object)[key]
    except KeyError:
        types = _types(node, name)
        if types and "map" not in types:
            raise ValueError(f"{name!r} is a {' and a '.join(types)}, and only a map has keys") from None
        raise Missing(f"{key!r} is not in {name!r}") from None


def _keys(node: Node, request: Request) -> tuple[Iterator[Any], Any]:
    """The keys of a map, or without an object all objects."""
    if request.get("object") is None:
        return iter(node.status()["objects"]), "objects"
    kind, handle = _there(node, request)
    if kind != "map":
        raise ValueError(f"{request['object']!r} is a {kind}, and only a map has keys")
    return _visible(handle), kind


def _hello(node: Node, request: Request) -> Any:
    """Who is asked."""
    me = node.me
    return {
        "cluster": node.config.cluster,
        "name": me.name,
        "instance": me.id,
        "pid": os.getpid(),
        "version": __version__,
        "sealed": bool(node.config.key),
    }


def _status(node: Node, request: Request) -> Any:
    return node.status()


def _members(node: Node, request: Request) -> Any:
    members, runtime = node.members.all, node._running()
    claims, membership = runtime.engine.members.table, runtime.engine.membership
    return [
        {
            **asdict(member),
            "instance": member.id,
            "addresses": list(claims[member.instance].addresses),
            "me": member.instance == node.me.instance,
            "skew": membership.skew.get(member.instance),
            "datagrams": runtime.transport.by_datagram(member.instance)
            and membership.detector.takes_datagrams(member.instance),
        }
        for member in members
        if member.instance in claims
    ]


def _why(node: Node, request: Request) -> Any:
    """What was found of the members of a name (or an instance), and why: the living one first."""
    name = text_of(request, "name")
    found = [member for member in node.members.all if name in (member.name, member.id)]
    if not found:
        raise Missing(f"no member is called {name!r}, and none has that instance: `gossip members` lists them")
    return [
        {"name": member.name, "instance": member.id, "status": member.status, "rtt": member.rtt,
         "verdicts": [verdict._asdict() for verdict in node._verdicts.of(member.instance)]}
        for member in found
    ]  # fmt: skip


def _set(node: Node, request: Request) -> Any:
    """A key of a map; without a key, a register."""
    if "value" not in request:
        raise ValueError("the request needs a 'value'")
    if request.get("key") is None:
        handle = _written(node, request, "register")
        _check(node, handle, request["value"])
        handle.set(request["value"], ttl=request.get("ttl"))
    else:
        handle = _written(node, request, "map")
        _check(node, handle, _key(request["key"]), request["value"])
        handle.set(_key(request["key"]), request["value"], ttl=request.get("ttl"))
    return None


def _delete(node: Node, request: Request) -> Any:
    """A key of a map; without a key, what is in a register."""
    name, key = text_of(request, "object"), _key(request.get("key"))
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
    handle = _written(node, request, "set")
    _check(node, handle, _element(request))
    handle.add(_element(request), ttl=request.get("ttl"))
    return None


def _remove(node: Node, request: Request) -> Any:
    elements = node.set(text_of(request, "object"))
    element = _element(request)
    if element not in elements:
        raise Missing(f"{element!r} is not in {request['object']!r}")
    elements.discard(element)
    return None


def _live(node: Node, request: Request) -> tuple[str, str, Live | None]:
    """The type of what is to be explained, how it is called, and what is shown of it."""
    kind, handle = _read(node, request)
    node._settled()
    match kind:
        case "map" if "key" in request:
            key = _key(request["key"])
            return kind, f"{handle.name}[{key!r}]", handle._find(handle._keys, handle._view, key)
        case "set" if "element" in request:
            element = _element(request)
            return kind, f"{element!r} in {handle.name}", handle._shown(handle._view.live(element))
        case "register":
            return kind, handle.name, handle._shown(handle._view.live)
    if kind == "counter":
        raise ValueError("a counter is a sum of what all have counted: nobody in particular wrote it")
    what = "KEY" if kind == "map" else "ELEMENT"
    raise ValueError(f"say which {what.lower()} of the {kind}: gossip explain {handle.name} {what}")


def _replaced(node: Node, shown: Link) -> list[dict[str, Any]] | None:
    """What a write replaced, as far as the log still has it; None if it does not even have the write itself."""
    write, _ = _logged(node, (shown[1], shown[2]))
    if write is None:
        return None
    name_of = node._running().name_of
    told = []
    for dot in write.names:
        old, note = _logged(node, dot)
        if old is None:
            told.append({"author": name_of(dot[0]), "logged": False})
            continue
        told.append(
            {
                "author": name_of(dot[0]),
                "logged": True,
                "value": decode_value(old.value) if old.value else None,
                "at": time_of(old.stamp).isoformat(timespec="milliseconds"),
                "by": note.by,
                "note": note.text,
            }
        )
    return told


def _logged(node: Node, dot: Dot) -> tuple[Write | None, Note]:
    """A write that is still in the log, with its note."""
    runtime = node._running()
    with runtime.lock:
        payload = runtime.engine.replication.log.find(*dot)
    batch = None if payload is None else decode_batch(payload)
    write = next((write for write in batch.writes if write.dot == dot), None) if batch is not None else None
    return write, (batch.note if batch is not None else None) or NO_NOTE


def explained(node: Node, request: Request) -> tuple[dict[str, Any], Context]:
    """The story of one write, and what a member must have delivered to have it."""
    kind, what, live = _live(node, request)
    if live is None:
        raise Missing(f"{what} is not there")
    name_of = node._running().name_of
    shown, *others = node._visible(live)
    note = node._store.notes.get((shown[1], shown[2])) or NO_NOTE
    told: dict[str, Any] = {
        "what": what,
        "author": name_of(shown[1]),
        "instance": f"{shown[1]:016x}",
        "at": time_of(shown[0]).isoformat(timespec="milliseconds"),
        "expires": time_of(shown[4]).isoformat(timespec="milliseconds") if shown[4] > FOREVER else None,
        "owned": shown[4] == WITH_AUTHOR,
        "by": note.by,
        "note": note.text,
        "replaced": _replaced(node, shown),
        "conflicts": [
            {
                "value": decode_value(each[3]) if each[3] else None,
                "author": name_of(each[1]),
                "at": time_of(each[0]).isoformat(timespec="milliseconds"),
            }
            for each in others
        ],
    }
    return told | ({} if kind == "set" else {"value": decode_value(shown[3])}), Context({shown[1]: shown[2]})


def _keyring(node: Node, request: Request) -> Any:
    """The fingerprints of the keys of this node, that of the one that seals first; and how they are changed."""
    runtime = node._running()
    with runtime.lock:
        before = runtime.keyring.fingerprints
        match text_of(request, "change") if "change" in request else None:
            case None:
                return before
            case "add":
                for key in keys_of(text_of(request, "key")):
                    runtime.keyring.add(key)
            case "use":
                runtime.keyring.use(text_of(request, "fingerprint"))
            case "remove":
                runtime.keyring.remove(text_of(request, "fingerprint"))
            case other:
                raise ValueError(f"change {other!r} is none of: add, use, remove")
        after = runtime.keyring.fingerprints
    if after != before:
        runtime.transport.rekeyed()
        log.info("node %r of cluster %r seals with the key %s now, and opens with %s", node.me.name,
                 node.config.cluster, after[0], ", ".join(after))  # fmt: skip
    return after


def act(node: Node, request: Request) -> Any:
    """Does what is asked for at once; with the author and the note that the request gives."""
    by, note = (request.get(field) for field in ("by", "note"))
    if by is None and note is None:
        return ACTIONS[request["do"]](node, request)
    with node.batch(author=by, note=note):
        return ACTIONS[request["do"]](node, request)


LISTS: dict[str, Callable[[Node, Request], tuple[Iterator[Any], Any]]] = {"get": _get, "keys": _keys}
ACTIONS: dict[str, Callable[[Node, Request], Any]] = {
    "hello": _hello,
    "keyring": _keyring,
    "status": _status,
    "members": _members,
    "why": _why,
    "set": _set,
    "delete": _delete,
    "incr": _incr,
    "add": _add,
    "remove": _remove,
}


# -- snapshots: files are read and written by the node, which is of the same user and host -----------------------------


async def _snapshot(node: Node, request: Request, progress: Progress) -> tuple[Iterator[Any], Any]:
    """Takes a snapshot into a file, as of now or of a moment that is past."""
    snapshot = await node.snapshot(as_of=_moment(request))
    path = await asyncio.to_thread(snapshot.save, text_of(request, "path"))
    return iter(()), {"path": str(path), **snapshot.head.told()}


async def _compare(node: Node, request: Request, progress: Progress) -> tuple[Iterator[Any], Any]:
    """What has changed from a snapshot to now."""
    snapshot = await _asked_for(node, request)
    objects = _names(request)
    found = await asyncio.to_thread(snapshot.diff, await node.snapshot(), objects)
    return (each.told() for each in found), snapshot.head.told()


async def _restore(node: Node, request: Request, progress: Progress) -> tuple[Iterator[Any], Any]:
    """Goes back to a snapshot."""
    snapshot = await _asked_for(node, request)
    found = await node.restore(
        snapshot,
        objects=_names(request),
        delete=request.get("delete") is not False,
        dry_run=request.get("dry_run") is True,
        foreign=request.get("foreign") is True,
        progress=progress,
    )
    return (each.told() for each in found), snapshot.head.told()


async def _asked_for(node: Node, request: Request) -> Snapshot:
    if request.get("as_of") is not None:
        return await node.snapshot(as_of=_moment(request))
    from gossip.snapshot import Snapshot  # here, as in `node`

    return await asyncio.to_thread(Snapshot.load, text_of(request, "path"))


def _moment(request: Request) -> datetime | None:
    """A moment that a request names in seconds since 1970, if it does."""
    as_of = request.get("as_of")
    if as_of is None:
        return None
    if type(as_of) not in (int, float) or not 0 <= as_of < 1 << 36:
        raise ValueError("'as_of' is a number of seconds since 1970")
    return datetime.fromtimestamp(as_of, UTC)


def _names(request: Request) -> list[str] | None:
    names = request.get("objects")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError("'objects' is a list of names")
    return names or None


async def _checkup(node: Node, request: Request, progress: Progress) -> tuple[Iterator[Any], Any]:
    """What it finds that looks at itself and knocks at the others' doors: for `gossip doctor`."""
    return iter(()), await examined(node)


WORKS: dict[str, Work] = {
    "checkup": _checkup,
    "snapshot": _snapshot,
    "compare": _compare,
    "restore": _restore,
}


class Watched(NamedTuple):
    """An object that is watched: its handle, its type, and its name."""

    handle: Any
    kind: str
    name: str


def watched_of(node: Node, request: Request) -> list[Watched]:
    """What a request asks to watch: all objects of its names, of whatever type, or of that which it gives."""
    names, asked = request.get("objects"), type_of(request)
    if names is None:
        names = [text_of(request, "object")]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError("the request needs a list of names as 'objects'")
    if len(names) > _MOST_WATCHED:
        raise ValueError(f"at most {_MOST_WATCHED} objects are watched at once")
    kinds = TYPES if asked is None else (asked,)
    return [Watched(handle_of(node, kind, name), kind, name) for name in names for kind in kinds]


def event_told(event: Event) -> dict[str, Any]:
    """An event, as JSON has it."""
    member = event.member
    return {
        "kind": event.kind,
        "member": None if member is None else member.name,
        "instance": None if member is None else member.id,
        "evidence": event.evidence,
        "at": event.at.isoformat(timespec="milliseconds"),
    }


def change_told(watched: Sequence[Watched], change: Change[Any, Any], cursor: str | None) -> dict[str, Any]:
    """A change, as JSON has it."""
    _, kind, name = next((each for each in watched if each.handle is change.source), (None, None, None))
    told = {
        "object": name,
        "type": kind,
        "key": change.key,
        "value": change.value,
        "previous": change.previous,
        "kind": change.kind,
        "author": f"{change.author:016x}" if change.author else None,
        "at": (change.stamp >> 16) / 1000 if change.stamp else None,
    }
    return told if cursor is None else told | {"cursor": cursor}
