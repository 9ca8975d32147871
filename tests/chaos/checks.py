"""The net: what ledgers, journals, tails and reads say, compared. Pure functions over what was found.

==================  ================================================================================
violation           what it means
==================  ================================================================================
lost                accepted (or even acknowledged), and not in its journal
doubled             more than once in its journal
reordered           a writer's number stands after a higher one
gap                 a writer's numbers do not run 1, 2, 3, …
invented            in a journal, and nobody tried to emit it there; or dropped and there all the same
broken              a journal's line is no entry
altered             in its journal with another content than it was emitted with
notice              the system says that it lost or restarted something
tail                a tail missed an entry, repeated one, or gave it in another order
read                a merged read lacked what was acknowledged before, or gave an entry twice
==================  ================================================================================

An entry without an outcome in its ledger is allowed if it is the last that the thread tried: the
emitter was killed between the call and its line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from tests.chaos.ledger import Account

_SHOWN = 5  # examples in a text


class Violation(NamedTuple):
    """A promise that was not kept.

    Args:
        kind: one word, see above.
        entries: how many it concerns, where that makes sense.
    """

    kind: str
    text: str
    entries: int = 1


class Verdict(msgspec.Struct):
    """What became of one merged read.

    Args:
        expected: entries acknowledged before it began.
        missing: what the read itself says that it could not give; then `lacks` is empty.
    """

    session: str
    expected: int
    got: int
    missing: list[str]
    lacks: list[str]
    twice: list[str]
    disorder: list[str]
    seconds: float = 0.0


Entry = Mapping[str, Any]
Journals = Mapping[str, Sequence[Entry]]
Key = tuple[str, str]  # session, id


def check_journals(accounts: Iterable[Account], journals: Journals) -> list[Violation]:
    """Every entry against every ledger, in both directions."""
    by_name = {account.name: account for account in accounts}
    found: list[Violation] = []
    for session, entries in journals.items():
        ids = [str(entry.get("id")) for entry in entries]
        found += _doubled(session, ids)
        found += _out_of_order(session, ids)
        for entry in entries:
            found += _unaccounted(session, entry, by_name)
    held = {session: {entry.get("id") for entry in entries} for session, entries in journals.items()}
    for account in by_name.values():
        found += _lost(account, held)
    return found


def _doubled(session: str, ids: Sequence[str]) -> Iterator[Violation]:
    twice = [one for one, count in Counter(ids).items() if count > 1]
    if twice:
        yield Violation("doubled", f"journal {session!r}: {_some(twice)}", len(twice))


def _out_of_order(session: str, ids: Iterable[str]) -> Iterator[Violation]:
    """Per writer: a number after a higher one, and numbers that are not there at all."""
    for writer, numbers in by_writer(ids).items():
        late = descents(numbers)
        if late:
            yield Violation("reordered", f"journal {session!r}, writer {writer}: {_some(late)}", len(late))
        gaps = sorted(set(range(1, max(numbers) + 1)) - set(numbers))
        if gaps:
            yield Violation("gap", f"journal {session!r}, writer {writer}: no {_some(gaps)}", len(gaps))


def _unaccounted(session: str, entry: Entry, by_name: Mapping[str, Account]) -> Iterator[Violation]:
    what = f"journal {session!r}: {entry.get('id')}"
    if entry.get("source") == "journal":
        yield Violation("notice", f"{what}: {entry.get('event_type')} {entry.get('details')}")
        return
    details = entry.get("details") or {}
    account = by_name.get(details.get("ledger", ""))
    tried = account.tries.get(details.get("k", 0)) if account is not None else None
    if account is None or tried is None or tried.session != session:
        yield Violation("invented", f"{what}: no ledger has it ({str(entry)[:200]})")
        return
    known = account.ids.get(tried.k)
    if tried.k in account.dropped:
        yield Violation("invented", f"{what}: was refused ({account.dropped[tried.k]})")
    elif known is None and tried is not account.open_try:
        yield Violation("invented", f"{what}: entry {tried.k} of {account.name} has no outcome")
    elif known is not None and known != entry.get("id"):
        yield Violation("invented", f"{what}: entry {tried.k} of {account.name} was accepted as {known}")
    if (entry.get("event_type"), details.get("pad")) != (tried.event_type, "x" * tried.pad):
        yield Violation("altered", f"{what}: was {tried}, is {str(entry)[:200]}")


def _lost(account: Account, held: Mapping[str, set[Any]]) -> Iterator[Violation]:
    gone = [
        k
        for k, id_ in account.ids.items()
        if k not in account.dropped and id_ not in held.get(account.tries[k].session, ())
    ]
    for degree, ks in (
        ("acknowledged", [k for k in gone if k in account.acknowledged]),
        ("accepted", [k for k in gone if k not in account.acknowledged]),
    ):
        if ks:
            names = [f"{account.ids[k]} in {account.tries[k].session!r}" for k in ks]
            yield Violation("lost", f"{degree} by {account.name}: {_some(names)}", len(ks))


def check_tail(
    name: str, session: str | None, lives: Sequence[Sequence[Key]], journals: Journals
) -> list[Violation]:
    """What a tail gave out over all its lives, against the journals at the end.

    Args:
        session: None for a tail of all sessions; one that resumes may give again what a writer sent
            twice (docs/guarantees.md), so there only one life must not repeat an entry.
    """
    given = [key for life in lives for key in life]
    there = [(s, str(e.get("id"))) for s in ([session] if session else journals) for e in journals.get(s, ())]
    found = [
        Violation("tail", f"{name} missed {_some(gone)}", len(gone))
        if (gone := _minus(there, given))
        else None
    ]
    if strange := _minus(given, there):
        found.append(Violation("tail", f"{name} gave what no journal has: {_some(strange)}", len(strange)))
    for part in [given] if session else lives:
        twice = [key for key, count in Counter(part).items() if count > 1]
        found += [Violation("tail", f"{name} repeated {_some(twice)}", len(twice))] if twice else []
    first = list(dict.fromkeys(given))
    for one in {s for s, _ in given}:
        for writer, numbers in by_writer(id_ for s, id_ in first if s == one).items():
            if late := descents(numbers):
                found.append(
                    Violation("tail", f"{name} reordered {one!r} {writer}: {_some(late)}", len(late))
                )
    if session and not any(found) and given != there:
        found.append(Violation("tail", f"{name} gave the writers' entries mixed otherwise than the journal"))
    return [one for one in found if one is not None]


def judge_read(session: str, expected: set[str], ids: Sequence[str], missing: Sequence[str]) -> Verdict:
    """A merged read against what was acknowledged before it began."""
    lacks = [] if missing else sorted(expected.difference(ids))
    twice = [one for one, count in Counter(ids).items() if count > 1]
    disorder = [f"{writer}-{n}" for writer, numbers in by_writer(ids).items() for n in descents(numbers)]
    if not missing:
        for writer, numbers in by_writer(ids).items():
            lacks += [f"{writer}-{n}" for n in set(range(1, max(numbers))) - set(numbers)]
    return Verdict(session, len(expected), len(ids), list(missing), sorted(set(lacks)), twice, disorder)


def check_reads(verdicts: Sequence[Verdict]) -> list[Violation]:
    """The reads that were not as promised; and that there were any that could be judged."""
    found = [
        Violation("read", f"of {v.session!r} {word} {_some(ids)}", len(ids))
        for v in verdicts
        for word, ids in (("lacked", v.lacks), ("repeated", v.twice), ("reordered", v.disorder))
        if ids
    ]
    if not any(v.expected and not v.missing for v in verdicts):
        reasons = sorted({reason for v in verdicts for reason in v.missing})
        found.append(Violation("read", f"none of {len(verdicts)} reads was complete: {_some(reasons)}"))
    return found


def by_writer(ids: Iterable[str]) -> dict[str, list[int]]:
    """Each writer's numbers in the order in which they stand."""
    found: dict[str, list[int]] = {}
    for one in ids:
        writer, _, number = one.rpartition("-")
        found.setdefault(writer, []).append(int(number) if number.isdigit() else 0)
    return found


def descents(numbers: Sequence[int]) -> list[int]:
    """The numbers that stand after a higher one."""
    highest = 0
    late = []
    for n in numbers:
        if n < highest:
            late.append(n)
        highest = max(highest, n)
    return late


def _minus(a: Iterable[Key], b: Iterable[Key]) -> list[Key]:
    there = set(b)
    return [key for key in a if key not in there]


def _some(things: Sequence[Any]) -> str:
    shown = ", ".join(str(one) for one in things[:_SHOWN])
    return shown if len(things) <= _SHOWN else f"{shown}, … ({len(things)})"
