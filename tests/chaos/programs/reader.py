"""Merged reads, again and again, each compared with what was acknowledged before it began.

    python -m tests.chaos.programs.reader NAME SEED FOLDER

FOLDER holds `ledgers`; a verdict a line goes to `reads/{NAME}.jsonl`.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

import msgspec

from streamjournal import Journal, StreamjournalError
from tests.chaos.checks import Verdict, judge_read
from tests.chaos.ledger import Account, Accounts, append_line
from tests.chaos.programs.tied import end_with_parent
from tests.chaos.sessions import LONG


def acknowledged(accounts: list[Account]) -> dict[str, set[str]]:
    """Session -> ids of entries that some emitter knows to be on the stream."""
    found: dict[str, set[str]] = {}
    for account in accounts:
        for k in account.acknowledged:
            found.setdefault(account.tries[k].session, set()).add(account.ids[k])
    return found


def one_read(journal: Journal, session: str, expected: set[str]) -> Verdict:
    """One read and what is wrong with it."""
    started = time.monotonic()
    read = journal.read(session)
    try:
        ids = [entry.id or "" for entry in read]
    except StreamjournalError as problem:
        verdict = judge_read(session, expected, [], missing=[str(problem)])
    else:
        verdict = judge_read(session, expected, ids, missing=[str(one) for one in read.missing])
    verdict.seconds = round(time.monotonic() - started, 3)
    return verdict


def main() -> None:
    """Read until killed: mostly with a journal that stays open, now and then with a new one."""
    name, seed, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    end_with_parent()
    rng = random.Random(seed)
    accounts = Accounts(folder / "ledgers")
    fd = os.open(
        folder / "reads" / f"{name}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600
    )
    kept = Journal()
    while True:
        known = acknowledged(accounts.update())
        if known:
            session = rng.choice([*LONG, rng.choice(sorted(known))])
            if rng.random() < 0.25:
                with Journal() as fresh:
                    verdict = one_read(fresh, session, known.get(session, set()))
            else:
                verdict = one_read(kept, session, known.get(session, set()))
            append_line(fd, msgspec.json.encode(verdict))
        time.sleep(rng.uniform(0.1, 0.6))


if __name__ == "__main__":
    main()
