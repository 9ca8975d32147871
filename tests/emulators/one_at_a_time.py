"""The lock of the AWS emulator: a WSGI application answers one request at a time.

moto keeps its state without locks. A put that another overtakes draws the same sequence number, and
one of the two records is gone although both were acknowledged.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import WSGIApplication


class OneAtATime:
    """Runs a WSGI application's whole response under one lock."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app
        self._lock = threading.Lock()

    def respond(self, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
        """Status, headers and body, all of it produced before another request starts."""
        answer: dict[str, Any] = {}

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            answer.update(status=status, headers=headers)
            return None

        with self._lock:
            chunks: Iterable[bytes] = self._app(environ, start_response)
            try:
                body = b"".join(chunks)
            finally:
                if hasattr(chunks, "close"):
                    chunks.close()
        return answer["status"], answer["headers"], body
