"""Values that merge: replicated maps, sets, counters and registers, useful alone, without any network.

    >>> ann, bob = Store(), Store()
    >>> write = LWWMap(ann, "flags").set("beta", True, replica=1, stamp=1)
    >>> _ = ann.merge(write), bob.merge(write)
    >>> LWWMap(bob, "flags").get("beta")
    True

A `Store` holds what was delivered; the four types read and ask; `merge` (a write), `merge_batch` and `merge_state`
bring stores together. The rule behind all of it stands at the top of `crdt.store`.
"""

from crdt.causality import Context, Dot
from crdt.codec import (
    Malformed,
    decode_batch,
    decode_context,
    decode_element,
    decode_value,
    encode_batch,
    encode_context,
    encode_element,
    encode_value,
)
from crdt.counter import PNCounter
from crdt.inbox import Inbox
from crdt.live import FOREVER, WITH_AUTHOR, Link, Live, chain, dot_of, head_of, value_of, visible
from crdt.maps import LWWMap
from crdt.register import LWWRegister
from crdt.sets import ORSet
from crdt.state import Stage, decode_state, encode_state, state_parts
from crdt.store import Store
from crdt.timestamp import ClockSkew, Timestamp
from crdt.write import Batch, Change, Key, Note, State, Write

__all__ = [
    "FOREVER",
    "WITH_AUTHOR",
    "Batch",
    "Change",
    "ClockSkew",
    "Context",
    "Dot",
    "Inbox",
    "Key",
    "LWWMap",
    "LWWRegister",
    "Link",
    "Live",
    "Malformed",
    "Note",
    "ORSet",
    "PNCounter",
    "Stage",
    "State",
    "Store",
    "Timestamp",
    "Write",
    "chain",
    "decode_batch",
    "decode_context",
    "decode_element",
    "decode_state",
    "decode_value",
    "dot_of",
    "encode_batch",
    "encode_context",
    "encode_element",
    "encode_state",
    "encode_value",
    "head_of",
    "state_parts",
    "value_of",
    "visible",
]
