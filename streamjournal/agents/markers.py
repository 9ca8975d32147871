"""Entries that sandboxed code prints on stdout, between marker lines.

    ===JOURNAL_ENTRY===
    {"event_type": "DATA_LOADED", "details": {"rows": 1000}}
    ===JOURNAL_END===

Code in a sandbox has no credentials for a stream; it has stdout. The host takes the blocks out of the
output and emits them itself, so it is the host that says which session and tool they belong to.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from streamjournal.core.entry import UNDECODABLE

BEGIN: Final = "===JOURNAL_ENTRY==="
END: Final = "===JOURNAL_END==="


class Extracted(NamedTuple):
    """What was found in an output.

    Args:
        output: the rest of it; blocks that are no entries are left in it, as they were.
        entries: the JSON objects in the blocks, in order.
        malformed: the reason for each block that is none.
    """

    output: str
    entries: list[dict[str, Any]]
    malformed: list[str]


def extract(output: str) -> Extracted:
    """Take the journal blocks out of a program's whole output."""
    rest: list[str] = []
    entries: list[dict[str, Any]] = []
    malformed: list[str] = []
    done = 0
    while (begin := output.find(BEGIN, done)) >= 0:
        text = begin + len(BEGIN)
        end = output.find(END, text, _or_end(output.find(BEGIN, text), output))  # no block holds another
        after = text if end < 0 else _after_newline(output, end + len(END))
        try:
            entries.append(_entry(output[text:end] if end >= 0 else None))
        except ValueError as problem:
            malformed.append(str(problem))
            rest.append(output[done:after])
        else:
            rest.append(output[done:begin])
        done = after
    return Extracted("".join(rest) + output[done:], entries, malformed)


def _entry(text: str | None) -> dict[str, Any]:
    """The object in a block; ValueError says why there is none."""
    if text is None:
        raise ValueError("a block without its end")
    try:
        entry = msgspec.json.decode(text.strip())
    except (*UNDECODABLE, UnicodeEncodeError) as problem:
        raise ValueError(f"no JSON: {problem}") from None
    if not isinstance(entry, dict):
        raise ValueError("JSON, but no object")
    return entry


def _or_end(found: int, output: str) -> int:
    return len(output) if found < 0 else found


def _after_newline(output: str, place: int) -> int:
    """The place after a line's end, if one is here: the markers' own lines go with them."""
    for newline in ("\r\n", "\n"):
        if output.startswith(newline, place):
            return place + len(newline)
    return place
