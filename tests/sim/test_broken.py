"""That the net catches: each deliberately broken variant fails the simulation, with the right invariant."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.sim import broken
from tests.sim.plan import Plan, settings_for
from tests.sim.world import run_world

Variant = Callable[[], AbstractContextManager[None]]

SMALL = Plan(
    latency=0.1, emitters=2, lives=1, entries=12, pause=0.5, workers=2, shards=2, sessions=("a", "b")
)
PUTS = SMALL.only("put: timeout after", "put: late", "put: partial", rate=0.3)
REPLAYS = SMALL.only("worker killed", "lease row deleted", "plain record", life=1.5, every=1.5, entries=30)
RESHARDS = SMALL.only("split", "lease row deleted", "plain record", every=1.0, entries=60, shards=1)
PAUSES = SMALL.only("split", "worker paused", every=1.0, entries=40, shards=1, batch=1, life=1.0)
STOPS = SMALL.only("worker stopped", "plain record", life=1.0, entries=40)
SPOOLS = SMALL.only("emitter killed", "recover", "put: late", "put: throttled", rate=0.5, every=0.5, lives=2)
ZOMBIES = SMALL.only("worker paused", "leases: late", rate=0.3, life=2.0, entries=25)
READS = SMALL.only(
    latency=0.5, entries=60, sessions=("a",), read_every=0.1, settings=settings_for(flush_interval=0.05)
)

VARIANTS: list[tuple[Variant, Plan, set[str]]] = [
    (broken.no_position_check, REPLAYS, {"once"}),
    (broken.position_of_an_ancestor, RESHARDS, {"once", "position"}),
    (broken.no_number_check, PUTS, {"once"}),
    (broken.two_records_of_a_session_in_a_call, PUTS, {"order", "read", "tail"}),
    (broken.spool_liveness_by_pid, SPOOLS, {"kept"}),
    (broken.resume_at_the_checkpoint, STOPS, {"once"}),
    (broken.checkpoint_before_commit, SMALL.only(), {"checkpoint"}),
    (broken.child_before_parent, PAUSES, {"order", "position"}),
    (broken.retry_on_the_committing_call, SMALL.only("append: timeout after", rate=0.3), {"once"}),
    (broken.metadata_only_commit, REPLAYS, {"prefix"}),
    (broken.reorder_after_partial_failure, PUTS, {"order", "read", "tail"}),
    (broken.lease_without_condition, ZOMBIES, {"checkpoint"}),
    (broken.journal_before_checkpoint, READS, {"read"}),
    (broken.spool_truncated_before_acknowledgement, SPOOLS, {"kept"}),
]
SEEDS = 30


@pytest.mark.parametrize(
    ("variant", "plan", "invariants"), VARIANTS, ids=[each[0].__name__ for each in VARIANTS]
)
def test_a_broken_variant_is_caught(variant: Variant, plan: Plan, invariants: set[str]) -> None:
    """Within a few seeds of a small world that has the faults it takes, and by the invariant it breaks."""
    with variant():
        for seed in range(SEEDS):
            violation = run_world(seed, plan).violation
            if violation is not None:
                assert violation.invariant in invariants, violation
                return
    pytest.fail(f"{SEEDS} seeds saw nothing")


def test_no_position_check_alone_is_harmless_where_workers_stop_in_order() -> None:
    """So that it is the resume at the checkpoint that `resume_at_the_checkpoint` is caught for."""
    with broken.no_position_check():
        assert [run_world(seed, STOPS).violation for seed in range(6)] == [None] * 6
