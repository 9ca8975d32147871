"""What every store promises, over every store that ships."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from streamjournal.core.clock import SYSTEM
from streamjournal.core.entry import MAX_SESSION_ID_BYTES
from streamjournal.core.errors import CommitConflictError, CommitError, JournalGoneError
from streamjournal.store.names import session_name, session_of
from streamjournal.store.port import DeadLetter, Store
from tests.store.rigs import MIB, FilesRig, MemoryRig, Rig, S3Rig, begin, read, some_meta

pytestmark = pytest.mark.anyio

ODD_IDS = [
    "swe-agent-claude35/astropy__astropy-12907",
    "../x",
    "a/b",
    "a%2Fb",
    "日本",
    "CON",
    ".",
    "..",
    ".hidden",
    "~",
    "a b+c",
    "a",
    "a-b",
    "\N{GRINNING FACE}" * 64,
    "x" * MAX_SESSION_ID_BYTES,
]


@pytest.fixture(
    params=[
        ("memory", "asyncio"),
        ("memory", "trio"),
        ("files", "asyncio"),
        ("files", "trio"),
        pytest.param(("s3", "asyncio"), marks=pytest.mark.aws),
    ],
    ids="-".join,
)
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Which store, on which event loop."""
    return request.param


@pytest.fixture
def anyio_backend(case: tuple[str, str]) -> str:
    """The event loop of the case."""
    return case[1]


@pytest.fixture
def rig(case: tuple[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> Rig:
    """A store of its own for each test."""
    if case[0] == "memory":
        return MemoryRig()
    if case[0] == "files":
        return FilesRig(tmp_path / "home")
    bucket: Callable[[], str] = request.getfixturevalue("aws_bucket")
    client: Callable[[str, str], Any] = request.getfixturevalue("aws_client")
    return S3Rig(client("s3", request.getfixturevalue("aws_emulator")), bucket())


@pytest.fixture
async def store(rig: Rig, anyio_backend: str) -> AsyncIterator[Store]:
    """The rig's store, closed after the test."""
    yield rig.store
    await rig.store.aclose()


async def test_there_is_nothing_at_first(store: Store) -> None:
    """A store without journals says so, and does not make any by looking."""
    assert await store.head("s") is None
    assert await read(store, "s") is None
    assert await read(store, "s", -10) is None
    assert await read(store, "s", 5, 5) is None
    assert await store.head_named("s") is None
    assert [it async for it in store.journals()] == []


async def test_begin_and_grow(store: Store, rig: Rig) -> None:
    """Each commit gives the head that a later look finds, and other tools see the plain lines."""
    first = await begin(store, "s", b'{"n":1}\n')
    second = await store.append("s", first, b'{"n":2}\n{"n":3}\n', some_meta(3))

    assert rig.raw("s") == b'{"n":1}\n{"n":2}\n{"n":3}\n'
    found = await store.head("s")
    assert found is not None
    assert msgspec.structs.replace(found, modified=0) == msgspec.structs.replace(second, modified=0)
    assert (found.size, found.meta) == (24, some_meta(3))
    assert abs(found.modified - second.modified) < 5
    assert first.version != second.version


async def test_a_stale_base_is_a_conflict(store: Store, rig: Rig) -> None:
    """Of two writers that saw the same version one is refused, and leaves no trace."""
    base = await begin(store, "s")
    await store.append("s", base, b'{"n":2}\n', some_meta(2))
    before = await store.head("s")

    with pytest.raises(CommitConflictError):
        await store.append("s", base, b'{"other":2}\n', some_meta(5))
    assert rig.raw("s") == b'{"n":1}\n{"n":2}\n'
    assert await store.head("s") == before


async def test_concurrent_appends_have_one_winner(store: Store, rig: Rig) -> None:
    """Whatever the interleaving, exactly one append to a version happens."""
    base = await begin(store, "s")
    outcomes: list[str] = []

    async def attempt(n: int) -> None:
        try:
            await store.append("s", base, f'{{"by":{n}}}\n'.encode(), some_meta(n + 2))
            outcomes.append("written")
        except CommitConflictError:
            outcomes.append("conflict")

    async with anyio.create_task_group() as tasks:
        for n in range(6):
            tasks.start_soon(attempt, n)
    assert sorted(outcomes) == ["conflict"] * 5 + ["written"]
    assert rig.raw("s").count(b"\n") == 2


async def test_begin_over_an_existing_journal_is_refused(store: Store, rig: Rig) -> None:
    """A journal is begun once; an adopted one counts as begun."""
    await begin(store, "s")
    rig.adopt("old", b'{"old":1}\n')
    for session_id in ("s", "old"):
        before = rig.raw(session_id)
        with pytest.raises(CommitConflictError):
            await store.append(session_id, None, b'{"n":9}\n', some_meta(9))
        assert rig.raw(session_id) == before


async def test_a_deleted_journal_is_gone(store: Store, rig: Rig) -> None:
    """An append to a journal that somebody deleted says so and does not bring it back."""
    base = await begin(store, "s")
    rig.delete("s")
    with pytest.raises(JournalGoneError):
        await store.append("s", base, b'{"n":2}\n', some_meta(2))
    assert await store.head("s") is None


async def test_a_restarted_journal_is_a_conflict_for_the_old_writer(store: Store, rig: Rig) -> None:
    """A writer that knows the deleted journal cannot add to the one begun in its place."""
    old = await begin(store, "s")
    rig.delete("s")
    await store.append("s", None, b'{"again":1}\n', some_meta(1, generation="g2"))
    with pytest.raises(CommitConflictError):
        await store.append("s", old, b'{"n":2}\n', some_meta(2))
    assert rig.raw("s") == b'{"again":1}\n'


async def test_a_deleted_journal_can_be_begun_again(store: Store, rig: Rig) -> None:
    """After a deletion the name is free, and nothing of the old journal shows."""
    await begin(store, "s", b'{"n":1,"a longer first line":true}\n')
    rig.delete("s")
    head = await store.append("s", None, b'{"n":1}\n', some_meta(1, generation="g2"))
    assert await read(store, "s") == b'{"n":1}\n'
    assert head.size == 8


async def test_a_deletion_is_remembered(store: Store, rig: Rig) -> None:
    """Of a journal that was there and is not any more, until it begins again; each time anew."""
    assert not await store.was_deleted("s")
    for again in range(1, 3):
        await store.append("s", None, b'{"n":1}\n', some_meta(1, generation=f"g{again}"))
        assert not await store.was_deleted("s")
        rig.delete_traceably("s")
        assert await store.was_deleted("s")
        assert await store.head("s") is None
    assert not await store.was_deleted("other")
    head = await store.append("s", None, b'{"n":3}\n', some_meta(1, generation="g3"))
    assert not await store.was_deleted("s")
    await store.append("s", head, b'{"n":4}\n', some_meta(2, generation="g3"))
    assert rig.raw("s") == b'{"n":3}\n{"n":4}\n'


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (0, None, b"0123456789\n"),
        (4, None, b"456789\n"),
        (4, 6, b"45"),
        (0, 3, b"012"),
        (9, 500, b"9\n"),
        (4, 4, b""),
        (6, 4, b""),
        (0, 0, b""),
        (11, None, b""),
        (500, None, b""),
        (500, 600, b""),
        (-3, None, b"89\n"),
        (-11, None, b"0123456789\n"),
        (-500, None, b"0123456789\n"),
        (-5, 8, b"67"),
        (-5, 2, b""),
        (-500, 2, b"01"),
    ],
)
async def test_reading_a_part(store: Store, start: int, stop: int | None, expected: bytes) -> None:
    """Start counts from either end, stop from the front, and neither can be out of bounds."""
    await begin(store, "s", b"0123456789\n")
    assert await read(store, "s", start, stop) == expected


async def test_a_part_says_where_it_begins(store: Store) -> None:
    """The start of a part is an offset in the journal, whatever was asked for."""
    await begin(store, "s", b"0123456789\n")
    for asked, starts in ((0, 0), (4, 4), (-3, 8), (-500, 0), (500, 11), (11, 11)):
        async with store.open("s", asked) as body:
            assert body is not None
            assert body.start == starts


async def test_an_adopted_empty_journal_can_be_read_and_grown(store: Store, rig: Rig) -> None:
    """An object of no bytes is a journal without lines; no range of it is an error."""
    rig.adopt("s", b"")
    head = await store.head("s")
    assert head is not None
    assert (head.size, head.meta) == (0, None)
    for start in (0, -5, 5):
        assert await read(store, "s", start) == b""
    await store.append("s", head, b'{"n":1}\n', some_meta(1))
    assert rig.raw("s") == b'{"n":1}\n'


async def test_a_read_shows_one_version(store: Store) -> None:
    """The bytes are those of the head that came with them, though the journal grows meanwhile."""
    base = await begin(store, "s", b'{"n":1}\n')
    async with store.open("s") as body:
        assert body is not None
        await store.append("s", base, b'{"n":2}\n', some_meta(2))
        data = b"".join([piece async for piece in body.chunks])
    assert data == b'{"n":1}\n'
    assert (body.head.size, body.head.meta) == (8, some_meta(1))


async def test_an_abandoned_read_leaves_nothing_open(store: Store) -> None:
    """A reader may stop after the first piece (warnings of unclosed files fail the test)."""
    await begin(store, "s", b"x" * (3 * MIB) + b"\n")
    async with store.open("s") as body:
        assert body is not None
        async for piece in body.chunks:
            assert piece
            break


@pytest.mark.parametrize("last", [b"\n", b""], ids=["whole", "without its last newline"])
async def test_an_adopted_journal_goes_on(store: Store, rig: Rig, last: bytes) -> None:
    """A journal of an older tool has no metadata; its lines stay, and a missing newline is put in."""
    old = b'{"event_type":"A"}\n{"event_type":"B"}' + last
    rig.adopt("s", old)
    head = await store.head("s")
    assert head is not None
    assert (head.meta, head.size) == (None, len(old))
    assert await read(store, "s") == old

    grown = await store.append("s", head, b'{"n":1}\n', some_meta(1, entries=3))
    assert rig.raw("s") == b'{"event_type":"A"}\n{"event_type":"B"}\n{"n":1}\n'
    assert grown.size == len(rig.raw("s"))
    assert grown.meta is not None
    assert grown.meta.summary.entries == 3
    again = await store.append("s", grown, b'{"n":2}\n', some_meta(2))
    assert again.size == grown.size + 8


async def test_an_adopted_journal_that_changed_is_a_conflict(store: Store, rig: Rig) -> None:
    """The older tool may still write; who has not seen its line is refused."""
    rig.adopt("s", b'{"event_type":"A"}\n')
    head = await store.head("s")
    rig.delete("s")
    rig.adopt("s", b'{"event_type":"A"}\n{"event_type":"B"}\n')
    with pytest.raises(CommitConflictError):
        await store.append("s", head, b'{"n":1}\n', some_meta(1))


async def test_a_big_journal_grows_piece_by_piece(store: Store, rig: Rig) -> None:
    """Above every threshold the old bytes stay as they were and the version goes on."""
    body = b"".join(b'{"n":%06d,"details":"%s"}\n' % (n, b"y" * 980) for n in range(6 * 1024))
    head = await begin(store, "s", body)
    for n in range(2, 5):
        line = b'{"n":%d}\n' % n
        head = await store.append("s", head, line, some_meta(n))
        body += line
    assert rig.raw("s") == body
    found = await store.head("s")
    assert found is not None
    assert (found.size, found.meta, found.version) == (len(body), some_meta(4), head.version)
    assert await read(store, "s", -8) == b'{"n":4}\n'
    with pytest.raises(CommitError):
        await store.append("s", msgspec.structs.replace(head, version='"0"'), b"{}\n", some_meta(9))
    assert rig.raw("s") == body


async def test_a_big_adopted_journal_gets_its_newline(store: Store, rig: Rig) -> None:
    """A last line without newline is completed even where the old body is never fetched."""
    old = b"x" * (5 * MIB + 3)
    rig.adopt("s", old)
    head = await store.head("s")
    grown = await store.append("s", head, b'{"n":1}\n', some_meta(1))
    assert rig.raw("s") == old + b'\n{"n":1}\n'
    assert grown.size == len(old) + 9


async def test_listing_gives_odd_session_ids_back(store: Store, rig: Rig) -> None:
    """Whatever a session is called, its journal is listed, and the id comes back as it was."""
    for session_id in ODD_IDS:
        line = msgspec.json.encode({"session_id": session_id, "event_type": "A"}) + b"\n"
        await begin(store, session_id, line)
    listed = [it async for it in store.journals()]

    assert [it.name for it in listed] == sorted(map(session_name, ODD_IDS), key=lambda name: name + "/")
    for it in listed:
        assert it.session_id == session_of(it.name)
        head = await store.head_named(it.name)
        assert head is not None
        assert head == await store.head(head.session_id)
        assert (it.size, it.version) == (head.size, head.version)
        assert it.session_id in (None, head.session_id)
    heads = [await store.head_named(it.name) for it in listed]
    assert {head.session_id for head in heads if head} == set(ODD_IDS)


async def test_only_journals_are_listed(store: Store) -> None:
    """Blobs, dead letters and scratch objects are no journals."""
    await store.put_blob("s", "writer0001-1", b"{}")
    await store.put_dead_letters([_letter(0)])
    await store.probe()
    await begin(store, "s")
    assert [it.name async for it in store.journals()] == ["s"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../journals/s", "nothing"])
async def test_head_of_a_name_that_is_none(store: Store, name: str) -> None:
    """A name that no listing gives has no journal, and leads nowhere else."""
    await begin(store, "s")
    assert await store.head_named(name) is None


async def test_a_hashed_name_whose_first_line_says_nothing(store: Store, rig: Rig) -> None:
    """Where neither name nor first line has the session's id, the name stands for it."""
    rig.adopt("x" * 250, b"no JSON\n")
    name = session_name("x" * 250)
    head = await store.head_named(name)
    assert head is not None
    assert head.session_id == name


async def test_a_blob_comes_back(store: Store) -> None:
    """Details that were too large come back by their key; keeping them twice is harmless."""
    data = b'{"big":"' + b"z" * 100_000 + b'"}'
    key = await store.put_blob("a/b", "writer0001-7", data)
    assert await store.put_blob("a/b", "writer0001-7", data) == key
    assert await store.get_blob(key) == data
    assert await store.get_blob("blobs/s/none.json") is None


async def test_a_blob_key_reads_blobs_only(store: Store) -> None:
    """A key comes from an entry, so from anybody: it must not read other objects or files."""
    await begin(store, "s", b'{"secret":1}\n')
    for key in (
        "journals/s/journal.jsonl",
        "blobs/../journals/s/journal.jsonl",
        "blobs/../journals.json",
        "/etc/hostname",
        "blobs//x.json",
        "blobs/s/\0.json",
        "",
    ):
        assert await store.get_blob(key) is None


async def test_dead_letters_are_idempotent(store: Store) -> None:
    """The same letter again is the same object, so a replayed shard makes no second one."""
    letters = [_letter(n) for n in range(20)]
    keys = await store.put_dead_letters(letters)
    assert len(set(keys)) == 20
    assert await store.put_dead_letters(letters) == keys
    assert keys[0] == "dead-letters/0123456789abcdef/shardId-000000000000/4711-0.json"


async def test_dead_letters_are_listed_read_and_removed(store: Store) -> None:
    """What was put is listed with its size and time, reads as it was, and is gone once removed."""
    assert [it async for it in store.list_dead_letters()] == []
    unsent = msgspec.structs.replace(_letter(7), shard="unsent", sequence="k3v9q2m8x1", partition_key="日本")
    keys = await store.put_dead_letters([_letter(0), _letter(10), _letter(2), unsent])
    await begin(store, "s")

    listed = [it async for it in store.list_dead_letters()]
    assert [it.key for it in listed] == sorted(keys)
    assert all(it.size > 100 and abs(it.modified - SYSTEM.time()) < 60 for it in listed)
    assert await store.get_dead_letter(keys[1]) == _letter(10)
    assert await store.get_dead_letter(keys[3]) == unsent

    await store.remove_dead_letter(keys[1])
    await store.remove_dead_letter(keys[1])
    assert await store.get_dead_letter(keys[1]) is None
    assert [it.key for it in [it async for it in store.list_dead_letters()]] == sorted({*keys} - {keys[1]})


async def test_a_dead_letters_key_leads_nowhere_else(store: Store, rig: Rig) -> None:
    """A key is typed by a person: it neither reads nor removes anything else."""
    await begin(store, "s", b'{"kept":1}\n')
    for key in (
        "journals/s/journal.jsonl",
        "dead-letters/../journals/s/journal.jsonl",
        "dead-letters/../journals/s-0.json",
        "dead-letters/x/../../journals/1-0.json",
        "/etc/hostname",
        "",
    ):
        assert await store.get_dead_letter(key) is None
        await store.remove_dead_letter(key)
    assert rig.raw("s") == b'{"kept":1}\n'


async def test_the_probe_passes_and_leaves_nothing(store: Store) -> None:
    """A store that refuses wrong versions is fit for a worker."""
    await store.probe()
    await store.probe()
    assert [it async for it in store.journals()] == []


def _letter(index: int) -> DeadLetter:
    return DeadLetter(
        stream="0123456789abcdef",
        shard="shardId-000000000000",
        sequence="4711",
        index=index,
        partition_key="k",
        reason="no JSON",
        data=b"\xff\x00",
        arrival_ms=1,
    )
