"""What can a node be told, and where was it told?

A `Config` is frozen and was checked whole: whoever holds one need not doubt it. Each field is looked for in this order:
keyword, environment (`GOSSAMESH_` and the field's name in capitals), TOML file, profile, default. The file is the one
named by `config=` or `GOSSAMESH_CONFIG`; it has a field a line, and a table a cluster if it serves several. A profile
is a set of defaults: which one is said in the first three places too.

Invariant: nothing listens beyond loopback without a key, unless `insecure` says so aloud.
Not here: the protocol's own numbers and their reasons (`protocol.settings`), which are fields of `Config` all the same.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from types import NoneType
from typing import Any, Final, Self

from crdt.codec import MAX_VALUE
from discovery import Service, parse_address, parse_peer, parse_seeds
from gossip.errors import ConfigError
from gossip.keyring import KEY_BYTES, MOST_KEYS
from gossip.protocol.codec import MAX_MESSAGE, MAX_NAME, MAX_TAG_BYTES, MAX_TAG_NAME, MAX_TAGS
from gossip.protocol.settings import Settings

log = logging.getLogger("gossip")

_PREFIX = "GOSSAMESH_"
_TAKES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "bool | None": (bool, NoneType),
}
"""Which types of value a field of a type takes. Exactly these: True is no number here, and "no" no bool."""
PROFILES: Final[Mapping[str, Mapping[str, float]]] = {
    "local": {
        "probe_interval": 0.25,
        "probe_timeout": 0.2,
        "hint_timeout": 0.1,
        "settle": 0.1,
        "pull_timeout": 0.5,
        "heal_interval": 5.0,
        "discovery_interval": 5.0,
    },
    "lan": {},
    "wan": {
        "probe_interval": 8.0,  # more than a round trip: who is suspected on a hint has one interval to refute
        "probe_timeout": 7.0,
        "least_probe_timeout": 0.5,
        "hint_timeout": 14.0,  # two round trips: that of a witness has four legs
        "settle": 4.0,
        "pull_timeout": 10.0,
        "transfer_timeout": 60.0,
        "join_timeout": 10.0,
        "connect_timeout": 20.0,  # a round trip to open it, and two packets of that may be lost
    },
}
"""Defaults for links of a kind. `local`: one host; where its kernel tells the end of a process, that is known sooner
still. `lan`: links of up to 1.5 s each way. `wan`: links that take up to 3 s each way, and lose a tenth of all, or
a third of what no stream repairs: in ten simulated hours of clusters of two to five no healthy one was called dead."""
_ELSEWHERE = frozenset({"CONFIG", "CLUSTER", "RUNTIME_DIR"})
"""Variables that are read by others: which file, the command line's cluster, where the nodes of a host meet."""


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """All that a node can be told; times in seconds, sizes in bytes. The protocol's numbers are among them.

    Each is a keyword of `gossip.Node` too. What a field means stands beneath it in the source: `gossip/config.py`, and
    `gossip/protocol/settings.py` for the protocol's. Raises `ConfigError` for a field that can not be. Use
    `Config.load` to have environment and file read.

    >>> Config(cluster="shop", bind="127.0.0.1:7946").bind
    '127.0.0.1:7946'
    >>> Config(cluster="shop", bind="0.0.0.0:7946")
    Traceback (most recent call last):
    gossip.errors.ConfigError: bind='0.0.0.0:7946' would listen beyond this machine without a key, so ...
    """

    cluster: str = ""
    """Nodes of the same cluster name (and key) find each other; others never do. Empty: the node that is given this
    configuration has the name."""
    name: str = ""
    """A label for people; by default the host and the process."""
    bind: str = ""
    """`host:port` for UDP and TCP. Empty: no network port at all, only nodes of this host and user."""
    advertise: str = ""
    """`host:port` where others reach this node, if that is not `bind`. Bound to every interface, a node finds it out
    by itself, and tells others when it changes: another lease, another network."""
    seeds: tuple[str, ...] = ()
    """Where other nodes may be, asked again and again for as long as the node lives: `10.0.0.5:7946`; a name, for all
    the addresses that it has then (`shop.default.svc:7946`); a service with SRV records, which needs `gossamesh[dns]`
    (`srv:_gossamesh._tcp.shop.example`)."""
    seeds_file: str = ""
    """A file of such seeds, one a line, read anew each time."""
    seeds_command: str = ""
    """A command that prints such seeds, one a line, run each time: its words as in a shell, without one, or a list of
    them. It may take 5 s, and does not see `GOSSAMESH_KEY`."""
    mdns: bool | None = None
    """Whether to announce this node on its link, and to look for others there, by multicast DNS, which needs
    `gossamesh[mdns]`. None: where `bind` is beyond loopback, but not in Kubernetes."""
    key: tuple[bytes, ...] = field(default=(), repr=False)
    """32 bytes that every node of the cluster has, to seal what they say. Given as base64 text or as bytes; or several,
    in a list or a text with commas or spaces between: the first seals, all of them open, 8 at most."""
    insecure: bool = False
    """Whether to listen beyond loopback without a key."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Labels that others see: `role`, `version`, `zone`. At most 64, of together 4 KiB; `node.tag` changes them."""
    runtime_dir: str = ""
    """Where the nodes of this host meet; by default the user's runtime directory."""
    leave_timeout: float = 0.7
    """How long a leave may take to end conversations and hand over what was not sent yet; with the rest, a second."""
    data_dir: str = ""
    """A directory of this node alone, in which its data survives it. Empty: data lives while any node has it."""
    discovery_interval: float = 15.0
    """Between two looks at every source of addresses. While nobody is known, they are asked every second."""
    send_buffer: int = 16 << 20
    """Bytes that may wait for one peer; beyond, writes to it are dropped, and it pulls them when it can."""
    connect_timeout: float = 5.0
    """How long a stream may take to open, and as long again until the other side has answered, or has proved that it is
    no stranger."""
    max_connections: int = 512
    """Streams accepted at a time."""
    watch_keys: int = 10_000
    """Unread keys of one watch, of 300 bytes each; beyond, it is told that it lagged, and gets the present state. While
    that is more than what is unread, it goes on to ten times as many: it would be longer behind with all anew."""

    def __post_init__(self) -> None:
        for each in ("runtime_dir", "seeds_file", "data_dir"):
            if isinstance(path := getattr(self, each), Path):
                object.__setattr__(self, each, str(path))
        object.__setattr__(self, "seeds_command", _command(self.seeds_command))
        self._check_types()
        self._check_identity()
        object.__setattr__(self, "key", keys_of(self.key))
        object.__setattr__(self, "tags", dict(self.tags))
        object.__setattr__(self, "seeds", _seeds(self.seeds))
        self._check_network()
        self._check_room()
        if self.durability not in ("interval", "full"):
            raise ConfigError(f"durability={self.durability!r} must be 'interval' or 'full'")

    def _check_types(self) -> None:
        for each in fields(self):
            value, kind = getattr(self, each.name), str(each.type)
            takes = _TAKES.get(kind)
            if takes and type(value) not in takes:
                is_of = f"is of type {type(value).__name__}, and must be of type {kind}"
                raise ConfigError(f"{each.name}={value!r:.80} {is_of}")
            if kind in ("int", "float") and not 0 < value < 1 << 60:
                raise ConfigError(f"{each.name}={value!r} must be a number greater than 0")
        if not isinstance(self.tags, Mapping):
            raise ConfigError(f"tags={self.tags!r:.80} must be a mapping of text to text")

    def _check_identity(self) -> None:
        for what, text in (("cluster", self.cluster), ("name", self.name)):
            if len(text) > MAX_NAME or not text.isprintable():
                raise ConfigError(f"{what} must be a text of at most {MAX_NAME} characters without control characters")
        tags = self.tags.items()
        if wrong := [key for key, value in tags if not (_is_text(key) and _is_text(value))]:
            raise ConfigError(
                "tags must be a mapping of text to text, without control characters, and that of the name "
                f"{wrong[0]!r:.80} is {self.tags[wrong[0]]!r:.80}"
            )
        if long := [key for key, _ in tags if not 0 < len(key.encode()) <= MAX_TAG_NAME]:
            raise ConfigError(f"the name of a tag has 1 to {MAX_TAG_NAME} bytes, and {long[0]!r:.40} has not")
        size = sum(len((key + value).encode()) for key, value in tags)
        if len(tags) > MAX_TAGS or size > MAX_TAG_BYTES:
            raise ConfigError(
                f"there are {len(tags)} tags, of together {size} bytes, and at most {MAX_TAGS} of together "
                f"{MAX_TAG_BYTES} bytes can be: put what is larger into a map, by the name of this node"
            )

    def _check_network(self) -> None:
        if not self.bind:
            if self.advertise or self.seeds or self.seeds_file or self.seeds_command or self.mdns:
                raise ConfigError(
                    "advertise, mdns and seeds (GOSSAMESH_SEEDS, for example) are for nodes on a network, and "
                    "without bind this one has no port: add for example bind='0.0.0.0:7946'; or leave them away for "
                    "workers that reach other hosts through one node of their host that has a port"
                )
            return
        try:
            bind = parse_address(self.bind, allow_port_zero=True)
        except ValueError as error:
            raise ConfigError(f"bind: {error}") from None
        try:
            if self.advertise:
                parse_peer(self.advertise)
        except ValueError as error:
            raise ConfigError(f"advertise: {error}") from None
        if not bind.is_loopback and not self.key and not self.insecure:
            raise ConfigError(
                f"bind={self.bind!r} would listen beyond this machine without a key, so anybody who reaches it could "
                "read and write everything. Make a key with `gossip keygen` and give it to every node (key=... or "
                "GOSSAMESH_KEY); or say insecure=True where the network itself is trusted"
            )

    def _check_room(self) -> None:
        """A transaction that finds no room on its way would be asked for, and dropped, for ever."""
        if 2 * self.max_transaction > self.held_bytes:
            raise ConfigError(
                f"max_transaction={self.max_transaction} must be at most half of held_bytes={self.held_bytes}: peers "
                "hold a transaction back until its last part has come, and one that does not fit never arrives"
            )
        if self.max_transaction + 2 * self.push_bytes > self.send_buffer:
            raise ConfigError(
                f"max_transaction={self.max_transaction} and twice push_bytes={self.push_bytes} must fit "
                f"send_buffer={self.send_buffer}: what does not is dropped on its way to a peer, however often it asks"
            )
        for name in ("batch_bytes", "push_bytes", "part_bytes"):
            if getattr(self, name) + 2 * MAX_VALUE > MAX_MESSAGE:
                raise ConfigError(
                    f"{name}={getattr(self, name)} must be at most {MAX_MESSAGE - 2 * MAX_VALUE}: with one largest "
                    f"value more, a message would be longer than the {MAX_MESSAGE} bytes that peers take"
                )

    @classmethod
    def load(cls, cluster: str, file: str | Path | None = None, **keywords: Any) -> Self:
        """The configuration of a node: keyword > environment > TOML file > profile > default. Keywords that are None
        count as not given; `profile` is one of them. Raises `ConfigError`.

        >>> config = Config.load("shop", name="worker-1", profile="wan")
        >>> config.name, config.probe_interval
        ('worker-1', 8.0)
        """
        check_named(cluster)
        known = {each.name: str(each.type) for each in fields(cls)} | {"profile": "str"}
        path = file or os.environ.get(_PREFIX + "CONFIG")
        settings = _from_file(Path(path), cluster, known) if path else {}
        settings |= _from_environment(known)
        settings |= {name: value for name, value in keywords.items() if value is not None}
        settings["cluster"] = cluster
        unknown = settings.keys() - known.keys()
        if unknown:
            raise ConfigError(f"there is no setting {sorted(unknown)[0]!r}{_meant(sorted(unknown)[0], known)}")
        profile = settings.pop("profile", "lan")
        if not isinstance(profile, str) or profile not in PROFILES:
            raise ConfigError(f"profile={profile!r:.80} must be one of {', '.join(PROFILES)}")
        return cls(**{**PROFILES[profile], **settings})

    @classmethod
    def local(cls, **keywords: Any) -> Self:
        """A configuration for nodes of one host: what fails is found four times as fast as by the defaults.

        Like one that is made by `Config(...)`, it is all there is: neither environment nor file is read.

        >>> Config.local(name="worker-1").probe_interval
        0.25
        """
        return cls(**{**PROFILES["local"], **keywords})

    @classmethod
    def lan(cls, **keywords: Any) -> Self:
        """A configuration for nodes of one network: the defaults, by their name."""
        return cls(**{**PROFILES["lan"], **keywords})

    @classmethod
    def wan(cls, **keywords: Any) -> Self:
        """A configuration for nodes that are far apart: links may take 3 s each way, and lose packets, and nobody who
        is well is called dead for that. What fails is found eight times as slowly as by the defaults.

        >>> Config.wan(bind="127.0.0.1:7946", seeds=["198.51.100.7:7946"], probe_interval=5).probe_interval
        5
        """
        return cls(**{**PROFILES["wan"], **keywords})


def check_named(cluster: str) -> None:
    """Raises `ConfigError` for the name of no cluster."""
    if not cluster:
        raise ConfigError("a cluster needs a name, or strangers would meet: give any text but the empty one")


def _from_file(path: Path, cluster: str, known: Mapping[str, str]) -> dict[str, Any]:
    import tomllib  # here, since most nodes have no file: it would be a fiftieth of an import of gossip

    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"the configuration file {path} can not be read: {error}") from None
    tables = [name for name, value in content.items() if isinstance(value, dict) and name != "tags"]
    if tables and cluster not in tables:
        named = ", ".join(map(repr, tables))
        log.warning(
            "%s has tables for %s, and none for the cluster %r: nobody reads them. A setting stands on the top level, "
            "or in a table that is called like its cluster",
            path, named, cluster,
        )  # fmt: skip
    own = content.pop(cluster, {}) if isinstance(content.get(cluster), dict) else {}
    settings = {name: value for name, value in content.items() if not isinstance(value, dict) or name == "tags"}
    settings |= own
    for name in settings.keys() - known.keys():
        raise ConfigError(f"{path} has a setting {name!r}, which does not exist{_meant(name, known)}")
    return settings


def _from_environment(known: Mapping[str, str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for variable, text in os.environ.items():
        name = variable.removeprefix(_PREFIX)
        if name == variable or name in _ELSEWHERE:
            continue
        kind = known.get(name.lower())
        if kind is None or name != name.upper():
            meant = _meant(name.lower(), known, lambda setting: _PREFIX + setting.upper())
            if name.startswith("KEY"):
                raise ConfigError(f"the environment has {variable}, which is no setting{meant}")
            log.warning("the environment has %s, which is no setting%s", variable, meant)
            continue
        if name == "KEY" and not text.replace(",", " ").strip():
            raise ConfigError(
                f"the environment's {variable} is empty: unset it, or nobody would see that a key is missing"
            )
        settings[name.lower()] = _parse(variable, text, kind)
    return settings


def _meant(name: str, known: Iterable[str], spelt: Callable[[str], str] = repr) -> str:
    if name == "key_file":
        return ": give the key itself, key=Path(...).read_text() (GOSSAMESH_KEY in the environment)"
    import difflib  # here, since only a mistake needs it

    close = difflib.get_close_matches(name, known, 1)
    return f": did you mean {spelt(close[0])}?" if close else ": see gossip.Config for what there is"


def _parse(variable: str, text: str, kind: str) -> Any:
    """A field's value from the text of an environment variable."""
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
        if kind.startswith("bool"):
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
        if kind.startswith("Mapping"):
            return dict(pair.split("=", 1) for pair in text.split(",") if pair)
        if kind.startswith("tuple"):
            return tuple(part for part in text.replace(",", " ").split() if part)
    except (ValueError, KeyError):
        shown = "" if variable.endswith("KEY") else f"={text!r}"
        form = {"bool": "1, true, yes, 0, false or no", "int": "an integer", "float": "a number"}.get(
            kind.partition(" ")[0], "of the form role=web,zone=a"
        )
        raise ConfigError(f"the environment's {variable}{shown} is not {form}") from None
    return text


def _is_text(told: object) -> bool:
    return type(told) is str and told.isprintable()


def keys_of(told: bytes | str | Iterable[bytes | str]) -> tuple[bytes, ...]:
    """Keys as they are told: one or several, as bytes or base64 text. Raises `ConfigError`, which shows none of it."""
    if isinstance(told, str):
        told = told.replace(",", " ").split()
    elif isinstance(told, bytes):
        told = [told] if told else []
    if not isinstance(told, list | tuple) or not all(isinstance(each, bytes | str) for each in told):
        raise ConfigError(f"key is of type {type(told).__name__}, and must be base64 text, bytes, or a list of these")
    keys = tuple(dict.fromkeys(map(_key, told)))
    if len(keys) > MOST_KEYS:
        raise ConfigError(f"key has {len(keys)} keys, and {MOST_KEYS} are the most: two are enough to change one")
    return keys


def _key(key: bytes | str) -> bytes:
    if isinstance(key, str):
        try:
            key = base64.b64decode(key.strip(), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise ConfigError(
                "key (GOSSAMESH_KEY, if it is not given otherwise) is not base64 text. It is the key itself that is "
                "wanted, as `gossip keygen` prints it, and not the path of a file"
            ) from None
    if len(key) != KEY_BYTES:
        raise ConfigError(f"key has {len(key)} bytes, and must have {KEY_BYTES}: make one with `gossip keygen`")
    return key


def _seeds(seeds: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    try:
        parsed = parse_seeds(seeds, source="seeds")
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from None
    service = next((seed for seed in parsed if isinstance(seed, Service)), None)
    if service is not None and find_spec("dns") is None:
        raise ConfigError(
            f"seed {str(service)!r} needs dnspython, which is not installed: pip install 'gossamesh[dns]'"
        )
    return tuple(str(seed) for seed in parsed)


def _command(command: Any) -> Any:
    """One text, whose words `shlex.split` gives; what is no command is left to the check of types."""
    if command == "":
        return command
    import shlex  # here, since few nodes have a command

    if isinstance(command, list | tuple) and all(type(word) is str for word in command):
        command = shlex.join(command)
    try:
        if isinstance(command, str) and command and not shlex.split(command):
            raise ConfigError("seeds_command has no words")
    except ValueError as error:
        raise ConfigError(f"seeds_command can not be split into words: {error}") from None
    return command
