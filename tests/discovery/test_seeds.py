"""Does every way of naming seeds give the same list, and does every mistake in one say where it is?"""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery import MOST_SEEDS, Address, parse_seeds, read_seeds

A, B, C = Address("a", 1), Address("b", 2), Address("10.0.0.3", 7946)


@pytest.mark.parametrize(
    "text", ["a:1,b:2", "a:1 b:2", " a:1 ,\n\tb:2, ", "a:1,,b:2", "a:1\r\nb:2\r\n", "a:1,b:2,a:1", "A:1 b:2"]
)
def test_commas_and_white_space_part_the_entries_of_one_string(text: str) -> None:
    assert parse_seeds(text) == [A, B]


def test_an_iterable_holds_one_address_an_entry() -> None:
    assert parse_seeds(["b:2", "a:1", "b:2"]) == [B, A]
    assert parse_seeds(["unix:/run/a b,c.sock"]) == [Address(path="/run/a b,c.sock")]
    with pytest.raises(ValueError, match="seed 'a:1,b:2' in the list of seeds"):
        parse_seeds(["a:1,b:2"])


@pytest.mark.parametrize("nothing", ["", " ,\n", [], ()])
def test_no_seeds_are_an_empty_list(nothing: str | list[str]) -> None:
    assert parse_seeds(nothing) == []


def test_the_default_port_is_for_those_without_one() -> None:
    assert parse_seeds("10.0.0.3 a:1", default_port=7946) == [C, A]


def test_a_bad_entry_is_named_with_the_place_it_came_from(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"seed 'b:x' in GOSSAMESH_SEEDS: .* port is not a number"):
        parse_seeds("a:1,b:x", source="GOSSAMESH_SEEDS")
    with pytest.raises(ValueError, match=r"seed 'b' in the list of seeds: .* no port"):
        parse_seeds(["b"])
    file = tmp_path / "seeds"
    file.write_text("a:1\n\n0.0.0.0:1\n")
    with pytest.raises(ValueError, match=r"seed '0.0.0.0:1' in .*/seeds, line 3: .* every interface"):
        read_seeds(file)


def test_an_error_message_does_not_repeat_a_megabyte() -> None:
    with pytest.raises(ValueError) as caught:
        parse_seeds("x" * 1_000_000)
    assert len(str(caught.value)) < 400


def test_a_file_has_one_entry_a_line_and_comments(tmp_path: Path) -> None:
    file = tmp_path / "seeds"
    file.write_bytes(
        b"\xef\xbb\xbf# all of them\r\na:1\r\n\r\n   b:2  # the second\n#c:3\n\tunix:/run/a b#c.sock \na:1"
    )
    assert read_seeds(file) == [A, B, Address(path="/run/a b#c.sock")]


def test_a_file_is_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "seeds"
    with pytest.raises(FileNotFoundError):
        read_seeds(file)
    file.write_text("a:1")
    assert read_seeds(file) == [A]
    file.write_text("b:2")
    assert read_seeds(file) == [B]
    file.write_text("oops")
    with pytest.raises(ValueError, match="line 1"):
        read_seeds(file)


def test_what_cannot_be_a_list_of_seeds_is_refused_and_stops_nobody(tmp_path: Path) -> None:
    pipe, binary, endless = tmp_path / "pipe", tmp_path / "binary", tmp_path / "endless"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match="regular file"):
        read_seeds(pipe)
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_seeds(binary)
    endless.write_bytes(b"# \n" * 400_000)
    with pytest.raises(ValueError, match="exceeds"):
        read_seeds(endless)
    with pytest.raises(OSError, match="directory"):
        read_seeds(tmp_path)


def test_too_many_seeds_are_refused_wherever_they_come_from() -> None:
    many = [f"10.0.{n // 256}.{n % 256}:1" for n in range(MOST_SEEDS + 1)]
    assert len(parse_seeds(many[:-1] * 2)) == MOST_SEEDS
    with pytest.raises(ValueError, match="more than 256 seeds in GOSSAMESH_SEEDS"):
        parse_seeds(",".join(many), source="GOSSAMESH_SEEDS")


@given(st.text("ab12:,. \n#[]/", max_size=40))
def test_any_text_gives_distinct_peers_or_a_value_error(text: str) -> None:
    found, message = [], ""
    try:
        found = parse_seeds(text, default_port=7946)
    except ValueError as error:
        message = str(error)
    if message:
        assert message.startswith("seed ")
    else:
        assert len(found) == len(set(found))
        assert parse_seeds(" ".join(map(str, found))) == found
