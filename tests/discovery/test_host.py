"""Do the nodes of one host find the living, all of them and nobody else, and is no other user let in?

Real directories, locks, forks and killed processes; `neighbour.py` is the worker next door.
"""

import contextlib
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from discovery import MOST_ENTRIES, Address, HostDirectory, Place, UnsafeDirectory, runtime_directory

ROOT = Path(__file__).parents[2]
DEADLINE = 30.0

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")


@pytest.fixture
def short() -> Iterator[Path]:
    """An empty directory of ours; pytest's own has a path too long for sockets."""
    with tempfile.TemporaryDirectory(prefix="gm-") as path:
        yield Path(path)


@pytest.fixture
def directory(short: Path) -> HostDirectory:
    return HostDirectory(runtime_directory("shop", short))


@contextlib.contextmanager
def neighbour(what: str, path: Path, *numbers: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process next door; what is left of it is ended with the test."""
    command = [sys.executable, "-m", "tests.discovery.neighbour", what, str(path), *map(str, numbers)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(DEADLINE)
            process.kill()


def line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], DEADLINE)
    assert ready, "the neighbour says nothing"
    return process.stdout.readline().decode().strip()


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    assert process.wait(DEADLINE) == -signal.SIGKILL


@contextlib.contextmanager
def bound(place: Place) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as peers, socket.socket(socket.AF_UNIX) as control:
        peers.bind(str(place.socket_path))
        control.bind(str(place.control_path))
        yield


def sock(directory: HostDirectory, instance: int) -> Address:
    return Address(path=str(directory.path / f"{instance:016x}.sock"))


def files(directory: HostDirectory) -> list[str]:
    return sorted(os.listdir(directory.path))


# --- the directory ------------------------------------------------------------------------------------------------


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
    ("trap", "complaint"),
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
def test_a_directory_prepared_by_somebody_else_is_refused(short: Path, level: str, trap: str, complaint: str) -> None:
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
    with pytest.raises(UnsafeDirectory, match=complaint) as caught:
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
    ("mode", "complaint"), [(0o777, "written to by others"), (0o775, "written to by others"), (0o1777, None)]
)
def test_a_configured_directory_must_keep_ours_in_its_place(short: Path, mode: int, complaint: str | None) -> None:
    base = short / "b"
    base.mkdir()
    base.chmod(mode)
    if complaint is None:
        assert runtime_directory("shop", base).is_dir()
        return
    with pytest.raises(UnsafeDirectory, match=complaint):
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


# --- names of clusters ---------------------------------------------------------------------------------------------


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
    alike = ["shop", "Shop", "SHOP", "shop ", "shop/", "./shop", "shop\0", "sh-op", "s\u0068op\u0301", "shoṕ", "x" * 99]
    alike += ["x" * 100, "日本", "日", "-", "--", "é", "e\u0301"]
    assert len({runtime_directory(cluster, short) for cluster in alike}) == len(alike)


def test_a_cluster_can_be_recognised_in_its_directory(short: Path) -> None:
    assert runtime_directory("Crème brûlée!", short).name.startswith("creme-brulee-")


def test_a_cluster_without_a_name_is_refused(short: Path) -> None:
    with pytest.raises(ValueError, match="needs a name"):
        runtime_directory("", short)


# --- places --------------------------------------------------------------------------------------------------------


def test_a_place_is_three_files_and_leaves_none(directory: HostDirectory) -> None:
    place = directory.claim(0xABC)
    with bound(place):
        assert files(directory) == [f"0000000000000abc.{kind}" for kind in ("ctl", "lock", "sock")]
        assert place.address == sock(directory, 0xABC)
        assert place.held
        assert place.instance == 0xABC
    place.release()
    assert not place.held
    assert files(directory) == []


def test_releasing_twice_does_not_touch_the_next_owner(directory: HostDirectory) -> None:
    first = directory.claim(1)
    first.release()
    with directory.claim(1) as second, bound(second):
        first.release()
        first.abandon()
        assert HostDirectory(directory.path).others() == [second.address]


def test_a_place_can_be_had_once(directory: HostDirectory) -> None:
    with directory.claim(1), pytest.raises(FileExistsError, match="living process"):
        HostDirectory(directory.path).claim(1)
    HostDirectory(directory.path).claim(1).release()


@pytest.mark.parametrize("instance", [-1, 2**64])
def test_an_instance_has_64_bits(directory: HostDirectory, instance: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        directory.claim(instance)


def test_a_lock_does_not_outlive_an_exec(directory: HostDirectory) -> None:
    with directory.claim(1) as place:
        descriptors = [int(name) for name in os.listdir("/dev/fd")]
        inode = place.socket_path.with_suffix(".lock").stat().st_ino
        ours = [fd for fd in descriptors if os.path.exists(f"/dev/fd/{fd}") and os.fstat(fd).st_ino == inode]
        assert len(ours) == 1
        assert not os.get_inheritable(ours[0])


def test_a_link_in_the_place_of_a_lock_is_not_followed(directory: HostDirectory, short: Path) -> None:
    victim = short / "victim"
    lock = directory.path / f"{1:016x}.lock"
    lock.symlink_to(victim)
    with pytest.raises(UnsafeDirectory, match="lock file"):
        directory.claim(1)
    assert not victim.exists()
    for make in (lock.mkdir, lambda: os.mkfifo(lock)):
        lock.unlink() if lock.is_symlink() else lock.rmdir()
        make()
        with pytest.raises(UnsafeDirectory, match="lock file"):
            directory.claim(1)
        assert directory.others() == []


def test_a_vanished_directory_is_empty_and_is_made_anew_by_a_claim(directory: HostDirectory) -> None:
    place = directory.claim(1)
    for name in files(directory):
        (directory.path / name).unlink()
    directory.path.rmdir()
    assert directory.others() == directory.controls() == []
    place.release()
    with directory.claim(2) as again, bound(again):
        assert directory.controls() == [Address(path=str(again.control_path))]


def test_a_place_whose_lock_a_stranger_removed_leaves_the_next_owner_alone(directory: HostDirectory) -> None:
    first = directory.claim(1)
    (directory.path / f"{1:016x}.lock").unlink()
    with directory.claim(1) as second, bound(second):
        first.release()
        assert HostDirectory(directory.path).others() == [second.address]


def test_looking_keeps_our_files_young_for_cleaners_and_old_in_order(directory: HostDirectory) -> None:
    with directory.claim(1) as place:
        lock = place.socket_path.with_suffix(".lock")
        os.utime(lock, ns=(10**9, 10**9))
        directory.others()
        assert lock.stat().st_atime > 10**9
        assert lock.stat().st_mtime_ns == 10**9


# --- who lives -----------------------------------------------------------------------------------------------------


def test_nodes_see_each_other_but_not_themselves(directory: HostDirectory) -> None:
    with neighbour("hold", directory.path, 7) as other:
        assert line(other) == "held"
        with directory.claim(1) as mine, bound(mine):
            assert directory.others() == [sock(directory, 7)]
            assert HostDirectory(directory.path).others() == [sock(directory, 7), mine.address]
            assert [Path(address.path).suffix for address in directory.controls()] == [".ctl", ".ctl"]
    assert directory.others() == []


def test_two_nodes_of_one_process_see_each_other(directory: HostDirectory) -> None:
    second = HostDirectory(directory.path)
    with directory.claim(1) as one, second.claim(2) as two, bound(one), bound(two):
        assert directory.others() == [two.address]
        assert second.others() == [one.address]


def test_a_place_not_bound_yet_is_neither_listed_nor_swept(directory: HostDirectory) -> None:
    with directory.claim(1) as place:
        other = HostDirectory(directory.path)
        assert other.others() == other.controls() == []
        assert files(directory) == [f"{1:016x}.lock"]
        with bound(place):
            assert other.others() == [place.address]


def test_control_sockets_come_oldest_first(directory: HostDirectory) -> None:
    with contextlib.ExitStack() as stack:
        for age, instance in ((30, 3), (10, 1), (20, 2), (20, 9)):
            place = stack.enter_context(directory.claim(instance))
            stack.enter_context(bound(place))
            os.utime(place.socket_path.with_suffix(".lock"), ns=(age, age))
        names = [Path(address.path).stem for address in HostDirectory(directory.path).controls()]
        assert [int(name, 16) for name in names] == [1, 2, 9, 3]


def test_the_files_of_a_killed_process_are_swept(directory: HostDirectory) -> None:
    with neighbour("hold", directory.path, 7) as dead, neighbour("hold", directory.path, 8) as living:
        assert line(dead) == line(living) == "held"
        kill(dead)
        assert len(files(directory)) == 6
        assert directory.others() == [sock(directory, 8)]
        assert files(directory) == [f"{8:016x}.{kind}" for kind in ("ctl", "lock", "sock")]


def test_the_command_line_sweeps_as_well(directory: HostDirectory) -> None:
    with neighbour("hold", directory.path, 7) as dead:
        assert line(dead) == "held"
        kill(dead)
        assert directory.controls() == []
        assert files(directory) == []


def test_a_dead_process_s_place_can_be_had_again(directory: HostDirectory) -> None:
    with neighbour("hold", directory.path, 7) as dead:
        assert line(dead) == "held"
        kill(dead)
        with directory.claim(7) as place, bound(place):
            assert HostDirectory(directory.path).others() == [place.address]


def test_foreign_files_are_left_alone(directory: HostDirectory, short: Path) -> None:
    for name in (
        "notes.txt",
        "1.lock",
        "0" * 16,
        "A" * 16 + ".lock",
        "0" * 16 + ".lock\n",
        "0" * 16 + ".sock",
        ".lock",
    ):
        (directory.path / name).touch()
    (directory.path / ("1" * 16 + ".lock")).mkdir()
    (directory.path / ("2" * 16 + ".lock")).symlink_to(short)
    os.mkfifo(directory.path / ("3" * 16 + ".lock"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory.path / ("4" * 16 + ".lock")))
        before = files(directory)
        assert directory.others() == directory.controls() == []
        assert files(directory) == before


def test_what_cannot_be_removed_does_not_hide_the_living(directory: HostDirectory) -> None:
    (directory.path / f"{1:016x}.lock").touch()
    (directory.path / f"{1:016x}.sock").mkdir()
    with directory.claim(2) as place, bound(place):
        assert HostDirectory(directory.path).others() == [place.address]


def test_a_look_ends_and_says_so(directory: HostDirectory) -> None:
    for number in range(MOST_ENTRIES):
        (directory.path / f"junk{number}").touch()
    directory.others()
    assert directory.truncated == 0
    (directory.path / "one more").touch()
    directory.others()
    directory.controls()
    assert directory.truncated == 2


def test_looking_leaks_no_descriptor(directory: HostDirectory) -> None:
    before = len(os.listdir("/dev/fd"))
    with directory.claim(1) as place, bound(place):
        for _ in range(20):
            (directory.path / f"{2:016x}.lock").touch()
            assert HostDirectory(directory.path).others() == [place.address]
            with pytest.raises(FileExistsError):
                HostDirectory(directory.path).claim(1)
    assert len(os.listdir("/dev/fd")) == before


# --- forks ---------------------------------------------------------------------------------------------------------


def test_a_forked_child_that_abandons_does_not_free_its_parent_s_place(directory: HostDirectory) -> None:
    with directory.claim(1) as place, bound(place):
        for let_go in (place.abandon, place.release):
            child = os.fork()
            if child == 0:
                try:
                    let_go()
                    os._exit(0 if HostDirectory(directory.path).others() == [place.address] else 1)
                finally:
                    os._exit(2)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert HostDirectory(directory.path).others() == [place.address]
            with pytest.raises(FileExistsError):
                HostDirectory(directory.path).claim(1)


def test_a_forked_child_that_abandoned_sees_its_parent_as_another(directory: HostDirectory) -> None:
    with directory.claim(1) as place, bound(place):
        child = os.fork()
        if child == 0:
            try:
                place.abandon()
                os._exit(0 if directory.others() == [place.address] else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_child_that_abandoned_does_not_keep_its_killed_parent_alive(directory: HostDirectory) -> None:
    with neighbour("fork", directory.path, 7) as parent:
        assert line(parent) == "abandoned"
        assert directory.others() == [sock(directory, 7)]
        kill(parent)
        assert directory.others() == []
        assert files(directory) == []


# --- crowds --------------------------------------------------------------------------------------------------------


def test_twenty_processes_that_claim_and_sweep_never_sweep_a_living_one(directory: HostDirectory) -> None:
    settled = range(100, 103)
    with contextlib.ExitStack() as stack:
        for instance in settled:
            assert line(stack.enter_context(neighbour("hold", directory.path, instance))) == "held"
        crowd = [stack.enter_context(neighbour("crowd", directory.path, seed, 150)) for seed in range(20)]
        for process in crowd:
            assert line(process) == "here"
        for process in crowd:
            assert process.stdin is not None
            process.stdin.close()  # the signal to start
        answers = [line(process) for process in crowd]
        assert [process.wait(DEADLINE) for process in crowd] == [0] * 20, "see what they say on stderr"
        claims = sum(int(answer.split()[0]) for answer in answers)
        assert claims > 100, f"too few places changed hands to show anything: {claims}"
        assert set(directory.others()) == {sock(directory, instance) for instance in settled}
    assert directory.others() == []
    assert files(directory) == []


def test_many_killed_at_once_are_swept_by_many_at_once_and_listed_by_none(directory: HostDirectory) -> None:
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(neighbour("hold", directory.path, instance)) for instance in range(20)]
        assert [line(node) for node in nodes] == ["held"] * 20
        for node in nodes[::2]:
            node.send_signal(signal.SIGKILL)
        for node in nodes[::2]:
            assert node.wait(DEADLINE) == -signal.SIGKILL
        lookers = [stack.enter_context(neighbour("look", directory.path, 50)) for _ in range(5)]
        assert [line(looker) for looker in lookers] == ["here"] * 5
        for looker in lookers:
            assert looker.stdin is not None
            looker.stdin.close()  # the signal to start
        assert [line(looker) for looker in lookers] == ["1 10"] * 5, "exact from the first look on, while others sweep"
        assert set(directory.others()) == {sock(directory, instance) for instance in range(1, 20, 2)}
        assert len(files(directory)) == 30
