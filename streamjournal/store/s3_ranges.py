"""Parts of an object, as HTTP asks for them and answers. Source: RFC 9110, "Range Requests"."""

from __future__ import annotations

import re
from typing import Any, Final

_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


def may_have_bytes(start: int, stop: int | None) -> bool:
    """Whether a byte can be between the two; a negative start counts from the end."""
    return stop is None or start < stop


def http_range(start: int, stop: int | None) -> str | None:
    """The HTTP range; of a suffix with a stop all of it, since only the answer tells where that is."""
    if start < 0:
        return f"bytes={start}"
    if stop is not None:
        return f"bytes={start}-{stop - 1}"
    return f"bytes={start}-" if start else None


def first_byte(start: int, size: int) -> int:
    """The offset of the first byte of a part, of an object of that size."""
    return max(0, size + start) if start < 0 else min(start, size)


def content_range(answer: dict[str, Any]) -> tuple[int, int]:
    """The offset of an answer's first byte, and the size of the whole object."""
    match = _CONTENT_RANGE.fullmatch(answer.get("ContentRange", ""))
    return (int(match[1]), int(match[3])) if match else (0, int(answer["ContentLength"]))
