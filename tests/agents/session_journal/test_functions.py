"""The seed functions: their shapes, and that they never raise where they must not."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest

from streamjournal import InvalidEntryError, Journal
from streamjournal.agents import session_journal
from streamjournal.agents.session_journal import (
    extract_journal_entries,
    functions,
    read_journal,
    setup_journal_bucket,
    use_journal,
    write_journal_entry,
    write_journal_entry_with_retry,
)
from streamjournal.agents.session_journal.shared import count_entries, journal_uri
from streamjournal.core.settings import Settings
from tests.cli.conftest import Command, command

__all__ = ["command"]  # the fixture


def write(*arguments: Any, **keywords: Any) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(write_journal_entry(*arguments, **keywords))
    return answer


def read(*arguments: Any) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(read_journal(*arguments))
    return answer


def test_signatures() -> None:
    """Names, arguments and defaults are those that older agents call with."""
    parameters = {
        name: [
            (p.name, None if p.default is p.empty else p.default)
            for p in inspect.signature(getattr(session_journal, name)).parameters.values()
        ]
        for name in session_journal.__all__
        if name != "use_journal"
    }
    written = [
        ("session_id", None),
        ("event_type", None),
        ("tool_name", ""),
        ("details", None),
        ("level", "INFO"),
    ]
    assert parameters == {
        "write_journal_entry": written,
        "write_journal_entry_with_retry": [*written, ("max_retries", 3)],
        "read_journal": [("session_id", None), ("filter_event_type", None)],
        "extract_journal_entries": [("output", None)],
        "setup_journal_bucket": [],
    }


def test_a_write(journal: Journal, tmp_path: Path) -> None:
    """The answer has the entry as it is in the journal, where that is, and how many there are."""
    first = write("s", "TOOL_START", "run_eda", {"path": "a.csv", "password": "p"})
    assert first["status"] == "success"
    assert first["session_id"] == "s"
    assert first["entry_count"] == 1
    assert first["s3_path"] == (tmp_path / "home/journals/s/journal.jsonl").as_uri()
    (entry,) = journal.read("s")
    assert first["entry"] == entry.to_dict()
    assert first["entry"]["details"]["password"] == "<redacted>"
    second = write("s", "NOTE")
    assert (second["entry_count"], second["entry"]["details"], second["entry"]["tool_name"]) == (2, {}, "")


@pytest.mark.parametrize("details", ["plain text", ["a"], 3, False])
def test_details_that_are_no_object(details: Any) -> None:
    """They become a value."""
    assert write("s", "NOTE", details=details)["entry"]["details"] == {"value": details}


def test_a_read_sees_the_write_at_once() -> None:
    """Entries, their number, and a filter by event type."""
    for event_type in ("A", "B", "A"):
        write("s", event_type)
    everything = read("s")
    assert everything["status"] == "success"
    assert [entry["event_type"] for entry in everything["entries"]] == ["A", "B", "A"]
    assert everything["entry_count"] == 3
    assert read("s", "A")["entry_count"] == 2
    filtered = read("s", "C")
    assert (filtered["status"], filtered["entries"], filtered["entry_count"]) == ("success", [], 0)


def test_a_session_without_a_journal() -> None:
    """It is not found, with a message, also when filtered."""
    for arguments in (["nobody"], ["nobody", "A"]):
        answer = read(*arguments)
        assert answer["status"] == "not_found"
        assert "nobody" in answer["message"]
        assert (answer["entries"], answer["entry_count"]) == ([], 0)


def test_another_process_reads_what_was_written() -> None:
    """Once a write has answered, it is acknowledged: others see it."""
    write("s", "NOTE")
    code = "from streamjournal.agents.session_journal import read_journal; print(read_journal('s'))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(done.stdout)["entry_count"] == 1


def test_the_number_of_entries_is_exact(journal: Journal, command: Command) -> None:
    """Before the worker wrote the journal, after it, with more on top, and by several writers."""
    for n in range(1, 4):
        assert write("s", "NOTE")["entry_count"] == n
    assert command("worker", "--drain").code == 0
    assert count_entries(journal, "s").entries == 3
    assert write("s", "NOTE")["entry_count"] == 4
    with Journal() as other:
        other.emit("NOTE", session_id="s").result(10)
    assert write("s", "NOTE")["entry_count"] == 6 == read("s")["entry_count"]
    assert command("worker", "--drain").code == 0
    assert write("s", "NOTE")["entry_count"] == 7


def test_the_number_of_entries_of_an_older_journal(tmp_path: Path) -> None:
    """A journal that an older tool wrote says nothing of itself; its lines are counted."""
    folder = tmp_path / "home/journals/old"
    folder.mkdir(parents=True)
    line = b'{"timestamp":"2025-01-01T00:00:00","event_type":"NOTE","tool_name":"","details":{}}\n'
    (folder / "journal.jsonl").write_bytes(line * 3)
    assert write("old", "NOTE")["entry_count"] == 4


def test_counting_does_not_read_the_journal(
    journal: Journal, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write to a long session costs a look at the metadata, not the session."""
    from streamjournal.store.files import FilesStore

    write("s", "NOTE")
    assert command("worker", "--drain").code == 0

    def opened(*_: Any) -> None:
        raise AssertionError("the body was opened")

    monkeypatch.setattr(FilesStore, "open", opened)
    assert write("s", "NOTE")["entry_count"] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("", "A"), "session_id must not be empty"),
        (("s", ""), "event_type must not be empty"),
        (("s" * 300, "A"), "at most 256"),
        ((None, "A"), "session_id is missing"),
        (("s", "A", 3), "tool_name must be text"),
        (("s", "A", "", None, ""), "level must not be empty"),
    ],
)
def test_bad_input_is_answered(arguments: tuple[Any, ...], said: str) -> None:
    """A write that cannot be accepted says why; it does not raise."""
    answer = write(*arguments)
    assert answer["status"] == "error"
    assert said in answer["message"]


def test_bad_input_to_the_others() -> None:
    """Reading a session that cannot be one is an error, too; no output has no entries."""
    assert read("")["status"] == "error"
    assert extract_journal_entries(None) == []  # type: ignore[arg-type]
    with pytest.raises(InvalidEntryError):
        write_journal_entry_with_retry("", "A")


def test_a_journal_that_is_closed(journal: Journal) -> None:
    """What cannot be written or read now is answered as an error."""
    journal.close()
    assert "closed" in write("s", "A")["message"]
    assert read("s")["status"] == "error"


def test_settings_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose environment is wrong gets errors that name the variable."""
    use_journal(None)
    monkeypatch.setenv("STREAMJOURNAL_SHARDS", "none")
    for answer in (write("s", "A"), read("s"), json.loads(setup_journal_bucket())):
        assert answer["status"] == "error"
        assert "STREAMJOURNAL_SHARDS" in answer["message"]


@pytest.fixture
def broken_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The stream's file cannot be opened until somebody removes what is in its place."""
    in_the_way = tmp_path / "home/stream.db"
    in_the_way.mkdir(parents=True)
    monkeypatch.setattr(functions, "ACKNOWLEDGE_SECONDS", 0.0)
    yield in_the_way
    if in_the_way.is_dir():
        in_the_way.rmdir()  # so that closing the journal need not wait for it


def test_a_stream_that_does_not_answer(broken_stream: Path) -> None:
    """The write says that it is late, and that it is not to be repeated."""
    answer = write("s", "A")
    assert answer["status"] == "error"
    assert "do not write it again" in answer["message"]


def test_retries_wait_for_the_same_entry(broken_stream: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that was accepted is not written a second time; the answer says how often was tried."""
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            broken_stream.rmdir()
            monkeypatch.setattr(functions, "ACKNOWLEDGE_SECONDS", 30.0)

    monkeypatch.setattr(time, "sleep", pause)
    answer = json.loads(write_journal_entry_with_retry("s", "A"))
    assert (answer["status"], answer["attempt"], answer["entry_count"]) == ("success", 3, 1)
    assert pauses == [0.2, 0.4]


def test_retries_that_all_fail(broken_stream: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last error is raised, and says how often was tried."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with pytest.raises(TimeoutError) as caught:
        write_journal_entry_with_retry("s", "A", max_retries=2)
    assert caught.value.__notes__ == ["tried 2 times"]


def test_a_first_attempt_that_works() -> None:
    """It is counted as the first."""
    assert json.loads(write_journal_entry_with_retry("s", "A"))["attempt"] == 1


def test_entries_that_a_program_printed() -> None:
    """Each is given as arguments of a write: other keys go into details, and the type may be missing."""
    output = """before
===JOURNAL_ENTRY===
{"event_type": "DATA_LOADED", "tool_name": "eda", "details": {"rows": 3}, "level": "WARNING"}
===JOURNAL_END===
===JOURNAL_ENTRY===
{"details": "as text", "session_id": "somebody else's", "timestamp": "2025"}
===JOURNAL_END===
===JOURNAL_ENTRY===
{no json}
===JOURNAL_END===
===JOURNAL_ENTRY===
{"event_type": null, "rows": 3}
===JOURNAL_END===
after"""
    assert extract_journal_entries(output) == [
        {"event_type": "DATA_LOADED", "tool_name": "eda", "details": {"rows": 3}, "level": "WARNING"},
        {
            "event_type": "CODE_INTERPRETER_EVENT",
            "details": {"session_id": "somebody else's", "timestamp": "2025", "value": "as text"},
        },
        {"event_type": "CODE_INTERPRETER_EVENT", "details": {"rows": 3}},
    ]


def test_setup_embedded(tmp_path: Path) -> None:
    """The folders are made; a second time there is nothing to do."""
    home = tmp_path / "fresh"
    with Journal(home=home) as other:
        use_journal(other)
        first, second = json.loads(setup_journal_bucket()), json.loads(setup_journal_bucket())
    assert (first["status"], first["bucket"]) == ("success", None)
    assert first["s3_path"] == f"{home.as_uri()}/journals/"
    assert {step["action"] for step in first["steps"]} <= {"created", "unchanged"}
    assert {step["action"] for step in second["steps"]} == {"unchanged"}
    assert home.is_dir()


def test_setup_inside_an_event_loop(tmp_path: Path) -> None:
    """An async program may call it too."""
    import anyio

    async def main() -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(setup_journal_bucket())
        return answer

    assert anyio.run(main)["status"] == "success"


@pytest.mark.aws
def test_on_aws(aws_emulator: str, aws_client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bucket is made with versions archived after 30 days; a write is in S3's words."""
    monkeypatch.setenv("STREAMJOURNAL_STREAM", "seed-stream")
    monkeypatch.setenv("STREAMJOURNAL_BUCKET", "seed-bucket")
    monkeypatch.setenv("STREAMJOURNAL_LEASE_TABLE", "seed-leases")
    with Journal() as journal:
        use_journal(journal)
        made = json.loads(setup_journal_bucket())
        assert (made["status"], made["bucket"]) == ("success", "seed-bucket"), made
        assert made["s3_path"] == "s3://seed-bucket/journals/"
        rules = aws_client("s3", aws_emulator).get_bucket_lifecycle_configuration(Bucket="seed-bucket")[
            "Rules"
        ]
        moves = [move for rule in rules for move in rule.get("NoncurrentVersionTransitions", [])]
        assert [move["NoncurrentDays"] for move in moves] == [30]
        written = write("a/b", "NOTE")
        assert written["s3_path"] == "s3://seed-bucket/journals/a%2Fb/journal.jsonl"
        assert (written["status"], written["entry_count"]) == ("success", 1)
        assert read("a/b")["entry_count"] == 1


def test_where_a_journal_is(tmp_path: Path, journal: Journal, command: Command) -> None:
    """The URI leads to the file, however odd the session's id is."""
    session_id = "år/2026 #1%"
    answer = write(session_id, "NOTE")
    assert command("worker", "--drain").code == 0
    assert Path(unquote(urlparse(answer["s3_path"]).path)).read_bytes().count(b"\n") == 1
    assert journal_uri(Settings(stream="s", bucket="b", prefix="p/"), "s") == "s3://b/p/s/journal.jsonl"


def test_many_threads() -> None:
    """Writes at the same time all succeed, and the highest number is the number of writes."""
    answers: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: answers.append(write("s", "NOTE"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer["status"] for answer in answers} == {"success"}
    assert max(answer["entry_count"] for answer in answers) == 8


def test_a_forked_child_goes_on() -> None:
    """Both processes write, under ids of their own, and both see everything."""
    write("s", "PARENT")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if write("s", "CHILD")["entry_count"] == 2 else 1
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert [entry["event_type"] for entry in read("s")["entries"]] == ["PARENT", "CHILD"]


def test_a_process_of_its_own(tmp_path: Path) -> None:
    """The journal is made from the environment, Strands is not imported, and the exit leaves no spool."""
    code = """if True:
        import sys
        from streamjournal.agents.session_journal import write_journal_entry
        assert "strands" not in sys.modules
        print(write_journal_entry("s", "NOTE"))
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(done.stdout)["status"] == "success"
    assert list((tmp_path / "home/spool").iterdir()) == []
    assert read("s")["entry_count"] == 1


def test_without_strands(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are functions all the same; asked to be a tool, they say what is missing."""
    from streamjournal.agents.session_journal.seed import SeedFunction

    fresh = SeedFunction(write_journal_entry._function)
    monkeypatch.setitem(sys.modules, "strands", None)
    assert json.loads(fresh("s", "NOTE"))["status"] == "success"
    with pytest.raises(TypeError, match=r"streamjournal\[strands\]"):
        list(fresh)


def test_they_are_pickled_by_name() -> None:
    """A pool of processes can be given them."""
    assert pickle.loads(pickle.dumps(write_journal_entry)) is write_journal_entry
