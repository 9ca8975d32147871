"""What a journal's own lines say of it."""

from __future__ import annotations

from zlib import crc32

import pytest

from streamjournal.core.summary import Summary
from streamjournal.store.history import count_body, read_history
from streamjournal.store.memory import MemoryStore
from tests.sim.rig import line

pytestmark = pytest.mark.anyio


async def test_no_journal() -> None:
    """Nothing is known of a session without a journal."""
    numbers, summary = await read_history(MemoryStore(), "s")
    assert (len(numbers), summary) == (0, Summary())


async def test_lines_of_every_age() -> None:
    """Older lines count too, with and without ids, levels, last newlines; so do lines that are none."""
    store = MemoryStore()
    old = b'{"timestamp":"t1","event_type":"A","tool_name":null,"details":{}}\n'
    odd = b'{"timestamp":"t2","event_type":"B","tool_name":7,"level":null,"details":{}}\n\n'
    broken = b"edited by hand\n\xff\n"
    store.adopt_journal("s", old + odd + broken + line("s", 3, level="ERROR") + b"\n" + line("s", 5))
    numbers, summary = await read_history(store, "s")
    assert (numbers.highest("writer0001"), numbers.gaps("writer0001")) == (5, [(1, 2), (4, 4)])
    assert (summary.entries, summary.errors, summary.first) == (6, 1, "t1")
    assert summary.last.startswith("2026-")


async def test_status() -> None:
    """The last mark decides, and only a start ends an end."""
    store = MemoryStore()
    marks = [("SESSION_END", {"error": "x"}), ("LATE", {})]
    lines = [line("s", n, event_type=kind, details=details) for n, (kind, details) in enumerate(marks, 1)]
    store.adopt_journal("s", b"\n".join(lines))
    assert (await read_history(store, "s"))[1].status == "failed"
    store.adopt_journal("s", b"\n".join([*lines, line("s", 3, event_type="SESSION_START")]))
    assert (await read_history(store, "s"))[1].status == "running"


@pytest.mark.parametrize("body", [b"", line("s", 1) + b"\n", b"no entry\n\n" + line("s", 1)])
async def test_the_checksum_is_of_the_body_as_lines_are_put_after_it(body: bytes) -> None:
    """A newline that the last line lacks is counted in, since the next commit adds it."""
    store = MemoryStore()
    store.adopt_journal("s", body)
    whole = body if not body or body.endswith(b"\n") else body + b"\n"
    assert (await count_body(store, "s")).checksum == crc32(whole)
