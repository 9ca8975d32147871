"""What AWS charges for the requests that are counted here.

US East (N. Virginia), list prices without free tier, volume discounts or tax, looked up on 2026-11-22.
What is counted how: the pricing pages of Amazon S3, Amazon Kinesis Data Streams and Amazon DynamoDB.
Those pages fill in their numbers by script, so the numbers are from several public quotations of them,
which agree; check them before you sign anything. Transfer within the region costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

AS_OF: Final = "2026-11-22"
REGION: Final = "us-east-1"

_S3_WRITE: Final = 5.00 / 1e6  # PUT, COPY, POST, LIST; each call of a multipart upload is one
_S3_READ: Final = 0.40 / 1e6  # GET, HEAD and all others
_S3_WRITES: Final = frozenset(
    {
        "CompleteMultipartUpload",
        "CreateMultipartUpload",
        "ListObjectsV2",
        "PutObject",
        "UploadPart",
        "UploadPartCopy",
    }
)
_S3_FREE: Final = frozenset({"AbortMultipartUpload", "DeleteObject"})

KINESIS_UNIT: Final = 25 * 1024  # bytes of a record that one PUT payload unit pays for
KINESIS_ROUNDING: Final = 1024  # on demand, a record's size is rounded up to these bytes
_KINESIS_PER_UNIT: Final = 0.014 / 1e6  # provisioned
_KINESIS_PER_GB: Final = 0.08 + 0.04  # on demand standard: written once, read once
SHARD_HOUR: Final = 0.015  # provisioned
STREAM_HOUR: Final = 0.04  # on demand standard

LEASE_WRITE: Final = 0.625 / 1e6  # DynamoDB on demand, up to 1 KB
LEASE_READ: Final = 0.125 / 1e6  # strongly consistent, up to 4 KB


def s3_dollars(requests: Mapping[str, int]) -> float:
    """Of S3 requests by operation."""
    writes = sum(count for name, count in requests.items() if name in _S3_WRITES)
    reads = sum(count for name, count in requests.items() if name not in _S3_WRITES | _S3_FREE)
    return writes * _S3_WRITE + reads * _S3_READ


def provisioned_dollars(units: int) -> float:
    """Of PUT payload units; the shards' hours come on top."""
    return units * _KINESIS_PER_UNIT


def on_demand_dollars(rounded_bytes: int) -> float:
    """Of bytes written and read once; the stream's hours come on top."""
    return rounded_bytes / 2**30 * _KINESIS_PER_GB
