"""Does each command do what its help says, for people and for programs, with the promised exit code?"""

import json
import re
import signal

import pytest

import gossip
from gossip.cli.why import _story
from gossip.protocol.effects import MemberChanged
from gossip.protocol.members import Status
from tests.cli.shell import GOSSIP, Shell, until


def test_a_map_is_set_read_and_deleted(town: Shell) -> None:
    assert town.ok("set", "flags", "beta", "true") == ""
    assert town.json("set", "flags", "note", "hello, all") == {"object": "flags", "key": "note", "value": "hello, all"}
    assert town.ok("get", "flags", "beta") == "true\n"
    assert town.json("get", "flags", "note") == "hello, all"
    assert town.ok("get", "flags") == "beta\ttrue\nnote\thello, all\n"
    assert town.json("get", "flags") == {"beta": True, "note": "hello, all"}
    assert town.ok("keys", "flags") == "beta\nnote\n"
    assert town.json("keys", "flags") == ["beta", "note"]
    assert town.ok("delete", "flags", "beta") == ""
    assert town.json("delete", "flags", "note") == {"object": "flags", "key": "note"}
    for gone in (("get", "flags", "beta"), ("delete", "flags", "beta"), ("get", "flags"), ("keys", "flags")):
        assert town.run(*gone).code == 1


def test_a_register_is_set_read_and_deleted(town: Shell) -> None:
    town.ok("set", "motd", '{"text": ["a", null, 1.5]}')
    assert town.ok("get", "motd") == '{"text": ["a", null, 1.5]}\n'
    assert town.json("get", "motd") == {"text": ["a", None, 1.5]}
    town.ok("set", "motd", "--text", "{}")
    assert town.json("get", "motd") == "{}"
    town.ok("delete", "motd")
    result = town.run("delete", "motd", "--json")
    assert (result.code, result.error["kind"]) == (1, "missing")


def test_a_counter_counts_both_ways(town: Shell) -> None:
    assert town.ok("incr", "hits") == "1\n"
    assert town.json("incr", "hits", "10") == 11
    assert town.ok("incr", "hits", "-3") == "8\n"
    assert town.ok("incr", "hits", "--", "-3") == "5\n"
    assert town.ok("get", "hits") == "5\n"
    assert town.json("get", "hits") == 5
    assert town.run("incr", "hits", "0").code == 2


def test_a_set_takes_and_gives_elements(town: Shell) -> None:
    assert town.ok("add", "online", "ann") == ""
    assert town.json("add", "online", "-7") == {"object": "online", "element": -7}
    town.ok("add", "online", "--text", "-7")
    town.ok("add", "online", '["ann", 1]')
    assert town.ok("get", "online") == '-7\n-7\n["ann", 1]\nann\n'
    assert town.json("get", "online") == [-7, "-7", ["ann", 1], "ann"]
    assert town.ok("remove", "online", "-7") == ""
    assert town.json("remove", "online", '["ann", 1]') == {"object": "online", "element": ["ann", 1]}
    assert town.run("remove", "online", "-7").code == 1
    assert town.json("get", "online") == ["-7", "ann"]


def test_what_is_there_is_never_said_not_to_be(town: Shell) -> None:
    """Seen by a user: `gossip get online ann` said that ann is not in online, who was; and a counter that nobody ever
    counted was 0."""
    town.ok("add", "online", "ann")
    result = town.run("get", "online", "ann", "--json")
    assert (result.code, result.error["error"]) == (4, "'online' is a set, and only a map has keys")
    for kind in ("map", "register", "counter"):
        result = town.run("get", "online", "--type", kind, "--json")
        assert (result.code, result.error["error"]) == (1, f"there is no {kind} called 'online'")
    assert town.run("keys", "online", "--type", "map").code == 1


def test_keys_that_are_no_text(town: Shell) -> None:
    town.ok("set", "scores", "--json-key", "7", "100")
    town.ok("set", "scores", "--json-key", '["ann", 7]', "null")
    town.ok("set", "scores", "7", "text")
    assert town.ok("get", "scores", "7") == "text\n"
    assert town.ok("get", "scores", "7", "--json-key") == "100\n"
    assert town.ok("keys", "scores") == '7\n7\n["ann", 7]\n'
    assert town.ok("delete", "scores", '["ann", 7]', "--json-key") == ""
    assert town.run("get", "scores", "[7", "--json-key").code == 2


def test_an_object_is_not_mistaken_for_another_of_its_name(town: Shell) -> None:
    town.ok("incr", "both")
    refused = town.run("set", "both", "5", "--json")
    assert (refused.code, refused.error["kind"]) == (4, "refused")
    assert "counter" in refused.error["error"]
    town.ok("set", "both", "5", "--type", "register")
    assert town.run("get", "both").code == 4
    assert town.ok("get", "both", "--type", "counter") == "1\n"
    assert town.ok("get", "both", "--type", "register") == "5\n"
    assert town.run("keys", "both", "--type", "counter").code == 4


def test_the_installed_script_does_what_the_others_here_do(shell: Shell) -> None:
    """The other tests call commands by `prompt.py`; here is each of them as a person calls it."""
    shell.daemon("ann")
    for arguments, code, out in (
        (("set", "tour", "k", "1"), 0, ""), (("get", "tour", "k"), 0, "1\n"),
        (("keys", "tour", "--json"), 0, '["k"]\n'), (("delete", "tour", "k"), 0, ""),
        (("get", "tour", "k"), 1, ""), (("incr", "n", "-3"), 0, "-3\n"),
        (("add", "s", "e"), 0, ""), (("remove", "s", "f"), 1, ""), (("remove", "s", "e", "x"), 2, ""),
        (("set", "tour", "k" * 600, "1", "--json"), 4, ""), (("status", "-c", "none"), 3, ""),
    ):  # fmt: skip
        result = shell.run_script(*arguments)
        assert (result.code, result.out) == (code, out), arguments
        assert (result.err == "") == (code == 0)
    assert shell.run_script("members").out.startswith("ann\talive\t")


def test_all_objects_are_listed(town: Shell) -> None:
    town.ok("set", "a-map", "k", "1")
    town.ok("add", "a-set", "e")
    assert "map\ta-map\t1\n" in town.ok("keys")
    assert {"type": "set", "name": "a-set", "entries": 1} in town.json("keys")


def test_members_and_status(town: Shell) -> None:
    rows = [row.split("\t") for row in town.ok("members").splitlines()]
    assert [row[:2] for row in rows] == [["ann", "alive"], ["bob", "alive"]]
    assert rows[1][6] == "role=store"
    members = town.json("members", "--node", "bob")
    assert [(each["name"], each["status"], each["me"]) for each in members] == [
        ("ann", "alive", False),
        ("bob", "alive", True),
    ]
    assert "cluster\tshop\n" in town.ok("status")
    assert "members\t2 alive\n" in town.ok("status")
    assert town.json("status")["name"] == "ann"


def test_members_are_asked_for_by_their_tags(town: Shell) -> None:
    for where in (("role=store",), ("role=web", "role=store")):
        told = [part for each in where for part in ("--where", each)]
        assert [each["name"] for each in town.json("members", *told)] == ["bob"]
        assert town.ok("members", *told).startswith("bob\talive\t")
    for told in (["--where", "role="], ["--where", "role=store", "--where", "zone=a"]):
        result = town.run("members", *told)
        assert (result.code, result.out) == (1, "") and told[1] in result.err
    assert town.run("members", "--where", "role").code == 2


def test_what_one_sets_the_other_has(town: Shell) -> None:
    town.ok("set", "shared", "k", "1", "--node", "bob")
    bob = town.json("status", "--node", "bob")["instance"]
    assert town.ok("get", "shared", "k", "--node", bob) == "1\n"
    until("ann has it", lambda: town.run("get", "shared", "k", "--node", "ann").out == "1\n")
    assert town.ok("incr", "all-hits", "--node", "ann") == "1\n"
    until("bob has it", lambda: town.run("get", "all-hits", "--node", "bob").out == "1\n")


def test_values_are_what_they_look_like(town: Shell) -> None:
    for written, read in (
        ("true", True), ("null", None), ("-1.5", -1.5), ("-5", -5), ("NaN", "NaN"), ("0123", "0123"), ("", ""),
        ("-", "-"), ("1e5", 1e5), ("hello", "hello"), ('"quoted"', "quoted"), ("[1,", "[1,"),
    ):  # fmt: skip
        town.ok("set", "values", "k", written)
        assert town.json("get", "values", "k") == read


def test_a_number_that_no_float_holds_is_not_stored_as_infinity(town: Shell) -> None:
    for number in ("1e400", "-1e400", "[1, 1e999]"):
        told = town.run("set", "values", "large", number)
        assert told.code == 2
        assert "too large for a number" in told.err
    assert town.run("get", "values", "large").code == 1
    town.ok("set", "values", "large", "--text", "1e400")
    assert town.json("get", "values", "large") == "1e400"


def test_raw_gives_a_text_as_it_is(town: Shell) -> None:
    town.ok("set", "files", "conf", "a\n\tb")
    assert town.ok("get", "files", "conf") == "a\\n\\tb\n"
    assert town.ok("get", "files", "conf", "--raw") == "a\n\tb"
    town.ok("set", "files", "number", "5")
    assert town.run("get", "files", "number", "--raw").code == 4


@pytest.mark.parametrize(
    "arguments",
    [
        ("set", "flags", "--texxt"), ("get",), ("frobnicate",), ("set", "flags"), ("incr", "hits", "many"), ("--frob",),
        ("watch", "flags", "--count", "0"), ("get", "flags", "k", "extra"), ("get", "x", "--type", "list"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_code_2(town: Shell, arguments: tuple[str, ...]) -> None:
    result = town.run(*arguments, "--json")
    assert (result.code, result.error["kind"]) == (2, "usage")


def test_what_the_node_refuses_is_code_4(town: Shell) -> None:
    for arguments in (("set", "big", "k", str(2**70)), ("set", "big", "k" * 600, "1"), ("incr", "big", str(2**65))):
        result = town.run(*arguments, "--json")
        assert (result.code, result.error["kind"]) == (4, "refused")
    assert town.run("add", "big", "{}").err.startswith("gossip: an element of 'big': ")


def test_every_help_has_an_example(shell: Shell) -> None:
    overview = shell.ok("--help")
    commands = re.findall(r"^  (\w+)  +\S", overview.partition("Commands:")[2], re.MULTILINE)
    assert len(commands) >= 13
    assert "gossip completion" in overview
    for command in commands:
        text = shell.ok(command, "--help")
        assert f"  gossip {command}" in text.partition("Example:")[2], command


def test_the_version_and_a_shell_s_completion(shell: Shell) -> None:
    assert re.fullmatch(r"gossip \d+\.\d+\S* \(gossamesh\)\n", shell.ok("--version"))
    for name in ("bash", "zsh", "fish"):
        assert "_GOSSIP_COMPLETE" in shell.ok("completion", name)
    completed = shell.run(_GOSSIP_COMPLETE="bash_complete", COMP_WORDS="gossip mem", COMP_CWORD="1")
    assert completed.out == "plain,members\n"


def test_a_command_loads_only_what_it_needs(town: Shell) -> None:
    program = "import sys; from gossip.cli import main; main(); print(*sys.modules, file=sys.stderr)"
    process = town.start_python(f"import sys; sys.argv = ['gossip', 'incr', 'loads']\n{program}")
    result = process.wait()
    assert result.out == "1\n"
    assert not {"aiohttp", "zeroconf", "cryptography", "rich", "uvloop", "msgspec"} & set(result.err.split())


@pytest.mark.parametrize("lacking", ["click", "rich"])
def test_without_the_extra_it_says_how_to_get_it(shell: Shell, lacking: str) -> None:
    result = shell.start_python(
        f"import sys; sys.modules[{lacking!r}] = None; from gossip.cli import main; sys.exit(main())"
    ).wait()
    assert (result.code, result.out) == (2, "")
    assert "pip install 'gossamesh[cli]'" in result.err


def test_python_m_gossip_is_the_same(shell: Shell) -> None:
    result = shell.start_python(
        "import runpy, sys; sys.argv = ['gossip', 'get', 'x']; runpy.run_module('gossip', run_name='__main__')"
    ).wait()
    assert result.code == 3


def test_a_closed_output_is_no_error(town: Shell) -> None:
    program = "import os, sys; os.close(1); os.execv(sys.argv[1], ['gossip', 'keys'])"
    result = town.start_python(f"import sys; sys.argv = ['-', {str(GOSSIP)!r}]\n{program}").wait()
    assert (result.code, result.err) == (0, "")
    assert json.loads(town.ok("keys", "--json")) is not None


def test_what_was_mistyped_is_met_with_what_was_meant(town: Shell) -> None:
    town.ok("set", "colours", "sky", "blue")
    town.ok("incr", "visits")
    town.ok("add", "guests", "ann")
    for arguments, code, told in (
        (("gett", "colours"), 2, "did you mean gossip get?"),
        (("decr", "visits"), 2, "gossip incr OBJECT -1"),
        (("get", "colors"), 1, "`gossip keys` lists what is there"),
        (("set", "colours", "sky"), 2, "gossip set colours sky VALUE"),
        (("set", "visits", "5"), 4, "gossip incr visits"),
        (("delete", "colours"), 1, "'colours' is a map: name the key to delete"),
        (("delete", "guests"), 1, "'guests' is a set: gossip remove guests ELEMENT"),
        (("completion",), 2, "Choose from: bash, zsh, fish"),
        (("run", "-c", "x", "--bind", "0.0.0.0:0"), 2, "--key-file"),
        (("run", "-c", "x", "--bind", "7946"), 2, "127.0.0.1:7946"),
        (("run", "-c", "x", "--config", "/nowhere"), 2, "No such file"),
    ):
        result = town.run(*arguments)
        assert (result.code, result.out) == (code, ""), arguments
        assert told in result.err, arguments
        assert "Errno" not in result.err
        assert "\\n" not in result.err


def test_options_may_stand_before_the_command(town: Shell) -> None:
    assert town.ok("-c", "shop", "--node", "bob", "set", "early", "k", "1") == ""
    assert json.loads(town.ok("--json", "--cluster=shop", "get", "early")) == {"k": 1}
    assert town.run("-c", "none", "get", "early").code == 3
    assert town.ok("help") == town.ok("--help")
    assert town.ok("help", "get") == town.ok("get", "--help")


def test_what_python_calls_true_is_not_stored_as_text(town: Shell) -> None:
    """A worker read the text "False" as true, and one with a typed map could not read the map any more."""
    for text, json_text in (("True", "true"), ("False", "false"), ("None", "null")):
        result = town.run("set", "flags", "python", text)
        assert result.code == 2 and f"say {json_text}, or add --text" in result.err
    assert town.run("set", "flags", "python", "--text", "False").code == 0
    assert town.json("get", "flags", "python") == "False"


def test_what_does_not_fit_the_programs_type_is_refused(shell: Shell) -> None:
    """The element 7 in a set of texts made every request of a web application fail."""
    cluster = "typed"
    with gossip.Node(cluster, runtime_dir=shell.directory) as node:
        online, flags, motd = node.set("online", str), node.map("flags", bool), node.register("motd", str)
        for arguments in (("add", "online", "7"), ("set", "flags", "beta", "1"), ("set", "motd", "7")):
            result = shell.run(*arguments, "-c", cluster, "--json")
            assert (result.code, result.error["kind"]) == (4, "refused") and "expected" in result.error["error"]
        assert not online and not flags and motd.value is None
        assert shell.run("add", "online", "ann", "-c", cluster).code == 0 and set(online) == {"ann"}


def test_the_story_of_a_member_is_told_by_name_and_by_instance(shell: Shell) -> None:
    with gossip.Node("told", name="ann", runtime_dir=shell.directory) as ann:
        with gossip.Node("told", name="bob", runtime_dir=shell.directory) as bob:
            until("all know each other", lambda: len(ann.members) == len(bob.members) == 2)
            runtime = ann._runtime
            assert runtime is not None
            suspected = runtime.engine.members.table[bob.me.instance].by_whom(Status.SUSPECT, ann.me.instance)
            with runtime.lock:
                effects = runtime.engine.membership.hear([suspected], runtime.now(), "no ack within 1.00 s")
                runtime.perform([effect for effect in effects if isinstance(effect, MemberChanged)])
                runtime.perform(runtime.engine.membership.news())
            until("he refutes it", lambda: ann.members["bob"].status == "alive")
            instance = bob.me.id
        until("he has left", lambda: len(ann.members) == 1)
        head, *verdicts = shell.run("why", "bob", "-c", "told").out.splitlines()
        assert head.startswith(f"bob ({instance}) is left")
        assert [line.split("it ", 1)[1] for line in verdicts] == [
            "was found alive: it said so itself",
            "was suspected by ann: no ack within 1.00 s",
            "was found stalled by ann: it does not answer, and its process exists",
            "was found alive: it said so itself",
            "left: it said so itself",
        ]
        (told,) = json.loads(shell.run("why", instance, "-c", "told", "--json").out)
        assert [verdict["status"] for verdict in told["verdicts"]][-1] == told["status"] == "left"
        nobody = shell.run("why", "cat", "-c", "told")
        assert nobody.code == 1 and "no member is called 'cat'" in nobody.err


def test_a_key_is_explained(shell: Shell) -> None:
    with (
        gossip.Node("told", name="ann", runtime_dir=shell.directory) as ann,
        gossip.Node("told", name="bob", runtime_dir=shell.directory) as bob,
    ):
        until("all know each other", lambda: len(ann.members) == len(bob.members) == 2)
        bob.map("flags")["beta"] = True
        bob.set("online").add("bob", owned=True)
        ann.register("motd").set("hello", ttl=60)
        until("it is there", lambda: "beta" in ann.map("flags") and "bob" in ann.set("online"))
        text = shell.run("explain", "flags", "beta", "-c", "told").out
        assert text.startswith("flags['beta']: true\n  written by bob (") and "held by ann, bob" in text
        told = json.loads(shell.run("explain", "online", "bob", "-c", "told", "--json").out)
        assert (
            told["owned"]
            and told["author"] == "bob"
            and "value" not in told
            and sorted(told["holders"]) == ["ann", "bob"]
        )
        told = json.loads(shell.run("explain", "motd", "-c", "told", "--json").out)
        assert told["value"] == "hello" and told["expires"] > told["at"] and told["conflicts"] == told["silent"] == []
        assert shell.run("explain", "flags", "gone", "-c", "told").code == 1
        assert shell.run("explain", "flags", "-c", "told").code == 4
        bob._runtime.transport._received = lambda packet, *rest: True  # type: ignore[union-attr]
        assert "silent: bob" in shell.run("explain", "motd", "-c", "told").out


def test_what_a_write_replaced_and_why_is_explained(shell: Shell) -> None:
    with gossip.Node("told", name="ann", runtime_dir=shell.directory, log_bytes=900) as ann:
        with ann.batch(author="ann@shop", note="first"):
            ann.map("prices")["tea"] = 3
        until("it has left", lambda: ann._running().engine.replication.published == 1)
        assert shell.run("set", "prices", "tea", "4", "--by", "bob", "--note", "of May", "-c", "told").code == 0
        text = shell.run("explain", "prices", "tea", "-c", "told").out
        assert "\n  on behalf of bob: of May\n  replaced 3, by ann at 2" in text
        assert text.splitlines()[4].strip() == "on behalf of ann@shop: first"
        told = json.loads(shell.run("explain", "prices", "tea", "-c", "told", "--json").out)
        assert (told["by"], told["note"], told["replaced"][0]["value"]) == ("bob", "of May", 3)
        ann.map("other")["x"] = "y" * 200
        text = shell.run("explain", "prices", "tea", "-c", "told").out
        assert "replaced what ann wrote, which is no longer in the log" in text
        ann.map("other")["x"] = "z" * 250
        text = shell.run("explain", "prices", "tea", "-c", "told").out
        assert "what it replaced is no longer in the log of this node" in text and "on behalf of bob" in text
        assert "a note has 1 to 1024 bytes" in shell.run("set", "m", "k", "1", "--note", "x" * 2000, "-c", "told").err


def test_what_is_set_with_a_ttl_ends(town: Shell) -> None:
    assert town.run("set", "short", "k", "1", "--ttl", "0.2").code == 0
    assert town.run("add", "shorter", "x", "--ttl", "0.2").code == 0
    until("it has ended", lambda: town.run("get", "short", "k").code == 1 and town.json("keys") is not None)
    until("it has ended", lambda: "shorter" not in town.run("keys").out)
    assert town.run("set", "short", "k", "1", "--ttl", "-1").code == 4


def test_a_daemon_keeps_its_data_in_a_directory(shell: Shell) -> None:
    directory = str(shell.directory / "data")
    for number in range(2):
        process = shell.start("run", "-c", "kept", "--data-dir", directory)
        until("it answers", lambda: shell.run("incr", "starts", "-c", "kept").code == 0)
        assert shell.run("get", "starts", "-c", "kept").out == f"{number + 1}\n"
        process.signal(signal.SIGTERM)
        assert process.wait().code == 0


def test_who_says_of_a_member_what_is_evidence_already_is_named_once() -> None:
    def line(evidence: str, *by: str) -> str:
        verdict = {"at": 0, "status": "stalled", "by": by, "evidence": evidence}
        return _story({"name": "bob", "instance": "1", "status": "stalled", "rtt": None, "verdicts": [verdict]})[1]

    assert line("ann said so", "ann").endswith("it was found stalled: ann said so")
    assert line("its process exists", "ann").endswith("it was found stalled by ann: its process exists")
    assert line("ann said so", "ann", "eve").endswith("stalled by ann, eve: ann said so")
