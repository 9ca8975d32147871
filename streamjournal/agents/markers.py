"""Entries that sandboxed code prints on stdout, between marker lines.

    ===JOURNAL_ENTRY===
    {"event_type": "DATA_LOADED", "details": {"rows": 1000}}
    ===JOURNAL_END===

Code in a sandbox has no credentials for a stream; it has stdout. The host takes the blocks out of the
output and emits them itself, so it is the host that says which session and tool they belong to.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import msgspec

from streamjournal.core.entry import UNDECODABLE

BEGIN: Final = "===JOURNAL_ENTRY==="
END: Final = "===JOURNAL_END==="
_BLOCK: Final = re.compile(rf"{BEGIN}((?:(?!{BEGIN}).)*?){END}\r?\n?", re.DOTALL)  # no block holds another


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
    entries: list[dict[str, Any]] = []
    malformed: list[str] = []

    def take(match: re.Match[str]) -> str:
        try:
            entry = msgspec.json.decode(match[1].strip())
        except (*UNDECODABLE, UnicodeEncodeError) as problem:
            malformed.append(f"no JSON: {problem}")
            return match[0]
        if not isinstance(entry, dict):
            malformed.append("JSON, but no object")
            return match[0]
        entries.append(entry)
        return ""

    rest = _BLOCK.sub(take, output)
    unended = rest.count(BEGIN) - len(malformed)
    malformed += ["a block without its end"] * unended
    return Extracted(rest, entries, malformed)
