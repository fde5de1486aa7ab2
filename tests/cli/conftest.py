"""Where do these tests meet nobody but themselves?"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.shell import Daemon, Shell


@pytest.fixture
def shell() -> Iterator[Shell]:
    """A prompt on a host where no node runs."""
    with tempfile.TemporaryDirectory(prefix="gm-") as directory:
        shell = Shell(Path(directory))
        try:
            yield shell
        finally:
            shell.end()


@pytest.fixture
def daemon(shell: Shell) -> Daemon:
    """A node of the cluster `shop`, called `ann`."""
    return shell.daemon()


@pytest.fixture(scope="module")
def town() -> Iterator[Shell]:
    """A prompt on a host where two nodes of the cluster `shop` run, `ann` and `bob`, for all tests of a file."""
    with tempfile.TemporaryDirectory(prefix="gm-") as directory:
        shell = Shell(Path(directory))
        try:
            shell.daemon("ann")
            shell.daemon("bob", "shop", "--tag", "role=store")
            yield shell
        finally:
            shell.end()
