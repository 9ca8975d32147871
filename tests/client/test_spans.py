"""Spans: starts, ends and errors of tools, who called whom, and functions that journal themselves."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from streamjournal import AsyncJournal, Entry, Journal, current_session
from streamjournal.core.errors import ClosedJournalError, NoCurrentSessionError
from streamjournal.emit.spans import MAX_RESULT_BYTES


@pytest.fixture
def journal() -> Iterator[Journal]:
    """A sync journal, embedded in the test's own folder."""
    with Journal() as opened:
        yield opened


def entries(journal: Journal, session_id: str = "s") -> list[Entry]:
    """A session's entries but for its start and end."""
    return [entry for entry in journal.read(session_id) if not entry.event_type.startswith("SESSION_")]


def told(journal: Journal, session_id: str = "s") -> list[tuple[str, str | None]]:
    """Event types and tools, in order."""
    return [(entry.event_type, entry.tool_name) for entry in entries(journal, session_id)]


def test_a_tool_that_ends(journal: Journal) -> None:
    """Start with the arguments, end with result and duration; both carry the same span."""
    with journal.session("s").tool("run_eda", path="x.csv", rows=3) as span:
        span.result({"columns": 2})
    start, end = entries(journal)
    assert (start.event_type, start.tool_name, start.level) == ("TOOL_START", "run_eda", "INFO")
    assert start.details == {"arguments": {"path": "x.csv", "rows": 3}}
    assert end.event_type == "TOOL_END"
    assert end.details.pop("duration_ms") >= 0
    assert end.details == {"result": {"columns": 2}}
    assert start.span_id == end.span_id == span.id
    assert len(span.id) == 16
    assert int(span.id, 16) >= 0
    assert start.parent_id is None


def test_a_tool_that_fails(journal: Journal) -> None:
    """The exception goes on, and its type, text and traceback are in the journal."""
    with pytest.raises(ValueError, match="no such column"), journal.session("s").tool("run_eda"):
        raise ValueError("no such column")
    error = entries(journal)[1]
    assert (error.event_type, error.level) == ("TOOL_ERROR", "ERROR")
    assert error.details["error"]["type"] == "ValueError"
    assert error.details["error"]["message"] == "no such column"
    assert "test_a_tool_that_fails" in error.details["error"]["traceback"]


def test_the_start_is_there_while_the_tool_runs(journal: Journal) -> None:
    """Another reader sees a tool that hangs."""
    with journal.session("s").tool("hangs"), Journal() as other:
        journal.flush(timeout=10)
        assert told(other) == [("TOOL_START", "hangs")]


def test_tools_inside_tools_and_events_inside_them(journal: Journal) -> None:
    """A call knows the call it was made in; an event belongs to the innermost one."""
    session = journal.session("s")
    with session.tool("outer") as outer:
        with session.tool("inner") as inner:
            session.event("DATA_LOADED", rows=1000)
            session.emit("NOTE")
        session.event("BETWEEN", level="WARNING")
    session.event("AFTER")
    by_type = {(entry.event_type, entry.tool_name): entry for entry in entries(journal)}
    loaded = by_type["DATA_LOADED", "inner"]
    assert (loaded.span_id, loaded.parent_id, loaded.details) == (inner.id, outer.id, {"rows": 1000})
    assert by_type["NOTE", None].span_id == inner.id
    assert by_type["BETWEEN", "outer"].span_id == outer.id
    assert by_type["BETWEEN", "outer"].level == "WARNING"
    assert by_type["AFTER", None].span_id is None


def test_a_span_of_another_session_says_nothing_about_this_one(journal: Journal) -> None:
    """What is emitted to another session inside a tool is not marked with the tool's span."""
    with journal.session("s").tool("outer"):
        journal.session("other").event("NOTE")
    assert entries(journal, "other")[0].span_id is None


def test_the_current_session_is_found_without_a_parameter(journal: Journal) -> None:
    """In a session's block, in a tool, in a traced function; outside it says what to do."""
    with pytest.raises(NoCurrentSessionError, match=r"journal\.session"):
        current_session()
    with journal.session("s") as session:
        assert current_session() is session
        with journal.session("t").tool("x") as span:
            assert current_session() is span.session
        assert current_session() is session
    with pytest.raises(LookupError):
        current_session()


def test_a_thread_with_a_copy_of_the_context_inherits_the_span(journal: Journal) -> None:
    """`asyncio.to_thread` does, as Strands' tools run; a bare thread does not, and says so."""

    async def work() -> None:
        await asyncio.to_thread(lambda: current_session().event("FROM_THREAD"))

    with journal.session("s").tool("outer") as outer:
        asyncio.run(work())
        found: list[BaseException] = []

        def bare() -> None:
            try:
                current_session()
            except NoCurrentSessionError as problem:
                found.append(problem)

        thread = threading.Thread(target=bare)
        thread.start()
        thread.join()
    assert len(found) == 1
    assert entries(journal)[1].span_id == outer.id


def test_a_traced_function(journal: Journal) -> None:
    """Arguments by name, result, and the function's own name; its signature stays."""

    @journal.traced(session_id="s")
    def add(a: int, b: int = 2) -> int:
        """Adds."""
        return a + b

    assert add(1) == 3
    assert add.__doc__ == "Adds."
    assert list(inspect.signature(add).parameters) == ["a", "b"]
    start, end = entries(journal)
    assert (start.tool_name, start.details) == ("add", {"arguments": {"a": 1}})
    assert end.details["result"] == 3


def test_a_traced_method_and_a_name(journal: Journal) -> None:
    """`self` is no argument worth journaling."""

    class Tool:
        @journal.traced(tool_name="eda", session_id="s")
        def run(self, *paths: str, **options: Any) -> None:
            raise KeyError("x")

    with pytest.raises(KeyError):
        Tool().run("a", "b", fast=True)
    start, error = entries(journal)
    assert start.tool_name == "eda"
    assert start.details == {"arguments": {"paths": ["a", "b"], "options": {"fast": True}}}
    assert error.details["error"]["type"] == "KeyError"


def test_wrong_arguments_fail_as_they_would_untraced(journal: Journal) -> None:
    """The TypeError is the function's own, and the call shows as failed."""

    @journal.traced(session_id="s")
    def add(a: int) -> int:
        return a

    with pytest.raises(TypeError, match=r"add\(\) missing 1 required positional argument"):
        add()  # type: ignore[call-arg]
    assert [kind for kind, _ in told(journal)] == ["TOOL_START", "TOOL_ERROR"]


async def _double(value: int) -> int:
    await asyncio.sleep(0)
    return value * 2


def test_traced_coroutines_that_run_at_once(journal: Journal) -> None:
    """Each task has its own current span; both have the same parent."""
    double = journal.traced(_double)

    async def both() -> list[int]:
        return list(await asyncio.gather(double(1), double(2)))

    with journal.session("s").tool("outer") as outer:
        assert asyncio.run(both()) == [2, 4]
    found = [entry for entry in entries(journal) if entry.tool_name == "_double"]
    assert len(found) == 4
    assert {entry.parent_id for entry in found} == {outer.id}
    assert len({entry.span_id for entry in found}) == 2


def test_a_traced_generator(journal: Journal) -> None:
    """One span from the first item to the end, with the number of items; its caller is not inside it."""

    @journal.traced(session_id="s")
    def count(n: int) -> Iterator[int]:
        for i in range(n):
            current_session().event("ITEM", i=i)
            yield i

    items = count(2)
    assert told(journal) == []
    assert next(items) == 0
    with pytest.raises(NoCurrentSessionError):
        current_session()
    assert list(items) == [1]
    assert told(journal) == [
        ("TOOL_START", "count"),
        ("ITEM", "count"),
        ("ITEM", "count"),
        ("TOOL_END", "count"),
    ]
    assert entries(journal)[-1].details["items"] == 2


def test_a_generator_keeps_what_generators_do(journal: Journal) -> None:
    """send, throw, return values and close reach the function, as without tracing."""
    seen: list[str] = []

    @journal.traced(session_id="s")
    def talk() -> Iterator[Any]:
        try:
            while True:
                try:
                    word = yield len(seen)
                    seen.append(word)
                except ValueError:
                    seen.append("thrown")
        finally:
            seen.append("closed")

    talking: Any = talk()
    assert next(talking) == 0
    assert talking.send("hello") == 1
    assert talking.throw(ValueError()) == 2
    talking.close()
    assert seen == ["hello", "thrown", "closed"]
    end = entries(journal)[-1]
    assert (end.event_type, end.details["closed"], end.details["items"]) == ("TOOL_END", True, 3)


def test_a_generator_that_fails(journal: Journal) -> None:
    """The items before the error are counted."""

    @journal.traced(session_id="s")
    def fails() -> Iterator[int]:
        yield 1
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        list(fails())
    error = entries(journal)[-1]
    assert (error.event_type, error.details["items"]) == ("TOOL_ERROR", 1)


def test_a_traced_async_generator(journal: Journal) -> None:
    """As a generator: one span, items counted, errors and an early end told."""

    @journal.traced(session_id="s")
    async def stream(n: int) -> AsyncIterator[int]:
        for i in range(n):
            await asyncio.sleep(0)
            yield i

    async def use() -> list[int]:
        some = [i async for i in stream(3)]
        rest: Any = stream(5)
        async for _ in rest:
            break
        await rest.aclose()
        return some

    assert asyncio.run(use()) == [0, 1, 2]
    first, second = [entry for entry in entries(journal) if entry.event_type == "TOOL_END"]
    assert first.details["items"] == 3
    assert (second.details["items"], second.details["closed"]) == (1, True)


def test_a_call_outside_every_session_has_one_of_its_own(journal: Journal) -> None:
    """Named after the tool; what it calls is in the same session."""

    @journal.traced
    def inner() -> None:
        """Nothing to do."""

    @journal.traced
    def outer() -> str:
        inner()
        return current_session().session_id

    session_id = outer()
    assert session_id.startswith("outer-")
    assert [tool for _, tool in told(journal, session_id)] == ["outer", "inner", "inner", "outer"]


def test_large_results_and_arguments_are_shown_in_part(journal: Journal) -> None:
    """A dataframe in passing must not become a journal of its own."""

    @journal.traced(session_id="s")
    def double(text: str) -> str:
        return text * 2

    double("ä" * 100_000)
    start, end = entries(journal)
    assert start.details["arguments"]["text"]["$cut"] == 200_002
    assert end.details["result"]["$cut"] == 400_002
    assert len(end.details["result"]["start"].encode()) <= MAX_RESULT_BYTES


def test_a_closed_journal_does_not_fail_the_tool(caplog: pytest.LogCaptureFixture) -> None:
    """The tool's own value, or error, is what its caller gets; a warning says what is not journaled."""
    journal = Journal()

    @journal.traced(session_id="s")
    def works() -> int:
        return 1

    journal.close()
    assert works() == 1
    assert "TOOL_START of works is not in the journal" in caplog.text


def test_what_cannot_be_json_does_not_fail_the_tool(journal: Journal) -> None:
    """Arguments and results are whatever they are."""

    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    @journal.traced(session_id="s")
    def same(value: Any) -> Any:
        return value

    odd = Odd()
    assert same(odd) is odd
    assert [kind for kind, _ in told(journal)] == ["TOOL_START", "TOOL_END"]


@pytest.mark.anyio
async def test_the_async_journal_has_the_same(anyio_backend_name: str) -> None:
    """`async with session.tool(…)`, and traced functions."""
    async with AsyncJournal() as journal:

        @journal.traced
        async def inner() -> int:
            return 1

        async with journal.session("s") as session, session.tool("outer") as outer:
            outer.result(await inner())
        found = await journal.read("s").all()
        assert [(entry.event_type, entry.tool_name) for entry in found[1:-1]] == [
            ("TOOL_START", "outer"),
            ("TOOL_START", "inner"),
            ("TOOL_END", "inner"),
            ("TOOL_END", "outer"),
        ]
        assert found[2].parent_id == outer.id


def test_a_session_of_a_closed_journal_leaves_the_code_where_it_was() -> None:
    """Its start raises; what runs after it is not taken for a part of it."""
    journal = Journal()
    journal.close()
    with pytest.raises(ClosedJournalError), journal.session("s"):
        pass
    with pytest.raises(NoCurrentSessionError):
        current_session()


@pytest.mark.parametrize("name", ["t" * 250, "é" * 200, "two\nlines"])
def test_odd_names_of_tools(journal: Journal, name: str) -> None:
    """Also a session that is named after one can be."""

    @journal.traced(tool_name=name)
    def works() -> str:
        return current_session().session_id

    assert len(journal.read(works()).all()) == 2


def test_a_secret_in_a_traceback_is_cleaned_before_it_is_cut(journal: Journal) -> None:
    """Half a key would have no form that is known."""
    key = "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEpAIBAAKCAQEA" * 200 + "\n-----END RSA PRIVATE KEY-----"
    with pytest.raises(ValueError, match="BEGIN"), journal.session("s").tool("x"):
        raise ValueError(key + "x" * 1600)
    assert "MIIEpAIBAAKCAQEA" not in str(entries(journal)[1].details)
