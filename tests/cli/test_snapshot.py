"""Can what a cluster holds be kept, looked at, compared and put back from a shell?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.shell import Shell, until


@pytest.fixture
def kept(shell: Shell, tmp_path: Path) -> str:
    """A file with what a node with a data directory held, which has changed since."""
    shell.daemon("ann", "shop", "--data-dir", str(tmp_path / "data"))
    shell.ok("set", "flags", "beta", "true")
    shell.ok("set", "flags", "old", '{"a": [1]}')
    shell.ok("add", "online", "ann")
    shell.ok("incr", "hits", "5")
    shell.ok("set", "motd", "hello")
    path = str(tmp_path / "before.gossamesh")
    told = shell.json("snapshot", "save", path)
    assert (told["path"], told["cluster"], told["objects"], told["entries"]) == (path, "shop", 4, 5)
    shell.ok("set", "flags", "beta", "false")
    shell.ok("delete", "flags", "old")
    shell.ok("set", "flags", "new", "1")
    shell.ok("remove", "online", "ann")
    shell.ok("incr", "hits", "2")
    return path


def test_what_has_changed_is_told_and_put_back(shell: Shell, kept: str) -> None:
    changed = shell.run("snapshot", "diff", kept)
    assert (changed.code, changed.err) == (1, "")
    assert sorted(changed.out.splitlines()) == [
        "+ flags new 1",
        "- flags old {\"a\": [1]}",
        "- online ann",
        "~ flags beta true -> false",
        "~ hits 5 -> 7",
    ]  # fmt: skip
    tried = shell.run("snapshot", "restore", kept, "--dry-run")
    assert (tried.code, tried.err) == (0, "gossip: 5 would be changed\n") and "~ hits 7 -> 5" in tried.out
    assert shell.ok("get", "hits") == "7\n", "nothing was changed"
    some = shell.run("snapshot", "restore", kept, "--object", "hits", "--object", "motd")
    assert (some.out, some.err) == ("~ hits 7 -> 5\n", "gossip: 1 changed\n")
    kept_new = shell.json("snapshot", "restore", kept, "--no-delete")
    assert {(each["object"], each["key"], each["kind"]) for each in kept_new} == {
        ("flags", "beta", "set"), ("flags", "old", "set"), ("online", "ann", "set")
    }  # fmt: skip
    assert shell.json("get", "flags") == {"beta": True, "old": {"a": [1]}, "new": 1}
    shell.json("snapshot", "restore", kept)
    assert shell.run("snapshot", "diff", kept).code == 0
    assert "restored from a snapshot" in shell.ok("explain", "flags", "beta")


def test_a_cluster_goes_back_to_a_moment(shell: Shell, kept: str) -> None:
    at = shell.json("snapshot", "list", kept)[0]["at"]
    past = shell.json("snapshot", "restore", "--as-of", at, "--dry-run")
    assert {each["object"] for each in past} == {"flags", "online", "hits"}
    shell.json("snapshot", "restore", "--as-of", at)
    assert shell.json("snapshot", "diff", kept) == [] and shell.ok("get", "hits") == "5\n"
    saved = shell.json("snapshot", "save", kept + ".past", "--as-of", at)
    assert saved["at"] == at and shell.json("snapshot", "diff", kept, kept + ".past") == []
    refused = shell.run("snapshot", "restore", "--as-of", "1d")
    assert refused.code == 4 and "reaches back to" in refused.err


def test_files_are_listed_shown_and_verified_without_a_node(shell: Shell, kept: str, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gossamesh"
    content = bytearray(Path(kept).read_bytes())
    content[-30] ^= 1
    damaged.write_bytes(content)
    (tmp_path / "none.gossamesh").write_bytes(b"hello")
    listed = shell.json("snapshot", "list", str(tmp_path))
    assert [(Path(each["file"]).name, each.get("entries"), "error" in each) for each in listed] == [
        ("before.gossamesh", 5, False), ("damaged.gossamesh", 5, False), ("none.gossamesh", None, True)
    ]  # fmt: skip
    assert "can not be read: " in shell.ok("snapshot", "list", str(tmp_path))
    assert shell.ok("snapshot", "show", kept) == "map\tflags\t2\nset\tonline\t1\ncounter\thits\t1\nregister\tmotd\t1\n"
    assert shell.json("snapshot", "show", kept)["objects"][0] == {"type": "map", "name": "flags", "entries": 2}
    assert shell.ok("snapshot", "show", kept, "flags") == 'beta\ttrue\nold\t{"a": [1]}\n'
    assert (shell.json("snapshot", "show", kept, "online"), shell.ok("snapshot", "show", kept, "hits")) == (
        ["ann"],
        "5\n",
    )
    missing = shell.run("snapshot", "show", kept, "nobody")
    assert missing.code == 1 and "there is nothing called 'nobody'" in missing.err
    assert shell.ok("snapshot", "verify", kept).startswith(f"{kept}: whole, 5 entries of 4 objects of shop")
    both = shell.run("snapshot", "verify", kept, str(damaged), str(tmp_path / "nowhere"))
    assert both.code == 4 and "is damaged" in both.out and "No such file" in both.out
    for command in ("show", "diff", "restore"):
        result = shell.run("snapshot", command, str(damaged))
        assert result.code == 4 and "is damaged" in result.err, command


def test_what_can_not_be_done_is_told_with_what_to_do(shell: Shell, kept: str, tmp_path: Path) -> None:
    for arguments, code, why in (
        (("save", kept), 4, "exists, and is not replaced"),
        (("save", str(tmp_path / "no" / "such" / "x")), 1, "No such file or directory"),
        (("restore",), 2, "give a FILE, or a moment with --as-of"),
        (("restore", kept, "--as-of", "5m"), 2, "give a FILE, or a moment with --as-of"),
        (("restore", "--as-of", "yesterday"), 2, "say how long ago, as 90s, 5m"),
        (("restore", "--as-of", "2999-01-01"), 4, "in the future"),
        (("restore", kept, "--object", "nobody"), 4, "there is no object 'nobody'"),
        (("restore", str(tmp_path / "nowhere")), 1, "No such file"),
        (("diff", str(tmp_path)), 4, "directory"),
    ):
        result = shell.run("snapshot", *arguments)
        assert result.code == code and why in result.err, (arguments, result)
    shell.daemon("eve", "elsewhere")
    other = shell.run("snapshot", "restore", "-c", "elsewhere", kept)
    assert other.code == 4 and "--foreign" in other.err
    shell.ok("snapshot", "restore", "-c", "elsewhere", kept, "--foreign", "--json")
    assert shell.ok("get", "-c", "elsewhere", "motd") == "hello\n"
    without = shell.run("snapshot", "save", "-c", "elsewhere", "--as-of", "1s")
    assert without.code == 4 and "no data_dir" in without.err


def test_the_cluster_may_be_named_before_the_command(shell: Shell, kept: str, tmp_path: Path) -> None:
    assert json.loads(shell.ok("-c", "shop", "--json", "snapshot", "diff", kept, kept)) == []
    assert "Save what the cluster holds" in shell.ok("help", "snapshot", "save")


def test_a_large_restore_says_how_far_it_is(shell: Shell, tmp_path: Path) -> None:
    daemon = shell.daemon()
    with daemon.connection() as line:
        for number in range(30_000):
            line.send(json.dumps({"do": "set", "object": "m", "key": str(number), "value": number}).encode() + b"\n")
            if number % 100 == 99:
                for _ in range(100):
                    line.read()
        path = str(tmp_path / "x.gossamesh")
        line.send(json.dumps({"do": "snapshot", "path": path}).encode() + b"\n")
        while "ok" not in (answer := line.read()):
            assert set(answer) == {"progress"}, answer  # where the disk or the machine is slow
        assert answer["ok"]["entries"] == 30_000
    other = shell.daemon("bob", "other")
    heard: list[str] = []
    with other.connection() as line:
        line.send(json.dumps({"do": "restore", "path": path, "foreign": True}).encode() + b"\n")
        while "ok" not in (answer := line.read()):
            heard += answer
            assert set(answer) <= {"progress", "part"}, answer
        assert answer["ok"]["entries"] == 30_000
    assert "part" in heard
    until("all is there", lambda: len(shell.json("keys", "-c", "other", "m")) == 30_000)
