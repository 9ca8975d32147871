"""Verify: whether a journal is what its writers wrote, by everything that it says of itself.

One read of the journal, its metadata of the same version with it. So a journal that grows meanwhile is
checked as it was at one moment, and a worker that is at work is never mistaken for damage.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Final

import anyio

from streamjournal.core.entry import MAX_TIMESTAMP_BYTES
from streamjournal.core.errors import CommitRefusedError, StreamjournalError
from streamjournal.core.lines import split_blocks
from streamjournal.core.numbers import WriterNumbers
from streamjournal.core.position import Position
from streamjournal.core.summary import Summary
from streamjournal.read.audit import Audit
from streamjournal.read.blobs import blob_problem
from streamjournal.read.findings import Findings
from streamjournal.read.unflushed import Scan, StreamState, shards_of, start_in
from streamjournal.read.verification import ChecksumState, Finding, Verification
from streamjournal.read.words import Access
from streamjournal.read.writer_audit import WriterAudit, joined
from streamjournal.store.history import Checksum
from streamjournal.store.names import session_name
from streamjournal.store.port import Body, Listed, Store

_AT_ONCE: Final = 8  # journals of a check of all
_MOST_NAMED: Final = 5  # writers, in the text of one finding
_BEYOND: Final = (
    "{:,} bytes follow the committed ones. They are being written now, or a writer that was killed left them "
    "(the next commit cuts those off), or somebody put them there (the next commit takes those in)"
)


async def verify_journal(store: Store, session_id: str) -> Verification | None:
    """Check a session's journal; None if there is none.

    Memory grows with the journal's writers and blobs, and not with its size, and holds one blob at a time.
    It costs one read of the journal, and one of each blob that its entries point to.

    Raises:
        StoreUnavailableError, NotConfiguredError: the journal cannot be read.
    """
    try:
        async with store.open(session_id) as body:
            if body is None:
                return None
            audit = Audit(session_id)
            checksum = Checksum()
            async for lines in split_blocks(checksum.over(body.chunks)):
                audit.take(lines)
    except CommitRefusedError as problem:
        return _unreadable(session_id, f"its metadata cannot be read, so its body was not checked: {problem}")
    # Only now: the connection that the body comes over would be closed while blobs are fetched.
    for at, entry_id, pointer in audit.blobs:
        wrong = await blob_problem(store, session_id, entry_id, pointer)
        if wrong is not None:
            audit.findings.add_blob(at, f"points to {pointer['$blob']}, {wrong}")
    return _judge(session_id, body, audit, checksum)


async def is_on_stream(access: Access, session_id: str, state: StreamState) -> bool:
    """Whether the stream has entries of a session that has no journal.

    Args:
        state: from before the journal was found missing. What a worker has flushed since then is behind
            the checkpoints of now, and would be taken for missing.

    Raises:
        StreamUnavailableError: it cannot be read.
    """
    scan = Scan(access.feeds, state, access.clock)
    for shard in shards_of(state, session_id):
        place = start_in(state, shard, None)
        if place is None:
            continue
        async with aclosing(scan.items(shard, place, session_id)) as items:
            async for _ in items:
                return True
    return False


async def verify_journals(store: Store) -> AsyncGenerator[Verification, None]:
    """Check all journals, a few at once.

    Raises:
        StoreUnavailableError, NotConfiguredError: the journals cannot be listed, or read.
    """
    batch: list[Listed] = []
    async with aclosing(store.journals()) as journals:  # type: ignore[type-var]  # each adapter's is a generator
        async for listed in journals:
            batch.append(listed)
            if len(batch) == _AT_ONCE:
                for found in await _verify_each(store, batch):
                    yield found
                batch = []
    for found in await _verify_each(store, batch):
        yield found


async def _verify_each(store: Store, batch: Sequence[Listed]) -> list[Verification]:
    """In the order of the batch, without those that were deleted meanwhile."""
    found: list[Verification | None] = [None] * len(batch)
    failures: list[StreamjournalError] = []

    async def verify(index: int, listed: Listed) -> None:
        try:
            found[index] = await _verify_listed(store, listed)
        except StreamjournalError as problem:
            failures.append(problem)

    async with anyio.create_task_group() as tasks:
        for index, listed in enumerate(batch):
            tasks.start_soon(verify, index, listed)
    if failures:
        raise failures[0]
    return [one for one in found if one is not None]


async def _verify_listed(store: Store, listed: Listed) -> Verification | None:
    session_id = listed.session_id
    if session_id is None:  # its name is a hash
        try:
            head = await store.head_named(listed.name)
        except CommitRefusedError as problem:
            return _unreadable(listed.name, f"its metadata cannot be read: {problem}")
        if head is None:
            return None
        session_id = head.session_id
    checked = await verify_journal(store, session_id)
    if checked is None and await store.head_named(listed.name) is not None:
        return _unreadable(
            session_id,
            f"its journal stands under the name {listed.name!r}, where no session's journal is looked for; "
            f"move it to {session_name(session_id)!r}",
        )
    return checked


def _unreadable(session_id: str, text: str) -> Verification:
    finding = Finding(kind="metadata", damage=True, text=text)
    return Verification(session_id, whole=False, where="journal", findings=[finding])


def _judge(session_id: str, body: Body, audit: Audit, checksum: Checksum) -> Verification:
    meta = body.head.meta
    findings = audit.findings
    if checksum.torn and meta is not None:
        findings.add(
            "torn", None, "the last line lacks its newline: the end of the journal was cut off or changed"
        )
    writers = [writer for writer in audit.writers.values() if writer.highest]
    state: ChecksumState = "none"
    if meta is None:
        findings.add("no_metadata", None, _without_metadata(writers))
    else:
        state = _compare_checksum(findings, meta.crc, checksum.value)
        _compare_summary(findings, meta.summary, audit.summary)
        _compare_writers(findings, meta.writers, audit.writers)
        _compare_position(findings, meta.position, audit)
    if body.beyond:
        findings.add("beyond", None, _BEYOND.format(body.beyond))
    found = findings.finish(audit.writers.values(), audit.dropped)
    return Verification(
        session_id,
        whole=findings.whole,
        where="journal",
        entries=audit.entries,
        unnumbered=audit.unnumbered,
        dropped=audit.dropped,
        bytes=body.head.size,
        checksum=state,
        writers=[writer.check() for writer in writers],
        findings=found,
        left_out=findings.left_out,
    )


def _without_metadata(writers: Sequence[WriterAudit]) -> str:
    if writers:
        return (
            "it has no metadata: somebody removed it. Whether its end is missing cannot be told; "
            "the next commit writes it anew"
        )
    return "it has no metadata: an older tool wrote it. It is adopted at the next commit"


def _compare_checksum(findings: Findings, said: int | None, found: int) -> ChecksumState:
    if said is None:
        return "none"
    if said == found:
        return "agrees"
    text = f"the body was changed: its checksum is {found:08x}, and {said:08x} was committed"
    findings.add("checksum", None, text)
    return "differs"


def _compare_summary(findings: Findings, said: Summary, found: Summary) -> None:
    differ = []
    for name in Summary.__struct_fields__:
        committed, is_ = getattr(said, name), getattr(found, name)
        if committed != is_ and not _is_too_long(is_):
            differ.append(f"{name} is {is_!r}, and {committed!r} was committed")
    if differ:
        findings.add("summary", None, f"the summary does not agree with the lines: {'; '.join(differ)}")


def _is_too_long(value: object) -> bool:
    """An older tool's timestamp may be longer than what the metadata keeps."""
    return isinstance(value, str) and len(value.encode()) > MAX_TIMESTAMP_BYTES


def _compare_writers(findings: Findings, said: WriterNumbers, found: Mapping[str, WriterAudit]) -> None:
    differ = []
    for writer in said.writers():
        audit = found.get(writer)
        highest = audit.highest if audit is not None else 0
        if highest != said.highest(writer):
            differ.append(f"writer {writer} got to {highest:,}, and {said.highest(writer):,} was committed")
        elif audit is not None and audit.missing() != joined(said.gaps(writer)):
            differ.append(f"writer {writer} lacks other numbers than were committed")
    if said.complete:
        differ += [f"writer {it} was not committed" for it in found if it not in said and found[it].highest]
    if differ:
        more = f"; and {len(differ) - _MOST_NAMED:,} more" if len(differ) > _MOST_NAMED else ""
        text = f"the writers' numbers do not agree with the lines: {'; '.join(differ[:_MOST_NAMED])}{more}"
        findings.add("writers", None, text)


def _compare_position(findings: Findings, said: Position | None, audit: Audit) -> None:
    """The lines name few positions, and each of them must have been reached."""
    if said is None:
        findings.add("position", None, "the metadata does not say how far in the stream the journal has got")
        return
    named = audit.positions.get((said.stream, said.shard), 0)
    last = audit.last_place
    if last is not None and last[0] == said.shard:
        named = max(named, last[1])
    if named > int(said.sequence):
        text = (
            f"it holds a record of {said.shard} at {named}, and its position is before that: {said.sequence}"
        )
        findings.add("position", None, text)
