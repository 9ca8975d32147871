"""An embedded journal for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from streamjournal import Journal


@pytest.fixture
def journal() -> Iterator[Journal]:
    """A sync journal, embedded in the test's own folder."""
    with Journal() as opened:
        yield opened
