"""A journal for the seed functions, which a process otherwise makes once and keeps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from streamjournal import Journal
from streamjournal.agents.session_journal import use_journal


@pytest.fixture(autouse=True)
def journal() -> Iterator[Journal]:
    """Embedded in the test's own folder."""
    with Journal() as opened:
        use_journal(opened)
        yield opened
        use_journal(None)
