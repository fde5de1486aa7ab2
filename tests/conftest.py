"""What holds for every test? How hard Hypothesis tries, and that no test meets a node that is not its own.

Hypothesis: `ci` (the default) is the same on every run, so a red build is red for everybody; `long` searches anew
each time and far longer (HYPOTHESIS_PROFILE=long make test). What `long` finds becomes an `@example` with its story.
"""

import os
import shutil
import tempfile

import hypothesis
import pytest

# No deadline in either: a slow machine is not a bug, and pytest-timeout catches what hangs.
hypothesis.settings.register_profile("ci", derandomize=True, max_examples=60, deadline=None, database=None)
hypothesis.settings.register_profile("long", max_examples=5_000, deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

_world = pytest.MonkeyPatch()


def pytest_configure(config: pytest.Config) -> None:
    """Give the whole run, docstring examples and child processes included, a runtime directory of its own.

    A fixture would not do: it does not reach the examples in the packages. The path is short on purpose, since
    the path of a unix socket ends at about 100 bytes.
    """
    for name in [name for name in os.environ if name.startswith("GOSSAMESH_")]:
        _world.delenv(name)
    _world.setenv("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="gm-"))


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(os.environ["XDG_RUNTIME_DIR"], ignore_errors=True)
    _world.undo()
