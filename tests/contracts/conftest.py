"""Each story of a contract is played over every kind of end, in every loop."""

from __future__ import annotations

import pytest

from tests.contracts.ends import KINDS, LOOPS, Play, play


@pytest.fixture(params=[f"{kind}-{loop}" for kind in KINDS for loop in LOOPS])
def run(request: pytest.FixtureRequest) -> Play:
    kind, _, loop = request.param.partition("-")
    return lambda story: play(kind, loop, story)
