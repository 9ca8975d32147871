"""A worker's pages over HTTP: `/metrics` for Prometheus, `/healthz` and `/readyz` for who runs it.

The server has threads of its own, so that a slow client holds up no entry, and a worker whose event loop
is blocked can still be asked.
"""

from __future__ import annotations

import errno
import socket
import socketserver
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from streamjournal.admin.metrics import metrics_page
from streamjournal.core.clock import Clock
from streamjournal.core.errors import SettingsError
from streamjournal.ingest.watchdog import Watchdog

_CLIENT_SECONDS: Final = 5.0  # that a client may take with its request, or with reading the answer
_MAX_CLIENTS: Final = 32  # at once; further ones are let go, so that they cannot fill us with threads

Page = tuple[int, str, bytes]  # status, content type, body
_TEXT: Final = "text/plain; charset=utf-8"


class MetricsServer:
    """Serves the three pages from a thread of its own, from the moment that it is made until `close`.

    Args:
        address: to listen at; an IPv6 address has colons.
        port: 0 takes a free one; `port` then says which.

    Raises:
        NotConfiguredError: prometheus-client is not installed.
        SettingsError: the port or the address cannot be had.
    """

    def __init__(self, watchdog: Watchdog, clock: Clock, address: str, port: int) -> None:
        metrics = metrics_page(watchdog, clock)
        self._server = _listen(address, port)
        self._server.pages = {
            "/metrics": lambda: (200, *metrics()),
            "/healthz": lambda: _healthz(watchdog),
            "/readyz": lambda: _readyz(watchdog),
        }
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening; takes a tenth of a second. Clients in the middle of something are left alone."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _healthz(watchdog: Watchdog) -> Page:
    """Alive: its event loop runs."""
    if (deaf := watchdog.deaf) is not None:
        return 503, _TEXT, f"the event loop has not answered for {deaf:.0f} s\n".encode()
    return 200, _TEXT, b"alive\n"


def _readyz(watchdog: Watchdog) -> Page:
    """Ready: it moves what there is to move."""
    reasons = watchdog.reasons()
    return (503 if reasons else 200), _TEXT, ("\n".join(reasons or ["ready"]) + "\n").encode()


class _Server(ThreadingHTTPServer):
    """Answers each client on a thread that nobody waits for, so many at once."""

    daemon_threads = True
    request_queue_size = 64  # of clients that wait to be let in; 5 by default, and further ones wait a second
    pages: dict[str, Callable[[], Page]]

    def __init__(self, address: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._free = threading.BoundedSemaphore(_MAX_CLIENTS)
        super().__init__((address, port), _Handler)

    def server_bind(self) -> None:
        """Bind; without asking a name server for our own name, which can take long, and is not needed."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer on a thread, if there is one left."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread could be started
            self._free.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that left, or that sends no HTTP, is none of the worker's business."""


class _Handler(BaseHTTPRequestHandler):
    """Answers one request, and closes."""

    timeout = _CLIENT_SECONDS
    server: _Server

    def do_GET(self) -> None:
        """A page, or 404 with what there is."""
        page = self.server.pages.get(self.path.partition("?")[0])
        missing = 404, _TEXT, "there is: {}\n".format(" ".join(self.server.pages)).encode()
        status, content_type, body = page() if page is not None else missing
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        """The same without the page."""
        self.do_GET()

    def version_string(self) -> str:
        """What the Server header says: no versions, which only help who means no good."""
        return "streamjournal"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in http.server
        """Nothing: scrapes come every few seconds."""


def _listen(address: str, port: int) -> _Server:
    try:
        return _Server(address, port)
    except (OSError, UnicodeError) as problem:
        raise _explained(problem, address, port) from problem


def _explained(problem: OSError | UnicodeError, address: str, port: int) -> SettingsError:
    code = getattr(problem, "errno", None)
    if code == errno.EADDRINUSE:
        return SettingsError(
            "metrics_port",
            f"port {port} of {address} is in use, perhaps by another worker; "
            "choose another with --metrics-port or STREAMJOURNAL_METRICS_PORT (0 takes a free one)",
        )
    if code == errno.EACCES:
        return SettingsError(
            "metrics_port", f"this user may not listen at port {port}; choose one above 1023"
        )
    return SettingsError(
        "metrics_address",
        f"cannot listen at {address!r}: {problem}; 127.0.0.1 is this machine only, 0.0.0.0 any",
    )
