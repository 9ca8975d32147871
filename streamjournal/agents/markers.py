"""Entries that sandboxed code prints on stdout, between two markers.

    ===JOURNAL_ENTRY===
    {"event_type": "DATA_LOADED", "details": {"rows": 1000}}
    ===JOURNAL_END===

Code in a sandbox has no credentials for a stream; it has stdout. The host takes the blocks out of the
output as it comes, in chunks that may end anywhere, also within a marker or a character. What it gives
out is the input without the blocks, byte for byte, and the same for every way to cut it into chunks.

With a nonce the markers are `===JOURNAL_ENTRY:nonce===` and `===JOURNAL_END:nonce===`, and plain ones
are ordinary output: so data that happens to hold markers makes no entries.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any, Final, NamedTuple

import msgspec

from streamjournal.core.entry import UNDECODABLE

BEGIN: Final = "===JOURNAL_ENTRY==="
END: Final = "===JOURNAL_END==="
MAX_ENTRY_BYTES: Final = 256 * 1024  # between the markers
MAX_ENTRIES: Final = 10_000  # of one run; a loop that prints entries must not fill the journal
MAX_START_CHARS: Final = 80  # of a malformed block, that a report shows

UNTERMINATED: Final = "a block without its end"

_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
# What terminals take as a command: colours and the like (ECMA-48, 5.4). JSON cannot hold the escape.
_ANSI: Final = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])")


class Malformed(NamedTuple):
    """A block that is no entry, and was left in the output.

    Args:
        reason: why it is none.
        start: how it begins after its marker, at most MAX_START_CHARS.
    """

    reason: str
    start: str


class Parsed(NamedTuple):
    """What became of a chunk.

    Args:
        output: what is not part of a block; what may still become one is held back.
        entries: the JSON objects in the blocks that ended, in order.
        malformed: the blocks that are no entries.
    """

    output: bytes
    entries: list[dict[str, Any]]
    malformed: list[Malformed]


class Extracted(NamedTuple):
    """What was found in a whole output; see `Parsed`."""

    output: str
    entries: list[dict[str, Any]]
    malformed: list[Malformed]


def markers(nonce: str | None = None) -> tuple[str, str]:
    """The two markers, plain or with a nonce.

    Raises:
        ValueError: the nonce is not 1 to 64 letters, digits, `_` or `-`.
    """
    if nonce is None:
        return BEGIN, END
    if not _NONCE.fullmatch(nonce):
        raise ValueError(f"a nonce is 1 to 64 letters, digits, _ or -, not {nonce!r}")
    return f"===JOURNAL_ENTRY:{nonce}===", f"===JOURNAL_END:{nonce}==="


def extract(output: str, *, nonce: str | None = None) -> Extracted:
    """Take the blocks out of a program's whole output."""
    parser = MarkerParser(nonce, max_entries=sys.maxsize)
    body = parser.feed(output.encode("utf-8", "surrogatepass"))
    rest = parser.finish()
    text = (body.output + rest.output).decode("utf-8", "surrogatepass")
    return Extracted(text, body.entries + rest.entries, body.malformed + rest.malformed)


class MarkerParser:
    """Takes blocks out of an output that comes in chunks.

    A block is a begin marker, a JSON object of at most `max_entry_bytes`, and an end marker; on lines of
    their own, or amid other text. The newline after a block goes with it, if the block began a line or
    its end marker did. A begin inside a block makes the first one malformed.

    Args:
        nonce: what the markers must hold.
        max_entries: blocks beyond so many entries stay in the output; `beyond` counts them.
    """

    def __init__(
        self,
        nonce: str | None = None,
        *,
        max_entry_bytes: int = MAX_ENTRY_BYTES,
        max_entries: int = MAX_ENTRIES,
    ) -> None:
        begin, end = markers(nonce)
        self._begin, self._end = begin.encode(), end.encode()
        self._next_marker = re.compile(b"%b|%b" % (re.escape(self._begin), re.escape(self._end)))
        self._last_start = len(self._begin) + max_entry_bytes  # where a block's end may begin, at the latest
        self._max_entry_bytes = max_entry_bytes
        self._max_entries = max_entries
        self._held = bytearray()  # inside a block it begins with the block's begin marker
        self._inside = False
        self._searched = 0  # no marker begins before this place in what is held
        self._line_started = True  # what was given out ends a line
        self._drop_newline = False  # a newline that comes next belongs to the block before it
        self._taken = 0
        self.beyond = 0

    @property
    def holds(self) -> bool:
        """Whether something is held back that may become part of a block."""
        return bool(self._held)

    def feed(self, chunk: bytes) -> Parsed:
        """Take the next bytes of the output, of any length."""
        if not (self._held or self._drop_newline) and self._is_ordinary(chunk):
            if chunk:
                self._line_started = chunk.endswith(b"\n")
            return Parsed(chunk, [], [])
        self._held += chunk
        return self._advance(last=False)

    def finish(self) -> Parsed:
        """Say that the output has ended: gives out what was held back, and tells of a block without end."""
        return self._advance(last=True)

    def _is_ordinary(self, chunk: bytes) -> bool:
        return chunk.find(self._begin) < 0 and not _prefix_at_end(chunk, self._begin)

    def _advance(self, *, last: bool) -> Parsed:
        parsed, output = Parsed(b"", [], []), bytearray()
        while self._step_inside(parsed, output, last) if self._inside else self._step_outside(output, last):
            pass
        return parsed._replace(output=bytes(output))

    def _step_outside(self, output: bytearray, last: bool) -> bool:  # noqa: FBT001
        """Look for a begin; False if more bytes are needed to go on."""
        held = self._held
        if self._drop_newline and not self._newline_dropped(last):
            return False
        begin = held.find(self._begin)
        if begin < 0:
            self._give(output, len(held) - (0 if last else _prefix_at_end(held, self._begin)))
            return False
        self._give(output, begin)
        self._inside, self._searched = True, len(self._begin)
        return True

    def _step_inside(self, parsed: Parsed, output: bytearray, last: bool) -> bool:  # noqa: FBT001
        """Look for a block's end; False if more bytes are needed to go on."""
        held = self._held
        start, is_end = self._find_marker()
        if start < 0:
            if not last and len(held) < self._last_start + len(self._begin):
                self._searched = max(len(self._begin), len(held) - len(self._begin) + 1)
                return False
            too_long = len(held) > self._last_start
            reason = f"longer than {self._max_entry_bytes} bytes" if too_long else UNTERMINATED
            parsed.malformed.append(self._told(reason, min(len(held), self._last_start)))
            self._inside = False
            self._give(output, len(self._begin))
        elif is_end:
            self._inside = False
            self._end_block(parsed, output, start)
        else:
            parsed.malformed.append(self._told(UNTERMINATED, start))
            self._give(output, start)
            self._searched = len(self._begin)
        return True

    def _find_marker(self) -> tuple[int, bool]:
        """Where the next marker begins, -1 if none does where it may, and whether it is an end."""
        found = self._next_marker.search(self._held, self._searched, self._last_start + len(self._begin))
        if found is None or found.start() > self._last_start:
            return -1, False
        return found.start(), found[0] == self._end

    def _end_block(self, parsed: Parsed, output: bytearray, end: int) -> None:
        """Take the block that ends at `end`, or leave it in the output."""
        after = end + len(self._end)
        if self._taken >= self._max_entries:
            self.beyond += 1
            self._give(output, after)
            return
        body = bytes(self._held[len(self._begin) : end])
        if b"\x1b" in body:
            body = _ANSI.sub(b"", body)
        try:
            entry = _decode(body)
        except ValueError as problem:
            parsed.malformed.append(self._told(str(problem), end))
            self._give(output, after)
            return
        self._taken += 1
        parsed.entries.append(entry)
        self._drop_newline = self._line_started or body.rstrip(b" \t").endswith(b"\n")
        del self._held[:after]

    def _newline_dropped(self, last: bool) -> bool:  # noqa: FBT001
        """Drop the newline after a block, if there is one; False if that cannot be told yet."""
        held = self._held
        if not last and (not held or held == b"\r"):
            return False
        self._drop_newline = False
        newline = next((one for one in (b"\n", b"\r\n") if held.startswith(one)), b"")
        del held[: len(newline)]
        return True

    def _give(self, output: bytearray, count: int) -> None:
        """Move the first bytes of what is held to the output."""
        if count:
            output += self._held[:count]
            self._line_started = output.endswith(b"\n")
            del self._held[:count]

    def _told(self, reason: str, end: int) -> Malformed:
        start = bytes(self._held[len(self._begin) : min(end, len(self._begin) + 4 * MAX_START_CHARS)])
        return Malformed(reason, start.decode("utf-8", "replace").strip()[:MAX_START_CHARS])


def _decode(body: bytes) -> dict[str, Any]:
    """The object in a block; ValueError says why there is none."""
    try:
        entry = msgspec.json.decode(body)
    except UNDECODABLE:
        # Python's json.dumps writes NaN, Infinity and halves of surrogate pairs, which are no JSON
        try:
            entry = json.loads(body.decode())
        except (ValueError, RecursionError) as problem:
            raise ValueError(f"no JSON: {problem}") from None
    if not isinstance(entry, dict):
        raise ValueError("JSON, but no object")
    return entry


def _prefix_at_end(data: bytes | bytearray, marker: bytes) -> int:
    """How many bytes at the end of the data are the longest beginning of a marker, short of all of it."""
    tail = data[-(len(marker) - 1) :]
    at = tail.find(b"=")  # a marker's first byte: nearly all output ends without one
    while at >= 0:
        if marker.startswith(tail[at:]):
            return len(tail) - at
        at = tail.find(b"=", at + 1)
    return 0
