"""Which addresses does a program of the user print?

For inventories that nothing else reaches: a cloud's list of machines, a query of a database, a script. It is started
without a shell, in a process group of its own, and prints what a file of seeds would hold.

Invariant: no run lasts longer than `PATIENCE`, and none outlives the one who asked: what is late, or not waited for any
more, is killed with its process group. Of its output no more is kept than a file of seeds may have.

Source: setsid(2), kill(2), waitpid(2).

Deliberately not here: how often it is run, and what its failure means for a running node.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Final

from discovery.seeds import LARGEST_TEXT, Seed, parse_lines

__all__ = ["PATIENCE", "CommandFailed", "ask_command"]

PATIENCE: Final = 5.0
"""Seconds that a run may take."""

_LAST_LINE = 200
"""Characters of what it said of its failure that are kept."""
_ERRORS_KEPT = 4096
_LOOK = 0.005
"""Seconds between two looks whether it has ended, after its output has."""
_DYING = 0.2
"""Seconds that one that was killed is waited for."""
_SECRET = "GOSSAMESH_KEY"
"""It is started without this variable: what it does not need it can not give away."""


class CommandFailed(OSError):
    """The command did not do its work. `detail` is the last line that it wrote to its standard error, which may be
    another each time; the text is not."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


async def ask_command(
    words: Sequence[str], *, default_port: int | None = None, patience: float = PATIENCE
) -> list[Seed]:
    """Run the command of these words, and read what it prints as `read_seeds` reads a file.

    Only its first word appears in errors: the others may hold a password. Raises OSError (`CommandFailed`) if it can
    not be started, fails, or takes longer than `patience` seconds, ValueError for what is no list of seeds.

    >>> [str(seed) for seed in asyncio.run(ask_command(["printf", r"10.0.0.1:7946\\n# that was all"]))]
    ['10.0.0.1:7946']
    """
    what = f"the command {words[0][:60]!r}"
    environment = {name: value for name, value in os.environ.items() if name != _SECRET}
    try:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, env=environment,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise CommandFailed(f"{what} can not be started: {getattr(error, 'strerror', None) or error}") from None
    output, errors = _Kept(LARGEST_TEXT + 1), _Kept(_ERRORS_KEPT)
    try:
        async with asyncio.timeout(patience):
            await _read(process, output, errors)
    except TimeoutError:
        raise CommandFailed(f"{what} took longer than {patience:g} s, and was killed") from None
    finally:
        await _end(process, output, errors)
    if len(output.data) > LARGEST_TEXT:
        raise CommandFailed(f"{what} printed more than {LARGEST_TEXT} bytes, and was killed")
    if process.returncode:
        status = process.returncode
        how = f"ended with status {status}" if status > 0 else f"was ended by signal {-status}"
        raise CommandFailed(f"{what} {how}", errors.last_line)
    return parse_lines(bytes(output.data), what, default_port=default_port)


class _Kept(asyncio.Protocol):
    """The first so many bytes that come out of a pipe; others are let go. `ended` is done with the last of either."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.data = bytearray()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data[: self._most - len(self.data)]
        if len(self.data) == self._most:
            self._end()

    def connection_lost(self, error: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    @property
    def last_line(self) -> str:
        lines = self.data.decode(errors="replace").strip().splitlines()
        return "".join(each if each.isprintable() else "?" for each in lines[-1][:_LAST_LINE]) if lines else ""


async def _read(process: subprocess.Popen[bytes], output: _Kept, errors: _Kept) -> None:
    """Waits until the command has said everything, or too much, and has ended."""
    loop = asyncio.get_running_loop()
    pipes: list[tuple[_Kept, IO[bytes] | None]] = [(output, process.stdout), (errors, process.stderr)]
    for kept, pipe in pipes:
        await loop.connect_read_pipe(lambda kept=kept: kept, pipe)  # type: ignore[misc]
    await output.ended
    if len(output.data) > LARGEST_TEXT:
        return
    await errors.ended
    while process.poll() is None:
        await asyncio.sleep(_LOOK)


async def _end(process: subprocess.Popen[bytes], output: _Kept, errors: _Kept) -> None:
    """Kills what has not ended, and closes everything.

    The command is not waited for before, by anybody: until then no other process can get its number, and with it its
    group's. `Popen` and not asyncio's own processes, which are waited for by threads, or by the loop, as they end.
    """
    try:
        if process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(TimeoutError):
                async with asyncio.timeout(_DYING):
                    while process.poll() is None:
                        await asyncio.sleep(_LOOK)
    finally:
        for kept, pipe in ((output, process.stdout), (errors, process.stderr)):
            if kept.transport is not None:
                kept.transport.close()
            elif pipe is not None:
                pipe.close()
