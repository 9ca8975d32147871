"""The worker's pages: what they say, and that nobody who asks can hold up anything."""

from __future__ import annotations

import builtins
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streamjournal.admin.metrics_server import _MAX_CLIENTS, MetricsServer, _Handler
from streamjournal.core.clock import SYSTEM, Clock
from streamjournal.core.errors import NotConfiguredError, SettingsError
from streamjournal.ingest.stats import Stats
from streamjournal.ingest.trouble import Trouble
from streamjournal.ingest.watchdog import Watchdog
from streamjournal.stream.memory import MemoryStream

LOOPBACK = "127.0.0.1"
PREFIX = "streamjournal_worker_"


@pytest.fixture
def now() -> list[float]:
    """The watchdog's time."""
    return [100.0]


@pytest.fixture
def watchdog(now: list[float]) -> Watchdog:
    """A watchdog that has nothing to say."""
    clock = Clock(monotonic=lambda: now[0], time_ns=lambda: int(now[0] * 1e9))
    dog = Watchdog(Stats(), Trouble(clock), MemoryStream(), clock)
    dog.probed = True
    dog.clock = clock  # type: ignore[attr-defined]
    return dog


@pytest.fixture
def server(watchdog: Watchdog) -> Iterator[MetricsServer]:
    """Its pages, at a free port."""
    server = MetricsServer(watchdog, watchdog.clock, LOOPBACK, 0)  # type: ignore[attr-defined]
    yield server
    server.close()


def get(server: MetricsServer, page: str, method: str = "GET") -> tuple[int, str]:
    """A page's status and text."""
    connection = http.client.HTTPConnection(LOOPBACK, server.port, timeout=10)
    connection.request(method, page)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def samples(server: MetricsServer) -> dict[tuple[str, str], float]:
    """(name, value of its only label or "") -> value."""
    status, text = get(server, "/metrics")
    assert status == 200
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name.removeprefix(PREFIX), "".join(sample.labels.values())] = sample.value
    return found


def test_every_number_is_served(server: MetricsServer, watchdog: Watchdog, now: list[float]) -> None:
    """Counters, gauges per shard in seconds, and a histogram whose buckets add up."""
    stats = watchdog.stats
    stats.records, stats.entries, stats.bytes, stats.commits = 1, 2, 3, 4
    stats.conflicts, stats.duplicates, stats.dead_letters, stats.buffered_bytes = 5, 6, 7, 8
    stats.retention_seconds = 1000.0
    stats.lease_taken("a", 90.0)
    stats.lease_taken("b", 90.0)
    stats.lease_gone("b", "lost")
    stats.lease_asked_for()
    stats.held["a"].read(100.0, 1500, found=True)
    stats.held["a"].oldest_ms = 50_000
    for seconds in (0.001, 0.2, 0.2, 99.0):
        stats.flushes.add(seconds)
    found = samples(server)
    names = ("records", "entries", "bytes", "commits", "conflicts", "duplicates", "dead_letters")
    assert [found[f"{name}_total", ""] for name in names] == [1, 2, 3, 4, 5, 6, 7]
    assert found["buffered_bytes", ""] == 8
    assert found["lease_changes_total", "taken"] == 2
    assert found["lease_changes_total", "lost"] == 1
    assert found["lease_changes_total", "asked_for"] == 1
    assert found["lag_seconds", "a"] == 1.5
    assert found["unwritten_age_seconds", "a"] == 50
    assert found["lag_retention_ratio", "a"] == 0.05
    assert ("lag_seconds", "b") not in found
    assert found["shards", ""] == 1
    assert found["flush_seconds_count", ""] == 4
    assert found["flush_seconds_sum", ""] == pytest.approx(99.401)
    assert found["flush_seconds_bucket", "0.005"] == 1
    assert found["flush_seconds_bucket", "0.25"] == 3
    assert found["flush_seconds_bucket", "60.0"] == 3
    assert found["flush_seconds_bucket", "+Inf"] == 4
    assert found["ready", ""] == 1


def test_readiness_and_its_reasons(server: MetricsServer, watchdog: Watchdog, now: list[float]) -> None:
    """503 with a line for each reason; 200 again when they are gone."""
    assert get(server, "/readyz") == (200, "ready\n")
    watchdog.probed = False
    assert get(server, "/readyz")[0] == 503
    assert "the store has not shown yet" in get(server, "/readyz")[1]
    watchdog.probed = True
    watchdog.stats.lease_taken("a", 100.0)
    for now[0] in range(101, 132):
        watchdog.look()
    status, text = get(server, "/readyz?verbose")
    assert (status, text) == (503, "a stands still: nothing has been read or written for 31 s\n")
    assert samples(server)["shards_standing_still", ""] == 1
    assert samples(server)["ready", ""] == 0
    watchdog.stats.held["a"].wrote(131.0)
    watchdog.look()
    assert get(server, "/readyz") == (200, "ready\n")
    watchdog.stopping = True
    assert get(server, "/readyz") == (503, "it is stopping\n")


def test_health_is_whether_the_event_loop_runs(
    server: MetricsServer, watchdog: Watchdog, now: list[float]
) -> None:
    """Not whether it is ready: restarting it would not bring a store back."""
    watchdog.probed = False
    assert get(server, "/healthz") == (200, "alive\n")
    now[0] += 12
    assert get(server, "/healthz") == (503, "the event loop has not answered for 12 s\n")
    assert get(server, "/readyz")[0] == 503
    watchdog.look()
    assert get(server, "/healthz")[0] == 200


def test_other_pages_and_methods(server: MetricsServer) -> None:
    """404 names what there is; HEAD is answered without a body; nothing can be posted."""
    assert get(server, "/") == (404, "there is: /metrics /healthz /readyz\n")
    assert get(server, "/healthz", "HEAD") == (200, "")
    assert get(server, "/healthz", "POST")[0] == 501


def test_clients_that_say_nothing_hold_up_nobody(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They get no more than so many threads, and further ones are let go at once; closing waits for none."""
    monkeypatch.setattr(_Handler, "timeout", 60)
    silent = [socket.create_connection((LOOPBACK, server.port)) for _ in range(_MAX_CLIENTS - 1)]
    more: list[socket.socket] = []
    try:
        assert get(server, "/healthz")[0] == 200
        more += [socket.create_connection((LOOPBACK, server.port)) for _ in range(20)]
        more[-1].settimeout(30)
        assert more[-1].recv(1) == b""  # let go at once
        assert threading.active_count() < _MAX_CLIENTS + 20
        began = time.monotonic()
        server.close()
        assert time.monotonic() - began < 30  # a tenth of a second on an idle machine
    finally:
        for client in silent + more:
            client.close()


def test_a_client_that_says_nothing_is_let_go_after_a_while(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that threads are not held for ever by connections that somebody forgot."""
    monkeypatch.setattr(_Handler, "timeout", 0.1)
    with socket.create_connection((LOOPBACK, server.port)) as silent:
        silent.settimeout(30)
        assert silent.recv(1) == b""


def test_a_port_in_use_is_a_setting_that_cannot_be_used(server: MetricsServer, watchdog: Watchdog) -> None:
    """The text names the port, the option and the variable."""
    with pytest.raises(SettingsError, match=rf"{server.port}.*in use.*--metrics-port"):
        MetricsServer(watchdog, SYSTEM, LOOPBACK, server.port)


@pytest.mark.parametrize("address", ["203.0.113.7", "not an address"])
def test_an_address_that_is_not_ours(address: str, watchdog: Watchdog) -> None:
    """The text says which addresses there are."""
    with pytest.raises(SettingsError, match=r"metrics_address.*127\.0\.0\.1"):
        MetricsServer(watchdog, SYSTEM, address, 0)


def test_without_the_package(watchdog: Watchdog, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text says how to install it."""
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.startswith("prometheus_client"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(NotConfiguredError, match=r"pip install 'streamjournal\[metrics\]'"):
        MetricsServer(watchdog, SYSTEM, LOOPBACK, 0)
