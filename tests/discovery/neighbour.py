"""What does a worker next door do? A program for test_host.py to start, to talk to, and to kill.

`hold`: claims a place, binds both sockets, says so, and releases when its input ends.
`fork`: likewise, and forks a child that abandons the place and outlives its parent.
`look`: looks again and again, and says how many different answers it got, and how many were in the first.
`crowd`: claims, looks, releases or "crashes" again and again, and fails if anybody takes what is its own.
"""

import errno
import os
import random
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

from discovery import HostDirectory, Place

POOL = 6  # far fewer instances than processes, so that names are taken again at once, as no real node would


def bound(place: Place) -> ExitStack:
    stack = ExitStack()
    for path in (place.socket_path, place.control_path):
        stack.enter_context(listener := socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen()
    return stack


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


def until_input_ends() -> None:
    while os.read(0, 1024):
        pass


def hold(path: Path, instance: int) -> None:
    with HostDirectory(path).claim(instance) as place, bound(place):
        say("held")
        until_input_ends()


def fork(path: Path, instance: int) -> None:
    place = HostDirectory(path).claim(instance)
    with bound(place):
        if os.fork() == 0:
            place.abandon()
            place.abandon()
            place.release()
            say("abandoned")
        until_input_ends()


def look(path: Path, rounds: int) -> None:
    say("here")
    until_input_ends()
    answers = [tuple(HostDirectory(path).others()) for _ in range(rounds)]
    say(f"{len(set(answers))} {len(answers[0])}")


def identities(place: Place) -> list[int]:
    lock = place.socket_path.with_suffix(".lock")
    return [os.lstat(path).st_ino for path in (lock, place.socket_path, place.control_path)]


def crowd(path: Path, seed: int, rounds: int) -> None:
    chance, directory = random.Random(seed), HostDirectory(path)
    say("here")
    until_input_ends()
    claims = busy = 0
    for _ in range(rounds):
        try:
            place = directory.claim(chance.randrange(POOL))
        except FileExistsError:
            directory.others()
            continue
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            busy += 1
            continue
        claims += 1
        with bound(place):
            mine = identities(place)
            for _ in range(chance.randrange(4)):
                assert place.address not in directory.others()
                assert place.control_path in [Path(address.path) for address in directory.controls()]
                assert identities(place) == mine, "somebody took what is mine"
            if chance.random() < 0.5:
                place.release()
        place.abandon()
    say(f"{claims} {busy}")


if __name__ == "__main__":
    what, where, *rest = sys.argv[1:]
    path, numbers = Path(where), [int(number) for number in rest]
    match what, numbers:
        case "hold", [instance]:
            hold(path, instance)
        case "fork", [instance]:
            fork(path, instance)
        case "look", [rounds]:
            look(path, rounds)
        case "crowd", [seed, rounds]:
            crowd(path, seed, rounds)
        case _:
            raise SystemExit(f"not understood: {sys.argv[1:]}")
