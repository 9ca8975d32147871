"""What the operating system says about files, in our words."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from streamjournal.core.errors import NotConfiguredError, StoreUnavailableError, StreamjournalError

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_ALLOWED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR})


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raise what an OSError inside means, for files under `path`.

    Raises:
        StoreUnavailableError: no room, or trouble that may pass.
        NotConfiguredError: this user may not write there.
    """
    try:
        yield
    except OSError as problem:
        raise _explain(problem, path) from problem


def _explain(problem: OSError, path: Path) -> StreamjournalError:
    if problem.errno in _NO_ROOM:
        return StoreUnavailableError(
            f"{path}: disk full ({problem.strerror}); free some space. Nothing was written, and what "
            "waits on the stream is written when there is room"
        )
    if problem.errno in _NOT_ALLOWED:
        return NotConfiguredError(
            f"{path}: {problem.strerror}; set STREAMJOURNAL_HOME to a folder that this user may write"
        )
    return StoreUnavailableError(f"{path}: {problem}")
