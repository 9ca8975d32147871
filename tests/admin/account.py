"""The emulated account that `init` works on, and how its tests read what was done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from streamjournal.admin.init import InitResult
from streamjournal.core.aws import AwsClient
from streamjournal.core.settings import Settings


class Account:
    """The emulated account, as another program sees it."""

    def __init__(self, endpoint: str, client: Callable[[str, str], Any]) -> None:
        self.kinesis = client("kinesis", endpoint)
        self.s3 = client("s3", endpoint)
        self.dynamodb = client("dynamodb", endpoint)

    def stream(self, settings: Settings) -> dict[str, Any]:
        """The stream's summary."""
        answer = self.kinesis.describe_stream_summary(StreamName=settings.stream_name)
        return dict(answer["StreamDescriptionSummary"])

    def rules(self, settings: Settings) -> dict[str, dict[str, Any]]:
        """The bucket's lifecycle rules, by id."""
        answer = self.s3.get_bucket_lifecycle_configuration(Bucket=settings.bucket)
        return {rule["ID"]: rule for rule in answer["Rules"]}

    def everything(self) -> tuple[Any, Any, Any]:
        """The names of all that exists."""
        return (
            self.kinesis.list_streams()["StreamNames"],
            [bucket["Name"] for bucket in self.s3.list_buckets()["Buckets"]],
            self.dynamodb.list_tables()["TableNames"],
        )


def actions(result: InitResult) -> dict[str, str]:
    """What was done, by resource, without the names: `stream`, `stream retention`, …"""
    done = {}
    for step in result.steps:
        resource, _, aspect = step.resource.partition(":")
        done[resource.partition(" ")[0] + aspect] = step.action
    return done


def detail(result: InitResult, end: str) -> str:
    """The detail of the one step whose resource ends so."""
    (found,) = (step.detail for step in result.steps if step.resource.endswith(end))
    return found


def fields(settings: Settings) -> dict[str, Any]:
    """The settings as arguments, to make others of them."""
    return {name: getattr(settings, name) for name in settings.__struct_fields__}


def override(monkeypatch: pytest.MonkeyPatch, service: str, **operations: Callable[[Any], Any]) -> None:
    """Put something between the adapters and some of a service's operations."""
    get = AwsClient.get

    async def overridden(self: AwsClient) -> Any:
        client = await get(self)
        if self.service != service:
            return client

        class Proxy:
            def __getattr__(self, name: str) -> Any:
                real = getattr(client, name)
                return operations[name](real) if name in operations else real

        return Proxy()

    monkeypatch.setattr(AwsClient, "get", overridden)
