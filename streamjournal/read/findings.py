"""Findings as they are collected along a journal: neighbours joined, each kind bounded, texts at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from streamjournal.read.verification import Finding
from streamjournal.read.writer_audit import Place, WriterAudit

MOST: Final = 50  # of a kind, in detail: a journal that is all garbage must not fill the memory
_MOST_NAMED: Final = 5  # writers, in the text of one finding
_NO_DAMAGE: Final = frozenset(("entries_dropped", "no_metadata", "beyond"))

Range = tuple[WriterAudit, int, int]


class _Draft:
    """A finding, which may go on in the lines that follow."""

    __slots__ = ("at", "behind", "first", "kind", "last", "last_line", "ranges", "text", "writer")

    def __init__(self, kind: str, at: Place | None, text: str = "", ranges: Sequence[Range] = ()) -> None:
        self.kind = kind
        self.at = at
        self.last_line = at.line if at is not None else 0
        self.text = text
        self.ranges = ranges
        self.writer: str | None = None
        self.first = self.last = self.behind = 0


class Findings:
    """The findings of one journal.

    Attributes:
        left_out: how many were more than MOST of their kind.
        whole: whether none of them is damage.
    """

    def __init__(self) -> None:
        self._drafts: list[_Draft] = []
        self._of_kind: Counter[str] = Counter()
        self._dropped_at: Place | None = None
        self._latest: _Draft | None = None
        self.left_out = 0
        self.whole = True

    def add(self, kind: str, at: Place | None, text: str) -> None:
        """A line that is wrong by itself, or (without a place) something about the whole journal."""
        latest = self._latest
        if latest is not None and at is not None and latest.kind == kind and latest.last_line + 1 == at.line:
            latest.last_line = at.line
            return
        self._keep(_Draft(kind, at, text))

    def add_blob(self, at: Place, text: str) -> None:
        """A line whose blob is wrong; never joined with its neighbours, since each has a key of its own."""
        self._keep(_Draft("blob", at, text))

    def add_number(self, kind: str, at: Place, writer: str, n: int, behind: int) -> None:
        """A number of a writer that should not stand there, since the writer was at `behind`."""
        latest = self._latest
        if (
            latest is not None
            and (latest.kind, latest.writer, latest.last + 1) == (kind, writer, n)
            and latest.last_line + 1 == at.line
        ):
            latest.last, latest.last_line = n, at.line
            return
        draft = _Draft(kind, at)
        draft.writer, draft.first, draft.last, draft.behind = writer, n, n, behind
        self._keep(draft)

    def add_notice(self, kind: str, at: Place, ranges: Sequence[Range]) -> None:
        """A notice that tells of missing numbers."""
        self._keep(_Draft(kind, at, ranges=ranges))

    def note_dropped(self, at: Place) -> None:
        """A notice that entries were dropped; all of them are one finding."""
        self._dropped_at = self._dropped_at or at

    def _keep(self, draft: _Draft) -> None:
        self.whole = self.whole and draft.kind in _NO_DAMAGE
        self._latest = draft
        self._of_kind[draft.kind] += 1
        if self._of_kind[draft.kind] <= MOST:
            self._drafts.append(draft)
        else:
            self.left_out += 1

    def finish(self, writers: Iterable[WriterAudit], dropped: int) -> list[Finding]:
        """All of them, in the order of the journal; those about the whole journal come last."""
        for writer in writers:
            for gap in writer.gaps:
                if not gap.told:
                    self._keep(draft := _Draft("missing", gap.before))
                    draft.writer, draft.first, draft.last = writer.writer, gap.first, gap.last
            for told in (*writer.unfounded, *writer.told):
                self._keep(draft := _Draft("notice", told.at))
                draft.writer, draft.first, draft.last = writer.writer, told.first, told.last
        if self._dropped_at is not None:
            self._keep(_Draft("entries_dropped", self._dropped_at, f"{dropped:,}"))
        self._drafts.sort(key=lambda it: (it.at is None, it.at or Place(0, 0)))
        return [_finding(draft) for draft in self._drafts]


def _finding(draft: _Draft) -> Finding:
    writer, first, last = draft.writer, draft.first or None, draft.last or None
    if draft.kind == "entries_trimmed" and draft.ranges:
        audit, first, last = draft.ranges[0]
        writer = audit.writer
    return Finding(
        kind=draft.kind,
        damage=draft.kind not in _NO_DAMAGE,
        text=_text(draft),
        line=draft.at.line if draft.at is not None else None,
        byte=draft.at.byte if draft.at is not None else None,
        writer=writer,
        first=first,
        last=last,
    )


def _text(draft: _Draft) -> str:  # one flat list of sentences
    kind, at = draft.kind, draft.at
    if at is None:
        return draft.text
    where = _lines(at, draft.last_line)
    many = draft.last > draft.first
    ids = _ids(draft.writer or "", draft.first, draft.last)
    if kind == "not_an_entry":
        several = draft.last_line > at.line
        return f"{where} {'are no entries; the first' if several else 'is no entry'}: {draft.text}"
    if kind == "repeated":
        return f"{ids} {'are' if many else 'is'} there again, in {where}"
    if kind == "out_of_order":
        verb = "stand" if many else "stands"
        return f"{ids} {verb} behind {draft.writer}-{draft.behind}, in {where}: it came later"
    if kind == "missing":
        verb = "are" if many else "is"
        between = f" and after {draft.writer}-{draft.first - 1}" if draft.first > 1 else ""
        return f"{ids} {verb} missing, before {draft.writer}-{draft.last + 1} in {where}{between}"
    if kind == "notice":
        return f"the notice in {where} tells that {ids} did not come, and that is not so there"
    if kind == "entries_dropped":
        return (
            f"ENTRIES_DROPPED: {draft.text} entries were dropped before they got a number; "
            f"they leave no gap; first told of in {where}"
        )
    if kind == "entries_trimmed":
        return f"ENTRIES_TRIMMED in {where}: {_missing(draft.ranges)}"
    if kind == "journal_restarted":
        rest = f"; {_missing(draft.ranges)}" if draft.ranges else ""
        return f"JOURNAL_RESTARTED in {where}: the journal begins again there{rest}"
    return f"{where} {draft.text}"


def _missing(ranges: Sequence[Range]) -> str:
    """What became of the ranges that a notice tells of."""
    parts = []
    for writer, first, last in ranges[:_MOST_NAMED]:
        ids, entries, left = (
            _ids(writer.writer, first, last),
            last - first + 1,
            writer.missing_in(first, last),
        )
        verb = "is" if entries == 1 else "are"
        if left == entries:
            parts.append(f"{ids} {verb} missing")
        elif left:
            parts.append(f"of {ids}, {left:,} are missing still, the others came later")
        else:
            parts.append(f"{ids} came later")
    if len(ranges) > _MOST_NAMED:
        parts.append(f"and so on for {len(ranges) - _MOST_NAMED:,} more writers")
    return ", ".join(parts) or "it does not say which"


def _ids(writer: str, first: int, last: int) -> str:
    return f"{writer}-{first}" if first == last else f"{writer}-{first} to {writer}-{last}"


def _lines(at: Place, last_line: int) -> str:
    if last_line > at.line:
        return f"lines {at.line:,} to {last_line:,} (from byte {at.byte:,})"
    return f"line {at.line:,} (byte {at.byte:,})"
