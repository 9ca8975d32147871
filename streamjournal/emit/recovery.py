"""Recovery: sending what dead processes left in their spools, under its old ids.

A spool is an orphan when its lock can be had: the lock is liveness, a pid is not (containers share
homes, and pids come back). Two processes that recover at once cannot both have it; and who gets it
second finds that the file is no longer the one at that name.
"""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import anyio
import msgspec

from streamjournal.core.entry import decode_envelope, split_id
from streamjournal.core.errors import SpoolBusyError, SpoolError, SpoolFormatError
from streamjournal.emit.outbox import Account, Outbox
from streamjournal.emit.receipt import Receipt
from streamjournal.emit.sender import Sender
from streamjournal.emit.spool import (
    FIRST_FRAME,
    FORMAT_VERSION,
    FRAME,
    HEADER,
    Destination,
    Segment,
)
from streamjournal.emit.spool_folder import (
    MAGIC,
    lock_folder,
    remove_folder,
    segment_files,
    spool_folders,
    sweep,
)

_log = logging.getLogger("streamjournal.emit")
_LAST_SERIAL = 2**62  # so that no flush of the emitter's own entries waits for recovered ones


class Recovered(NamedTuple):
    """What a recovery did.

    Args:
        spools: emptied and deleted.
        entries: sent and acknowledged.
        skipped: spools that could not be used, with the reason.
    """

    spools: int
    entries: int
    skipped: list[tuple[Path, str]]


class Orphan:
    """A dead process's spool, locked by this one. Close it in any case.

    Raises:
        SpoolBusyError: its process is alive, or another one recovers it.
        SpoolFormatError: it is no spool, or a newer version wrote it; it is left as it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_fd = lock_folder(path)
        self._segments: list[Segment] = []
        self.destination: Destination | None = None
        self.entries = 0
        try:
            for file in segment_files(path):
                segment, destination = _open_segment(file)
                self._segments.append(segment)
                self.destination = destination or self.destination
        except BaseException:
            self.close()
            raise
        self._segments.sort(key=lambda segment: segment.epoch)

    def outboxes(self, account: Account) -> list[Outbox]:
        """What is not acknowledged, by session and writer, in the order it was emitted."""
        found: dict[tuple[str, str], Outbox] = {}
        for segment in self._segments:
            for offset, line in _frames(segment):
                session_id, writer, n = _name_of(line, segment)
                key = (session_id, writer)
                outbox = found.get(key)
                if outbox is None:
                    outbox = found[key] = Outbox(*key, account, _nothing)
                outbox.items.append(Receipt(outbox, n, line, _LAST_SERIAL, segment, offset))
                self.entries += 1
        return list(found.values())

    def finish(self) -> None:
        """Delete the spool: everything in it is acknowledged."""
        remove_folder(self.path)

    def close(self) -> None:
        """Unmap and unlock; what was not finished is left to the next recovery."""
        for segment in self._segments:
            segment.map.close()
        self._segments.clear()
        os.close(self._lock_fd)


async def recover_into(sender: Sender, orphan: Orphan) -> int:
    """Send an orphan's entries through a running sender, and delete it once all are acknowledged.

    Returns:
        How many entries were sent.
    """
    account = Account()
    outboxes = orphan.outboxes(account)
    left = len(outboxes)
    done = anyio.Event()

    def one_less() -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    try:
        for outbox in outboxes:
            outbox.on_empty = one_less
            sender.add(outbox)
        if outboxes:
            await done.wait()
    except BaseException:  # cancelled: whoever gets the lock next sends them, and we must not
        sender.withdraw(outboxes)
        raise
    orphan.finish()
    return account.settled - account.refused


async def recover_folder(
    sender: Sender, folder: Path, destination: Destination, *, timeout: float | None = None
) -> Recovered:
    """Recover every orphan in a folder that goes to `destination`, one after another.

    Args:
        timeout: seconds for one; the first that takes longer ends the waiting for all. None waits as
            long as the stream is away.
    """
    spools = entries = 0
    skipped: list[tuple[Path, str]] = []
    patience = timeout
    sweep(folder, sender.clock)
    for path in spool_folders(folder):
        try:
            sent = await _recover_one(sender, path, destination, patience)
        except SpoolBusyError:
            continue
        except TimeoutError:
            skipped.append((path, f"the stream did not acknowledge its entries within {timeout} s"))
            patience = 0.0  # the stream is away: the next spool would wait for the same
        except (SpoolError, OSError) as problem:
            _log.warning("spool %s is left as it is: %s", path, problem)
            skipped.append((path, str(problem)))
        else:
            spools += 1
            entries += sent
            if sent:
                _log.warning("recovered %d entries that a process left in spool %s", sent, path.name)
    return Recovered(spools, entries, skipped)


async def _recover_one(sender: Sender, path: Path, destination: Destination, timeout: float | None) -> int:
    orphan = Orphan(path)
    try:
        if orphan.destination not in (destination, None):
            raise SpoolError(f"it goes to {_name(orphan.destination)}; recover it with those settings")
        if timeout == 0:
            raise TimeoutError
        with anyio.fail_after(timeout):
            return await recover_into(sender, orphan)
    finally:
        orphan.close()


def destinations(folder: Path) -> dict[Destination, int]:
    """Where the orphans in a folder go, and how many there are for each."""
    found: dict[Destination, int] = {}
    for path in spool_folders(folder):
        try:
            orphan = Orphan(path)
        except (SpoolError, OSError):  # busy, or told of by recover_folder
            continue
        if orphan.destination is not None:
            found[orphan.destination] = found.get(orphan.destination, 0) + 1
        orphan.close()
    return found


def _open_segment(path: Path) -> tuple[Segment, Destination | None]:
    size = path.stat().st_size
    if size < FIRST_FRAME:  # killed between making the file and reserving its space: nothing is in it
        return _empty(path), None
    with path.open("r+b") as file:
        mapping = mmap.mmap(file.fileno(), size)
    magic, version, length, epoch = HEADER.unpack_from(mapping, 0)
    if magic == bytes(8):  # killed before the header was written: nothing is in it
        return Segment(path, size, mapping), None
    if magic != MAGIC:
        mapping.close()
        raise SpoolFormatError(f"{path} is not a spool segment")
    if version != FORMAT_VERSION:
        mapping.close()
        raise SpoolFormatError(
            f"{path} is of spool format {version}, this is {FORMAT_VERSION}: recover it with the "
            "streamjournal that wrote it, or a newer one"
        )
    where = mapping[HEADER.size : HEADER.size + length]
    try:
        destination = msgspec.json.decode(where, type=Destination)
    except msgspec.MsgspecError as problem:
        mapping.close()
        raise SpoolFormatError(f"{path}: its destination cannot be read ({problem})") from None
    segment = Segment(path, size, mapping)
    segment.epoch = epoch & 0xFFFFFFFF
    return segment, destination


def _empty(path: Path) -> Segment:
    return Segment(path, 0, mmap.mmap(-1, FIRST_FRAME))


def _frames(segment: Segment) -> Iterator[tuple[int, bytes]]:
    """Offset and line of each frame that is not acknowledged."""
    offset = FIRST_FRAME
    while offset + FRAME.size <= segment.size:
        length, checksum, acknowledged = FRAME.unpack_from(segment.map, offset)
        end = offset + FRAME.size + length
        if not length or end > segment.size:
            return
        line = segment.map[offset + FRAME.size : end]
        if crc32(line, segment.epoch) != checksum:
            return
        if not acknowledged:
            yield offset, line
        offset = end


def _name_of(line: bytes, segment: Segment) -> tuple[str, str, int]:
    """Session, writer and number of an entry."""
    try:
        envelope = decode_envelope(line)
    except msgspec.MsgspecError as problem:
        raise SpoolFormatError(f"{segment.path}: a frame holds no entry ({problem})") from None
    name = split_id(envelope.id)
    if name is None:
        raise SpoolFormatError(f"{segment.path}: a frame holds no entry of ours")
    return envelope.session_id, *name


def _name(destination: Destination | None) -> str:
    return f"stream {destination.stream}, bucket {destination.bucket}" if destination else "nowhere"


def _nothing() -> None:
    """Recovered outboxes need no hurry: their sender is at it."""
