"""Is there a bug behind bytes that nobody has tried yet? `make fuzz` runs every target a million times in all.

    python -m tests.fuzz                        all targets, by atheris where it is installed
    python -m tests.fuzz messages --runs 5000   one of them
    python -m tests.fuzz messages --file F      what was found, once more
    python -m tests.fuzz --corpus               writes tests/fuzz/corpus anew, from what nodes say now

Atheris watches which lines are reached and keeps what reaches new ones; without it (it has no wheels for every Python)
the seeded part of the ordinary tests goes on for as long. What is found is left in tests/fuzz/found, to be replayed,
shrunk, and made a named example.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from tests.fuzz.mutation import LONGEST, bent

HERE = Path(__file__).parent
CORPUS, FOUND = HERE / "corpus", HERE / "found"
ROOT = HERE.parent.parent
SHARES = {
    "messages": 350_000, "batches": 150_000, "states": 150_000, "frames": 100_000, "seals": 50_000,
    "requests": 50_000, "snapshots": 100_000, "tokens": 50_000,
}  # fmt: skip
"""Of a million: the most where strangers come first, the fewest where each takes a millisecond."""
_MEMORY = 1024
"""MiB of the whole process: what takes more is a bomb that went off."""
_HANG = 10
"""Seconds for one execution."""


def write_corpus() -> None:
    """Writes the seeds of every target, one a file, in place of those that were there."""
    from tests.fuzz.targets import TARGETS

    for name, make in TARGETS.items():
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        target = make()
        for number, seed in enumerate(target.seeds()):
            (folder / f"{number:03}").write_bytes(seed)
        target.close()


def seeded(name: str, runs: int, seed: int, seconds: float = float("inf")) -> tuple[int, int]:
    """Runs a target on what one seed makes; gives how often, and how many were taken. What fails is kept."""
    from tests.fuzz.targets import TARGETS

    target, chance, begun = TARGETS[name](), Random(seed), time.monotonic()
    done = 0
    try:
        seeds = target.seeds()
        for done in range(1, runs + 1):
            data = seeds[done - 1] if done <= len(seeds) else bent(chance.choice(seeds), chance, seeds)
            try:
                target.run(data)
            except BaseException:
                FOUND.mkdir(exist_ok=True)
                kept = FOUND / f"{name}-{seed}-{done}"
                kept.write_bytes(data)
                print(f"found after {done} runs: python -m tests.fuzz {name} --file {kept}", file=sys.stderr)
                raise
            if time.monotonic() - begun > seconds:
                break
        return done, target.taken
    finally:
        target.close()


def replay(name: str, file: Path) -> None:
    """Gives a target what was found, once."""
    from tests.fuzz.targets import TARGETS

    target = TARGETS[name]()
    try:
        target.run(file.read_bytes())
    finally:
        target.close()


def guided(name: str, runs: int, seed: int) -> None:
    """Has atheris run a target. Does not return: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["crdt", "discovery", "gossip"]):
        from tests.fuzz.targets import TARGETS

        target = TARGETS[name]()
    chance = Random(seed)

    def mutate(data: bytes, longest: int, number: int) -> bytes:
        if number % 2:
            return bytes(atheris.Mutate(data, longest))
        return bent(data, Random(number))[:longest]

    arguments = [
        f"-runs={runs}",
        f"-seed={chance.randrange(1, 1 << 31)}",
        f"-max_len={LONGEST}",
        "-print_final_stats=1",
    ]
    arguments += [f"-rss_limit_mb={_MEMORY}", f"-timeout={_HANG}", f"-artifact_prefix={FOUND}/{name}-"]
    new = tempfile.mkdtemp(prefix="gm-")  # libFuzzer writes what reaches new lines into the first folder
    atheris.Setup([name, *arguments, new, str(CORPUS / name)], target.run, custom_mutator=mutate)
    atheris.Fuzz()


def _run_guided(name: str, runs: int, seed: int) -> tuple[int, bool]:
    """In a process of its own, which libFuzzer ends; gives how often it ran, and whether it found nothing."""
    FOUND.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.fuzz", name, "--guided", "--runs", str(runs), "--seed", str(seed)]
    with tempfile.TemporaryDirectory(prefix="gm-") as place:  # libFuzzer lets nobody clear up after himself
        world = {**os.environ, "TMPDIR": place}
        done = subprocess.run(
            command, cwd=ROOT, env=world, capture_output=True, text=True, errors="replace", check=False
        )
    said = done.stdout + done.stderr
    counted = re.search(r"number_of_executed_units: *([0-9]+)", said) or re.search(r"Done ([0-9]+) runs", said)
    clean = done.returncode == 0
    if not clean:
        print(said[-6000:], file=sys.stderr)
    return int(counted[1]) if counted else 0, clean


def main() -> int:
    """Runs what was asked for; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Feeds every parser with what nobody would write."
    )
    parser.add_argument("target", nargs="*", choices=[*SHARES, []], help="all of them if none is named")
    parser.add_argument("--runs", type=int, help="of each target; a million in all if not given")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--file", type=Path, help="run this once")
    parser.add_argument("--seeded", action="store_true", help="without atheris")
    parser.add_argument("--guided", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--corpus", action="store_true", help="write the corpus anew")
    asked = parser.parse_args()
    if asked.corpus:
        write_corpus()
        return 0
    names = asked.target or list(SHARES)
    if asked.file:
        replay(names[0], asked.file)
        return 0
    if asked.guided:
        guided(names[0], asked.runs, asked.seed)
    has_atheris = importlib.util.find_spec("atheris") is not None and not asked.seeded
    if not has_atheris and not asked.seeded:
        print(f"no atheris for Python {sys.version.split()[0]} on this platform: the seeded part does it all")
    total, clean = 0, True
    for name in names:
        runs, begun = asked.runs or SHARES[name], time.monotonic()
        if has_atheris:
            done, good = _run_guided(name, runs, asked.seed)
        else:
            done, good = seeded(name, runs, asked.seed)[0], True
        total, clean = total + done, clean and good
        print(
            f"{name:10} {done:>9,} runs in {time.monotonic() - begun:5.0f} s  {'clean' if good else 'FOUND SOMETHING'}",
            flush=True,
        )
    print(f"{total:,} runs in all: {'clean' if clean else 'see tests/fuzz/found'}")
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
