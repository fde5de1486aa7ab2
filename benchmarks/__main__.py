"""All questions, one after the other: what is measured is kept as JSON, and shown as a page with drawings.

Each question has a process of its own, so that none pays for what another left in memory. One that fails, or takes
longer than it may, is on the page as such, and the others are asked all the same. The exit code says whether all
answered.

    python -m benchmarks [--quick] [--only local visible] [--into DIRECTORY]
    python -m benchmarks --render          the page and the drawings anew, from the JSON that is there
    python -m benchmarks --quote           and the figures into README.md; with --render those that are there
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measure import SCHEMA, Result, bytecode, commit, machine
from benchmarks.render import drawing, page, quoted

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
QUESTIONS = (
    "local",
    "operations",
    "visible",
    "sustained",
    "memory",
    "starting",
    "detect",
    "durable",
    "repair",
    "store",
    "relay",
    "growth",
    "flood",
)
PATIENCE = 3600.0  # for one question: the longest takes a quarter of that on a slow machine


def answered(question: str, quick: bool) -> Result:
    """What a question found out, in a process of its own."""
    command = [sys.executable, "-m", f"benchmarks.{question}", "--json", *(["--quick"] if quick else [])]
    begun = time.perf_counter()
    try:
        asked = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent, timeout=PATIENCE, check=True
        )
        return Result.from_dict(json.loads(asked.stdout))
    except (subprocess.SubprocessError, ValueError) as error:
        why = f"{type(error).__name__}: {str(error)[-300:]}"
        return Result(question, question, failed={question: why}, seconds=round(time.perf_counter() - begun, 1))


def versions() -> dict[str, str]:
    """Of everything that is measured, as far as it is here."""
    from benchmarks import ours
    from benchmarks.peers import peers

    here = [peer for peer in (ours.PEER, *peers().values()) if not peer.missing]
    return {name: version for peer in here for name, version in peer.versions.items()}


def written(told: dict[str, Any], into: Path) -> None:
    """The JSON, and what is made from it."""
    into.mkdir(parents=True, exist_ok=True)
    (into / "results.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    results = [Result.from_dict(each) for each in told["questions"]]
    (into / "README.md").write_text(page(told, results), encoding="utf-8")
    for question in QUESTIONS:
        (into / f"{question}.svg").unlink(missing_ok=True)  # of a run before, and no part of this one
    for result in results:
        if result.series:
            (into / f"{result.question}.svg").write_text(drawing(result), encoding="utf-8")


def measured(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """What all questions found out, and which have no answer."""
    told: dict[str, Any] = {"schema": SCHEMA, "quick": options.quick, "at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"}
    told |= {"commit": commit(), "machine": machine(), "versions": versions(), "questions": []}
    failed = []
    for question in options.only or QUESTIONS:
        print(f"{question} ...", end=" ", flush=True)
        result = answered(question, options.quick)
        told["questions"].append(result.as_dict())
        told["machine"]["load after"] = round(os.getloadavg()[0], 2)
        print(f"{result.seconds:.0f} s{'' if result.series else ', FAILED'}", flush=True)
        failed += [] if result.series else [question]
        written(told, options.into)  # after each: what was measured is not lost with the next
    return told, failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a look at everything, in two or three minutes")
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, help="these questions; the page has no others then")
    parser.add_argument(
        "--into", type=Path, help="where the results go: to results, or of a quick look to results/quick"
    )
    parser.add_argument("--render", action="store_true", help="measure nothing")
    parser.add_argument("--quote", action="store_true", help="put the figures into README.md")
    options = parser.parse_args()
    if options.quick and options.quote:
        parser.error("a quick look is too short for figures to quote")
    if options.into is None:  # a quick look must not take the place of figures that were measured for long
        options.into = HERE / "results" / "quick" if options.quick else HERE / "results"
    if options.render:
        told = json.loads((options.into / "results.json").read_text(encoding="utf-8"))
        written(told, options.into)
        failed: list[str] = []
    else:
        with bytecode():  # once for all questions: each would compile the same modules anew
            told, failed = measured(options)
    if options.quote:
        results = [Result.from_dict(each) for each in told["questions"]]
        README.write_text(quoted(README.read_text(encoding="utf-8"), told, results), encoding="utf-8")
    print(f"see {options.into / 'README.md'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
