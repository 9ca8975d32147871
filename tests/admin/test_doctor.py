"""The doctor's parts in virtual time, and the embedded backend as a whole."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio

from streamjournal.admin.doctor import Check, Diagnosis, diagnose
from streamjournal.admin.doctor import home as doctor_home
from streamjournal.admin.doctor.check import Checks, ok
from streamjournal.admin.doctor.lag import check_lag
from streamjournal.admin.doctor.sources import check_settings
from streamjournal.core.clock import SYSTEM
from streamjournal.core.errors import (
    LeasesUnavailableError,
    NotConfiguredError,
    ThrottledError,
)
from streamjournal.core.position import SHARD_END
from streamjournal.core.settings import load
from streamjournal.emit.spool import Destination, Spool
from streamjournal.leases.memory import MemoryLeases
from streamjournal.leases.port import Lease
from streamjournal.store.files import FilesStore
from streamjournal.store.port import DeadLetter
from streamjournal.stream.memory import MemoryStream
from streamjournal.stream.port import PutRecord
from streamjournal.stream.sqlite import SqliteStream
from tests.emit.rigs import make_emitter, simulated, virtual_clock

DAY = 86_400.0


def by_name(checks: list[Check]) -> dict[str, Check]:
    """The checks; two of one name fail the test."""
    found = {check.name: check for check in checks}
    assert len(found) == len(checks)
    return found


# Settings


def test_each_setting_says_where_it_came_from() -> None:
    """From an argument, from which variable (the older name too), or from its default."""
    environ = {"STREAMJOURNAL_STREAM": "agents", "JOURNAL_BUCKET": "old-name", "STREAMJOURNAL_LINGER": "0.1"}
    settings = load(environ, linger=0.2)
    found = by_name(check_settings(settings, environ, {"linger"}))
    assert found["setting stream"].found == "agents (STREAMJOURNAL_STREAM)"
    assert found["setting bucket"].facts == {"value": "old-name", "source": "JOURNAL_BUCKET"}
    assert found["setting linger"].facts == {"value": 0.2, "source": "argument"}
    assert found["other settings"].facts["overflow"] == "drop"
    assert set(found["other settings"].facts) | {"stream", "bucket", "linger"} == set(
        settings.__struct_fields__
    )


def test_a_bucket_that_follows_from_the_account_says_so() -> None:
    """And one that nothing names is a failure, before anything is asked."""
    environ = {"STREAMJOURNAL_STREAM": "agents", "AWS_ACCOUNT_ID": "123456789012"}
    found = by_name(check_settings(load(environ), environ))
    assert found["setting bucket"].found == "session-journal-123456789012 (by AWS_ACCOUNT_ID)"
    environ = {"STREAMJOURNAL_STREAM": "agents"}
    none = by_name(check_settings(load(environ), environ))["setting bucket"]
    assert none.result == "failed"
    assert "STREAMJOURNAL_BUCKET" in none.remedy


def test_a_variable_that_is_misspelt_is_a_warning() -> None:
    """It has no effect, and looks as if it had."""
    environ = {"STREAMJOURNAL_BUKET": "b", "STREAMJOURNAL_ZZZZZZZZZZ": "1", "STREAMJOURNAL_STREAM": "agents"}
    found = by_name(check_settings(load(environ), environ))
    assert found["variable STREAMJOURNAL_BUKET"].result == "warning"
    assert found["variable STREAMJOURNAL_BUKET"].remedy == "did you mean STREAMJOURNAL_BUCKET?"
    assert found["variable STREAMJOURNAL_ZZZZZZZZZZ"].remedy == "unset it"


# The frame


@simulated
async def test_a_hanging_check_fails_after_its_time_and_those_after_it_are_skipped() -> None:
    """A network that swallows everything costs the time of one check for each service."""
    checks = Checks("Kinesis", 5.0)

    async def fine() -> Check:
        return ok("fine", "so")

    began = anyio.current_time()
    assert await checks.run("fine", fine)
    assert not await checks.run("hangs", anyio.sleep_forever)  # type: ignore[arg-type]
    assert not await checks.run("next", fine)
    assert anyio.current_time() - began == 5.0
    assert [(check.name, check.result) for check in checks.done] == [
        ("fine", "ok"),
        ("hangs", "failed"),
        ("next", "skipped"),
    ]
    assert "network" in checks.done[1].remedy


@simulated
async def test_what_went_wrong_is_told_with_its_remedy() -> None:
    """Our errors say what to do after the semicolon; a defect of the doctor's own hides nothing else."""
    checks = Checks("Kinesis", 5.0)
    problems: list[Exception] = [
        NotConfiguredError("there is no stream; make one"),
        ThrottledError("busy"),
        PermissionError(13, "Permission denied"),
        KeyError("x"),
        LeasesUnavailableError("no route"),
    ]
    for i, problem in enumerate(problems):

        async def look(problem: Exception = problem) -> Check:
            raise problem

        await checks.run(str(i), look)
    assert [check.result for check in checks.done] == ["failed", "warning", "failed", "failed", "failed"]
    assert (checks.done[0].found, checks.done[0].remedy) == ("there is no stream", "make one")
    assert "report" in checks.done[3].remedy
    assert "network" in checks.done[4].remedy
    assert checks.away


# Lag


class Bench:
    """A stream that keeps records for a day, and its leases."""

    def __init__(self, shards: int = 1) -> None:
        self.clock = virtual_clock()
        self.stream = MemoryStream(shards=shards, retention_seconds=DAY, clock=self.clock)
        self.leases = MemoryLeases()

    async def put(self, key: str = "s") -> str:
        """A record's sequence number."""
        (taken,) = await self.stream.put([PutRecord(key, b"{}")])
        return taken.sequence  # type: ignore[union-attr]

    async def lease(self, shard: str, **fields: Any) -> None:
        """A row of this stream."""
        identity = await self.stream.identity()
        fields = {"stream": f"{identity.arn} {identity.created}", "owner": "w1"} | fields
        await self.leases.create(Lease(shard, **fields))

    async def look(self, *, embedded: bool = False) -> dict[str, Check]:
        """What the doctor finds."""
        return by_name(await check_lag(self.stream, self.leases, self.clock, 5.0, embedded=embedded))


SHARD = "shardId-000000000000"


@pytest.mark.parametrize(
    ("hours", "result", "embedded"),
    [(5, "ok", "ok"), (6, "warning", "warning"), (11, "warning", "warning"), (12, "failed", "warning")],
)
def test_lag_is_judged_by_its_share_of_the_retention(hours: float, result: str, embedded: str) -> None:
    """The age of the oldest record after the checkpoint; embedded nothing is lost by it."""

    @simulated
    async def test() -> None:
        it = Bench()
        done = await it.put()
        await it.lease(SHARD, checkpoint=done)
        await anyio.sleep(60)
        await it.put()
        await anyio.sleep(hours * 3600)
        await it.put()
        check = (await it.look())[f"lag {SHARD}"]
        assert check.result == result
        assert abs(check.facts["behind_ms"] - hours * 3_600_000) < 1000
        assert (check.facts["checkpoint"], check.facts["owner"]) == (done, "w1")
        assert check.facts["share"] == round(hours / 24, 4)
        assert (await it.look(embedded=True))[f"lag {SHARD}"].result == embedded

    test()


@simulated
async def test_lag_without_a_worker() -> None:
    """Records that nobody will bring to a journal are a warning however young; without any there is none."""
    it = Bench(shards=2)
    idle = await it.look()
    assert {check.result for check in idle.values()} == {"ok"}
    await it.put()
    await anyio.sleep(1)
    found = [check for name, check in (await it.look()).items() if check.facts.get("behind_ms")]
    assert [check.result for check in found] == ["warning"]
    assert "streamjournal worker" in found[0].remedy


@simulated
async def test_lag_of_shards_that_ended_or_lost_records() -> None:
    """SHARD_END is done; records that went before they were read are a failure."""
    it = Bench(shards=1)
    first = await it.put()
    await it.put()
    last = await it.put()
    children = it.stream.split(SHARD)
    await it.lease(SHARD, checkpoint=SHARD_END)
    await it.lease(children[0])
    found = await it.look()
    assert found[f"lag {SHARD}"].result == "ok"
    assert "closed" in found[f"lag {SHARD}"].found

    other = Bench(shards=1)
    assert await other.put() == first
    await other.put()
    assert await other.put() == last
    await other.lease(SHARD, checkpoint=first)
    other.stream.trim_to(SHARD, str(int(first) + 1))
    gone = (await other.look())[f"lag {SHARD}"]
    assert gone.result == "failed"
    assert "gone" in gone.found


@simulated
async def test_lease_rows_of_another_stream_are_told_and_do_not_count() -> None:
    """A stream that was made anew under the same name starts with nothing read."""
    it = Bench()
    sequence = await it.put()
    await it.lease(SHARD, checkpoint=sequence, stream="arn:old 2025-01-01")
    found = await it.look()
    assert found["leases"].result == "warning"
    assert "arn:old 2025-01-01" in found["leases"].found
    assert found[f"lag {SHARD}"].facts["checkpoint"] is None


@simulated
async def test_a_table_of_another_application_ends_the_look_at_lag() -> None:
    """Its rows say nothing about our shards."""
    it = Bench()

    async def refuse() -> list[Lease]:
        raise NotConfiguredError("table t holds rows of another Kinesis application; set another")

    it.leases.rows = refuse  # type: ignore[method-assign]
    found = await it.look()
    assert list(found) == ["shards", "leases", "lag"]
    assert (found["leases"].result, found["lag"].result) == ("failed", "skipped")


@simulated
async def test_a_table_that_asks_for_patience_ends_the_look_at_lag() -> None:
    """Without checkpoints, everything that the stream still keeps would seem to wait."""
    it = Bench()
    await it.lease(SHARD, checkpoint=await it.put())
    await trio.sleep(0.9 * DAY)

    async def busy() -> list[Lease]:
        raise ThrottledError("busy")

    it.leases.rows = busy  # type: ignore[method-assign]
    results = {name: check.result for name, check in (await it.look()).items()}
    assert results == {"shards": "ok", "leases": "warning", "lag": "skipped"}


@simulated
async def test_a_stream_that_asks_for_patience_ends_the_look_at_lag() -> None:
    """Without its shards there is nothing to compare."""
    it = Bench()

    async def busy() -> Any:
        raise ThrottledError("busy")

    it.stream.identity = busy  # type: ignore[method-assign]
    found = await it.look()
    assert {name: check.result for name, check in found.items()} == {"shards": "warning"}


# Embedded


def doctor(**arguments: Any) -> Diagnosis:
    """A visit with the environment's settings."""

    async def visit() -> Diagnosis:
        return await diagnose(load(**arguments), environ=os.environ, arguments=arguments, timeout=5.0)

    return anyio.run(visit)


def write_one(home: Path) -> None:
    """A record on the embedded stream, with entry 1 of a writer."""

    async def go() -> None:
        stream = SqliteStream(home / "stream.db")
        await stream.put([PutRecord("s", b'{"session_id":"s","event_type":"A"}')])
        await stream.aclose()

    anyio.run(go)


def leave_spool(folder: Path, destination: Destination, *, count: int, alive: bool = False) -> Spool:
    """A spool with entries that the stream has not acknowledged."""
    emitter = make_emitter(folder)
    emitter.spool = Spool(folder, destination, SYSTEM)
    for _ in range(count):
        emitter.emit("E", session_id="s")
    if not alive:
        os.close(emitter.spool._lock_fd)
        emitter.spool._path = None
    return emitter.spool


def test_an_embedded_home_that_is_not_there_yet_is_fine_and_stays_so(tmp_path: Path) -> None:
    """Nothing is made by looking."""
    found = doctor(home=tmp_path / "not" / "yet")
    assert found.reached
    assert found.healthy
    assert list(tmp_path.iterdir()) == []
    checks = by_name(found.checks)
    assert checks["setting home"].facts["source"] == "argument"
    assert checks["lag"].result == "skipped"


def test_an_embedded_home_in_use(tmp_path: Path) -> None:
    """Everything that can be looked at is, and what was there is as it was."""
    write_one(tmp_path)
    (tmp_path / "spool").mkdir()
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    checks = by_name(doctor(home=tmp_path).checks)
    results = {name: check.result for name, check in checks.items() if check.result != "ok"}
    lagging = next(name for name, check in checks.items() if check.facts.get("behind_ms"))
    assert results == {"leases.db": "skipped", lagging: "warning"}
    assert checks["stream.db"].facts["journal_mode"] == "wal"
    assert len([name for name in checks if name.startswith("lag shardId-")]) == 4
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before


def test_a_damaged_stream_file_is_found(tmp_path: Path) -> None:
    """It fails, the rest goes on, and the file is not touched."""
    write_one(tmp_path)
    path = tmp_path / "stream.db"
    data = bytearray(path.read_bytes())
    data[8192 : 2 * 8192] = b"\xff" * 8192
    path.write_bytes(data)
    found = doctor(home=tmp_path)
    checks = by_name(found.checks)
    assert (found.healthy, found.reached) == (False, True)
    assert checks["stream.db"].result == "failed"
    assert checks["lag"].result == "skipped"
    assert checks["conditional writes"].result == "ok"
    assert path.read_bytes() == data


def test_a_file_that_is_no_database_is_found(tmp_path: Path) -> None:
    """With what SQLite says of it."""
    (tmp_path / "leases.db").write_bytes(b"no database" * 1000)
    check = by_name(doctor(home=tmp_path).checks)["leases.db"]
    assert check.result == "failed"
    assert "not a database" in check.found


def test_a_database_without_write_ahead_logging_is_a_warning(tmp_path: Path) -> None:
    """Readers and writers would wait for each other."""
    with sqlite3.connect(tmp_path / "leases.db") as db:
        db.execute("CREATE TABLE t (x)")
    db.close()
    check = by_name(doctor(home=tmp_path).checks)["leases.db"]
    assert check.result == "warning"
    assert "delete" in check.found


def test_a_home_that_cannot_be_used_is_not_reachable(tmp_path: Path) -> None:
    """A file in its place; nothing else can be looked at."""
    (tmp_path / "file").write_text("")
    found = doctor(home=tmp_path / "file" / "home")
    assert not found.reached
    assert by_name(found.checks)["home"].result == "failed"


@pytest.mark.parametrize(("free", "result"), [(2**40, "ok"), (2**29, "warning"), (2**20, "failed")])
def test_free_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, result: str) -> None:
    """Too little for what an emit buffer may spool is a failure."""
    monkeypatch.setattr(doctor_home.shutil, "disk_usage", lambda _: type("Usage", (), {"free": free}))
    assert by_name(doctor(home=tmp_path).checks)["free space"].result == result


def test_spools_left_behind_are_told_each(tmp_path: Path) -> None:
    """Which are alive, what the dead ones hold, and where it was to go; they are not touched."""
    folder = tmp_path / "spool"
    here = Destination(f"embedded:{tmp_path.resolve()}", "")
    alive = leave_spool(folder, here, count=2, alive=True)
    leave_spool(folder, here, count=3)
    leave_spool(folder, Destination("agents", "journals"), count=1)
    (folder / "notes").mkdir()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    checks = by_name(doctor(home=tmp_path).checks)
    summary = checks["spools"].facts
    assert (summary["alive"], summary["dead"], summary["unreadable"]) == (1, 2, 1)
    assert summary["bytes"] == 3 * 2**20
    told = {check.found: check for name, check in checks.items() if name.startswith("spool ")}
    assert f"3 entries of a dead process for stream {here.stream}" in told
    other = told["1 entry of a dead process for stream agents, bucket journals (not these settings')"]
    assert other.result == "warning"
    assert "streamjournal recover" in other.remedy
    assert checks["spool notes"].result == "warning"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    os.close(alive._lock_fd)
    alive._path = None


def test_spools_that_are_off_are_a_warning(tmp_path: Path) -> None:
    """What waits is then in memory only."""
    check = by_name(doctor(home=tmp_path, spool="off").checks)["spool folder"]
    assert check.result == "warning"


def test_dead_letters_are_counted(tmp_path: Path) -> None:
    """They wait for a person."""

    async def park() -> None:
        letters = [DeadLetter("0123456789abcdef", SHARD, str(n), 0, "k", "as told", b"x") for n in range(3)]
        await FilesStore(tmp_path).put_dead_letters(letters)

    anyio.run(park)
    check = by_name(doctor(home=tmp_path).checks)["dead letters"]
    assert (check.result, check.found) == ("warning", "3")


def test_checks_are_told_in_the_order_of_the_result(tmp_path: Path) -> None:
    """As soon as they are known."""
    told: list[Check] = []

    async def visit() -> Diagnosis:
        return await diagnose(load(home=tmp_path), environ={}, tell=told.append)

    assert anyio.run(visit).checks == told
