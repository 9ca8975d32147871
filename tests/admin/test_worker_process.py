"""A worker as a process: what it refuses to start on, and what its log lines look like."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog

from streamjournal import Journal, wiring
from streamjournal.admin.worker_process import configure_logging, run_worker
from streamjournal.core.errors import StoreUnavailableError, UnsafeStoreError
from streamjournal.core.settings import load
from streamjournal.store.memory import MemoryStore


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """The process's logging is global; give it back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


class _Store(MemoryStore):
    """Fails its probe, and says whether it was closed."""

    problem: Exception
    closed = False

    async def probe(self) -> None:
        raise self.problem

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize("drain", [False, True])
def test_a_store_that_ignores_conditional_writes_is_refused_at_the_start(
    drain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is moved, nothing is retried: two workers on such a store would overwrite each other."""
    store = _unsafe(monkeypatch, UnsafeStoreError("it took a write with a wrong version"))

    async def run() -> None:
        with anyio.fail_after(10):
            await run_worker(load(), drain=drain)

    with pytest.raises(BaseExceptionGroup) as caught:
        anyio.run(run)
    assert caught.group_contains(UnsafeStoreError, match="wrong version")
    assert store.closed


def test_a_drain_waits_a_while_for_a_store_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """And says why it gave up; its connections are closed."""
    monkeypatch.setattr("streamjournal.admin.worker_process._PATIENCE", 0.3)
    store = _unsafe(monkeypatch, StoreUnavailableError("nobody answers"))
    with pytest.raises(BaseExceptionGroup) as caught:
        anyio.run(lambda: run_worker(load(), drain=True))
    assert caught.group_contains(StoreUnavailableError, match="nobody answers")
    assert store.closed


def test_a_worker_moves_entries_until_it_is_stopped(tmp_path: Path) -> None:
    """`on_stats` gets the counters and the worker once, before it starts."""
    with Journal() as journal:
        journal.emit("N", session_id="s").result(10)
    given: list[Any] = []
    anyio.run(lambda: run_worker(load(), drain=True, on_stats=lambda *both: given.append(both)))
    ((stats, _),) = given
    assert (stats.entries, stats.commits) == (1, 1)
    assert (tmp_path / "home" / "journals" / "s" / "journal.jsonl").exists()


def test_log_lines_are_json_with_their_logger_whoever_speaks(capfd: pytest.CaptureFixture[str]) -> None:
    """Ours and libraries' alike: when, how bad, who, what come first."""
    configure_logging(json=True)
    structlog.get_logger("streamjournal.test").warning("not_reachable", problem="x")
    structlog.get_logger("streamjournal.test").debug("unseen")
    logging.getLogger("some.library").warning("it is %s", "late")
    ours, theirs = map(json.loads, capfd.readouterr().err.splitlines())
    assert list(ours)[:4] == ["timestamp", "level", "logger", "event"]
    assert (ours["level"], ours["logger"], ours["event"], ours["problem"]) == (
        "warning",
        "streamjournal.test",
        "not_reachable",
        "x",
    )
    assert (theirs["level"], theirs["logger"], theirs["event"]) == ("warning", "some.library", "it is late")


def _unsafe(monkeypatch: pytest.MonkeyPatch, problem: Exception) -> _Store:
    store = _Store()
    store.problem = problem
    monkeypatch.setattr(wiring, "open_store", lambda *_, **__: store)
    return store
