"""A network that fails, between the processes and the emulators.

Connections are cut and answers come late. The worst cut is the one after the request has arrived: the
service did what was asked, and the caller sees an error.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from urllib.parse import SplitResult, urlsplit

import anyio
from anyio.abc import ByteReceiveStream, SocketAttribute, SocketStream, TaskStatus
from anyio.from_thread import start_blocking_portal

_LATE_SECONDS = 1.5  # at most
_LOST = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, OSError)


class Network:
    """Cuts and delays while `rate` is above 0.

    Args:
        rate: chance of a fault, for each piece of a request or an answer.
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
        await listener.serve(partial(self._connection, urlsplit(upstream)))

    async def _connection(self, upstream: SplitResult, client: SocketStream) -> None:
        host, port = upstream.hostname, upstream.port
        assert host is not None
        assert port is not None
        async with client:
            with suppress(*_LOST):
                async with await anyio.connect_tcp(host, port) as server, anyio.create_task_group() as both:
                    both.start_soon(self._pass_on, client, server, "request", both.cancel_scope)
                    both.start_soon(self._pass_on, server, client, "answer", both.cancel_scope)

    async def _pass_on(
        self, source: ByteReceiveStream, target: SocketStream, what: str, scope: anyio.CancelScope
    ) -> None:
        """Until one side closes, or the chance says so; then both are closed."""
        with suppress(*_LOST):
            async for piece in source:
                if self._rng.random() < self.rate:
                    self.done[f"cut {what}"] += 1
                    break
                if self._rng.random() < self.rate:
                    self.done[f"late {what}"] += 1
                    await anyio.sleep(self._rng.uniform(0.0, _LATE_SECONDS))
                await target.send(piece)
        scope.cancel()


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
