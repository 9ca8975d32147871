"""Kinesis's rules that the embedded adapters keep too: bounds, hashing, and the names of shards.

They keep them so that what works embedded works on Kinesis: a sender that overshoots a bound fails
in the first test, not in production.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from streamjournal.core.position import SHARD_END, TRIM_HORIZON
from streamjournal.stream.port import (
    MAX_PUT_BYTES,
    MAX_PUT_RECORDS,
    MAX_RECORD_BYTES,
    PutRecord,
    Refused,
)

HASHES: Final = 2**128
MAX_KEY_CHARACTERS: Final = 256
MAX_READ_BYTES: Final = 10 * 2**20  # one GetRecords gives at most 10 MiB


def check_call(records: Sequence[PutRecord]) -> None:
    """Make sure that a call is within PutRecords' bounds, which the caller has to keep.

    Raises:
        ValueError: it has more than 500 records, or more than 5 MiB.
    """
    if len(records) > MAX_PUT_RECORDS:
        raise ValueError(f"{len(records)} records in one put; at most {MAX_PUT_RECORDS} are allowed")
    size = sum(len(record.data) + len(record.partition_key) for record in records)
    if size > MAX_PUT_BYTES:
        raise ValueError(f"{size} bytes in one put; at most {MAX_PUT_BYTES} are allowed")


def refusal_of(record: PutRecord) -> Refused | None:
    """Why a record can never be taken, or None if it can."""
    if not 0 < len(record.partition_key) <= MAX_KEY_CHARACTERS:
        return _refused(f"the partition key must be 1 to {MAX_KEY_CHARACTERS} characters long")
    try:
        size = len(record.data) + len(record.partition_key.encode())
    except UnicodeEncodeError:
        return _refused("the partition key has no UTF-8 form")
    if size > MAX_RECORD_BYTES:
        return _refused(f"the record is {size} bytes long; at most {MAX_RECORD_BYTES} are allowed")
    return None


def hash_of(partition_key: str) -> int:
    """Where in 0 … 2^128 - 1 a partition key lies."""
    return int.from_bytes(hashlib.md5(partition_key.encode(), usedforsecurity=False).digest())


def even_ranges(count: int) -> list[tuple[int, int]]:
    """The hash space in `count` ranges of the same size (the last has the rest), both ends inclusive."""
    step = HASHES // count
    firsts = [number * step for number in range(count)]
    return list(zip(firsts, [*(first - 1 for first in firsts[1:]), HASHES - 1], strict=True))


def shard_name(number: int) -> str:
    """`shardId-000000000003`."""
    return f"shardId-{number:012d}"


def durable_to(checkpoint: str) -> float:
    """The highest sequence number that a checkpoint covers; SHARD_END covers every one."""
    if checkpoint == TRIM_HORIZON:
        return -1
    return float("inf") if checkpoint == SHARD_END else int(checkpoint)


def _refused(message: str) -> Refused:
    return Refused("ValidationException", message, permanent=True)
