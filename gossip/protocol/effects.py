"""What does the engine want done?

Values, in the order in which they are to be done. Whoever drives the engine (the runtime, or the simulated world of the
tests) does them; the engine itself does nothing.
"""

# Annotations are no texts here: of each field of a named tuple a text is compiled, a third of what it costs.
from typing import Literal, NamedTuple, TypeAlias

from crdt import Change, Key
from gossip.protocol.members import Claim
from gossip.protocol.messages import Message


class Send(NamedTuple):
    """Send a message to members, by instance. Best effort: what is lost is repaired.

    With `stream` never as a datagram: a probe that found no way takes the other one. With `both` by each way that there
    is: where there are datagrams, a stream in the kernel's backoff would have a witness be late.
    """

    to: tuple[int, ...]
    message: Message
    stream: bool = False
    both: bool = False


class Dial(NamedTuple):
    """Send a message to an address of which nothing else is known."""

    address: str
    message: Message


class Changed(NamedTuple):
    """Keys changed, all in one step: nobody may see a part of it."""

    changes: tuple[Change, ...]


class Persist(NamedTuple):
    """Keep a step: batches that were delivered at once, or (`state`) the parts of a peer's state that was merged.

    `own` is how many own batches were handed over up to this one, 0 if none is in it.
    """

    payloads: tuple[bytes, ...]
    own: int = 0
    state: bool = False


class Rewrite(NamedTuple):
    """What is kept has to be written anew from the store: the steps that were kept do not lead to what it holds."""


class Confirmed(NamedTuple):
    """A peer holds what was asked for under this number; `durable` if its disk does."""

    number: int
    peer: int
    durable: bool


class Harden(NamedTuple):
    """A peer waits until what was delivered here so far is on the disk: call `hardened` then, or if there is none."""

    peer: int
    number: int


class Appeared(NamedTuple):
    """These keys have not changed, but may be visible from now on: a member was heard of that owns something there."""

    keys: tuple[Key, ...]


class MemberChanged(NamedTuple):
    """What is said of a member changed. `before` is None if it was not shown; `why` is a sentence for people.

    Of whom only others told so far (not `heard`) the engine keeps it to itself.
    """

    claim: Claim
    before: Claim | None
    why: str
    heard: bool = True


class Reborn(NamedTuple):
    """The node was declared dead, so it goes on as a new instance. Its data stays."""

    claim: Claim


class Ready(NamedTuple):
    """What a peer had when we joined is here."""


class Warned(NamedTuple):
    """Something that an operator should know; `peer` is who it is about.

    `repaired`: something was taken back from a peer with which states differed.
    """

    kind: Literal["skewed", "diverged", "repaired"]
    peer: int
    message: str


Effect: TypeAlias = (
    Send | Dial | Changed | Persist | Rewrite | Confirmed | Harden | Appeared | MemberChanged | Reborn | Ready | Warned
)
