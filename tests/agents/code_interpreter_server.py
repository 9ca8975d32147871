"""A stand-in for the AgentCore code interpreter's API, that really runs the code, in a subprocess.

Speaks what the SDK speaks: REST-JSON, and results as an event stream
(https://smithy.io/2.0/aws/amazon-eventstream.html), encoded here by hand.
"""

from __future__ import annotations

import base64
import json
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SANDBOX_ID = "01KAQ2W3NBXV7Q7C9ZK5E8T4MD"


class Server(ThreadingHTTPServer):
    """The stand-in's state.

    Args:
        piece: characters of stdout in one event; 0 for all of it in one, as the service mostly does.
        structured: whether results have `structuredContent`.
        fault: `throttle`, `break`, `empty`, `exception` or `stall`, for operations; `no-start`, `no-stop`.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.piece = 0
        self.structured = True
        self.fault = ""
        self.running: set[str] = set()
        self.stopped = threading.Event()
        self.calls: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: Any) -> None:
        """Stay quiet."""

    def do_PUT(self) -> None:
        body = self._body()
        path = urlsplit(self.path)
        if path.path.endswith("/sessions/start"):
            if self.server.fault == "no-start":
                self._error(403, "AccessDeniedException", "not allowed to start")
                return
            self.server.running.add(SANDBOX_ID)
            self.server.calls.append(f"start {body['sessionTimeoutSeconds']}")
        else:
            if self.server.fault == "no-stop":
                self._error(500, "InternalServerException", "cannot stop")
                return
            self.server.running.discard(SANDBOX_ID)
            self.server.calls.append("stop")
        identifier = path.path.split("/")[2]
        times = {"createdAt": "2026-11-22T13:12:01Z", "lastUpdatedAt": "2026-11-22T13:12:01Z"}
        self._json(200, {"codeInterpreterIdentifier": identifier, "sessionId": SANDBOX_ID, **times})

    def do_POST(self) -> None:
        body = self._body()
        self.server.calls.append(body["name"])
        if self.headers["x-amzn-code-interpreter-session-id"] not in self.server.running:
            self._error(404, "ResourceNotFoundException", "no such session")
            return
        if self.server.fault == "throttle":
            self._error(429, "ThrottlingException", "slow down")
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.amazon.eventstream")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("x-amzn-code-interpreter-session-id", SANDBOX_ID)
        self.end_headers()
        for result in self._results(body["name"], body["arguments"]):
            self._chunk(message({":message-type": "event", ":event-type": "result"}, result))
            if self.server.fault == "break":
                self.close_connection = True
                return
            if self.server.fault == "stall":
                self.server.stopped.wait(30)
            if self.server.fault == "exception":
                headers = {":message-type": "exception", ":exception-type": "internalServerException"}
                self._chunk(message(headers, {"message": "the sandbox died"}))
                break
        self.wfile.write(b"0\r\n\r\n")

    def _results(self, name: str, arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if self.server.fault == "empty":
            return
        if name == "executeCode":
            yield from self._run([sys.executable, "-I", "-c", arguments["code"]])
        elif name == "executeCommand":
            yield from self._run(["sh", "-c", arguments["command"]])
        elif name == "writeFiles":
            for one in arguments["content"]:
                data = base64.b64decode(one["blob"]) if "blob" in one else one["text"].encode()
                (self.server.folder / one["path"]).write_bytes(data)
            yield {"content": [{"type": "text", "text": "written"}], "isError": False}
        elif name == "readFiles":
            for path in arguments["paths"]:
                text = (self.server.folder / path).read_text()
                resource = {"type": "text", "uri": f"file://{path}", "text": text}
                yield {"content": [{"type": "resource", "resource": resource}], "isError": False}

    def _run(self, command: list[str]) -> Iterator[dict[str, Any]]:
        begun = time.monotonic()
        done = subprocess.run(command, cwd=self.server.folder, capture_output=True, text=True, check=False)
        took = (time.monotonic() - begun) * 1000
        size = self.server.piece or len(done.stdout) + 1
        pieces = [done.stdout[i : i + size] for i in range(0, len(done.stdout), size)] or [""]
        for i, piece in enumerate(pieces):
            last = i == len(pieces) - 1
            result: dict[str, Any] = {"content": [{"type": "text", "text": piece}], "isError": False}
            if self.server.structured:
                result["structuredContent"] = {"stdout": piece, "stderr": ""}
            if last:
                result["isError"] = done.returncode != 0
                if done.stderr:
                    result["content"].append({"type": "text", "text": done.stderr})
                if self.server.structured:
                    result["structuredContent"] |= {
                        "stderr": done.stderr,
                        "exitCode": done.returncode,
                        "executionTime": took,
                    }
            yield result

    def _body(self) -> dict[str, Any]:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return json.loads(data) if data else {}

    def _json(self, status: int, body: dict[str, Any], **headers: str) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _error(self, status: int, name: str, text: str) -> None:
        self._json(status, {"message": text}, x_amzn_errortype=name)

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()


def message(headers: dict[str, str], body: dict[str, Any]) -> bytes:
    """One message of an event stream: lengths, their checksum, headers, payload, checksum of all."""
    packed = b""
    for name, value in {**headers, ":content-type": "application/json"}.items():
        text = value.encode()
        packed += struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(text)) + text
    payload = json.dumps(body).encode()
    prelude = struct.pack("!II", 16 + len(packed) + len(payload), len(packed))
    whole = prelude + struct.pack("!I", zlib.crc32(prelude)) + packed + payload
    return whole + struct.pack("!I", zlib.crc32(whole))


@contextmanager
def serving() -> Iterator[Server]:
    """The stand-in on a free port of 127.0.0.1, for the length of a block."""
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.stopped.set()
            server.shutdown()
            thread.join()
