"""`streamjournal init`: makes what must exist before entries can flow, and leaves alone what does.

On AWS: the Kinesis stream, the S3 bucket with its configuration, the DynamoDB lease table. Embedded:
the folders, because the files in them are made at first use. Nothing is ever deleted.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

import anyio

from streamjournal.admin.init.plan import Plan, Planned, Step, unchanged
from streamjournal.core.errors import NotConfiguredError, SettingsError
from streamjournal.core.settings import Settings, variable_of


class InitResult(NamedTuple):
    """What `initialise` did.

    Args:
        steps: each resource, in the order in which they were looked at.
        environment: lines for a shell, so that every other command finds the same resources.
        dry_run: nothing was done; the steps say what would have been.
    """

    steps: tuple[Step, ...]
    environment: tuple[str, ...]
    dry_run: bool


async def initialise(
    settings: Settings,
    *,
    retention_hours: int | None = None,
    archive_versions_after: int | None = None,
    shards: int | None = None,
    dry_run: bool = False,
) -> InitResult:
    """Make what the settings name, where it is not there yet, and wait until it can be used.

    Everything is looked at before anything is made. The same call again changes nothing.

    Args:
        retention_hours: how long the stream keeps records, 24 to 8760. None: `settings.retention_hours`,
            which shortens the retention of no stream that exists.
        archive_versions_after: days after which old versions of journals go to Glacier. None: they
            expire after a day, unless the bucket archives them already.
        shards: shards of a provisioned stream. None: on-demand, or as the existing stream is.
        dry_run: only say what would be done.

    Raises:
        SettingsError: an argument cannot be used.
        NotConfiguredError: credentials, region, bucket name or a right is missing, or a name belongs
            to something else; the text says what to do.
        UnavailableError: a service does not answer; the same call may work later.
    """
    if settings.embedded:
        _refuse_embedded(retention_hours=retention_hours, shards=shards, archive=archive_versions_after)
        steps = await _take(await _plan_folders(settings), dry_run=dry_run)
    else:
        steps = await _initialise_aws(
            settings, retention_hours, archive_versions_after, shards, dry_run=dry_run
        )
    return InitResult(steps, _environment(settings), dry_run)


async def _initialise_aws(
    settings: Settings,
    retention_hours: int | None,
    archive_after: int | None,
    shards: int | None,
    *,
    dry_run: bool,
) -> tuple[Step, ...]:
    try:
        from streamjournal.admin.init.dynamodb import TablePlan
        from streamjournal.admin.init.kinesis import StreamPlan
        from streamjournal.admin.init.s3 import BucketPlan
    except ImportError as problem:
        raise NotConfiguredError(
            f"the AWS packages are not installed ({problem}): pip install 'streamjournal[aws]'"
        ) from None
    plans: list[Plan] = [
        StreamPlan(settings, retention_hours=retention_hours, shards=shards),
        BucketPlan(settings, archive_versions_after=archive_after),
        TablePlan(settings),
    ]
    async with AsyncExitStack() as stack:
        for plan in plans:
            stack.push_async_callback(plan.aclose)
        return await _take([step for plan in plans for step in await plan.plan()], dry_run=dry_run)


async def _take(planned: Sequence[Planned], *, dry_run: bool) -> tuple[Step, ...]:
    for _, apply in planned:
        if apply is not None and not dry_run:
            await apply()
    return tuple(step for step, _ in planned)


async def _plan_folders(settings: Settings) -> list[Planned]:
    folders = {"home": settings.home_path}
    if settings.spool_path is not None:
        folders["spool"] = settings.spool_path
    return [await _plan_folder(name, anyio.Path(path)) for name, path in folders.items()]


async def _plan_folder(name: str, path: anyio.Path) -> Planned:
    if await path.is_dir():
        return unchanged(f"{name} folder", str(path))

    async def make() -> None:
        try:
            await path.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise NotConfiguredError(
                f"{name} folder {path} cannot be made ({problem}); set {variable_of(name)} to another one"
            ) from problem

    return Planned(Step(f"{name} folder", "created", str(path)), make)


def _refuse_embedded(*, retention_hours: int | None, shards: int | None, archive: int | None) -> None:
    """Options that would have no effect are an error, not a silence."""
    for name, value in (("retention_hours", retention_hours), ("shards", shards)):
        if value is not None:
            raise SettingsError(name, f"is {variable_of(name)} where no stream is configured (embedded)")
    if archive is not None:
        raise SettingsError("archive_versions_after", f"needs S3; set {variable_of('stream')} first")


def _environment(settings: Settings) -> tuple[str, ...]:
    if settings.embedded:
        values = {"home": str(settings.home_path)}
    else:
        values = {
            "stream": settings.stream or "",
            "bucket": settings.bucket_name(),
            "lease_table": settings.lease_table,
        }
        if settings.prefix != Settings().prefix:
            values["prefix"] = settings.prefix
    return tuple(f"export {variable_of(name)}={shlex.quote(value)}" for name, value in values.items())
