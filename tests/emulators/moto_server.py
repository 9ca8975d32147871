"""The AWS emulator: moto's server in a process of its own, one request at a time.

    python -m tests.emulators.moto_server [--port 0]

prints its address as the first line on stdout and serves S3, DynamoDB and Kinesis until SIGTERM, or
until its standard input closes (so it never outlives whoever started it, not even after kill -9).

moto's own server is not enough, because
- it serves requests in parallel over state without locks: concurrent PutRecords calls draw the same
  sequence number and one of the records is gone, and two conditional S3 writes both win. Here every
  request runs under one lock;
- it closes the connection after each response, which costs more than most requests do. Here
  connections are kept alive;
- it lets conditional writes pass that S3 refuses, see `preconditions`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import traceback
from io import BytesIO
from typing import BinaryIO

os.environ.setdefault("MOTO_DISABLE_GLOBAL_CORS", "true")  # before moto reads it; costs time per request

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import BaseWSGIServer, make_server

from tests.emulators import shards
from tests.emulators.one_at_a_time import OneAtATime
from tests.emulators.preconditions import Preconditions

_NO_BODY = ("204", "304")


class KeepAliveHandler(MotoRequestHandler):
    """Reads each request to its end and sends each response in one write, so that the connection can
    be used again.
    """

    protocol_version = "HTTP/1.1"  # also makes the base class answer `Expect: 100-continue`
    disable_nagle_algorithm = True  # else that answer waits 40 ms for an ACK

    def run_wsgi(self) -> None:
        """Serve one request."""
        self.environ = environ = self.make_environ()
        environ["wsgi.input"] = BytesIO(self._body(environ["wsgi.input"]))
        environ["wsgi.input_terminated"] = True
        try:
            status, headers, body = self.server.app.respond(environ)  # type: ignore[attr-defined]
        except Exception:  # noqa: BLE001 - whatever went wrong in moto is a 500 to the client
            traceback.print_exc()
            status, headers, body = "500 Internal Server Error", [], b""
        self._send(status, headers, body)

    def _body(self, raw: BinaryIO) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return raw.read()
        length = int(self.headers.get("Content-Length") or 0)
        body = raw.read(length)
        if len(body) < length:  # the client died in the middle; half a body must not become an object
            raise ConnectionAbortedError("the request was cut short")
        return body

    def _send(self, status: str, headers: list[tuple[str, str]], body: bytes) -> None:
        code, _, reason = status.partition(" ")
        head = self.command == "HEAD"  # a HEAD's length is the object's
        self.send_response_only(int(code), reason)
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding") and (
                head or name.lower() != "content-length"
            ):
                self.send_header(name, value)
        if not head and code not in _NO_BODY:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers_with(b"" if head or code in _NO_BODY else body)

    def end_headers_with(self, body: bytes) -> None:
        """Send the buffered headers and the body in one write: two would wait for each other's ACK."""
        buffered: list[bytes] = self._headers_buffer
        self.wfile.write(b"".join((*buffered, b"\r\n", body)))
        buffered.clear()


def create_server(port: int = 0) -> BaseWSGIServer:
    """A server on 127.0.0.1, not serving yet."""
    shards.install()
    app = OneAtATime(Preconditions(DomainDispatcherApplication(create_backend_app)))
    return make_server(
        "127.0.0.1",
        port,
        app,  # type: ignore[arg-type]
        threaded=True,
        request_handler=KeepAliveHandler,
    )


def stop_with_parent() -> None:
    """End this process when its standard input closes."""

    def wait() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=wait, name="stop-with-parent", daemon=True).start()


def main() -> None:
    """Serve until SIGTERM or until stdin closes."""
    parser = argparse.ArgumentParser(description="An emulator of S3, DynamoDB and Kinesis.")
    parser.add_argument("--port", type=int, default=0, help="0 = any free port")
    server = create_server(parser.parse_args().port)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # nothing here is worth a slow shutdown
    stop_with_parent()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
