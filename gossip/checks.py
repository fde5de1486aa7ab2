"""Can a node be told this?

What a configuration says, as it is kept, or the reason why it can not be. It is asked of each `Config` that is made.

Invariant: what passes need not be doubted by anybody; an error shows no key.
Not here: where settings come from (`config`).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from crdt.codec import MAX_VALUE
from discovery import Service, parse_address, parse_peer, parse_seeds
from gossip.errors import ConfigError
from gossip.keyring import KEY_BYTES, MOST_KEYS
from gossip.protocol.codec import MAX_MESSAGE, MAX_NAME, MAX_TAG_BYTES, MAX_TAG_NAME, MAX_TAGS

if TYPE_CHECKING:
    from gossip.config import Config

_TAKES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "bool | None": (bool, NoneType),
}
"""Which types of value a field of a type takes. Exactly these: True is no number here, and "no" no bool."""


def check(config: Config) -> None:
    """Of a `Config` that is just being made: gives its fields the form in which they are kept. Raises `ConfigError`."""
    for each in ("runtime_dir", "seeds_file", "data_dir"):
        if isinstance(path := getattr(config, each), Path):
            object.__setattr__(config, each, str(path))
    object.__setattr__(config, "seeds_command", _command(config.seeds_command))
    _check_types(config)
    _check_identity(config)
    object.__setattr__(config, "key", keys_of(config.key))
    object.__setattr__(config, "tags", dict(config.tags))
    object.__setattr__(config, "seeds", _seeds(config.seeds))
    _check_network(config)
    _check_room(config)
    if config.durability not in ("interval", "full"):
        raise ConfigError(f"durability={config.durability!r} must be 'interval' or 'full'")


def _check_types(config: Config) -> None:
    for each in fields(config):
        value, kind = getattr(config, each.name), str(each.type)
        takes = _TAKES.get(kind)
        if takes and type(value) not in takes:
            is_of = f"is of type {type(value).__name__}, and must be of type {kind}"
            raise ConfigError(f"{each.name}={value!r:.80} {is_of}")
        if kind in ("int", "float") and not 0 < value < 1 << 60:
            raise ConfigError(f"{each.name}={value!r} must be a number greater than 0")
    if not isinstance(config.tags, Mapping):
        raise ConfigError(f"tags={config.tags!r:.80} must be a mapping of text to text")


def _check_identity(config: Config) -> None:
    for what, text in (("cluster", config.cluster), ("name", config.name)):
        if len(text) > MAX_NAME or not text.isprintable():
            raise ConfigError(f"{what} must be a text of at most {MAX_NAME} characters without control characters")
    tags = config.tags.items()
    if wrong := [key for key, value in tags if not (_is_text(key) and _is_text(value))]:
        raise ConfigError(
            "tags must be a mapping of text to text, without control characters, and that of the name "
            f"{wrong[0]!r:.80} is {config.tags[wrong[0]]!r:.80}"
        )
    if long := [key for key, _ in tags if not 0 < len(key.encode()) <= MAX_TAG_NAME]:
        raise ConfigError(f"the name of a tag has 1 to {MAX_TAG_NAME} bytes, and {long[0]!r:.40} has not")
    size = sum(len((key + value).encode()) for key, value in tags)
    if len(tags) > MAX_TAGS or size > MAX_TAG_BYTES:
        raise ConfigError(
            f"there are {len(tags)} tags, of together {size} bytes, and at most {MAX_TAGS} of together "
            f"{MAX_TAG_BYTES} bytes can be: put what is larger into a map, by the name of this node"
        )


def _check_network(config: Config) -> None:
    if not config.bind:
        if config.advertise or config.seeds or config.seeds_file or config.seeds_command or config.mdns:
            raise ConfigError(
                "advertise, mdns and seeds (GOSSAMESH_SEEDS, for example) are for nodes on a network, and "
                "without bind this one has no port: add for example bind='0.0.0.0:7946'; or leave them away for "
                "workers that reach other hosts through one node of their host that has a port"
            )
        return
    try:
        bind = parse_address(config.bind, allow_port_zero=True)
    except ValueError as error:
        raise ConfigError(f"bind: {error}") from None
    try:
        if config.advertise:
            parse_peer(config.advertise)
    except ValueError as error:
        raise ConfigError(f"advertise: {error}") from None
    if not bind.is_loopback and not config.key and not config.insecure:
        raise ConfigError(
            f"bind={config.bind!r} would listen beyond this machine without a key, so anybody who reaches it could "
            "read and write everything. Make a key with `gossip keygen` and give it to every node (key=... or "
            "GOSSAMESH_KEY); or say insecure=True where the network itself is trusted"
        )


def _check_room(config: Config) -> None:
    """A transaction that finds no room on its way would be asked for, and dropped, for ever."""
    if 2 * config.max_transaction > config.held_bytes:
        raise ConfigError(
            f"max_transaction={config.max_transaction} must be at most half of held_bytes={config.held_bytes}: peers "
            "hold a transaction back until its last part has come, and one that does not fit never arrives"
        )
    if config.max_transaction + 2 * config.push_bytes > config.send_buffer:
        raise ConfigError(
            f"max_transaction={config.max_transaction} and twice push_bytes={config.push_bytes} must fit "
            f"send_buffer={config.send_buffer}: what does not is dropped on its way to a peer, however often it asks"
        )
    for name in ("batch_bytes", "push_bytes", "part_bytes"):
        if getattr(config, name) + 2 * MAX_VALUE > MAX_MESSAGE:
            raise ConfigError(
                f"{name}={getattr(config, name)} must be at most {MAX_MESSAGE - 2 * MAX_VALUE}: with one largest "
                f"value more, a message would be longer than the {MAX_MESSAGE} bytes that peers take"
            )


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
