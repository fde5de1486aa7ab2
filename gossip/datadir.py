"""What lies in a node's data directory, whose is it, and who may write there now?

    gossamesh.sqlite (-wal)   what was delivered, in steps (`storage` reads and writes them)
    lock                      held with flock for the life of the process that writes; its text says which that is

Invariants:
  - who has not the lock touches nothing, and the kernel frees it however its holder ends;
  - a database that bears its name was whole when it got it: it is made under another one and renamed;
  - what was refused is as it was: neither SQLite nor we have written to it, the lock's text aside.

The database is SQLite's, in WAL mode, opened in its exclusive locking mode: there is no -shm then, and no other program
can move an unsynced WAL into the database behind our back, or keep a WAL from being used again.

Source: flock(2); SQLite's "Database File Format" (the header of 100 bytes) and "Write-Ahead Logging".
Not here: what the records say (`storage`), and Windows, which has no flock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import sqlite3
import stat
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Final

from crdt.timestamp import at
from gossip.errors import StartError
from gossip.records import CHECKSUM, TABLES, Base, Damaged, write_base

DATABASE: Final = "gossamesh.sqlite"
LOCK: Final = "lock"
_UNFINISHED = DATABASE + ".new"

APPLICATION: Final = 0x676F7361
"""SQLite's `application_id`: "gosa"."""
FORMAT: Final = 1
"""SQLite's `user_version`: of the tables, and of what is in them."""
_PRAGMAS = (
    "locking_mode = EXCLUSIVE",  # first: what is read before it makes a -shm
    "trusted_schema = OFF",
    "cell_size_check = ON",
    "wal_autocheckpoint = 0",  # the writer says when, after it has acknowledged
    "journal_size_limit = 67108864",  # a WAL that one large step made long is cut again
    "secure_delete = OFF",  # Debian's SQLite writes zeros over what is deleted: all of it again, through the WAL
    "fullfsync = ON",  # on macOS fsync does not reach the disk; elsewhere these two say nothing
    "checkpoint_fullfsync = ON",
)
_NOT_DAMAGE = ("SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_FULL", "SQLITE_NOMEM", "SQLITE_READONLY", "SQLITE_PERM")
_HEADER = 100
_QUIETLY = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe that lies there must not stop us


class DataDirectory:
    """One node's directory: `claim`, then `connect`, then `release`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as base:
    ...     mine, other = DataDirectory(Path(base, "a"), "shop"), DataDirectory(Path(base, "a"), "shop")
    ...     mine.claim()
    ...     try:
    ...         other.claim()
    ...     except StartError as error:
    ...         "in use by process" in str(error)
    ...     mine.release()
    ...     other.claim(), other.release()
    True
    (None, None)
    """

    def __init__(self, path: Path, cluster: str) -> None:
        self.path = path.absolute()
        self.cluster = cluster
        self.database = self.path / DATABASE
        self.log = self.path / (DATABASE + "-wal")
        self._lock = -1
        self._made_lock = False
        self._files: tuple[int, ...] = ()
        """SQLite's own descriptors."""
        self._nothing = -1
        """What they are pointed at to let go of them. Open from the start: when none is free it must be there."""

    # -- the lock ----------------------------------------------------------------------------------------------------

    def claim(self) -> None:
        """Makes the directory if it is missing, takes its lock, and sees that the database is ours, or makes one.

        Raises `StartError`.
        """
        try:
            self._make()
            self._take()
            self._look()
            self._sign()
        except StartError:
            self.release(refused=True)
            raise
        except (OSError, sqlite3.Error, Damaged) as error:
            self.release(refused=True)
            raise self.refusal(error) from error

    def release(self, refused: bool = False) -> None:
        """Lets go of the lock; does nothing the second time. A lock that was made for nothing is removed again."""
        lock, self._lock = self._lock, -1
        if lock < 0:
            return
        if refused and self._made_lock:
            with suppress(OSError):
                os.unlink(self.path / LOCK)
        with suppress(OSError):  # not left to close: a child forked by another thread just now has a copy
            fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)

    def abandon(self) -> None:
        """In a forked child: closes our copy of the lock, which stays the parent's, and lets go of SQLite's files.

        The numbers of SQLite's files stay held: its connection, which nobody may use or close here, still has them.
        """
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)
        self._let_go()

    def _make(self) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            if not self.path.is_dir():
                raise StartError(
                    f"the data directory {self.path} is no directory: remove it, or give another"
                ) from None
        else:
            _sync_directory(self.path.parent)

    def _take(self) -> None:
        path = self.path / LOCK
        while self._lock < 0:
            made = not os.path.lexists(path)
            lock = os.open(path, os.O_RDWR | os.O_CREAT | _QUIETLY, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever was refused here may have unlinked it between our open and our flock.
                if _identity(os.fstat(lock)) == _identity(os.stat(path, follow_symlinks=False)):
                    self._lock, self._made_lock, lock = lock, made, -1
            except BlockingIOError:
                raise self._taken(_holder(lock)) from None
            except FileNotFoundError:
                pass
            finally:
                if lock >= 0:
                    os.close(lock)

    def _taken(self, holder: str) -> StartError:
        return StartError(
            f"the data directory {self.path} is in use by {holder}: each node needs one of its own. Give this node "
            "another, or stop that process first"
        )

    def _sign(self) -> None:
        text = f"{os.getpid()}\nsince {time.strftime('%Y-%m-%dT%H:%M:%S%z')}, cluster {self.cluster!a}\n".encode()
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, text, 0)

    # -- the database ------------------------------------------------------------------------------------------------

    def refusal(self, error: Exception) -> StartError:
        """What an error on the way in comes to: what was found, whose fault it is, and what to do."""
        said = " ".join(str(error).split()) or repr(error)
        name = getattr(error, "sqlite_errorname", "")
        if isinstance(error, StartError):
            return error
        if name == "SQLITE_BUSY":
            return self._taken("another program that has its database open")
        if isinstance(error, OSError) or name.startswith(_NOT_DAMAGE):
            said = f"{said}, {name}" if name else getattr(error, "strerror", None) or said
            return StartError(
                f"the data directory {self.path} can not be used ({said}): it has to be one that this user can write "
                "to, on a file system with flock and with room on it. If it is, and the disk is sound, move it away "
                "and start again: the node gets everything from its peers"
            )
        return StartError(
            f"the data directory {self.path} is damaged ({said}), so nothing of it was taken. Move it away and start "
            "again: the node gets everything from its peers. If it was the only one, put a backup in its place"
        )

    def _look(self) -> None:
        """Sees by the file's own bytes whose it is, before SQLite may change anything. Makes it if there is none."""
        try:
            head = _read(self.database, _HEADER)
        except FileNotFoundError:
            if self.log.exists():
                raise Damaged(f"{self.log.name} lies there without its {DATABASE}") from None
            self._create()
            return
        if len(head) < _HEADER:
            raise Damaged(f"{DATABASE} has {len(head)} bytes")
        application, version = int.from_bytes(head[68:72], "big"), int.from_bytes(head[60:64], "big")
        ours = head.startswith(b"SQLite format 3\0") and application == APPLICATION
        if not ours and self.log.exists() and self.log.stat().st_size:
            return  # a power cut may have torn the first page on its way out of the WAL: SQLite knows, see `_check`
        self._judge(application if ours else 0, version)
        if head[18:20] != b"\2\2":  # else SQLite would leave the WAL aside without a word
            raise Damaged(f"{DATABASE} has a header that we do not write")

    def _judge(self, application: int, version: int) -> None:
        """Raises `StartError`, unless this is a database of ours, and of this version."""
        if application != APPLICATION:
            raise StartError(
                f"{self.database} is not of gossamesh: another program's file, or damaged in its first bytes. Give "
                "the node a directory of its own; or, if it was ours, move it away and start again: the node gets "
                "everything from its peers"
            )
        if version > FORMAT:
            raise StartError(
                f"{self.database} was written by a newer version of gossamesh (format {version}, and this version "
                f"knows {FORMAT}): update gossamesh here; or move it away and start again: the node gets "
                "everything from its peers"
            )
        if version != FORMAT:
            raise Damaged(f"{DATABASE} says that it is of format {version}, which there is not")

    def _create(self) -> None:
        new = self.path / _UNFINISHED
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(f"{new}{suffix}").unlink(missing_ok=True)
        os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _QUIETLY, 0o600))  # SQLite's own is 0644
        connection = sqlite3.connect(new, isolation_level=None)
        try:
            for pragma in ("synchronous = OFF", "journal_mode = OFF", "page_size = 4096"):
                connection.execute("PRAGMA " + pragma)
            for table in TABLES:
                connection.execute(table)
            connection.execute("INSERT INTO meta VALUES ('cluster', ?)", (self.cluster,))
            link, stamp = secrets.token_bytes(CHECKSUM), at(time.time_ns() // 1_000_000)  # of before nothing is known
            write_base(connection, Base(0, link, stamp=stamp))
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            connection.execute("PRAGMA journal_mode = WAL")
        finally:
            connection.close()
        _sync_file(new)
        os.rename(new, self.database)
        self.sync()

    def connect(self, synchronous: str) -> sqlite3.Connection:
        """Opens the database, sees that it is whole, and ours. Raises `StartError`, and has changed nothing then."""
        connection = None
        try:
            self._nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            uri = self.database.as_uri() + "?mode=rw"
            connection = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None)
            for pragma in (*_PRAGMAS, f"synchronous = {synchronous}"):
                connection.execute("PRAGMA " + pragma)
            self._check(connection)
            self._files = self._find_files()
            self.sync()  # the WAL has got its name just now
            return connection
        except Exception as error:  # damaged text is no text, and that is told as UnicodeDecodeError
            if connection is not None:
                self.drop(connection, error)
            if isinstance(error, StartError):
                raise
            raise self.refusal(error) from error

    def _check(self, connection: sqlite3.Connection) -> None:
        self._judge(
            *(connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        )
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            raise Damaged("it is not in WAL mode")
        connection.execute("BEGIN IMMEDIATE").execute("ROLLBACK")  # refuses here what can be read but not written
        found = {row[0] for row in connection.execute("SELECT sql FROM sqlite_schema")}
        if found != set(TABLES):
            raise Damaged("it has other tables than we make")
        # 32 ms for 32 MB: tells pages that lost rows, which no checksum of a row can.
        answer = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if answer != "ok":
            raise Damaged(" ".join(str(answer).removeprefix("*** in database main ***").split()))
        rows = connection.execute("SELECT value FROM meta WHERE name = 'cluster'").fetchall()
        if len(rows) != 1:
            raise Damaged("it does not say of which cluster it is")
        if rows != [(self.cluster,)]:
            raise StartError(
                f"the data directory {self.path} is of the cluster {rows[0][0]!r}, and this node is of "
                f"{self.cluster!r}: give each node a directory of its own; or move it away and start again, if it "
                "should be this node's: the node gets everything from its peers"
            )

    def _find_files(self) -> tuple[int, ...]:
        """The descriptors under which SQLite has its files, which it does not tell."""
        ours = {_identity(os.stat(path)) for path in (self.database, self.log)}
        found = []
        for name in os.listdir("/dev/fd"):
            with suppress(OSError):  # another thread's, closed since
                if _identity(os.fstat(int(name))) in ours:
                    found.append(int(name))
        return tuple(found)

    def drop(self, connection: sqlite3.Connection, error: Exception) -> None:
        """Closes a connection without a write, because of an error.

        On its own SQLite moves the WAL into the database when it closes. After a refused fsync the WAL on the disk may
        lack what the kernel still shows of it: to move some of that over would spoil what was good.
        """
        # A statement that is not at its end keeps SQLite from closing, and it may be known to the error's frames.
        traceback.clear_frames(error.__traceback__)
        with suppress(OSError):
            self._files = self._files or self._find_files()
        self._let_go()
        connection.close()

    def close(self, connection: sqlite3.Connection) -> None:
        """Closes a connection in order: the WAL goes into the database, and away."""
        self._files = ()
        self._let_go()
        connection.close()

    def _let_go(self) -> None:
        """Points SQLite's descriptors at nothing. Their numbers stay held: the connection would close them again."""
        files, self._files = self._files, ()
        nothing, self._nothing = self._nothing, -1
        for file in files:
            os.dup2(nothing, file, inheritable=False)
        if nothing >= 0:
            os.close(nothing)

    def sync(self) -> None:
        """Makes the names of the files safe."""
        _sync_directory(self.path)


def _holder(lock: int) -> str:
    """Who says to hold a lock."""
    with suppress(OSError, ValueError):
        pid, _, rest = os.pread(lock, 200, 0).decode().partition("\n")
        own = ", which is this very one" if int(pid) == os.getpid() else ""
        return f"process {int(pid)} ({rest.strip()}{own})"
    return "a process that did not say which"


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _read(path: Path, count: int) -> bytes:
    """The first bytes of a file. Only for who has no SQLite open on it: closing any descriptor drops POSIX locks."""
    descriptor = os.open(path, os.O_RDONLY | _QUIETLY)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, f"{path.name} is no file")
        return os.read(descriptor, count)
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | _QUIETLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
