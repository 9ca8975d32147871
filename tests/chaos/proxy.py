"""A network that fails, between the processes and the emulators.

Connections are cut and answers come late. The worst cut is the one after the request has arrived: the
service did what was asked, and the caller sees an error.

A request is passed on whole or not at all. AWS takes no request whose body is cut short, moto does: it
would keep half a journal when a worker is killed in the middle of its PutObject.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from urllib.parse import SplitResult, urlsplit

import anyio
from anyio.abc import SocketAttribute, SocketStream, TaskStatus
from anyio.from_thread import start_blocking_portal
from anyio.streams.buffered import BufferedByteReceiveStream

LATE_SECONDS = 1.5  # at most
_MAX_HEAD = 2**16  # bytes of a request's line and headers
_LOST = (
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
    anyio.IncompleteRead,
    OSError,
)


class Network:
    """Cuts and delays while `rate` is above 0.

    Args:
        rate: chance of a fault, for each request and each piece of an answer.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.rate = 0.0
        self.done: Counter[str] = Counter()

    async def serve(self, upstream: str, *, task_status: TaskStatus[str]) -> None:
        """Pass connections on to an endpoint's URL; tells the URL that stands for it."""
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(SocketAttribute.local_port)
        task_status.started(f"http://127.0.0.1:{port}")
        async with listener:
            await listener.serve(partial(self._connection, urlsplit(upstream)))

    async def _connection(self, upstream: SplitResult, client: SocketStream) -> None:
        host, port = upstream.hostname, upstream.port
        assert host is not None
        assert port is not None
        async with client:
            with suppress(*_LOST):
                async with await anyio.connect_tcp(host, port) as server, anyio.create_task_group() as both:
                    both.start_soon(self._requests, client, server, both.cancel_scope)
                    both.start_soon(self._answers, server, client, both.cancel_scope)

    async def _requests(self, client: SocketStream, server: SocketStream, scope: anyio.CancelScope) -> None:
        with suppress(*_LOST):
            source = BufferedByteReceiveStream(client)
            while True:
                request = await _whole_request(source, client)
                if await self._harm("request"):
                    break
                await server.send(request)
        scope.cancel()

    async def _answers(self, server: SocketStream, client: SocketStream, scope: anyio.CancelScope) -> None:
        with suppress(*_LOST):
            async for piece in server:
                if await self._harm("answer"):
                    break
                await client.send(piece)
        scope.cancel()

    async def _harm(self, what: str) -> bool:
        """True if the connection is to be cut here; otherwise perhaps some time passes."""
        if self._rng.random() < self.rate:
            self.done[f"cut {what}"] += 1
            return True
        if self._rng.random() < self.rate:
            self.done[f"late {what}"] += 1
            await anyio.sleep(self._rng.uniform(0.0, LATE_SECONDS))
        return False


async def _whole_request(source: BufferedByteReceiveStream, client: SocketStream) -> bytes:
    """The next request. Who waits to be told to send the body is told so here."""
    head = await source.receive_until(b"\r\n\r\n", _MAX_HEAD)
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"expect:")]
    if len(lines) < head.count(b"\r\n") + 1:
        await client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    lengths = [int(line.partition(b":")[2]) for line in lines if line.lower().startswith(b"content-length:")]
    body = await source.receive_exactly(lengths[0]) if lengths and lengths[0] else b""
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@contextmanager
def between(network: Network, endpoints: dict[str, str]) -> Iterator[dict[str, str]]:
    """Gives, for each variable's endpoint, the URL of a proxy of it."""
    with start_blocking_portal() as portal:
        tasks, proxied = [], {}
        for variable, endpoint in endpoints.items():
            task, proxied[variable] = portal.start_task(network.serve, endpoint)
            tasks.append(task)
        try:
            yield proxied
        finally:
            for task in tasks:
                task.cancel()
