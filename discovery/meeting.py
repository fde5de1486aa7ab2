"""In which directory do the nodes of one cluster meet on this machine, and is it ours alone?

Invariant: a directory that is given was checked: nobody but this user can put anything into it, or put another in its
place. The name of a cluster's directory follows from the cluster's, whatever text that is.

Source: the XDG Base Directory Specification ($XDG_RUNTIME_DIR), unix(7) for how long a socket's path may be.

Deliberately not here: what lies in it (`host`).
"""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import re
import stat
import unicodedata
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

from discovery.address import LONGEST_UNIX_PATH

__all__ = ["MOST_ENTRIES", "UnsafeDirectory", "clusters", "meeting_places", "runtime_directory"]

MOST_ENTRIES: Final = 4096
"""Directory entries looked at in one go, three a node: more nodes than that on one host is not what this is
for."""

LONGEST_FILE_NAME: Final = len("0123456789abcdef.sock")
"""Bytes of the longest name of a socket in such a directory."""
_DIRECTORY_NAME = re.compile(r"([a-z0-9-]{1,12}-)?[a-z2-7]{16}", re.ASCII)
_VARIABLE = "GOSSAMESH_RUNTIME_DIR"
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class UnsafeDirectory(OSError):
    """A directory that another user could change, or a file in it that is not what it should be, was refused.

    Whoever can write there could pose as our neighbours. The message says what was found and what to do.
    """


def runtime_directory(cluster: str, base: Path | None = None) -> Path:
    """Make, check and give the directory in which the nodes of `cluster` on this host meet.

    It lies in `gossamesh/` below `base`, else `$GOSSAMESH_RUNTIME_DIR`, else `$XDG_RUNTIME_DIR` where that is
    really ours, else a directory `gossamesh-<uid>` in the system's temporary one. `cluster` may be any text
    but the empty one; different texts give different directories, whose names are short and safe.

    Raises ValueError for an empty cluster or a relative base, UnsafeDirectory where another user could
    interfere, and OSError where a directory cannot be made or sockets in it would have too long a path
    (ENAMETOOLONG).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as base:
    ...     directory = runtime_directory("../Shop", Path(base))
    ...     directory.relative_to(base).as_posix(), oct(directory.stat().st_mode & 0o777)
    ('gossamesh/shop-rhdjh6txqwotgixs', '0o700')
    """
    if not cluster:
        raise ValueError("a cluster needs a name, or strangers would meet: give any text but the empty one")
    root = base if base is not None else _configured_base()
    made_by_us = root is None
    if root is None:
        root = _default_base()
    if not root.is_absolute():
        raise ValueError(
            f"runtime directory {str(root)!r} is not absolute, so each worker would look elsewhere: "
            f"give the whole path in {_VARIABLE}"
        )
    directory = root / "gossamesh" / _directory_name(cluster)
    check_length(directory)
    if made_by_us:
        make_private(root)
    else:
        _make_base(root)
    make_private(directory.parent)
    make_private(directory)
    return directory


def clusters(cluster: str | None = None, base: Path | None = None) -> list[Path]:
    """The directories in which nodes of this user's clusters met so far, or of one `cluster`; nothing is made.

    They lie in `gossamesh/` below `base`, else `$GOSSAMESH_RUNTIME_DIR`; else below both places of which
    `runtime_directory` takes the first that it can, since a shell, a cron job and a service of one user do not
    all have a `$XDG_RUNTIME_DIR`. A name can not be told from its directory: ask who lives there
    (`HostDirectory.controls`, which also refuses what others could write to).

    Raises OSError where a directory cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as base:
    ...     shop, _ = runtime_directory("shop", Path(base)), runtime_directory("bank", Path(base))
    ...     [path.name[:5] for path in clusters(base=Path(base))], clusters("shop", Path(base)) == [shop]
    (['bank-', 'shop-'], True)
    """
    found: list[Path] = []
    for each in meeting_places(base):
        with suppress(FileNotFoundError), os.scandir(each / "gossamesh") as entries:
            names = [entry.name for entry in islice(entries, MOST_ENTRIES) if entry.is_dir(follow_symlinks=False)]
            found += [each / "gossamesh" / name for name in sorted(names) if _DIRECTORY_NAME.fullmatch(name)]
    return [path for path in found if cluster is None or path.name == _directory_name(cluster)]


def meeting_places(base: Path | None = None) -> list[Path]:
    """Where this user's clusters may meet: `base`, else `$GOSSAMESH_RUNTIME_DIR`, else `$XDG_RUNTIME_DIR` where that is
    really ours and the directory in the system's temporary one. Nothing is made or looked at in there.

    Raises ValueError for one that is relative.

    >>> meeting_places(Path("/run/user/7"))
    [PosixPath('/run/user/7')]
    """
    root = base if base is not None else _configured_base()
    roots = [_default_base()] if root is None else [root]
    if base is None and root is not None and not os.environ.get(_VARIABLE) and _is_ours(str(_default_base())):
        roots.append(_default_base())
    for each in roots:
        if not each.is_absolute():
            raise ValueError(f"runtime directory {str(each)!r} is not absolute: give the whole path in {_VARIABLE}")
    return roots


def _configured_base() -> Path | None:
    if configured := os.environ.get(_VARIABLE):
        return Path(configured)
    # The specification asks to look elsewhere if it is not ours, and that is common: sudo, su, and servers
    # that start as root and drop to another user all hand the old user's variable on.
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(session) if os.path.isabs(session) and _is_ours(session) else None


def _default_base() -> Path:
    import tempfile  # here, since it brings every compressor along, and who has a session needs none of it

    return Path(tempfile.gettempdir()).absolute() / f"gossamesh-{os.geteuid()}"


def _is_ours(path: str) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    ours = status.st_uid == os.geteuid() and not status.st_mode & _WRITABLE_BY_OTHERS
    return ours and stat.S_ISDIR(status.st_mode)


def _make_base(path: Path) -> None:
    """Make the directory somebody configured, or check that nobody else can exchange ours within it."""
    try:
        check_base(path)
    except FileNotFoundError:
        make_private(path)


def check_base(path: Path) -> None:
    """Check that nobody else can exchange what is ours within a directory. Raises UnsafeDirectory, FileNotFoundError
    or another OSError."""
    status = os.stat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise _unsafe(path, "is not a directory", "name one")
    if status.st_uid not in (0, os.geteuid()):
        raise _unsafe(path, f"belongs to another user (uid {status.st_uid})", "name a directory of this one")
    # In a sticky directory, as the temporary one is, others may add, but not move or remove what is ours.
    if status.st_mode & _WRITABLE_BY_OTHERS and not status.st_mode & stat.S_ISVTX:
        raise _unsafe(path, f"can be written to by others ({status.st_mode & 0o7777:o})", "name one in it")


def make_private(path: Path) -> None:
    """Make a directory, or check that one is ours alone. Raises UnsafeDirectory, OSError where it cannot be
    made."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        reason = f"cannot make the runtime directory ({error.strerror}): set {_VARIABLE} to one we can"
        raise OSError(error.errno, reason, str(path)) from error
    check_private(path, os.lstat(path))


def check_private(path: Path, status: os.stat_result) -> None:
    """Check by its status that a directory is ours alone. Raises UnsafeDirectory."""
    if not stat.S_ISDIR(status.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no directory"
        raise _unsafe(path, f"is {what}, where a directory of our own should be", "remove it")
    if status.st_uid != os.geteuid():
        raise _unsafe(path, f"belongs to uid {status.st_uid}, we are {os.geteuid()}", "remove it if you can")
    if status.st_mode & _WRITABLE_BY_OTHERS:
        what = f"can be written to by others ({status.st_mode & 0o7777:o})"
        raise _unsafe(path, what, "look at what is in it, then chmod 700")


def _unsafe(path: Path, what: str, remedy: str) -> UnsafeDirectory:
    reason = f"{what}, so that another user could pose as our neighbours: {remedy}, or set {_VARIABLE}"
    return UnsafeDirectory(errno.EPERM, f"{reason} to a private directory", str(path))


def check_length(directory: Path) -> None:
    """Check that sockets in a directory would have paths that the system takes. Raises OSError
    (ENAMETOOLONG)."""
    length = len(os.fsencode(directory)) + 1 + LONGEST_FILE_NAME
    if length > LONGEST_UNIX_PATH:
        reason = f"sockets in it would have paths of {length} bytes, and the system takes {LONGEST_UNIX_PATH}"
        raise OSError(errno.ENAMETOOLONG, f"{reason}: set {_VARIABLE} to a shorter directory", str(directory))


def _directory_name(cluster: str) -> str:
    """A readable part for people, and 80 bits of a hash that keep different clusters apart."""
    plain = unicodedata.normalize("NFKD", cluster[:64]).lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain.encode("ascii", "ignore").decode())[:12].strip("-")
    # Any text has a directory, half a surrogate pair too.
    digest = hashlib.blake2b(cluster.encode("utf-8", "surrogatepass"), digest_size=10).digest()
    code = base64.b32encode(digest).decode().lower()
    return f"{slug}-{code}" if slug else code
