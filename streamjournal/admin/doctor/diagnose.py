"""`streamjournal doctor`: all checks, side by side where they do not need each other, told in one order.

Nothing here changes anything that counts: no entry reaches the stream, no row the lease table, no
object the journals. Scratch files and objects are removed again.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Final, NamedTuple

import anyio

from streamjournal import wiring
from streamjournal.admin.doctor.check import Check, Checks, failed, ok, skipped, warning
from streamjournal.admin.doctor.home import STREAM, check_databases, check_home
from streamjournal.admin.doctor.lag import check_lag
from streamjournal.admin.doctor.sources import check_settings
from streamjournal.admin.doctor.spools import check_spools
from streamjournal.core.clock import SYSTEM, Clock
from streamjournal.core.errors import StreamjournalError
from streamjournal.core.settings import Settings
from streamjournal.emit.spool import Destination
from streamjournal.store.port import Store

_COUNTED: Final = 1000  # dead letters; beyond that it only says that there are more

Tell = Callable[[Check], None]


class Diagnosis(NamedTuple):
    """What a doctor's visit gave.

    Args:
        reached: whether stream, store or lease table answered at all.
    """

    checks: list[Check]
    reached: bool

    @property
    def healthy(self) -> bool:
        """Whether nothing failed."""
        return all(check.result != "failed" for check in self.checks)


async def diagnose(
    settings: Settings,
    *,
    environ: Mapping[str, str] = os.environ,
    arguments: Collection[str] = (),
    timeout: float = 5.0,
    clock: Clock = SYSTEM,
    tell: Tell = lambda _: None,
) -> Diagnosis:
    """Look at everything that entries need on their way.

    Args:
        environ: where the settings came from.
        arguments: names of the settings that were given as arguments.
        timeout: seconds for each check.
        tell: given each check, in the order of the result, as soon as it and those before it are done.
    """
    visit = _Visit(settings, timeout, clock, tell)
    visit.note(check_settings(settings, environ, arguments))
    home, usable = await check_home(settings, timeout, clock.draw_id())
    visit.note(home)
    async with AsyncExitStack() as opened:
        if settings.embedded:
            visit.reached = usable
            if usable:
                await visit.embedded(opened)
        else:
            await visit.aws(opened)
    visit.note(await check_spools(settings, _here(settings), timeout, clock.draw_id()))
    return Diagnosis(visit.checks, visit.reached)


def _here(settings: Settings) -> Destination | None:
    try:
        return wiring.destination(settings)
    except StreamjournalError:  # no bucket; told of with the settings
        return None


class _Visit:
    """The checks so far."""

    def __init__(self, settings: Settings, seconds: float, clock: Clock, tell: Tell) -> None:
        self.settings = settings
        self.seconds = seconds
        self.clock = clock
        self.tell = tell
        self.checks: list[Check] = []
        self.reached = False

    def note(self, checks: Collection[Check]) -> None:
        """Add checks to the result, and tell them."""
        for check in checks:
            self.checks.append(check)
            self.tell(check)

    async def embedded(self, opened: AsyncExitStack) -> None:
        """The files under `home`."""
        databases = await check_databases(self.settings, self.seconds)
        self.note(databases)
        store = wiring.open_store(self.settings, self.clock)
        opened.push_async_callback(store.aclose)
        checks = Checks("the home folder", self.seconds)
        if await anyio.Path(self.settings.home_path).exists():
            await checks.run("conditional writes", partial(_probe, store))
        self.note(checks.done)
        self.note(await self._dead_letters(store))
        if any(check.result == "failed" for check in databases):
            self.note([skipped("lag", "the files above come first")])
        elif await anyio.Path(self.settings.home_path / STREAM).exists():
            self.note(await self._lag(opened))
        else:
            self.note([skipped("lag", "nothing was emitted yet")])

    async def aws(self, opened: AsyncExitStack) -> None:
        """The three services, side by side; then what needs two of them."""
        try:
            from streamjournal.admin.doctor.services import Services
        except ModuleNotFoundError as problem:
            remedy = "pip install 'streamjournal[aws]'"
            self.note([failed("AWS packages", f"are not installed ({problem})", remedy)])
            return
        services = Services(self.settings, self.clock, self.seconds)
        opened.push_async_callback(services.aclose)
        credentials = await services.credentials()
        self.note(credentials)
        if credentials[0].result == "failed":
            self.note([skipped(name, "needs credentials") for name in ("stream", "bucket", "lease table")])
            return
        await _in_order([services.stream, services.bucket, services.table], self.note)
        self.reached = services.answered
        self.note([services.clock()])
        if services.store is not None and services.bucket_there:
            self.note(await self._dead_letters(services.store))
        if services.stream_and_table_there:
            self.note(await self._lag(opened))
        else:
            self.note([skipped("lag", "it needs both the stream and the lease table")])

    async def _lag(self, opened: AsyncExitStack) -> list[Check]:
        stream = wiring.open_stream(self.settings, self.clock)
        opened.push_async_callback(stream.aclose)
        leases = wiring.open_leases(self.settings)
        opened.push_async_callback(leases.aclose)
        return await check_lag(stream, leases, self.clock, self.seconds, embedded=self.settings.embedded)

    async def _dead_letters(self, store: Store) -> list[Check]:
        checks = Checks("the store", self.seconds)
        await checks.run("dead letters", partial(_count_letters, store))
        return checks.done


async def _in_order(
    looks: list[Callable[[], Awaitable[list[Check]]]], note: Callable[[list[Check]], None]
) -> None:
    """Run all at once, and note what each found in the order of the list."""
    found: dict[int, list[Check]] = {}
    told = 0

    async def run(i: int, look: Callable[[], Awaitable[list[Check]]]) -> None:
        nonlocal told
        found[i] = await look()
        while told in found:
            note(found[told])
            told += 1

    async with anyio.create_task_group() as tasks:
        for i, look in enumerate(looks):
            tasks.start_soon(run, i, look)


async def _probe(store: Store) -> Check:
    """By the worker's own probe, which it runs before it writes anything."""
    await store.probe()
    return ok("conditional writes", "a wrong version is refused, and the file system keeps locks")


async def _count_letters(store: Store) -> Check:
    count = 0
    async for _ in store.list_dead_letters():
        count += 1
        if count > _COUNTED:
            break
    if not count:
        return ok("dead letters", "none", count=0)
    more = f"more than {_COUNTED:,}" if count > _COUNTED else f"{count:,}"
    return warning("dead letters", more, "`streamjournal dead-letters` shows them", count=count)
