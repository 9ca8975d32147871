"""Journals that somebody edited: verify sees it, and what a worker adds destroys nothing."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import Any, Protocol
from zlib import crc32

import pytest

from streamjournal.core.clock import SYSTEM
from streamjournal.core.entry import decode_envelope
from streamjournal.core.item import Item
from streamjournal.core.position import Lineage, Position
from streamjournal.read.verify import verify_journal
from streamjournal.store import journal_append, journal_folder
from streamjournal.store.commit import Committed, Committer
from streamjournal.store.history import count_body
from streamjournal.store.memory import MemoryStore, Version
from streamjournal.store.names import journal_key
from streamjournal.store.port import Store
from tests.sim.rig import WRITER, line
from tests.sim.virtual import virtual_clock
from tests.store.rigs import MIB, PREFIX, FilesRig, MemoryRig, Rig, S3Rig

pytestmark = pytest.mark.anyio


class Hand(Protocol):
    """Somebody with access to the data, and an editor."""

    @property
    def rig(self) -> Rig:
        """The store."""

    def edit(self, session_id: str, body: bytes) -> None:
        """Change a body, and leave the metadata as it is."""

    def remove_metadata(self, session_id: str) -> None:
        """Leave the body only."""

    def copy_metadata(self, source: str, target: str) -> None:
        """Give a journal the metadata of another."""


class MemoryHand:
    """In the store in memory."""

    def __init__(self) -> None:
        self.rig: MemoryRig = MemoryRig()
        self.store: MemoryStore = self.rig.store

    def _change(self, session_id: str, body: bytes, fields: dict[str, str] | None) -> None:
        self.store.versions[session_id].append(Version(body, fields, f"by hand {len(body)}", SYSTEM.time()))

    def edit(self, session_id: str, body: bytes) -> None:
        """See `Hand`."""
        self._change(session_id, body, self.store.versions[session_id][-1].fields)

    def remove_metadata(self, session_id: str) -> None:
        """See `Hand`."""
        self._change(session_id, self.store.body(session_id), None)

    def copy_metadata(self, source: str, target: str) -> None:
        """See `Hand`."""
        self._change(target, self.store.body(target), self.store.versions[source][-1].fields)


class FilesHand:
    """In the folders of the files store."""

    def __init__(self, home: Path) -> None:
        self.rig: FilesRig = FilesRig(home)

    def edit(self, session_id: str, body: bytes) -> None:
        """See `Hand`."""
        self.rig.path(session_id).write_bytes(body)

    def remove_metadata(self, session_id: str) -> None:
        """See `Hand`."""
        (self.rig.path(session_id).parent / journal_folder.META).unlink()

    def copy_metadata(self, source: str, target: str) -> None:
        """See `Hand`."""
        folders = [self.rig.path(it).parent / journal_folder.META for it in (source, target)]
        shutil.copy(*folders)


class S3Hand:
    """In the bucket: what is put there anew keeps its metadata only if the hand takes care of it."""

    def __init__(self, client: Any, bucket: str) -> None:
        self.rig: S3Rig = S3Rig(client, bucket)

    def _put(self, session_id: str, body: bytes, fields: dict[str, str]) -> None:
        key = journal_key(PREFIX, session_id)
        self.rig.client.put_object(Bucket=self.rig.bucket, Key=key, Body=body, Metadata=fields)

    def _fields(self, session_id: str) -> dict[str, str]:
        key = journal_key(PREFIX, session_id)
        fields: dict[str, str] = self.rig.client.head_object(Bucket=self.rig.bucket, Key=key)["Metadata"]
        return fields

    def edit(self, session_id: str, body: bytes) -> None:
        """See `Hand`."""
        self._put(session_id, body, self._fields(session_id))

    def remove_metadata(self, session_id: str) -> None:
        """See `Hand`."""
        self._put(session_id, self.rig.raw(session_id), {})

    def copy_metadata(self, source: str, target: str) -> None:
        """See `Hand`."""
        self._put(target, self.rig.raw(target), self._fields(source))


@pytest.fixture(params=["memory", "files", pytest.param("s3", marks=pytest.mark.aws)])
async def hand(request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Hand]:
    """A hand in each store that ships."""
    made: Hand
    if request.param == "memory":
        made = MemoryHand()
    elif request.param == "files":
        made = FilesHand(tmp_path / "home")
    else:
        bucket: Callable[[], str] = request.getfixturevalue("aws_bucket")
        client: Callable[[str, str], Any] = request.getfixturevalue("aws_client")
        made = S3Hand(client("s3", request.getfixturevalue("aws_emulator")), bucket())
    yield made
    await made.rig.store.aclose()


@pytest.fixture
def rig(tmp_path: Path) -> FilesRig:
    """A store in a folder of its own."""
    return FilesRig(tmp_path / "home")


async def commit(store: Store, *numbers: int, session_id: str = "s") -> Committed:
    """Commit entries, as a worker that knows nothing of the journal."""
    items = [_item(n, session_id) for n in numbers]
    return await Committer(store, virtual_clock(), _no_lineage).commit(session_id, items, None, _ours)


async def kinds(store: Store) -> list[str]:
    """What a check finds."""
    found = await verify_journal(store, "s")
    assert found is not None
    assert found.whole is not any(finding.damage for finding in found.findings)
    return [finding.kind for finding in found.findings]


def _swap(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[2], lines[1], *lines[3:]]


Edit = Callable[[list[bytes]], list[bytes]]
SAME_LENGTH: dict[str, tuple[Edit, list[str]]] = {
    "a byte": (lambda x: [x[0].replace(b"tool", b"fool"), *x[1:]], ["checksum"]),
    "a level": (
        lambda x: [x[0].replace(b'"INFO"', b'"EROR"'), *x[1:]],
        ["checksum"],
    ),
    "lines swapped": (_swap, ["out_of_order", "checksum"]),
    "a line overwritten": (
        lambda x: [x[0], b"#" * (len(x[1]) - 1) + b"\n", *x[2:]],
        ["not_an_entry", "missing", "checksum", "writers"],
    ),
}
SHORTER: dict[str, tuple[Edit, list[str]]] = {
    "a line deleted": (lambda x: [x[0], *x[2:]], ["missing", "checksum", "summary", "writers"]),
    "the last line deleted": (lambda x: x[:-1], ["checksum", "summary", "writers"]),
    "the last newline removed": (lambda x: [*x[:-1], x[-1][:-1]], ["torn", "checksum"]),
    "half a line cut off": (
        lambda x: [*x[:-1], x[-1][:40]],
        ["not_an_entry", "torn", "checksum", "writers"],
    ),
    "everything deleted": (lambda _: [], ["checksum", "summary", "writers"]),
}
LONGER: dict[str, tuple[Edit, list[str]]] = {
    "a line doubled": (lambda x: [*x, x[-1]], ["repeated", "checksum", "summary"]),
    "garbage appended": (lambda x: [*x, b"garbage\n"], ["not_an_entry", "checksum", "summary"]),
    "garbage without newline": (
        lambda x: [*x, b"\xff\x00"],
        ["not_an_entry", "torn", "checksum", "summary"],
    ),
}


@pytest.mark.parametrize("what", [*SAME_LENGTH, *SHORTER, *LONGER])
async def test_a_body_that_was_edited(hand: Hand, what: str) -> None:
    """A check says what was done. The next commit comes after it, and changes not one byte of it."""
    store = hand.rig.store
    await commit(store, 1, 2, 3, 4)
    edit, expected = {**SAME_LENGTH, **SHORTER, **LONGER}[what]
    edited = b"".join(edit(hand.rig.raw("s").splitlines(keepends=True)))
    hand.edit("s", edited)
    if isinstance(hand, FilesHand) and what in LONGER:
        expected = ["beyond"]  # what was not committed is no part of a journal in files
    assert await kinds(store) == expected
    await commit(store, 5)
    after = hand.rig.raw("s")
    newline = b"" if not edited or edited.endswith(b"\n") else b"\n"
    assert after.startswith(edited + newline)
    assert after.endswith(_item(5).line + b"\n")
    told = b"ENTRIES_TRIMMED" in after  # by what is left of the lines, where the metadata went with the rest
    assert after.count(b"\n") == (edited + newline).count(b"\n") + 1 + told


@pytest.mark.parametrize("what", SAME_LENGTH)
async def test_damage_does_not_go_away(hand: Hand, what: str) -> None:
    """A commit on top does not make the checksum one of the edited body."""
    store = hand.rig.store
    await commit(store, 1, 2, 3, 4)
    hand.edit("s", b"".join(SAME_LENGTH[what][0](hand.rig.raw("s").splitlines(keepends=True))))
    before = await kinds(store)
    await commit(store, 5)
    assert await kinds(store) == before


@pytest.mark.parametrize("what", ["a line doubled", "garbage appended"])
async def test_what_a_hand_appended_to_a_file_is_taken_in(rig: FilesRig, what: str) -> None:
    """Once it is part of the journal, a check says which line it is; checksum and summary count it."""
    hand = FilesHand(rig.home)
    await commit(rig.store, 1, 2)
    edit, expected = LONGER[what]
    hand.edit("s", b"".join(edit(rig.raw("s").splitlines(keepends=True))))
    await commit(rig.store, 3)
    assert await kinds(rig.store) == expected[:1]


async def test_metadata_that_was_removed(hand: Hand) -> None:
    """It is told; the next commit counts the lines, doubles nothing, and begins a checksum."""
    store = hand.rig.store
    await commit(store, 1, 2, 3)
    body = hand.rig.raw("s")
    hand.remove_metadata("s")
    assert await kinds(store) == ["no_metadata"]
    done = await commit(store, 2, 3, 4)
    assert (done.written, done.duplicates) == (1, 2)
    assert hand.rig.raw("s") == body + _item(4).line + b"\n"
    assert await kinds(store) == []


async def test_metadata_of_another_journal(hand: Hand) -> None:
    """It is told; the worker believes it, since nothing else says how far the journal is, and destroys
    nothing.
    """
    store = hand.rig.store
    await commit(store, 1, 2, 3, 4)
    await commit(store, 1, 2, session_id="t")
    body = hand.rig.raw("s")
    hand.copy_metadata("t", "s")
    found = await kinds(store)
    assert {"checksum", "writers"} & set(found)
    await commit(store, 5)
    assert hand.rig.raw("s").startswith(body)
    assert hand.rig.raw("s").endswith(_item(5).line + b"\n")
    assert "writers" in await kinds(store) or "notice" in await kinds(store)


@pytest.mark.parametrize("newline", [b"", b"\n"])
@pytest.mark.parametrize("size", [1, 6 * MIB])
async def test_a_journal_of_the_older_one_file_tool(hand: Hand, newline: bytes, size: int) -> None:
    """It is read as it is, made longer, and has a position, numbers and a checksum from then on."""
    store = hand.rig.store
    old = b'{"timestamp":"2024-01-01 10:00:00","event_type":"OLD","x":"' + b"y" * size + b'"}'
    hand.rig.adopt("s", old + b"\n" + old + newline)
    assert await kinds(store) == ["no_metadata"]
    await commit(store, 1, 2)
    await commit(store, 2, 3)
    lines = hand.rig.raw("s").splitlines()
    assert lines[:2] == [old, old]
    assert lines[2:] == [_item(n).line for n in (1, 2, 3)]
    head = await store.head("s")
    assert head is not None
    assert head.meta is not None
    assert head.meta.position is not None
    assert head.meta.crc == crc32(hand.rig.raw("s"))
    found = await verify_journal(store, "s")
    assert found is not None
    assert (found.whole, found.findings, found.entries, found.unnumbered) == (True, [], 5, 2)


async def _no_lineage(_: Collection[str]) -> Lineage:
    return Lineage({})


async def _ours() -> None:
    """The lease is held."""


def _item(n: int, session_id: str = "s") -> Item:
    text = line(session_id, n)
    position = Position("0123456789abcdef", "a", str(n))
    return Item(text, position, WRITER, n, decode_envelope(text).timestamp, "INFO", None)


@pytest.mark.parametrize(
    "by_hand",
    [
        b'{"event_type":"NOTE","timestamp":"t9"}\n',
        b'{"event_type":"SESSION_END","details":{"error":"no"}}\nno json',
        b"\n",
        b"x",
    ],
)
async def test_the_metadata_agrees_with_lines_added_by_hand(rig: FilesRig, by_hand: bytes) -> None:
    """Summary and checksum are those of the body as it is then, whatever was added."""
    clock = virtual_clock()
    committer = Committer(rig.store, clock, _no_lineage)
    first = (await committer.commit("s", [_item(1), _item(2)], None, _ours)).head
    with rig.path("s").open("ab") as file:
        file.write(by_hand)
    head = (await committer.commit("s", [_item(3)], first, _ours)).head
    assert head is not None
    assert head.meta is not None
    counted = await count_body(rig.store, "s")
    assert (head.meta.summary, head.meta.crc) == (counted.summary, counted.checksum)
    assert rig.raw("s").endswith(by_hand.rstrip(b"\n") + b"\n" + _item(3).line + b"\n")


async def test_lines_that_come_while_a_journal_is_adopted(rig: FilesRig) -> None:
    """An older tool that goes on writing meanwhile: its lines stay, and there is no wrong checksum."""
    rig.adopt("s", b'{"event_type":"OLD"}')
    folder = rig.path("s").parent
    with journal_folder.opened(folder) as fd:
        state = journal_folder.look(folder)
        assert fd is not None
        assert state is not None
        journal_append._adopt(fd, state, 0.0)  # and the writer dies
    known = await rig.store.head("s")
    with rig.path("s").open("ab") as file:
        file.write(b'\n{"event_type":"LATER"}')
    done = await Committer(rig.store, virtual_clock(), _no_lineage).commit("s", [_item(1)], known, _ours)
    assert rig.raw("s").count(b"\n") == 3
    assert done.head is not None
    assert done.head.meta is not None
    assert (done.head.meta.summary.entries, done.head.meta.crc) == (3, None)
