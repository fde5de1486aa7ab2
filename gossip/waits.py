"""How does a program wait for what it needs: that others hold what it wrote, or that what somebody wrote is here?

Reads and writes never wait. Here is what may: `synced` asks peers, again and again, and counts who confirms;
`delivered` looks at each delivery whether the context has come as far as a token says.

Invariant: a wait ends by what it waited for, by its time (and says who is missing), or when the node leaves.
Not here: the questions and answers themselves (`protocol.confirm`), tokens as text (`token`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from crdt import Context
from gossip.errors import NotRunning, StorageFailed

if TYPE_CHECKING:
    from gossip.runtime import Runtime

Peers: TypeAlias = int | Literal["majority", "all"]

_LOOK = 0.005
"""Seconds between two looks whether an open batch has ended."""
_AGAIN = 0.5
"""Seconds until peers that have not confirmed are asked again: a question may be lost, as all else."""
_IN_MEMORY = " (in memory alone: it has no data_dir, or its disk refused)"


class Waits:
    """All that a running node's program waits for just now."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._tokens: dict[asyncio.Future[None], Context] = {}
        self._answers: dict[int, dict[int, bool]] = {}
        """By question, who has confirmed, and whether durably."""
        self._news = asyncio.Condition()
        self._over = False

    # -- told by the runtime ----------------------------------------------------------------------------------------

    def moved(self) -> None:
        """The context has moved on."""
        if not self._tokens:
            return
        context = self._runtime.store.context
        for future, wanted in list(self._tokens.items()):
            if context.dominates(wanted) and not future.done():
                future.set_result(None)

    def confirmed(self, number: int, peer: int, durable: bool) -> None:
        """A peer has answered."""
        answers = self._answers.get(number)
        if answers is not None:
            answers[peer] = answers.get(peer, False) or durable
            self._wake()

    def end(self) -> None:
        """The node leaves: nothing that is waited for will come."""
        self._over = True
        for future in self._tokens:
            if not future.done():
                future.set_exception(NotRunning("the node has left: what was waited for will not come"))
        self._wake()

    def _wake(self) -> None:
        async def wake() -> None:
            async with self._news:
                self._news.notify_all()

        if self._answers:
            self._runtime.spawn(wake())

    # -- what a program does ----------------------------------------------------------------------------------------

    async def delivered(self, wanted: Context, timeout: float | None) -> None:
        """Waits until all of this is here. Raises `TimeoutError`."""
        if self._runtime.settled().context.dominates(wanted):
            return
        future = asyncio.get_running_loop().create_future()
        self._tokens[future] = wanted
        try:
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            raise TimeoutError(self._missing_of(wanted, timeout)) from None
        finally:
            del self._tokens[future]

    def _missing_of(self, wanted: Context, timeout: float | None) -> str:
        context = self._runtime.store.context
        missing = [
            f"{self._runtime.name_of(replica)} (written {sequence}, here {context[replica]})"
            for replica, sequence in wanted.items()
            if sequence > context[replica]
        ]
        return f"not here after {timeout:g} s: what was written by {', '.join(sorted(missing))}"

    async def synced(self, peers: Peers, durable: bool, timeout: float | None) -> None:
        """Waits until so many peers hold all that was written here so far. Raises `TimeoutError`."""
        membership = self._runtime.engine.membership
        with self._runtime.lock:
            self._runtime.writing.settle()
            wanted = self._runtime.engine.replication.written
        # as a program is shown them: of whom others only told, nobody may be there, and `all` would wait for the buried
        asked = [peer for peer in membership.members.peers() if peer not in membership.hearsay]
        enough = self._enough(peers, asked, durable and not self._runtime.keeping.has_disk)
        number = self._runtime.ask_sync((), wanted, durable)
        answers = self._answers[number] = {}
        try:
            async with asyncio.timeout(timeout):
                if durable:
                    await self._on_own_disk(wanted, enough(set()))
                while not enough(self._held(answers, durable)):
                    self._check()
                    if durable and timeout is None:
                        self._see_a_disk(answers, peers)
                    held = self._held(answers, durable)
                    silent = [peer for peer in self._runtime.engine.members.peers() if peer not in held]
                    self._runtime.ask_sync(silent, wanted, durable, number)
                    await self._answer()
        except TimeoutError:
            raise TimeoutError(self._unconfirmed(answers, asked, peers, durable, timeout)) from None
        finally:
            del self._answers[number]

    async def holders(self, wanted: Context, seconds: float) -> tuple[list[int], list[int]]:
        """Which peers say within so many seconds that they hold this, and which say nothing."""
        peers = self._runtime.engine.members.peers()
        number = self._runtime.ask_sync(peers, wanted, durable=False)
        answers = self._answers[number] = {}
        try:
            async with asyncio.timeout(seconds):
                while len(answers) < len(peers):
                    self._check()
                    await self._answer()
        except TimeoutError:
            pass
        finally:
            del self._answers[number]
        return [peer for peer in peers if peer in answers], [peer for peer in peers if peer not in answers]

    async def _answer(self) -> None:
        """Returns at the next answer, or when it is time to ask again."""
        try:
            async with asyncio.timeout(_AGAIN), self._news:
                await self._news.wait()
        except TimeoutError:
            pass

    def _check(self) -> None:
        if self._over:
            raise NotRunning("the node has left: nobody will confirm any more")

    async def _on_own_disk(self, wanted: Context, alone: bool) -> None:
        """Waits for the own disk, if there is one; `alone` says that nobody else is to be waited for."""
        keeping, replication = self._runtime.keeping, self._runtime.engine.replication
        replica = replication.replica
        while replication.replica == replica and replication.flushed < wanted[replica]:
            self._check()
            await asyncio.sleep(_LOOK)  # until a batch that is open has ended: before, none of it is handed over
        hard = await keeping.hard()
        self._check()
        if not hard and (alone or keeping.failed):
            raise StorageFailed(
                keeping.failed or "this node has no data_dir, so nothing of it is durable: give one, or wait for peers"
            )

    def _see_a_disk(self, answers: dict[int, bool], peers: Peers) -> None:
        """Raises `StorageFailed` if all have answered, and some have no disk: without a timeout it waits for ever."""
        members = self._runtime.engine.members.peers()
        here = self._runtime.keeping.has_disk or peers != "majority"  # a number is of others, who may still come
        diskless = [self._runtime.name_of(peer) for peer in members if not answers.get(peer, True)]
        if all(peer in answers for peer in members) and (diskless or not here):
            names = ", ".join(sorted(diskless) if here else ["this node", *sorted(diskless)])
            raise StorageFailed(
                f"too few have a disk for sync(peers={peers!r}, durable=True): {names} can hold it in memory alone, "
                "for want of a data_dir, or since the disk refused. Give them one, or ask for fewer, or give a timeout "
                "and wait for others to come"
            )

    def _held(self, answers: dict[int, bool], durable: bool) -> set[int]:
        """Who has confirmed and is still a member: one that has gone since has its data no more, or a new instance."""
        members = self._runtime.engine.members
        return {peer for peer, on_disk in answers.items() if (on_disk or not durable) and peer in members}

    def _enough(self, peers: Peers, asked: Sequence[int], diskless: bool) -> Callable[[set[int]], bool]:
        """Whether those who have confirmed are as many as were asked for. A node without a disk is none of a durable
        majority."""
        if peers == "all":  # of those that are there now; who goes meanwhile is not waited for
            return lambda held: all(peer in held or peer not in self._runtime.engine.members for peer in asked)
        if peers == "majority":
            return lambda held: len(held) >= (len(asked) + 1) // 2 + diskless
        return lambda held: len(held) >= peers

    def _unconfirmed(
        self, answers: dict[int, bool], asked: Sequence[int], peers: Peers, durable: bool, timeout: float | None
    ) -> str:
        held = self._held(answers, durable)
        silent = sorted(
            self._runtime.name_of(peer) + (_IN_MEMORY if durable and peer in answers else "")
            for peer in asked
            if peer not in held
        )
        how = " on disk" if durable else ""
        missing = f"missing: {', '.join(silent)}" if silent else "there are no more members"
        return f"after {timeout:g} s {len(held)} peers hold it{how}, and {peers} were asked for; {missing}"
