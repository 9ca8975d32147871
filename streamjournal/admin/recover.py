"""`streamjournal recover`: sends what dead processes left in their spools, wherever it was meant to go."""

from __future__ import annotations

from pathlib import Path

import anyio

from streamjournal import wiring
from streamjournal.core.clock import SYSTEM, Clock
from streamjournal.core.errors import StreamjournalError
from streamjournal.core.settings import Settings
from streamjournal.emit.recovery import Recovered, destinations, recover_folder
from streamjournal.emit.sender import Sender
from streamjournal.emit.spool import Destination
from streamjournal.emit.wakeup import Wakeup


async def recover_all(settings: Settings, *, timeout: float, clock: Clock = SYSTEM) -> Recovered:
    """Recover every orphan in the settings' spool folder, whatever its destination.

    A destination that cannot be opened leaves its spools as they are, and does not hold up the others.

    Args:
        timeout: seconds to wait for the stream, for each spool.
    """
    folder = settings.spool_path
    if folder is None:
        return Recovered(0, 0, [])
    spools = entries = 0
    skipped: dict[tuple[Path, str], None] = {}  # each once, though every destination's turn meets it
    for destination in destinations(folder) or {wiring.destination(settings): 0}:  # to tell of unusable ones
        try:
            one = await _recover_for(
                wiring.settings_for(settings, destination), destination, folder, timeout, clock
            )
        except StreamjournalError as problem:
            skipped[folder, f"for stream {destination.stream}: {problem}"] = None
            continue
        spools += one.spools
        entries += one.entries
        skipped |= {(path, why): None for path, why in one.skipped if not why.startswith("it goes to")}
    return Recovered(spools, entries, list(skipped))


async def _recover_for(
    settings: Settings, destination: Destination, folder: Path, timeout: float, clock: Clock
) -> Recovered:
    stream = wiring.open_stream(settings, clock)
    store = wiring.open_store(settings, clock)
    sender = Sender(None, stream, store, settings, clock, Wakeup())
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sender.run, name="sender")
            recovered = await recover_folder(sender, folder, destination, timeout=timeout)
            tasks.cancel_scope.cancel()
        return recovered
    finally:
        with anyio.CancelScope(shield=True):
            await stream.aclose()
            await store.aclose()
