"""How is the place of a node written, and which writings can never be one?

Invariant: an `Address` that exists is valid and canonical, so `parse_address(str(a), allow_port_zero=True) ==
a` for every one of them, and two writings of one endpoint (`[::0001]:1`, `[::1]:1`) are equal.

Source: RFC 3986 section 3.2.2 (brackets), RFC 5952 (IPv6 text), RFC 1123 section 2.1 (host names), RFC 6890
(special ranges), unix(7) (`sun_path`).

Deliberately not here: resolving names (dns.py), opening sockets, and any notion of what is spoken there.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

__all__ = ["LONGEST_UNIX_PATH", "Address", "check_peer", "parse_address", "parse_peer"]

LONGEST_UNIX_PATH: Final = 107 if sys.platform.startswith("linux") else 103
"""Bytes of a unix socket's path, less the NUL that ends it: 108 in Linux, 104 in the BSDs and macOS."""

_LONGEST_HOST = 253
_SHOWN = 60
_UNIX = "unix:"

# Underscores are no host name by RFC 1123, but compose files and Kubernetes users write them, and resolvers
# take them.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# getaddrinfo reads "0", "127.1" and "0x7f000001" as IPv4 addresses (inet_aton); taken for names, they would
# slip past every question asked below of an address, such as whether it is loopback.
_LOOKS_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r"0|[1-9][0-9]{0,4}", re.ASCII)
_SCOPE = re.compile(r"(?:(?![%/\[\]])[!-~]){1,15}", re.ASCII)
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where a node may be reached: a host and a port, or the path of a unix socket.

    `host` is a name, an IPv4 or an IPv6 address without brackets, in lower case; `port` is 0 to 65535 (0 =
    any free one, which only `bind` can mean); `path` is absolute. Either `path` or `host` is the empty
    string. Names are not resolved.

    Raises ValueError for what cannot be an address.

    >>> Address("LOCALHOST", 7946)
    Address(host='localhost', port=7946, path='')
    >>> str(Address("::1", 7946)), str(Address(path="/run/x.sock"))
    ('[::1]:7946', 'unix:/run/x.sock')
    """

    host: str = ""
    port: int = 0
    path: str = ""

    def __post_init__(self) -> None:
        if self.path:
            if self.host or self.port:
                raise _refusal(self.path, "it has a path and a host or port", "give either")
            object.__setattr__(self, "path", _canonical_path(self.path))
            return
        object.__setattr__(self, "host", _canonical_host(self.host))
        if not 0 <= self.port <= 65535:
            raise _refusal(f"{self.host}:{self.port}", "its port is out of range", "give one from 1 to 65535")

    def __str__(self) -> str:
        if self.path:
            return _UNIX + self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_unix(self) -> bool:
        """Whether this is a unix socket: reachable from this host alone, and guarded by file permissions."""
        return bool(self.path)

    @property
    def is_name(self) -> bool:
        """Whether its host is a name, which may have many addresses or none: see `Resolver`.

        >>> [Address(host, 1).is_name for host in ("shop.default.svc", "10.0.0.1", "fe80::1%eth0")]
        [True, False, False]
        """
        return not self.path and _as_ip(self.host) is None

    @property
    def is_loopback(self) -> bool:
        """Whether this is 127.0.0.0/8, ::1 or the name `localhost`. False for unix sockets: they are no
        network at all.

        >>> [Address(host, 1).is_loopback for host in ("127.8.8.8", "::1", "localhost", "10.0.0.1")]
        [True, True, True, False]
        """
        # Not "*.localhost": some resolvers ask the network for it, and being loopback spares a node its key.
        ip = _as_ip(self.host)
        return self.host == "localhost" if ip is None else ip.is_loopback

    @property
    def is_unspecified(self) -> bool:
        """Whether this is 0.0.0.0 or ::, which mean every interface to `bind`, and nothing to others."""
        ip = _as_ip(self.host)
        return ip is not None and ip.is_unspecified

    @property
    def is_multicast(self) -> bool:
        """Whether this is a group (224.0.0.0/4, ff00::/8) and not one node."""
        ip = _as_ip(self.host)
        return ip is not None and ip.is_multicast


def parse_address(text: str, default_port: int | None = None, *, allow_port_zero: bool = False) -> Address:
    """Read `unix:/path`, `host:port`, `[ipv6]:port`, or with a `default_port` also `host` and `[ipv6]`.

    IPv6 always stands in brackets: `::1:7946` is an address of its own, yet whoever writes it means a port.
    `allow_port_zero` is for `bind`, where 0 asks the system for a free port. Nothing is resolved or opened.

    Raises ValueError saying what is wrong with the text and what to write instead.

    >>> parse_address("Example.org:7946")
    Address(host='example.org', port=7946, path='')
    >>> str(parse_address("[0:0::1]", default_port=7946))
    '[::1]:7946'
    >>> parse_address("unix:/run/x.sock").is_unix
    True
    >>> parse_address("10.0.0.1:65536")
    Traceback (most recent call last):
      ...
    ValueError: cannot use '10.0.0.1:65536' as an address: its port is out of range; give one from 1 to 65535
    """
    if not isinstance(text, str):
        raise TypeError(f"an address is written as text such as 'host:7946', not as {type(text).__name__}")
    if not text:
        raise _refusal(text, "it is empty", "write host:port, [ipv6]:port or unix:/path")
    if text.startswith(_UNIX):
        return Address(path=_canonical_path(text.removeprefix(_UNIX)))
    host, digits = _split(text)
    port = default_port if digits is None else _port(text, digits)
    if port is None:
        if text.isascii() and text.isdigit():
            raise _refusal(text, "it is a port alone", _whole(text))
        if any(each.isspace() for each in text):
            raise _refusal(text, "there is a space in it", "write host:port, one address for each entry or line")
        raise _refusal(text, "it has no port", f"write it as in {text[:_SHOWN]}:7946")
    if port == 0 and not allow_port_zero:
        raise _refusal(text, "nobody can be reached at port 0", "give the port that is listened on")
    return Address(host, port)


def parse_peer(text: str, default_port: int | None = None) -> Address:
    """Read an address at which somebody else is to be reached: `parse_address`, then `check_peer`.

    >>> str(parse_peer("10.0.0.7", default_port=7946))
    '10.0.0.7:7946'
    >>> parse_peer("0.0.0.0:7946")
    Traceback (most recent call last):
      ...
    ValueError: cannot use '0.0.0.0:7946' as a peer's address: it stands for every interface of \
whoever listens there; name one host
    """
    return check_peer(parse_address(text, default_port))


def check_peer(address: Address) -> Address:
    """Give `address` back if a single other node can be there; for addresses that were not parsed from text.

    Refuses with ValueError what only a listener can mean (0.0.0.0, the rest of 0.0.0.0/8, ::, port 0) and
    what reaches many at once (multicast groups, 255.255.255.255): one packet to such a seed would be answered
    by a whole network.

    >>> check_peer(Address("fe80::1%eth0", 7946)).host
    'fe80::1%eth0'
    >>> check_peer(Address("224.0.0.251", 5353))
    Traceback (most recent call last):
      ...
    ValueError: cannot use '224.0.0.251:5353' as a peer's address: it reaches a whole group; name one host
    """
    if address.is_unix:
        return address
    ip = _as_ip(address.host)
    if address.is_unspecified or (isinstance(ip, IPv4Address) and ip.packed[0] == 0):
        problem = "it stands for every interface of whoever listens there; name one host"
    elif address.is_multicast:
        problem = "it reaches a whole group; name one host"
    # Not all of 240.0.0.0/4: clouds hand that range out to pods. A subnet's own broadcast address cannot be
    # told from here.
    elif ip == IPv4Address("255.255.255.255"):
        problem = "it reaches the whole subnet; name one host"
    elif address.port == 0:
        problem = "nobody can be reached at port 0; give the port that is listened on"
    else:
        return address
    raise ValueError(f"cannot use {str(address)!r} as a peer's address: {problem}")


def _split(text: str) -> tuple[str, str | None]:
    if "/" in text:
        raise _refusal(text, "it holds a slash", "write host:port with no scheme, or unix:/path")
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            raise _refusal(text, "its brackets do not hold an IPv6 address", "write it as in [::1]:7946")
        return host, rest[1:] if rest else None
    if text.count(":") > 1:
        raise _refusal(text, "it is not clear where its port begins", "put IPv6 in brackets: [::1]:7946")
    host, colon, digits = text.partition(":")
    if not host:
        raise _refusal(text, "it has no host", _whole(digits if _PORT.fullmatch(digits) else "7946"))
    return host, digits if colon else None


def _whole(port: str) -> str:
    """What somebody may have meant who wrote a port and no host."""
    return f"write 127.0.0.1:{port} for this host alone, or 0.0.0.0:{port} for every interface"


def _port(text: str, digits: str) -> int:
    if not _PORT.fullmatch(digits):
        raise _refusal(text, "its port is not a number from 1 to 65535", "write it as in 127.0.0.1:7946")
    return int(digits)


def _canonical_host(host: str) -> str:
    if not host:
        raise _refusal(host, "it is empty", "give a host and a port, or a path")
    if len(host.removesuffix(".")) > _LONGEST_HOST:
        raise _refusal(host, f"its host is longer than {_LONGEST_HOST} characters", "look for what ran on")
    if not host.isascii():
        # IDNA 2003 (the standard library's) and 2008 disagree about names such as "straße": guessing reaches
        # the wrong host.
        raise _refusal(host, "its host is not plain ASCII", "write the name in its xn-- form")
    if ":" in host:
        return _canonical_ipv6(host)
    return _canonical_name(host.lower())


def _canonical_ipv6(host: str) -> str:
    _, percent, scope = host.partition("%")
    if percent and not _SCOPE.fullmatch(scope):
        raise _refusal(host, "its scope is not the name of an interface", "write it as in fe80::1%eth0")
    try:
        ip = IPv6Address(host)
    except AddressValueError as error:
        raise _refusal(host, "it is not an IPv6 address", "write it as in [2001:db8::1]:7946") from error
    # One endpoint, one writing: and ::ffff:0.0.0.0 must not be a way around what is refused of 0.0.0.0.
    return str(ip if ip.ipv4_mapped is None else ip.ipv4_mapped)


def _canonical_name(host: str) -> str:
    labels = host.removesuffix(".").split(".")
    if _LOOKS_NUMERIC.fullmatch(labels[-1]):
        try:
            return str(IPv4Address(host))
        except AddressValueError as error:
            raise _refusal(host, "it is not an IPv4 address", "write it as in 10.0.0.7") from error
    if host == "unix":
        raise _refusal(host, "'unix:' begins the path of a socket", "write 'unix.' if a host has that name")
    if not all(_LABEL.fullmatch(label) for label in labels):
        remedy = "use letters, digits and hyphens, up to 63 between two dots"
        raise _refusal(host, "its host is not a name", remedy)
    return host


def _canonical_path(path: str) -> str:
    # Abstract sockets ("@name") are refused with the rest: they have no permissions, so every user of the
    # host reaches them.
    if not path.startswith("/"):
        raise _refusal(path, "its path is not absolute", "write unix:/path/of/the.sock")
    # unix:///run/x is how URLs write /run/x, but in unix://run/x a URL has a host, and POSIX leaves //run to
    # the system.
    if path.startswith("//") and not path.startswith("///"):
        raise _refusal(path, "its path begins with two slashes", "write one")
    path = "/" + path.lstrip("/")
    if len(path) > LONGEST_UNIX_PATH or len(path.encode(errors="replace")) > LONGEST_UNIX_PATH:
        raise _refusal(path, f"its path is longer than {LONGEST_UNIX_PATH} bytes", "use a shorter one")
    if any(unicodedata.category(character) in _UNPRINTABLE for character in path):
        raise _refusal(path, "its path holds control characters or is not UTF-8", "use printable ones")
    if path.endswith("/") or path != path.rstrip():
        raise _refusal(path, "its path ends in a slash or a space", "name the socket itself")
    return path


def _as_ip(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return IPv6Address(host) if ":" in host else IPv4Address(host)
    except AddressValueError:
        return None


def _refusal(text: str, what: str, remedy: str) -> ValueError:
    shown = repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}... ({len(text)} characters)"
    return ValueError(f"cannot use {shown} as an address: {what}; {remedy}")
