"""One writer's numbers as they go by in a journal: what is missing, doubled, out of order, and told of."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from streamjournal.read.verification import WriterCheck, WriterState


class Place(NamedTuple):
    """A line of a journal: its number, from 1, and the offset of its first byte."""

    line: int
    byte: int


class Gap:
    """Numbers that are missing.

    Args:
        before: the line of the entry that came instead.
        told: whether a notice right there tells of them.
    """

    __slots__ = ("before", "first", "last", "told")

    def __init__(self, first: int, last: int, before: Place, *, told: bool) -> None:
        self.first = first
        self.last = last
        self.before = before
        self.told = told


class Told(NamedTuple):
    """A range that a notice says is missing."""

    first: int
    last: int
    at: Place


class WriterAudit:
    """A writer's numbers so far.

    Attributes:
        told: what notices said is missing before its next entry.
        unfounded: what notices said, and was not so.
        ended: whether its last entry is SESSION_END.
    """

    __slots__ = ("ended", "entries", "gaps", "highest", "prefix", "told", "unfounded", "writer")

    def __init__(self, writer: str) -> None:
        self.writer = writer
        self.prefix = f"{writer}-"
        self.highest = 0
        self.entries = 0
        self.ended = False
        self.gaps: list[Gap] = []
        self.told: list[Told] = []
        self.unfounded: list[Told] = []

    def tell(self, first: int, last: int, at: Place) -> None:
        """A notice says that a range is missing before the entry that follows."""
        self.told.append(Told(first, last, at))

    def jump(self, n: int, before: Place) -> None:
        """Number n comes next, and some before it have not come."""
        first = self.highest + 1
        for told in sorted(self.told):
            if not first <= told.first <= told.last < n:
                self.unfounded.append(told)
                continue
            if told.first > first:
                self.gaps.append(Gap(first, told.first - 1, before, told=False))
            self.gaps.append(Gap(told.first, told.last, before, told=True))
            first = told.last + 1
        if first < n:
            self.gaps.append(Gap(first, n - 1, before, told=False))
        self.told.clear()
        self.highest = n
        self.entries += 1

    def fill(self, n: int) -> Gap | None:
        """A number below the highest comes: the gap that it was missing in; None if it is there already."""
        i = bisect_right(self.gaps, n, key=_first) - 1
        gap = self.gaps[i] if i >= 0 else None
        if gap is None or n > gap.last:
            return None
        parts = ((gap.first, n - 1), (n + 1, gap.last))
        self.gaps[i : i + 1] = [Gap(a, b, gap.before, told=gap.told) for a, b in parts if a <= b]
        self.entries += 1
        return gap

    def missing_in(self, first: int, last: int) -> int:
        """How many of a range are missing still."""
        return sum(max(0, min(gap.last, last) - max(gap.first, first) + 1) for gap in self.gaps)

    def missing(self) -> list[tuple[int, int]]:
        """The ranges that are missing; neighbours joined."""
        return joined((gap.first, gap.last) for gap in self.gaps)

    def check(self) -> WriterCheck:
        """The result."""
        missing = self.missing()
        state: WriterState = "gaps" if missing else "complete" if self.ended else "no interior gap"
        return WriterCheck(self.writer, self.entries, self.highest, missing, state)


def joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges in order, with neighbours made one."""
    found: list[tuple[int, int]] = []
    for first, last in ranges:
        if found and found[-1][1] + 1 == first:
            found[-1] = (found[-1][0], last)
        else:
            found.append((first, last))
    return found


def _first(gap: Gap) -> int:
    return gap.first
