"""The spool: frames, torn frames, segments that are used again, full disks, folders."""

from __future__ import annotations

import errno
import logging
import os
import resource
import shutil
import struct
import subprocess
import sys
import threading

import pytest

from streamjournal.core.errors import SpoolBusyError, SpoolFormatError
from streamjournal.emit import spool as module
from streamjournal.emit.outbox import Account
from streamjournal.emit.recovery import Orphan
from streamjournal.emit.spool import FIRST_FRAME, FRAME, SEGMENT_BYTES, Destination, Spool
from streamjournal.emit.spool_folder import lock_folder, make_folder, spool_folders, sweep
from tests.emit.rigs import DESTINATION, HandClock, acknowledge_all, make_emitter, queued


def recovered(path):
    """(session, id) -> line, of what recovery would send, in its order."""
    orphan = Orphan(path)
    items = [item for outbox in orphan.outboxes(Account()) for item in outbox.items]
    found = {(item.outbox.session_id, item.id): item.line for item in items}
    assert len(found) == len(items)
    orphan.close()
    return found


def abandoned(emitter, folder):
    """The spool's folder after its process was killed: unlocked, nothing written at the end."""
    path = folder / emitter.spool.instance
    os.close(emitter.spool._lock_fd)
    emitter.spool._path = None
    return path


def pending(emitter):
    """(session, id) -> line, of what is queued, in its order."""
    return {(outbox.session_id, item.id): item.line for outbox in queued(emitter) for item in outbox.items}


def test_round_trip(tmp_path):
    """What emit accepted is what recovery finds: ids, bytes, order, whatever the size."""
    emitter = make_emitter(tmp_path)
    for i in range(200):
        emitter.emit("E", session_id=f"s{i % 3}", details={"i": i, "text": "é" * (i * 37 % 5000)})
    emitter.emit("E", session_id="s1", details={"text": "x" * (3 * SEGMENT_BYTES)})
    emitter.emit("E", session_id="s1")
    expected = pending(emitter)
    found = recovered(abandoned(emitter, tmp_path))
    assert found == expected
    assert list(found) == list(expected)


def test_acknowledged_frames_are_not_found(tmp_path):
    """Only what the stream does not have is recovered."""
    emitter = make_emitter(tmp_path)
    receipts = [emitter.emit("E", session_id="s") for _ in range(10)]
    for receipt in receipts[:4] + receipts[6:7]:
        receipt.segment.acknowledge(receipt.offset)
    found = recovered(abandoned(emitter, tmp_path))
    assert [int(i.partition("-")[2]) for _, i in found] == [5, 6, 8, 9, 10]


def test_torn_frame_at_every_byte(tmp_path):
    """A writer killed at any byte of its last frame leaves the frames before it, and nothing else."""
    emitter = make_emitter(tmp_path)
    for i in range(3):
        emitter.emit("E", session_id="s", details={"i": i})
    last = emitter.emit("E", session_id="s", details={"text": "the last"})
    segment, start, end = last.segment, last.offset, last.segment.used
    expected = dict(list(pending(emitter).items())[:-1])
    path = abandoned(emitter, tmp_path)
    whole = bytes(segment.map[start:end])
    body, header = whole[FRAME.size :], whole[: FRAME.size - 1]  # in the order they are written
    written = [*((start + FRAME.size + i, body[i]) for i in range(len(body))), *enumerate(header, start)]
    segment.map[start:end] = bytes(end - start)
    for offset, value in written[:-1]:
        assert recovered(path) == expected
        segment.map[offset] = value
    assert recovered(path) == expected
    segment.map[written[-1][0]] = written[-1][1]
    assert len(recovered(path)) == 4


def test_file_cut_at_every_frame_byte(tmp_path):
    """A segment that lost its end gives the frames that are whole."""
    emitter = make_emitter(tmp_path)
    receipts = [emitter.emit("E", session_id="s", details={"i": i}) for i in range(3)]
    lines = list(pending(emitter).values())
    start, end = receipts[-1].offset, receipts[-1].segment.used
    path = abandoned(emitter, tmp_path)
    (file,) = path.glob("*.seg")
    for size in range(end, start - 1, -1):
        os.truncate(file, size)
        assert list(recovered(path).values()) == (lines if size == end else lines[:2])
    os.truncate(file, 100)
    assert recovered(path) == {}


def test_segments_used_again_resurrect_nothing(tmp_path):
    """Frames of a segment's earlier use never come back, wherever its writer is killed."""
    emitter = make_emitter(tmp_path)
    clones = tmp_path / "clones"
    clones.mkdir()
    for turn in range(6):
        for i in range(1500):
            emitter.emit("E", session_id="s", details={"turn": turn, "text": "x" * (900 + i % 7)})
            if i % 250 == 0:
                clone = clones / f"{turn}{i}"
                shutil.copytree(tmp_path / emitter.spool.instance, clone)
                assert recovered(clone) == pending(emitter)
        acknowledge_all(emitter)
    assert emitter.spool._spares
    assert emitter.spool._epoch > 6


def test_killed_before_the_header(tmp_path):
    """A segment whose header was not finished is empty; the others are recovered all the same."""
    emitter = make_emitter(tmp_path)
    emitter.emit("E", session_id="s")
    expected = pending(emitter)
    path = abandoned(emitter, tmp_path)
    (path / "00000002.seg").write_bytes(b"")
    (path / "00000003.seg").write_bytes(bytes(SEGMENT_BYTES))
    assert recovered(path) == expected


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ((0, b"NOTSPOOL"), "is not a spool segment"),
        ((8, struct.pack("<H", 2)), "spool format 2"),
        ((20, b"}}}}"), "destination cannot be read"),
    ],
)
def test_unusable_segments(tmp_path, patch, message):
    """Not a spool's, of a newer format, or with a broken header: refused, and left as it is."""
    emitter = make_emitter(tmp_path)
    emitter.emit("E", session_id="s")
    path = abandoned(emitter, tmp_path)
    (file,) = path.glob("*.seg")
    with file.open("r+b") as f:
        f.seek(patch[0])
        f.write(patch[1])
    before = file.read_bytes()
    with pytest.raises(SpoolFormatError, match=message):
        Orphan(path)
    assert file.read_bytes() == before
    os.close(lock_folder(path))  # the lock was let go


def test_other_peoples_folders(tmp_path):
    """A folder that is no spool is never taken for one, whatever it looks like."""
    (tmp_path / "plain").mkdir()
    dpkg = tmp_path / "abcdefghij"
    dpkg.mkdir()
    (dpkg / "lock").touch()
    path, fd = make_folder(tmp_path, "mixed")
    os.close(fd)
    (path / "notes.txt").write_text("mine")
    for folder in spool_folders(tmp_path):
        with pytest.raises(SpoolFormatError, match="not a spool"):
            Orphan(folder)
    assert (path / "notes.txt").read_text() == "mine"
    assert (dpkg / "lock").exists()


def test_a_living_spool_is_busy(tmp_path):
    """Nobody can take the spool of a writer that lives, in its own process either."""
    emitter = make_emitter(tmp_path)
    emitter.emit("E", session_id="s")
    (path,) = spool_folders(tmp_path)
    with pytest.raises(SpoolBusyError):
        Orphan(path)
    emitter.spool.close()
    (path,) = spool_folders(tmp_path)
    Orphan(path).close()


def test_close(tmp_path):
    """A spool with nothing left in it is deleted; one with something is left."""
    for settle in (True, False):
        emitter = make_emitter(tmp_path)
        emitter.emit("E", session_id="s")
        if settle:
            acknowledge_all(emitter)
        assert emitter.spool.close() is settle
        assert len(list(tmp_path.iterdir())) == (not settle)
        assert emitter.spool.close()


def test_sweep(tmp_path):
    """Folders of processes killed while they made or deleted a spool go, an hour later."""
    hand = HandClock(wall=tmp_path.stat().st_mtime)
    killed = tmp_path / ".new-aaaaaaaaaa"
    killed.mkdir()
    _, fd = make_folder(tmp_path, "bbbbbbbbbb")
    alive = (tmp_path / "bbbbbbbbbb").rename(tmp_path / ".new-bbbbbbbbbb")
    deleting, fd2 = make_folder(tmp_path, "cccccccccc")
    os.close(fd2)
    deleting.rename(tmp_path / ".old-cccccccccc")
    (tmp_path / ".git").mkdir()
    assert sweep(tmp_path, hand.clock()) == 1
    hand.pass_time(3700)
    assert sweep(tmp_path, hand.clock()) == 1
    assert {p.name for p in tmp_path.iterdir()} == {alive.name, ".git"}
    os.close(fd)
    assert sweep(tmp_path, hand.clock()) == 1
    assert sweep(tmp_path / "absent", hand.clock()) == 0


def full(fd, offset, size):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk(tmp_path, monkeypatch, caplog):
    """With a full disk emit goes on in memory and says so once; it tries the disk every ten seconds."""
    hand = HandClock()
    emitter = make_emitter(tmp_path, hand.clock())
    real = os.posix_fallocate
    tries = []

    def refuse(*args):
        tries.append(args)
        full(*args)

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with caplog.at_level(logging.WARNING):
        for i in range(100):
            assert emitter.emit("E", session_id="s").n == i + 1
            hand.pass_time(0.25)
    assert len(tries) == 3
    assert [r.message for r in caplog.records if "the disk is full" in r.message] == [
        caplog.records[0].message
    ]
    assert "STREAMJOURNAL_SPOOL" in caplog.records[0].message
    monkeypatch.setattr(os, "posix_fallocate", real)
    hand.pass_time(10)
    receipt = emitter.emit("E", session_id="s")
    assert receipt.n == 101
    assert receipt.segment is not None
    assert list(recovered(abandoned(emitter, tmp_path))) == [("s", receipt.id)]


def test_disk_fills_up_later(tmp_path, monkeypatch, caplog):
    """A disk that fills up while there is a spool: what is in it stays, a small entry may still fit."""
    hand = HandClock()
    emitter = make_emitter(tmp_path, hand.clock())
    first = emitter.emit("E", session_id="s", details={"text": "x" * (SEGMENT_BYTES - 3000)})
    monkeypatch.setattr(os, "posix_fallocate", full)
    large = emitter.emit("E", session_id="s", details={"text": "x" * 10_000})
    small = emitter.emit("E", session_id="s")
    assert (first.n, large.n, small.n) == (1, 2, 3)
    assert large.segment is None
    assert small.segment is first.segment
    assert len(caplog.records) == 1
    assert set(recovered(abandoned(emitter, tmp_path))) == {("s", first.id), ("s", small.id)}


def test_file_system_without_fallocate(tmp_path, monkeypatch):
    """Where posix_fallocate does not exist for the file system, zeros are written instead."""

    def unsupported(fd, offset, size):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    emitter = make_emitter(tmp_path)
    receipt = emitter.emit("E", session_id="s")
    assert receipt.segment is not None
    assert receipt.segment.path.stat().st_blocks * 512 >= SEGMENT_BYTES


def test_no_right_to_write(tmp_path, monkeypatch, caplog):
    """A spool folder that cannot be made is the same as a full disk."""
    (tmp_path / "file").write_text("in the way")
    emitter = make_emitter(tmp_path / "file" / "spool")
    assert emitter.emit("E", session_id="s").n == 1
    assert "kept in memory only" in caplog.text


def test_destination_too_long(tmp_path, caplog):
    """A destination that a header cannot hold costs the spool, not the agent."""
    spool = Spool(tmp_path, Destination("x" * 1000, "y"), HandClock().clock())
    assert spool.segment_for(10) is None
    spool.complain()
    assert "too long" in caplog.text


def test_folder_deleted_behind_our_back(tmp_path):
    """When somebody deletes the spool's folder, the next segment begins another one."""
    emitter = make_emitter(tmp_path)
    emitter.emit("E", session_id="s")
    shutil.rmtree(tmp_path / emitter.spool.instance)
    for _ in range(3):
        emitter.emit("E", session_id="s", details={"text": "x" * 500_000})
    assert len(list(tmp_path.glob("*/*.seg"))) >= 1
    acknowledge_all(emitter)
    assert emitter.spool.close()


def test_the_complaint_is_said_outside_the_lock(tmp_path, monkeypatch):
    """A logging handler that emits, with another thread waiting for it, does not deadlock."""
    monkeypatch.setattr(os, "posix_fallocate", full)
    emitter = make_emitter(tmp_path)

    class Journaling(logging.Handler):
        def emit(self, record):
            emitter.emit("LOG", session_id="s", details={"message": record.getMessage()})

    log = logging.getLogger("streamjournal.emit")
    handler = Journaling()
    log.addHandler(handler)
    try:
        done = []

        def work():
            log.warning("from a thread")
            emitter.emit("E", session_id="s")
            done.append(True)

        handler.acquire()  # as a thread that is logging holds it
        thread = threading.Thread(target=lambda: (emitter.emit("E", session_id="s"), done.append(True)))
        thread.start()
        while emitter.accepted < 1:
            pass
        assert emitter.emit("E", session_id="s").n == 2  # with the handler's lock held, as it would be there
        handler.release()
        thread.join(5)
        work()
        assert len(done) == 2
    finally:
        log.removeHandler(handler)


_LIMITED = """
import resource, signal, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
import logging; logging.basicConfig(level="WARNING")
from pathlib import Path
from tests.emit.rigs import make_emitter
emitter = make_emitter(Path(sys.argv[1]))
for i in range(1000):
    assert emitter.emit("E", session_id="s", details={"text": "x" * 1000}).n == i + 1
print(emitter.delivery().pending)
"""


def test_file_size_limit(tmp_path):
    """Under RLIMIT_FSIZE the process lives on in memory (no SIGXFSZ, no SIGBUS), and says so once."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 500_000
    ended = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(tmp_path / "spool")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "1000"
    assert ended.stderr.count("no spool in") == 1


def test_real_small_disk(tmp_path):
    """On a real file system of 3 MiB that fills up, emit goes on and nothing is killed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.decode().strip()}")
    try:
        emitter = make_emitter(disk / "spool")
        receipts = [emitter.emit("E", session_id="s", details={"text": "x" * 10_000}) for _ in range(1000)]
        assert receipts[-1].n == 1000
        spooled = [("s", receipt.id) for receipt in receipts if receipt.segment is not None]
        assert 100 < len(spooled) < 400
        assert list(recovered(abandoned(emitter, disk / "spool"))) == spooled
        assert module.SEGMENT_BYTES > FIRST_FRAME
        for segment in emitter.spool._segments:
            segment.map.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_emitters_of_one_process_have_spools_of_their_own(tmp_path):
    """Two journals in one process share the folder, not the spool."""
    a, b = make_emitter(tmp_path), make_emitter(tmp_path)
    a.emit("E", session_id="s")
    b.emit("E", session_id="s")
    assert len(spool_folders(tmp_path)) == 2
    assert DESTINATION.bucket == ""
    acknowledge_all(a)
    assert a.spool.close()
    assert [p.name for p in spool_folders(tmp_path)] == [b.spool.instance]
