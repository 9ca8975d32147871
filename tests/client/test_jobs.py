"""Long jobs: what is journaled of them, and what watching does when the service does not play along."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
import trio.testing

from streamjournal import AsyncJournal, Journal, Session
from streamjournal.core.clock import Clock


class Slept:
    """Time that passes by sleeping only."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sleeps: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> Slept:
    """What `watch` sleeps, without waiting for it."""
    slept = Slept()
    monkeypatch.setattr("streamjournal.client.jobs.time.sleep", slept)
    return slept


@pytest.fixture
def session(slept: Slept) -> Iterator[Session]:
    """A session whose clock is moved by `watch`; nobody else looks at it."""
    with Journal() as journal:
        session = journal.session("s")
        journal.clock = Clock(monotonic=lambda: slept.now)
        yield session


def told(session: Session) -> list[tuple[str, str | None]]:
    """The entries' types and the statuses in them."""
    return [(entry.event_type, entry.details.get("status")) for entry in session.read()]


def answers(*seen: Any):
    """A poll that gives these, one after the other; exceptions are raised."""
    left = list(seen)

    def poll() -> Any:
        one = left.pop(0)
        if isinstance(one, BaseException):
            raise one
        return one

    return poll


def test_start_changes_end(session: Session, slept: Slept) -> None:
    """A start, an entry for each change and none for the same again, and the end with the time it took."""
    job = session.job("training", "xgb-1", instance="ml.m5.large")
    seen = answers("Starting", "InProgress", "InProgress", {"status": "Completed", "auc": 0.9})
    assert job.watch(seen, every=30) == "Completed"
    assert told(session) == [
        ("TRAINING_STARTED", None),
        ("TRAINING_STATUS", "Starting"),
        ("TRAINING_STATUS", "InProgress"),
        ("TRAINING_FINISHED", "Completed"),
    ]
    first, *_, last = session.read().all()
    assert first.details == {"name": "xgb-1", "instance": "ml.m5.large"}
    assert last.details == {"name": "xgb-1", "duration_ms": 90_000.0, "auc": 0.9, "status": "Completed"}
    assert slept.sleeps == [30, 30, 30]


@pytest.mark.parametrize(
    ("status", "level"),
    [
        ("SUCCEEDED", "INFO"),
        ("Failed", "ERROR"),
        ("Stopped", "ERROR"),
        ("TIMED_OUT", "ERROR"),
        ("TERMINATED_WITH_ERRORS", "ERROR"),
    ],
)
def test_how_services_say_the_end(session: Session, status: str, level: str) -> None:
    """Each service's words for an end are known, and which of them is a failure."""
    assert session.job("export", "e").watch(answers({"status": status, "level": "deep"})) == status
    last = session.read(last=1).all()[0]
    assert (last.event_type, last.level, last.details["level"]) == ("EXPORT_FINISHED", level, "deep")


def test_by_hand(session: Session) -> None:
    """Without polling: status and finish write the same, an end only once, and nothing after it."""
    job = session.job("batch transform", "b")
    job.status("Running", done=3)
    job.status("Running", done=4)
    job.finish(rows=10)
    job.finish("Failed")
    job.status("Running")
    assert told(session) == [
        ("BATCH_TRANSFORM_STARTED", None),
        ("BATCH_TRANSFORM_STATUS", "Running"),
        ("BATCH_TRANSFORM_FINISHED", "Completed"),
    ]
    assert job.ended


def test_a_job_of_another_process(session: Session) -> None:
    """One that was started before is watched without a second start, and without a duration."""
    session.job("training", "xgb", resume=True).watch(answers("Completed"))
    (entry,) = session.read()
    assert entry.details == {"name": "xgb", "status": "Completed"}


def test_a_poll_that_fails_at_times(session: Session) -> None:
    """The network may be away for a while: the status is unknown once, and the watching goes on."""
    away = ConnectionError("no route")
    job = session.job("training", "xgb")
    seen = answers("InProgress", away, away, away, away, "InProgress", away, away, "Completed")
    assert job.watch(seen) == "Completed"
    assert [status for _, status in told(session)] == [
        None,
        "InProgress",
        "unknown",
        "InProgress",
        "unknown",
        "Completed",
    ]
    unknown = session.read(level="WARNING").all()[0]
    assert unknown.details["error"] == {"type": "ConnectionError", "message": "no route"}


def test_a_poll_that_fails_for_good(session: Session) -> None:
    """Five failures in a row, or one at the start, are the caller's to know; the job is not at its end."""
    away = ConnectionError("no route")
    job = session.job("training", "xgb")
    with pytest.raises(ConnectionError):
        job.watch(answers(away))
    with pytest.raises(ConnectionError):
        job.watch(answers("InProgress", *[away] * 5))
    assert not job.ended


def test_it_takes_too_long(session: Session, slept: Slept) -> None:
    """At the timeout there is a last poll, then an error that says what to do."""
    job = session.job("training", "xgb")
    with pytest.raises(TimeoutError, match=r"xgb is InProgress after 70 s.*resume=True"):
        job.watch(answers(*["InProgress"] * 4), every=30, timeout=70)
    assert slept.sleeps == [30, 30, 10]
    assert told(session)[-1] == ("TRAINING_STATUS", "InProgress")


@pytest.mark.parametrize("answer", [None, 5, {"TrainingJobStatus": "InProgress"}])
def test_an_answer_that_is_none(session: Session, answer: Any) -> None:
    """A poll that gives no status is a mistake that is told at once."""
    with pytest.raises(TypeError, match="gives the status as text"):
        session.job("training", "xgb").watch(answers(answer))


def test_wrong_arguments(session: Session) -> None:
    """A kind without a letter, and a pause that is none."""
    with pytest.raises(ValueError, match="kind"):
        session.job("—", "x")
    for every in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="above 0"):
            session.job("training", "x", resume=True).watch(answers("Completed"), every=every)


def test_it_belongs_to_the_tool(session: Session) -> None:
    """Inside a tool's call the entries have its name and span."""
    with session.tool("start_training") as span:
        session.job("training", "xgb")
    (entry,) = session.read(event_types="TRAINING_STARTED")
    assert (entry.tool_name, entry.span_id) == ("start_training", span.id)


def test_a_journal_that_is_closed(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """Watching goes on without a journal, and the log says so."""
    job = session.job("training", "xgb")
    session.journal.close()
    with caplog.at_level(logging.WARNING, "streamjournal.client"):
        assert job.watch(answers("InProgress", "Completed")) == "Completed"
    assert "TRAINING_STATUS of xgb is not in the journal" in caplog.text


def test_async() -> None:
    """The same without blocking the event loop; a poll that is no async function runs on a thread."""
    import threading

    threads: set[int] = set()
    plain = answers("InProgress", OSError("away"), "InProgress")

    def on_thread() -> Any:
        threads.add(threading.get_ident())
        return plain()

    async def main() -> None:
        async with AsyncJournal() as journal:
            session = journal.session("s")
            job = session.job("training", "xgb")
            with pytest.raises(TimeoutError):
                await job.watch(on_thread, every=0.001, timeout=0.0015)

            async def poll() -> str:
                return "Completed"

            assert await job.watch(poll) == "Completed"
            assert [entry.event_type async for entry in session.read()][-1] == "TRAINING_FINISHED"

    anyio.run(main)
    assert threads
    assert threading.get_ident() not in threads


def test_async_waits_between_polls() -> None:
    """An async watch sleeps by the event loop's clock, a day long if need be."""

    async def main() -> float:
        async with AsyncJournal() as journal:
            seen = answers(*["InProgress"] * 2880, "Completed")

            async def poll() -> Any:
                return seen()

            await journal.session("s").job("training", "xgb", resume=True).watch(poll)
            waited = anyio.current_time() - started
            await journal.close()
            return waited

    started = 0.0
    clock = trio.testing.MockClock(autojump_threshold=0)
    assert anyio.run(main, backend="trio", backend_options={"clock": clock}) == pytest.approx(86_400)
