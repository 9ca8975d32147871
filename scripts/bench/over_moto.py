"""The same drain as in the model, over the real adapters and the emulator of the AWS services."""

from __future__ import annotations

import os
from collections.abc import Sequence

import anyio
import boto3

from scripts.bench.entries import Sample
from scripts.bench.tally import CountedClient, Tally
from scripts.bench.virtual import Counts
from streamjournal.core.clock import SYSTEM
from streamjournal.core.settings import Settings
from streamjournal.emit.emitter import Emitter
from streamjournal.emit.sender import Sender
from streamjournal.emit.wakeup import Wakeup
from streamjournal.ingest.service import WorkerService
from streamjournal.leases.dynamodb import DynamoDbLeases
from streamjournal.store.s3 import S3Store
from streamjournal.stream.kinesis import KinesisStream
from tests.emulators.processes import aws_environment, running_moto

_NAME = "bench"


def count_drain(samples: Sequence[Sample], *, shards: int) -> Counts:
    """Emit everything at once, and only then drain it; counted at the SDK's clients."""
    with running_moto() as endpoint:
        os.environ.update(aws_environment(endpoint))
        _make_resources(shards)
        return anyio.run(_drain, samples)


def _make_resources(shards: int) -> None:
    boto3.client("kinesis").create_stream(StreamName=_NAME, ShardCount=shards)
    boto3.client("s3").create_bucket(Bucket=_NAME)
    boto3.client("dynamodb").create_table(
        TableName=_NAME,
        KeySchema=[{"AttributeName": "leaseKey", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "leaseKey", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )


async def _drain(samples: Sequence[Sample]) -> Counts:
    tally = Tally()
    settings = Settings(stream=_NAME, bucket=_NAME, spool="off", lease_table=_NAME, flush_interval=30.0)
    stream = KinesisStream(
        _NAME, client=CountedClient("kinesis", tally), idle_seconds=0.02, reads_per_second=500
    )
    store = S3Store(_NAME, clock=SYSTEM, client=CountedClient("s3", tally))
    leases = DynamoDbLeases(_NAME, client=CountedClient("dynamodb", tally))
    wakeup = Wakeup()
    emitter = Emitter(settings, SYSTEM, lambda: None, wakeup.set, wakeup.set)
    sender = Sender(emitter, stream, store, settings, SYSTEM, wakeup)
    async with anyio.create_task_group() as sending:
        for it in samples:
            emitter.emit(
                it.event_type,
                session_id=it.session_id,
                tool_name=it.tool_name,
                details=it.details,
                level=it.level,
            )
        sending.start_soon(sender.run, name="sender")
        sender.stop()
    service = WorkerService(stream, store, leases, settings, SYSTEM)
    await service.run(drain=True)
    return Counts(tally, service.stats.entries, 0.0)
