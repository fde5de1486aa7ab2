"""How does the engine, which has no world in it, live in one?

This is the only place where the engine meets asyncio: it hands packets and time in, and does the effects that come
out. The loop is the program's own; nothing here makes one, sets a policy or starts a thread.

Reads and writes may come from any thread. One lock guards the engine; it is held for microseconds, never over an await.
A write from the loop's own thread leaves at the end of the same turn; one from another thread wakes the loop first.

Invariants: effects are done in their order; after `stop` or a fork nothing is sent, and no socket or file is left.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from math import inf
from random import Random
from typing import Any, ParamSpec

from crdt import Change, Context, Store
from discovery import Place
from gossip import forks
from gossip.config import Config
from gossip.door import Door
from gossip.drafts import Drafts
from gossip.endings import Endings
from gossip.errors import NotRunning
from gossip.events import EventKind
from gossip.identity import SECRET, KeyPair
from gossip.keeping import Keeping
from gossip.keyring import Keyring
from gossip.protocol.codec import MAX_NAME
from gossip.protocol.effects import (
    Appeared,
    Changed,
    Confirmed,
    Dial,
    Effect,
    Harden,
    MemberChanged,
    Persist,
    Ready,
    Reborn,
    Rewrite,
    Send,
    Warned,
)
from gossip.protocol.engine import Engine
from gossip.protocol.identity import Unproved
from gossip.protocol.log import Log
from gossip.protocol.members import Claim
from gossip.protocol.messages import Ack, Ping
from gossip.pulse import LOST, Pulse
from gossip.seal import Seal
from gossip.search import Search
from gossip.transport import Transport
from gossip.waits import Waits
from gossip.whereabouts import Whereabouts
from gossip.writing import Writing

log = logging.getLogger("gossip")
P = ParamSpec("P")

_BLOCK_LOOK = 0.005
"""Seconds between two looks whether the batch of a thread has ended, when the node leaves."""
_LAST_WORDS = 0.25
"""Seconds that a leave gives to a disk, out of the second that it may take."""


class Runtime:
    """One running node: engine, sockets, timer and the search for others.

    `changed` is called with the changes of each visible step, under the lock; `batch_began` when a batch of this
    process is open, and `batch_ended` when none is any more; `member_changed` with news of members, and `happened` with
    what else there is to tell, and of whom; `leave` if the loop is about to end while the node still runs, `settled`
    when this node has a place on its host. `zeroconf` is for the search.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        drafts: Drafts,
        changed: Callable[[tuple[Change, ...]], None],
        batch_began: Callable[[], None],
        batch_ended: Callable[[], None],
        member_changed: Callable[[MemberChanged], None],
        happened: Callable[[EventKind, int, str], None],
        leave: Callable[[], Coroutine[None, None, None]],
        settled: Callable[[Place], Coroutine[None, None, None]],
        zeroconf: Any = None,
    ) -> None:
        self.config = config
        self.running = False
        self.forked = False
        self.over = False
        """Whether it has left, and everything is closed."""
        self._store = store
        self.writing = Writing(self, store, drafts)
        self._changed = changed
        self._batch_began, self._batch_ended = batch_began, batch_ended
        self._member_changed = member_changed
        self._happened = happened
        self.leave = leave
        self._settled = settled
        self._whereabouts: Whereabouts | None = None
        self.keeping = Keeping(config, self._stored, lambda: self.engine.stamp(_wall()), self._refused, self._wanted)
        self.waits = Waits(self)
        self._tasks: set[asyncio.Task[None]] = set()
        self._hardening: set[tuple[int, int]] = set()
        """Questions of peers that wait for the disk."""
        self._endings = Endings(self)
        self.keyring = Keyring(config.key)
        """The keys of the cluster: what `config` had, and what was changed since."""
        self._schedule_asked = -inf
        """Since when the end of the turn is to look at deadlines."""
        self._warned = False
        self._search = Search(self, zeroconf)
        self._instance = 0
        """In whose name packets leave: what the engine wanted before it went on as another one leaves in the old."""

    # -- starting and stopping --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Opens what the configuration asks for, joins whom it finds, and waits for their state, bounded by
        `join_timeout`. Raises `StartError`, and leaves nothing behind then."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._pulse = Pulse(self._loop, self._tick)
        self.door = self._door()
        config = self.config
        identity = (
            KeyPair(config.cluster, secrets.token_bytes(SECRET)) if self.keyring else Unproved(_random_instance())
        )
        self._instance = identity.instance
        self.transport = Transport(
            self._receive, self._lost, config.send_buffer, config.max_connections, lags=self._lags,
            silence=config.connect_timeout, patience=config.connect_timeout,
            met=self._endings.met, strange=self._warn_of_stranger,
            seal=Seal(self.keyring, config.cluster, secrets.token_bytes(16)) if self.keyring else None,
            identity=identity,
        )  # fmt: skip
        forks.enter(self)
        try:
            recent = Log(config.log_bytes)
            newest = await self.keeping.open(self._store, recent)
            self._whereabouts = Whereabouts(config, self.transport, identity.instance)
            addresses = await self.whereabouts.listen()
            name = config.name or _default_name()
            started = _wall()
            claim = Claim(identity.instance, name[:MAX_NAME], addresses, started, tuple(sorted(config.tags.items())))
            self.engine = Engine(
                config.cluster, claim, config, Random(secrets.randbits(64)), self._store, recent, identity
            )
            self.engine.replication.remember(newest, started)
            self.running = True
            await self._search.join()
            self._search.warn_of_silence()
        except BaseException:
            await (self.stop() if self.running else self._close())
            raise
        if self.running:  # nobody told us to leave meanwhile
            self._search.go_on()

    def _door(self) -> Door:
        return Door(self._loop, self.check_loop, self.writing.settle, self._transaction)

    @property
    def lock(self) -> threading.RLock:
        """Held by whoever looks at more than one thing at once."""
        return self.door.lock

    @property
    def whereabouts(self) -> Whereabouts:
        """Where it listens, and what it says of that."""
        assert self._whereabouts is not None
        return self._whereabouts

    async def check_place(self) -> None:
        """Sees to it that others of this host find this node."""
        if await self.whereabouts.restore(self.engine.me.name):
            await self._settled(self.whereabouts.place)

    def check_address(self) -> None:
        """Says where this node is, if that has changed."""
        addresses = self.whereabouts.moved(self.engine.me.name, self.engine.me.addresses) if self.running else None
        if addresses is not None:
            with self.lock:
                self._do(self.engine.moved, addresses, _wall())
            self._announce()

    def join(self, candidates: list[str]) -> None:
        """Introduces this node to whoever is at these addresses."""
        with self.lock:
            self._do(self.engine.join, candidates, self.now())
            self._schedule()  # if nobody answers, nothing else does

    async def stop(self, deadline: float | None = None) -> None:
        """Leaves: says so, hands over what was not sent yet (until `deadline`, a time of the loop, or for
        `leave_timeout`), closes everything."""
        if not self.running:
            return
        deadline = deadline or self.now() + self.config.leave_timeout
        self._search.hush()
        try:
            with self.lock:
                self._do(self.engine.flush)
            while not self.engine.replication.exposable and self.now() < deadline - self.config.leave_timeout / 2:
                await asyncio.sleep(_BLOCK_LOOK)  # own writes that must be on the disk before they leave
            while self.door.others and self.now() < deadline - self.config.leave_timeout / 2:
                await asyncio.sleep(_BLOCK_LOOK)  # what the loop wrote beside it is a part of it
            with self.lock:
                self._do(self.engine.leave, self.now())
                self.running = False  # who writes from here on must be told: it would leave after the goodbye
            self.door.wake()
            async with asyncio.timeout_at(deadline):
                await self.transport.drain()
        except TimeoutError:
            log.warning("left without handing over everything: a peer took too long")
        finally:
            await self._close()

    async def _close(self) -> None:
        self.running = False
        forks.leave(self)
        search = self._search.cancel()
        self._pulse.stop()
        if self._whereabouts is not None:
            self._endings.close()
            self.whereabouts.neighbours.release()
        self.waits.end()
        for task in list(self._tasks):
            task.cancel()
        try:  # each is done even if another is cancelled: the directory would stay locked as long as the process lives
            await self.transport.close()
        finally:
            try:
                await self.keeping.close(_LAST_WORDS)
            finally:
                self.over = True
                await asyncio.gather(*search, return_exceptions=True)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where it lives."""
        return self._loop

    @property
    def elsewhere(self) -> bool:
        """Whether it lives in an event loop that is not the one of the caller."""
        return not self._loop.is_closed() and self._loop is not asyncio.get_running_loop()

    def abandon(self) -> None:
        """In a forked child: lets go of all that is the parent's, without a word to anybody."""
        self.running = False
        self.forked = True
        self.door = self._door()  # whoever was inside does not exist here
        forks.let_go([*self.transport.descriptors(), *self._search.descriptors()])
        if self._whereabouts is not None:
            self.whereabouts.neighbours.abandon()

    # -- what the program does --------------------------------------------------------------------------------------

    def restate(self, tags: Callable[[], Mapping[str, str]]) -> None:
        """Has this node have these tags from now on: they are asked for while nobody else changes them."""
        self.door.do(self._restate, tags)

    def _restate(self, tags: Callable[[], Mapping[str, str]]) -> bool:
        self.check_loop()
        self.perform(self.engine.retagged(tuple(sorted(tags().items()))))
        self.soon(self._announce)
        return True

    def _announce(self) -> None:
        with self.lock:
            if self.running:
                self._do(self.engine.news)
                self._schedule()

    def _transaction(self, open_: bool) -> None:
        """Has the engine's transaction be open, or not: whatever of this was cut short before is done now."""
        if not self.running or self._loop.is_closed():
            return
        if open_:
            if not self.engine.open:
                self.engine.begin()
            self._batch_began()
            return
        self.writing.settle()
        if self.engine.open:
            self.engine.end()
        self.writing.flush_soon()
        self._batch_ended()

    def _do(self, step: Callable[..., list[Effect]], *arguments: Any, stream: bool = False) -> None:
        """Has the engine take a step, and does what comes of it.

        What a signal handler raises in the middle may have lost what the disk was to keep: nothing that follows may be
        there without it.
        """
        try:
            self.writing.settle()
            self.perform(step(*arguments), stream)
        except BaseException:
            if self.keeping.lost():
                self.soon(self.flush)  # which takes the state that covers it: one alone has no timer
            raise

    def check_loop(self) -> None:
        """Raises `NotRunning` if what is written now would reach nobody."""
        if not self.running:
            raise NotRunning("the node has just left: what is written now would reach nobody")
        if self._loop.is_closed():
            raise NotRunning(
                "the event loop in which the node runs was closed under it: leave before the loop ends "
                "(`async with node:` does)"
            )

    def soon(self, call: Callable[[], None]) -> None:
        """Has this done at the end of the loop's turn, whoever asks."""
        if threading.get_ident() == self._thread and asyncio.current_task(self._loop) is not None:
            self._loop.call_soon(call)  # in the middle of a turn
        else:  # also of its own thread: a signal handler may run there while the loop waits, and nothing would wake it
            self._loop.call_soon_threadsafe(call)

    # -- what the world does ----------------------------------------------------------------------------------------

    def flush(self) -> None:
        """The turn is over: what was written in it leaves."""
        with self.door.lock:
            self.writing.flush_due = False
            if self.running:
                self._do(self.engine.flush)
                self._compact()
                if self._store.mortal:  # or nothing that was written can end before the next tick: 2 us of 28
                    self._schedule()

    def _stored(self, own: int) -> None:
        """So many own batches are kept."""
        if self.config.durability == "full" and not self.over:
            with self.lock:
                self._do(self.engine.stored, own)

    def _wanted(self) -> None:
        if self.running:
            self.soon(self.flush)

    def _refused(self, why: str) -> None:
        if self.running:
            self._happened("storage_failed", self.engine.me.instance, why)

    def _lags(self, peer: int, behind: bool) -> None:
        """A peer takes less than is sent to it, or all of it again."""
        if not self.running:
            return
        with self.lock:
            self._do(self.engine.lags, peer, behind)
        if behind:
            self.engine.counters["lagging"] += 1
            mib = self.config.send_buffer / (1 << 20)
            self._happened("lagging", peer, f"{mib:.3g} MiB wait for it: what follows it will have to ask for")
        else:
            self._happened("caught_up", peer, "nothing waits for it any more")

    async def _harden(self, peer: int, number: int) -> None:
        """A peer wants to know when what is here is on the disk."""
        try:
            durable = await self.keeping.hard()
        finally:
            self._hardening.discard((peer, number))
        if self.running:
            with self.lock:
                self._do(self.engine.hardened, peer, number, durable)

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Does something beside, until the node leaves."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def ask_sync(self, peers: Sequence[int], wanted: Context, durable: bool, number: int = 0) -> int:
        """Asks peers whether they hold this; gives the number of the question."""
        with self.lock:
            self.writing.settle()
            number, effects = self.engine.sync(peers, wanted, durable, number)
            self.perform(effects)
        return number

    def name_of(self, instance: int) -> str:
        """The name of a member, for people; of one that is forgotten its number."""
        claim = self.engine.members.table.get(instance)
        return f"{instance:016x}" if claim is None else claim.name

    @property
    def store(self) -> Store:
        """What this node holds, without what is a draft."""
        return self._store

    def settled(self) -> Store:
        """The same with all that was written so far; but not to whoever is inside already."""
        if self.writing.drafts and not self.door.inside():
            with self.lock:
                self.writing.settle()
        return self._store

    def _compact(self) -> None:
        if self.engine.replication.settled:
            self.keeping.compact(self._store.state, self.engine.replication.handed)

    def _receive(self, packet: bytes, stream: bool, peer: int | None, ago: float | None) -> bool:
        """Takes a packet, of the instance `peer` if that is proved; says whether it was one of this cluster.

        A ping that took a stream is answered by one: who chose it may get no datagram.
        """
        if not self.running:
            return True  # nothing is read any more, so nobody is judged
        if ago is None and not self._pulse.late:
            ago = 0.0
        with self.door.lock:
            malformed = self.engine.counters.get("malformed")
            now = time.monotonic()
            self._do(self.engine.receive, packet, now, _wall(), peer, ago, stream=stream)
            self._schedule_soon(now)
            if self.engine.counters.get("malformed") == malformed:
                return True
            self._warn_of_stranger()
            return False

    def _warn_of_stranger(self) -> None:
        """Once: whoever may send at all could fill the log."""
        if self.running and not self._warned:
            self._warned = True
            log.warning(
                "a packet came to node %r that is none of cluster %r: its sender has another key, or one of the two "
                "has none; or another version or cluster. It was dropped, like all that follow: see the counters "
                "'unsealed' and 'malformed' in its status", self.engine.me.name, self.config.cluster,
            )  # fmt: skip

    def _lost(self, peer: int) -> None:
        if not self.running:
            return
        with self.lock:
            self._do(self.engine.lost, peer, self.now())
            self._schedule()
        self._endings.lost(peer)

    def watching(self, peer: int) -> None:
        """The process of this member is watched from here on: it exists."""
        with self.lock:
            self._do(self.engine.watching, peer, self.now())
            self._schedule()

    def greet(self, peer: int) -> None:
        """Opens a stream to this member, if there is none, by saying who we are."""
        with self.lock:
            self._do(self.engine.greet, peer)

    def exited(self, peer: int) -> None:
        """It is proved that the process of this member has ended."""
        if self.running:
            with self.lock:
                self._do(self.engine.exited, peer, self.now())
                self._schedule()

    def _tick(self) -> None:
        if not self.running:
            return
        self.transport.catch_up()  # what has come may be what somebody is judged by
        with self.lock:
            self._do(self.engine.tick, self.now(), _wall())
            self.writing.flush_due = False  # all has left; if the call for that was lost, the next write asks anew
            self.keeping.catch_up()
            self._compact()
            self._schedule()
        if self.engine.members.doubtful:  # it may be we whom nobody reaches
            self.check_address()

    def _schedule(self) -> None:
        with self.lock:
            self._schedule_asked = -inf
            if self.running:
                self._pulse.follow(self.engine)

    def _schedule_soon(self, now: float) -> None:
        """After those whom what came has woken, and once for all of a turn: all deadlines take 45 us from rest."""
        if now - self._schedule_asked > LOST:
            self._loop.call_soon(self._schedule)
            self._schedule_asked = now  # last, as in `Writing.flush_soon`

    def now(self) -> float:
        """Not the time of the loop: that of uvloop stands still during a turn, however long somebody takes in it."""
        return time.monotonic()

    # -- effects ----------------------------------------------------------------------------------------------------

    def perform(self, effects: list[Effect], stream: bool = False) -> None:
        """Does what the engine wants done."""
        for effect in effects:
            match effect:
                case Changed():
                    self._changed(effect.changes)
                case Persist():
                    self.keeping.keep(effect)
                    self.waits.moved()
                case Send():
                    probe = isinstance(effect.message, _PROBES) and not effect.stream
                    answers_stream = probe and stream and isinstance(effect.message, Ack)
                    self._send(effect, effect.both or (probe and not answers_stream))
                case Rewrite():
                    self.keeping.rewrite()
                case Confirmed(number, peer, durable):
                    self.waits.confirmed(number, peer, durable)
                case Harden(peer, number):
                    if (peer, number) not in self._hardening:  # it asks again and again
                        self._hardening.add((peer, number))
                        self.spawn(self._harden(peer, number))
                case Appeared(keys):
                    self._changed(tuple((key, None, self._store.shown(key)) for key in keys))
                case Dial(address, message):
                    self.transport.dial(address, self._encoded(effect))
                case MemberChanged(claim):
                    self._member_changed(effect)
                    self._follow(claim)
                case Reborn(claim):
                    self._instance = claim.instance
                    self.transport.reborn(self.engine.membership.identity)
                    self._member_changed(MemberChanged(claim, None, "this node itself, anew: others declared it dead"))
                    self._happened("reborn", claim.instance, "others declared this node dead, and it goes on anew")
                    log.warning(
                        "node %r of cluster %r was declared dead by others; it goes on as %016x, with its data",
                        claim.name, self.config.cluster, claim.instance,
                    )  # fmt: skip
                case Ready():
                    self._search.ready.set()
                    self._happened("ready", self.engine.me.instance, "what the others share is here")
                case Warned(kind, peer, message):
                    self._happened(kind, peer, message)
                    log.warning(
                        "node %r of cluster %r: %s: %s", self.engine.me.name, self.config.cluster, kind, message
                    )

    def _follow(self, claim: Claim) -> None:
        """Keeps what is open for members in step with who is one."""
        if claim.gone:
            self.transport.forget(claim.instance)
            self._endings.gone(claim.instance)
        elif claim.instance != self.engine.me.instance:
            self._endings.heard(claim)

    def _send(self, effect: Send, datagram: bool) -> None:
        packet = self._encoded(effect)
        for peer in effect.to:
            claim = self.engine.members.table.get(peer)
            if claim is None:
                continue
            if claim.gone and claim.addresses:  # it is told that it is; no stream is kept to it
                self.transport.dial(claim.addresses[-1], packet)
            else:
                self.transport.send(peer, claim.addresses, packet, datagram, effect.both)

    def _encoded(self, effect: Send | Dial) -> bytes:
        return self.engine.codec.encode(self._instance, effect.message)


def _random_instance() -> int:
    return secrets.randbits(64) | 1


def _default_name() -> str:
    """The host and the process; a second node of one process gets a number as well."""
    number = next(_numbers)
    name = f"{socket.gethostname()}-{os.getpid()}"
    return name if number == 1 else f"{name}-{number}"


def _wall() -> int:
    return time.time_ns() // 1_000_000


_PROBES = (Ping, Ack)
_numbers = itertools.count(1)
