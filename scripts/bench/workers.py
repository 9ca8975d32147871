"""Workers side by side: how soon shards go on when their worker is killed or stopped, how long a
backlog takes, and what idle leases cost.

The first two start real worker processes: embedded, or, where STREAMJOURNAL_STREAM is set, on that
stream. The third runs in virtual time, and counts.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import anyio
import structlog

from scripts.bench import entries, idle_leases, measure, report
from streamjournal import Journal, wiring
from streamjournal.core.clock import SYSTEM
from streamjournal.core.position import SHARD_END
from streamjournal.core.settings import load

_SHARDS = 16
_PATIENCE = 180.0  # seconds, after which what should happen counts as not happening
_SETTLE = 3.0  # seconds between two faults, so that renewals are at any stage


def main() -> None:
    options = report.parser("workers", __doc__.partition("\n\n")[0], rounds=5)
    options.add_argument("--only", choices=("takeover", "backlog", "idle"))
    options.add_argument("--entries", type=int, default=1_000_000, help="of the backlog; default %(default)s")
    options.add_argument("--workers", type=_numbers, default=[1, 2, 4], help="on the backlog; default 1,2,4")
    arguments = options.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    settings = load()
    said = report.Report(
        "workers",
        arguments,
        backend=settings.stream or "embedded",
        lease_seconds=settings.lease_seconds,
        rounds=arguments.rounds,
    )
    if arguments.only in (None, "takeover"):
        said.table("takeover: two workers, one gets a signal", takeover_rows(arguments.rounds))
    if arguments.only in (None, "backlog"):
        title = f"backlog of {arguments.entries:,} entries, {_SHARDS} shards, embedded"
        said.table(title, backlog_rows(arguments))
    if arguments.only in (None, "idle"):
        said.table("idle leases, an hour of virtual time", idle_leases.rows(settings.lease_seconds))


def takeover_rows(rounds: int) -> list[report.Row]:
    """Seconds from a signal until the other worker has every shard, a row per signal."""
    with embedded_home(shards=_SHARDS):
        if not load().embedded:
            return _takeovers(rounds)
        anyio.run(_make_stream)
        return _takeovers(rounds)


def _takeovers(rounds: int) -> list[report.Row]:
    seconds: dict[str, list[float]] = {"SIGKILL": [], "SIGTERM": []}
    running = [start_worker()]
    try:
        for _ in range(rounds):
            for name, taken in seconds.items():
                running.append(start_worker())
                _until(lambda: len(_holders()) == 2 and _difference() <= 1)
                time.sleep(_SETTLE)
                shards = _holders().total()
                leaving = running.pop(0)
                began = time.monotonic()
                leaving.send_signal(signal.Signals[name])
                _until(lambda shards=shards: len(_holders()) == 1 and _holders().total() == shards)
                taken.append(time.monotonic() - began)
                leaving.wait()
    finally:
        for worker in running:
            worker.kill()
            worker.wait()
    return [
        {"signal": name, "s (median)": median(taken), "s (longest)": max(taken)}
        for name, taken in seconds.items()
    ]


def backlog_rows(arguments: Namespace) -> list[report.Row]:
    """Seconds until a backlog is in its journals, a row per number of workers; each on a copy of it."""
    results: dict[int, list[float]] = {count: [] for count in arguments.workers}
    with tempfile.TemporaryDirectory() as folder:
        full = Path(folder, "full")
        measure.in_process(fill, full, arguments.file, arguments.limit, arguments.entries)
        for _ in range(arguments.rounds):
            for count, seconds in results.items():
                home = Path(folder, "home")
                shutil.copytree(full, home)
                seconds.append(_drain(home, count, arguments.entries))
                shutil.rmtree(home)
    first = median(results[arguments.workers[0]])
    return [
        {
            "workers": str(count),
            "s (median)": median(seconds),
            "entries/s": arguments.entries / median(seconds),
            "x first": first / median(seconds),
        }
        for count, seconds in results.items()
    ]


def fill(home: Path, file: Path | None, limit: int | None, count: int) -> None:
    """In a process of its own: put so many entries on an embedded stream."""
    samples = entries.load(file, limit=limit).entries
    with Journal(home=home, shards=_SHARDS, overflow="block", block_timeout=600.0) as journal:
        for n in range(count):
            it = samples[n % len(samples)]
            journal.emit(
                it.event_type,
                session_id=it.session_id,
                tool_name=it.tool_name,
                details=it.details,
                level=it.level,
            )
        delivery = journal.flush(600.0)
    if delivery.acknowledged != count:
        raise RuntimeError(f"{delivery.acknowledged} of {count} entries are on the stream")


def _drain(home: Path, workers: int, count: int) -> float:
    """From the start of the processes, their imports included, to the last entry in its journal."""
    os.environ["STREAMJOURNAL_HOME"] = str(home)
    began = time.monotonic()
    running = [start_worker() for _ in range(workers)]
    try:
        _until(lambda: anyio.run(_entries_in_journals) >= count, every=0.25)
        return time.monotonic() - began
    finally:
        for worker in running:
            worker.terminate()
            worker.wait()
        del os.environ["STREAMJOURNAL_HOME"]


async def _entries_in_journals() -> int:
    store = wiring.open_store(load(), SYSTEM)
    heads = [await store.head_named(listed.name) async for listed in store.journals()]
    await store.aclose()
    return sum(head.meta.summary.entries for head in heads if head is not None and head.meta is not None)


@contextmanager
def embedded_home(*, shards: int) -> Iterator[None]:
    """A home of its own for the processes that are started meanwhile."""
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"STREAMJOURNAL_HOME": home, "STREAMJOURNAL_SHARDS": str(shards)}
        yield
        del os.environ["STREAMJOURNAL_HOME"], os.environ["STREAMJOURNAL_SHARDS"]


async def _make_stream() -> None:
    stream = wiring.open_stream(load(), SYSTEM)
    await stream.shards()
    await stream.aclose()


def start_worker() -> subprocess.Popen[bytes]:
    """A worker process, as a user starts it."""
    return subprocess.Popen([sys.executable, "-m", "streamjournal", "worker"], stderr=subprocess.DEVNULL)


def _holders() -> Counter[str]:
    """How many shards each worker works on; a dead one counts until another has taken them."""

    async def rows() -> Counter[str]:
        leases = wiring.open_leases(load())
        found = await leases.rows()
        await leases.aclose()
        return Counter(row.holder for row in found if row.holder and row.checkpoint != SHARD_END)

    return anyio.run(rows)


def _difference() -> int:
    counts = _holders().values()
    return max(counts) - min(counts)


def _until(condition: Callable[[], bool], *, every: float = 0.02) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"it did not happen within {_PATIENCE:g} s")
        time.sleep(every)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
