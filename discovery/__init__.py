"""Where might the others be? Addresses, from what this host, a list, a name, a command or the link (`discovery.mdns`,
which needs zeroconf) has to say; nothing here knows of gossip.

Invariant: what is listed in `__all__` is public, all else may change. What a provider yields are candidates;
whether somebody of ours is there is for the caller to find out.

Source: DESIGN.md section 8.

Deliberately not here: the handshake, membership, and any decision about whom to connect to.
"""

from discovery.address import LONGEST_UNIX_PATH, Address, check_peer, parse_address, parse_peer
from discovery.command import CommandFailed, ask_command
from discovery.dns import Resolver
from discovery.host import HostDirectory, Place, Witness
from discovery.meeting import MOST_ENTRIES, UnsafeDirectory, clusters, meeting_places, runtime_directory
from discovery.process import process_of
from discovery.seeds import MOST_SEEDS, Seed, Service, parse_seeds, read_seeds

__all__ = [
    "LONGEST_UNIX_PATH",
    "MOST_ENTRIES",
    "MOST_SEEDS",
    "Address",
    "CommandFailed",
    "HostDirectory",
    "Place",
    "Resolver",
    "Seed",
    "Service",
    "UnsafeDirectory",
    "Witness",
    "ask_command",
    "check_peer",
    "clusters",
    "meeting_places",
    "parse_address",
    "parse_peer",
    "parse_seeds",
    "process_of",
    "read_seeds",
    "runtime_directory",
]
