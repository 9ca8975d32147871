"""`doctor`: what is there, what is missing, and what to do."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from streamjournal.cli.output import (
    EXIT_NOTHING,
    EXIT_UNREACHABLE,
    flush,
    notice,
    paint,
    put,
    put_json,
)
from streamjournal.core.visible import visible

if TYPE_CHECKING:
    from streamjournal.admin.doctor import Check

_WIDTH = 32  # of the names' column; a longer one moves what follows
_COLOURS = {"ok": "32", "warning": "33", "failed": "31", "skipped": "2"}


class DoctorFormat(StrEnum):
    """`short`: a line per check, and what to do under it; `json`: an object per check."""

    short = "short"
    json = "json"


def doctor(
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, help="Seconds to wait for an answer, in each check.")
    ] = 5.0,
    output: Annotated[
        DoctorFormat, typer.Option("-o", "--output", help="How to print the checks.")
    ] = DoctorFormat.short,
) -> None:
    """Check settings, backend, permissions, spools and lag, and say what to do. Changes nothing."""
    import logging
    from functools import partial

    import anyio
    import structlog

    from streamjournal.admin.doctor import diagnose
    from streamjournal.core.settings import load

    settings = load()
    # What adapters log on the way, the checks say too.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.getLogger("streamjournal").setLevel(logging.CRITICAL)
    show = put_json if output is DoctorFormat.json else _show
    found = anyio.run(partial(diagnose, settings, environ=os.environ, timeout=timeout, tell=show))
    flush()
    if output is DoctorFormat.short:
        counts = {result: sum(check.result == result for check in found.checks) for result in _COLOURS}
        notice(", ".join(f"{count} {result}" for result, count in counts.items() if count))
    if not found.reached:
        raise typer.Exit(EXIT_UNREACHABLE)
    raise typer.Exit(0 if found.healthy else EXIT_NOTHING)


def _show(check: Check) -> None:
    import sys

    result = paint(f"{check.result:<8}", _COLOURS[check.result], sys.stdout)
    put(f"{result} {visible(f'{check.name:<{_WIDTH}}  {check.found}')}")
    if check.remedy:
        put(f"{'':<8} {visible(check.remedy)}")
    flush()
