"""Entries from emit to journal, embedded: what a producer and a worker make of a core.

Each side runs in a fresh process, beside the straight-line script of the same steps. Imports and the
decoding of the data are not timed. CPU is the whole process's, the kernel's part included; entries/s
are given per second of CPU (a core's worth) and by the clock.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from argparse import Namespace
from pathlib import Path
from statistics import median
from typing import NamedTuple

import anyio
import structlog

from scripts.bench import entries, measure, report, straight
from scripts.bench.entries import Sample
from scripts.bench.measure import Spent, Stopwatch
from streamjournal import Journal, wiring
from streamjournal.core.clock import SYSTEM
from streamjournal.core.settings import load
from streamjournal.ingest.service import WorkerService

_MIB = 2**20
SIDES = {
    "producer": ("straight-line producer", "producer: emit, spool, send"),
    "worker": ("straight-line worker", "worker: read, commit, checkpoint"),
}


class Done(NamedTuple):
    """What one side did: how long it took, entries, and bytes of their lines."""

    spent: Spent
    entries: int
    size: int


def main() -> None:
    options = report.parser("pipeline", __doc__.partition("\n")[0], rounds=5)
    options.add_argument("--copies", type=int, default=10, help="how often the data is repeated")
    arguments = options.parse_args()
    samples, source = entries.load(arguments.file, limit=arguments.limit)
    said = report.Report(
        "pipeline",
        arguments,
        data=f"{source}, {len(samples)} entries x {arguments.copies}",
        rounds=arguments.rounds,
    )
    del samples
    results: dict[str, list[Done]] = {name: [] for names in SIDES.values() for name in names}
    for _ in range(arguments.rounds):
        for name, done in one_round(arguments).items():
            results[name].append(done)
    for side, names in SIDES.items():
        said.table(
            side, rows_of({name: results[name] for name in names}), note="aim: ≥ 150,000 entries per CPU s"
        )


def one_round(arguments: Namespace) -> dict[str, Done]:
    """Both producers, then both workers, on what the producers wrote."""
    what = (arguments.file, arguments.limit, arguments.copies)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        done = {
            SIDES["producer"][0]: measure.in_process(straight_producer, folder, *what),
            SIDES["producer"][1]: measure.in_process(producer, folder / "home", *what),
            SIDES["worker"][0]: measure.in_process(straight_worker, folder),
            SIDES["worker"][1]: measure.in_process(worker, folder / "home"),
        }
        _check(done, folder)
    return done


def _check(done: dict[str, Done], folder: Path) -> None:
    """A measurement of work that was not done is none."""
    counts = {name: it.entries for name, it in done.items()}
    if len(set(counts.values())) != 1:
        raise RuntimeError(f"entries went missing or came twice: {counts}")
    lines = sum(journal.read_bytes().count(b"\n") for journal in (folder / "home").rglob("journal.jsonl"))
    if lines != next(iter(counts.values())):
        raise RuntimeError(f"the journals have {lines} lines; {counts}")


def rows_of(results: dict[str, list[Done]]) -> list[report.Row]:
    """A row per case; the first is the floor."""
    floor = next(iter(results.values()))
    rows: list[report.Row] = []
    for name, runs in results.items():
        count, size = runs[0].entries, runs[0].size
        cpu = median([run.spent.cpu for run in runs])
        wall = median([run.spent.wall for run in runs])
        ratios = [run.spent.cpu / base.spent.cpu for run, base in zip(runs, floor, strict=True)]
        rows.append(
            {
                "case": name,
                "CPU µs/entry": cpu * 1e6 / count,
                "entries per CPU s": count / cpu,
                "entries/s": count / wall,
                "MB/s": size / wall / 1e6,
                "CPU x straight": median(ratios),
            }
        )
    return rows


def straight_producer(folder: Path, file: Path | None, limit: int | None, copies: int) -> Done:
    """In a process of its own: entries into an SQLite file."""
    samples = repeated(file, limit, copies)
    with Stopwatch() as watch:
        size = straight.produce(samples, folder / "straight.db")
    return Done(watch.spent, len(samples), size)


def producer(home: Path, file: Path | None, limit: int | None, copies: int) -> Done:
    """In a process of its own: emit everything, and wait until the stream has it."""
    samples = repeated(file, limit, copies)
    journal = Journal(home=home, overflow="block", block_timeout=600.0)
    emit = journal.emit
    with Stopwatch() as watch:
        for event_type, session_id, tool_name, details, level, _ in samples:
            emit(event_type, session_id=session_id, tool_name=tool_name, details=details, level=level)
        delivery = journal.flush(600.0)
    size = journal.background.emitter.accepted_bytes
    journal.close()
    return Done(watch.spent, delivery.acknowledged, size)


def straight_worker(folder: Path) -> Done:
    """In a process of its own: from the SQLite file into files."""
    with Stopwatch() as watch:
        written = straight.consume(folder / "straight.db", folder / "straight")
    size = sum(file.stat().st_size for file in (folder / "straight").iterdir())
    shutil.rmtree(folder / "straight")
    return Done(watch.spent, written, size)


def worker(home: Path) -> Done:
    """In a process of its own: a worker that drains the stream."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    settings = load({}, home=home)
    service = WorkerService(
        wiring.open_stream(settings, SYSTEM),
        wiring.open_store(settings, SYSTEM),
        wiring.open_leases(settings),
        settings,
        SYSTEM,
    )

    async def drain() -> None:
        await service.run(drain=True)

    with Stopwatch() as watch:
        anyio.run(drain)
    return Done(watch.spent, service.stats.entries, service.stats.bytes)


def repeated(file: Path | None, limit: int | None, copies: int) -> list[Sample]:
    """The data, `copies` times over: the same sessions go on."""
    return entries.load(file, limit=limit).entries * copies


if __name__ == "__main__":
    main()
