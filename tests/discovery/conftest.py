"""Where do these tests meet?"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from discovery import HostDirectory, runtime_directory


@pytest.fixture
def short() -> Iterator[Path]:
    """An empty directory of ours; pytest's own has a path too long for sockets."""
    with tempfile.TemporaryDirectory(prefix="gm-") as path:
        yield Path(path)


@pytest.fixture
def directory(short: Path) -> HostDirectory:
    return HostDirectory(runtime_directory("shop", short))
