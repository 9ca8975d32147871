"""The pipeline under seeded faults: nothing lost, doubled or reordered, whatever happens when."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from tests.sim.world import Plan, run_world

SEEDS = 40


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of warnings of faults on purpose help nobody."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_invariant_holds(seed: int) -> None:
    """Each acknowledged entry once in its journal, in order; reads, tails and checkpoints never wrong."""
    run_world(seed)


def test_the_same_seed_gives_the_same_run() -> None:
    """Byte for byte; else a failure that a seed shows could not be looked at again."""
    first, second, other = run_world(7), run_world(7), run_world(8)
    assert first.trace == second.trace
    assert first.rig.store.versions == second.rig.store.versions
    assert first.trace != other.trace


def test_the_faults_strike() -> None:
    """A calm simulation proves nothing: commits, puts and leases fail, workers die, shards split."""
    trace = "\n".join(line for seed in range(8) for line in run_world(seed, Plan(entries=60)).trace)
    for what in (
        "store.append Fault(error=CommitUnknownError('no answer'), after=True)",
        "store.append Fault(error=CommitUnknownError('503'), after=False)",
        "store.append Fault(error=CommitConflictError('409'), after=False)",
        "stream.put Fault(error=StreamUnavailableError('stream.put timed out'), after=True)",
        "leases.update Fault(error=LeasesUnavailableError('leases.update timed out'), after=True)",
        "throttled record",
        "worker cut short",
        "split",
        "merge",
    ):
        assert what in trace, what
