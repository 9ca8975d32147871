"""Measuring on a machine that others use too: rounds in which every case has its turn, and medians.

A case and its floor run within milliseconds of each other, again and again. So a slow minute of the
machine slows both, and their ratio says more than either figure.
"""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self, TypeVar

T = TypeVar("T")


class Spent(NamedTuple):
    """What a piece of work took.

    Args:
        cpu: seconds of processor time, the kernel's part included.
        wall: seconds.
    """

    cpu: float
    wall: float


class Stopwatch:
    """`with Stopwatch() as watch: …`, then `watch.spent`; used again, it adds up.

    Args:
        cpu: the clock of processor time: the process's, or `time.thread_time` for the thread's alone.
    """

    def __init__(self, cpu: Callable[[], float] = time.process_time) -> None:
        self._clock = cpu
        self.spent = Spent(0.0, 0.0)

    def __enter__(self) -> Self:
        self._cpu, self._wall = self._clock(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        wall = time.perf_counter() - self._wall
        self.spent = Spent(self.spent.cpu + self._clock() - self._cpu, self.spent.wall + wall)


def in_rounds(cases: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Run every case once per round, each round beginning with another one."""
    results: dict[str, list[T]] = {name: [] for name in cases}
    names = list(cases)
    for round_ in range(rounds):
        first = round_ % len(names)
        for name in names[first:] + names[:first]:
            gc.collect()  # what the case before left behind is not this one's cost
            results[name].append(cases[name]())
    return results


def in_process(call: Callable[..., T], *arguments: Any) -> T:
    """The result of a call in a fresh process, which has no memory or threads of ours."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(call, arguments)
