"""Keeps a fork away from calls into SQLite, and SQLite's state away from the child.

A lock that another thread holds inside the C library at the moment of a fork is locked for ever in
the child; SQLite takes one for every allocation. So `inside()` counts the calls in flight, and a fork
(`os.fork`, multiprocessing) waits for them, keeps new ones out, and lets each file close what it has
open (`stream.sqlite_file` says why).
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

_LONGEST_WAIT: Final = 5.0  # seconds; a fork must not hang for good behind somebody's locked file


class _Closable(Protocol):
    def close_idle(self) -> None:
        """Close what no call uses."""


class _Gate:
    def __init__(self) -> None:
        self._calls = 0
        self._changed = threading.Condition(threading.Lock())
        self._held = False

    def enter(self) -> None:
        with self._changed:
            self._calls += 1

    def leave(self) -> None:
        with self._changed:
            self._calls -= 1
            self._changed.notify_all()

    def hold(self) -> None:
        """Before a fork: nobody is inside or comes in, and nothing is open."""
        self._held = self._changed.acquire(timeout=_LONGEST_WAIT)
        if self._held and self._changed.wait_for(lambda: not self._calls, _LONGEST_WAIT):
            for file in list(_files):
                file.close_idle()

    def release(self) -> None:
        """After the fork, in the parent."""
        if self._held:
            self._held = False
            self._changed.release()


_files: Final[weakref.WeakSet[_Closable]] = weakref.WeakSet()
_gate = _Gate()


@contextmanager
def inside() -> Iterator[None]:
    """Around every call into SQLite."""
    gate = _gate
    gate.enter()
    try:
        yield
    finally:
        gate.leave()


def close_before_fork(file: _Closable) -> None:
    """Have `file.close_idle()` called before each fork, as long as `file` lives."""
    _files.add(file)


def _hold() -> None:
    _gate.hold()


def _release() -> None:
    _gate.release()


def _renew() -> None:
    """In the child, where no other thread exists: nobody is inside."""
    global _gate  # noqa: PLW0603 - the one value that a fork replaces
    _gate = _Gate()


os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_renew)
