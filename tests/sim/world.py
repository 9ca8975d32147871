"""A whole pipeline under faults that one seed decides: emitters with spools, senders, stream, workers with
leases, store, readers and tails, and operators around them.

Safety is checked at each step: at every commit, every checkpoint, every line that a reader gets. Once
the emitters have ended the faults stop, and what is left has to drain.
"""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Awaitable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from unittest import mock

import structlog
import trio

from streamjournal.core.clock import Clock
from streamjournal.core.errors import StreamjournalError
from streamjournal.emit import spool
from streamjournal.store import meta
from streamjournal.stream.port import Shard
from tests.sim.checked import CheckedLeases, CheckedStore, CheckedStream
from tests.sim.emitting import Emitting, put_plain
from tests.sim.ending import end
from tests.sim.host import Host
from tests.sim.journals import Journals
from tests.sim.ledger import Ledger
from tests.sim.network import Network
from tests.sim.operating import keep_away, keep_operating, keep_recovering, tails_of
from tests.sim.plan import Plan, draw_plan
from tests.sim.reading import keep_reading, keep_tailing
from tests.sim.services import RemoteLeases, RemoteStore, RemoteStream, Services
from tests.sim.trace import Trace, Violation
from tests.sim.virtual import run_virtual, virtual_clock
from tests.sim.working import Working, keep_working

_LIMIT = 100_000.0  # virtual seconds after which a run counts as stuck


class World:
    """One run.

    Attributes:
        hosts: the processes that live.
        over: nobody is started again.
    """

    def __init__(self, seed: int, plan: Plan, trace: Trace, spools: Path) -> None:
        self.plan = plan
        self.trace = trace
        self.spools = spools
        self.spool_order: dict[str, int] = {}
        self.rng = Random(seed)
        self.network = Network(plan, self.rng, trace)
        self.hosts: list[Host] = []
        self.workers: list[Working] = []
        self.over = False
        self.deletions: Counter[str] = Counter()
        self.closed_at: dict[str, float] = {}
        clock = Clock(time_ns=virtual_clock().time_ns, monotonic=virtual_clock().monotonic, rng=self.rng)
        self.ledger = Ledger(trace)
        self.journals = Journals(self.ledger, trace)
        self.stream = CheckedStream(
            self.ledger,
            trace,
            self.journals,
            shards=plan.shards,
            clock=clock,
            retention=plan.retention if "trim" in plan.kinds else 86_400,
        )
        self.store = CheckedStore(clock, self.journals)
        self.leases = CheckedLeases(self.ledger, trace, self.journals, self.store, self.stream)
        self.tails = tails_of(self)
        self._calm = trio.Event()

    async def run(self) -> None:
        """From the first entry to the last check."""
        async with trio.open_nursery() as outer:
            self.trace.scope = outer.cancel_scope
            self.network.begin(outer)
            for number in range(self.plan.workers):
                outer.start_soon(keep_working, self, number)
            async with trio.open_nursery() as background:
                background.start_soon(keep_operating, self)
                background.start_soon(keep_away, self)
                background.start_soon(put_plain, self)
                background.start_soon(keep_reading, self)
                for tailing in self.tails:
                    background.start_soon(keep_tailing, self, tailing)
                if "recover" in self.plan.kinds:
                    background.start_soon(keep_recovering, self)
                async with trio.open_nursery() as emitters:
                    for number in range(self.plan.emitters):
                        emitters.start_soon(self._keep_emitting, number)
                background.cancel_scope.cancel()
            self._calm_down()
            await end(self)
            outer.cancel_scope.cancel()

    async def _keep_emitting(self, number: int) -> None:
        for life in range(self.plan.lives):
            await Emitting(self, f"emitter {number}.{life}").live()
            await trio.sleep(self.rng.random())

    def _calm_down(self) -> None:
        self.trace.note("faults stop")
        self.network.calm = True
        self.network.away.clear()
        self._calm.set()
        for host in self.hosts:
            host.thaw()

    # What its actors share

    def host(self, name: str) -> Host:
        """A new process, on a machine with clocks of its own."""
        plan, rng = self.plan, self.rng
        host = Host(
            name,
            rng,
            wall=(2 * rng.random() - 1) * plan.skew,
            monotonic=1000 + 1000 * rng.random(),
            drift=(2 * rng.random() - 1) * plan.drift,
        )
        self.hosts.append(host)
        return host

    def services(self, host: Host) -> Services:
        """The services as a process sees them."""
        network, trace = self.network, self.trace
        return Services(
            RemoteStream(self.stream, host, network, self.plan),
            RemoteStore(self.store, host, network, trace),
            RemoteLeases(self.leases, host, network, trace),
        )

    def draw_fate(self, *fates: str) -> str:
        """What is to happen to a process: one of those that are switched on, or nothing."""
        possible = [fate for fate in fates if fate in self.plan.kinds]
        return self.rng.choice(["", *possible, *possible])

    async def pause(self, host: Host, kind: str) -> None:
        """Freeze a process for a while, often for longer than a lease lasts."""
        seconds = self.rng.random() * self.plan.freeze
        self.trace.strike(kind, f"{host.name} for {seconds:.1f}")
        host.freeze()
        await self.calm_or(seconds)
        host.thaw()
        self.trace.note(f"{host.name} goes on")

    async def calm_or(self, seconds: float) -> None:
        """Wait, but not for longer than until the faults stop."""
        with trio.move_on_after(seconds):
            await self._calm.wait()
            await trio.sleep(0.1)  # everything that waited for it goes on at different times

    async def try_(self, call: Awaitable[object]) -> None:
        """Make a call that may fail."""
        try:
            await call
        except StreamjournalError as problem:
            self.trace.note(f"failed: {problem}")

    def listed_shards(self) -> list[Shard]:
        """Every shard that the stream lists, parents before children."""
        return [shard.listed() for shard in self.stream._shards.values()]

    def open_shards(self) -> list[Shard]:
        """Those that take records, neighbours beside each other."""
        shards = [shard for shard in self.listed_shards() if not shard.closed]
        return sorted(shards, key=lambda shard: shard.first_hash)


def run_world(seed: int, plan: Plan | None = None) -> Trace:
    """One run to its end.

    Args:
        plan: default is the seed's own.

    Returns:
        What happened, with the violation if there was one.
    """
    plan = plan or draw_plan(seed)
    trace = Trace()
    with tempfile.TemporaryDirectory(prefix="sim-") as folder, _settings_of(plan), quiet():
        spools = Path(folder) / "spool"
        spools.mkdir()

        async def main() -> None:
            trace.note(f"seed {seed}: {_shown(plan)}")
            await World(seed, plan, trace, spools).run()

        try:
            run_virtual(main, seed=seed, limit=_LIMIT)
        except BaseException as problem:  # noqa: BLE001 - whatever it is, it is what the run found
            if isinstance(problem, KeyboardInterrupt) or _holds(problem, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            if trace.violation is None:
                trace.violation = Violation("crash", _text_of(problem))
                trace.violation.__cause__ = problem
                trace.lines.append(f"VIOLATION {trace.violation}")
    return trace


def _shown(plan: Plan) -> str:
    return repr(plan).replace(repr(plan.kinds), repr(sorted(plan.kinds)))  # a set's order is not the seed's


def _holds(problem: BaseException, kind: type[BaseException]) -> bool:
    return isinstance(problem, BaseExceptionGroup) and problem.subgroup(kind) is not None


def _text_of(problem: BaseException) -> str:
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    return repr(problem)


@contextmanager
def _settings_of(plan: Plan) -> Iterator[None]:
    """What the package has as constants and a world has smaller, so that their edges are met."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(spool, "SEGMENT_BYTES", plan.segment))
        stack.enter_context(mock.patch.object(meta, "ROOM", plan.room))
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """Thousands of warnings of faults on purpose help nobody."""
    log = logging.getLogger("streamjournal")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    try:
        yield
    finally:
        log.setLevel(level)
        structlog.reset_defaults()
