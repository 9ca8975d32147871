"""Ledgers: what an emitting thread did, written before and after each step, to be compared later.

One file for each thread of each emitter process, `{emitter}-{thread}.jsonl`, a line per event. A line
is one write into the page cache, which outlives the process; at most the last one is torn.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec


class Try(msgspec.Struct, tag="try"):
    """About to emit entry `k` of this ledger.

    Args:
        pad: characters of filling in its details.
    """

    k: int
    session: str
    event_type: str
    pad: int


class Accepted(msgspec.Struct, tag="accepted"):
    """`emit` has returned: the receipt's id."""

    k: int
    id: str


class Acknowledged(msgspec.Struct, tag="acknowledged"):
    """The receipts of these entries say that the stream has them."""

    ks: list[int]


class Dropped(msgspec.Struct, tag="dropped"):
    """`emit` gave no number, or the receipt an error: the entry must not be in the journal."""

    k: int
    why: str


_Line = Try | Accepted | Acknowledged | Dropped
_decoder = msgspec.json.Decoder(_Line)


class Ledger:
    """Writes one. Not to be shared between threads."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)

    def write(self, line: _Line) -> None:
        """To the operating system, before anything else happens."""
        append_line(self._fd, msgspec.json.encode(line))


@dataclass
class Account:
    """What a ledger says.

    Args:
        name: as the entries' details name it.
        tries, ids, dropped: by k.
    """

    name: str
    tries: dict[int, Try] = field(default_factory=dict)
    ids: dict[int, str] = field(default_factory=dict)
    acknowledged: set[int] = field(default_factory=set)
    dropped: dict[int, str] = field(default_factory=dict)

    def add(self, line: _Line) -> None:
        """Take one line in."""
        if isinstance(line, Try):
            self.tries[line.k] = line
        elif isinstance(line, Accepted):
            self.ids[line.k] = line.id
        elif isinstance(line, Acknowledged):
            self.acknowledged.update(line.ks)
        else:
            self.dropped[line.k] = line.why

    @property
    def open_try(self) -> Try | None:
        """The last try, if its outcome did not get into the ledger: the emitter was killed there."""
        last = self.tries.get(max(self.tries, default=0))
        return None if last is None or last.k in self.ids or last.k in self.dropped else last


class Accounts:
    """All ledgers of a folder; `update` reads what was added since."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offsets: dict[Path, int] = {}
        self._accounts: dict[Path, Account] = {}

    def update(self) -> list[Account]:
        """Every account as of now."""
        for path in sorted(self._folder.glob("*.jsonl")):
            account = self._accounts.setdefault(path, Account(path.stem))
            offset = self._offsets.get(path, 0)
            for line in whole_lines(path, offset):
                account.add(_decoder.decode(line))
                offset += len(line)
            self._offsets[path] = offset
        return list(self._accounts.values())


def append_line(fd: int, text: bytes) -> None:
    """One write; a rest, which only a full disk leaves, is an error."""
    if os.write(fd, text + b"\n") != len(text) + 1:
        raise OSError("a line was written in part only")


def whole_lines(path: Path, offset: int = 0) -> Iterator[bytes]:
    """The lines from an offset on, each with its newline; not the last one, if it was cut short."""
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if line.endswith(b"\n"):
                yield line
