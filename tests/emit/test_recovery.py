"""Recovery: what dead processes left is sent under its old ids, once, and nothing else is touched."""

from __future__ import annotations

import logging
import os
from contextlib import asynccontextmanager

import anyio
import pytest

from streamjournal.emit.recovery import Orphan, destinations, recover_folder
from streamjournal.emit.spool import Destination, Spool
from streamjournal.emit.spool_folder import spool_folders
from tests.emit.rigs import DESTINATION, make_emitter, pipeline, queued, simulated
from tests.emit.test_sender import answer_lost, lost, poisoned


def leave_orphan(folder, count=10, sessions=2, destination=DESTINATION):
    """A dead process's spool; gives the ids in it, per session."""
    emitter = make_emitter(folder)
    emitter.spool = Spool(folder, destination, emitter._clock)
    for i in range(count):
        emitter.emit("E", session_id=f"s{i % sessions}", details={"text": "x" * 300_000 if i == 3 else ""})
    ids = {o.session_id: [item.id for item in o.items] for o in queued(emitter)}
    os.close(emitter.spool._lock_fd)
    emitter.spool._path = None
    return ids


@asynccontextmanager
async def recovering(**settings):
    async with pipeline(**settings) as it:
        yield it


def taken_ids(it):
    return {s: [entry["id"] for entry in entries] for s, entries in it.stream.taken().items()}


@simulated
async def test_recovered_under_old_ids(tmp_path):
    """Each orphan is sent in order under its old ids, and deleted."""
    first, second = leave_orphan(tmp_path), leave_orphan(tmp_path, count=3)
    async with recovering() as it:
        done = await recover_folder(it.sender, tmp_path, DESTINATION)
    assert (done.spools, done.entries, done.skipped) == (2, 13, [])
    assert taken_ids(it) == {s: first[s] + second[s] for s in first}
    assert list(tmp_path.iterdir()) == []


@simulated
async def test_recovery_through_faults(tmp_path):
    """The orphan stays until everything in it is acknowledged, whatever happens on the way."""
    ids = leave_orphan(tmp_path)
    async with recovering() as it:
        it.stream.faults = [lost, answer_lost, lost]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(recover_folder, it.sender, tmp_path, DESTINATION)
            await anyio.sleep(0.12)
            assert len(spool_folders(tmp_path)) == 1
    assert {s: list(dict.fromkeys(i)) for s, i in taken_ids(it).items()} == ids
    assert list(tmp_path.iterdir()) == []


@simulated
async def test_recovery_beside_the_same_session(tmp_path):
    """A session that goes on in the new process while its old entries are sent: never two calls at once."""
    ids = leave_orphan(tmp_path, count=100)
    async with recovering(spool_folder=tmp_path) as it:
        it.stream.faults = [lost, None, lost]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(recover_folder, it.sender, tmp_path, DESTINATION)
            for i in range(100):
                it.emit(f"s{i % 2}")
                await anyio.sleep(0.01)
        await it.flush()
    for session_id, found in taken_ids(it).items():
        assert [i for i in found if i in set(ids[session_id])] == ids[session_id]
        assert len(found) == len(set(found)) == 100


@simulated
async def test_timeout(tmp_path):
    """With the stream away it gives up after the timeout, leaves the spool whole, and sends no more of it."""
    ids = leave_orphan(tmp_path)
    async with recovering() as it:
        it.stream.always = lost
        done = await recover_folder(it.sender, tmp_path, DESTINATION, timeout=30)
        assert (done.spools, done.entries) == (0, 0)
        assert "did not acknowledge" in done.skipped[0][1]
        it.stream.always = None
        await anyio.sleep(60)
        assert it.stream.taken() == {}
        assert (await recover_folder(it.sender, tmp_path, DESTINATION, timeout=30)).entries == 10
    assert taken_ids(it) == ids


@simulated
async def test_timeout_during_a_call(tmp_path):
    """A call that is under way at the timeout ends without harm; its entries keep their spool."""
    leave_orphan(tmp_path)
    async with recovering(seconds=10.0) as it:
        done = await recover_folder(it.sender, tmp_path, DESTINATION, timeout=5)
        assert len(done.skipped) == 1
        await anyio.sleep(30)
        it.emit("s0")
        await it.flush()
        assert len(spool_folders(tmp_path)) == 1
        done = await recover_folder(it.sender, tmp_path, DESTINATION, timeout=60)
        assert done.entries == 10
    assert all(len(set(ids)) >= 5 for ids in taken_ids(it).values())


@simulated
async def test_refused_for_good(tmp_path):
    """An entry that the stream refuses is parked; the spool is done with all the same."""
    leave_orphan(tmp_path)
    async with recovering() as it:
        it.stream.always = poisoned(b"x" * 300_000)
        done = await recover_folder(it.sender, tmp_path, DESTINATION)
        assert done.entries == 9
        assert len(it.store.dead_letters) == 1
    assert list(tmp_path.iterdir()) == []


@simulated
async def test_another_destination(tmp_path, caplog):
    """A spool of another stream is not sent here; it is told of and left."""
    elsewhere = Destination("arn:aws:kinesis:eu-west-1:1:stream/agents", "bucket")
    leave_orphan(tmp_path, destination=elsewhere)
    here = leave_orphan(tmp_path)
    assert destinations(tmp_path) == {elsewhere: 1, DESTINATION: 1}
    async with recovering() as it:
        done = await recover_folder(it.sender, tmp_path, DESTINATION)
        assert done.spools == 1
        ((path, why),) = done.skipped
        assert "stream/agents" in why
        assert "stream/agents" in caplog.text
        assert path.exists()
    assert taken_ids(it) == here


@pytest.mark.parametrize("harm", ["newer", "not a spool", "unreadable", "foreign frame"])
@simulated
async def test_unusable_spools_are_left(tmp_path, harm, caplog):
    """A spool that cannot be used is told of and left in place; the others are recovered."""
    leave_orphan(tmp_path)
    (bad,) = spool_folders(tmp_path)
    (file, *_) = sorted(bad.glob("*.seg"))
    if harm == "newer":
        with file.open("r+b") as f:
            f.seek(8)
            f.write(b"\x09\x00")
    elif harm == "not a spool":
        (bad / "lock").unlink()
    elif harm == "unreadable":
        file.unlink()
        file.mkdir()  # root may read anything, but not a folder
    else:
        emitter = make_emitter(tmp_path / "other")
        segment = emitter.spool.segment_for(100)
        segment.append(b'{"id":"x","session_id":"s"}')
        os.close(emitter.spool._lock_fd)
        (tmp_path / "other" / emitter.spool.instance).rename(tmp_path / emitter.spool.instance)
        (tmp_path / "other").rmdir()
        bad.rename(bad.with_name("zzzzzzzzzz"))
        bad = tmp_path / emitter.spool.instance
    before = {p: p.read_bytes() for p in bad.iterdir() if p.is_file()}
    if harm != "foreign frame":
        leave_orphan(tmp_path)
    async with recovering() as it:
        with caplog.at_level(logging.WARNING):
            done = await recover_folder(it.sender, tmp_path, DESTINATION)
    assert (done.spools, done.entries) == (1, 10)
    assert [path for path, _ in done.skipped] == [bad]
    assert f"{bad} is left as it is" in caplog.text
    assert {p: p.read_bytes() for p in bad.iterdir() if p.is_file()} == before


@simulated
async def test_empty_spools_are_deleted(tmp_path):
    """A process that was killed before its first frame leaves a folder that goes without a call."""
    emitter = make_emitter(tmp_path)
    emitter.spool.segment_for(10)
    os.close(emitter.spool._lock_fd)
    async with recovering() as it:
        done = await recover_folder(it.sender, tmp_path, DESTINATION)
        assert (done.spools, done.entries, it.stream.calls) == (1, 0, [])
    assert list(tmp_path.iterdir()) == []


@simulated
async def test_living_spools_are_not_touched(tmp_path):
    """Neither another process's that lives, nor the recoverer's own."""
    other = make_emitter(tmp_path)
    receipt = other.emit("E", session_id="s")
    async with recovering(spool_folder=tmp_path) as it:
        it.emit()
        done = await recover_folder(it.sender, tmp_path, DESTINATION)
        await it.flush()
        assert (done.spools, done.skipped) == (0, [])
        assert len(it.stream.taken()["s"]) == 1
        assert receipt.segment.path.exists()
        assert len(spool_folders(tmp_path)) == 2


@simulated
async def test_two_recoverers(tmp_path):
    """Two that recover one folder at once send each spool once."""
    for _ in range(4):
        leave_orphan(tmp_path, count=20)
    results = []
    async with recovering() as a, recovering() as b:

        async def recover(it):
            results.append(await recover_folder(it.sender, tmp_path, DESTINATION))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(recover, a)
            tasks.start_soon(recover, b)
    assert sum(done.entries for done in results) == 80
    assert sum(done.spools for done in results) == 4
    sent = [i for it in (a, b) for ids in taken_ids(it).values() for i in ids]
    assert len(sent) == 80
    assert list(tmp_path.iterdir()) == []


def test_finish_needs_the_folder_only(tmp_path):
    """What is finished is gone at once for everybody else, and a second look finds nothing."""
    leave_orphan(tmp_path)
    (path,) = spool_folders(tmp_path)
    orphan = Orphan(path)
    orphan.finish()
    assert spool_folders(tmp_path) == []
    orphan.close()
    assert destinations(tmp_path) == {}
