"""A worker made of its parts: what the deployed process, the CLI and the demo all run."""

from __future__ import annotations

from collections.abc import Callable

from streamjournal.core.clock import Clock
from streamjournal.core.settings import Settings
from streamjournal.ingest.journal_sink import JournalSink
from streamjournal.ingest.sink import Budget
from streamjournal.ingest.stats import Stats
from streamjournal.ingest.trouble import Trouble
from streamjournal.ingest.worker import Worker
from streamjournal.leases.port import Leases
from streamjournal.store.commit import Committer
from streamjournal.store.port import Store
from streamjournal.stream.lineage import LineageCache
from streamjournal.stream.port import Stream


class WorkerService:
    """Runs a worker on given adapters, and closes them.

    Args:
        on_start: given the worker once it exists, to stop it by.
    """

    def __init__(
        self, stream: Stream, store: Store, leases: Leases, settings: Settings, clock: Clock
    ) -> None:
        self._stream = stream
        self._store = store
        self._leases = leases
        self._settings = settings
        self._clock = clock
        self.stats = Stats()
        self.trouble = Trouble(clock)

    async def run(self, *, drain: bool = False, on_start: Callable[[Worker], None] | None = None) -> None:
        """Run until the worker is stopped, or has drained.

        Raises:
            UnsafeStoreError: the store ignores conditional writes.
            UnavailableError, NotConfiguredError: only when draining.
        """
        settings, clock = self._settings, self._clock
        budget = Budget(settings.worker_bytes)
        sink = JournalSink(
            self._store,
            Committer(self._store, clock, LineageCache(self._stream, clock)),
            settings,
            clock,
            budget,
            self.stats,
            self.trouble,
            parallel=1 if settings.embedded else 16,
            stretch=0.0 if settings.embedded else 1.0,
        )
        worker = Worker(
            self._stream, self._leases, sink, settings, clock, budget, self.stats, self.trouble, drain=drain
        )
        if on_start is not None:
            on_start(worker)
        try:
            await worker.run()
        finally:
            await self._stream.aclose()
            await self._store.aclose()
            await self._leases.aclose()
