"""What do nodes say to each other?

Every message is a frozen value. The three conversations:

    joining     newcomer                    anyone           a cluster's door: both learn all that the other knows
                   |---- Join(claims) ------->|
                   |<--- Welcome(claims) -----|

    probing     prober          witness     target           who answers lives; who is asked passes claims on
                   |---- Ping(1) ------------>|
                   |<--- Ack(1) --------------|
                   |- PingReq(2, target) ->|  |              no ack in time: others try
                   |                       |- Ping(7) ->|
                   |                       |<- Ack(7) --|
                   |<------ Ack(2) --------|                         or, if it does not answer the witness either:
                   |<------ Nack(2) -------|                         "you are heard, and it is not"

    writing     author                       peer
                   |---- Push(batches) ------>|              at the end of the turn in which they were made
                   |<--- Pull(3, context) ----|              a gap, or contexts that stay different
                   |---- Push(.., 3, 1 of 1)->|              from the log, or
                   |---- StatePart(0, ...) -->|              the full state, a part at a time, or what differs of it, or
                   |---- Busy ---------------->|             "ask somebody else"
                   |<--- StateNext(1) --------|
                   |---- StatePart(1, last) ->|              committed in one step

    differing      behind                     ahead          what is sent of a state follows the difference
                   |<--- Sums(0, groups) -----|
                   |---- StateNext(1, wanted)>|
                   |<--- Sums(1, ranges) -----|
                   |---- StateNext(2, wanted)>|
                   |<--- StatePart(2, ...) ---|              as above

A `Digest` rides on pings and acks: agreement is noticed without a message of its own.
Not here: bytes and bounds (`codec`), who sends what when (`engine`, `membership`, `recovery`).
"""

# Annotations are no texts here: of each field of a named tuple a text is compiled, a third of what it costs.
from typing import NamedTuple, TypeAlias

from gossip.protocol.members import Claim
from gossip.protocol.relay import Part


class Digest(NamedTuple):
    """How far a node is: two fingerprints of 64 bits, of the context and of the live state.

    Equal contexts must have equal states; `state` is None while they can not be compared, in an open transaction.
    `ready` says that the sender has what the cluster shares: two newcomers agree at once, and that means nothing.
    `writes` is how many were delivered: whoever has fewer misses something, that much is certain.
    """

    context: int
    state: int | None
    ready: bool
    writes: int = 0


class Join(NamedTuple):
    """I would like to belong, and this is all I know of whom. The first claim is the sender's own."""

    claims: tuple[Claim, ...]
    digest: Digest


class Welcome(NamedTuple):
    """The answer to `Join`: all that the welcoming node knows of whom."""

    claims: tuple[Claim, ...]
    digest: Digest


class Ping(NamedTuple):
    """Are you there? The first claim is the sender's own, so that a ping introduces a stranger; a large one only by a
    stream. `known` is the incarnation of its receiver that the sender has heard of: who has raised it since, and whose
    claim is too large to ride on the answer, sends it besides."""

    number: int
    digest: Digest
    claims: tuple[Claim, ...]
    known: int = 0


class Ack(NamedTuple):
    """Yes; or, from a witness: yes, it is. `number` is that of the `Ping` or `PingReq`, `clock` that of who says it, in
    milliseconds: a clock that is wrong is better known before writes have to wait for it; `known` as in a `Ping`."""

    number: int
    digest: Digest
    claims: tuple[Claim, ...]
    clock: int
    known: int = 0


class Nack(NamedTuple):
    """From a witness: I heard you, and have no answer from it yet. Who gets neither may be the one who is cut off."""

    number: int


class PingReq(NamedTuple):
    """I can not reach this instance. Can you?"""

    number: int
    target: int


class Gossip(NamedTuple):
    """News of members, at once and unasked."""

    claims: tuple[Claim, ...]


class Push(NamedTuple):
    """Encoded batches. As a part of an answer: to which `Pull`, of how many parts (0: nobody asked), and whether there
    is `more` to pull. As told unasked in a large cluster: the `part` of the ring that its receiver hands it on to."""

    batches: tuple[bytes, ...]
    pull: int = 0
    parts: int = 0
    more: bool = False
    part: Part | None = None


class Pull(NamedTuple):
    """Send what I miss: `context` (encoded) is what was delivered here. The answer bears the `number`.

    An `audit` misses no write: our states differ, though our contexts do not, and ranges are to be compared.
    """

    number: int
    context: bytes
    audit: bool = False


class Busy(NamedTuple):
    """Not now: ask somebody else. With the number of a transfer: somebody else is sending me a state already."""

    transfer: int = 0


class Sync(NamedTuple):
    """Do you hold all of this `context` (encoded); if `durable`, on your disk? Answered when that is so."""

    number: int
    context: bytes
    durable: bool


class Synced(NamedTuple):
    """Yes: I hold what your `Sync` of this number asked for; `durable` if my disk does."""

    number: int
    durable: bool


class StatePart(NamedTuple):
    """A part of a state. Nothing of it counts until the last one is there.

    `clock` is that of its sender, in milliseconds: of what ends by itself a state tells by that, and what is over by a
    clock that is wrong is not over here.
    """

    transfer: int
    number: int
    last: bool
    payload: bytes
    clock: int


class Sums(NamedTuple):
    """The sums of the groups of ranges, or of the ranges in those that were wanted (see `crdt.ranges`).

    `clock` as in a `StatePart`. In answer to an `audit` what differs may be lost here, so it is not for the receiver to
    lose it too.
    """

    transfer: int
    number: int
    sums: bytes
    clock: int
    audit: bool = False


class StateNext(NamedTuple):
    """Send me this message of the transfer; after `Sums`, of these groups or ranges."""

    transfer: int
    number: int
    wanted: bytes = b""


Message: TypeAlias = (
    Join
    | Welcome
    | Ping
    | Ack
    | Nack
    | PingReq
    | Gossip
    | Push
    | Pull
    | Busy
    | StatePart
    | StateNext
    | Sync
    | Synced
    | Sums
)
