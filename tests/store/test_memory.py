"""What the store in memory offers to tests beyond the port."""

from __future__ import annotations

import pytest

from streamjournal.store.memory import MemoryStore
from tests.store.rigs import begin, some_meta

pytestmark = pytest.mark.anyio


async def test_it_keeps_every_version() -> None:
    """A test can check that each version is the beginning of the next one."""
    store = MemoryStore()
    head = await begin(store, "s", b"1\n")
    head = await store.append("s", head, b"2\n", some_meta(2))
    await store.append("s", head, b"3\n", some_meta(3))
    assert [it.body for it in store.versions["s"]] == [b"1\n", b"1\n2\n", b"1\n2\n3\n"]
    assert [it.meta for it in store.versions["s"]] == [some_meta(n) for n in (1, 2, 3)]


async def test_callers_cannot_change_what_was_committed() -> None:
    """A committer goes on counting in the metadata that it gave or got; the store's stays."""
    store = MemoryStore()
    meta = some_meta(1)
    await store.append("s", None, b"1\n", meta)
    meta.writers.add("writer0001", 2)
    head = await store.head("s")
    assert head is not None
    assert head.meta is not None
    head.meta.writers.add("writer0001", 2)
    assert store.versions["s"][-1].meta == some_meta(1)


async def test_deleted_journals_can_be_looked_at() -> None:
    """What was deleted is out of the store, and still there for the test."""
    store = MemoryStore()
    await begin(store, "s", b"1\n")
    store.delete_journal("s")
    assert await store.head("s") is None
    assert [[it.body for it in versions] for versions in store.deleted] == [[b"1\n"]]
