"""`dead-letters` from a poison record to the journal, embedded."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import anyio
import msgspec
import pytest

from streamjournal.core.clock import SYSTEM
from streamjournal.core.settings import load
from streamjournal.store.files import FilesStore
from streamjournal.stream.aggregation import aggregate
from streamjournal.stream.port import Accepted, PutRecord
from streamjournal.stream.sqlite import SqliteStream
from tests.cli.conftest import Command


def line(n: int, session_id: str = "mine", writer: str = "k3v9q2m8x1") -> bytes:
    """A line as an emitter of ours makes it."""
    fields = {
        "id": f"{writer}-{n}",
        "timestamp": f"2026-11-22T13:12:0{n}.000000Z",
        "session_id": session_id,
        "event_type": "NOTE",
        "tool_name": None,
        "level": "INFO",
        "details": {"n": n},
    }
    return msgspec.json.encode(fields)


def put(*records: PutRecord) -> None:
    """Put records onto the embedded stream, as a producer of any kind."""

    async def go() -> None:
        stream = SqliteStream(load().home_path / "stream.db")
        assert all(isinstance(it, Accepted) for it in await stream.put(records))
        await stream.aclose()

    anyio.run(go)


def numbers(session_id: str) -> tuple[str, int]:
    """The writers' numbers and the count of entries in a journal's metadata."""

    async def go() -> tuple[str, int]:
        store = FilesStore(load().home_path, clock=SYSTEM)
        head = await store.head(session_id)
        assert head is not None
        assert head.meta is not None
        return head.meta.writers.encode(), head.meta.summary.entries

    return anyio.run(go)


def entries(command: Command, session_id: str) -> list[str]:
    """The ids in a journal, in its order, but for what the system itself says there."""
    read = command("read", session_id, "--journal-only", "-o", "json")
    assert read.code == 0, read.err
    return [one["id"] for one in objects(read.out) if one.get("source") != "journal"]


def objects(out: str) -> list[dict]:
    return [json.loads(one) for one in out.splitlines()]


@pytest.fixture
def parked(command: Command) -> list[dict]:
    """Of a writer's entries the journal has 1 and 3; 2 came under a wrong key, beside others and garbage."""
    put(
        PutRecord("mine", aggregate("mine", [line(1)])),
        PutRecord("wrong", aggregate("wrong", [line(2)])),
        PutRecord("mine", aggregate("mine", [line(3)])),
        PutRecord("elsewhere", b'{"session_id":"mine","event_type":"PLAIN","id":7}'),
        PutRecord("mine", b"\xff\x1b[31mred\nend"),
    )
    assert command("worker", "--drain").code == 0
    listed = command("dead-letters", "-o", "json")
    assert listed.code == 0
    return objects(listed.out)


def test_from_poison_to_the_journal_and_a_second_replay_changes_nothing(
    command: Command, parked: list[dict]
) -> None:
    """List, show, replay, worker: the gap in the writer's numbers is filled, once for all."""
    before = numbers("mine")
    assert before[0] == "k3v9q2m8x1:3!2"
    by_reason = {one["session_id"]: one for one in parked if one["partition_key"] != "elsewhere"}
    plain = next(one for one in parked if one["partition_key"] == "elsewhere")
    misplaced, garbage = by_reason["mine"], by_reason[None]
    assert (misplaced["replayable"], plain["replayable"], garbage["replayable"]) == (True, True, False)
    assert "partition key is 'wrong'" in misplaced["reason"]

    shown = command("dead-letters", "show", misplaced["key"], "-o", "json")
    assert base64.b64decode(json.loads(shown.out)["data"]) == line(2)
    store_path = load().home_path
    kept = {one["key"]: (store_path / one["key"]).read_bytes() for one in parked}

    replayed = command("dead-letters", "replay", "--all", "-o", "json")
    assert replayed.code == 1  # the garbage stays
    actions = {one["key"]: one["action"] for one in objects(replayed.out)}
    assert actions == {misplaced["key"]: "replayed", plain["key"]: "replayed", garbage["key"]: "left"}
    assert command("worker", "--drain").code == 0
    ids = entries(command, "mine")
    assert ids[:3] == ["k3v9q2m8x1-1", "k3v9q2m8x1-3", "k3v9q2m8x1-2"]
    assert len(ids) == 4
    writers, count = numbers("mine")
    assert "k3v9q2m8x1:3" in writers
    assert "!" not in writers
    assert count == before[1] + 2

    for key, data in kept.items():  # as a replay that was killed before the removal would leave them
        (store_path / key).write_bytes(data)
    again = command("dead-letters", "replay", misplaced["key"], plain["key"])
    assert again.code == 0
    assert command("worker", "--drain").code == 0
    assert entries(command, "mine") == ids
    assert numbers("mine") == (writers, count)
    assert [one["key"] for one in objects(command("dead-letters", "-o", "json").out)] == [garbage["key"]]


def test_list_and_show_are_for_a_person_and_harmless(command: Command, parked: list[dict]) -> None:
    """A line and the key for each, the newest last; control characters show as code points."""
    listed = command("dead-letters", "list", "-n", "2")
    assert listed.code == 0
    assert listed.err == "the newest 2 of 3; -n shows more\n"
    lines = listed.out.splitlines()
    assert len(lines) == 4
    assert [one.strip() for one in lines[1::2]] == [one["key"] for one in parked[-2:]]
    assert "no entry" in listed.out

    garbage = next(one for one in parked if not one["replayable"])
    shown = command("dead-letters", "show", garbage["key"])
    assert shown.code == 0
    assert "\x1b" not in shown.out
    assert shown.out.endswith("\\xff\\u001b[31mred\nend\n")
    assert f"key            {garbage['key']}" in shown.out


def test_none(command: Command) -> None:
    """Nothing found is 1, as everywhere, and makes no home."""
    for arguments in ((), ("list",), ("replay", "--all")):
        done = command("dead-letters", *arguments)
        assert (done.code, done.out, done.err) == (1, "", "no dead letters\n")
    done = command("dead-letters", "show", "dead-letters/0123456789abcdef/x/1-0.json")
    assert (done.code, done.out) == (1, "")
    assert "there is no dead letter" in done.err
    assert not load().home_path.exists()


@pytest.mark.parametrize(
    "arguments",
    [("show",), ("replay",), ("list", "key"), ("list", "--all"), ("replay", "key", "--all"), ("burn",)],
)
def test_wrong_usage(command: Command, arguments: tuple[str, ...]) -> None:
    """A usage error before anything is opened."""
    assert command("dead-letters", *arguments).code == 2
    assert not load().home_path.exists()


def test_a_damaged_letter_does_not_hide_the_others(command: Command, parked: list[dict]) -> None:
    """It is listed as what it is, shown as an error, and left by a replay."""
    path = load().home_path / parked[0]["key"]
    path.write_text("{")
    listed = objects(command("dead-letters", "-o", "json").out)
    assert {one["key"] for one in listed} == {one["key"] for one in parked}
    assert "is no dead letter" in next(one["reason"] for one in listed if one["key"] == parked[0]["key"])
    assert "no dead letter" in command("dead-letters").out
    assert command("dead-letters", "show", parked[0]["key"]).code == 1
    left = objects(command("dead-letters", "replay", parked[0]["key"], "-o", "json").out)
    assert [one["action"] for one in left] == ["left"]
    assert path.read_text() == "{"


def test_a_stream_that_cannot_be_opened_is_not_reachable(
    command: Command, parked: list[dict], tmp_path: Path
) -> None:
    """Exit 3, and every letter where it was."""
    stream = load().home_path / "stream.db"
    for file in stream.parent.glob("stream.db*"):
        file.unlink()
    stream.write_bytes(b"no database" * 1000)
    done = command("dead-letters", "replay", "--all")
    assert done.code == 3
    assert "stream.db" in done.err
    assert len(objects(command("dead-letters", "-o", "json").out)) == 3
