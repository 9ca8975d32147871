"""The benchmark of spans runs, on a handful of calls; how fast they are is not asked."""

from __future__ import annotations

from tests.bench.test_bench_smoke import run


def test_spans_stand_beside_their_peers() -> None:
    """Every way to journal a call has a positive cost, and ratios to two emits and to a span."""
    rows = {
        row["case"]: row
        for row in run("spans", "--rounds", "2", "--limit", "20")["microseconds per tool call"]
    }
    assert all(row["µs (median)"] >= row["µs (best)"] > 0 for row in rows.values())
    assert rows["two emits (start and end)"]["x two emits"] == 1
    assert rows["OpenTelemetry span around the call"]["x span"] == 1
    assert {"@journal.traced", "Strands, JournalHooks", "Strands, without hooks"} <= rows.keys()
