"""A real worker, seen from outside: its pages, its log, and `status`."""

from __future__ import annotations

import json
import signal
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.commands import Running, done_well, objects, run, running, until

pytestmark = pytest.mark.e2e


def page(port: int, path: str) -> tuple[int, str]:
    """A page's status and text."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def scrape(port: int) -> dict[str, float]:
    """The sum of each metric over its labels."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(page(port, "/metrics")[1]):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def port_of(worker: Running) -> int:
    """The port that it took."""
    return json.loads(worker.error_with("metrics_served"))["port"]


def event_of(worker: Running, name: str) -> dict:
    """The next line of the log with an event."""
    return json.loads(worker.error_with(f'"event": "{name}"'))


def test_a_worker_is_scraped_while_it_works_and_while_it_cannot(tmp_path: Path) -> None:
    """Numbers rise, readiness goes off with the reason and comes back; the pages end with the worker."""
    journals = tmp_path / "home" / "journals"
    done_well("write", "s", "NOTE")
    with running("worker", "--metrics-port", "0") as worker:
        port = port_of(worker)
        until(lambda: page(port, "/readyz") == (200, "ready\n"))
        until(lambda: scrape(port)["streamjournal_worker_commits_total"] == 1)
        found = scrape(port)
        assert found["streamjournal_worker_entries_total"] == 1
        assert found["streamjournal_worker_flush_seconds_count"] == 1
        assert found["streamjournal_worker_lease_changes_total"] == 4
        assert found["process_resident_memory_bytes"] > 1e6
        journals.rename(tmp_path / "aside")
        journals.touch()  # a file where the folder was: time alone does not mend it
        done_well("write", "s", "NOTE")
        until(lambda: page(port, "/readyz")[0] == 503)
        assert "store for shardId-" in page(port, "/readyz")[1]
        assert page(port, "/healthz") == (200, "alive\n")
        assert scrape(port)["streamjournal_worker_ready"] == 0
        journals.unlink()
        (tmp_path / "aside").rename(journals)
        until(lambda: page(port, "/readyz")[0] == 200)
        until(lambda: scrape(port)["streamjournal_worker_commits_total"] == 2)
        assert worker.end(signal.SIGTERM) == 0
        last = json.loads(worker.stderr.splitlines()[-1])
        assert (last["event"], last["entries"], last["commits"]) == ("worker_stopped", 2, 2)
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port))


def test_a_port_in_use_ends_the_worker_at_once() -> None:
    """Exit code 2 and one line that says what to do; nothing was taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("worker", "--metrics-port", str(port))
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert f"port {port} of 127.0.0.1 is in use" in line


def test_a_drain_ends_with_one_line_that_says_what_it_did() -> None:
    """Its shards' lines are there on demand only."""
    for n in range(3):
        done_well("write", "s", "NOTE", "-d", f"n={n}")
    lines = [json.loads(line) for line in run("worker", "--drain").stderr.splitlines()]
    assert [line["event"] for line in lines] == ["worker_started", "drained"]
    assert (lines[-1]["entries"], lines[-1]["commits"]) == (3, 1)
    assert 0 < lines[-1]["seconds"] < 20
    done_well("write", "s", "NOTE")
    lines = [json.loads(x) for x in run("worker", "--drain", "--log-level", "debug").stderr.splitlines()]
    assert [line["event"] for line in lines].count("shard_left") == 4
    assert {line["why"] for line in lines if line["event"] == "shard_left"} == {"the worker stops"}
    quiet = run("worker", "--drain", environment={"STREAMJOURNAL_LOG_LEVEL": "warning"})
    assert (quiet.returncode, quiet.stderr) == (0, b"")


def test_status_from_a_fresh_home_to_a_dead_worker() -> None:
    """Nothing yet; records and no worker; a worker; a killed worker and records."""
    fresh = run("status")
    assert (fresh.returncode, fresh.stderr) == (0, b"")
    assert b"nothing here yet" in fresh.stdout
    assert objects(done_well("status", "-o", "json"))[0]["stream"] is None
    done_well("write", "s", "NOTE")
    unheld = run("status")
    assert unheld.returncode == 1
    assert b"nobody holds shardId-" in unheld.stderr
    with running("worker") as worker:
        until(lambda: objects(run("status", "-o", "json").stdout)[0]["totals"]["held"] == 4)
        status = objects(done_well("status", "-o", "json"))[0]
        assert status["problems"] == []
        assert [(one["shards"], one["alive"]) for one in status["workers"]] == [(4, True)]
        table = done_well("status").decode()
        assert status["workers"][0]["worker"] in table
        assert "all is well: 4 of 4 shards held, everything is in its journal" in table
        worker.process.kill()
        worker.process.wait()
    done_well("write", "s", "NOTE")
    environment = {"STREAMJOURNAL_LEASE_SECONDS": "2"}  # how long it looks for a sign of life
    dead = run("status", "-o", "json", environment=environment)
    assert dead.returncode == 1
    (found,) = objects(dead.stdout)
    assert "no sign of life" in found["problems"][0]
    assert found["totals"]["with_records_waiting"] == 1


def test_status_of_what_cannot_be_reached() -> None:
    """Exit code 3, one line."""
    done = run(
        "status",
        environment={
            "STREAMJOURNAL_STREAM": "agents",
            "STREAMJOURNAL_BUCKET": "b",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
        },
    )
    assert (done.returncode, done.stdout) == (3, b"")
    assert len(done.stderr.splitlines()) == 1


def test_the_container_s_program_and_its_health_check() -> None:
    """`python -m journal_worker` serves where the image's variables say; the check asks it."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    consumers = str(Path(__file__).parents[2] / "consumers")
    environment = {
        "PYTHONPATH": consumers,
        "STREAMJOURNAL_METRICS_ADDRESS": "0.0.0.0",
        "STREAMJOURNAL_METRICS_PORT": str(port),
    }
    check = ("-m", "journal_worker.healthcheck")
    with running("-m", "journal_worker", environment=environment, program=sys.executable) as worker:
        event_of(worker, "worker_started")
        with running(*check, environment=environment, program=sys.executable) as asked:
            assert asked.line() == b"alive\n"
            assert asked.process.wait(10) == 0
        with running(*check, "/readyz", environment=environment, program=sys.executable) as asked:
            assert asked.line() == b"ready\n"
            assert asked.process.wait(10) == 0
        assert worker.end(signal.SIGTERM) == 0
    with running(*check, environment=environment, program=sys.executable) as asked:
        assert b"does not answer" in asked.line()
        assert asked.process.wait(10) == 1
