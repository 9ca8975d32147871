"""An agent: threads that emit into shared sessions, each with a ledger, until SIGTERM or worse.

python -m tests.chaos.programs.emitter NAME SEED FOLDER PAUSE
"""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from pathlib import Path

from streamjournal import Journal, Receipt, StreamjournalError
from tests.chaos.ledger import Accepted, Acknowledged, Dropped, Ledger, Try
from tests.chaos.programs.tied import end_with_parent
from tests.chaos.sessions import sessions_now

THREADS = 2
CLOSE_SECONDS = 20.0
LARGE = 1_100_000  # characters: more than a record holds, so the details become a blob


class Agent:
    """One thread's work."""

    def __init__(self, journal: Journal, ledger: Ledger, seed: str, pause: float) -> None:
        self._journal = journal
        self._ledger = ledger
        self._rng = random.Random(seed)
        self._pause = pause
        self._k = 0
        self._waiting: dict[int, Receipt] = {}

    def run(self, stopping: threading.Event) -> None:
        """Bursts of entries into one session after another."""
        while not stopping.is_set():
            session = self._rng.choice(sessions_now(time.time()))
            for _ in range(self._rng.randint(1, 12)):
                self._emit(session)
            if self._rng.random() < 0.3:
                self._wait_for_last()
            self.settle()
            stopping.wait(self._rng.uniform(0.0, 2 * self._pause))

    def _emit(self, session: str) -> None:
        rng = self._rng
        self._k = k = self._k + 1
        event_type = "SESSION_END" if rng.random() < 0.01 else rng.choice(("STEP", "TOOL_START", "NOTE"))
        pad = LARGE if rng.random() < 0.001 else int(rng.expovariate(1 / 80))
        self._ledger.write(Try(k, session, event_type, pad))
        receipt = self._journal.emit(
            event_type, session_id=session, details=details(self._ledger.name, k, pad)
        )
        if receipt.id is None:
            self._ledger.write(Dropped(k, "no number"))
            return
        self._ledger.write(Accepted(k, receipt.id))
        self._waiting[k] = receipt

    def _wait_for_last(self) -> None:
        if self._waiting:
            try:
                self._waiting[self._k].result(timeout=5.0)
            except (TimeoutError, KeyError, StreamjournalError):
                return  # not acknowledged yet, or it was before; `settle` writes down what became of it

    def settle(self) -> None:
        """Write down which receipts have come to their end."""
        done = [k for k, receipt in self._waiting.items() if receipt.done]
        good = [k for k in done if self._waiting[k].position is not None]
        if good:
            self._ledger.write(Acknowledged(good))
        for k in done:
            receipt = self._waiting.pop(k)
            if receipt.position is None:
                self._ledger.write(Dropped(k, str(receipt.error)))


def details(ledger: str, k: int, pad: int) -> dict[str, object]:
    """What an entry says, so that it can be told whose it is, and whether it is whole."""
    return {"ledger": ledger, "k": k, "pad": "x" * pad}


def main() -> int:
    """Emit until told to stop; then send what is pending. Gives 1 if something stayed pending."""
    name, seed, folder, pause = sys.argv[1:]
    end_with_parent()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    journal = Journal()
    agents = [
        Agent(journal, Ledger(Path(folder) / f"{name}-{i}.jsonl"), f"{seed}-{i}", float(pause))
        for i in range(THREADS)
    ]
    threads = [threading.Thread(target=agent.run, args=(stopping,)) for agent in agents]
    for thread in threads:
        thread.start()
    while not stopping.wait(0.1):  # a signal that another thread gets does not wake a wait without end
        pass
    for thread in threads:
        thread.join()
    pending = journal.close(CLOSE_SECONDS).pending
    for agent in agents:
        agent.settle()
    return 1 if pending else 0


if __name__ == "__main__":
    sys.exit(main())
