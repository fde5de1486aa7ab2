"""Is a damaged directory refused, or opened as far as it is whole, and never taken for what it is not?

A file may be cut off anywhere, have any bit turned, its end zeroed or repeated. What then opens must be one of the
states that were there, and what is refused must be as it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from crdt import Store
from gossip.errors import StartError
from gossip.storage import Storage
from tests.storage.processes import LONG, in_memory, run
from tests.storage.story import CLUSTER, found_in
from tests.storage.trace import lay_out

SEED, COUNT = 5, 30
FILES = ("gossamesh.sqlite", "gossamesh.sqlite-wal")
Image = dict[str, bytes]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Thirty steps: a state, steps after it in the database, and more of them in the WAL."""
    directory = tmp_path_factory.mktemp("damage") / "kept"
    run(directory=directory, seed=SEED, count=COUNT, compact=[10, 16], checkpoint=30, small=True, end="exit")
    image = {name: (directory / name).read_bytes() for name in FILES}
    assert min(map(len, image.values())) > 20_000
    return image


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The same, closed in order: all of it is in the database."""
    directory = tmp_path_factory.mktemp("damage") / "kept"
    run(directory=directory, seed=SEED, count=COUNT, compact=[10])
    return {FILES[0]: (directory / FILES[0]).read_bytes()}


@pytest.fixture
def base() -> Iterator[Path]:
    with in_memory() as directory:
        yield directory


def outcome(image: Image, base: Path) -> int | str:
    """How many steps are found in it, or why it was refused."""
    directory = lay_out(image, base / "left")
    try:
        return found_in(directory, SEED, COUNT)
    except StartError as error:
        left = {path.name: path.read_bytes() for path in directory.iterdir()}
        said = str(error)
        assert left == image, f"refused, and changed: {said}"
        assert "ove it away" in said and str(directory) in said, f"it does not say what to do: {said}"
        return said
    finally:
        shutil.rmtree(directory)


def check(images: Iterator[tuple[str, Image]], base: Path) -> tuple[int, int]:
    """Opens each; gives how many opened and how many were refused."""
    opened = refused = 0
    for story, image in images:
        try:
            found = outcome(image, base)
        except AssertionError as error:
            raise AssertionError(f"{story}: {error}") from error
        opened, refused = opened + isinstance(found, int), refused + isinstance(found, str)
    print(f"{opened} opened, {refused} refused")
    return opened, refused


def test_a_whole_one_opens(whole: Image, base: Path) -> None:
    assert outcome(whole, base) == COUNT


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_off_anywhere(whole: Image, base: Path, name: str) -> None:
    size, chance = len(whole[name]), Random(1)
    places = {0, 1, 31, 32, 33, 55, 56, 99, 100, 512, 4095, 4096, 4097, size - 1}
    places |= {chance.randrange(size) for _ in range(3000 if LONG else 120)}
    images = ((f"{name} cut at {at}", whole | {name: whole[name][:at]}) for at in sorted(places))
    _, refused = check(images, base)
    assert refused or name.endswith("wal"), "a database that lacks its end is not whole"


@pytest.mark.parametrize(("image", "name"), [("whole", FILES[0]), ("whole", FILES[1]), ("ended", FILES[0])])
def test_a_bit_turned_anywhere(base: Path, image: str, name: str, request: pytest.FixtureRequest) -> None:
    sound: Image = request.getfixturevalue(image)
    content, chance = sound[name], Random(2)
    bits = [chance.randrange(len(content) * 8) for _ in range(20_000 if LONG else 400)]
    bits += [at * 8 + chance.randrange(8) for at in range(100)]  # both headers, each byte

    def images() -> Iterator[tuple[str, Image]]:
        for bit in bits:
            turned = bytearray(content)
            turned[bit // 8] ^= 1 << bit % 8
            yield f"{name}, bit {bit} turned", sound | {name: bytes(turned)}

    opened, refused = check(images(), base)
    assert opened and (refused or name.endswith("wal"))


@pytest.mark.parametrize("name", FILES)
def test_an_end_zeroed_or_repeated(whole: Image, base: Path, name: str) -> None:
    content, chance = whole[name], Random(3)

    def images() -> Iterator[tuple[str, Image]]:
        for _ in range(1000 if LONG else 40):
            length = chance.choice((1, 512, 4096, 4120, chance.randrange(1, len(content))))
            yield f"{name}, {length} zeros at its end", whole | {name: content[:-length] + bytes(length)}
            yield f"{name}, {length} of its end again", whole | {name: content + content[-length:]}
            at = chance.randrange(0, len(content) - 4096, 512)
            yield f"{name}, a hole at {at}", whole | {name: content[:at] + bytes(4096) + content[at + 4096 :]}

    check(images(), base)


def test_pages_of_another_time(whole: Image, base: Path, tmp_path: Path) -> None:
    """A page as it was earlier, or in another directory's file: each is well-formed by itself."""
    chance = Random(4)
    others = []
    for seed, count in ((SEED, 20), (SEED, 26), (SEED + 1, COUNT)):
        directory = tmp_path / f"{seed}-{count}"
        run(directory=directory, seed=seed, count=count, compact=[10, 16], checkpoint=30, small=True, pace="stored")
        others.append((directory / FILES[0]).read_bytes())

    def images() -> Iterator[tuple[str, Image]]:
        for number in range(1500 if LONG else 150):
            other = chance.choice(others)
            pages = chance.sample(range(len(other) // 4096), 1 + number % 3)
            mixed = bytearray(whole[FILES[0]])
            for page in pages:
                mixed[page * 4096 : (page + 1) * 4096] = other[page * 4096 : (page + 1) * 4096]
            image = {FILES[0]: bytes(mixed)} if number % 2 else whole | {FILES[0]: bytes(mixed)}
            yield f"pages {pages} of {others.index(other)}", image

    check(images(), base)


def test_the_files_of_two_directories_mixed(whole: Image, base: Path, tmp_path: Path) -> None:
    run(directory=tmp_path / "b", seed=SEED, count=COUNT, compact=[7], checkpoint=20, small=True, end="exit")
    other = {name: (tmp_path / "b" / name).read_bytes() for name in FILES}
    for mixed in (
        {FILES[0]: whole[FILES[0]], FILES[1]: other[FILES[1]]},
        {FILES[0]: other[FILES[0]], FILES[1]: whole[FILES[1]]},
    ):
        outcome(mixed, base)


@pytest.mark.parametrize("kept", FILES)
def test_a_file_that_is_gone(whole: Image, base: Path, kept: str) -> None:
    """Without its WAL a database is what it was at the last checkpoint. A WAL without its database is refused: SQLite
    would write it over a new one."""
    found = outcome({kept: whole[kept]}, base)
    assert isinstance(found, int) if kept == FILES[0] else "without its" in str(found)


def test_damaged_text_is_refused_like_all_else(ended: Image, base: Path) -> None:
    """Told in the middle of a statement, which kept SQLite from closing: it left a WAL, and would have unlinked it at
    some later time, when it could be that of somebody who had opened the directory again."""
    for text in (b"checksum BLOB", b"clustershop"):
        at = ended[FILES[0]].index(text)
        content = ended[FILES[0]][: at + 9] + b"\xc2" + ended[FILES[0]][at + 10 :]
        assert "damaged" in str(outcome({FILES[0]: content}, base))


def test_reading_that_fails_leaves_nothing_open(whole: Image, base: Path) -> None:
    """What was refused can be tried again, by this very process, once it was mended."""
    content = whole[FILES[0]]
    places = [at for at in range(len(content)) if content.startswith(b"key-", at)]
    broken = [whole | {FILES[0]: content[:at] + b"KEY" + content[at + 3 :]} for at in places]
    image = next(image for image in broken if "checksum" in str(outcome(image, base)))
    directory = lay_out(image, base / "left")
    storage = Storage(directory, CLUSTER)
    with pytest.raises(StartError, match="checksum"):
        storage.open(Store())
    assert storage.close()
    (directory / FILES[0]).write_bytes(content)
    assert found_in(directory, SEED, COUNT) == COUNT
