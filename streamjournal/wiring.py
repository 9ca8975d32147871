"""The only file that chooses adapters, from settings. Each is imported where it is made: an embedded
journal never loads an AWS package.
"""

from __future__ import annotations

import msgspec

from streamjournal.core.clock import Clock
from streamjournal.core.errors import NotConfiguredError
from streamjournal.core.settings import Settings
from streamjournal.emit.spool import Destination
from streamjournal.leases.port import Leases
from streamjournal.store.port import Store
from streamjournal.stream.port import Stream

_EMBEDDED = "embedded:"


def open_stream(settings: Settings, clock: Clock) -> Stream:
    """The stream of the settings."""
    if settings.stream is not None:
        _need_aws()
        from streamjournal.stream.kinesis import KinesisStream

        return KinesisStream(settings.stream, clock=clock)
    from streamjournal.stream.sqlite import SqliteStream

    return SqliteStream(
        settings.home_path / "stream.db",
        shards=settings.shards,
        retention_seconds=settings.retention_hours * 3600,
        clock=clock,
    )


def open_store(settings: Settings, clock: Clock, *, cache_bytes: int = 2**20) -> Store:
    """The store of the settings.

    Args:
        cache_bytes: what it may keep of journals' bodies, so that it need not read one to add to it.
    """
    if settings.stream is not None:
        _need_aws()
        from streamjournal.store.s3 import S3Store

        return S3Store(settings.bucket_name(), prefix=settings.prefix, clock=clock, cache_bytes=cache_bytes)
    from streamjournal.store.files import FilesStore

    return FilesStore(settings.home_path, prefix=settings.prefix, clock=clock)


def open_leases(settings: Settings) -> Leases:
    """The lease table of the settings."""
    if settings.stream is not None:
        _need_aws()
        from streamjournal.leases.dynamodb import DynamoDbLeases

        return DynamoDbLeases(settings.lease_table)
    from streamjournal.leases.sqlite import SqliteLeases

    return SqliteLeases(settings.home_path / "leases.db")


def destination(settings: Settings) -> Destination:
    """Where the settings' entries go, as a spool says it."""
    if settings.stream is None:
        return Destination(f"{_EMBEDDED}{settings.home_path.resolve()}", "")
    return Destination(settings.stream, settings.bucket_name())


def settings_for(settings: Settings, where: Destination) -> Settings:
    """The settings with another destination, for a spool that goes there."""
    if where.stream.startswith(_EMBEDDED):
        return msgspec.structs.replace(settings, stream=None, home=where.stream.removeprefix(_EMBEDDED))
    return msgspec.structs.replace(settings, stream=where.stream, bucket=where.bucket)


def _need_aws() -> None:
    try:
        import aiobotocore  # noqa: F401  # asked here once, to say what to do
    except ImportError:
        raise NotConfiguredError(
            "a Kinesis stream is configured, but the AWS packages are not installed: "
            "pip install 'streamjournal[aws]'"
        ) from None
