"""`init` and the stream: capacity, retention, and waiting for it."""

from __future__ import annotations

from typing import Any

import pytest

from streamjournal.admin.init import initialise
from streamjournal.admin.init import plan as init_plan
from streamjournal.core.errors import NotConfiguredError, UnavailableError
from streamjournal.core.settings import Settings, load
from tests.admin.account import Account, actions, detail, fields, override

pytestmark = [pytest.mark.anyio, pytest.mark.aws]


async def test_retention_goes_up_and_down_when_asked(account: Account, settings: Settings) -> None:
    """Kinesis has one call for each direction; each is a change, told with what was before."""
    await initialise(settings, retention_hours=48)
    assert account.stream(settings)["RetentionPeriodHours"] == 48
    longer = await initialise(settings, retention_hours=168)
    assert account.stream(settings)["RetentionPeriodHours"] == 168
    assert detail(longer, ": retention") == "records kept 168 hours (was 48)"
    shorter = await initialise(settings, retention_hours=24)
    assert account.stream(settings)["RetentionPeriodHours"] == 24
    assert actions(shorter)["stream retention"] == "changed"


async def test_retention_is_not_shortened_unasked(account: Account, settings: Settings) -> None:
    """A run without the option deletes no records; the setting alone may lengthen, not shorten."""
    await initialise(settings, retention_hours=168)
    assert actions(await initialise(settings))["stream retention"] == "unchanged"
    assert account.stream(settings)["RetentionPeriodHours"] == 168
    longer = load({}, **(fields(settings) | {"retention_hours": 200}))
    assert actions(await initialise(longer))["stream retention"] == "changed"
    assert account.stream(settings)["RetentionPeriodHours"] == 200


async def test_shards_of_an_existing_stream_change_when_asked(
    account: Account, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kinesis lets a call double or halve the number at most, so it goes there in steps."""
    targets: list[int] = []

    def bounded(real: Any) -> Any:
        async def update(**parameters: Any) -> Any:
            now = account.stream(settings)["OpenShardCount"]
            assert now / 2 <= parameters["TargetShardCount"] <= now * 2
            targets.append(parameters["TargetShardCount"])
            return await real(**parameters)

        return update

    await initialise(settings, shards=1)
    override(monkeypatch, "kinesis", update_shard_count=bounded)
    more = await initialise(settings, shards=3)
    assert detail(more, settings.stream_name) == "3 shards (was 1 shard)"
    assert account.stream(settings)["OpenShardCount"] == 3
    await initialise(settings, shards=1)
    assert account.stream(settings)["OpenShardCount"] == 1
    assert targets == [2, 3, 2, 1]


async def test_on_demand_stream_becomes_provisioned_when_asked(account: Account, settings: Settings) -> None:
    """A number of shards asks for provisioned capacity; none asked for leaves the mode alone."""
    await initialise(settings)
    result = await initialise(settings, shards=4)
    assert detail(result, settings.stream_name) == "4 shards (was on-demand)"
    stream = account.stream(settings)
    assert (stream["StreamModeDetails"]["StreamMode"], stream["OpenShardCount"]) == ("PROVISIONED", 4)
    assert actions(await initialise(settings))["stream"] == "unchanged"


async def test_stream_by_arn_is_made_only_where_the_arn_says(account: Account, settings: Settings) -> None:
    """An ARN of another region would be made here under another ARN; so it is refused before anything."""
    before = account.everything()
    elsewhere = f"arn:aws:kinesis:ap-south-1:123456789012:stream/{settings.stream}"
    with pytest.raises(NotConfiguredError, match="AWS_REGION=ap-south-1"):
        await initialise(load({}, **(fields(settings) | {"stream": elsewhere})))
    assert account.everything() == before
    here = f"arn:aws:kinesis:us-east-1:123456789012:stream/{settings.stream}"
    by_arn = load({}, **(fields(settings) | {"stream": here}))
    assert actions(await initialise(by_arn))["stream"] == "created"
    assert actions(await initialise(by_arn, retention_hours=30))["stream retention"] == "changed"


async def test_waits_until_the_stream_is_active(
    account: Account, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that is being created gets its retention once it is ACTIVE, not before."""
    seen: list[str] = []

    def slowly(real: Any) -> Any:
        async def describe(**parameters: Any) -> Any:
            answer = await real(**parameters)
            summary = answer["StreamDescriptionSummary"]
            summary["StreamStatus"] = "CREATING" if len(seen) < 3 else "ACTIVE"
            seen.append(summary["StreamStatus"])
            return answer

        return describe

    def recorded(real: Any) -> Any:
        async def increase(**parameters: Any) -> Any:
            seen.append("increase")
            return await real(**parameters)

        return increase

    override(
        monkeypatch, "kinesis", describe_stream_summary=slowly, increase_stream_retention_period=recorded
    )
    await initialise(settings, retention_hours=48)
    assert seen[:4] == ["CREATING"] * 3 + ["ACTIVE"]
    assert "increase" not in seen[:4]
    assert account.stream(settings)["RetentionPeriodHours"] == 48


async def test_stream_that_never_gets_active_ends_the_wait(
    account: Account, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait is bounded, and its end says that the same command may go on."""

    def stuck(real: Any) -> Any:
        async def describe(**parameters: Any) -> Any:
            answer = await real(**parameters)
            answer["StreamDescriptionSummary"]["StreamStatus"] = "CREATING"
            return answer

        return describe

    monkeypatch.setattr(init_plan, "READY_SECONDS", 0.05)
    override(monkeypatch, "kinesis", describe_stream_summary=stuck)
    with pytest.raises(UnavailableError, match=r"not ACTIVE .* run `streamjournal init` again"):
        await initialise(settings)


async def test_stream_that_is_being_deleted_is_refused(
    account: Account, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would be made of it would go with it."""
    await initialise(settings)

    def leaving(real: Any) -> Any:
        async def describe(**parameters: Any) -> Any:
            answer = await real(**parameters)
            answer["StreamDescriptionSummary"]["StreamStatus"] = "DELETING"
            return answer

        return describe

    override(monkeypatch, "kinesis", describe_stream_summary=leaving)
    with pytest.raises(NotConfiguredError, match="being deleted"):
        await initialise(settings, retention_hours=48)
