"""Who waits until everything that was accepted before some moment is settled."""

from __future__ import annotations

from collections.abc import Callable


class Flushes:
    """Flushes under way. `add` from any thread, the rest from the sender's."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Callable[[], None]]] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, serial: int, done: Callable[[], None]) -> None:
        """Have `done` called once every entry up to `serial` is settled."""
        self._waiting.append((serial, done))

    def finish(self, oldest: int | None) -> None:
        """Call those that wait for entries before `oldest` only; None: nothing is pending at all."""
        for flush in list(self._waiting):
            serial, done = flush
            if oldest is None or oldest > serial:
                self._waiting.remove(flush)
                done()

    def give_up(self) -> None:
        """Call them all: nothing will be settled any more."""
        while self._waiting:
            _, done = self._waiting.pop()
            done()
