"""Is no write ever numbered twice, whatever was copied, restored, or forked?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import gossip
from crdt import encode_state
from tests.waiting import until_here

CHILDREN = 64 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 8


def test_copies_of_one_directory_are_nodes_of_their_own(cluster: str, tmp_path: Path) -> None:
    """A cloned image, or a backup that is put in place while the original runs."""
    with gossip.Node(cluster, data_dir=tmp_path / "first") as node:
        node.counter("hits").increment(10)
        node.map("m")["k"] = "first"
    for name in ("second", "third"):
        shutil.copytree(tmp_path / "first", tmp_path / name)
    made = [gossip.Node(cluster, data_dir=tmp_path / name).open() for name in ("first", "second", "third")]
    try:
        for number, node in enumerate(made):
            for _ in range(100):
                node.counter("hits").increment()
            node.map("m")[f"of {number}"] = number
        until_here(lambda: all(node.counter("hits").value == 310 and len(node.map("m")) == 4 for node in made))
        until_here(lambda: len({encode_state(node._store.state()) for node in made}) == 1)
        assert len({node.me.instance for node in made}) == 3
        assert all(node.status()["counters"].get("diverged", 0) == 0 for node in made)
    finally:
        for node in made:
            node.close()


def test_a_backup_that_is_put_back_lacks_what_came_later_and_gets_it_from_the_others(
    cluster: str, tmp_path: Path
) -> None:
    with gossip.Node(cluster) as other:
        with gossip.Node(cluster, data_dir=tmp_path / "kept") as node:
            node.counter("hits").increment(10)
        shutil.copytree(tmp_path / "kept", tmp_path / "backup")
        with gossip.Node(cluster, data_dir=tmp_path / "kept") as node:
            node.counter("hits").increment(5)
            node.map("m")["later"] = 1
            until_here(lambda: other.counter("hits").value == 15)
        with gossip.Node(cluster, data_dir=tmp_path / "backup") as node:
            until_here(lambda: node.counter("hits").value == 15 and "later" in node.map("m"))
            node.counter("hits").increment()
            until_here(lambda: other.counter("hits").value == 16)


FORKING = """
import os, sys
import gossip

node = gossip.Node(sys.argv[1]).open()
hits, children = node.counter("hits"), []
for _ in range(int(sys.argv[2])):
    child = os.fork()
    if child:
        children.append(child)
        continue
    try:
        try:
            hits.increment()
            os._exit(2)
        except gossip.NotRunning:
            pass
        with gossip.Node(sys.argv[1], name=f"child-{os.getpid()}") as own:
            for _ in range(1_000):
                own.counter("hits").increment()
        os._exit(0)
    except BaseException as error:
        print(type(error).__name__, error, file=sys.stderr, flush=True)
        os._exit(3)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
print("children", *codes, "hits", hits.value, flush=True)
node.close()
"""


def test_forked_children_of_a_running_node_write_under_names_of_their_own(cluster: str) -> None:
    with gossip.Node(cluster) as node:
        ran = subprocess.run(
            [sys.executable, "-c", FORKING, cluster, str(CHILDREN)], capture_output=True, text=True, check=False
        )
        words = ran.stdout.split()
        assert words[: CHILDREN + 1] == ["children", *["0"] * CHILDREN], (ran.stdout, ran.stderr)
        until_here(lambda: node.counter("hits").value == 1_000 * CHILDREN, "each has written, and nothing twice")
        assert len(node.counter("hits").parts()) == CHILDREN
