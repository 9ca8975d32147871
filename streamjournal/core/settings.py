"""Every setting: its name, meaning, unit and default, in one place. Data only.

A setting comes from an argument, else from the environment, else from its default. The variable of
a setting is STREAMJOURNAL_ and its name in capitals. The AWS SDK's own variables (AWS_ENDPOINT_URL,
AWS_REGION, AWS_PROFILE, …) work as everywhere and are not repeated here.

Decoded by msgspec; docs/decisions/0002-settings-by-msgspec.md says why.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from streamjournal.core.errors import NotConfiguredError, SettingsError

PREFIX = "STREAMJOURNAL_"
_ALIASES = {"bucket": ("JOURNAL_BUCKET",)}  # the older, one-file tool's name

Seconds = Annotated[float, Meta(ge=0)]
Bytes = Annotated[int, Meta(ge=1)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of one process.

    Args:
        stream: Kinesis stream, by name or ARN. None: embedded, everything under `home`.
        bucket: S3 bucket of the journals. Default: session-journal-$AWS_ACCOUNT_ID.
        prefix: what the journals' object names start with.
        lease_table: DynamoDB table of the worker's leases.
        home: folder of the embedded stream, leases and journals, and of the spools.
        spool: folder of the spools, default `home`/spool; `off` keeps entries in memory only.
        shards: shards of an embedded stream when it is created.
        retention_hours: how long an embedded stream keeps records, and what `init` asks of Kinesis.
        linger: seconds that the sender waits for more entries before it sends.
        buffer_bytes: bytes of entries that may wait for the stream.
        overflow: what emit does when they are full: `drop` the entry and count it, `block` for
            `block_timeout` seconds, or `raise`.
        block_timeout: seconds.
        exit_timeout: seconds that the interpreter's exit waits for pending entries.
        redact: take secrets out of details (passwords, tokens, keys) before they reach the spool.
        flush_interval: seconds until a worker writes a session's entries to its journal, at the
            latest. Default: 30 on AWS (each write is a paid request), 1 embedded.
        session_bytes: bytes of one session that make it due at once.
        unflushed_bytes: bytes on one shard that make its oldest sessions due at once.
        worker_bytes: bytes of entries that a worker holds before it stops reading.
        lease_seconds: within so many seconds of a worker's last sign of life, others take its shards.
        metrics_port: TCP port of a worker's /metrics, /healthz and /readyz. None: they are off.
        metrics_address: what that port listens at; 0.0.0.0 for other machines too.
        log_level: the least severe lines that a worker logs.
    """

    stream: str | None = None
    bucket: str | None = None
    prefix: str = "journals/"
    lease_table: str = "streamjournal-leases"
    home: str = "~/.streamjournal"
    spool: str | None = None
    shards: Annotated[int, Meta(ge=1, le=1024)] = 4
    retention_hours: Annotated[int, Meta(ge=1, le=8760)] = 24
    linger: Seconds = 0.05
    buffer_bytes: Bytes = 64 * 2**20
    overflow: Literal["drop", "block", "raise"] = "drop"
    block_timeout: Seconds = 1.0
    exit_timeout: Seconds = 5.0
    redact: bool = True
    flush_interval: Seconds | None = None
    session_bytes: Bytes = 2**20
    unflushed_bytes: Bytes = 4 * 2**20
    worker_bytes: Bytes = 256 * 2**20
    lease_seconds: Annotated[float, Meta(gt=0)] = 10.0
    metrics_port: Annotated[int, Meta(ge=0, le=65535)] | None = None
    metrics_address: str = "127.0.0.1"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def embedded(self) -> bool:
        """Whether everything stays on this machine."""
        return self.stream is None

    @property
    def home_path(self) -> Path:
        """`home`, with ~ resolved."""
        return Path(self.home).expanduser()

    @property
    def spool_path(self) -> Path | None:
        """The spools' folder, or None if they are off."""
        if self.spool is None:
            return self.home_path / "spool"
        return None if self.spool == "off" else Path(self.spool).expanduser()

    @property
    def flush_seconds(self) -> float:
        """`flush_interval`, or the default of the chosen backend."""
        if self.flush_interval is not None:
            return self.flush_interval
        return 1.0 if self.embedded else 30.0

    @property
    def stream_name(self) -> str:
        """The Kinesis stream's name, without the rest of its ARN."""
        return (self.stream or "").rpartition("/")[2]

    def bucket_name(self, environ: Mapping[str, str] = os.environ) -> str:
        """The bucket, by setting or by the account's number.

        Raises:
            NotConfiguredError: neither is known.
        """
        if self.bucket:
            return self.bucket
        account = environ.get("AWS_ACCOUNT_ID") or _account_of(self.stream or "")
        if not account:
            raise NotConfiguredError(
                "no bucket: set STREAMJOURNAL_BUCKET to the journals' S3 bucket, "
                "or AWS_ACCOUNT_ID for session-journal-$AWS_ACCOUNT_ID"
            )
        return f"session-journal-{account}"


def load(environ: Mapping[str, str] = os.environ, /, **arguments: Any) -> Settings:
    """The settings from arguments (None = not given), then the environment, then defaults.

    Raises:
        SettingsError: a value cannot be used, or an argument is no setting.
    """
    values: dict[str, Any] = {}
    for name in Settings.__struct_fields__:
        if variable := variable_given(name, environ):
            values[name] = environ[variable]
    for name, value in arguments.items():
        if name not in Settings.__struct_fields__:
            raise SettingsError(name, f"is no setting; there are: {', '.join(Settings.__struct_fields__)}")
        if value is not None:
            values[name] = os.fspath(value) if isinstance(value, os.PathLike) else value
    for name, value in values.items():
        _check_one(name, value)
    return msgspec.convert(values, Settings, strict=False)


def variable_of(setting: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + setting.upper()


def variable_given(setting: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """The environment variable that gives a setting, None if none does."""
    names = (variable_of(setting), *_ALIASES.get(setting, ()))
    return next((name for name in names if environ.get(name)), None)


def _check_one(name: str, value: Any) -> None:
    """Convert one setting by itself, so that the error can name it and where it came from."""
    try:
        msgspec.convert({name: value}, Settings, strict=False)
    except msgspec.ValidationError as problem:
        reason = str(problem).partition(" - at ")[0]
        raise SettingsError(
            name, f"{value!r} cannot be used ({reason}); variable {variable_of(name)}"
        ) from None


def _account_of(arn: str) -> str:
    parts = arn.split(":")
    return parts[4] if len(parts) > 5 and parts[0] == "arn" else ""
