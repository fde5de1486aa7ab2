"""Is the directory in which nodes meet ours alone, whatever lies there and whatever the cluster is called?"""

import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from discovery import HostDirectory, UnsafeDirectory, runtime_directory

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")


# --- the directory ------------------------------------------------------------------------------------------


def test_the_directory_is_private_and_the_same_each_time(short: Path) -> None:
    path = runtime_directory("shop", short)
    assert path == runtime_directory("shop", short)
    assert path.parent == short / "gossamesh"
    for made in (path, path.parent):
        assert stat.S_IMODE(made.lstat().st_mode) == 0o700


def test_a_loose_umask_does_not_open_the_directory(short: Path) -> None:
    before = os.umask(0)
    try:
        path = runtime_directory("shop", short / "made")
    finally:
        os.umask(before)
    for made in (path, path.parent, short / "made"):
        assert stat.S_IMODE(made.lstat().st_mode) == 0o700


def test_the_environment_says_where(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configured, session, temporary = short / "c", short / "s", short / "t"
    for path in (session, temporary):
        path.mkdir(0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("GOSSAMESH_RUNTIME_DIR", str(configured))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(session))
    assert runtime_directory("shop").is_relative_to(configured / "gossamesh")
    monkeypatch.setenv("GOSSAMESH_RUNTIME_DIR", "")
    assert runtime_directory("shop").is_relative_to(session / "gossamesh")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    private = temporary / f"gossamesh-{os.geteuid()}"
    assert runtime_directory("shop").is_relative_to(private / "gossamesh")
    assert stat.S_IMODE(private.lstat().st_mode) == 0o700


@pytest.mark.parametrize("session", ["relative", "missing", "0777", "theirs"])
def test_a_session_directory_that_is_not_really_ours_is_passed_over(
    session: str, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = short / "s"
    match session:
        case "0777":
            path.mkdir()
            path.chmod(0o777)
        case "theirs":
            if os.geteuid() != 0:
                pytest.skip("only root can give a directory to another user")
            path.mkdir(0o700)
            os.chown(path, 12345, 12345)
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    monkeypatch.setenv("XDG_RUNTIME_DIR", "s" if session == "relative" else str(path))
    assert runtime_directory("shop").is_relative_to(short / f"gossamesh-{os.geteuid()}")


@pytest.mark.parametrize("level", ["gossamesh", "gossamesh/cluster"])
@pytest.mark.parametrize(
    ("trap", "words"),
    [
        ("symbolic link", "is a symbolic link"),
        ("dangling link", "is a symbolic link"),
        ("file", "is no directory"),
        ("0777", r"written to by others \(777\)"),
        ("0770", r"written to by others \(770\)"),
        ("1777", r"written to by others \(1777\)"),
        pytest.param("theirs", "belongs to uid 12345", marks=only_root),
    ],
)
def test_a_directory_prepared_by_others_is_refused(short: Path, level: str, trap: str, words: str) -> None:
    path = runtime_directory("shop", short)
    path.rmdir()
    if level == "gossamesh":
        path = path.parent
        path.rmdir()
    elsewhere = short / "elsewhere"
    match trap:
        case "symbolic link":
            elsewhere.mkdir(0o700)
            path.symlink_to(elsewhere)
        case "dangling link":
            path.symlink_to(elsewhere)
        case "file":
            path.touch()
        case "theirs":
            path.mkdir(0o700)
            os.chown(path, 12345, 12345)
        case mode:
            path.mkdir()
            path.chmod(int(mode, 8))
    with pytest.raises(UnsafeDirectory, match=words) as caught:
        runtime_directory("shop", short)
    assert "GOSSAMESH_RUNTIME_DIR" in str(caught.value)
    assert caught.value.filename == str(path)


@only_root
def test_a_directory_of_root_is_refused_to_another_user(short: Path) -> None:
    path = runtime_directory("shop", short)
    for level in (path, path.parent, short):
        level.chmod(0o755)
    child = os.fork()  # not a new process: another user need not be able to read the interpreter
    if child == 0:
        try:
            os.setuid(12345)
            for ask in (HostDirectory(path).others, lambda: HostDirectory(path).claim(1)):
                with pytest.raises(UnsafeDirectory, match="belongs to uid 0, we are 12345"):
                    ask()
            os._exit(0)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_directory_exchanged_later_is_noticed(directory: HostDirectory, short: Path) -> None:
    moved = short / "moved"
    directory.path.rename(moved)
    directory.path.symlink_to(moved)
    for ask in (directory.others, directory.controls, lambda: directory.claim(1)):
        with pytest.raises(UnsafeDirectory, match="symbolic link"):
            ask()
    directory.path.unlink()
    moved.rename(directory.path)
    directory.path.chmod(0o777)
    with pytest.raises(UnsafeDirectory, match="written to by others"):
        directory.others()


@pytest.mark.parametrize(
    ("mode", "words"), [(0o777, "written to by others"), (0o775, "written to by others"), (0o1777, None)]
)
def test_a_configured_directory_must_keep_ours_in_place(short: Path, mode: int, words: str | None) -> None:
    base = short / "b"
    base.mkdir()
    base.chmod(mode)
    if words is None:
        assert runtime_directory("shop", base).is_dir()
        return
    with pytest.raises(UnsafeDirectory, match=words):
        runtime_directory("shop", base)
    assert runtime_directory("shop", base / "inside").is_dir(), "as the message advises"


@only_root
def test_a_configured_directory_of_another_user_is_refused(short: Path) -> None:
    os.chown(short, 12345, 12345)
    with pytest.raises(UnsafeDirectory, match="another user"):
        runtime_directory("shop", short)


def test_a_directory_that_cannot_be_made_names_the_remedy(short: Path) -> None:
    with pytest.raises(FileNotFoundError, match="GOSSAMESH_RUNTIME_DIR"):
        runtime_directory("shop", short / "no" / "such")
    (short / "file").touch()
    with pytest.raises(UnsafeDirectory, match="not a directory"):
        runtime_directory("shop", short / "file")
    with pytest.raises(ValueError, match="not absolute"):
        runtime_directory("shop", Path("here"))


def test_too_long_a_directory_names_the_remedy_and_makes_nothing(short: Path) -> None:
    base = short / ("x" * 60)
    with pytest.raises(OSError, match="GOSSAMESH_RUNTIME_DIR") as caught:
        runtime_directory("shop", base)
    assert "File name too long" in os.strerror(caught.value.errno or 0)
    assert not base.exists()
    with pytest.raises(OSError, match="GOSSAMESH_RUNTIME_DIR"):
        HostDirectory(base / ("y" * 60))


def test_a_path_that_no_address_could_name_is_refused_at_once(short: Path) -> None:
    for path in (Path("relative"), short / "a\nb", short / "a\udcffb"):
        with pytest.raises(ValueError, match="cannot use"):
            HostDirectory(path)


# --- names of clusters --------------------------------------------------------------------------------------


@given(st.text(st.characters(), min_size=1, max_size=50))
@example("../../x")
@example("/etc/passwd")
@example(".")
@example("..")
@example("a\0b")
@example("\n")
@example(" ")
@example("日本語")
@example("Ünïcödé")
@example("\ud800")
@example("-rf")
@example("x" * 10_000)
def test_any_cluster_has_one_short_safe_directory(cluster: str) -> None:
    with tempfile.TemporaryDirectory(prefix="gm-") as base:
        path = runtime_directory(cluster, Path(base))
        assert path.resolve() == Path(base, "gossamesh").resolve() / path.name
        assert len(path.name) <= 29
        assert set(path.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert not path.name.startswith("-")
        HostDirectory(path).claim(2**64 - 1).release()


def test_different_clusters_never_share_a_directory(short: Path) -> None:
    alike = ["shop", "Shop", "SHOP", "shop ", "shop/", "./shop", "shop\0", "sh-op", "shop\u0301", "sho\u1e55"]
    alike += ["x" * 99, "x" * 100, "日本", "日", "-", "--", "é", "e\u0301"]
    assert len({runtime_directory(cluster, short) for cluster in alike}) == len(alike)


def test_a_cluster_can_be_recognised_in_its_directory(short: Path) -> None:
    assert runtime_directory("Crème brûlée!", short).name.startswith("creme-brulee-")


def test_a_cluster_without_a_name_is_refused(short: Path) -> None:
    with pytest.raises(ValueError, match="needs a name"):
        runtime_directory("", short)
