"""`init`'s part on Kinesis: the stream, its shards, and how long it keeps records."""

from __future__ import annotations

from typing import Any, Final

from streamjournal.admin.init.calls import Calls
from streamjournal.admin.init.plan import Planned, Step, refuse_deleting, unchanged, until_active
from streamjournal.core.errors import NotConfiguredError, SettingsError
from streamjournal.core.settings import Settings

_SHORTEST_HOURS: Final = 24  # Kinesis's own bounds; the shortest is also what a new stream has
_LONGEST_HOURS: Final = 8760
_ADVICE: Final = {
    "LimitExceededException": "a limit of the account is reached; raise it, or ask for less",
    "ResourceInUseException": "it is being changed already; run `streamjournal init` again in a minute",
}


class StreamPlan:
    """Plans one Kinesis stream.

    Args:
        settings: `stream` names it, by name or ARN.
        retention_hours: how long it keeps records. None: `settings.retention_hours`, but a stream
            that exists is then only ever told to keep them longer, because to shorten the retention
            deletes records.
        shards: so many, provisioned. None: on-demand for a new stream; one that exists stays as it is.

    Raises:
        SettingsError: Kinesis keeps no records for so long, or so short.
    """

    def __init__(self, settings: Settings, *, retention_hours: int | None, shards: int | None) -> None:
        self._given = settings.stream or ""
        self._name = settings.stream_name
        self._hours = _checked_hours(settings.retention_hours if retention_hours is None else retention_hours)
        self._may_shorten = retention_hours is not None
        self._shards = _checked_shards(shards)
        self._calls = Calls("kinesis", f"stream {self._name}", _ADVICE)

    async def plan(self) -> list[Planned]:
        """The steps for the stream."""
        found = await self._describe()
        if found is None:
            await self._refuse_another_region()
            detail = f"{_capacity(self._shards)}, {_kept(self._hours)}"
            return [Planned(Step(self._calls.what, "created", detail), self._create)]
        refuse_deleting(found["StreamStatus"], self._calls.what)
        return [self._plan_capacity(found), self._plan_retention(found)]

    async def aclose(self) -> None:
        """Free connections."""
        await self._calls.aclose()

    def _plan_capacity(self, found: dict[str, Any]) -> Planned:
        now = _provisioned(found)
        if self._shards in (None, now):
            return unchanged(self._calls.what, _capacity(now))
        detail = f"{_capacity(self._shards)} (was {_capacity(now)})"
        return Planned(Step(self._calls.what, "changed", detail), self._reshard)

    def _plan_retention(self, found: dict[str, Any]) -> Planned:
        resource, now = f"{self._calls.what}: retention", found["RetentionPeriodHours"]
        if now == self._hours or (now > self._hours and not self._may_shorten):
            return unchanged(resource, _kept(now))
        detail = f"{_kept(self._hours)} (was {now})"
        return Planned(Step(resource, "changed", detail), self._keep)

    async def _create(self) -> None:
        capacity: dict[str, Any] = {"StreamModeDetails": {"StreamMode": "ON_DEMAND"}}
        if self._shards is not None:
            capacity = {"StreamModeDetails": {"StreamMode": "PROVISIONED"}, "ShardCount": self._shards}
        there = ("ResourceInUseException",)
        await self._calls.ask("create_stream", expected=there, StreamName=self._name, **capacity)
        await self._until_active()
        await self._keep()

    async def _keep(self) -> None:
        """Set the retention, for which Kinesis has one call for each direction."""
        now = (await self._existing())["RetentionPeriodHours"]
        if now == self._hours:
            return
        operation = f"{'increase' if now < self._hours else 'decrease'}_stream_retention_period"
        await self._calls.ask(operation, RetentionPeriodHours=self._hours, **self._id())
        await self._until_active()

    async def _reshard(self) -> None:
        """Make it provisioned with the wanted number; a call may at most double or halve it."""
        wanted = self._shards
        assert wanted is not None
        found = await self._existing()
        if _provisioned(found) is None:
            mode = {"StreamMode": "PROVISIONED"}
            await self._calls.ask("update_stream_mode", StreamARN=found["StreamARN"], StreamModeDetails=mode)
            await self._until_active()
        while (now := int((await self._existing())["OpenShardCount"])) != wanted:
            target = min(wanted, now * 2) if now < wanted else max(wanted, (now + 1) // 2)
            await self._calls.ask(
                "update_shard_count", TargetShardCount=target, ScalingType="UNIFORM_SCALING", **self._id()
            )
            await self._until_active()

    async def _describe(self) -> dict[str, Any] | None:
        answer = await self._calls.ask(
            "describe_stream_summary", expected=("ResourceNotFoundException",), **self._id()
        )
        return answer["StreamDescriptionSummary"] if answer else None

    async def _existing(self) -> dict[str, Any]:
        found = await self._describe()
        if found is None:
            raise NotConfiguredError(
                f"{self._calls.what} was deleted meanwhile; run `streamjournal init` again"
            )
        return found

    async def _until_active(self) -> None:
        async def status() -> str:
            return str((await self._existing())["StreamStatus"])

        await until_active(status, self._calls.what)

    async def _refuse_another_region(self) -> None:
        """A stream given by ARN would be made in the session's region, under another ARN."""
        parts = self._given.split(":")
        region = await self._calls.region()
        if len(parts) > 3 and parts[3] != region:
            raise NotConfiguredError(
                f"{self._given} does not exist, and the AWS session's region is {region}; "
                f"set AWS_REGION={parts[3]} to make it there"
            )

    def _id(self) -> dict[str, str]:
        return {"StreamARN" if self._given.startswith("arn:") else "StreamName": self._given}


def _provisioned(found: dict[str, Any]) -> int | None:
    """The stream's shards, None if it is on-demand."""
    mode = found.get("StreamModeDetails", {}).get("StreamMode", "PROVISIONED")
    return None if mode == "ON_DEMAND" else int(found["OpenShardCount"])


def _capacity(shards: int | None) -> str:
    if shards is None:
        return "on-demand"
    return f"{shards} shard{'' if shards == 1 else 's'}"


def _kept(hours: int) -> str:
    return f"records kept {hours} hours"


def _checked_hours(hours: int) -> int:
    if not _SHORTEST_HOURS <= hours <= _LONGEST_HOURS:
        raise SettingsError(
            "retention_hours",
            f"{hours} cannot be used; Kinesis keeps records {_SHORTEST_HOURS} to {_LONGEST_HOURS} hours",
        )
    return hours


def _checked_shards(shards: int | None) -> int | None:
    if shards is not None and shards < 1:
        raise SettingsError("shards", f"{shards} cannot be used; a stream has at least one")
    return shards
