"""Do the nodes of one host find the living, all of them and nobody else, and is no other user let in?

Real directories, locks, forks and killed processes; `neighbour.py` is the worker next door.
"""

import contextlib
import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from discovery import MOST_ENTRIES, Address, HostDirectory, Place, UnsafeDirectory

ROOT = Path(__file__).parents[2]
DEADLINE = 30.0


@contextlib.contextmanager
def neighbour(what: str, path: Path, *numbers: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process next door; what is left of it is ended with the test."""
    command = [sys.executable, "-m", "tests.discovery.neighbour", what, str(path), *map(str, numbers)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, bufsize=0) as process:
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
    return sorted(os.listdir(directory.path)) if directory.path.exists() else []


# --- places -------------------------------------------------------------------------------------------------


def test_a_place_is_three_files_and_leaves_none(directory: HostDirectory) -> None:
    place = directory.claim(0xABC)
    with bound(place):
        assert files(directory) == [f"0000000000000abc.{kind}" for kind in ("ctl", "lock", "sock")]
        assert place.address == sock(directory, 0xABC)
        assert place.instance == 0xABC
        held = place.held
    place.release()
    assert (held, place.held) == (True, False)
    assert files(directory) == []


def test_the_last_to_leave_removes_the_directory(directory: HostDirectory) -> None:
    with directory.claim(1), directory.claim(2):
        pass
    assert not directory.path.exists(), "a cluster a test run would leave one for ever"
    with directory.claim(3):
        assert directory.path.exists()


# --- ends ---------------------------------------------------------------------------------------------------


def test_the_end_of_a_killed_process_is_proved(directory: HostDirectory) -> None:
    with directory.claim(1), neighbour("hold", directory.path, 7) as process:
        assert line(process) == "held"
        witness = directory.witness(sock(directory, 7))
        assert witness is not None and not witness.ended
        kill(process)
        assert witness.ended
        directory.others()
        assert witness.ended and files(directory) == [f"{1:016x}.lock"], "swept by now, and still proved"


def test_looking_does_not_take_the_lock_from_its_owner(directory: HostDirectory) -> None:
    with directory.claim(7) as place:
        witness = directory.witness(place.address)
        assert witness is not None and not witness.ended
        with pytest.raises(FileExistsError):
            HostDirectory(directory.path).claim(7)


def test_of_sockets_elsewhere_nothing_is_proved(directory: HostDirectory, tmp_path: Path) -> None:
    """Hosts and containers often have their runtime directories under one path: a node of another one, which has no
    file here, was declared dead by proof at every stream that was reset."""
    with directory.claim(1):
        assert directory.witness(sock(directory, 7)) is None
        assert directory.witness(Address(path=str(tmp_path / f"{1:016x}.sock"))) is None
        assert directory.witness(Address(path=str(directory.path / f"{1:016x}.ctl"))) is None


def test_files_that_somebody_removed_prove_no_end(directory: HostDirectory) -> None:
    """A cleaner of temporary directories took all files of a running cluster: every neighbour looked dead."""
    with directory.claim(1) as place, neighbour("hold", directory.path, 7) as process:
        assert line(process) == "held"
        witness = directory.witness(sock(directory, 7))
        for name in files(directory):
            (directory.path / name).unlink()
        assert witness is not None and not witness.ended and not place.listed
        assert directory.witness(sock(directory, 7)) is None
        kill(process)
        assert witness.ended


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
    assert directory.others() == []


def test_a_directory_or_a_pipe_in_the_place_of_a_lock_stops_nobody(directory: HostDirectory) -> None:
    (directory.path / f"{1:016x}.lock").mkdir()
    os.mkfifo(directory.path / f"{2:016x}.lock")
    for instance in (1, 2):
        with pytest.raises(UnsafeDirectory, match="lock file"):
            directory.claim(instance)
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


# --- who lives ----------------------------------------------------------------------------------------------


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


def test_a_stopped_looker_does_not_hold_up_a_claim(directory: HostDirectory) -> None:
    lock = directory.path / f"{1:016x}.lock"
    with lock.open("w") as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        with directory.claim(1) as place, bound(place):
            assert HostDirectory(directory.path).others() == [place.address]
            assert lock.stat().st_ino != os.fstat(looked_at.fileno()).st_ino


def test_a_stopped_sweeper_holds_up_nobody_but_the_sweeping(directory: HostDirectory) -> None:
    lock = directory.path / f"{1:016x}.lock"
    lock.touch()
    sweeper = os.open(directory.path, os.O_RDONLY)
    try:
        fcntl.flock(sweeper, fcntl.LOCK_EX)
        with directory.claim(2) as place, bound(place):
            assert HostDirectory(directory.path).others() == [place.address]
        assert lock.exists()
        with lock.open() as looked_at:
            fcntl.flock(looked_at, fcntl.LOCK_SH)
            with pytest.raises(OSError, match="claim another instance"):
                directory.claim(1)
    finally:
        os.close(sweeper)
    assert directory.others() == []
    assert not lock.exists()


# --- forks --------------------------------------------------------------------------------------------------


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


# --- crowds -------------------------------------------------------------------------------------------------


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
        assert [line(looker) for looker in lookers] == ["1 10"] * 5, "exact at each look, while others sweep"
        assert set(directory.others()) == {sock(directory, instance) for instance in range(1, 20, 2)}
        assert len(files(directory)) == 30
