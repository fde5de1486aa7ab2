"""Which node is asked: of which cluster, which one of it, and what if it does not answer?"""

import os
import signal
import time

from discovery import HostDirectory, clusters, runtime_directory
from tests.cli.shell import Shell, until


def test_without_a_node_it_says_how_to_start_one(shell: Shell) -> None:
    result = shell.run("get", "flags")
    assert (result.code, result.out) == (3, "")
    assert "gossip run -c shop" in result.err
    named = shell.run("members", "-c", "bank", "--json")
    assert (named.code, named.error["kind"]) == (3, "no node")
    assert "gossip run -c bank" in named.error["error"]
    assert os.listdir(shell.directory) == []  # whoever only asks leaves nothing behind


def test_the_only_cluster_needs_no_name_and_of_several_one_is_named(shell: Shell) -> None:
    shell.daemon("ann", "shop")
    runtime_directory("long gone", shell.directory)
    assert shell.json("status")["cluster"] == "shop"
    shell.daemon("bea", "bank & sons")
    several = shell.run("status", "--json")
    assert (several.code, several.error["kind"]) == (3, "several clusters")
    assert "'bank & sons' | 'shop'" in several.error["error"]
    assert shell.json("status", "-c", "bank & sons")["name"] == "bea"
    assert '"name": "ann"' in shell.run("status", "--json", GOSSAMESH_CLUSTER="shop").out
    other = shell.run("status", "-c", "shpo")
    assert other.code == 3
    assert "'bank & sons', 'shop'" in other.err


def test_the_oldest_is_asked_unless_another_is_named(shell: Shell) -> None:
    ann, bob, twin = shell.daemon("ann"), shell.daemon("bob"), shell.daemon("bob")
    assert shell.json("status")["instance"] == ann.instance
    assert shell.json("status", "--node", twin.instance)["instance"] == twin.instance
    both = shell.run("status", "--node", "bob")
    assert both.code == 3
    assert bob.instance in both.err
    assert twin.instance in both.err
    nobody = shell.run("status", "--node", "cid")
    assert nobody.code == 3
    assert "'ann'" in nobody.err


def test_a_stopped_node_is_passed_over(shell: Shell) -> None:
    ann, bob = shell.daemon("ann"), shell.daemon("bob")
    ann.process.signal(signal.SIGSTOP)
    begin = time.monotonic()
    assert shell.json("incr", "hits") == 1
    assert time.monotonic() - begin < 4
    assert shell.json("status", "--node", "bob")["instance"] == bob.instance
    ann.process.signal(signal.SIGCONT)
    with ann.connection() as line:  # it was only said hello to: nothing was counted twice
        until(
            "ann has heard of it",
            lambda: line.ask(do="get", object="hits", type="counter")["part"] == [1] and line.read(),
        )


def test_a_node_that_never_answers_is_an_error_after_five_seconds(shell: Shell) -> None:
    ann = shell.daemon("ann")
    ann.process.signal(signal.SIGSTOP)
    begin = time.monotonic()
    result = shell.run("get", "flags")
    assert result.code == 3
    assert "no answer within 5 s" in result.err
    assert 4.5 < time.monotonic() - begin < 8


def test_what_a_killed_node_left_is_passed_over(shell: Shell) -> None:
    ann, bob = shell.daemon("ann"), shell.daemon("bob")
    ann.process.signal(signal.SIGKILL)
    ann.process.wait()  # whether bob has swept it by now or not
    assert shell.json("status")["instance"] == bob.instance


def test_a_node_without_a_socket_or_with_a_stranger_s_is_passed_over(shell: Shell) -> None:
    bob = shell.daemon("bob")
    directory = HostDirectory(runtime_directory("shop", shell.directory))
    with directory.claim(1) as place:
        place.control_path.touch()  # claimed later than bob, so made the older one here
        os.utime(place.control_path.with_suffix(".lock"), (1, 1))
        assert shell.json("status")["instance"] == bob.instance


def test_directories_are_found_and_none_is_made(shell: Shell) -> None:
    base = shell.directory
    assert clusters(base=base) == clusters("shop", base) == []
    shop, bank = runtime_directory("shop", base), runtime_directory("bank", base)
    (base / "gossamesh" / "not ours").mkdir()
    (base / "gossamesh" / "shop-file").touch()
    assert clusters(base=base) == [bank, shop]
    assert clusters("shop", base) == [shop]
    assert clusters("none", base) == []


def test_a_directory_that_is_open_to_others_is_refused(shell: Shell) -> None:
    shell.daemon("ann")
    runtime_directory("shop", shell.directory).chmod(0o777)
    result = shell.run("keys")
    assert result.code == 3
    assert "chmod 700" in result.err
    relative = shell.run("keys", GOSSAMESH_RUNTIME_DIR="here")
    assert relative.code == 3
