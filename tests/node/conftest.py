"""Where do the nodes of one test meet? In a cluster of their own."""

import secrets

import pytest


@pytest.fixture
def cluster() -> str:
    return f"test-{secrets.token_hex(4)}"
