"""What every test gets: an environment of its own, and the emulators on demand."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest
import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest_plugins = ["tests.emulators.fixtures"]

_OURS = ("STREAMJOURNAL_", "JOURNAL_BUCKET", "AWS_")


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own settings and credentials reach no test, and no test writes into his home."""
    for name in [name for name in os.environ if name.startswith(_OURS)]:
        monkeypatch.delenv(name)
    nowhere = tmp_path / "no-aws-configuration"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(nowhere))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(nowhere))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # asking it for credentials takes seconds
    monkeypatch.setenv("STREAMJOURNAL_HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def clean_logging() -> Iterator[None]:
    """How a command that ran in this process logs is not how the next test's code does."""
    loggers = [logging.getLogger(name) for name in ("", "streamjournal", "streamjournal.emit")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Async tests run on asyncio, as AWS clients do; tests of the pipeline ask for trio."""
    return "asyncio"
