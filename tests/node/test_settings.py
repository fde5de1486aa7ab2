"""Is a setting taken from where it was said it is, and is a wrong one refused with its name and a remedy?"""

from __future__ import annotations

import base64
import dataclasses
import traceback
from pathlib import Path
from typing import Any

import pytest

import gossip
from tests.waiting import until_here

CANARY = b"canary-canary-canary-canary-0123"
KEY = base64.b64encode(CANARY).decode()


def test_keyword_beats_environment_beats_file_beats_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "gossamesh.toml"
    file.write_text(
        'name = "file"\nbind = "127.0.0.1:1"\nprobe_interval = 3\n[tags]\nrole = "file"\n[shop]\nmax_connections = 9\n'
    )
    assert gossip.Config.load("shop").name == ""
    config = gossip.Config.load("shop", file)
    assert (config.name, config.bind, config.max_connections, config.tags) == (
        "file",
        "127.0.0.1:1",
        9,
        {"role": "file"},
    )
    assert gossip.Config.load("other", file).max_connections == 512, "a cluster's table is its own"
    monkeypatch.setenv("GOSSAMESH_NAME", "environment")
    monkeypatch.setenv("GOSSAMESH_PROBE_INTERVAL", "2.5")
    monkeypatch.setenv("GOSSAMESH_TAGS", "role=web,zone=a=b")
    monkeypatch.setenv("GOSSAMESH_SEEDS", "127.0.0.1:2, 127.0.0.1:3")
    monkeypatch.setenv("GOSSAMESH_INSECURE", "Yes")
    config = gossip.Config.load("shop", file)
    assert (config.name, config.probe_interval, config.tags) == ("environment", 2.5, {"role": "web", "zone": "a=b"})
    assert config.seeds == ("127.0.0.1:2", "127.0.0.1:3") and config.insecure is True and config.bind == "127.0.0.1:1"
    config = gossip.Config.load("shop", file, name="keyword", insecure=False, tags=None)
    assert (config.name, config.insecure, config.tags["role"]) == ("keyword", False, "web")
    monkeypatch.setenv("GOSSAMESH_CONFIG", str(file))
    assert gossip.Node("shop", name="keyword").config == dataclasses.replace(config, insecure=True)


def test_what_a_file_says_of_a_cluster_beats_what_it_says_of_all(tmp_path: Path) -> None:
    file = tmp_path / "gossamesh.toml"
    file.write_text(
        'name = "all"\nprobe_interval = 3\n[tags]\nrole = "all"\n[shop]\nname = "own"\ntags = {zone = "own"}\n'
    )
    config = gossip.Config.load("shop", file)
    assert (config.name, config.probe_interval, config.tags) == ("own", 3, {"zone": "own"})
    config = gossip.Config.load("bank", file)
    assert (config.name, config.probe_interval, config.tags) == ("all", 3, {"role": "all"})


def test_a_profile_is_told_like_any_setting_and_changes_defaults_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keyword, environment and file say which one; what they say of a single number counts more than it does."""
    file = tmp_path / "gossamesh.toml"
    file.write_text('profile = "wan"\nsettle = 3\n[near]\nprofile = "local"\n')
    load, wan = gossip.Config.load, gossip.Config.wan()
    assert load("shop") == load("shop", profile="lan") == gossip.Config.lan(cluster="shop")
    assert gossip.Config.lan() == gossip.Config()
    assert load("shop", file) == gossip.Config.wan(cluster="shop", settle=3)
    assert load("near", file) == gossip.Config.local(cluster="near", settle=3)
    monkeypatch.setenv("GOSSAMESH_PROFILE", "local")
    monkeypatch.setenv("GOSSAMESH_PROBE_TIMEOUT", "0.3")
    config = load("shop", file)
    assert (config.probe_interval, config.probe_timeout, config.settle) == (0.25, 0.3, 3)
    config = load("shop", file, profile="wan", probe_interval=9.0)
    assert (config.probe_interval, config.probe_timeout, config.settle) == (9.0, 0.3, 3)
    assert config.connect_timeout == wan.connect_timeout == 20.0
    assert gossip.Node("shop", profile="wan", probe_timeout=7.0).config.hint_timeout == wan.hint_timeout


def test_a_config_by_a_profile_is_whole_and_its_node_names_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOSSAMESH_PROBE_INTERVAL", "2.5")
    for make, interval in ((gossip.Config.local, 0.25), (gossip.Config.lan, 1.0), (gossip.Config.wan, 8.0)):
        config = gossip.Node("shop", config=make(tags={"role": "web"})).config
        assert config == make(cluster="shop", tags={"role": "web"})
        assert config.probe_interval == interval, "neither environment nor file is read"
        assert make(probe_interval=9.0).probe_interval == 9.0
        with pytest.raises(gossip.ConfigError, match="strangers"):
            gossip.Node("", config=make())
    with pytest.raises(gossip.ConfigError, match="'other'"):
        gossip.Node("shop", config=gossip.Config.wan(cluster="other"))
    with pytest.raises(gossip.ConfigError, match="strangers"):
        gossip.Config.load("")


@pytest.mark.parametrize("profile", ["moon", 7, ["wan"]])
def test_a_profile_that_there_is_not_is_refused(profile: Any) -> None:
    with pytest.raises(gossip.ConfigError, match=r"profile=.*local, lan, wan"):
        gossip.Node("shop", profile=profile)


def test_each_profile_leaves_time_for_what_it_promises() -> None:
    """A hint is answered within its time, and a suspect has an interval more; a probe in turn ends before the next."""
    for config, each_way in ((gossip.Config.local(), 0.005), (gossip.Config.lan(), 0.04), (gossip.Config.wan(), 3.0)):
        assert config.hint_timeout > 4 * each_way, "two legs to a witness, and two to the target"
        assert config.probe_interval > 2 * each_way and config.pull_timeout > 2 * each_way < config.connect_timeout
        assert config.probe_timeout > 2 * each_way and config.probe_timeout <= config.probe_interval
        assert config.settle > each_way


def test_a_whole_config_is_taken_as_it_is_and_alone() -> None:
    config = gossip.Config(cluster="shop", name="whole")
    assert gossip.Node("shop", config=config).config is config
    for wrong in ({"name": "other"}, {"seeds": ["127.0.0.1:1"]}, {"probe_interval": 2.0}):
        with pytest.raises(gossip.ConfigError, match=r"dataclasses\.replace"):
            gossip.Node("shop", config=config, **wrong)
    with pytest.raises(gossip.ConfigError, match="shop"):
        gossip.Node("other", config=config)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"cluster": ""}, "cluster"), ({"cluster": 7}, "cluster"), ({"cluster": "x" * 256}, "cluster"),
        ({"cluster": "a\nb"}, "cluster"), ({"cluster": "\udc80"}, "cluster"), ({"cluster": None}, "cluster"),
        ({"name": 7}, "name"), ({"name": "a\0b"}, "name"), ({"name": "x" * 300}, "name"),
        ({"bind": "nowhere"}, "bind"), ({"bind": 7946}, "bind"), ({"bind": "127.0.0.1:65536"}, "bind"),
        ({"bind": "0.0.0.0:7946"}, "gossip keygen"), ({"bind": "10.0.0.1:7946"}, "key"),
        ({"bind": "[::]:7946"}, "insecure=True"),
        ({"bind": "127.0.0.1:1", "advertise": "x"}, "advertise"),
        ({"bind": "127.0.0.1:1", "advertise": "0.0.0.0:1"}, "advertise"),
        ({"advertise": "127.0.0.1:1"}, "bind="), ({"seeds": ["127.0.0.1:1"]}, "bind="), ({"seeds_file": "x"}, "bind="),
        ({"seeds_command": "x"}, "bind="), ({"mdns": True}, "bind="), ({"mdns": 1, "bind": "127.0.0.1:0"}, "mdns"),
        ({"bind": "127.0.0.1:1", "seeds": ["srv:shop.example"]}, "srv:_gossamesh._tcp.shop.example"),
        ({"bind": "127.0.0.1:1", "seeds_command": "echo 'a"}, "seeds_command"),
        ({"bind": "127.0.0.1:1", "seeds_command": " "}, "seeds_command"),
        ({"bind": "127.0.0.1:1", "seeds_command": ["x", 7]}, "seeds_command"),
        ({"bind": "127.0.0.1:1", "seeds": ["nowhere"]}, "nowhere"),
        ({"bind": "127.0.0.1:1", "seeds": ["0.0.0.0:1"]}, "seeds"),
        ({"bind": "127.0.0.1:1", "seeds": [7]}, "text"), ({"key": "not base64!"}, "key"),
        ({"key": b"short"}, "gossip keygen"),
        ({"key": 7}, "key"), ({"insecure": "no"}, "insecure"), ({"insecure": 1}, "insecure"),
        ({"tags": ["role"]}, "tags"),
        ({"tags": "role=web"}, "tags"), ({"tags": {"role": 7}}, "tags"), ({"tags": {"a": "x" * 5000}}, "tags"),
        ({"tags": {"role": "\udc80"}}, "tags"), ({"tags": {str(n): "" for n in range(65)}}, "tags"),
        ({"probe_interval": 0}, "probe_interval"), ({"probe_interval": -1.0}, "probe_interval"),
        ({"probe_interval": float("nan")}, "probe_interval"), ({"probe_interval": float("inf")}, "probe_interval"),
        ({"probe_interval": "1"}, "probe_interval"), ({"max_connections": 0.5}, "max_connections"),
        ({"max_connections": True}, "max_connections"), ({"send_buffer": 1 << 60}, "send_buffer"),
        ({"prob_interval": 1}, "prob_interval"), ({"runtime_dir": 7}, "runtime_dir"),
    ],
    ids=lambda each: str(each)[:40].encode("ascii", "replace").decode(),
)  # fmt: skip
def test_a_wrong_setting_is_named_with_its_remedy(settings: dict[str, Any], said: str) -> None:
    cluster = settings.pop("cluster", "shop")
    with pytest.raises(gossip.ConfigError) as refused:
        gossip.Node(cluster, **settings)
    assert said in str(refused.value) and isinstance(refused.value, ValueError)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("PROBE_INTERVAL", "fast"), ("MAX_CONNECTIONS", "1.5"), ("INSECURE", "perhaps"), ("TAGS", "role"),
        ("SEEDS", "127.0.0.1"), ("MDNS", "perhaps"), ("SEEDS_COMMAND", "'"),
        ("BIND", "7946"), ("KEY", KEY[:-8]), ("KEY", KEY + "!"),
    ],
)  # fmt: skip
def test_a_wrong_variable_is_named(variable: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOSSAMESH_" + variable, text)
    with pytest.raises(gossip.ConfigError) as refused:
        gossip.Node("shop", bind=None if variable == "BIND" else "127.0.0.1:0")
    assert variable.lower() in str(refused.value).lower()


@pytest.mark.parametrize(
    "content",
    ["nme = 1", "name = 7", "= broken", '[shop]\nnme = "x"', "probe_interval = true", "tags = 7", "bind = []", None],
)
def test_a_wrong_file_is_named(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "gossamesh.toml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(gossip.ConfigError) as refused:
        gossip.Node("shop", config=file)
    assert any(name in str(refused.value) for name in ("gossamesh.toml", "name", "probe_interval", "tags", "bind"))


@pytest.mark.parametrize(
    "key", [CANARY, KEY, KEY.replace("+", "-").replace("/", "_"), CANARY[:-1], KEY[:-8], KEY + "!", [KEY]]
)
def test_a_key_is_never_shown(key: Any) -> None:
    """Neither in what a node shows of itself nor in what it says if the key is wrong: both end up in logs."""
    try:
        node = gossip.Node("shop", key=key)
        shown = repr([node, node.config]) + str(node.config)
        with node:
            shown += repr(node.status()) + repr(node.me)
    except gossip.ConfigError:
        shown = traceback.format_exc()
        assert "key" in shown
    shown = shown.replace('gossip.Node("shop", key=key)', "")
    for secret in (CANARY[:-1].decode(), KEY[:-8], CANARY.hex()[:40], repr(CANARY)[2:-2]):
        assert secret not in shown


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"max_transaction": 20 << 20}, "held_bytes"),
        ({"held_bytes": 1 << 20}, "max_transaction"),
        ({"send_buffer": 1 << 20}, "max_transaction"),
        ({"push_bytes": 8 << 20}, "send_buffer"),
    ],
)
def test_a_transaction_that_could_never_arrive_is_refused_at_once(settings: dict[str, int], named: str) -> None:
    with pytest.raises(gossip.ConfigError) as refused:
        gossip.Config(cluster="shop", **settings)
    assert named in str(refused.value) and next(iter(settings)) in str(refused.value)


def test_keys_are_told_as_one_or_several_in_any_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = base64.urlsafe_b64encode(b"o" * 32).decode()
    both = (CANARY, b"o" * 32)
    for told in ([KEY, other], (CANARY, other), f"{KEY},{other}", f" {KEY}\n{other}\n", [CANARY, KEY, b"o" * 32]):
        assert gossip.Config(cluster="shop", key=told).key == both
    assert gossip.Config(cluster="shop", key=KEY).key == gossip.Config(cluster="shop", key=CANARY).key == (CANARY,)
    assert gossip.Config(cluster="shop", key="").key == gossip.Config(cluster="shop", key=b"").key == ()
    monkeypatch.setenv("GOSSAMESH_KEY", f"{KEY}, {other}")
    assert gossip.Config.load("shop").key == both
    monkeypatch.delenv("GOSSAMESH_KEY")
    file = tmp_path / "gossamesh.toml"
    file.write_text(f'key = ["{KEY}", "{other}"]\n')
    config = gossip.Config.load("shop", file)
    assert config.key == both and dataclasses.replace(config, name="x").key == both
    with pytest.raises(gossip.ConfigError, match="9 keys, and 8"):
        gossip.Config(cluster="shop", key=[bytes([number]) * 32 for number in range(9)])
    for wrong in ([b""], [7], {"a": KEY}, KEY + KEY):
        with pytest.raises(gossip.ConfigError, match="key"):
            gossip.Config(cluster="shop", key=wrong)


def test_a_config_is_frozen() -> None:
    config = gossip.Config(cluster="shop", tags={"role": "web"})
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.name = "x"  # type: ignore[misc]


def test_a_seed_that_is_wrong_in_the_file_is_no_reason_not_to_start(cluster: str, tmp_path: Path, caplog: Any) -> None:
    seeds = tmp_path / "seeds"
    seeds.write_text("nonsense\n")
    with gossip.Node(cluster, bind="127.0.0.1:0", seeds_file=str(seeds)) as node:
        assert len(node.members) == 1
    assert "file of seeds" in caplog.text


def test_seeds_may_be_one_text() -> None:
    node = gossip.Node("shop", bind="127.0.0.1:0", seeds="127.0.0.1:7946, 127.0.0.1:7947")
    assert node.config.seeds == ("127.0.0.1:7946", "127.0.0.1:7947")


def test_names_services_and_a_command_are_told_alike_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = ("shop.default.svc:7946", "srv:_gossamesh._tcp.shop.example")
    words = "list-nodes --zone 'north, west'"
    file = tmp_path / "gossamesh.toml"
    file.write_text(
        f'bind = "127.0.0.1:0"\nseeds = {list(seeds)}\n'
        'seeds_command = ["list-nodes", "--zone", "north, west"]\nmdns = false\n'
    )
    by_file = gossip.Config.load("shop", file)
    monkeypatch.setenv("GOSSAMESH_SEEDS", ", ".join(seeds))
    monkeypatch.setenv("GOSSAMESH_SEEDS_COMMAND", words)
    monkeypatch.setenv("GOSSAMESH_MDNS", "no")
    by_environment = gossip.Config.load("shop", bind="127.0.0.1:0")
    by_keyword = gossip.Node("shop", bind="127.0.0.1:0", seeds=seeds, seeds_command=words, mdns=False).config
    assert by_file == by_environment == by_keyword
    assert by_file.seeds == seeds and by_file.seeds_command == words and by_file.mdns is False


def test_a_service_without_the_library_is_refused_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gossip.checks.find_spec", lambda name: None)
    with pytest.raises(gossip.ConfigError, match=r"gossamesh\[dns\]"):
        gossip.Node("shop", bind="127.0.0.1:0", seeds="srv:_gossamesh._tcp.shop.example")
    gossip.Node("shop", bind="127.0.0.1:0", seeds="shop.example:7946")


def test_a_misspelt_variable_of_the_environment_is_told(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """GOSSAMESH_SEED was set for an afternoon, and the node stayed alone without a word."""
    monkeypatch.setenv("GOSSAMESH_SEED", "127.0.0.1:1")
    monkeypatch.setenv("GOSSAMESH_RUNTIME_DIR", "/run/elsewhere")
    monkeypatch.setenv("GOSSAMESH_CLUSTER", "for the command line")
    gossip.Config.load("shop")
    (told,) = [record.message for record in caplog.records]
    assert "GOSSAMESH_SEED," in told and "did you mean GOSSAMESH_SEEDS?" in told
    monkeypatch.setenv("GOSSAMESH_KEY_FILE", "/etc/shop.key")  # or it would run unsealed
    with pytest.raises(gossip.ConfigError, match=r"GOSSAMESH_KEY_FILE.*the key itself"):
        gossip.Config.load("shop")


def test_seeds_that_do_not_answer_are_told_if_nobody_does(cluster: str, caplog: Any) -> None:
    quick: dict[str, Any] = {"bind": "127.0.0.1:0", "join_timeout": 0.1}
    with gossip.Node(cluster, seeds=["127.0.0.1:1"], **quick):
        assert "none of the seeds answered (127.0.0.1:1)" in caplog.text and "gossip doctor" in caplog.text
        caplog.clear()
        with gossip.Node(cluster, seeds=["127.0.0.1:1"], **quick):
            assert "none of the seeds" not in caplog.text, "a neighbour did"


def test_a_file_without_a_table_for_this_cluster_but_with_others_is_told(tmp_path: Path, caplog: Any) -> None:
    file = tmp_path / "gossamesh.toml"
    file.write_text('[shopp]\nname = "misspelt"\n[tags]\nrole = "web"\n')
    assert gossip.Config.load("shop", file).tags == {"role": "web"}
    assert "'shopp'" in caplog.text and "'shop'" in caplog.text and "on the top level" in caplog.text
    caplog.clear()
    gossip.Config.load("shopp", file)
    assert not caplog.text


def test_an_empty_key_in_the_environment_is_no_way_to_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for nothing in ("", " ", " , "):
        monkeypatch.setenv("GOSSAMESH_KEY", nothing)
        with pytest.raises(gossip.ConfigError, match="GOSSAMESH_KEY is empty"):
            gossip.Config.load("shop")


def test_an_address_that_is_none_is_told_with_its_setting() -> None:
    with pytest.raises(gossip.ConfigError, match=r"^bind: "):
        gossip.Config(cluster="shop", bind="nowhere")
    with pytest.raises(gossip.ConfigError, match=r"^advertise: "):
        gossip.Config(cluster="shop", bind="127.0.0.1:0", advertise="nowhere")


def test_two_keys_on_one_host_are_told_once(cluster: str, caplog: Any) -> None:
    often = {"discovery_interval": 0.05}
    with gossip.Node(cluster, key=bytes(32), **often) as ann, gossip.Node(cluster, key=CANARY, **often) as bob:
        until_here(lambda: ann.status()["counters"].get("unsealed"), "ann is spoken to")
        assert len(ann.members) == len(bob.members) == 1
        with gossip.Node(cluster) as none:
            until_here(lambda: none.status()["counters"].get("malformed"), "none is spoken to")
    told = [record for record in caplog.records if "has another key" in record.message]
    assert 2 <= len(told) <= 3, "each of them once"


def test_a_tag_that_is_none_is_shown_with_its_value() -> None:
    with pytest.raises(gossip.ConfigError, match=r"'a' is 1$"):
        gossip.Config.load("shop", tags={"a": 1})
    with pytest.raises(gossip.ConfigError, match=r"there are 1 tags, of together 5001 bytes, and at most 64 .* 4096"):
        gossip.Config.load("shop", tags={"a": "x" * 5000})
