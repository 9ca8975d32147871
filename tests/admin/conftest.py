"""What the tests of `init` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from streamjournal.admin.init import plan as init_plan
from streamjournal.core.settings import Settings, load
from tests.admin.account import Account
from tests.emulators.fixtures import unique_name


@pytest.fixture
def account(aws_emulator: str, aws_client: Callable[[str, str], Any]) -> Account:
    """The emulated account."""
    return Account(aws_emulator, aws_client)


@pytest.fixture
def settings() -> Settings:
    """Names that nobody has used."""
    return load(
        {}, stream=unique_name("stream"), bucket=unique_name("bucket"), lease_table=unique_name("leases")
    )


@pytest.fixture(autouse=True)
def short_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for a resource asks again at once."""
    monkeypatch.setattr(init_plan, "POLL_SECONDS", 0.0)
