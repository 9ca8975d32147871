"""What a worker does with a shard's records: the interface, and the worker's memory bound."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from streamjournal.stream.port import Record


class ShardSink(Protocol):
    """One sink on one shard; used by that shard's task alone."""

    def take(self, records: Sequence[Record]) -> None:
        """Take records, in their order. They count as read, not as durable."""
        ...

    async def flush(self, *, everything: bool = False) -> None:
        """Make durable what is due, or everything. What cannot be now stays for the next call.

        Raises:
            LeaseLostError: another worker has the shard; stop.
        """
        ...

    def durable(self) -> str | None:
        """The highest sequence number at and before which everything is durable; None = none yet."""
        ...

    def pause(self) -> float | None:
        """Seconds until something is due; None if nothing is pending."""
        ...

    @property
    def pending(self) -> bool:
        """Whether something taken is not durable."""
        ...

    def discard(self) -> None:
        """Forget what is pending: the shard is another worker's."""
        ...


class Sink(Protocol):
    """A kind of sink."""

    @property
    def name(self) -> str:
        """`journal`, …; goes into the lease rows."""
        ...

    def open(self, shard_id: str, stream: str, still_ours: Callable[[], Awaitable[None]]) -> ShardSink:
        """The sink of one shard.

        Args:
            stream: digest of the stream's identity.
            still_ours: raises LeaseLostError once the shard's lease is lost.
        """
        ...


class Budget:
    """Bytes that all shards of a worker hold together. Over it, they stop reading until they flushed."""

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.used = 0

    @property
    def full(self) -> bool:
        """Whether to stop reading."""
        return self.used >= self.bound
