"""Reading a large journal: its last entries, and all of it; embedded, through the public client.

The journals are written through the store in large blocks, with the metadata that a worker would
have left, and read from the page cache. Each reading happens in a fresh process, so that its peak
memory is its own. Floors: the same bytes read and decoded by a script that knows the file's name.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from statistics import median
from typing import NamedTuple

import anyio
import msgspec

from scripts.bench import entries, measure, report
from streamjournal import Journal
from streamjournal.core.numbers import WriterNumbers
from streamjournal.core.position import Position
from streamjournal.core.summary import Summary
from streamjournal.store.files import FilesStore
from streamjournal.store.meta import Meta
from streamjournal.store.names import journal_key
from streamjournal.store.port import Head

_MB = 10**6
_BLOCK = 16 * _MB
_LAST = 20
_WRITER = "k3v9q2m8x1"
_STEP = 65_536  # bytes from the end that the floor reads; the package begins with as many


class Last(NamedTuple):
    """Reading the last entries: milliseconds, bytes read, entries."""

    ms: float
    size: int | None
    entries: int


class Full(NamedTuple):
    """Reading everything: seconds, entries, and MiB that the peak memory rose by."""

    seconds: float
    entries: int
    peak_mib: float


def main() -> None:
    options = report.parser("read", __doc__.partition("\n")[0], rounds=7)
    options.add_argument(
        "--last-mb", type=_sizes, default=[1, 100, 1000], help="journals, default 1,100,1000"
    )
    options.add_argument("--full-mb", type=_sizes, default=[10, 100], help="journals, default 10,100")
    arguments = options.parse_args()
    said = report.Report("read", arguments, rounds=arguments.rounds, cache="warm")
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        for size in {*arguments.last_mb, *arguments.full_mb}:
            measure.in_process(write, home, size, arguments.file, arguments.limit)
        said.table(
            f"last {_LAST} entries",
            last_rows(home, arguments.last_mb, arguments.rounds),
            note="must not grow",
        )
        said.table(
            "everything",
            full_rows(home, arguments.full_mb, arguments.rounds),
            note="peak memory must not grow",
        )


def last_rows(home: Path, sizes: Sequence[int], rounds: int) -> list[report.Row]:
    """A row per journal and way of reading; medians of rounds in which each has its turn."""
    rows: list[report.Row] = []
    for size in sizes:
        results = measure.in_process(read_last, home, size, rounds)
        floor = median([it.ms for it in results["script"]])
        for name, runs in results.items():
            ms = median([it.ms for it in runs])
            rows.append(
                {
                    "journal": f"{size:,} MB, {name}",
                    "ms": ms,
                    "x script": ms / floor,
                    "bytes read": runs[-1].size,
                    "entries": runs[-1].entries,
                }
            )
    return rows


def full_rows(home: Path, sizes: Sequence[int], rounds: int) -> list[report.Row]:
    """A row per journal and way of reading."""
    rows: list[report.Row] = []
    for size in sizes:
        cases: dict[str, Callable[[], Full]] = {
            "script": lambda size=size: measure.in_process(script_all, home, size),  # type: ignore[misc]
            "merged read": lambda size=size: measure.in_process(read_all, home, size),  # type: ignore[misc]
        }
        results = measure.in_rounds(cases, rounds)
        floor = median([it.seconds for it in results["script"]])
        for name, runs in results.items():
            seconds = median([it.seconds for it in runs])
            rows.append(
                {
                    "journal": f"{size:,} MB, {name}",
                    "MB/s": size / seconds,
                    "entries/s": runs[0].entries / seconds,
                    "time x script": seconds / floor,
                    "peak memory, MiB more": median([it.peak_mib for it in runs]),
                }
            )
    return rows


def write(home: Path, megabytes: int, file: Path | None, limit: int | None) -> None:
    """In a process of its own: a journal of about so many megabytes."""
    blocks = _blocks(_lines(file, limit, session_of(megabytes)), megabytes * _MB)

    async def append() -> None:
        store = FilesStore(home)
        head: Head | None = None
        numbers = WriterNumbers()
        n = 0  # lines so far, which is also the writer's last number
        for number, lines in enumerate(blocks, start=1):
            n += lines.count(b"\n")
            for i in range(numbers.highest(_WRITER) + 1, n + 1):
                numbers.add(_WRITER, i)
            meta = Meta(
                generation="g1",
                commit=f"c{number}",
                position=Position("0" * 16, "shardId-000000000000", str(number)),
                writers=numbers,
                summary=Summary(n, 0, "2026-11-22T13:12:01Z", "2026-11-22T13:12:02Z"),
            )
            head = await store.append(session_of(megabytes), head, lines, meta)
        await store.aclose()

    anyio.run(append)


def session_of(megabytes: int) -> str:
    """The session whose journal has that size."""
    return f"session-of-{megabytes}-MB"


def _lines(file: Path | None, limit: int | None, session_id: str) -> Iterator[bytes]:
    """The data's entries over and over, as lines of one session and one writer."""
    samples = entries.load(file, limit=limit).entries
    encode = msgspec.json.Encoder().encode
    for n in count(1):
        it = samples[n % len(samples)]
        fields = {
            "id": f"{_WRITER}-{n}",
            "timestamp": "2026-11-22T13:12:01.123456Z",
            "session_id": session_id,
            "event_type": it.event_type,
            "tool_name": it.tool_name,
            "level": it.level,
            "details": it.details,
        }
        yield encode(fields) + b"\n"


def _blocks(lines: Iterator[bytes], size: int) -> Iterator[bytes]:
    total = 0
    while total < size:
        block: list[bytes] = []
        held = 0
        while held < _BLOCK and total < size:
            line = next(lines)
            block.append(line)
            held += len(line)
            total += len(line)
        yield b"".join(block)


def read_last(home: Path, megabytes: int, rounds: int) -> dict[str, list[Last]]:
    """In a process of its own: the package and the script take turns; the first turn warms up."""
    with Journal(home=home) as journal:
        cases: dict[str, Callable[[], Last]] = {
            "script": lambda: _last(lambda: _tail_of(_path(home, megabytes))),
            "merged read": lambda: _last(lambda: len(journal.read(session_of(megabytes), last=_LAST).all())),
        }
        for case in cases.values():
            case()
        return measure.in_rounds(cases, rounds)


def _last(read: Callable[[], int]) -> Last:
    before = _bytes_read()
    begin = time.perf_counter()
    found = read()
    ms = (time.perf_counter() - begin) * 1000
    after = _bytes_read()
    return Last(ms, None if before is None or after is None else after - before, found)


def _tail_of(file: Path) -> int:
    """The least that can be done: one read at the end, twenty lines decoded."""
    with file.open("rb", buffering=0) as journal:
        journal.seek(max(0, journal.seek(0, os.SEEK_END) - _STEP))
        lines = journal.read().split(b"\n")[-_LAST - 1 : -1]
    return len([msgspec.json.decode(line) for line in lines])


def _bytes_read() -> int | None:
    """What this process has read by system calls so far; only Linux says."""
    counters = Path("/proc/self/io")
    if not counters.exists():
        return None
    text = counters.read_bytes()
    return int(text.partition(b"rchar: ")[2].split()[0]) - len(text)


def read_all(home: Path, megabytes: int) -> Full:
    """In a process of its own: a merged read, entry by entry."""
    with Journal(home=home) as journal:
        before = _peak_mib()
        begin = time.perf_counter()
        read = journal.read(session_of(megabytes))
        found = sum(len(block) for block in read.blocks())
        seconds = time.perf_counter() - begin
        if not read.complete:
            raise RuntimeError(f"the read is not complete: {read.missing}")
        return Full(seconds, found, _peak_mib() - before)


def script_all(home: Path, megabytes: int) -> Full:
    """In a process of its own: each line of the file, decoded."""
    decode = msgspec.json.Decoder().decode
    before = _peak_mib()
    begin = time.perf_counter()
    found = 0
    with _path(home, megabytes).open("rb") as journal:
        for line in journal:
            decode(line)
            found += 1
    return Full(time.perf_counter() - begin, found, _peak_mib() - before)


def _path(home: Path, megabytes: int) -> Path:
    return home / journal_key("journals/", session_of(megabytes))


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _sizes(text: str) -> list[int]:
    return [int(size) for size in text.split(",")]


if __name__ == "__main__":
    main()
