"""The entries to measure with: real ones where there are any, else made on the spot.

Figures depend on what entries look like (most are short, a few very long), so real ones come first.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec

from streamjournal.core.clock import format_timestamp, parse_timestamp

VARIABLE = "STREAMJOURNAL_BENCH_DATA"
_USUAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "entries.jsonl.gz"
_START_NS = 1_795_000_000 * 10**9  # of the made entries; any moment would do
_SESSIONS = 100


class Sample(NamedTuple):
    """One entry, as an agent has it before it emits.

    Args:
        seconds: since the first entry of its session.
    """

    event_type: str
    session_id: str
    tool_name: str | None
    details: dict[str, Any]
    level: str
    seconds: float


class Samples(NamedTuple):
    """Entries, and where they come from, for the report."""

    entries: list[Sample]
    source: str


class _Line(msgspec.Struct):
    timestamp: str
    session_id: str
    event_type: str
    tool_name: str | None = None
    level: str = "INFO"
    details: dict[str, Any] = {}


def load(file: Path | None = None, *, limit: int | None = None) -> Samples:
    """The first `limit` entries of a file, or of the usual data, or made ones.

    Raises:
        OSError: the file that was asked for cannot be read.
        msgspec.DecodeError: it holds a line that is no entry.
    """
    file = file or _usual_file()
    lines = _made_lines(limit or 20_000) if file is None else _lines_of(file)
    decode = msgspec.json.Decoder(_Line).decode
    started: dict[str, float] = {}
    entries: list[Sample] = []
    for line in lines:
        it = decode(line)
        moment = parse_timestamp(it.timestamp)
        now = 0.0 if moment is None else moment.timestamp()
        since = now - started.setdefault(it.session_id, now)
        entries.append(
            Sample(it.event_type, it.session_id, it.tool_name, it.details, it.level, max(0.0, since))
        )
        if len(entries) == limit:
            break
    return Samples(entries, "made on the spot" if file is None else file.name)


def _usual_file() -> Path | None:
    if named := os.environ.get(VARIABLE):
        return Path(named)
    return _USUAL if _USUAL.exists() else None


def _lines_of(file: Path) -> Iterator[bytes]:
    opener = gzip.open if file.suffix == ".gz" else open
    with opener(file, "rb") as lines:
        yield from (line for line in lines if line.strip())


def _made_lines(count: int) -> Iterator[bytes]:
    """Entries of about 610 bytes on average: most of some 300, one in fifty of 16 KB."""
    rng = Random(1)
    for n in range(count):
        words = 430 if n % 50 == 0 else 3
        text = " ".join(rng.randbytes(18).hex() for _ in range(words))
        yield msgspec.json.encode(
            _Line(
                timestamp=format_timestamp(_START_NS + n // _SESSIONS * 600_000_000),
                session_id=f"made/session-{n % _SESSIONS}",
                event_type=("TOOL_START", "SANDBOX_PRINT", "TOOL_END")[n % 3],
                tool_name="run_python",
                details={"call_id": f"c{n:06d}", "output": text},
            )
        )
