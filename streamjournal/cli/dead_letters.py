"""`dead-letters`: list what is no entry, look at it, put it back."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamjournal.cli.output import EXIT_NOTHING, flush, notice, put, put_json
from streamjournal.core.visible import visible

if TYPE_CHECKING:
    from streamjournal.admin.dead_letters import Outcome
    from streamjournal.store.port import DeadLetter, Store

_LISTED = 50


class Action(StrEnum):
    """What to do with the dead letters."""

    list = "list"
    show = "show"
    replay = "replay"


class LetterFormat(StrEnum):
    """`short`: for a person; `json`: an object per letter."""

    short = "short"
    json = "json"


def dead_letters(
    action: Annotated[Action, typer.Argument(help="What to do.")] = Action.list,
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY]...", help="Which, for `show` and `replay`.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Replay every dead letter that is there now.")] = False,
    number: Annotated[
        int, typer.Option("-n", "--number", min=1, help="List at most so many, the newest.")
    ] = _LISTED,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, help="Seconds that a replay goes on without progress.")
    ] = 30.0,
    output: Annotated[
        LetterFormat, typer.Option("-o", "--output", help="How to print them.")
    ] = LetterFormat.short,
) -> None:
    """Records and entries that could not be brought to a journal: list, show or replay them."""
    import anyio

    given = keys or []
    _check(action, given, every=every)
    if action is Action.list:
        code = anyio.run(_list, number, output)
    elif action is Action.show:
        code = anyio.run(_show, given, output)
    else:
        code = anyio.run(_replay, None if every else given, timeout, output)
    flush()
    raise typer.Exit(code)


def _check(action: Action, keys: list[str], *, every: bool) -> None:
    if every and (action is not Action.replay or keys):
        raise typer.BadParameter("goes with `replay`, and without keys", param_hint="--all")
    if action is Action.list and keys:
        raise typer.BadParameter("`list` takes none; see `show KEY`", param_hint="KEY")
    if action is not Action.list and not keys and not every:
        more = ", or --all" if action is Action.replay else ""
        raise typer.BadParameter(f"`{action}` needs at least one{more}", param_hint="KEY")


def _open_store() -> Store:
    from streamjournal import wiring
    from streamjournal.core.clock import SYSTEM
    from streamjournal.core.settings import load

    return wiring.open_store(load(), SYSTEM)


async def _list(number: int, output: LetterFormat) -> int:
    from streamjournal.admin.dead_letters import newest
    from streamjournal.core.errors import DeadLetterError

    store = _open_store()
    try:
        found, count = await newest(store, number)
        for listed in found:
            try:
                letter = await store.get_dead_letter(listed.key)
            except DeadLetterError as problem:
                _put_damaged(listed.key, problem, output)
                continue
            if letter is not None:  # else somebody replayed it at this moment
                _put_listed(listed.key, letter, listed.modified, output)
    finally:
        await store.aclose()
    if not count:
        notice("no dead letters")
    elif count > len(found):
        notice(f"the newest {len(found):,} of {count:,}; -n shows more")
    return 0 if count else EXIT_NOTHING


async def _show(keys: list[str], output: LetterFormat) -> int:
    from streamjournal.core.errors import DeadLetterError

    store = _open_store()
    code = 0
    try:
        for key in keys:
            try:
                letter = await store.get_dead_letter(key)
            except DeadLetterError as problem:
                letter = None
                notice(str(problem), error=True)
                code = EXIT_NOTHING
                continue
            if letter is None:
                notice(f"there is no dead letter {key}", error=True)
                code = EXIT_NOTHING
            else:
                _put_shown(key, letter, output)
    finally:
        await store.aclose()
    return code


async def _replay(keys: list[str] | None, timeout: float, output: LetterFormat) -> int:
    from streamjournal import wiring
    from streamjournal.admin.dead_letters import Replayer
    from streamjournal.core.clock import SYSTEM
    from streamjournal.core.settings import load

    settings = load()
    store = wiring.open_store(settings, SYSTEM)
    stream = wiring.open_stream(settings, SYSTEM)
    replayed = left = incomplete = 0
    try:
        replayer = Replayer(stream, store, SYSTEM, timeout=timeout)
        async for outcome in replayer.all() if keys is None else replayer.each(keys):
            _put_outcome(outcome, output)
            replayed += outcome.action == "replayed"
            left += outcome.action == "left"
            incomplete += bool(outcome.reason)
    finally:
        await stream.aclose()
        await store.aclose()
    if not replayed and not left:
        notice("no dead letters")
        return EXIT_NOTHING
    notice(f"replayed {replayed:,}, left {left:,}")
    return EXIT_NOTHING if incomplete else 0


def _fields(key: str, letter: DeadLetter, modified: float | None) -> dict[str, Any]:
    """What there is to say of a letter, its bytes left out."""
    from streamjournal.admin.dead_letters import entry_of
    from streamjournal.core.clock import format_timestamp
    from streamjournal.core.errors import InvalidEntryError

    session_id, why_not = None, None
    try:
        session_id = entry_of(key, letter).session_id
    except InvalidEntryError as problem:
        why_not = str(problem)
    written = None if modified is None else int(modified * 1e9)
    moment = letter.arrival_ms * 1_000_000 or written
    return {
        "key": key,
        "when": None if moment is None else format_timestamp(moment),
        "stream": letter.stream,
        "shard": letter.shard,
        "sequence": letter.sequence,
        "index": letter.index,
        "partition_key": letter.partition_key,
        "session_id": session_id,
        "reason": letter.reason,
        "size": len(letter.data),
        "replayable": why_not is None,
    }


def _put_listed(key: str, letter: DeadLetter, modified: float, output: LetterFormat) -> None:
    fields = _fields(key, letter, modified)
    if output is LetterFormat.json:
        put_json(fields)
        return
    when = fields["when"][:19].replace("T", " ")
    whose = fields["session_id"] or "no entry"
    put(
        visible(f"{when}  {letter.shard}/{letter.sequence}  {len(letter.data):,} B  {whose}  {letter.reason}")
    )
    put(f"    {key}")


def _put_damaged(key: str, problem: Exception, output: LetterFormat) -> None:
    if output is LetterFormat.json:
        put_json({"key": key, "reason": str(problem), "replayable": False})
    else:
        put(visible(f"no dead letter: {problem}"))
        put(f"    {key}")


def _put_shown(key: str, letter: DeadLetter, output: LetterFormat) -> None:
    fields = _fields(key, letter, None)
    if output is LetterFormat.json:
        put_json({**fields, "data": letter.data})  # in base64, as JSON has no bytes
        return
    for name, value in fields.items():
        if value is not None:
            put(visible(f"{name.replace('_', ' '):<14} {value}"))
    put("")
    put(_as_text(letter.data))


def _as_text(data: bytes) -> str:
    """Bytes for a person to read: lines stay lines, whatever else could drive a terminal shows as code."""
    return "\n".join(visible(line) for line in data.decode("utf-8", "backslashreplace").split("\n"))


def _put_outcome(outcome: Outcome, output: LetterFormat) -> None:
    if output is LetterFormat.json:
        fields = outcome._asdict()
        where = fields.pop("where")
        put_json({**fields, "shard": where and where[0], "sequence": where and where[1]})
    elif outcome.where is not None:
        what = f"{outcome.entry_id} of {outcome.session_id} at {'/'.join(outcome.where)}"
        put(visible(f"replayed {outcome.key}: {what}" + (f"; {outcome.reason}" if outcome.reason else "")))
    else:
        put(visible(f"left {outcome.key}: {outcome.reason}"))
    if sys.stdout.isatty():
        flush()
