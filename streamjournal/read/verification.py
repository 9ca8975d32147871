"""What a check of a journal found: values for a program, with a text for a person in each finding."""

from __future__ import annotations

from typing import Literal

import msgspec

Where = Literal["journal", "stream", "nowhere"]
WriterState = Literal["complete", "no interior gap", "gaps"]
ChecksumState = Literal["agrees", "differs", "none"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a check has to say of a journal.

    Args:
        kind: one of

            ======================  ==================================================================
            `not_an_entry`          a line that is no entry, or lines
            `other_session`         an entry of ours that belongs to another session
            `blob`                  an entry's blob is missing, or not the one that was put
            `torn`                  the last line lacks its newline: bytes were cut off
            `missing`               numbers of a writer that are not there, and that no notice tells of
            `repeated`              numbers that are there again
            `out_of_order`          numbers that stand behind later ones of their writer
            `entries_trimmed`       the notice ENTRIES_TRIMMED
            `journal_restarted`     the notice JOURNAL_RESTARTED
            `notice`                a notice that tells of numbers that are not missing there
            `entries_dropped`       the notices ENTRIES_DROPPED, all in one; no damage
            `checksum`              the body is not the one that was committed
            `summary`, `writers`,   what the metadata says of it is not so
            `position`
            `metadata`              the metadata cannot be read
            `no_metadata`           there is none; no damage
            `beyond`                bytes after the committed ones; no damage
            `not_in_its_journal`    the session is on the stream only; no damage
            `nowhere`               there is no such session
            ======================  ==================================================================

        damage: whether the journal is not whole because of it.
        text: what, and where, for a person.
        line: of the journal, from 1; None if it is not about one.
        byte: offset at which that line begins.
        writer, first, last: the numbers that it is about.
    """

    kind: str
    damage: bool
    text: str
    line: int | None = None
    byte: int | None = None
    writer: str | None = None
    first: int | None = None
    last: int | None = None


class WriterCheck(msgspec.Struct, frozen=True):
    """One writer's entries in a journal.

    Args:
        writer: its id.
        entries: how many different ones are there.
        highest: the highest number.
        missing: (first, last) of each range below it that is not there.
        state: `complete` if its SESSION_END is its last entry, which carries its count; without that,
            entries after its highest number would not be missed: `no interior gap`; or `gaps`.
    """

    writer: str
    entries: int
    highest: int
    missing: list[tuple[int, int]]
    state: WriterState


class Verification(msgspec.Struct, frozen=True):
    """What a check of a session's journal found.

    Args:
        whole: nothing is missing, doubled, out of order or changed, as far as can be told.
        where: `journal`; `stream` if no worker has written one yet; `nowhere`.
        entries: lines.
        unnumbered: of them, those without a number of ours: other producers', an older tool's, notices.
        dropped: entries that writers dropped before they got a number, as ENTRIES_DROPPED says.
        bytes: of the body.
        checksum: `none` if the metadata has none.
        findings: in the order of the journal; those about all of it come last.
        left_out: further findings, beyond the first of them.
    """

    session_id: str
    whole: bool
    where: Where
    entries: int = 0
    unnumbered: int = 0
    dropped: int = 0
    bytes: int = 0
    checksum: ChecksumState = "none"
    writers: list[WriterCheck] = []
    findings: list[Finding] = []
    left_out: int = 0


def without_journal(session_id: str, *, on_stream: bool) -> Verification:
    """Of a session that has no journal."""
    if on_stream:
        kind, text = (
            "not_in_its_journal",
            "it is not in its journal yet; a worker brings it there",
        )
    else:
        kind, text = "nowhere", "there is no such session: no journal, and nothing on the stream"
    finding = Finding(kind=kind, damage=not on_stream, text=text)
    return Verification(session_id, on_stream, "stream" if on_stream else "nowhere", findings=[finding])
