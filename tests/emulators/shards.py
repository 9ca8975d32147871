"""What moto's Kinesis says wrongly of a shard, put right.

`MillisBehindLatest` is the difference of two arrival times there, so it says 0, "caught up", when a
read stopped at its limit and the records that follow arrived in the same millisecond. And each put
and each read walks over all of the shard's records, which makes thousands of them quadratic.
"""

from __future__ import annotations

from typing import Any

from moto.kinesis.models import Record, Shard

_ALL = 10_000  # GetRecords' own bound


def _get_records(self: Shard, last_sequence_id: str, limit: int | None) -> tuple[list[Record], int, int]:
    last = int(last_sequence_id)
    newest = self.get_max_sequence_number()
    stop = min(newest, last + (limit or _ALL))  # sequence numbers count 1, 2, 3 in a shard of moto
    results = [self.records[n] for n in range(max(last, 0) + 1, stop + 1)]
    if stop >= newest or not results:
        return results, max(last, stop), 0
    behind = self.records[newest].created_at - results[-1].created_at
    return results, stop, max(1, int(behind * 1000))


def _get_max_sequence_number(self: Shard) -> int:
    return next(reversed(self.records), 0)


def install() -> None:
    """Replace the two methods in this process."""
    replacement: dict[str, Any] = {
        "get_records": _get_records,
        "get_max_sequence_number": _get_max_sequence_number,
    }
    for name, function in replacement.items():
        setattr(Shard, name, function)
