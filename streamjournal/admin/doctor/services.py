"""The three services of the AWS backend, as the doctor visits them."""

from __future__ import annotations

from functools import partial

from streamjournal import wiring
from streamjournal.admin.doctor.aws import Service, judge_clock, look_at_credentials
from streamjournal.admin.doctor.check import Check, Checks, failed_by
from streamjournal.admin.doctor.dynamodb import check_table
from streamjournal.admin.doctor.kinesis import check_stream
from streamjournal.admin.doctor.s3 import check_bucket
from streamjournal.core.clock import Clock
from streamjournal.core.errors import NotConfiguredError
from streamjournal.core.settings import Settings
from streamjournal.store.port import Store


class Services:
    """Kinesis, S3 and DynamoDB, one client each.

    Args:
        seconds: for each check.

    Attributes:
        store: the store of the settings; None if no bucket is configured.
    """

    def __init__(self, settings: Settings, clock: Clock, seconds: float) -> None:
        self._settings = settings
        self._clock = clock
        self._seconds = seconds
        make = partial(Service, clock=clock, seconds=seconds)
        self._kinesis, self._s3, self._dynamodb = make("kinesis"), make("s3"), make("dynamodb")
        self.store: Store | None = None
        try:
            self.store = wiring.open_store(settings, clock)
        except NotConfiguredError as problem:
            self._no_bucket = problem

    @property
    def answered(self) -> bool:
        """Whether any of them said anything."""
        return any(it.answered for it in (self._kinesis, self._s3, self._dynamodb))

    @property
    def bucket_there(self) -> bool:
        """Whether the bucket can be looked into."""
        return self._s3.there

    @property
    def stream_and_table_there(self) -> bool:
        """Whether lag can be asked for."""
        return self._kinesis.there and self._dynamodb.there

    async def credentials(self) -> list[Check]:
        """What the SDK finds."""
        checks = Checks("AWS", self._seconds)
        await look_at_credentials(self._clock, checks)
        return checks.done

    async def stream(self) -> list[Check]:
        """See `kinesis.check_stream`."""
        return await check_stream(self._settings, self._kinesis, self._seconds)

    async def bucket(self) -> list[Check]:
        """See `s3.check_bucket`."""
        if self.store is None:
            return [failed_by("bucket", self._no_bucket)]
        token = self._clock.draw_id()
        return await check_bucket(self._settings, self._s3, self.store, self._seconds, token)

    async def table(self) -> list[Check]:
        """See `dynamodb.check_table`."""
        return await check_table(self._settings, self._dynamodb, self._seconds, self._clock.draw_id())

    def clock(self) -> Check:
        """How far this machine's clock is from theirs."""
        return judge_clock((self._kinesis, self._s3, self._dynamodb))

    async def aclose(self) -> None:
        """Free connections."""
        for it in (self._kinesis, self._s3, self._dynamodb):
            await it.aclose()
        if self.store is not None:
            await self.store.aclose()
