"""A check of a journal: what is whole is called whole, and every hand in it is seen, with its place."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamjournal.core.entry import decode_envelope
from streamjournal.core.errors import CommitRefusedError, StoreUnavailableError
from streamjournal.core.item import Item
from streamjournal.core.position import Lineage, Position
from streamjournal.core.summary import status_after
from streamjournal.emit.batch import details_of, with_blob
from streamjournal.read.audit import Audit
from streamjournal.read.findings import MOST
from streamjournal.read.verification import Finding, Verification
from streamjournal.read.verify import verify_journal, verify_journals
from streamjournal.store.commit import Committer
from streamjournal.store.files import FilesStore
from streamjournal.store.history import count_body
from streamjournal.store.memory import MemoryStore, Version
from streamjournal.store.names import blob_key
from tests.sim.faults import Faults, FaultyStore
from tests.sim.rig import WRITER, line
from tests.sim.virtual import virtual_clock

pytestmark = pytest.mark.anyio

STREAM = "0123456789abcdef"
OTHER = "writer0002"


class Bench:
    """Journals of a committer, and a hand that edits them."""

    def __init__(self) -> None:
        self.clock = virtual_clock()
        self.store = MemoryStore(self.clock)
        self.committer = Committer(self.store, self.clock, _no_lineage)
        self.sequence = 0

    async def commit(self, *lines: bytes, session_id: str = "s") -> None:
        """Commit lines, as one record."""
        self.sequence += 1
        items = [_item(text, self.sequence) for text in lines]
        await self.committer.commit(session_id, items, None, _ours)

    async def write(self, *numbers: int, writer: str = WRITER, **fields: Any) -> None:
        """Commit entries of one writer, as one record."""
        await self.commit(*(line("s", n, writer=writer, **fields) for n in numbers))

    def edit(self, change: Callable[[bytes], bytes]) -> None:
        """Change the body by hand, with the metadata as it is."""
        version = self.store.versions["s"][-1]
        self.store.versions["s"].append(version._replace(body=change(version.body), version="edited"))

    def edit_lines(self, change: Callable[[list[bytes]], list[bytes]]) -> None:
        """The same, line by line."""
        self.edit(lambda body: b"".join(change(body.splitlines(keepends=True))))

    async def check(self, session_id: str = "s") -> Verification:
        """The check's result."""
        found = await verify_journal(self.store, session_id)
        assert found is not None
        return found


async def _no_lineage(_: Collection[str]) -> Lineage:
    return Lineage({})


async def _ours() -> None:
    """The lease is held."""


def _item(text: bytes, sequence: int) -> Item:
    envelope = decode_envelope(text)
    writer, dash, n = envelope.id.partition("-")
    return Item(
        text,
        Position(STREAM, "shard", str(sequence)),
        writer if dash else None,
        int(n) if dash else 0,
        envelope.timestamp,
        envelope.level,
        status_after(envelope, text),
    )


def foreign(sequence: int) -> bytes:
    """Another producer's entry, as the worker writes it."""
    fields = {"id": f"shard:{sequence}:0", "timestamp": "t", "session_id": "s", "event_type": "X"}
    return msgspec.json.encode(fields)


def kinds(found: Verification) -> list[str]:
    """What was found."""
    return [finding.kind for finding in found.findings]


def only(found: Verification, kind: str) -> Finding:
    """The one finding of a kind."""
    (finding,) = [finding for finding in found.findings if finding.kind == kind]
    return finding


@pytest.fixture
def bench() -> Bench:
    """A bench with nothing committed."""
    return Bench()


async def put_big(bench: Bench, *numbers: int) -> None:
    """Commit entries whose details are in blobs."""
    for n in numbers:
        text = line("s", n, details={"n": n})
        key = await bench.store.put_blob("s", f"{WRITER}-{n}", details_of(text))
        await bench.commit(with_blob(text, key))


# What is whole


async def test_no_journal(bench: Bench) -> None:
    """There is nothing to be checked."""
    assert await verify_journal(bench.store, "s") is None


async def test_a_whole_journal(bench: Bench) -> None:
    """Several writers, other producers' entries between them, over several commits."""
    await bench.write(1, 2)
    await bench.commit(line("s", 1, writer=OTHER), line("s", 3), foreign(2), line("s", 2, writer=OTHER))
    await bench.write(4, event_type="SESSION_END")
    found = await bench.check()
    assert found.whole
    assert found.findings == []
    assert (found.entries, found.unnumbered, found.bytes) == (7, 1, len(bench.store.body("s")))
    assert (found.where, found.checksum) == ("journal", "agrees")
    first, second = found.writers
    assert (first.writer, first.entries, first.highest, first.state) == (WRITER, 4, 4, "complete")
    assert (second.writer, second.entries, second.missing, second.state) == (OTHER, 2, [], "no interior gap")


async def test_entries_with_blobs_are_whole(bench: Bench) -> None:
    """As long as each blob is what was put; details that only look like a pointer have none."""
    await put_big(bench, 1, 2)
    await bench.write(3, details={"text": '"$blob"', "$blob": "x"})
    assert (await bench.check()).findings == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda _: None, "is not in the store"),
        (lambda data: data[:-1], "bytes, and the entry says"),
        (lambda data: data.replace(b"2", b"7"), "SHA-256"),
    ],
)
async def test_a_blob_that_is_gone_or_changed(
    bench: Bench, change: Callable[[bytes], bytes | None], text: str
) -> None:
    """The journal is not whole; each is told with its line and its key."""
    await put_big(bench, 1, 2, 3)
    real = bench.store.get_blob

    async def get(key: str) -> bytes | None:
        data = await real(key)
        assert data is not None
        return data if key == blob_key("s", f"{WRITER}-1") else change(data.replace(b"3", b"2"))

    bench.store.get_blob = get  # type: ignore[method-assign]
    found = await bench.check()
    assert not found.whole
    assert [(finding.kind, finding.line) for finding in found.findings] == [("blob", 2), ("blob", 3)]
    assert blob_key("s", f"{WRITER}-2") in found.findings[0].text
    assert text in found.findings[0].text


async def test_a_pointer_to_another_entrys_blob(bench: Bench) -> None:
    """It is told, and that blob is not fetched."""
    key = await bench.store.put_blob("other", "w-1", b"{}")
    await bench.commit(with_blob(line("s", 1), key))

    async def never(key: str) -> bytes | None:
        raise AssertionError(f"{key} was fetched")

    bench.store.get_blob = never  # type: ignore[method-assign]
    assert "not its own" in only(await bench.check(), "blob").text


async def test_only_the_end_of_a_writer_makes_it_complete(bench: Bench) -> None:
    """A session that goes on after SESSION_END is open again."""
    await bench.write(1, event_type="SESSION_END")
    assert (await bench.check()).writers[0].state == "complete"
    await bench.write(2)
    assert (await bench.check()).writers[0].state == "no interior gap"


async def test_dropped_entries_leave_no_gap(bench: Bench) -> None:
    """The notice is told of, and the journal is whole."""
    for n, count in ((1, 17), (2, 3)):
        text = line("s", n, event_type="ENTRIES_DROPPED", details={"count": count}, level="WARNING")
        await bench.commit(text.replace(b'"source":"agent"', b'"source":"journal"'))
    await bench.write(3)
    found = await bench.check()
    assert found.whole
    assert kinds(found) == ["entries_dropped"]
    assert found.dropped == 20
    assert (found.findings[0].line, found.findings[0].damage) == (1, False)


async def test_an_agent_cannot_speak_for_the_system(bench: Bench) -> None:
    """Entries that only look like notices are entries."""
    for n, event_type in ((1, "JOURNAL_RESTARTED"), (2, "ENTRIES_TRIMMED"), (3, "ENTRIES_DROPPED")):
        await bench.write(n, event_type=event_type, details={"count": 5, "missing": {WRITER: 9}})
    found = await bench.check()
    assert found.whole
    assert (found.findings, found.dropped) == ([], 0)


async def test_many_writers(bench: Bench) -> None:
    """More than the metadata has room for: those that left it are no difference."""
    await bench.commit(*(line("s", 1, writer=f"w{i:09d}") for i in range(300)))
    await bench.write(1)
    found = await bench.check()
    assert found.whole
    assert len(found.writers) == 301


async def test_an_older_version_left_no_checksum(bench: Bench) -> None:
    """The rest is checked all the same."""
    await bench.write(1, 2)
    fields = bench.store.versions["s"][-1].fields
    assert fields is not None
    del fields["sj-crc"]
    found = await bench.check()
    assert (found.whole, found.checksum, found.findings) == (True, "none", [])


async def test_a_journal_of_an_older_tool(bench: Bench) -> None:
    """It has no metadata, which is said, and no damage; once adopted, nothing is to be said."""
    bench.store.adopt_journal("s", b'{"event_type":"OLD"}\n{"timestamp":7,"event_type":"OLD"}')
    found = await bench.check()
    assert found.whole
    assert kinds(found) == ["no_metadata"]
    assert "older tool" in found.findings[0].text
    assert (found.entries, found.unnumbered, found.writers) == (2, 2, [])
    await bench.write(1)
    found = await bench.check()
    assert found.whole
    assert (found.findings, found.checksum, found.entries) == ([], "agrees", 3)


async def test_a_timestamp_beyond_every_bound(bench: Bench) -> None:
    """The metadata had to leave it out; that is no difference."""
    bench.store.adopt_journal("s", b'{"event_type":"OLD","timestamp":"' + b"x" * 100 + b'"}\n')
    await bench.write(1)
    await bench.write(2)
    assert (await bench.check()).findings == []


# What the system tells of


async def test_trimmed_entries(bench: Bench) -> None:
    """The notice is told of as what it is, with the numbers; no second finding says the same."""
    await bench.write(1, 2)
    await bench.write(6)
    found = await bench.check()
    assert not found.whole
    assert kinds(found) == ["entries_trimmed"]
    finding = found.findings[0]
    assert (finding.line, finding.writer, finding.first, finding.last) == (3, WRITER, 3, 5)
    assert f"{WRITER}-3 to {WRITER}-5 are missing" in finding.text
    assert (found.writers[0].missing, found.writers[0].state) == ([(3, 5)], "gaps")


async def test_a_gap_that_was_filled_later(bench: Bench) -> None:
    """Nothing is missing then, but the order is not the writer's."""
    await bench.write(1)
    await bench.write(5)
    await bench.write(2, 3)
    found = await bench.check()
    assert kinds(found) == ["entries_trimmed", "out_of_order"]
    assert "1 are missing still, the others came later" in found.findings[0].text
    late = found.findings[1]
    assert (late.line, late.first, late.last) == (4, 2, 3)
    await bench.write(4)
    found = await bench.check()
    assert f"{WRITER}-2 to {WRITER}-4 came later" in found.findings[0].text
    assert (found.whole, found.writers[0].missing, found.writers[0].entries) == (False, [], 5)


async def test_a_restarted_journal(bench: Bench) -> None:
    """The notice is told of, with what it says is missing of each writer."""
    await bench.commit(line("s", 4), line("s", 3, writer=OTHER))
    found = await bench.check()
    assert kinds(found) == ["journal_restarted"]
    text = found.findings[0].text
    assert f"{WRITER}-1 to {WRITER}-3 are missing" in text
    assert f"{OTHER}-1 to {OTHER}-2 are missing" in text
    assert not found.whole


async def test_a_notice_that_is_not_so(bench: Bench) -> None:
    """Somebody put the notice's numbers back by hand, or doubled it: what it says is compared."""
    await bench.write(1)
    await bench.write(3)
    bench.edit_lines(lambda lines: [lines[0], line("s", 2) + b"\n", *lines[1:]])
    found = await bench.check()
    assert "notice" in kinds(found)
    assert only(found, "notice").line == 3

    bench.edit_lines(lambda lines: [lines[0], lines[2], *lines[2:]])
    assert only(await bench.check(), "notice").first == 2


# What a hand did


async def test_a_byte_that_was_changed(bench: Bench) -> None:
    """The line is an entry still; only the checksum knows."""
    await bench.write(1, 2, details={"rows": 12345})
    bench.edit(lambda body: body.replace(b"12345", b"12346", 1))
    found = await bench.check()
    assert kinds(found) == ["checksum"]
    assert (found.checksum, found.whole) == ("differs", False)


async def test_a_line_that_was_changed(bench: Bench) -> None:
    """Its level counts in the summary."""
    await bench.write(1, 2, level="ERROR")
    bench.edit(lambda body: body.replace(b"ERROR", b"INFO", 1))
    found = await bench.check()
    assert kinds(found) == ["checksum", "summary"]
    assert "errors is 1, and 2 was committed" in only(found, "summary").text


async def test_a_line_that_was_deleted(bench: Bench) -> None:
    """Which entry it was, between which, and in which line the next one stands."""
    await bench.write(1, 2, 3, 4)
    bench.edit_lines(lambda lines: lines[:2] + lines[3:])
    found = await bench.check()
    assert kinds(found) == ["missing", "checksum", "summary", "writers"]
    missing = found.findings[0]
    offset = len(b"".join(bench.store.body("s").splitlines(keepends=True)[:2]))
    assert (missing.line, missing.byte, missing.first, missing.last) == (3, offset, 3, 3)
    assert (
        missing.text
        == f"{WRITER}-3 is missing, before {WRITER}-4 in line 3 (byte {offset}) and after {WRITER}-2"
    )
    assert found.writers[0].missing == [(3, 3)]


async def test_the_last_lines_were_deleted(bench: Bench) -> None:
    """No number is missed in between; the metadata knows how far the writer had got."""
    await bench.write(1, 2, 3, 4)
    bench.edit_lines(lambda lines: lines[:2])
    found = await bench.check()
    assert kinds(found) == ["checksum", "summary", "writers"]
    assert f"writer {WRITER} got to 2, and 4 was committed" in only(found, "writers").text


async def test_a_line_that_was_doubled(bench: Bench) -> None:
    """The second one is told of; a doubled block is one finding."""
    await bench.write(1, 2, 3, 4)
    bench.edit_lines(lambda lines: lines[:3] + lines[1:])
    found = await bench.check()
    assert kinds(found) == ["repeated", "checksum", "summary"]
    repeated = found.findings[0]
    assert (repeated.line, repeated.first, repeated.last) == (4, 2, 3)
    assert f"{WRITER}-2 to {WRITER}-3 are there again, in lines 4 to 5" in repeated.text
    assert found.writers[0].entries == 4


async def test_lines_that_were_swapped(bench: Bench) -> None:
    """Nothing is missing; the one that stands too late is told of."""
    await bench.write(1, 2, 3, 4)
    bench.edit_lines(lambda lines: [lines[0], lines[2], lines[1], lines[3]])
    found = await bench.check()
    assert "missing" not in kinds(found)
    late = only(found, "out_of_order")
    assert (late.line, late.first) == (3, 2)
    assert found.writers[0].missing == []


@pytest.mark.parametrize(
    ("garbage", "lines", "sample"),
    [
        (b"garbage\n", 1, "garbage"),
        (b'{"no": "event"}\n[1]\n\xff\xfe\n', 3, "event_type is missing"),
        (b'{"event_type":"X","details":"\xff"}\n', 1, "utf-8"),
        (b'{"event_type":"X","details":' + b"[" * 2000, 1, "event_type"),
        (b"\x00" * 100 + b"\n", 1, "x00"),
    ],
)
async def test_garbage_at_the_end(bench: Bench, garbage: bytes, lines: int, sample: str) -> None:
    """The lines that are no entries, and where they begin."""
    await bench.write(1, 2)
    size = len(bench.store.body("s"))
    bench.edit(lambda body: body + garbage)
    found = await bench.check()
    finding = only(found, "not_an_entry")
    assert (finding.line, finding.byte) == (3, size)
    assert sample in finding.text
    assert finding.text.isprintable()
    assert found.entries == 2 + lines
    assert {"checksum", "summary"} <= set(kinds(found))


async def test_the_last_newline_was_removed(bench: Bench) -> None:
    """The entries are all there; it is told all the same, and the next commit puts it back."""
    await bench.write(1, 2)
    bench.edit(lambda body: body[:-1])
    found = await bench.check()
    assert kinds(found) == ["torn", "checksum"]
    assert (found.entries, found.writers[0].highest) == (2, 2)
    await bench.write(3)
    assert (await bench.check()).findings == []


async def test_the_end_was_cut_off(bench: Bench) -> None:
    """Half a line is no entry."""
    await bench.write(1, 2)
    bench.edit(lambda body: body[:-50])
    found = await bench.check()
    assert {"not_an_entry", "torn", "checksum", "writers", "summary"} >= set(kinds(found))
    assert only(found, "not_an_entry").line == 2


async def test_the_metadata_was_removed(bench: Bench) -> None:
    """It is told, and that the end cannot be vouched for; what is missing within is found."""
    await bench.write(1, 2, 3)
    body = bench.store.body("s")
    bench.store.adopt_journal("s", body)
    found = await bench.check()
    assert found.whole
    assert kinds(found) == ["no_metadata"]
    assert "somebody removed it" in found.findings[0].text
    bench.store.adopt_journal("s", b"".join(body.splitlines(keepends=True)[::2]))
    assert kinds(await bench.check()) == ["missing", "no_metadata"]


async def test_the_metadata_of_another_journal(bench: Bench) -> None:
    """Everything that it says is of other lines."""
    await bench.write(1, 2)
    await bench.commit(*(line("t", n, writer=OTHER) for n in (1, 2, 3)), session_id="t")
    other = bench.store.versions["t"][-1].fields
    own = bench.store.versions["s"][-1]
    bench.store.versions["s"].append(Version(own.body, other, "edited", own.modified))
    found = await bench.check()
    assert kinds(found) == ["checksum", "summary", "writers"]
    assert (
        f"writer {OTHER} got to 0, and 3 was committed; writer {WRITER} was not"
        in only(found, "writers").text
    )


async def test_the_metadata_cannot_be_read(bench: Bench) -> None:
    """The journal is not called whole."""
    await bench.write(1)
    found = await verify_journal(_Unreadable(bench.store, Faults(bench.clock)), "s")
    assert found is not None
    assert (found.whole, kinds(found)) == (False, ["metadata"])


async def test_an_entry_of_another_session(bench: Bench) -> None:
    """A line that was copied into the wrong journal."""
    await bench.write(1)
    bench.edit(lambda body: body + line("t", 1, writer=OTHER) + b"\n")
    finding = only(await bench.check(), "other_session")
    assert finding.line == 2
    assert "'t'" in finding.text


@pytest.mark.parametrize("sequence", ["1", None])
async def test_a_position_that_was_put_back(bench: Bench, sequence: str | None) -> None:
    """With it, entries without a number would be written again."""
    await bench.write(1)
    bench.sequence = 6
    await bench.commit(foreign(7))
    fields = bench.store.versions["s"][-1].fields
    assert fields is not None
    if sequence is None:
        del fields["sj-position"]
    else:
        fields["sj-position"] = f"{STREAM}/shard/{sequence}"
    found = await bench.check()
    assert (kinds(found), found.whole) == (["position"], False)


async def test_a_journal_that_is_all_garbage(bench: Bench) -> None:
    """Findings of a kind are bounded; how many more there are is said."""
    await bench.write(1)
    bench.edit(lambda body: body + b"x\n\n" * 200)
    found = await bench.check()
    assert len(found.findings) < 2 * MOST
    assert found.left_out == 200 - MOST


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_line_deleted_doubled_or_swapped_is_seen(data: st.DataObject) -> None:
    """Whatever one does to the lines of a whole journal, it is not whole afterwards, and the missing
    numbers are exactly those that are not there.
    """
    writers = [WRITER, OTHER]
    order = data.draw(st.lists(st.sampled_from(writers), min_size=2, max_size=20))
    counts = dict.fromkeys(writers, 0)
    lines = []
    for writer in order:
        counts[writer] += 1
        lines.append(line("s", counts[writer], writer=writer))
    edited = data.draw(st.lists(st.sampled_from(lines), max_size=25))
    audit = Audit("s")
    audit.take(edited)
    for writer in writers:
        mine = [int(decode_envelope(x).id.partition("-")[2]) for x in edited if writer.encode() in x]
        found = audit.writers.get(writer)
        highest = max(mine, default=0)
        missing = set(range(1, highest + 1)) - set(mine)
        assert (found.highest if found else 0) == highest
        assert {n for a, b in (found.missing() if found else []) for n in range(a, b + 1)} == missing
        assert (found.entries if found else 0) == len(set(mine))
    findings = audit.findings.finish(audit.writers.values(), 0)
    in_order = all(
        list(range(1, audit.writers[w].highest + 1))
        == [int(decode_envelope(x).id.partition("-")[2]) for x in edited if w.encode() in x]
        for w in audit.writers
    )
    assert bool(findings) is not in_order


@pytest.mark.parametrize("seed", range(5))
async def test_the_summary_is_that_of_the_commits(bench: Bench, seed: int) -> None:
    """Odd lines of any kind: the check counts them as the committer does."""
    odd = [
        b'{"event_type":"A","timestamp":"t1","level":"ERROR"}',
        b'{"event_type":"A","timestamp":5}',
        b'{"event_type":"SESSION_END","details":{"error":"x"}}',
        b'{"event_type":"SESSION_START","level":"ERROR","details":7}',
        b'{"event_type":"SESSION_END","level":3}',
        b'{"level":"ERROR","timestamp":"t9"}',
        b"[]",
        b'{"event_type":"A","details":"\xff","timestamp":"t2"}',
        b"",
    ]
    rng = virtual_clock(seed).rng
    body = b"\n".join(rng.choice(odd) for _ in range(30)) + b"\n"
    bench.store.adopt_journal("s", body)
    audit = Audit("s")
    audit.take(body.split(b"\n"))
    assert audit.summary == (await count_body(bench.store, "s")).summary


# All journals, and what is in the way


async def test_all_journals(bench: Bench) -> None:
    """Each once, in the order of the listing; also those whose name is a hash."""
    names = [f"s{i}" for i in range(20)] + ["x" * 250]
    for name in names:
        await bench.commit(line(name, 1), session_id=name)
    bench.store.versions["s7"][-1] = bench.store.versions["s7"][-1]._replace(body=b"x\n")
    found = [one async for one in verify_journals(bench.store)]
    assert sorted(one.session_id for one in found) == sorted(names)
    assert [one.session_id for one in found if not one.whole] == ["s7"]


async def test_a_journal_under_a_name_of_its_own(bench: Bench) -> None:
    """It is listed, and no read finds it: the check says so instead of leaving it out."""
    bench.store.versions["an older tool's"] = [Version(b'{"event_type":"A"}\n', None, "1", 0.0)]
    (found,) = [one async for one in verify_journals(bench.store)]
    assert not found.whole
    assert "move it to 'an%20older%20tool%27s'" in found.findings[0].text


async def test_a_journal_that_is_deleted_meanwhile(bench: Bench) -> None:
    """It is left out."""
    await bench.write(1)
    store = _Vanishing(bench.store, Faults(bench.clock))
    assert [one async for one in verify_journals(store)] == []


async def test_a_store_that_is_away(bench: Bench) -> None:
    """It is no finding about a journal."""
    await bench.write(1)
    faults = Faults(bench.clock)
    faults.away.add("store")
    with pytest.raises(StoreUnavailableError):
        await verify_journal(FaultyStore(bench.store, faults), "s")
    with pytest.raises(StoreUnavailableError):
        _ = [one async for one in verify_journals(FaultyStore(bench.store, faults))]


async def test_a_journal_that_grows_meanwhile(tmp_path: Path) -> None:
    """Checked over and over while another thread commits to its file: never called damaged."""
    store = FilesStore(tmp_path)
    clock = virtual_clock()
    ended = threading.Event()

    async def grow() -> None:
        committer = Committer(FilesStore(tmp_path), clock, _no_lineage)
        head = None
        try:
            for n in range(1, 400):
                numbers = range(3 * n - 2, 3 * n + 1)
                items = [_item(line("s", i, details={"x": "y" * 3000}), n) for i in numbers]
                head = (await committer.commit("s", items, head, _ours)).head
        finally:
            ended.set()

    thread = threading.Thread(target=anyio.run, args=(grow,))
    thread.start()
    checks = 0
    while not ended.is_set():
        found = await verify_journal(store, "s")
        if found is not None:
            checks += 1
            assert {finding.kind for finding in found.findings} <= {"beyond"}
            assert found.entries % 3 == 0
    thread.join()
    assert checks > 10
    found = await verify_journal(store, "s")
    assert found is not None
    assert (found.entries, found.findings) == (3 * 399, [])


async def test_memory_does_not_grow_with_the_journal(bench: Bench) -> None:
    """Ten times the journal, the same memory."""
    peaks = []
    for mib in (2, 20):
        details = {"x": "y" * 1000}
        lines = [line("s", n, details=details) for n in range(1, mib * 900)]
        bench.store.adopt_journal("s", b"\n".join(lines) + b"\n")
        del lines
        tracemalloc.start()
        assert (await bench.check()).whole
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2**20


class _Vanishing(FaultyStore):
    """Journals that are gone once they were listed."""

    def open(self, session_id: str, start: int = 0, stop: int | None = None) -> Any:
        self.inner.versions.clear()  # type: ignore[attr-defined]
        return super().open(session_id, start, stop)


class _Unreadable(FaultyStore):
    """Metadata of a newer version, as the real stores tell of it."""

    def open(self, session_id: str, start: int = 0, stop: int | None = None) -> Any:
        raise CommitRefusedError("version 2; upgrade streamjournal")
