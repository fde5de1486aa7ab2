"""What if another distribution has put its files where ours are?

The package index has others that install a top-level `gossip` or `discovery`. Each story makes a copy of the three
packages, spoils it as such an installation would, and imports it in a fresh interpreter.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    for package in ("crdt", "discovery", "gossip"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def imported(place: Path, *first: Path) -> subprocess.CompletedProcess[str]:
    paths = [str(each) for each in (*first, place)]
    program = f"import sys; sys.path[:0] = {paths!r}; import gossip; print(gossip.__file__)"
    # -P and another directory: neither this checkout nor its editable install may be what is found
    return subprocess.run([sys.executable, "-P", "-c", program], cwd=place, capture_output=True, text=True, check=False)


def test_ours_alone_is_imported(installed: Path) -> None:
    done = imported(installed)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(installed / "gossip" / "__init__.py")


def test_a_foreign_file_among_ours_is_named_with_its_remedy(installed: Path) -> None:
    (installed / "gossip" / "gossip_tokenizer.py").write_text("x = 1\n")
    done = imported(installed)
    assert done.returncode == 1
    assert "gossip_tokenizer.py" in done.stderr and "pip install --force-reinstall" in done.stderr


def test_a_foreign_package_of_our_name_is_named_with_its_remedy(installed: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "elsewhere"
    (foreign / "discovery").mkdir(parents=True)
    (foreign / "discovery" / "__init__.py").write_text("")
    done = imported(installed, foreign)
    assert done.returncode == 1
    assert str(foreign / "discovery") in done.stderr and "pip list" in done.stderr


def test_a_program_called_crdt_py_in_the_way_is_named(installed: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "crdt.py").write_text("")
    done = imported(installed, mine)
    assert done.returncode == 1
    assert "crdt.py of yours stands in the way" in done.stderr
