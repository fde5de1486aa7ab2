"""How is the demo started? `python -m examples.demo`, which is `make demo`.

Exit codes: 0 if all held, 1 if something did not, 2 if it could not be shown, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from examples.demo.screen import Screen
    from examples.demo.story import Options

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """The command line."""
    arguments = _arguments()
    try:
        from examples.demo.screen import LiveScreen, PlainScreen
        from examples.demo.server import NoDemo
        from examples.demo.story import Options
    except ModuleNotFoundError as error:
        print(
            f"the demo needs {error.name}, which is not installed: say `make demo`, or pip install -e '.[cli,dev]'",
            file=sys.stderr,
        )
        return 2
    options = Options(
        arguments.seconds, arguments.workers, arguments.rate, arguments.visitors, arguments.port,
        not arguments.no_kill, arguments.keep_open,
    )  # fmt: skip
    screen: Screen = PlainScreen() if arguments.plain or not sys.stdout.isatty() else LiveScreen()
    try:
        return asyncio.run(_run(options, screen))
    except NoDemo as error:
        print(f"the demo can not be shown: {error}", file=sys.stderr)
        return 2


async def _run(options: Options, screen: Screen) -> int:
    """Ends in order when asked to by a signal; a second one changes nothing, for the end is bounded."""
    from examples.demo.story import show

    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    stopped: list[int] = []

    def stop(number: int) -> None:
        if not stopped:
            stopped.append(number)
            task.cancel()

    for number in _STOPS:
        loop.add_signal_handler(number, stop, number)
    try:
        return 0 if await show(options, screen) else 1
    except asyncio.CancelledError:
        if not stopped:
            raise
        print(f"stopped by {signal.Signals(stopped[0]).name}; nothing is left running", file=sys.stderr)
        return 128 + stopped[0]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo",
        description="Four uvicorn workers share state by gossip.",
        epilog='By make: make demo ARGS="--seconds 30 --workers 8"',
    )
    parser.add_argument("--seconds", type=_number(2, 86_400), default=12.0, help="of visits (default 12)")
    parser.add_argument("--workers", type=_whole(1, 16), default=4, help="of uvicorn (default 4)")
    parser.add_argument("--rate", type=_number(1, 100_000), default=400.0, help="requests a second (default 400)")
    parser.add_argument("--visitors", type=_whole(1, 1000), default=32, help="at a time (default 32)")
    parser.add_argument("--port", type=_whole(0, 65_535), default=0, help="to serve at (default: any free one)")
    parser.add_argument("--plain", action="store_true", help="lines instead of a live screen")
    parser.add_argument("--no-kill", action="store_true", help="let all workers live")
    parser.add_argument("--keep-open", action="store_true", help="serve on after the verdict, until Ctrl-C")
    arguments = parser.parse_args()
    if arguments.workers < 2 and not arguments.no_kill:
        parser.error("with one worker nobody serves while it is dead: give --workers 2 or more, or --no-kill")
    return arguments


def _number(least: float, most: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a number, not {text!r}") from None
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be between {least:g} and {most:g}, not {text}")
        return value

    return number


def _whole(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, not {text!r}") from None
        return int(_number(least, most)(str(value)))

    return number


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)  # before anything was started
