"""The page on operations names every event that a worker logs, and every metric that it serves."""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families

from streamjournal.admin.metrics import metrics_page
from streamjournal.core.clock import SYSTEM
from streamjournal.ingest.stats import Stats
from streamjournal.ingest.trouble import Trouble
from streamjournal.ingest.watchdog import Watchdog
from streamjournal.stream.memory import MemoryStream
from tests.docs.pages import ROOT, rows, section

PAGE = ROOT / "docs" / "operations.md"
SOURCES = [
    *(ROOT / "streamjournal" / "ingest").glob("*.py"),
    *(ROOT / "streamjournal" / "store").glob("*.py"),
    ROOT / "streamjournal" / "admin" / "worker_process.py",
]
_EVENT = re.compile(
    r"(?:_log\.(?:debug|info|warning|error)\(|_log\.info\)\(|_tell_of_shard\(|_Condition\()\s*"
    r'"(\w+)"(?:, "(\w+)")?(?=[,)])'
)


def events() -> set[str]:
    """The names of the events in the code."""
    found = {name for file in SOURCES for pair in _EVENT.findall(file.read_text()) for name in pair if name}
    return found | {"drained", "worker_stopped"}  # chosen by an expression


def test_every_event_is_explained() -> None:
    """And no event that there is not."""
    told = [name for row in rows(section(PAGE, "The log")) for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(told) == sorted(events())


def test_every_metric_is_explained() -> None:
    """By the name that Prometheus shows, and with its type; and no metric that there is not."""
    stats = Stats(retention_seconds=1.0)
    stats.lease_taken("s", SYSTEM.monotonic())
    watchdog = Watchdog(stats, Trouble(SYSTEM), MemoryStream(), SYSTEM)
    _, body = metrics_page(watchdog, SYSTEM)()
    served = {}
    for family in text_string_to_metric_families(body.decode()):
        if family.name.startswith("streamjournal_worker_"):
            name = family.name.removeprefix("streamjournal_worker_")
            labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
            name += "_total" if family.type == "counter" else ""
            served[name + (f"{{{labels[0]}}}" if labels else "")] = family.type
    table = [row for row in rows(section(PAGE, "Metrics and health")) if row[1] in set(served.values())]
    told = {name: row[1] for row in table for name in re.findall(r"`([\w{}]+)`", row[0])}
    assert told == served
