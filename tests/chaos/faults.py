"""The harm done to a cast: one fault after another, each drawn from a seeded chance."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter

from tests.chaos.backends import Backend
from tests.chaos.cast import Cast, Process

# what, to whom, how often
_PLAN: tuple[tuple[str, str, int], ...] = (
    ("kill", "emitter", 30),
    ("kill", "worker", 30),
    ("kill", "tail", 20),
    ("kill", "reader", 2),
    ("stop", "worker", 12),
    ("stop", "emitter", 8),
    ("stop", "tail", 3),
    ("term", "worker", 8),
    ("term", "emitter", 3),
    ("reshard", "", 8),
    ("forget", "", 3),
)
_MAX_STOPPED = 2  # at a time, so that something goes on
_AT_BIRTH = 0.1  # the chance of who does not work yet; the others are spared, or all would die in imports
_DRAWS = 5  # until somebody is found to whom it can be done
_KILLED_ASLEEP = 0.2  # of the stopped, so many die instead of waking up


class Faults:
    """Draws and does them; `done` counts each by its name."""

    def __init__(self, cast: Cast, backend: Backend, rng: random.Random, pause: float) -> None:
        self._cast = cast
        self._backend = backend
        self._rng = rng
        self._pause = pause
        self._next = time.monotonic() + pause
        self.done: Counter[str] = Counter()
        self.log: list[str] = []
        self._started = time.monotonic()

    def tick(self) -> None:
        """Do what is due by now."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._rng.uniform(0.2, 1.8) * self._pause
        if not any(self._try_one() for _ in range(_DRAWS)):
            self.note("nobody to do harm to")

    def _try_one(self) -> bool:
        """Draw a fault; False if it cannot be done to anybody now."""
        before = self.done.total()
        what, kind, _ = self._rng.choices(_PLAN, [weight for *_, weight in _PLAN])[0]
        if not kind:
            backend = self._backend
            for one in backend.reshard(self._rng) if what == "reshard" else backend.forget(self._rng):
                self._note(what, one)
        else:
            victims = [p for p in self._cast.alive(kind) if p.works or self._rng.random() < _AT_BIRTH]
            if victims:
                getattr(self, f"_{what}")(self._rng.choice(victims))
        return self.done.total() > before

    def _kill(self, process: Process) -> None:
        process.send(signal.SIGKILL)
        self._note("kill", process.name)

    def _term(self, process: Process) -> None:
        if process.stopped_until is None and not process.sent:
            process.send(signal.SIGTERM)
            self._note("term", process.name)

    def _stop(self, process: Process) -> None:
        stopped = [p for p in self._cast.all if p.alive and p.stopped_until is not None]
        if len(stopped) >= _MAX_STOPPED or process in stopped or process.sent:
            return
        seconds = self._rng.uniform(0.1, 2.5 * self._backend.lease_seconds)
        process.send(signal.SIGSTOP)
        process.stopped_until = time.monotonic() + seconds
        self._note("stop", f"{process.name} for {seconds:.1f} s")

    def wake(self) -> None:
        """The end of all stops: SIGCONT, or death for some."""
        for process in self._cast.all:
            if process.alive and process.stopped_until is not None:
                if self._rng.random() < _KILLED_ASLEEP:
                    self._kill(process)
                else:
                    self._cast.resume(process)

    def note(self, text: str) -> None:
        """A line of the log, with the seconds since the start."""
        self.log.append(f"{time.monotonic() - self._started:8.3f} {text}")

    def _note(self, what: str, text: str) -> None:
        self.done[what] += 1
        self.note(f"{what} {text}")
