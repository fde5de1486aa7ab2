"""Who holds what was written here, and who wants to know what we hold?

    author                         peer
       |--- Sync(4, context) -------->|     do you have all of this?
       |<-- Synced(4, durable) -------|     as soon as that is so; a second time if it is on the disk later

Writes are on their way already; this only asks. Nothing is promised by silence, so whoever asks does so again now and
then, and names in the end who has not answered.

Invariant: a confirmation is given only for what was delivered here, in full (and `durable` only for what the disk has);
what is kept in mind of others' questions is bounded, the oldest go.
Not here: how long anybody waits, and how many are enough (`gossip.node`).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from crdt import Context
from gossip.protocol.effects import Effect, Harden, Send
from gossip.protocol.messages import Synced

_MOST = 4096
"""Questions of others that wait for an answer: each some 200 bytes."""


class Question(NamedTuple):
    """What a peer wants to know: whether `context` was delivered here, or is on the disk here."""

    peer: int
    number: int
    context: Context
    durable: bool


class Confirm:
    """The questions of others that can not be answered yet, and the numbers of our own.

    Those begin at `start`, which is drawn by chance: an answer to somebody who listened at our address before is none
    to us.
    """

    def __init__(self, start: int) -> None:
        self.number = start
        self.waiting: OrderedDict[tuple[int, int], Question] = OrderedDict()

    def ask(self) -> int:
        """The number of a new question of ours."""
        self.number += 1
        return self.number

    def asked(self, question: Question) -> None:
        """A peer asks."""
        self.waiting[question.peer, question.number] = question
        self.waiting.move_to_end((question.peer, question.number))
        if len(self.waiting) > _MOST:
            self.waiting.popitem(last=False)

    def answers(self, context: Context) -> list[Effect]:
        """What is done about the questions to which the answer is yes by now; they are forgotten."""
        ready = [question for question in self.waiting.values() if context.dominates(question.context)]
        effects: list[Effect] = []
        for peer, number, _, durable in ready:
            del self.waiting[peer, number]
            effects.append(Harden(peer, number) if durable else Send((peer,), Synced(number, False)))
        return effects

    def gone(self, peer: int) -> None:
        """Forgets what a peer wanted to know."""
        for key in [key for key in self.waiting if key[0] == peer]:
            del self.waiting[key]
