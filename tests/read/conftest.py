"""Async tests here run on trio, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Time jumps to the next deadline whenever nothing can run."""
    return "trio", {"clock": MockClock(autojump_threshold=0)}
