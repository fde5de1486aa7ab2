"""What can a node be told, and where was it told?

A `Config` is frozen and was checked whole: whoever holds one need not doubt it. Each field is looked for in this order:
keyword, environment (`GOSSAMESH_` and the field's name in capitals), TOML file, profile, default. The file is the one
named by `config=` or `GOSSAMESH_CONFIG`; it has a field a line, and a table a cluster if it serves several. A profile
is a set of defaults: which one is said in the first three places too.

Invariant: nothing listens beyond loopback without a key, unless `insecure` says so aloud.
Not here: what can not be told (`checks`), and the protocol's own numbers with their reasons (`protocol.settings`),
which are fields of `Config` all the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, Self

from gossip.errors import ConfigError
from gossip.protocol.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

_PREFIX = "GOSSAMESH_"
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
        from gossip.checks import check  # here, since it needs all that is checked: addresses, keys, messages

        check(self)

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
        settings = _from_file(path, cluster, known) if path else {}
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


def _from_file(path: str | Path, cluster: str, known: Mapping[str, str]) -> dict[str, Any]:
    import tomllib  # here, since most nodes have no file: it would be a fiftieth of an import of gossip

    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"the configuration file {path} can not be read: {error}") from None
    tables = [name for name, value in content.items() if isinstance(value, dict) and name != "tags"]
    if tables and cluster not in tables:
        named = ", ".join(map(repr, tables))
        _warn(
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
            _warn("the environment has %s, which is no setting%s", variable, meant)
            continue
        if name == "KEY" and not text.replace(",", " ").strip():
            raise ConfigError(
                f"the environment's {variable} is empty: unset it, or nobody would see that a key is missing"
            )
        settings[name.lower()] = _parse(variable, text, kind)
    return settings


def _warn(text: str, *of: object) -> None:
    import logging  # here, since only a mistake needs it, and many a program does without

    logging.getLogger("gossip").warning(text, *of)


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
