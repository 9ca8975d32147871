"""The net itself: every kind of harm, made by hand, is caught; and what is allowed is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamjournal.core.settings import Settings
from tests.chaos import evidence
from tests.chaos.checks import Verdict, Violation, check_journals, check_reads, check_tail, judge_read
from tests.chaos.ledger import Accepted, Account, Accounts, Acknowledged, Dropped, Ledger, Try
from tests.chaos.programs.emitter import details

SESSION = "s"
LEDGER = "emitter-0.001-0"
Entries = list[dict[str, Any]]


def account(count: int = 4, *, acknowledged: int = 4) -> Account:
    """A ledger of so many entries, all accepted as w-1, w-2, …, and the first of them acknowledged."""
    made = Account(LEDGER)
    for k in range(1, count + 1):
        made.add(Try(k, SESSION, "STEP", k))
        made.add(Accepted(k, f"w-{k}"))
    made.add(Acknowledged(list(range(1, acknowledged + 1))))
    return made


def entry(k: int, id_: str | None = None, **fields: Any) -> dict[str, Any]:
    """Entry k of the ledger, as it should stand in the journal."""
    return {"id": id_ or f"w-{k}", "event_type": "STEP", "details": details(LEDGER, k, k)} | fields


def journal(count: int = 4) -> Entries:
    """The journal of a session in which everything went well."""
    return [entry(k) for k in range(1, count + 1)]


def kinds(found: list[Violation]) -> set[str]:
    return {violation.kind for violation in found}


def test_a_whole_journal_is_no_violation() -> None:
    """Everything accepted is there once and in order: nothing is reported."""
    assert check_journals([account(acknowledged=2)], {SESSION: journal()}) == []


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (lambda e: e.pop(), "lost"),  # at the end no gap shows: the ledger alone knows of it
        (lambda e: e.pop(1), "lost"),
        (lambda e: e.pop(1), "gap"),
        (lambda e: e.append(e[-1]), "doubled"),
        (lambda e: e.insert(0, e[2]), "doubled"),
        (lambda e: e.reverse(), "reordered"),
        (lambda e: e.insert(3, e.pop(1)), "reordered"),
        (lambda e: e.append(entry(5)), "invented"),
        (lambda e: e.append(entry(1, "v-1", details={})), "invented"),
        (lambda e: e.append(entry(1, "v-1", details=details("other", 1, 1))), "invented"),
        (lambda e: e.append(entry(4, "w-5")), "invented"),
        (lambda e: e[1].update(event_type="NOTE"), "altered"),
        (lambda e: e[1].update(details=details(LEDGER, 2, 1)), "altered"),
        (lambda e: e.append({"id": "j-1", "event_type": "JOURNAL_RESTARTED", "source": "journal"}), "notice"),
    ],
)  # fmt: skip
def test_harm_to_a_journal_is_reported(harm: Callable[[Entries], Any], expected: str) -> None:
    """A lost, doubled, reordered, invented or altered entry, and a notice of trouble, is each told."""
    entries = journal()
    harm(entries)
    assert expected in kinds(check_journals([account()], {SESSION: entries}))


def test_a_lost_entry_is_counted_by_degree() -> None:
    """What was acknowledged and what was only accepted are told apart, with their numbers."""
    found = check_journals([account(acknowledged=2)], {SESSION: []})
    assert {v.kind for v in found} == {"lost"}
    assert [(v.text.split()[0], v.entries) for v in found] == [("acknowledged", 2), ("accepted", 2)]


def test_a_journal_that_is_not_there_is_a_loss() -> None:
    """A session without any journal loses all of its entries."""
    assert kinds(check_journals([account()], {})) == {"lost"}


def test_the_wrong_session_is_noticed() -> None:
    """An entry in another session's journal is lost in its own and invented there."""
    found = check_journals([account()], {"other": journal()})
    assert kinds(found) == {"lost", "invented"}


def test_the_last_try_may_be_there_or_not() -> None:
    """Killed between `emit` and the ledger's line: the journal may have that one entry, and no other."""
    killed = account(3)
    killed.add(Try(4, SESSION, "STEP", 4))
    assert check_journals([killed], {SESSION: journal(3)}) == []
    assert check_journals([killed], {SESSION: journal(4)}) == []
    killed.add(Try(5, SESSION, "STEP", 5))  # it went on, so try 4 should have had an outcome
    assert kinds(check_journals([killed], {SESSION: journal(4)})) == {"invented"}


def test_a_dropped_entry_must_not_appear() -> None:
    """What `emit` refused, or the stream for good, is not in the journal."""
    refused = account(3)
    refused.add(Try(4, SESSION, "STEP", 4))
    refused.add(Dropped(4, "no number"))
    assert check_journals([refused], {SESSION: journal(3)}) == []
    assert kinds(check_journals([refused], {SESSION: journal(4)})) == {"invented"}


KEYS = [(SESSION, f"w-{k}") for k in range(1, 5)]


@pytest.mark.parametrize(
    ("lives", "expected"),
    [
        ([KEYS[:2], KEYS[2:]], ""),
        ([KEYS[:2], [], KEYS[3:]], "missed"),
        ([KEYS[:3]], "missed"),
        ([], "missed"),
        ([KEYS[:2], KEYS[1:]], "repeated"),
        ([[*KEYS, KEYS[0]]], "repeated"),
        ([KEYS, [(SESSION, "x-1")]], "no journal"),
        ([[KEYS[0], KEYS[2], KEYS[1], KEYS[3]]], "reordered"),
    ],
)
def test_tails(lives: list[list[tuple[str, str]]], expected: str) -> None:
    """A session's tail gives all of the journal once and in order, over all its lives together."""
    found = check_tail("t", SESSION, lives, {SESSION: journal()})
    assert (expected in found[0].text) if expected else found == []


def test_a_tail_of_a_session_keeps_the_journals_order_between_writers_too() -> None:
    """Two writers mixed in another way than in the journal is reported."""
    journals = {SESSION: [{"id": "a-1"}, {"id": "b-1"}]}
    assert check_tail("t", SESSION, [[(SESSION, "a-1"), (SESSION, "b-1")]], journals) == []
    assert kinds(check_tail("t", SESSION, [[(SESSION, "b-1"), (SESSION, "a-1")]], journals)) == {"tail"}


def test_a_tail_of_all_sessions_may_repeat_after_a_resume_only() -> None:
    """As promised: in one life it repeats nothing, and it never misses anything."""
    journals = {SESSION: journal()}
    assert check_tail("t", None, [KEYS[:2], KEYS[1:]], journals) == []
    assert kinds(check_tail("t", None, [[*KEYS, KEYS[3]]], journals)) == {"tail"}
    assert kinds(check_tail("t", None, [KEYS[:3]], journals)) == {"tail"}


@pytest.mark.parametrize(
    ("ids", "missing", "expected"),
    [
        (["w-1", "w-2", "w-3"], [], (0, 0, 0)),
        (["w-1", "w-2"], [], (0, 0, 0)),  # w-3 was not acknowledged
        (["w-1"], [], (1, 0, 0)),
        (["w-1"], ["stream: it does not answer"], (0, 0, 0)),
        (["w-1", "w-2", "w-2"], ["stream: it does not answer"], (0, 1, 0)),
        (["w-2", "w-1"], [], (0, 0, 1)),
        (["w-1", "w-2", "w-4"], [], (1, 0, 0)),  # a hole, though nobody knows of its acknowledgement
    ],
)
def test_reads(ids: list[str], missing: list[str], expected: tuple[int, int, int]) -> None:
    """A read has what was acknowledged before it began, each once and in order, unless it says what lacks."""
    verdict = judge_read(SESSION, {"w-1", "w-2"}, ids, missing)
    assert (len(verdict.lacks), len(verdict.twice), len(verdict.disorder)) == expected
    good = Verdict(SESSION, 1, 1, [], [], [], [])
    assert bool(check_reads([good, verdict])) == any(expected)


def test_reads_that_never_work_are_a_violation() -> None:
    """If no read could be judged, nothing was shown."""
    assert kinds(check_reads([])) == {"read"}
    assert kinds(check_reads([judge_read(SESSION, {"w-1"}, [], ["stream: away"])])) == {"read"}


def test_ledgers_are_read_while_they_grow(tmp_path: Path) -> None:
    """A second look adds what came since; a last line that was cut short does not count yet."""
    ledger = Ledger(tmp_path / "a.jsonl")
    accounts = Accounts(tmp_path)
    assert accounts.update()[0].tries == {}
    tried = Try(1, SESSION, "STEP", 0)
    ledger.write(tried)
    with (tmp_path / "a.jsonl").open("ab") as file:
        file.write(msgspec.json.encode(Accepted(1, "w-1"))[:7])
    (found,) = accounts.update()
    assert (found.name, found.tries, found.ids, found.open_try) == ("a", {1: tried}, {}, tried)
    with (tmp_path / "a.jsonl").open("ab") as file:
        file.write(msgspec.json.encode(Accepted(1, "w-1"))[7:] + b"\n")
    (found,) = accounts.update()
    assert (found.ids, found.open_try) == ({1: "w-1"}, None)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", True),
        ('{"level": "info", "event": "lease_taken"}', True),
        ('{"level": "warning", "event": "lease_lost"}', True),
        ('{"level": "error", "event": "stop_incomplete"}', False),
        ('{"level": "warning", "event": "x", "exception": "Traceback …"}', False),
        ('{"level": "info", "eve', True),
        ("recovered 3 entries that a process left in spool k3v9", True),
        ("stream s: Connection was closed; 11 entries wait, trying again", True),
        ("Traceback (most recent call last):", False),
        ("Task exception was never retrieved", False),
        ("Fatal Python error: Aborted", False),
    ],
)
def test_lines_of_stderr(line: str, expected: bool) -> None:
    """A traceback, an error in a worker's log, and whatever nobody knows of is unexpected."""
    assert evidence.is_expected(line) is expected


@pytest.mark.anyio
async def test_a_record_behind_the_checkpoint_is_reported(tmp_path: Path) -> None:
    """A shard without a lease, or with records that no checkpoint covers, is not drained."""
    from streamjournal import wiring
    from streamjournal.core.clock import SYSTEM
    from streamjournal.leases.port import Lease
    from streamjournal.stream.port import PutRecord

    settings = Settings(home=str(tmp_path), shards=1)
    stream, leases = wiring.open_stream(settings, SYSTEM), wiring.open_leases(settings)
    await stream.put([PutRecord(SESSION, b"x")])
    (shard,) = await stream.shards()
    assert "no lease" in (await evidence.check_checkpoints(settings))[0].text
    await leases.create(Lease(shard.id))
    assert "TRIM_HORIZON" in (await evidence.check_checkpoints(settings))[0].text
    (row,) = await leases.rows()
    await leases.update(row, row.advanced("1"))
    assert await evidence.check_checkpoints(settings) == []
    await stream.aclose()
    await leases.aclose()
