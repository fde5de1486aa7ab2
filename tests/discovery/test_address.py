"""Can every address be written and read back, and is everything else refused with words that help?"""

import pickle
import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from discovery import LONGEST_UNIX_PATH, Address, check_peer, parse_address, parse_peer

labels = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?", fullmatch=True)
names = (
    st.lists(labels, min_size=1, max_size=4)
    .map(".".join)
    .filter(lambda name: name != "unix" and not name.rpartition(".")[2].removeprefix("0x").isdigit())
    .filter(lambda name: not name.rpartition(".")[2].startswith("0x"))
)
hosts = st.one_of(names, names.map(lambda name: name + "."), st.ip_addresses().map(str))
ports = st.integers(0, 65535)
paths = st.text("abc/.-_ é日'\"#,:[]%", min_size=1, max_size=60).map(lambda text: "/run/" + text + ".sock")
addresses = st.one_of(
    st.builds(Address, hosts, ports),
    paths.filter(lambda path: len(path.encode()) <= LONGEST_UNIX_PATH).map(lambda path: Address(path=path)),
)


@given(addresses)
@example(Address("fe80::1%eth0", 1))
@example(Address("unix.", 1))
@example(Address("example.org.", 1))
@example(Address("1.2.3.4.example", 1))
def test_what_is_written_is_read_back(address: Address) -> None:
    assert parse_address(str(address), allow_port_zero=True) == address
    assert str(parse_address(str(address), allow_port_zero=True)) == str(address)


@given(st.one_of(st.text(max_size=40), st.text("0123456789abcdefx.:[]%/@-unix \0", max_size=30)))
@example("[fe80::1%\x00]:1")
@example("[fe80::1%]]:1")
@example("unix:/\ud800")
@example("[::1%eth0%eth1]:80")
@example("٣:٣")
@example("a:٣")
def test_any_text_is_an_address_or_a_value_error_of_bounded_length(text: str) -> None:
    message = ""
    try:
        address = parse_address(text, default_port=7946, allow_port_zero=True)
    except ValueError as error:
        message = f"{type(error).__name__}: {error}"
    if message:
        assert message.startswith("ValueError: cannot use "), "not one of our own refusals"
        assert "; " in message, "it names no remedy"
        assert message.isprintable()
        assert len(message) < 500
    else:
        assert parse_address(str(address), allow_port_zero=True) == address
        assert str(address).isprintable() or address.is_unix


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("Example.ORG:80", "example.org:80"),
        ("[2001:DB8:0:0:0:0:0:1]:80", "[2001:db8::1]:80"),
        ("[FE80::1%eth0]:80", "[fe80::1%eth0]:80"),
        ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
        ("web_1:80", "web_1:80"),
        ("host", "host:7946"),
        ("[::1]", "[::1]:7946"),
        ("unix:/run/x.sock", "unix:/run/x.sock"),
        ("unix:///run/x.sock", "unix:/run/x.sock"),
        ("a" * 63 + ":1", "a" * 63 + ":1"),
        ("a." * 126 + "a:1", "a." * 126 + "a:1"),
        ("a." * 127 + ":1", "a." * 127 + ":1"),
    ],
)
def test_there_is_one_writing_of_each_address(text: str, canonical: str) -> None:
    assert str(parse_address(text, default_port=7946)) == canonical
    assert parse_address(text, default_port=7946) == parse_address(canonical)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "it is empty"),
        (":80", "no host"),
        ("host", "no port"),
        ("[::1]", "no port"),
        ("host:", "port is not a number"),
        ("[::1]:", "port is not a number"),
        ("host:0", "port 0"),
        ("host:65536", "out of range"),
        ("host:99999999999999999999", "port is not a number"),
        ("host:-1", "port is not a number"),
        ("host:+1", "port is not a number"),
        ("host:1_0", "port is not a number"),
        ("host:080", "port is not a number"),
        ("host:8o", "port is not a number"),
        ("host: 80", "port is not a number"),
        ("host:80\n", "port is not a number"),
        ("::1:7946", "in brackets: \\[::1\\]:7946"),
        ("::1", "in brackets"),
        ("[host]:80", "brackets do not hold an IPv6"),
        ("[::1", "brackets do not hold an IPv6"),
        ("[::1]80", "brackets do not hold an IPv6"),
        ("[::12345]:80", "not an IPv6 address"),
        ("[fe80::1%]:80", "scope"),
        ("[fe80::1%a b]:80", "scope"),
        ("[fe80::1%\x07]:80", "scope"),
        ("[fe80::1%sixteencharacter]:80", "scope"),
        ("256.0.0.1:80", "not an IPv4 address"),
        ("1.2.3:80", "not an IPv4 address"),
        ("127.1:80", "not an IPv4 address"),
        ("0:80", "not an IPv4 address"),
        ("0x7f000001:80", "not an IPv4 address"),
        ("0.0.0.0.:80", "not an IPv4 address"),
        ("010.0.0.1:80", "not an IPv4 address"),
        ("a b:80", "not a name"),
        ("a\x00b:80", "not a name"),
        ("\x1b[2J:80", "not a name"),
        ("a..b:80", "not a name"),
        ("-a:80", "not a name"),
        ("user@host:80", "not a name"),
        ("a" * 64 + ":80", "not a name"),
        ("a." * 130 + "a:80", "longer than 253"),
        ("a" * 1_000_000 + ":80", "longer than 253"),
        ("müller.example:80", "xn--"),
        ("\uff11\uff12\uff17.0.0.1:80", "xn--"),
        ("http://host:80", "no scheme"),
        ("/run/x.sock", "unix:/path"),
        ("unix:", "not absolute"),
        ("unix:x.sock", "not absolute"),
        ("unix:@abstract", "not absolute"),
        ("unix:7946", "not absolute"),
        ("unix://run/x.sock", "two slashes"),
        ("unix:/", "ends in a slash"),
        ("unix:/run/", "ends in a slash"),
        ("unix:/run/x.sock ", "ends in a slash or a space"),
        ("unix:/run/\x00.sock", "control characters"),
        ("unix:/run/\x1b.sock", "control characters"),
        ("unix:/run/\u2028.sock", "control characters"),
        ("unix:/run/\udcff.sock", "not UTF-8"),
        ("unix:/" + "x" * LONGEST_UNIX_PATH, "longer than"),
        ("unix:/" + "é" * 60, "longer than"),
    ],
)
def test_what_is_no_address_is_refused_in_words(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        parse_address(text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_text_is_asked_for() -> None:
    with pytest.raises(TypeError, match="written as text such as"):
        parse_address(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_default_port_out_of_range_is_refused(port: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        parse_address("host", default_port=port)


def test_an_address_has_a_path_or_a_host() -> None:
    with pytest.raises(ValueError, match="give either"):
        Address("host", 1, "/run/x.sock")
    with pytest.raises(ValueError, match="empty"):
        Address()


def test_a_host_called_unix_cannot_be_mistaken_for_a_path() -> None:
    with pytest.raises(ValueError, match=r"write 'unix\.'"):
        Address("unix", 7946)


def test_the_longest_path_is_one_the_system_binds(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = str(tmp_path_factory.mktemp("d"))
    path = directory + "/" + "x" * (LONGEST_UNIX_PATH - len(directory) - 1)
    assert Address(path=path).path == path
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)


@pytest.mark.parametrize("text", ["0.0.0.0:7946", "[::]:7946", "0.0.0.0:0", "[::]:0", "127.0.0.1:0"])
def test_bind_may_mean_every_interface_and_any_port(text: str) -> None:
    assert str(parse_address(text, allow_port_zero=True)) == text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("0.0.0.0:7946", "every interface"),
        ("0.1.2.3:7946", "every interface"),
        ("[::]:7946", "every interface"),
        ("[::ffff:0.0.0.0]:7946", "every interface"),
        ("255.255.255.255:7946", "whole subnet"),
        ("[::ffff:255.255.255.255]:7946", "whole subnet"),
        ("224.0.0.251:7946", "whole group"),
        ("239.255.255.255:7946", "whole group"),
        ("[ff02::fb]:7946", "whole group"),
        ("[ff02::fb%eth0]:7946", "whole group"),
        ("[::ffff:224.0.0.251]:7946", "whole group"),
        ("10.0.0.1:0", "port 0"),
    ],
)
def test_s4_an_address_that_is_no_single_place_is_no_peer(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_peer(text)
    with pytest.raises(ValueError, match=complaint):
        check_peer(parse_address(text, allow_port_zero=True))


@pytest.mark.parametrize(
    "text", ["10.0.0.1:1", "240.0.0.1:1", "[fe80::1%eth0]:1", "localhost:1", "unix:/run/x.sock", "[::1]:1"]
)
def test_a_single_place_is_a_peer(text: str) -> None:
    assert str(parse_peer(text)) == text


@pytest.mark.parametrize(
    ("host", "loopback", "unspecified", "multicast"),
    [
        ("127.0.0.1", True, False, False),
        ("127.255.255.254", True, False, False),
        ("::1", True, False, False),
        ("::ffff:127.0.0.1", True, False, False),
        ("LocalHost", True, False, False),
        ("localhost.example.org", False, False, False),
        ("x.localhost", False, False, False),
        ("128.0.0.1", False, False, False),
        ("0.0.0.0", False, True, False),
        ("::", False, True, False),
        ("224.0.0.251", False, False, True),
        ("ff02::fb", False, False, True),
        ("10.0.0.1", False, False, False),
    ],
)
def test_an_address_knows_its_kind(host: str, loopback: bool, unspecified: bool, multicast: bool) -> None:
    address = Address(host, 1)
    kind = (address.is_loopback, address.is_unspecified, address.is_multicast, address.is_unix)
    assert kind == (loopback, unspecified, multicast, False)


def test_a_unix_socket_is_of_no_network_kind() -> None:
    address = Address(path="/run/x.sock")
    assert address.is_unix
    assert not (address.is_loopback or address.is_unspecified or address.is_multicast)


@given(addresses)
def test_an_address_is_a_value(address: Address) -> None:
    assert pickle.loads(pickle.dumps(address)) == address
    assert len({address, parse_address(str(address), allow_port_zero=True)}) == 1
    with pytest.raises(AttributeError):
        address.port = 1  # type: ignore[misc]


@pytest.mark.parametrize("text", ["7947", ":7947"])
def test_a_port_alone_is_met_with_whole_addresses(text: str) -> None:
    with pytest.raises(ValueError, match=r"write 127\.0\.0\.1:7947 .*, or 0\.0\.0\.0:7947"):
        parse_address(text)


def test_two_words_are_not_taken_for_a_host_without_a_port() -> None:
    with pytest.raises(ValueError, match=r"a space in it.*one address for each"):
        parse_address("10.0.0.1 10.0.0.2")
    with pytest.raises(ValueError, match="a space in it"):
        parse_address("foo bar")
