"""Many entries in one Kinesis record: the KPL aggregated format, which every Kinesis consumer knows.

    F3 89 9A C2 | AggregatedRecord (protobuf, proto2) | MD5 of the protobuf bytes

    message AggregatedRecord {
      repeated string partition_key_table     = 1;
      repeated string explicit_hash_key_table = 2;
      repeated Record records                 = 3;
    }
    message Record {
      required uint64 partition_key_index     = 1;
      optional uint64 explicit_hash_key_index = 2;
      required bytes  data                    = 3;
      repeated Tag    tags                    = 4;
    }

Source: https://github.com/awslabs/amazon-kinesis-producer/blob/master/aggregation-format.md

Reading goes through protobuf, since it must take whatever other producers wrote. The messages are
described here in code, not by generated `_pb2` modules: those are tied to the protobuf version that
generated them, and register their names in a pool that every library of a process shares. Writing
frames the bytes itself: our records have one key, so a user record is a prefix that depends on the
line's length only, and `line_bytes` is exact because it asks for the same prefix.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, Final, NamedTuple

from streamjournal.core.errors import BadAggregateError

MAGIC: Final = b"\xf3\x89\x9a\xc2"
DIGEST_BYTES: Final = 16
_SHORTEST: Final = len(MAGIC) + DIGEST_BYTES


class UserRecord(NamedTuple):
    """What a producer put: a partition key and, for ours, one entry's line."""

    partition_key: str
    data: bytes


def aggregate(partition_key: str, lines: Sequence[bytes]) -> bytes:
    """One record's data that holds all `lines` under one partition key.

    Args:
        lines: one entry each, in order; of any length together (see `header_bytes`, `line_bytes`).
    """
    parts = [_key_field(partition_key)]
    add = parts.append
    for line in lines:
        add(_line_prefix(len(line)))
        add(line)
    body = b"".join(parts)
    return b"".join((MAGIC, body, _digest(body)))


def header_bytes(partition_key: str) -> int:
    """Bytes of an aggregated record before any line is in it."""
    return _SHORTEST + len(_key_field(partition_key))


def line_bytes(length: int) -> int:
    """Bytes that a line of `length` bytes adds to an aggregated record, exactly.

    `len(aggregate(key, lines)) == header_bytes(key) + sum(line_bytes(len(line)) for line in lines)`;
    so a batch can refuse a line before it adds it. The stream counts the partition key once more.
    """
    return len(_line_prefix(length)) + length


def split(data: bytes, partition_key: str) -> list[UserRecord]:
    """The user records of a stream's record; of a plain record, itself.

    A record with the magic but a wrong checksum is refused. KPL's own deaggregators hand it on as
    a plain record; a journal would then get a line that nobody wrote.

    Args:
        data: the record's data.
        partition_key: the record's own key, which a plain record keeps.

    Raises:
        BadAggregateError: it begins as an aggregate, but its checksum, protobuf or key table is wrong.
    """
    if not data.startswith(MAGIC):
        return [UserRecord(partition_key, data)]
    message = _parse(data)
    keys = _decode_keys(message.partition_key_table)
    new = tuple.__new__  # skips NamedTuple's own __new__, which takes as long as all the rest
    if len(keys) == 1:
        key = keys[0]
        found = [new(UserRecord, (key, r.data)) for r in message.records if not r.partition_key_index]
        if len(found) == len(message.records):
            return found
    try:
        return [new(UserRecord, (keys[r.partition_key_index], r.data)) for r in message.records]
    except IndexError:
        raise BadAggregateError("a partition key index is outside the key table") from None


def _parse(data: bytes) -> Any:
    if len(data) < _SHORTEST:
        raise BadAggregateError("shorter than its own checksum")
    body = data[len(MAGIC) : -DIGEST_BYTES]
    if _digest(body) != data[-DIGEST_BYTES:]:
        raise BadAggregateError("wrong MD5 checksum")
    message_class, undecodable = _protobuf()
    try:
        message = message_class.FromString(body)
    except undecodable as problem:
        raise BadAggregateError(f"undecodable protobuf ({problem})") from None
    if not message.IsInitialized():
        raise BadAggregateError("undecodable protobuf (a required field is missing)")
    return message


def _decode_keys(table: Sequence[bytes]) -> list[str]:
    try:
        return [key.decode() for key in table]
    except UnicodeDecodeError:
        raise BadAggregateError("a partition key is not UTF-8") from None


def _digest(body: bytes) -> bytes:
    return hashlib.md5(body, usedforsecurity=False).digest()


@lru_cache(maxsize=4096)
def _key_field(partition_key: str) -> bytes:
    key = partition_key.encode()
    return b"\x0a" + _varint(len(key)) + key  # field 1, length-delimited


@lru_cache(maxsize=16384)
def _line_prefix(length: int) -> bytes:
    inner = b"\x08\x00\x1a" + _varint(length)  # key index 0, then field 3, length-delimited
    return b"\x1a" + _varint(len(inner) + length) + inner


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@cache
def _protobuf() -> tuple[Any, type[Exception]]:
    """The message class of AggregatedRecord, in a pool of its own, and what parsing it can raise.

    Imported at the first aggregate that is read: protobuf takes 0.1 s, which commands that only
    write, or find nothing, need not spend.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from google.protobuf.message import DecodeError

    kind = descriptor_pb2.FieldDescriptorProto
    one, many, must = kind.LABEL_OPTIONAL, kind.LABEL_REPEATED, kind.LABEL_REQUIRED
    file = descriptor_pb2.FileDescriptorProto(
        name="streamjournal/aggregation.proto", package="streamjournal", syntax="proto2"
    )
    whole = file.message_type.add(name="AggregatedRecord")
    # Keys are `bytes` here: the same on the wire as `string`, and what is not UTF-8 becomes our
    # error instead of whatever the installed protobuf does about it.
    whole.field.add(name="partition_key_table", number=1, type=kind.TYPE_BYTES, label=many)
    whole.field.add(name="explicit_hash_key_table", number=2, type=kind.TYPE_BYTES, label=many)
    whole.field.add(
        name="records", number=3, type=kind.TYPE_MESSAGE, type_name=".streamjournal.Record", label=many
    )
    record = file.message_type.add(name="Record")
    record.field.add(name="partition_key_index", number=1, type=kind.TYPE_UINT64, label=must)
    record.field.add(name="explicit_hash_key_index", number=2, type=kind.TYPE_UINT64, label=one)
    record.field.add(name="data", number=3, type=kind.TYPE_BYTES, label=must)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName("streamjournal.AggregatedRecord")
    return message_factory.GetMessageClass(found), DecodeError
