"""Who else of my cluster lives on this machine?

A directory that only this user can write to holds three files a node: `<instance>.lock`, `<instance>.sock`,
`<instance>.ctl`. The owner holds an exclusive flock on the lock for its life, so the kernel itself says who
lives: no pid can be mistaken for another's, and no crash leaves a lie.

Invariant: nothing of a living node is ever unlinked by another. Only two may unlink what bears a name, and
both have checked, after locking, that the name still shows the file they locked:
  * its owner, holding the lock exclusively;
  * a sweeper, holding it shared (so there is no owner, and none can come) and the directory exclusively (so
    there is no second sweeper, who after us would take the next owner's files for the last one's).
Hence an exclusive lock always means an owner, which makes the answer to "who lives" exact while others sweep.

Source: flock(2), unix(7), the XDG Base Directory Specification ($XDG_RUNTIME_DIR).

Deliberately not here: sockets (whoever holds a place binds them), asking whether a node answers (the
handshake does), other hosts, and Windows, which has neither flock nor owners in this sense.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import os
import re
import stat
import tempfile
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from discovery.address import LONGEST_UNIX_PATH, Address

__all__ = ["MOST_ENTRIES", "HostDirectory", "Place", "UnsafeDirectory", "Witness", "clusters", "runtime_directory"]

MOST_ENTRIES: Final = 4096
"""Directory entries looked at in one go, three a node: more nodes than that on one host is not what this is
for."""

_LOCK, _SOCKET, _CONTROL = ".lock", ".sock", ".ctl"
_LOCK_NAME = re.compile(r"([0-9a-f]{16})\.lock", re.ASCII)
_DIRECTORY_NAME = re.compile(r"([a-z0-9-]{1,12}-)?[a-z2-7]{16}", re.ASCII)
_VARIABLE = "GOSSAMESH_RUNTIME_DIR"
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
# Seconds. A look takes microseconds, but whoever looks may lose the processor just then.
_PATIENCE = 0.5


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
    _check_length(directory)
    if made_by_us:
        _make_private(root)
    else:
        _make_base(root)
    _make_private(directory.parent)
    _make_private(directory)
    return directory


def clusters(cluster: str | None = None, base: Path | None = None) -> list[Path]:
    """The directories in which nodes of this user's clusters met so far, or of one `cluster`; nothing is made.

    They lie in `gossamesh/` below `base`, else `$GOSSAMESH_RUNTIME_DIR`; else below both places of which
    `runtime_directory` takes the first that it can, since a shell, a cron job and a service of one user do not
    all have a `$XDG_RUNTIME_DIR`. A name can not be told from its directory: ask who lives there
    (`HostDirectory.controls`, which also refuses what others could write to).

    Raises OSError where a directory cannot be read.

    >>> with tempfile.TemporaryDirectory() as base:
    ...     shop, _ = runtime_directory("shop", Path(base)), runtime_directory("bank", Path(base))
    ...     [path.name[:5] for path in clusters(base=Path(base))], clusters("shop", Path(base)) == [shop]
    (['bank-', 'shop-'], True)
    """
    root = base if base is not None else _configured_base()
    roots = [_default_base()] if root is None else [root]
    if base is None and root is not None and not os.environ.get(_VARIABLE) and _is_ours(str(_default_base())):
        roots.append(_default_base())
    found: list[Path] = []
    for each in roots:
        if not each.is_absolute():
            raise ValueError(f"runtime directory {str(each)!r} is not absolute: give the whole path in {_VARIABLE}")
        with suppress(FileNotFoundError), os.scandir(each / "gossamesh") as entries:
            names = [entry.name for entry in islice(entries, MOST_ENTRIES) if entry.is_dir(follow_symlinks=False)]
            found += [each / "gossamesh" / name for name in sorted(names) if _DIRECTORY_NAME.fullmatch(name)]
    return [path for path in found if cluster is None or path.name == _directory_name(cluster)]


class Place:
    """One node's place in a `HostDirectory`: two paths to bind sockets at, ours while the lock is held.

    Got from `HostDirectory.claim`; a context manager that releases. When the process dies, however it does,
    the kernel frees the lock and the next who looks sweeps the files. `instance` is the number claimed.
    """

    __slots__ = ("_claimant", "_descriptor", "_directory", "_name", "instance")

    def __init__(self, directory: Path, instance: int, descriptor: int) -> None:
        self.instance = instance
        self._directory = directory
        self._name = _name(instance)
        self._descriptor = descriptor
        self._claimant = os.getpid()

    @property
    def socket_path(self) -> Path:
        """Where peers connect."""
        return self._directory / (self._name + _SOCKET)

    @property
    def control_path(self) -> Path:
        """Where the command line connects."""
        return self._directory / (self._name + _CONTROL)

    @property
    def address(self) -> Address:
        """`socket_path` as others will see it."""
        return Address(path=str(self.socket_path))

    @property
    def held(self) -> bool:
        """Whether it was neither released nor abandoned yet."""
        return self._descriptor >= 0

    @property
    def listed(self) -> bool:
        """Whether others can still find it: not if somebody removed our files, or the directory."""
        try:
            shown = os.stat(self._directory / (self._name + _LOCK), follow_symlinks=False)
        except OSError:
            return False
        return self.held and (shown.st_dev, shown.st_ino) == _identity(self._descriptor)

    def release(self) -> None:
        """Unlink both sockets, then the lock, and let go; the last to do so removes the directory. Does nothing the
        second time, and never raises OSError.

        In a forked child this is `abandon`: the place is its parent's.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        try:
            if os.getpid() == self._claimant:
                # Shutting down must not fail because somebody removed the directory; whoever looks next
                # sweeps.
                with suppress(OSError), _opened(self._directory) as directory:
                    # Where a stranger removed our lock and somebody claimed the name since, the files are
                    # theirs.
                    if _shown(directory, self._name + _LOCK) in (None, _identity(descriptor)):
                        _unlink_all(directory, self._name)
                    os.rmdir(self._directory)  # which the system refuses while anybody else has a file there
        finally:
            os.close(descriptor)

    def abandon(self) -> None:
        """Only close our descriptor: for a forked child, which must neither unlink nor unlock what is its
        parent's.

        Parent and child share one lock, so the child's copy would keep a dead parent looking alive: call this
        in every child. Closing a copy leaves the lock as it is; unlocking it would free it for both. Does
        nothing the second time.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<Place {self.socket_path} {'held' if self.held else 'let go'}>"

    def _touch(self) -> None:
        # Cleaners of temporary directories go by age (systemd's default: 10 days). Only the time of access is
        # renewed: the time of modification says when the place was claimed.
        with suppress(OSError):
            modified = os.fstat(self._descriptor).st_mtime_ns
            os.utime(self._descriptor, ns=(time.time_ns(), modified))


class Witness:
    """Knows whether a process of this host has ended: has its very lock open, whatever becomes of the file's name.

    That is proof and no guess: the kernel frees a lock when, and only when, nobody is left who holds it. A missing file
    proves nothing, since somebody may have cleaned up, so a name is never looked at again.

    >>> with tempfile.TemporaryDirectory() as base:
    ...     directory = HostDirectory(runtime_directory("shop", Path(base)))
    ...     with directory.claim(255) as place:
    ...         witness = directory.witness(place.address)
    ...         held = witness.ended
    ...     held, witness.ended
    (False, True)
    """

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def ended(self) -> bool:
        """Whether nobody holds the lock any more."""
        if self._descriptor < 0 or not _try_flock(self._descriptor, fcntl.LOCK_SH):
            return False
        # Not left to close: a child forked by another thread just now has a copy that keeps the lock.
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        return True

    def close(self) -> None:
        """Looks no more. Does nothing the second time."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


class HostDirectory:
    """The nodes of one cluster, of one user, on this host. `path` is what `runtime_directory` gave.

    Nothing is opened between calls, and the directory is checked at each: a replaced one is noticed.
    `truncated` counts the looks that ended at `MOST_ENTRIES` and so may have missed somebody.

    Raises ValueError for a path that is relative or cannot be printed, OSError (ENAMETOOLONG) for one too
    long for sockets.

    >>> import socket
    >>> with tempfile.TemporaryDirectory() as base:
    ...     path = runtime_directory("shop", Path(base))
    ...     mine, theirs = HostDirectory(path), HostDirectory(path)
    ...     with mine.claim(1) as place, socket.socket(socket.AF_UNIX) as listener:
    ...         listener.bind(str(place.socket_path))
    ...         mine.others(), theirs.others() == [place.address]
    ([], True)
    """

    def __init__(self, path: Path) -> None:
        _check_length(path)
        # Refuses here, where it can still be mended, what would otherwise fail at the first neighbour.
        Address(path=str(path / (_name(0) + _SOCKET)))
        self.path = path
        self.truncated = 0
        self._places: list[Place] = []

    def claim(self, instance: int) -> Place:
        """Take the place of `instance` (0 to 2**64 - 1) for as long as this process lives.

        What a dead one left there is cleared, and a missing directory is made. Bind `socket_path` first and
        look at `others` afterwards: of two nodes that start together at least one then sees the other.

        Raises FileExistsError if a living process holds that instance, UnsafeDirectory, or another OSError;
        EBUSY after half a second if a stopped process keeps its hand on that very name.

        >>> with tempfile.TemporaryDirectory() as base:
        ...     directory = HostDirectory(runtime_directory("shop", Path(base)))
        ...     with directory.claim(255) as place:
        ...         place.socket_path.name, place.control_path.name
        ('00000000000000ff.sock', '00000000000000ff.ctl')
        """
        if not 0 <= instance < 1 << 64:
            raise ValueError(f"instance {instance} is not a number of 64 bits: give one from 0 to 2**64 - 1")
        deadline = time.monotonic() + _PATIENCE
        while (descriptor := self._try_to_claim(_name(instance))) is None:
            if time.monotonic() > deadline:
                reason = "a stopped process keeps its hand on this lock; claim another instance"
                raise OSError(errno.EBUSY, reason, str(self.path))
        place = Place(self.path, instance, descriptor)
        self._places = [*(other for other in self._places if other.held), place]
        return place

    def _try_to_claim(self, name: str) -> int | None:
        """The descriptor of the lock; None if another try is worth it."""
        _make_private(self.path)
        try:
            with _opened(self.path) as directory:
                return _take(directory, name)
        except FileNotFoundError:  # whoever was the last here removed the directory after we looked
            return None

    def others(self) -> list[Address]:
        """The sockets of all living nodes but those claimed here, oldest first; what dead ones left is swept.

        A node that has claimed its place but not bound its socket yet is not among them. These are
        candidates: a node may die between the look and the use. A missing directory means nobody.

        Raises UnsafeDirectory if others could write to the directory, OSError if it cannot be read.
        """
        own = [place for place in self._places if place.held]
        for place in own:
            place._touch()
        return self._living(_SOCKET, frozenset(place._name for place in own))

    def controls(self) -> list[Address]:
        """The control sockets of all living nodes, our own included, oldest first. Otherwise as `others`."""
        return self._living(_CONTROL, frozenset())

    def witness(self, address: Address) -> Witness | None:
        """A witness of the process that listens at a socket of this directory; None if there is none to be had here.

        Sockets of another host, or container, may well have a path like ours: of who has no lock here nothing is known.
        """
        path = Path(address.path)
        name = path.name.removesuffix(_SOCKET)
        if path.parent != self.path or name + _SOCKET != path.name:
            return None
        try:
            with _opened(self.path) as directory:
                descriptor = os.open(name + _LOCK, os.O_RDONLY | _QUIETLY, dir_fd=directory)
        except OSError:
            return None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return None
        return Witness(descriptor)

    def _living(self, suffix: str, without: frozenset[str]) -> list[Address]:
        found: list[tuple[int, str]] = []
        try:
            with _opened(self.path) as directory:
                for name in self._names(directory):
                    if name in without:
                        continue
                    since = _living_since(directory, name)
                    if since is not None and _shown(directory, name + suffix) is not None:
                        found.append((since, name))
        except FileNotFoundError:
            return []
        return [Address(path=str(self.path / (name + suffix))) for _, name in sorted(found)]

    def _names(self, directory: int) -> list[str]:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in islice(entries, MOST_ENTRIES + 1)]
        if len(names) > MOST_ENTRIES:
            self.truncated += 1
        return [match[1] for name in names[:MOST_ENTRIES] if (match := _LOCK_NAME.fullmatch(name))]


def _name(instance: int) -> str:
    return f"{instance:016x}"


def _take(directory: int, name: str) -> int | None:
    """The descriptor of the lock, now ours; None if somebody was just looking: another try is worth it."""
    lock = name + _LOCK
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | _QUIETLY, 0o600, dir_fd=directory)
    except OSError as error:
        if error.errno not in _NOT_A_FILE:
            raise
        raise _not_a_lock(lock) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _not_a_lock(lock)
        if _try_flock(descriptor, fcntl.LOCK_EX):
            # Between our open and our flock a sweeper may have unlinked it: a lock needs its name to count.
            if _shown(directory, lock) == _identity(descriptor):
                _unlink(directory, name + _SOCKET)
                _unlink(directory, name + _CONTROL)
                os.utime(descriptor)
                return descriptor
        elif _try_flock(descriptor, fcntl.LOCK_SH):
            # Nobody owns it, somebody is only looking, and may be stopped: make a new file rather than wait.
            _sweep(directory, name, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        elif _shown(directory, lock) == _identity(descriptor):
            reason = "a living process holds this instance; draw a new one for every node"
            raise FileExistsError(errno.EEXIST, reason, lock)
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _living_since(directory: int, name: str) -> int | None:
    """When the living owner claimed the name, in ns since the epoch; with no such owner None, and swept."""
    try:
        descriptor = os.open(name + _LOCK, os.O_RDONLY | _QUIETLY, dir_fd=directory)
    except OSError as error:
        if error.errno in _NOT_A_FILE or error.errno in (errno.ENOENT, errno.EACCES, errno.EPERM):
            return None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        if not _try_flock(descriptor, fcntl.LOCK_SH):
            return status.st_mtime_ns
        try:
            _sweep(directory, name, descriptor)
        finally:
            # Not left to close: a child forked by another thread just now has a copy that keeps the lock.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        return None
    finally:
        os.close(descriptor)


def _sweep(directory: int, name: str, descriptor: int) -> None:
    """Unlink what a dead node left. The caller holds `descriptor`, its lock, shared."""
    # Not waiting: a stopped process may hold it. What a running one leaves is swept at the next look.
    if not _try_flock(directory, fcntl.LOCK_EX):
        return
    try:
        if _shown(directory, name + _LOCK) == _identity(descriptor):
            _unlink_all(directory, name)
    finally:
        fcntl.flock(directory, fcntl.LOCK_UN)


def _try_flock(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlink_all(directory: int, name: str) -> None:
    # The lock goes last: without it the sockets would have no name under which anybody could sweep them.
    for suffix in (_SOCKET, _CONTROL, _LOCK):
        _unlink(directory, name + suffix)


def _unlink(directory: int, name: str) -> None:
    # Housekeeping: what cannot be removed (a directory somebody made there) must not hide the living.
    with suppress(OSError):
        os.unlink(name, dir_fd=directory)


def _shown(directory: int, name: str) -> tuple[int, int] | None:
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _identity(descriptor: int) -> tuple[int, int]:
    # Numbers of unlinked files are used again, but not while we hold one open.
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


# O_NONBLOCK: a pipe lying there under a lock's name must not stop us.
_QUIETLY = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_NOT_A_FILE = (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EMLINK)


def _not_a_lock(lock: str) -> UnsafeDirectory:
    return UnsafeDirectory(errno.EPERM, "this should be a lock file and is something else; remove it", lock)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK, errno.EACCES):
            _check_private(path, os.lstat(path))
        raise
    try:
        _check_private(path, os.fstat(descriptor))
        yield descriptor
    finally:
        os.close(descriptor)


def _configured_base() -> Path | None:
    if configured := os.environ.get(_VARIABLE):
        return Path(configured)
    # The specification asks to look elsewhere if it is not ours, and that is common: sudo, su, and servers
    # that start as root and drop to another user all hand the old user's variable on.
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(session) if os.path.isabs(session) and _is_ours(session) else None


def _default_base() -> Path:
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
        status = os.stat(path)
    except FileNotFoundError:
        _make_private(path)
        return
    if not stat.S_ISDIR(status.st_mode):
        raise _unsafe(path, "is not a directory", "name one")
    if status.st_uid not in (0, os.geteuid()):
        raise _unsafe(path, f"belongs to another user (uid {status.st_uid})", "name a directory of this one")
    # In a sticky directory, as the temporary one is, others may add, but not move or remove what is ours.
    if status.st_mode & _WRITABLE_BY_OTHERS and not status.st_mode & stat.S_ISVTX:
        raise _unsafe(path, f"can be written to by others ({status.st_mode & 0o7777:o})", "name one in it")


def _make_private(path: Path) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        reason = f"cannot make the runtime directory ({error.strerror}): set {_VARIABLE} to one we can"
        raise OSError(error.errno, reason, str(path)) from error
    _check_private(path, os.lstat(path))


def _check_private(path: Path, status: os.stat_result) -> None:
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


def _check_length(directory: Path) -> None:
    length = len(os.fsencode(directory / (_name(0) + _SOCKET)))
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
