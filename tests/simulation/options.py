"""Which world belongs to a seed?

Swarm testing (Groce et al. 2012): each kind of fault is drawn on or off for the whole run, with an intensity. A world
with everything at once hides what a world with one fault shows, for example because nobody lives long enough.

Invariant: options are a function of the seed. Not here: when and to whom it happens (`faults`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from gossip.protocol.settings import Settings

WEATHER = ("loss", "datagram_loss", "stream_loss", "delay", "far", "duplicate", "reorder", "damage", "slow")
LINKS = ("partition", "split", "one_way", "cut", "datagram_only", "stream_only")
LIVES = ("crash", "restart", "move", "leave", "newcomer", "half_killed", "mass_restart", "recycled", "retag")
ILLS = ("pause", "sleep", "gray", "blocked")
CLOCKS = ("skew", "step_back", "step_forward", "drift", "future", "past")
LIES = ("hint", "suspect", "accuse", "replay", "wrong_cluster")
SETUP = ("tiny_log", "tiny_parts", "small_held", "few_told", "late_disk", "namesake")
FORGERIES = ("impostor",)
"""What comes to nothing, where members have identities."""
DRAWN = WEATHER + LINKS + LIVES + ILLS + CLOCKS + LIES + SETUP
KINDS = DRAWN + FORGERIES
"""Every kind of fault."""
HARMLESS = (
    *("duplicate", "damage", "stream_only"),
    *("crash", "restart", "move", "leave", "newcomer", "half_killed", "mass_restart", "retag"),
    *("pause", "gray", "blocked"),
    *("skew", "step_back", "step_forward", "drift", "hint", "suspect", "wrong_cluster"),
    *SETUP,
    *FORGERIES,
)
"""Under these alone no healthy member may ever be called dead; `damage` is rare enough then to be a rare loss."""


@dataclass(frozen=True)
class Options:
    """What a world is made of."""

    nodes: int
    seconds: float
    kinds: dict[str, float]
    """The faults that may happen, with an intensity from 0 to 1."""
    pace: float
    """Seconds between two faults."""
    turns: float
    """Turns of writing in a second, of all nodes together."""
    discovery: bool
    """Whether all addresses are offered again and again; otherwise each node knows a few."""
    streams: bool
    """Whether the end of a process is seen by those who talked to it."""
    disks: bool = False
    """Whether nodes have disks, and start again with what those kept."""
    identities: bool = False
    """Whether members prove who they are, as with a key."""
    settings: Settings = field(default_factory=Settings)

    @property
    def harmless(self) -> bool:
        """Whether nobody may be called dead who is well."""
        return all(kind in HARMLESS for kind in self.kinds)

    def __str__(self) -> str:
        kinds = " ".join(f"{kind}={amount:.2f}" for kind, amount in self.kinds.items())
        more = f"discovery={self.discovery} streams={self.streams}"
        more += f" disks={self.settings.durability}" if self.disks else ""
        more += " identities" * self.identities
        return f"nodes={self.nodes} seconds={self.seconds:.0f} turns={self.turns:.1f}/s {more} {kinds or 'no faults'}"


def draw(seed: int, nodes: int = 0, seconds: float = 0.0) -> Options:
    """The options of a seed; `nodes` and `seconds` overrule what it draws."""
    rng = Random(f"options {seed}")
    share = rng.choice((0.1, 0.25, 0.25, 0.5))
    pool = HARMLESS if rng.random() < 0.1 else KINDS
    kinds = {kind: rng.random() for kind in DRAWN if rng.random() < share and kind in pool}
    proved = Random(f"identities {seed}")
    if (identities := proved.random() < 0.4) and proved.random() < 0.5:
        kinds |= dict.fromkeys(FORGERIES, 0.5)
    return Options(
        nodes=nodes or rng.choice((2, 3, 4, 4, 5, 5, 6, 7, 12)),
        seconds=seconds or rng.uniform(40.0, 90.0),
        kinds=kinds,
        pace=rng.choice((1.0, 2.0, 4.0)),
        turns=rng.choice((1.0, 3.0, 6.0)),
        discovery=rng.random() < 0.6,
        streams=rng.random() < 0.5,
        disks=(disks := rng.random() < 0.5),
        settings=_settings(rng, kinds, "full" if disks and rng.random() < 0.5 else "interval"),
        identities=identities,
    )


def only(seed: int, *kinds: str) -> Options:
    """A small world with just these faults, all of them hard."""
    rng = Random(f"only {seed}")
    drawn = dict.fromkeys(kinds, 0.7)
    return Options(
        nodes=5,
        seconds=40.0,
        kinds=drawn,
        pace=1.0,
        turns=4.0,
        discovery=True,
        streams=False,
        settings=_settings(rng, drawn),
        identities=any(kind in FORGERIES for kind in kinds),
    )


def _settings(rng: Random, kinds: dict[str, float], durability: str = "interval") -> Settings:
    small = "small_held" in kinds
    return Settings(
        batch_bytes=2_000 if small else rng.choice((2_000, 64 << 10)),
        push_bytes=rng.choice((4_000, 1 << 20)),
        log_bytes=rng.choice((0, 500, 5_000)) if "tiny_log" in kinds else 64 << 20,
        part_bytes=rng.choice((1, 200, 2_000)) if "tiny_parts" in kinds else 256 << 10,
        held_bytes=20_000 if small else 32 << 20,
        max_transaction=10_000 if small else 16 << 20,
        full_fanout=rng.choice((1, 2, 4)) if "few_told" in kinds else 16,
        max_transfers=rng.choice((1, 4)),
        durability=durability,
    )
