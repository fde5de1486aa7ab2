"""Which numbers does the protocol go by?

Every interval, threshold and bound that an engine reads, with its unit and its reason. `gossip.config.Config` adds what
a whole node needs. Invariant: frozen, so what an engine was started with is what it runs with.
"""

from __future__ import annotations

from dataclasses import dataclass


# Compared and shown is a whole `Config`, which has both of its own: twice, they would be a hundredth of an import.
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Settings:
    """What an engine goes by. Times are seconds, sizes are bytes.

    >>> Settings(probe_interval=0.2).probe_timeout
    0.5
    """

    probe_interval: float = 1.0
    """Between two probes of this node. One member is probed at a time, each once a round."""
    probe_timeout: float = 0.5
    """How long a direct ping may take before others are asked to try, to a member of whom no round trip is known; else
    four times the longest of the last ones, and no longer than this; but one and a half of whoever is farther."""
    least_probe_timeout: float = 0.05
    """But at least so long: a loop that is busy for a moment is not silence."""
    indirect_probes: int = 3
    """How many others are asked (SWIM's k)."""
    suspicion_factor: float = 4.0
    """A suspect has at least factor x max(1, log10 n) intervals to refute before it is called dead, which is what it
    has if two others suspect it as well; while nobody does, six times as many."""
    hint_timeout: float = 0.2
    """How long a member has to answer anybody after its stream ended without a leave."""
    heal_interval: float = 30.0
    """Between two attempts at the addresses of dead members: partitions end without telling anybody."""
    remember_dead: float = 24 * 3600.0
    """How long the dead are remembered: longer than any partition, so that no old claim brings them back."""
    max_members: int = 4096
    """How many living members are known; each of them gets every write. As many claims fit a message."""
    max_remembered: int = 1024
    """How many of the dead are remembered, so that a host where workers come and go for months stays small."""
    join_timeout: float = 1.0
    """How long a newcomer waits for somebody who has what the cluster shares."""
    settle: float = 0.25
    """How long contexts may differ before something is pulled: what differs for less is on its way already."""
    pull_timeout: float = 1.0
    """After which an unanswered pull, or request for a part of a state, is sent again."""
    max_clock_skew: float = 10.0
    """How far ahead of our clock a stamp may be. NTP keeps milliseconds; a wrong time zone is not let in."""
    log_bytes: int = 64 << 20
    """Recent batches kept for peers that missed some; who missed more gets what differs in the state."""
    held_bytes: int = 32 << 20
    """Batches that came early. Twice a transaction, so that one always fits."""
    max_transaction: int = 8 << 20
    """Bytes of one transaction: peers must hold it back whole until its last part has come."""
    batch_bytes: int = 64 << 10
    """A batch is closed beyond this, so that one large write does not wait for many small ones."""
    push_bytes: int = 1 << 20
    """Of batches in one message."""
    part_bytes: int = 256 << 10
    """Of one part of a state: small enough not to hold up pings on the same stream."""
    max_transfers: int = 4
    """Full states being sent at a time; each keeps a copy of the outer maps alive."""
    transfer_timeout: float = 10.0
    """After which a state that nobody asks on for is given up."""
    max_state: int = 4 << 30
    """Bytes of a state being received."""
    durability: str = "interval"
    """With `data_dir`: `interval` survives the end of the process, and a power cut but for the last 10 ms. With `full`
    own writes are safe on the disk before they leave this node."""
    datagram: int = 1200
    """Bytes of a probe with the claims riding on it: fits every path on the Internet without fragments."""
    full_fanout: int = 16
    """Up to so many peers are told directly, of writes and of what is said of members; beyond, some pass it on."""
