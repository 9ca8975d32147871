"""`scripts/sim`: many seeds on all cores, or one with its trace."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from tests.sim.plan import KINDS
from tests.sim.world import run_world

_CHUNK = 5  # seeds that a process takes at once
_INTERRUPTED = 130

#: What the summary counts, and by which kinds.
_COUNTED = {
    "entries": ("entries",),
    "reads": ("reads",),
    "kills": ("emitter killed", "worker killed"),
    "pauses": ("emitter paused", "worker paused"),
    "reshards": ("split", "merge"),
    "late effects": ("put: late", "append: late", "leases: late"),
    "races": ("raced",),
    "recovered spools": ("spool recovered",),
    "deletions": ("journal deleted", "lease row deleted"),
    "trims": ("trim", "parent expired"),
    "all faults": KINDS,
}


class Result(NamedTuple):
    """What one seed came to."""

    seed: int
    violation: str | None
    counts: Counter[str]


def run_one(seed: int) -> Result:
    """One world."""
    trace = run_world(seed)
    return Result(seed, None if trace.violation is None else str(trace.violation), trace.counts)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; gives its exit code."""
    options = _parse(arguments)
    if options.seed is not None:
        return _replay(options.seed, trace=options.trace)
    return _run_many(range(options.start, options.start + options.seeds))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/sim",
        description="Simulates the whole pipeline under faults that a seed decides, in virtual time. "
        "Exit code 0: every invariant held; 1: a violation; 2: wrong arguments.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seeds", type=_count, metavar="N", help="how many seeds to run (default 200)")
    which.add_argument("--seed", type=_seed, metavar="S", help="run this one only")
    parser.add_argument("--from", type=_seed, dest="start", metavar="S", help="the first seed (default 0)")
    parser.add_argument("--trace", action="store_true", help="with --seed: print all that happens")
    options = parser.parse_args(arguments)
    if options.trace and options.seed is None:
        parser.error("--trace needs --seed S, the seed to print")
    if options.start is not None and options.seed is not None:
        parser.error("--from goes with --seeds N; --seed S runs one seed only")
    options.seeds = 200 if options.seeds is None else options.seeds
    options.start = options.start or 0
    return options


def _count(text: str) -> int:
    number = _seed(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least one seed is needed")
    return number


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def _replay(seed: int, *, trace: bool) -> int:
    run = run_world(seed)
    if trace:
        sys.stdout.write("".join(f"{line}\n" for line in run.lines if not line.startswith("VIOLATION")))
    if run.violation is None:
        print(f"sim: seed {seed}, no violation")
        return 0
    print(f"sim: seed {seed}: {run.violation}")
    return 1


def _run_many(seeds: range) -> int:
    """All of them, in as many processes as there are cores; the last line is the summary."""
    began = time.monotonic()
    counts: Counter[str] = Counter()
    done, failed, interrupted = 0, 0, False
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with (
        multiprocessing.get_context("spawn").Pool(os.cpu_count(), _ignore_interrupt) as pool,
        Progress(*columns, console=Console(stderr=True)) as progress,
    ):
        bar = progress.add_task("seeds", total=len(seeds))
        try:
            for result in pool.imap_unordered(run_one, seeds, chunksize=_CHUNK):
                done += 1
                counts += result.counts
                if result.violation is not None:
                    failed += 1
                    print(f"seed {result.seed}: {result.violation}")
                    print(f"  replay it: scripts/sim --seed {result.seed} --trace", flush=True)
                progress.advance(bar)
        except KeyboardInterrupt:
            interrupted = True
    print(_summary(seeds, done, failed, time.monotonic() - began, counts, interrupted=interrupted))
    if failed:
        return 1
    return _INTERRUPTED if interrupted else 0


def _ignore_interrupt() -> None:
    """Ctrl-C reaches every process of the terminal; only the first one is to decide what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _summary(
    seeds: range, done: int, failed: int, seconds: float, counts: Counter[str], *, interrupted: bool
) -> str:
    counted = ", ".join(f"{sum(counts[k] for k in kinds):,} {name}" for name, kinds in _COUNTED.items())
    which = f"{done:,} of {len(seeds):,} seeds from {seeds[0]}"
    speed = f"{seconds:.0f} s, {1000 * seconds / max(1, done):.0f} s per 1,000 seeds"
    stopped = " (interrupted)" if interrupted else ""
    return f"sim: {which}{stopped}: {failed} violations; {speed}; {counted}"


if __name__ == "__main__":
    sys.exit(main())
