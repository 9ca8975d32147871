"""The two backends of a round: an embedded home, or emulators of Kinesis, S3 and DynamoDB.

kinesis-local has real sequence numbers and reshards; moto's server has S3 and DynamoDB. Both refuse
what AWS refuses, as far as tests/emulators knows it.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from streamjournal import wiring
from streamjournal.core.errors import UnavailableError
from streamjournal.core.settings import load
from tests.chaos.proxy import Network, between
from tests.emulators import processes

NAMES = ("embedded", "emulator")
OURS = ("STREAMJOURNAL_", "JOURNAL_BUCKET", "AWS_")  # what the names of settings start with
_ACTIVE_SECONDS = 10.0
_FLUSHES = ("0.3", "1", "3")  # seconds: short ones make commits, long ones leave much on the stream
_MAX_SHARDS = 5  # open at a time
_numbers = itertools.count(1)


@dataclass
class Backend:
    """Where a round's entries go.

    Args:
        environment: the settings of every process.
        lease_seconds: as in them.
        pause: seconds between an agent's bursts, on average; kinesis-local slows down with each record.
        network: between the processes and the emulators.
        direct: what replaces it for those who are not part of the play.
    """

    name: str
    environment: dict[str, str]
    lease_seconds: float
    pause: float
    kinesis: Any = None
    stream: str = ""
    network: Network | None = None
    direct: dict[str, str] = field(default_factory=dict)

    def forget(self, rng: random.Random) -> list[str]:
        """Delete a lease's row, as a careless operator would, and tell which: the shard is read again."""

        async def delete_one() -> list[str]:
            leases = wiring.open_leases(load(self.environment))
            try:
                rows = await leases.rows()
                for row in rng.sample(rows, min(1, len(rows))):
                    await leases.delete(row)
                    return [f"{row.key} at {row.checkpoint} of {row.owner}"]
                return []
            except UnavailableError:  # a process that is stopped holds the table's lock just now
                return []
            finally:
                await leases.aclose()

        with applied(self.environment | self.direct):
            return anyio.run(delete_one)

    def reshard(self, rng: random.Random) -> list[str]:
        """Split a shard or merge two, and tell which; none where shards are fixed, or change just now."""
        if self.kinesis is None:
            return []
        shards = _open_shards(self.kinesis, self.stream)
        try:
            if len(shards) >= _MAX_SHARDS or (len(shards) > 1 and rng.random() < 0.5):
                i = rng.randrange(len(shards) - 1)
                one, other = shards[i], shards[i + 1]
                self.kinesis.merge_shards(
                    StreamName=self.stream, ShardToMerge=one["ShardId"], AdjacentShardToMerge=other["ShardId"]
                )
                return [f"merge {one['ShardId']} {other['ShardId']}"]
            one = rng.choice(shards)
            middle = sum(_range(one)) // 2
            self.kinesis.split_shard(
                StreamName=self.stream, ShardToSplit=one["ShardId"], NewStartingHashKey=str(middle)
            )
            return [f"split {one['ShardId']}"]
        except (
            self.kinesis.exceptions.ResourceInUseException,
            self.kinesis.exceptions.LimitExceededException,
        ):
            return []  # it is changing already


@contextmanager
def servers(name: str) -> Iterator[Mapping[str, str]]:
    """What the backend needs running; gives the environment that reaches it.

    Raises:
        EmulatorError: node or npm is missing, or a server does not start.
    """
    if name == "embedded":
        yield {}
        return
    with processes.running_moto() as moto, processes.running_kinesis_local() as kinesis:
        yield {**processes.aws_environment(moto), "AWS_ENDPOINT_URL_KINESIS": kinesis}


@contextmanager
def opened(name: str, home: Path, reach: Mapping[str, str], rng: random.Random) -> Iterator[Backend]:
    """A new stream, store and lease table, empty."""
    shards = rng.randint(2, _MAX_SHARDS)
    settings = {
        "STREAMJOURNAL_HOME": str(home),
        "STREAMJOURNAL_SHARDS": str(shards),
        "STREAMJOURNAL_LINGER": "0.05",
    }
    if name == "embedded":
        lease = 1.5
        chosen = {
            "STREAMJOURNAL_FLUSH_INTERVAL": rng.choice(_FLUSHES),
            "STREAMJOURNAL_LEASE_SECONDS": str(lease),
        }
        yield Backend(name, settings | chosen, lease, pause=0.1)
        return
    lease = 2.0
    number = next(_numbers)
    chosen = {
        "STREAMJOURNAL_LINGER": "0.3",
        "STREAMJOURNAL_FLUSH_INTERVAL": rng.choice(_FLUSHES),
        "STREAMJOURNAL_LEASE_SECONDS": str(lease),
        "STREAMJOURNAL_STREAM": f"chaos-{number}",
        "STREAMJOURNAL_BUCKET": f"chaos-{number}",
        "STREAMJOURNAL_LEASE_TABLE": f"chaos-{number}",
    }
    clients = {service: _client(service, reach) for service in ("kinesis", "s3", "dynamodb")}
    network = Network(rng)
    endpoints = {name: url for name, url in reach.items() if name.startswith("AWS_ENDPOINT_URL")}
    try:
        _make_resources(clients, f"chaos-{number}", shards)
        with between(network, endpoints) as proxied:
            yield Backend(
                name,
                {**settings, **chosen, **reach, **proxied},
                lease,
                pause=0.25,
                kinesis=clients["kinesis"],
                stream=f"chaos-{number}",
                network=network,
                direct=endpoints,
            )
    finally:
        for client in clients.values():
            client.close()


def _client(service: str, reach: Mapping[str, str]) -> Any:
    import boto3

    session = boto3.Session(
        aws_access_key_id="test", aws_secret_access_key="test", region_name=processes.REGION
    )
    endpoint = reach.get(f"AWS_ENDPOINT_URL_{service.upper()}", reach["AWS_ENDPOINT_URL"])
    return session.client(service, endpoint_url=endpoint)


def _make_resources(clients: Mapping[str, Any], name: str, shards: int) -> None:
    """By hand instead of `init`: without versioning, since the emulator keeps every version in memory."""
    clients["kinesis"].create_stream(StreamName=name, ShardCount=shards)
    clients["s3"].create_bucket(Bucket=name)
    clients["dynamodb"].create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "leaseKey", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "leaseKey", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    deadline = time.monotonic() + _ACTIVE_SECONDS
    while not _is_active(clients["kinesis"], name):
        if time.monotonic() > deadline:
            raise processes.EmulatorError(f"stream {name} is not ACTIVE after {_ACTIVE_SECONDS} s")
        time.sleep(0.01)


def _is_active(kinesis: Any, stream: str) -> bool:
    answer = kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
    return bool(answer["StreamStatus"] == "ACTIVE")


def _open_shards(kinesis: Any, stream: str) -> list[dict[str, Any]]:
    """Those that take records, by their ranges, so that neighbours can be merged."""
    shards = kinesis.list_shards(StreamName=stream)["Shards"]
    return sorted(
        (shard for shard in shards if "EndingSequenceNumber" not in shard["SequenceNumberRange"]), key=_range
    )


def _range(shard: Mapping[str, Any]) -> tuple[int, int]:
    hashes = shard["HashKeyRange"]
    return int(hashes["StartingHashKey"]), int(hashes["EndingHashKey"])


@contextmanager
def applied(variables: Mapping[str, str]) -> Iterator[None]:
    """The settings of this very process, for as long as it looks at the backend itself."""
    before = dict(os.environ)
    try:
        for name in [name for name in os.environ if name.startswith(OURS)]:
            del os.environ[name]
        os.environ.update(variables)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
