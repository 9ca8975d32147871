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
import logging
import mmap
import os
from pathlib import Path
from struct import Struct
from zlib import crc32

import msgspec

from streamjournal.core.clock import Clock
from streamjournal.emit.spool_folder import MAGIC, make_folder, remove_folder, segment_name

FORMAT_VERSION = 1
HEADER = Struct("<8sHHQ")
FRAME = Struct("<IIB")
FIRST_FRAME = 1024
SEGMENT_BYTES = 2**20
_FRAME_BYTES = FRAME.size
_ACK = 8  # offset of the acknowledged byte in a frame's header
_SPARES = 16  # finished segments kept for reuse: a page's first write costs as much as an emit
_RETRY_SECONDS = 10.0
_NO_FALLOCATE = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)  # file systems that cannot, on musl

_log = logging.getLogger("streamjournal.emit")
_write_frame = FRAME.pack_into


class Destination(msgspec.Struct, frozen=True):
    """Where a spool's entries go: stream (name, ARN or `embedded:` and its home) and bucket."""

    stream: str
    bucket: str


class Segment:
    """A mapped segment that its writer appends to, or that its recoverer reads.

    Attributes:
        used: bytes from the start that hold frames.
        written: frames, counted by emit.
        acknowledged: of those, the ones that the sender has marked so.
    """

    __slots__ = ("acknowledged", "epoch", "map", "path", "size", "used", "written")

    def __init__(self, path: Path, size: int, mapping: mmap.mmap) -> None:
        self.path = path
        self.size = size
        self.map = mapping
        self.epoch = 0
        self.used = FIRST_FRAME
        self.written = 0
        self.acknowledged = 0

    @classmethod
    def create(cls, path: Path, size: int) -> Segment:
        """A new file of `size` bytes, its space reserved, mapped.

        Raises:
            OSError: no space, or no right to write.
        """
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)  # an interrupted try may be there
        try:
            _reserve(fd, size)
            return cls(path, size, mmap.mmap(fd, size))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)

    def begin(self, epoch: int, destination: bytes) -> None:
        """Make the segment ready for the frames of a new epoch. The magic comes last: a process that is
        killed before that leaves a segment that says it is empty.
        """
        self.map[HEADER.size : HEADER.size + len(destination)] = destination
        HEADER.pack_into(self.map, 0, bytes(len(MAGIC)), FORMAT_VERSION, len(destination), epoch)
        self.map[: len(MAGIC)] = MAGIC
        self.epoch = epoch & 0xFFFFFFFF
        self.used = FIRST_FRAME
        self.written = 0
        self.written = self.acknowledged = 0

    def append(self, line: bytes) -> bool:
        """Write a frame at `used`; False if the segment has no room for it."""
        start = self.used
        body = start + _FRAME_BYTES
        size = len(line)
        end = body + size
        if end > self.size:
            return False
        mapping = self.map
        mapping[body:end] = line
        _write_frame(mapping, start, size, crc32(line, self.epoch), 0)
        self.used, self.written = end, self.written + 1
        return True

    def take_back(self, offset: int) -> None:
        """Undo an append at `offset` that something interrupted before its entry was accepted."""
        if self.used != offset:
            self.used, self.written = offset, self.written - 1
        if offset + _FRAME_BYTES <= self.size:
            _write_frame(self.map, offset, 0, 0, 0)

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
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as problem:
            if problem.errno not in _NO_FALLOCATE:
                raise
        else:
            return
    zeros = bytes(2**20)  # macOS has no posix_fallocate; written zeros are allocated too
    for start in range(0, size, len(zeros)):
        os.pwrite(fd, zeros[: size - start], start)


class Spool:
    """The spool of one emitter. `segment_for` belongs to emit's critical section, the rest to the sender.

    Args:
        folder: holds the spools of all processes.
        destination: written into every segment.
    """

    def __init__(self, folder: Path, destination: Destination, clock: Clock) -> None:
        self._folder = folder
        self._destination = msgspec.json.encode(destination)
        self._clock = clock
        self._path: Path | None = None
        self._lock_fd = -1
        self._epoch = 0
        self._current: Segment | None = None
        self._segments: list[Segment] = []  # in use, the current one last; the older ones are full
        self._spares: list[Segment] = []
        self._retry_at: float | None = None
        self._complaint: str | None = None

    @property
    def instance(self) -> str | None:
        """The spool's own folder name; None until the first entry."""
        return self._path.name if self._path is not None else None

    def segment_for(self, length: int) -> Segment | None:
        """A segment with room for a line of `length` bytes, or None if the disk refuses.

        Its line stays in memory only, then. It is said once, and tried again every ten seconds.
        """
        current = self._current
        if current is not None and current.used + _FRAME_BYTES + length <= current.size:
            return current
        if self._retry_at is not None and self._clock.monotonic() < self._retry_at:
            return None
        try:
            return self._next_segment(length)
        except OSError as problem:
            if self._retry_at is None:
                self._complaint = _complaint(self._folder, problem)
            self._retry_at = self._clock.monotonic() + _RETRY_SECONDS
            return None

    def _next_segment(self, length: int) -> Segment:
        if HEADER.size + len(self._destination) > FIRST_FRAME:
            raise OSError(errno.ENAMETOOLONG, "the name of the stream and the bucket is too long")
        segment = self._open_segment(max(SEGMENT_BYTES, FIRST_FRAME + _FRAME_BYTES + length))
        self._epoch += 1
        segment.begin(self._epoch, self._destination)
        self._segments.append(segment)  # before it is the current one: reclaim leaves alone what is newer
        self._current = segment
        self._retry_at = None
        return segment

    def _open_segment(self, size: int) -> Segment:
        if self._spares and self._spares[-1].size >= size:
            return self._spares.pop()
        name = segment_name(self._epoch + 1)
        if self._path is not None:
            try:
                return Segment.create(self._path / name, size)
            except FileNotFoundError:  # somebody deleted the folder
                os.close(self._lock_fd)
                self._path = None
        self._path, self._lock_fd = make_folder(self._folder, self._clock.draw_id())
        return Segment.create(self._path / name, size)

    def complain(self) -> None:
        """Log what there is to say about the disk, once. Not from emit's critical section: a logging
        handler of another thread may be emitting, and both would wait for each other.
        """
        complaint, self._complaint = self._complaint, None
        if complaint is not None:
            _log.warning("%s", complaint)

    def reclaim(self) -> None:
        """Free the segments whose entries are all acknowledged."""
        current = self._current
        if current is None:
            return
        for segment in self._segments[:]:
            if segment.epoch < current.epoch and segment.acknowledged == segment.written:
                self._segments.remove(segment)
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
        path, self._path = self._path, None
        segments, spares = self._segments, self._spares
        self._current, self._segments, self._spares = None, [], []
        if path is None:
            return True
        whole = all(s.acknowledged == s.written for s in segments)
        if whole:
            try:
                remove_folder(path)
            except OSError as problem:  # recovery finds nothing in it to send, and tries again
                _log.warning("the empty spool %s cannot be deleted: %s", path, problem)
        for segment in (*segments, *spares):
            segment.map.close()
        os.close(self._lock_fd)
        return whole

    def abandon_after_fork(self) -> None:
        """In a forked child: let go of the parent's spool without touching it.

        The lock belongs to the open file, so closing the child's copy does not unlock the parent's;
        keeping it would keep the parent's spool from being recovered while the child lives.
        """
        for segment in (*self._segments, *self._spares):
            segment.size = 0  # an emit that forked half-way must not go on writing into the parent's pages
        if self._path is not None:
            os.close(self._lock_fd)
        self._path, self._lock_fd = None, -1
        self._current, self._segments, self._spares = None, [], []


def _complaint(folder: Path, problem: OSError) -> str:
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        cause = "the disk is full"
    else:
        cause = problem.strerror or type(problem).__name__
    return (
        f"no spool in {folder} ({cause}): entries are kept in memory only, and a killed process loses "
        "those that were not sent. Free the disk, or set STREAMJOURNAL_SPOOL to another folder."
    )
