"""Where do the workers of one test meet? In a cluster of their own."""

import secrets
from collections.abc import Iterator

import pytest

from tests.integration.lan import Lan, lan_of
from tests.integration.processes import Host, host


@pytest.fixture
def cluster() -> str:
    return f"test-{secrets.token_hex(4)}"


@pytest.fixture
def here(cluster: str) -> Iterator[Host]:
    with host(cluster) as made:
        yield made


@pytest.fixture
def lan(here: Host) -> Iterator[Lan]:
    with lan_of(here) as made:
        yield made
