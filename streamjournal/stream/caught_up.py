"""Whether a reader has come to what was the end of a shard when it began."""

from __future__ import annotations

from typing import Final

from streamjournal.stream.port import ReadBatch

_APPROXIMATE_MS: Final = 10_000  # that arrival times may be out of order by


class CaughtUp:
    """Looks at one shard's batches in their order, and tells which of them reaches that end.

    By the stream's own word and clock alone, since this machine's clock may be wrong: what was there at
    the beginning is at most as old as the newest record was at the first look. A quiet shard says that
    nothing more is there. A busy one never gets quiet; there a record that came later tells.
    """

    def __init__(self) -> None:
        self._newest_ms: int | None = None  # when the newest record came, at the first look

    def __call__(self, batch: ReadBatch) -> bool:
        """Whether everything that was on the shard at the beginning has been read with this batch."""
        if batch.ended:
            return True
        if not batch.fresh:
            return False
        if not batch.records:
            return batch.behind_ms == 0
        arrival_ms = batch.records[-1].arrival_ms
        if self._newest_ms is None:
            self._newest_ms = arrival_ms + batch.behind_ms
            return False
        later_ms = arrival_ms - self._newest_ms
        return (later_ms > 0 and batch.behind_ms == 0) or later_ms > _APPROXIMATE_MS
