r"""The spool: a writer's crash-safe files of entries that the stream has not acknowledged.

A spool is a folder `{spool}/{instance}/` with a file `lock`, which its process holds locked for
life, and segments. A segment is a file of fixed size, mapped into memory: what is written into the
mapping outlives the process, since the pages are the kernel's. Its space is reserved before it is
mapped, because a full disk under a sparse mapping kills the process (SIGBUS).

Segment, little endian::

    header  8s  magic "SJSPOOL\n"
            H   format version, 1
            H   length of the destination
            Q   epoch: one more with each use of a segment in this spool
            …   destination, JSON: {"stream": …, "bucket": …}; nobody sends it elsewhere
    frames from byte 1024:
            I   length of the line
            I   CRC-32 of the line, seeded with the epoch
            B   1 = acknowledged
            …   the line

The frame's header is written after its line. A frame with length 0 or a wrong checksum ends the
segment: nothing follows it, or its writer was killed in the middle of it, before `emit` returned.
The seed keeps the frames of a segment's earlier use from being taken for its present ones.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import os
import shutil
from pathlib import Path
from struct import Struct
from zlib import crc32

import msgspec

from streamjournal.core.clock import Clock

MAGIC = b"SJSPOOL\n"
FORMAT_VERSION = 1
HEADER = Struct("<8sHHQ")
FRAME = Struct("<IIB")
FIRST_FRAME = 1024
SEGMENT_BYTES = 2**20
LOCK = "lock"
NEW_PREFIX = ".new-"
_FRAME_BYTES = FRAME.size
_ACK = 8  # offset of the acknowledged byte in a frame's header
_SPARES = 16  # finished segments kept for reuse: a page's first write costs as much as an emit
_RETRY_SECONDS = 10.0

_log = logging.getLogger("streamjournal.emit")
_write_frame = FRAME.pack_into


class Destination(msgspec.Struct, frozen=True):
    """Where a spool's entries go: stream (name, ARN or `embedded:` and its home) and bucket."""

    stream: str
    bucket: str


class Segment:
    """A mapped segment that its writer appends to, or that its recoverer reads."""

    __slots__ = ("acknowledged", "epoch", "map", "path", "sealed", "size", "used", "written")

    def __init__(self, path: Path, size: int, mapping: mmap.mmap) -> None:
        self.path = path
        self.size = size
        self.map = mapping
        self.epoch = 0
        self.used = FIRST_FRAME
        self.written = 0  # frames; counted by emit
        self.acknowledged = 0  # frames; counted by the sender
        self.sealed = False  # emit writes to another segment now

    @classmethod
    def create(cls, path: Path, size: int) -> Segment:
        """A new file of `size` bytes, its space reserved, mapped.

        Raises:
            OSError: no space, or no right to write.
        """
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _reserve(fd, size)
            return cls(path, size, mmap.mmap(fd, size))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)

    def begin(self, epoch: int, destination: Destination) -> None:
        """Make the segment ready for the frames of a new epoch."""
        where = msgspec.json.encode(destination)
        if HEADER.size + len(where) > FIRST_FRAME:
            raise ValueError(f"the destination is too long for a spool: {destination}")
        self.map[HEADER.size : HEADER.size + len(where)] = where
        HEADER.pack_into(self.map, 0, MAGIC, FORMAT_VERSION, len(where), epoch)
        self.epoch = epoch & 0xFFFFFFFF
        self.used = FIRST_FRAME
        self.written = self.acknowledged = 0
        self.sealed = False

    def append(self, line: bytes) -> int:
        """Write a frame, and return its offset; -1 if the segment has no room for it."""
        start = self.used
        body = start + _FRAME_BYTES
        size = len(line)
        self.used = end = body + size
        if end > self.size:
            self.used = start
            return -1
        mapping = self.map
        mapping[body:end] = line
        _write_frame(mapping, start, size, crc32(line, self.epoch), 0)
        self.written += 1
        return start

    def acknowledge(self, offset: int) -> None:
        """Mark a frame as acknowledged, so that no recovery sends it again."""
        self.map[offset + _ACK] = 1
        self.acknowledged += 1

    def wipe(self) -> None:
        """Zero every frame, so that nothing of this use can look like a frame of the next."""
        self.map[FIRST_FRAME : self.used] = bytes(self.used - FIRST_FRAME)

    def remove(self) -> None:
        """Unmap and delete the file."""
        self.path.unlink(missing_ok=True)
        self.map.close()


def _reserve(fd: int, size: int) -> None:
    """Allocate the file's blocks now, so that no later write to the mapping can fail."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
        return
    zeros = bytes(2**20)  # macOS has no posix_fallocate; written zeros are allocated too
    for start in range(0, size, len(zeros)):
        os.pwrite(fd, zeros[: size - start], start)


class Spool:
    """The spool of one emitter. `append` belongs to emit's critical section, the rest to the sender.

    Args:
        folder: holds the spools of all processes.
        destination: written into every segment.
    """

    def __init__(self, folder: Path, destination: Destination, clock: Clock) -> None:
        self._folder = folder
        self._destination = destination
        self._clock = clock
        self._path: Path | None = None
        self._lock_fd = -1
        self._epoch = 0
        self._current: Segment | None = None
        self._sealed: list[Segment] = []
        self._spares: list[Segment] = []
        self._retry_at = 0.0
        self._complained = False

    @property
    def instance(self) -> str | None:
        """The spool's own folder name; None until the first entry."""
        return self._path.name if self._path is not None else None

    def append(self, line: bytes) -> tuple[Segment | None, int]:
        """Keep a line: the segment and the offset of its frame, or (None, 0) if the disk refuses.

        Refused lines stay in memory only. It is said once, and tried again every ten seconds.
        """
        segment = self._current
        if segment is not None:
            offset = segment.append(line)
            if offset >= 0:
                return segment, offset
        segment = self._next_segment(len(line))
        return (None, 0) if segment is None else (segment, segment.append(line))

    def _next_segment(self, length: int) -> Segment | None:
        if self._retry_at and self._clock.monotonic() < self._retry_at:
            return None
        try:
            segment = self._open_segment(max(SEGMENT_BYTES, FIRST_FRAME + _FRAME_BYTES + length))
        except OSError as problem:
            self._retry_at = self._clock.monotonic() + _RETRY_SECONDS
            if not self._complained:
                self._complained = True
                _log.warning("%s", _complaint(self._folder, problem))
            return None
        self._retry_at = 0.0
        if self._current is not None:
            self._current.sealed = True
            self._sealed.append(self._current)
        self._epoch += 1
        segment.begin(self._epoch, self._destination)
        self._current = segment
        return segment

    def _open_segment(self, size: int) -> Segment:
        if self._path is None:
            self._path, self._lock_fd = _make_folder(self._folder, self._clock.draw_id())
        if self._spares and self._spares[-1].size >= size:
            return self._spares.pop()
        return Segment.create(self._path / f"{self._epoch + 1:08d}.seg", size)

    def reclaim(self) -> None:
        """Free the segments whose entries are all acknowledged."""
        for segment in list(self._sealed):
            if segment.acknowledged == segment.written:
                self._sealed.remove(segment)
                if len(self._spares) < _SPARES and segment.size == SEGMENT_BYTES:
                    segment.wipe()
                    self._spares.append(segment)
                else:
                    segment.remove()

    def close(self) -> bool:
        """Give the spool up. It is deleted if everything in it is acknowledged, else left to recovery.

        Returns:
            Whether nothing was left.
        """
        segments = [s for s in (self._current, *self._sealed, *self._spares) if s is not None]
        whole = all(s.acknowledged == s.written for s in segments)
        self._current, self._sealed, self._spares = None, [], []
        if self._path is None:
            return True
        if whole:
            shutil.rmtree(self._path, ignore_errors=True)
        for segment in segments:
            segment.map.close()
        os.close(self._lock_fd)
        self._path = None
        return whole

    def abandon_after_fork(self) -> None:
        """In a forked child: let go of the parent's spool without touching it.

        The lock belongs to the open file, so closing the child's copy does not unlock the parent's;
        keeping it would keep the parent's spool from being recovered while the child lives.
        """
        if self._lock_fd >= 0 and self._path is not None:
            os.close(self._lock_fd)
        self._path, self._lock_fd = None, -1
        self._current, self._sealed, self._spares = None, [], []


def _make_folder(parent: Path, instance: str) -> tuple[Path, int]:
    """A spool's folder with its lock held, put in place in one step: nobody sees it unlocked."""
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = parent / f"{NEW_PREFIX}{instance}"
    new.mkdir(mode=0o700)
    fd = os.open(new / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path = parent / instance
        new.rename(path)
    except OSError:
        os.close(fd)
        shutil.rmtree(new, ignore_errors=True)
        raise
    return path, fd


def _complaint(folder: Path, problem: OSError) -> str:
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        cause = "the disk is full"
    else:
        cause = problem.strerror or type(problem).__name__
    return (
        f"no spool in {folder} ({cause}): entries are kept in memory only, and a killed process loses "
        "those that were not sent. Free the disk, or set STREAMJOURNAL_SPOOL to another folder."
    )
