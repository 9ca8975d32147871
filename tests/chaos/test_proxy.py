"""The failing network: what it cuts, and that a request arrives whole or not at all."""

from __future__ import annotations

import http.client
import random
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from tests.chaos import proxy
from tests.chaos.proxy import Network, between


class Upstream(ThreadingHTTPServer):
    """Keeps the bodies that it got."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[bytes] = []


class _Handler(BaseHTTPRequestHandler):
    server: Upstream
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def network() -> Network:
    return Network(random.Random(0))


@pytest.fixture
def address(upstream: Upstream, network: Network) -> Iterator[tuple[str, int]]:
    """Of the proxy."""
    with between(network, {"X": f"http://127.0.0.1:{upstream.server_port}"}) as proxied:
        url = urlsplit(proxied["X"])
        assert url.hostname
        assert url.port
        yield url.hostname, url.port


def put(address: tuple[str, int], *bodies: bytes) -> list[bytes]:
    """The answers to requests on one connection."""
    connection = http.client.HTTPConnection(*address, timeout=10)
    answers = []
    try:
        for body in bodies:
            connection.request("PUT", "/x", body)
            answers.append(connection.getresponse().read())
    finally:
        connection.close()
    return answers


def test_without_faults_everything_passes(address: tuple[str, int], upstream: Upstream) -> None:
    """Several requests on one connection, small and large, arrive as they are."""
    bodies = [b"one", b"", b"x" * 1_000_000]
    assert put(address, *bodies) == [b"ok"] * 3
    assert upstream.bodies == bodies


def test_a_request_that_is_cut_short_does_not_arrive(address: tuple[str, int], upstream: Upstream) -> None:
    """As if its sender was killed in the middle: the server sees nothing of it."""
    with socket.create_connection(address) as client:
        client.sendall(b"PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""
    assert put(address, b"after") == [b"ok"]
    assert upstream.bodies == [b"after"]


def test_who_asks_before_the_body_is_told_to_go_on(address: tuple[str, int], upstream: Upstream) -> None:
    """`Expect: 100-continue`, which S3 clients send, is answered by the proxy."""
    with socket.create_connection(address) as client:
        client.settimeout(10)
        client.sendall(b"PUT /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        client.sendall(b"body")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert upstream.bodies == [b"body"]


def test_faults_before_and_after_the_effect(
    address: tuple[str, int], upstream: Upstream, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut before: nothing was done. Cut after: it was done, and the caller sees an error all the same."""
    monkeypatch.setattr(proxy, "LATE_SECONDS", 0.01)
    network.rate = 0.3
    failed = 0
    for _ in range(40):
        try:
            put(address, b"x")
        except (http.client.HTTPException, OSError):
            failed += 1
    assert failed == network.done["cut request"] + network.done["cut answer"]
    assert len(upstream.bodies) == 40 - network.done["cut request"]
    assert min(network.done["cut request"], network.done["cut answer"], network.done["late answer"]) > 0
