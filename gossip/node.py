"""What does a program hold?

A `Node`: this process's place in a cluster, and the handles of all that the cluster shares. It may be made at import
time, before a fork and before any loop: it holds nothing until it starts. It lives from `start` to `leave`; started
again it is another instance, which knows nothing but what the others tell it.

    async with Node("shop") as node: ...      in the running loop; the usual way
    with Node("shop") as node: ...            without one: the node brings a thread with a loop of its own

Not here: how anything is done. `runtime` drives, `shared` and `counting` read and write, `thread` lends a
loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, overload
from weakref import WeakValueDictionary

from crdt import Key, Link, Live, Store, Write, visible
from crdt.codec import make_note
from crdt.timestamp import at
from crdt.write import Object
from gossip import token
from gossip.config import Config, check_named
from gossip.counting import Counter, Counters
from gossip.drafts import Drafts
from gossip.errors import AlreadyStarted, ConfigError, NotRunning, StartError
from gossip.events import Event, EventKind, Events, told_of
from gossip.roster import Member, Roster, member_of
from gossip.schema import Schema
from gossip.shared import Map, Register, Set
from gossip.verdicts import Verdict, Verdicts
from gossip.watch import Cursor, Source, Watch
from gossip.watches import Watches

if TYPE_CHECKING:
    from pathlib import Path

    from zeroconf.asyncio import AsyncZeroconf

    from discovery import Place
    from gossip.protocol.effects import MemberChanged
    from gossip.restore import Progress
    from gossip.runtime import Runtime
    from gossip.snapshot import Difference, Snapshot
    from gossip.waits import Peers

H = TypeVar("H", Map[Any, Any], Set[Any], Register[Any])
K = TypeVar("K")
T = TypeVar("T")
V = TypeVar("V")


class Node:
    """A place in a cluster.

    `cluster` is its name: nodes of one name, host and user find each other without any configuration. With `bind`
    (`host:port`) the node also speaks to other hosts; beyond loopback only with a `key`. It finds them by `seeds`
    (addresses, names that have many, `srv:` and the name of a service) and, with `gossamesh[mdns]` installed, on its
    link by `mdns`; `zeroconf` is an `AsyncZeroconf` of your own for that, which must live in the same loop, and is not
    closed. `name` and `tags` are for others to see. With `data_dir`, a directory for this node alone, its data survives
    it. `config` is a TOML file, or a whole `Config`. Everything else that can be told stands in `gossip.Config`, and
    is a keyword here too; `profile="wan"` has other defaults for nodes that are far apart, "local" for those of a host.

    Raises `ConfigError` for a setting that is wrong.

    >>> with Node("readme") as node:
    ...     flags = node.map("flags", bool)
    ...     flags["beta"] = True
    ...     dict(flags), len(node.members)
    ({'beta': True}, 1)
    """

    def __init__(
        self,
        cluster: str,
        *,
        name: str | None = None,
        bind: str | None = None,
        advertise: str | None = None,
        seeds: str | tuple[str, ...] | list[str] | None = None,
        key: str | bytes | Sequence[str | bytes] | None = None,
        data_dir: str | Path | None = None,
        tags: Mapping[str, str] | None = None,
        insecure: bool | None = None,
        mdns: bool | None = None,
        zeroconf: AsyncZeroconf | None = None,
        config: str | Path | Config | None = None,
        **more: Any,
    ) -> None:
        # Here, so that who only imports gossip does not pay for what drives a node, with asyncio and the sockets. Not
        # in `start`: workers that are forked from here have it in common with their parent, a loop in which a node
        # starts does not stand still for it, and no fork or signal handler comes upon a half of it.
        from gossip.runtime import Runtime

        told: dict[str, object] = {"name": name, "bind": bind, "advertise": advertise, "key": key, "tags": tags}
        told |= {"insecure": insecure, "data_dir": data_dir, "mdns": mdns}
        check_named(cluster)
        if isinstance(config, Config):
            also = [each for each, value in {**told, "seeds": seeds, **more}.items() if value is not None]
            if also or config.cluster not in ("", cluster):
                raise ConfigError(
                    f"config is a whole Config, of cluster {config.cluster!r}, and {also[0] if also else 'cluster'!r} "
                    "was given beside it: put it in there, with dataclasses.replace"
                )
            self.config = config if config.cluster else replace(config, cluster=cluster)
        else:
            self.config = Config.load(
                cluster,
                config,
                seeds=seeds if seeds is None or isinstance(seeds, str) else tuple(seeds),
                **told,
                **more,
            )
        if zeroconf is not None and not self.config.bind:
            raise ConfigError("zeroconf is for nodes on a network, and without bind this one has no port")
        self._zeroconf = zeroconf
        self._store = Store()
        self._drafts = Drafts()
        self._runtime: Runtime | None = None
        self._driver = Runtime
        self._watches = Watches(self)
        self._listening: set[Events] = set()
        self._verdicts = Verdicts(lambda instance: self._running().name_of(instance))
        self._state = "it was not started yet: use `async with node:`, `with node:` or `node.open()`"
        self._thread: Any = None
        self._control: Any = None
        self._leaving = False
        self._handles: WeakValueDictionary[Object, Map[Any, Any] | Set[Any] | Register[Any]] = WeakValueDictionary()
        self._roster = Roster(self._look)

    # -- living -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Joins the cluster, in the running loop; returns when what the others share is here, or nobody is.

        Raises `StartError` if a socket can not be had, `AlreadyStarted` if the node runs.
        """
        self._check_startable()
        self._store.clear()
        self._drafts = Drafts()
        self._verdicts.clear()
        self._watches.clear()
        self._control = None
        self._leaving = False
        runtime = self._runtime = self._driver(
            self.config,
            self._store,
            self._drafts,
            self._watches.changed,
            self._watches.batch_began,
            self._watches.batch_ended,
            self._member_changed,
            self._happened,
            self.leave,
            self._serve_control,
            self._zeroconf,
        )
        try:
            await runtime.start()
            self._check_staying()
            runtime.restate(lambda: self.config.tags)  # it may have been tagged while it was starting
            self._verdicts.begin(runtime.engine.me.instance, time.time())
            await self._serve_control(runtime.whereabouts.place)
            self._check_staying()
        except BaseException:
            await self.leave()
            self._state = "it could not start"
            raise

    def _check_startable(self) -> None:
        runtime = self._runtime
        if runtime is not None and not (runtime.over or runtime.forked):
            raise AlreadyStarted("this node runs already, or is starting or leaving just now: make another Node")
        if runtime is not None and runtime.forked:
            raise NotRunning(FORKED)

    def _check_staying(self) -> None:
        if self._leaving:
            raise NotRunning("the node was told to leave while it was starting, so it did not start")

    async def _serve_control(self, place: Place) -> None:
        from gossip.control import Control  # a window on the node: it knows the node, not the other way round

        if self._control is not None:
            await self._control.stop(0.0)
        self._control = Control(self)
        try:
            await self._control.start(place.control_path)
        except OSError as error:
            raise StartError(error.errno, f"can not listen at {place.control_path}: {error.strerror}") from error

    async def leave(self) -> None:
        """Leaves the cluster: hands over what was not sent yet, says goodbye, closes everything. Within a second."""
        runtime = self._runtime
        if runtime is None:
            return
        if runtime.running and runtime.elsewhere:
            raise RuntimeError(
                "this node lives in another event loop, and ends there: say `node.close()` if you said `node.open()` "
                "or `with node:`, else `await node.leave()` in the loop in which it was started"
            )
        self._leaving = True  # a start that is under way ends by this
        if not runtime.running:
            return
        self._state = "it has left: start it again, or make another Node"
        with runtime.lock:
            self._watches.end()
            for listener in self._listening:
                listener._end()
        deadline = runtime.loop.time() + self.config.leave_timeout
        try:
            if self._control is not None:
                await self._control.stop(self.config.leave_timeout / 2)
        finally:
            await runtime.stop(deadline)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.leave()

    def open(self) -> Self:
        """Starts the node in a thread with a loop of its own, for programs that have none; returns when it is ready.

        Within a running loop it blocks that loop until then, and says so in the log: `async with node:` does not.
        """
        from gossip.thread import LoopThread, warn_in_loop

        self._check_startable()
        warn_in_loop()
        self._thread = LoopThread(f"gossip {self.config.cluster}")
        self._thread.run(self.start(), at_end=self.leave)
        return self

    def close(self) -> None:
        """Leaves, and ends the thread that `open` started. Raises `RuntimeError` if the node lives in your own loop."""
        if self._thread is not None:
            self._thread.stop()
        elif self._runtime is not None and self._runtime.running:
            raise RuntimeError("this node was started in your own event loop, and ends there: `await node.leave()`")

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- what is shared ---------------------------------------------------------------------------------------------

    @overload
    def map(self, name: str) -> Map[str, Any]: ...
    @overload
    def map(self, name: str, type: type[V]) -> Map[str, V]: ...
    @overload
    def map(self, name: str, *, key: type[K]) -> Map[K, Any]: ...
    @overload
    def map(self, name: str, type: type[V], *, key: type[K]) -> Map[K, V]: ...
    def map(self, name: str, type: Any = object, *, key: Any = str) -> Map[Any, Any]:
        """The shared map of this name, with values of `type` and keys of type `key`."""
        return self._typed(Map(self, name, Schema(key), Schema(type)))

    @overload
    def set(self, name: str) -> Set[Any]: ...
    @overload
    def set(self, name: str, type: type[V]) -> Set[V]: ...
    def set(self, name: str, type: Any = object) -> Set[Any]:
        """The shared set of this name, with elements of `type`."""
        return self._typed(Set(self, name, Schema(type)))

    def counter(self, name: str) -> Counter:
        """The shared counter of this name."""
        return Counter(self, name)

    def counters(self, name: str) -> Counters:
        """Shared counters by name: `node.counters("views")["page"].increment()`."""
        return Counters(self, name)

    @overload
    def register(self, name: str) -> Register[Any]: ...
    @overload
    def register(self, name: str, type: type[V]) -> Register[V]: ...
    def register(self, name: str, type: Any = object) -> Register[Any]:
        """The shared value of this name."""
        return self._typed(Register(self, name, Schema(type)))

    def watch(
        self,
        *objects: Map[Any, Any] | Set[Any] | Counter | Register[Any] | tuple[Map[Any, Any], str],
        snapshot: bool = True,
        resume: str | None = None,
    ) -> Watch[Any, Any]:
        """The changes of several objects in one stream: `change.source` is the one that a change is about.

        A map with a pattern, `(users, "user/*")`, is watched as by `users.watch("user/*")`. All of them are given as of
        one moment, then one `complete` mark, then what changes. Raises `TypeError` for what can not be watched,
        `ValueError` for a `resume` that is no cursor of this cluster.
        """
        sources = [each[0]._source(each[1]) if isinstance(each, tuple) else _source_of(each) for each in objects]
        if not sources:
            raise TypeError("nothing to watch: name the objects, node.watch(flags, online)")
        return self._watch(sources, snapshot, resume)

    def _typed(self, handle: H) -> H:
        """Remembers, while the program has it, what type the program gave an object: see `answers`."""
        if not handle._is_untyped:
            self._handles[handle._view.name] = handle
        return handle

    @contextmanager
    def batch(self, *, author: str | None = None, note: str | None = None) -> Iterator[None]:
        """What is written inside becomes visible in one step at every peer, and in every watch.

        `author` (128 bytes) and `note` (1 024) say on whose behalf and why: `entry` shows them as `by` and `note`
        everywhere, for as long as what was written is there. In a batch inside another, what is left out is the outer
        one's.

        Here it is visible at once, and stays, even if the block ends by an exception. Nothing leaves before the end of
        the block, so batches of threads wait for each other and take a second at most, and there is no `await` in one:
        raises `RuntimeError` at the end of a block that did, and at the beginning of another task's meanwhile.
        """
        door = self._running().door
        block = door.begin(make_note(author, note))
        try:
            yield
        except BaseException:
            door.end(block)  # what went wrong first is what is told
            raise
        if wrong := door.end(block):
            raise RuntimeError(wrong)

    # -- waiting ----------------------------------------------------------------------------------------------------

    async def sync(self, *, peers: Peers = "majority", durable: bool = False, timeout: float | None = None) -> None:
        """Waits until what was written here so far is held by so many peers.

        `peers` is a number, "majority" (of all members, this one included) or "all" that `members` shows now. With
        `durable` they have it on their disks, and so has this node if it has a `data_dir`; `peers=0` waits for that
        alone. Nothing that was acknowledged is lost while one of those lives, or has its directory. Without a
        `timeout` it waits as long as that takes. Raises `TimeoutError`, which names who is missing, and `StorageFailed`
        if there is no disk to wait for, or it refused; without a `timeout` also if too few of the others have one.
        """
        if (type(peers) is not int or peers < 0) and peers not in ("majority", "all"):
            raise ValueError(f"peers={peers!r} can not be: it is a number, 'majority' or 'all'")
        await self._in_its_loop(lambda runtime: runtime.waits.synced(peers, durable, timeout))

    @property
    def token(self) -> str:
        """What this node has written so far, as some 25 characters for a cookie or a header: see `wait_for`."""
        runtime = self._running()
        self._settled()  # not under the lock: a signal handler that interrupted its thread inside settles nothing
        with runtime.lock:
            return token.make(self.config.cluster, runtime.engine.replication.written)

    @property
    def seen(self) -> str:
        """All that is here now, whoever wrote it, as a token: longer by 12 characters for each who ever wrote."""
        runtime = self._running()
        self._settled()
        with runtime.lock:
            return token.make(self.config.cluster, self._store.context)

    async def wait_for(self, token_: str, /, *, timeout: float | None = None) -> None:
        """Waits until what a node had written (`token`) or seen (`seen`) is here: read your own writes on any worker.

        Raises `ValueError` for what is no token of this cluster, `TimeoutError` if it is not here in time.
        """
        wanted = token.parse(self.config.cluster, token_)
        await self._in_its_loop(lambda runtime: runtime.waits.delivered(wanted, timeout))

    async def snapshot(self, *, as_of: datetime | None = None) -> Snapshot:
        """What all share now, as a value that can be saved, compared, and put back by `restore`: no batch is in it by
        half. With `as_of`, what was here at that moment, as far as the log in `data_dir` reaches back.

        What is owned by a worker is not in it. Raises `SnapshotError` if the log does not reach so far, `StorageFailed`
        if there is none, and `ValueError` for a moment that can not be.
        """
        from gossip.restore import taken, taken_as_of  # here, since few programs take snapshots

        if as_of is None:
            return await self._in_its_loop(lambda runtime: taken(self, runtime))
        return await self._in_its_loop(lambda runtime: taken_as_of(self, runtime, as_of))

    async def restore(
        self,
        snapshot: Snapshot | str | Path,
        *,
        objects: Collection[str] | None = None,
        delete: bool = True,
        dry_run: bool = False,
        foreign: bool = False,
        progress: Progress | None = None,
    ) -> list[Difference]:
        """Goes back to a snapshot, or to one in a file, by ordinary writes; gives what was different, and is written.

        Of the named objects, or of all. What has come since is deleted, unless `delete` is False. What somebody writes
        meanwhile stays, and so does what is owned. With `dry_run` nothing is written. All members get it as they get
        any write, in steps of up to 1 000; `progress` is told how many of how many are done. Raises `SnapshotError`
        for a file that is no whole snapshot, or for one of another cluster that is not said to be `foreign`.
        """
        from gossip.restore import restored  # here, since few programs go back to one

        return await self._in_its_loop(
            lambda runtime: restored(self, runtime, snapshot, objects, delete, dry_run, foreign, progress)
        )

    async def _in_its_loop(self, wait: Callable[[Runtime], Coroutine[None, None, T]]) -> T:
        """A node that lives in a thread of its own can be waited for from any loop."""
        runtime = self._running()
        if runtime.elsewhere:
            import asyncio  # here, as `runtime` in `__init__`

            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(wait(runtime), runtime.loop))
        return await wait(runtime)

    @property
    def members(self) -> Roster:
        """The members of the cluster: `len`, `in`, iteration, `["name"]`, `.alive`, `.all`, `.where(role="web")`."""
        return self._roster

    def events(self) -> Events:
        """What happens to members and to this node, from now on: `async with node.events() as events:`, and then
        `async for event in events`."""
        return Events(self._listening.add, self._listening.discard, lambda: self._running().lock)

    @property
    def me(self) -> Member:
        """This node, as others see it."""
        return self._member(self._running().engine.me.instance)

    def tag(self, /, **tags: str | None) -> None:
        """Gives this node these tags, and takes away those that are None; the others stay.

        All members see it as they see each other: in `members.where(role="web")`, and as a `changed` event. Before the
        node starts, these are what it starts with. May be called from any thread, and by a signal handler. It is for
        what changes now and then: each change is told to everybody, with all tags. Raises `ConfigError` for what can
        not be a tag, and changes nothing then.

        >>> with Node("readme", tags={"role": "web"}) as node:
        ...     node.tag(draining="yes")
        ...     node.tag(role="batch", draining=None)
        ...     dict(node.me.tags)
        {'role': 'batch'}
        """
        runtime = self._runtime

        def tagged() -> Mapping[str, str]:
            wanted = {**self.config.tags, **tags}
            self.config = replace(self.config, tags={key: value for key, value in wanted.items() if value is not None})
            return self.config.tags

        if runtime is not None and runtime.running:
            runtime.restate(tagged)
        else:
            tagged()

    def status(self) -> dict[str, Any]:
        """What there is to know for debugging, as a plain dict that can be printed as JSON.

        May be asked by a signal handler. If that came into the middle of a step, the fingerprints of `digest` are None.
        """
        from gossip.status import status_of  # here, since a program asks when something is wrong

        return status_of(self)

    # -- used by the handles ----------------------------------------------------------------------------------------

    @property
    def _is_running(self) -> bool:
        return self._runtime is not None and self._runtime.running

    def _check_running(self) -> None:
        runtime = self._runtime
        if runtime is None or not runtime.running:  # in line, for it is a part of every read
            self._running()

    def _running(self) -> Runtime:
        runtime = self._runtime
        if runtime is not None and runtime.running:
            return runtime
        if runtime is not None and runtime.forked:
            raise NotRunning(FORKED)
        raise NotRunning(f"the node of cluster {self.config.cluster!r} is not running: {self._state}")

    def _visible(self, live: Live | None) -> Iterator[Link]:
        """The live writes of a key that a reader may see now."""
        return visible(live, at(time.time_ns() // 1_000_000), self._running().engine.members)

    def _elements(self, name: Object) -> list[tuple[bytes, Live]]:
        """The elements of an object that a reader may see now; the lock is held."""
        elements, mortal = self._store.elements(name), self._store.mortal.get(name)
        if not mortal:
            return list(elements.items())
        shown: list[tuple[bytes, Live | None]] = [
            (key, next(self._visible(live), None) if key in mortal else live) for key, live in elements.items()
        ]
        return [(key, live) for key, live in shown if live is not None]

    def _count(self, name: Object) -> int:
        """How many elements of an object a reader may see now."""
        runtime = self._running()
        self._settled()
        if not self._store.mortal.get(name):
            return len(self._store.elements(name))
        with runtime.lock:  # which does not keep out who starts this node anew
            elements, mortal = self._store.elements(name), list(self._store.mortal.get(name, ()))
            there = [live for key in mortal if (live := elements.get(key)) is not None]
            return max(0, len(elements) - sum(next(self._visible(live), None) is None for live in there))

    def _settled(self) -> Store:
        """The store with all that was written so far: for whoever reads more than one key."""
        return self._running().settled() if self._drafts else self._store

    def _put(self, key: Key, value: bytes, expires: int) -> None:
        runtime = self._runtime
        if runtime is None or not runtime.running:
            runtime = self._running()
        runtime.door.do(runtime.writing.put, (key, value, expires))

    def _put_all(self, writes: Sequence[tuple[Key, bytes]]) -> None:
        runtime = self._running()
        runtime.door.do(runtime.writing.put_all, writes)

    def _write(self, ask: Callable[..., Write | None], *arguments: object) -> bool:
        runtime = self._runtime
        if runtime is None or not runtime.running:
            runtime = self._running()
        return runtime.door.do(runtime.writing.write, partial(ask, *arguments))

    def _watch(self, sources: Sequence[Source], snapshot: bool, resume: str | None) -> Watch[Any, Any]:
        cursor = None if resume is None else Cursor(*token.parse_cursor(self.config.cluster, resume))
        return Watch(self._watches, sources, self.config.watch_keys, snapshot, cursor)

    # -- told by the runtime ----------------------------------------------------------------------------------------

    def _member_changed(self, effect: MemberChanged) -> None:
        self._verdicts.add(effect, time.time())
        table = self._running().engine.members.table
        if len(self._verdicts) > 2 * len(table):
            self._verdicts.forget(table)
        own = effect.claim.instance == self._running().engine.me.instance
        for kind, why in told_of(effect):
            if not own or kind == "changed":
                self._happened(kind, effect.claim.instance, why)

    def _happened(self, kind: EventKind, instance: int, why: str) -> None:
        if self._listening:
            known = instance in self._running().engine.members.table
            event = Event(kind, self._member(instance) if known else None, why, datetime.now(UTC))
            for listener in self._listening:
                listener._tell(event)

    def _look(self) -> list[Member]:
        runtime = self._running()
        with runtime.lock:
            engine = runtime.engine
            known = [instance for instance in engine.members.table if instance not in engine.membership.hearsay]
            return [self._member(instance) for instance in known]

    def _member(self, instance: int) -> Member:
        engine = self._running().engine
        last = (self._verdicts.of(instance) or (Verdict(time.time(), "alive", "this node itself"),))[-1]
        return member_of(
            engine.members.table[instance], last.at, last.evidence, engine.membership.detector.rtt.get(instance)
        )

    def __repr__(self) -> str:
        count = len(self.members) if self._is_running else 0
        living = "not running" if not count else "alone" if count == 1 else f"{count} members"
        return f"<Node of cluster {self.config.cluster!r}: {living}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Node can not be pickled: it lives in its process. Make one in the other process too")


def _source_of(handle: Any) -> Source:
    if not isinstance(handle, Map | Set | Counter | Register):
        raise TypeError(f"maps, sets, counters and registers of a node can be watched, not {type(handle).__name__}")
    return handle._source()


FORKED = (
    "this process was forked from the one in which the node runs, and has no share in its place: "
    "make and start a Node here"
)
