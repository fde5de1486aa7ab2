"""Which addresses was this node told to try, and which names to ask for some?

    10.0.0.5:7946  [fe80::1%eth0]:7946      one address
    shop.default.svc:7946                   a name: all addresses that it has, at this port
    srv:_gossamesh._tcp.shop.example        a service: the hosts and ports in its SRV records

A name needs no mark of its own: with one address or with many, what it stands for is what it resolves to. An SRV
name does, since it has no port to be written with it.

Invariant: what comes out is a list of distinct seeds in the order in which they were written, at
most `MOST_SEEDS` of them; one bad entry refuses the whole list, with the entry and its origin named, so that
a typing mistake is seen at the start and not as a partition next week.

Source: DESIGN.md section 8; RFC 2782 (SRV).

Deliberately not here: resolving names (dns.py), reading the environment (the caller's configuration does, and
hands the text in), and deciding what a failure means for a running node.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from discovery.address import Address, parse_peer

__all__ = ["LARGEST_TEXT", "MOST_SEEDS", "Seed", "Service", "parse_lines", "parse_seeds", "read_seeds"]

MOST_SEEDS: Final = 256
"""One living seed is enough to find all others; a longer list is a mistake, or an inventory that belongs into
DNS."""

# 256 of the longest addresses are 66 kB; the rest is room for comments.
LARGEST_TEXT: Final = 1 << 20
"""Bytes of a file of seeds, or of what a command prints."""

_BETWEEN = re.compile(r"[,\s]+")
_COMMENT = re.compile(r"(?:^|\s)#.*")
_SRV = "srv:"
_SERVICE = re.compile(r"_[a-z0-9-]{1,62}\._(?:tcp|udp)(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)+\.?", re.ASCII)
_LONGEST_NAME = 253


@dataclass(frozen=True, slots=True, order=True)
class Service:
    """A name with SRV records, each of which has the host and the port of one node.

    `name` is `_service._tcp.domain`, kept in lower case. Raises ValueError for what can not be one.

    >>> str(Service("_gossamesh._tcp.Shop.example"))
    'srv:_gossamesh._tcp.shop.example'
    >>> Service("shop.example")
    Traceback (most recent call last):
      ...
    ValueError: cannot use 'shop.example' as the name of a service: write it as in \
srv:_gossamesh._tcp.shop.example
    """

    name: str

    def __post_init__(self) -> None:
        name = self.name.lower()
        if len(name.removesuffix(".")) > _LONGEST_NAME or not _SERVICE.fullmatch(name):
            raise ValueError(
                f"cannot use {self.name[:60]!r} as the name of a service: write it as in "
                "srv:_gossamesh._tcp.shop.example"
            )
        object.__setattr__(self, "name", name)

    def __str__(self) -> str:
        return _SRV + self.name


Seed = Address | Service
"""What can be told where others are: an address, which may be a name, or a service."""


def parse_seeds(
    entries: str | Iterable[str], *, source: str = "the list of seeds", default_port: int | None = None
) -> list[Seed]:
    """Read seeds from one string, separated by commas or white space, or from an iterable of one each.

    `source` says in error messages where the entries come from. A unix path that holds a space or a comma can
    be given in an iterable or a file only. Duplicates are left out, order is kept.

    Raises ValueError naming the entry and `source`, or when there are more than `MOST_SEEDS`.

    >>> [str(seed) for seed in parse_seeds("a:1, srv:_shop._tcp.example  a:1", source="GOSSAMESH_SEEDS")]
    ['a:1', 'srv:_shop._tcp.example']
    >>> parse_seeds(["a:1", "b:x"], source="GOSSAMESH_SEEDS")
    Traceback (most recent call last):
      ...
    ValueError: seed 'b:x' in GOSSAMESH_SEEDS: cannot use 'b:x' as an address: its port is not a number \
from 1 to 65535; write it as in 127.0.0.1:7946
    """
    if isinstance(entries, str):
        entries = (entry for entry in _BETWEEN.split(entries) if entry)
    return _bounded((_seed(entry, source, default_port) for entry in entries), source)


def read_seeds(file: Path, *, default_port: int | None = None) -> list[Seed]:
    """Read seeds from a UTF-8 text file, one a line; `#` begins a comment at a line's start or after
    white space.

    The file is opened, read and closed at every call. Errors name its path and the line.

    Raises ValueError for a bad entry, too many, or a file that is no text of a reasonable size (1 MiB),
    OSError where it cannot be read.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as directory:
    ...     file = Path(directory, "seeds")
    ...     _ = file.write_text("# the old machines\\n10.0.0.1:7946\\n10.0.0.2:7946   # in the cellar\\n")
    ...     [str(address) for address in read_seeds(file)]
    ['10.0.0.1:7946', '10.0.0.2:7946']
    """
    return parse_lines(_content(file), str(file), default_port=default_port)


def parse_lines(content: bytes, source: str, *, default_port: int | None = None) -> list[Seed]:
    """Read seeds from UTF-8 text as `read_seeds` does, wherever it came from: `source` is named in errors.

    Raises ValueError for a bad entry, too many, or what is no text of a reasonable size (1 MiB).

    >>> [str(seed) for seed in parse_lines(b"10.0.0.1:7946\\n\\n# and all of\\nshop.example:7946", "the list")]
    ['10.0.0.1:7946', 'shop.example:7946']
    """
    if len(content) > LARGEST_TEXT:
        raise ValueError(f"cannot read seeds from {source}: it exceeds {LARGEST_TEXT} bytes; name another")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"cannot read seeds from {source}: it is not UTF-8 text; save it as such") from error
    lines = [_COMMENT.sub("", line).strip() for line in text.splitlines()]
    numbered = ((f"{source}, line {number}", line) for number, line in enumerate(lines, 1) if line)
    return _bounded((_seed(entry, place, default_port) for place, entry in numbered), source)


def _seed(entry: str, source: str, default_port: int | None) -> Seed:
    try:
        # "srv:7946" is a host of that name
        if str(entry)[:4].lower() == _SRV and not entry[4:].isdecimal():
            return Service(entry[4:])
        return parse_peer(entry, default_port)
    except ValueError as error:
        shown = entry if len(entry) <= 60 else entry[:60] + "..."
        raise ValueError(f"seed {shown!r} in {source}: {error}") from error


def _bounded(found: Iterable[Seed], source: str) -> list[Seed]:
    distinct: dict[Seed, None] = {}
    for address in found:
        distinct[address] = None
        if len(distinct) > MOST_SEEDS:
            raise ValueError(
                f"more than {MOST_SEEDS} seeds in {source}: one that lives is enough to find the others; "
                "name a few, or use DNS for a list that long"
            )
    return list(distinct)


def _content(file: Path) -> bytes:
    # O_NONBLOCK: opening a pipe that nobody writes to would stop the caller's event loop for ever.
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(f"cannot read seeds from {file}: it can be read once only; name a regular file")
        return stream.read(LARGEST_TEXT + 1)
