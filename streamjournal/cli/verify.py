"""`verify`: whether journals are what their writers wrote."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from streamjournal.cli.output import EXIT_NOTHING, flush, notice, put, put_json

if TYPE_CHECKING:
    from streamjournal.read.verification import Verification

_MOST_WRITERS = 20  # of a session, that are shown one by one


class VerifyFormat(StrEnum):
    """`short`: lines for a person; `json`: an object per session."""

    short = "short"
    json = "json"


def verify(
    sessions: Annotated[
        list[str] | None, typer.Argument(metavar="[SESSION ...]", help="The sessions' ids.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Check every journal.")] = False,
    output: Annotated[
        VerifyFormat, typer.Option("-o", "--output", help="How to print the results.")
    ] = VerifyFormat.short,
) -> None:
    """Check that journals are whole: nothing missing, doubled, out of order or changed.

    Exits with 0 only if all are.
    """
    if bool(sessions) is everything:
        raise typer.BadParameter("name sessions, or give --all", param_hint="SESSION")
    printer = _Printer(output, brief=everything)
    try:
        if everything:
            _verify_all(printer)
        else:
            _verify_some(sessions or [], printer)
    finally:
        flush()  # what was found before something was not reachable
    if everything:
        printer.tell_all()
    flush()
    raise typer.Exit(0 if printer.checked and not printer.broken else EXIT_NOTHING)


def _verify_some(sessions: list[str], printer: _Printer) -> None:
    from streamjournal.client import Journal

    with Journal() as journal:
        for session in dict.fromkeys(sessions):
            printer(journal.verify(session))


def _verify_all(printer: _Printer) -> None:
    from contextlib import aclosing

    import anyio

    from streamjournal import wiring
    from streamjournal.core.clock import SYSTEM
    from streamjournal.core.settings import load
    from streamjournal.read.verify import verify_journals

    settings = load()

    async def run() -> None:
        store = wiring.open_store(settings, SYSTEM)
        try:
            async with aclosing(verify_journals(store)) as checks:
                async for found in checks:
                    printer(found)
        finally:
            with anyio.CancelScope(shield=True):
                await store.aclose()

    anyio.run(run)


class _Printer:
    """Prints results as they come.

    Args:
        brief: only those with something to say, and that.
    """

    def __init__(self, form: VerifyFormat, *, brief: bool) -> None:
        self._form = form
        self._brief = brief
        self.checked = self.broken = self.remarked = 0

    def __call__(self, found: Verification) -> None:
        self.checked += 1
        self.broken += not found.whole
        self.remarked += found.whole and bool(found.findings)
        if self._form is VerifyFormat.json:
            put_json(found)
        elif found.findings or not self._brief:
            self._tell(found)
        flush()

    def _tell(self, found: Verification) -> None:
        name = found.session_id if found.session_id.isprintable() else ascii(found.session_id)[1:-1]
        if found.where != "journal":
            put(f"{name}: {found.findings[0].text}")
            return
        without = f" ({found.unnumbered:,} without a number)" if found.unnumbered else ""
        entries = _count(found.entries, "entry", "entries")
        put(f"{name}: {'whole' if found.whole else 'NOT WHOLE'}, {entries}{without}")
        for finding in found.findings:
            put(f"  {'!' if finding.damage else '-'} {finding.text}")
        if found.left_out:
            put(f"  ! and {found.left_out:,} more of the same kinds")
        if not self._brief:
            for writer in found.writers[:_MOST_WRITERS]:
                put(f"  {writer.writer}: {_count(writer.entries, 'entry', 'entries')}, {writer.state}")
            if len(found.writers) > _MOST_WRITERS:
                put(f"  and {_count(len(found.writers) - _MOST_WRITERS, 'more writer', 'more writers')}")

    def tell_all(self) -> None:
        """The last line of a check of all."""
        if not self.checked:
            notice("there are no journals to check")
        elif self._form is VerifyFormat.short:
            broken = f"{self.broken:,} not whole" if self.broken else "all whole"
            remarks = f", {self.remarked:,} with remarks" if self.remarked else ""
            put(f"{_count(self.checked, 'journal', 'journals')}: {broken}{remarks}")


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
