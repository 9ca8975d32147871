"""The streams that the contract runs over, each with what its service lets a test control."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from streamjournal.core.clock import Clock
from streamjournal.stream.kinesis import KinesisStream
from streamjournal.stream.memory import MemoryStream
from streamjournal.stream.port import PutRecord, Record, ShardReader, Stream
from streamjournal.stream.sqlite import SqliteStream

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

HOUR = 3600.0


@dataclass
class Rig:
    """A stream of two shards to be tested.

    Args:
        stream: not opened yet.
        recreate: delete it and make another of the same name; gives that one.
        skew: seconds that its clock is ahead, for streams whose time is ours.
        split: split a shard, where the service can.
    """

    stream: Stream
    recreate: Callable[[], Stream]
    skew: list[float] = field(default_factory=lambda: [0.0])
    split: Callable[[str], None] | None = None
    own_time: bool = False


def memory_rig(_request: pytest.FixtureRequest) -> Rig:
    """Everything is under control."""
    skew = [0.0]
    stream = MemoryStream(shards=2, clock=skewed_clock(skew), retention_seconds=HOUR)
    return Rig(
        stream,
        recreate=lambda: MemoryStream(shards=2, clock=skewed_clock(skew)),
        skew=skew,
        split=stream.split,
        own_time=True,
    )


def sqlite_rig(request: pytest.FixtureRequest) -> Rig:
    """One file; its shards never split."""
    path: Path = request.getfixturevalue("tmp_path") / "stream.db"
    skew = [0.0]

    def make() -> SqliteStream:
        return SqliteStream(path, shards=2, clock=skewed_clock(skew), retention_seconds=HOUR)

    def recreate() -> SqliteStream:
        for file in path.parent.glob("stream.db*"):
            file.unlink()
        return make()

    return Rig(make(), recreate, skew=skew, own_time=True)


def moto_rig(request: pytest.FixtureRequest) -> Rig:
    """Kinesis as moto has it: sequence numbers 1, 2, 3, and splits that move the parent's records."""
    return _kinesis_rig(request, request.getfixturevalue("aws_emulator"))


def kinesis_local_rig(request: pytest.FixtureRequest) -> Rig:
    """Kinesis as kinesis-local has it: real sequence numbers and resharding."""
    rig = _kinesis_rig(request, request.getfixturevalue("kinesis_local"))
    client, name = _client_and_name(request, rig)

    def split(shard_id: str) -> None:
        (shard,) = (s for s in client.list_shards(StreamName=name)["Shards"] if s["ShardId"] == shard_id)
        first, last = (int(shard["HashKeyRange"][f"{end}HashKey"]) for end in ("Starting", "Ending"))
        middle = str((first + last) // 2)
        client.split_shard(StreamName=name, ShardToSplit=shard_id, NewStartingHashKey=middle)
        _until_active(client, name)

    rig.split = split
    return rig


RIGS = {
    "memory": memory_rig,
    "sqlite": sqlite_rig,
    "moto": moto_rig,
    "kinesis-local": kinesis_local_rig,
}


def skewed_clock(skew: list[float]) -> Clock:
    """Real time plus `skew[0]` seconds."""
    return Clock(time_ns=lambda: time.time_ns() + int(skew[0] * 1e9))


def kinesis_stream(name: str) -> KinesisStream:
    """A stream on an emulator, which has no limit on reads."""
    return KinesisStream(name, idle_seconds=0.02, reads_per_second=500)


async def read_all(reader: ShardReader, **options: Any) -> list[Record]:
    """Everything that a reader gives until it has caught up or the shard ends."""
    found: list[Record] = []
    while True:
        batch = await reader.next(**options)
        found += batch.records
        if batch.ended or (not batch.behind_ms and not batch.records):
            return found


def records(key: str, *payloads: str) -> list[PutRecord]:
    """Records of one key."""
    return [PutRecord(key, payload.encode()) for payload in payloads]


def _kinesis_rig(request: pytest.FixtureRequest, endpoint: str) -> Rig:
    name: str = request.getfixturevalue("aws_stream")(shards=2)

    def recreate() -> KinesisStream:
        client = request.getfixturevalue("aws_client")("kinesis", endpoint)
        client.delete_stream(StreamName=name)
        _until(lambda: name not in client.list_streams(Limit=1000)["StreamNames"])
        client.create_stream(StreamName=name, ShardCount=2)
        _until_active(client, name)
        return kinesis_stream(name)

    rig = Rig(kinesis_stream(name), recreate)
    rig.stream_name = name  # type: ignore[attr-defined]
    rig.endpoint = endpoint  # type: ignore[attr-defined]
    return rig


def _client_and_name(request: pytest.FixtureRequest, rig: Any) -> tuple[Any, str]:
    return request.getfixturevalue("aws_client")("kinesis", rig.endpoint), rig.stream_name


def _until_active(client: Any, name: str) -> None:
    def is_active() -> bool:
        summary = client.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
        return bool(summary["StreamStatus"] == "ACTIVE")

    _until(is_active)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the emulator took over 10 s"
        time.sleep(0.002)
