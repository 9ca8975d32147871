"""What a round left, gathered at its end: journals, checkpoints, dead letters, spools, stderr."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anyio
import msgspec

from streamjournal import wiring
from streamjournal.core.clock import SYSTEM
from streamjournal.core.position import SHARD_END, ShardStart
from streamjournal.core.settings import Settings
from streamjournal.store.port import Store
from tests.chaos.cast import Process
from tests.chaos.checks import Journals, Violation

# What may stand on a stderr: a life among killed and stopped neighbours is not silent.
_EXPECTED = (
    r"recovered \d+ entries that a process left in spool",
    r"\d+ entries wait, trying again$",
    r"\d+ entries were not acknowledged before (close|the exit)",
)
# What a worker may call an error: an operator's mistake that the round makes.
_EXPECTED_ERRORS = ("lease_row_deleted",)
_expected = re.compile("|".join(_EXPECTED))
_ERRORS = ("error", "critical")


async def read_journals(settings: Settings, copies: Path) -> tuple[Journals, list[Violation]]:
    """Session -> its journal's lines, decoded, with large details put back; and what is no entry.

    Args:
        copies: a folder for the journals as they are; those of the emulator end with it.
    """
    store = wiring.open_store(settings, SYSTEM)
    found: dict[str, list[dict[str, Any]]] = {}
    broken = []
    try:
        async for listed in store.journals():
            assert listed.session_id is not None
            async with store.open(listed.session_id) as body:
                assert body is not None
                data = b"".join([chunk async for chunk in body.chunks])
            (copies / f"{listed.name}.jsonl").write_bytes(data)
            entries = found[listed.session_id] = []
            for number, line in enumerate(data.split(b"\n")[:-1], 1):
                try:
                    entries.append(await _with_blob(store, msgspec.json.decode(line, type=dict[str, Any])))
                except msgspec.MsgspecError as problem:
                    broken.append(Violation("broken", f"{listed.name}, line {number}: {problem}"))
            if not data.endswith(b"\n"):
                broken.append(Violation("broken", f"{listed.name} ends in mid-line"))
        return found, broken
    finally:
        await store.aclose()


async def _with_blob(store: Store, entry: dict[str, Any]) -> dict[str, Any]:
    details = entry.get("details")
    if isinstance(details, dict) and "$blob" in details:
        data = await store.get_blob(details["$blob"])
        return entry | {"details": msgspec.json.decode(data) if data is not None else {"blob": "is gone"}}
    return entry


async def check_checkpoints(settings: Settings) -> list[Violation]:
    """Each shard's checkpoint is its end: nothing follows it, and a closed one is SHARD_END."""
    stream, leases = wiring.open_stream(settings, SYSTEM), wiring.open_leases(settings)
    try:
        rows = {row.key: row for row in await leases.rows()}
        found = []
        for shard in await stream.shards():
            row = rows.get(shard.id)
            if row is None:
                found.append(Violation("checkpoint", f"{shard.id} has no lease"))
            elif row.checkpoint == SHARD_END:
                if not shard.closed:
                    found.append(Violation("checkpoint", f"{shard.id} is open, but its checkpoint SHARD_END"))
            elif shard.closed:
                found.append(Violation("checkpoint", f"{shard.id} has ended, but is at {row.checkpoint}"))
            else:
                reader = stream.reader(shard.id, ShardStart.after(row.checkpoint))
                behind = 1
                while behind:
                    batch = await reader.next()
                    if batch.records:
                        last = batch.records[-1].sequence
                        found.append(
                            Violation("checkpoint", f"{shard.id} is at {row.checkpoint}, not {last}")
                        )
                    behind = batch.behind_ms
                await reader.aclose()
        return found
    finally:
        await stream.aclose()
        await leases.aclose()


async def dead_letters(settings: Settings) -> list[str]:
    """The keys of all dead letters."""
    store = wiring.open_store(settings, SYSTEM)
    try:
        return [letter.key async for letter in store.list_dead_letters()]
    finally:
        await store.aclose()


def check_stderr(processes: Iterable[Process]) -> list[Violation]:
    """Nothing on any stderr but what is known to be said; the workers' log has no error."""
    found = []
    for process in processes:
        lines = process.stderr.read_text(errors="replace").splitlines()
        strange = [line[:300] for line in lines if not is_expected(line)]
        if strange:
            shown = [*strange[:2], "…", *strange[-2:]] if len(strange) > 4 else strange
            found.append(Violation("stderr", f"{process.stderr}: " + "\n  ".join(shown), len(strange)))
    return found


def is_expected(line: str) -> bool:
    """Whether a line of stderr may be there."""
    if line.startswith("{"):
        try:
            fields = msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.DecodeError:  # cut short by a kill
            return not line.endswith("}")
        is_error = fields.get("level") in _ERRORS and fields.get("event") not in _EXPECTED_ERRORS
        return not is_error and "exception" not in fields
    return not line.strip() or _expected.search(line) is not None


def check_ends(processes: Iterable[Process]) -> list[Violation]:
    """Nobody ended of his own accord: by a signal that he got, or 0 after SIGTERM, or not at all."""
    found = []
    for process in processes:
        code = process.popen.poll()
        if code is None or (code < 0 and -code in process.sent) or (code == 0 and process.sent):
            continue
        found.append(Violation("exit", f"{process.name} ended with {code}; it was sent {process.sent}"))
    return found


def check_spools(folder: Path | None) -> list[Violation]:
    """Recovery and clean ends left no spool."""
    if folder is None or not folder.is_dir():
        return []
    return [Violation("spool", f"{path} is left") for path in sorted(folder.iterdir())]


def gather(settings: Settings, copies: Path) -> tuple[Journals, list[Violation]]:
    """Journals, and what is wrong with them, with checkpoints and dead letters."""

    async def all_of_it() -> tuple[Journals, list[Violation]]:
        journals, found = await read_journals(settings, copies)
        found += await check_checkpoints(settings)
        found += [Violation("dead letter", key) for key in await dead_letters(settings)]
        return journals, found

    return anyio.run(all_of_it)
