"""Has the process at the other end of a unix stream ended?

The kernel knows whose process listens where a stream was opened to, and a pidfd of that process becomes readable when
it has ended: at once, and whatever its children have inherited. A lock or a stream that a forked child holds as well
tells nothing of that.

Invariant: a pidfd is of the process that listened, or there is none. Where the kernel has no SO_PEERPIDFD (Linux 6.5),
it is opened by number, and the number may have gone to somebody else meanwhile: so the stream is looked at again after
that, for whoever has ended has closed it.

Source: pidfd_open(2), unix(7) on SO_PEERCRED.
Deliberately not here: whose process that is in a cluster, other systems than Linux (there is no pidfd: None).
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from typing import Final

__all__ = ["process_of"]

# Not in Python's socket module yet.
_SO_PEERPIDFD: Final = 77
_CREDENTIALS: Final = struct.Struct("3i")


def process_of(stream: int) -> int | None:
    """A pidfd of the process that listens at the other end of this connected unix stream (a descriptor), to be closed
    by the caller; None where it has ended already, is of another pid namespace, or the system knows none.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as base, socket.socket(socket.AF_UNIX) as listener:
    ...     listener.bind(base + "/s")
    ...     listener.listen()
    ...     with socket.socket(socket.AF_UNIX) as stream:
    ...         stream.connect(base + "/s")
    ...         pidfd = process_of(stream.fileno())
    >>> pidfd is None or os.close(pidfd)  # our own, which goes on
    """
    with socket.socket(fileno=os.dup(stream)) as peer:
        with suppress(OSError):
            return peer.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
        return _opened_by_number(peer)


def _opened_by_number(peer: socket.socket) -> int | None:
    try:
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid = _CREDENTIALS.unpack(credentials)[0]
        pidfd = os.pidfd_open(pid) if pid > 0 else None
    except (OSError, AttributeError):
        return None
    if pidfd is not None and _has_ended(peer):
        os.close(pidfd)
        return None
    return pidfd


def _has_ended(peer: socket.socket) -> bool:
    try:
        return peer.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
