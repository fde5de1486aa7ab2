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

Source: flock(2), unix(7).

Deliberately not here: which directory that is (`meeting`), sockets (whoever holds a place binds them), asking
whether a node answers (the handshake does), other hosts, and Windows, which has neither flock nor owners in
this sense.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from discovery.address import Address
from discovery.meeting import MOST_ENTRIES, UnsafeDirectory, check_length, check_private, make_private

__all__ = ["HostDirectory", "Place", "Witness"]

_LOCK, _SOCKET, _CONTROL = ".lock", ".sock", ".ctl"
_LOCK_NAME = re.compile(r"([0-9a-f]{16})\.lock", re.ASCII)
# Seconds. A look takes microseconds, but whoever looks may lose the processor just then.
_PATIENCE = 0.5


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

    >>> import tempfile
    >>> from discovery import runtime_directory
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
    >>> import tempfile
    >>> from discovery import runtime_directory
    >>> with tempfile.TemporaryDirectory() as base:
    ...     path = runtime_directory("shop", Path(base))
    ...     mine, theirs = HostDirectory(path), HostDirectory(path)
    ...     with mine.claim(1) as place, socket.socket(socket.AF_UNIX) as listener:
    ...         listener.bind(str(place.socket_path))
    ...         mine.others(), theirs.others() == [place.address]
    ([], True)
    """

    def __init__(self, path: Path) -> None:
        check_length(path)
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

        >>> import tempfile
        >>> from discovery import runtime_directory
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
        make_private(self.path)
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
            check_private(path, os.lstat(path))
        raise
    try:
        check_private(path, os.fstat(descriptor))
        yield descriptor
    finally:
        os.close(descriptor)
