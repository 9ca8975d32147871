"""Which of each writer's numbers a journal holds: what makes a duplicate recognisable.

For each writer that is the highest n, and the gaps below it, should there be any (a record parked
as a dead letter, records trimmed before anyone read them). The map travels in the journal object's
metadata, so it has little room: when it runs out, the writers that were quiet longest leave it and
it is flagged incomplete. Whoever then meets a writer that is not in it must look into the body.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from operator import itemgetter
from typing import Final, NamedTuple

ROOM: Final = 1_000  # bytes of text; about 60 writers

Gap = tuple[int, int]  # first and last missing number


class Jump(NamedTuple):
    """A writer's number that came while those before it, `first` to `last`, had not come."""

    writer: str
    first: int
    last: int


class WriterNumbers:
    """Writer id -> the numbers of it that are held.

    Args:
        complete: whether every writer that ever wrote is in the map.

    Attributes:
        jumps: the gaps that were opened by `add` to this very object, oldest first; neither a copy nor
            the text has them. Whoever commits an entry after a jump tells of it once.
    """

    __slots__ = ("_gaps", "_highest", "complete", "jumps")

    def __init__(self, *, complete: bool = True) -> None:
        self._highest: dict[str, int] = {}  # kept with the writer heard last at the end
        self._gaps: dict[str, list[Gap]] = {}
        self.complete = complete
        self.jumps: list[Jump] = []

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WriterNumbers):
            return NotImplemented
        return (self._highest, self._gaps, self.complete) == (other._highest, other._gaps, other.complete)

    __hash__ = None  # type: ignore[assignment]  # it changes; it must not be a key

    def __repr__(self) -> str:
        return f"WriterNumbers({self.encode(room=10**9)!r})"

    def __contains__(self, writer: str) -> bool:
        return writer in self._highest

    def __len__(self) -> int:
        return len(self._highest)

    def writers(self) -> Iterable[str]:
        """The writers in the map, the one heard last at the end."""
        return self._highest.keys()

    def highest(self, writer: str) -> int:
        """The writer's highest number, 0 if it is not in the map."""
        return self._highest.get(writer, 0)

    def gaps(self, writer: str) -> list[Gap]:
        """The numbers missing below the highest."""
        return list(self._gaps.get(writer, ()))

    def has(self, writer: str, n: int) -> bool:
        """Whether number n of `writer` is held. Ask `knows` first if the map may be incomplete."""
        if n > self._highest.get(writer, 0):
            return False
        gaps = self._gaps.get(writer)
        return gaps is None or gap_at(gaps, n) is None

    def knows(self, writer: str) -> bool:
        """Whether `has` can be believed for this writer."""
        return self.complete or writer in self._highest

    def add(self, writer: str, n: int) -> bool:
        """Count number n in; False if it is held already."""
        highest = self._highest.get(writer, 0)
        if n == highest + 1:
            if next(reversed(self._highest), None) != writer:
                self._highest.pop(writer, None)  # to the end: it was heard last
            self._highest[writer] = n
            return True
        if n <= highest:
            return self._fill(writer, n)
        self._highest.pop(writer, None)
        self._highest[writer] = n
        self._gaps.setdefault(writer, []).append((highest + 1, n - 1))
        self.jumps.append(Jump(writer, highest + 1, n - 1))
        return True

    def begin_at(self, writer: str, n: int) -> None:
        """Count numbers 1 to n of a new writer in."""
        self._highest[writer] = n

    def touch(self, writer: str) -> None:
        """Count the writer as the one heard last, if it is in the map."""
        if writer in self._highest:
            self._highest[writer] = self._highest.pop(writer)

    def _fill(self, writer: str, n: int) -> bool:
        gaps = self._gaps.get(writer)
        i = gap_at(gaps, n) if gaps else None
        if gaps is None or i is None:
            return False
        first, last = gaps[i]
        gaps[i : i + 1] = [g for g in ((first, n - 1), (n + 1, last)) if g[0] <= g[1]]
        if not gaps:
            del self._gaps[writer]
        return True

    def copy(self) -> WriterNumbers:
        """An independent copy."""
        twin = WriterNumbers(complete=self.complete)
        twin._highest = dict(self._highest)
        twin._gaps = {writer: list(gaps) for writer, gaps in self._gaps.items()}
        return twin

    def encode(self, room: int = ROOM) -> str:
        """`writer:highest!gap.gap,…`, oldest writer first, ASCII, at most `room` bytes.

        A `+` in front says that writers had to be left out.
        """
        parts: list[str] = []
        used = 1
        for writer in reversed(self._highest):
            part = f"{writer}:{self._highest[writer]}"
            if gaps := self._gaps.get(writer):
                part += "!" + ".".join(f"{a}-{b}" if a != b else f"{a}" for a, b in gaps)
            used += len(part) + 1
            if used > room:
                break
            parts.append(part)
        complete = self.complete and len(parts) == len(self._highest)
        return ("" if complete else "+") + ",".join(reversed(parts))

    @classmethod
    def decode(cls, text: str) -> WriterNumbers:
        """The map that `encode` wrote.

        Raises:
            ValueError: it is none.
        """
        numbers = cls(complete=not text.startswith("+"))
        for part in filter(None, text.removeprefix("+").split(",")):
            writer, _, rest = part.partition(":")
            highest, _, gaps = rest.partition("!")
            numbers._highest[writer] = int(highest)
            for gap in filter(None, gaps.split(".")):
                first, dash, last = gap.partition("-")
                numbers._gaps.setdefault(writer, []).append((int(first), int(last if dash else first)))
        return numbers


def gap_at(gaps: list[Gap], n: int) -> int | None:
    """The index of the gap that a number is in; the gaps are in order, and there may be many."""
    i = bisect_right(gaps, n, key=itemgetter(0)) - 1
    return i if i >= 0 and n <= gaps[i][1] else None
