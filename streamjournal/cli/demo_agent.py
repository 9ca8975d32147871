"""The demo's agent: three tools, a plan instead of a model, and a journal that they meet through.

The tools do what they say: `make_data` writes a CSV, `analyse` runs Python in another process, which
prints entries between markers because it has nothing else, and `report` finds what `analyse` wrote by
reading the journal, before any worker has moved it there. The first `analyse` fails and is retried.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from streamjournal.agents.preamble import with_preamble
from streamjournal.agents.sandbox_entries import SandboxOutput
from streamjournal.client import Journal, Session

_ROWS = 5_000
_PAUSE = 0.35  # seconds between steps, so that a person can follow

_ANALYSIS = textwrap.dedent(
    """
    import csv, statistics, sys

    path, column = sys.argv[1:]
    rows = list(csv.DictReader(open(path)))
    journal("DATA_LOADED", rows=len(rows), columns=list(rows[0]))
    values = [float(row[column]) for row in rows]
    print(f"looking at {column} ...")
    mean, spread = statistics.fmean(values), statistics.stdev(values)
    outliers = [i for i, v in enumerate(values) if abs(v - mean) > 3 * spread]
    journal("STATISTICS", column=column, mean=round(mean, 3), stdev=round(spread, 3), outliers=len(outliers))
    print("done")
    """
)


class ToolFailedError(Exception):
    """A tool could not do its work."""


class DemoAgent:
    """Runs its plan in one session.

    Args:
        pause: seconds between steps.
    """

    def __init__(self, journal: Journal, session_id: str, *, pause: float = _PAUSE) -> None:
        self._journal = journal
        self._session_id = session_id
        self._pause = pause

    def run(self) -> None:
        """Do the plan: data, analysis (failing once), report."""
        with (
            tempfile.TemporaryDirectory(prefix="streamjournal-demo-") as folder,
            self._journal.session(self._session_id) as session,
        ):
            data = Path(folder) / "orders.csv"
            self._call(session, "make_data", lambda: self._make_data(data), path=data.name)
            self._analyse(session, data)
            self._call(session, "report", lambda: self._report(session))

    def _analyse(self, session: Session, data: Path) -> None:
        for attempt, column in enumerate(("price", "amount"), 1):  # the plan's first guess is wrong
            work = partial(self._run_sandboxed, session, data, column)
            try:
                self._call(session, "analyse", work, column=column, attempt=attempt)
            except ToolFailedError:
                continue
            return
        raise ToolFailedError("analyse failed twice")

    def _call(self, session: Session, tool: str, work: Callable[[], Any], **arguments: Any) -> Any:
        """A tool call, its start and its end in the journal."""
        session.emit("TOOL_START", tool_name=tool, details={"arguments": arguments})
        started = time.perf_counter()
        try:
            result = work()
        except ToolFailedError as problem:
            details = {"error": str(problem), "duration_ms": _since(started)}
            session.emit("TOOL_ERROR", tool_name=tool, level="ERROR", details=details)
            time.sleep(self._pause)
            raise
        details = {"result": result, "duration_ms": _since(started)}
        session.emit("TOOL_END", tool_name=tool, details=details)
        time.sleep(self._pause)
        return result

    def _make_data(self, path: Path) -> dict[str, Any]:
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["order", "amount", "country"])
            for i in range(_ROWS):
                amount = 20 + (i * 37 % 101) / 10 + (500 if i % 997 == 0 else 0)
                writer.writerow([i, f"{amount:.2f}", ("DE", "FR", "JP")[i % 3]])
        return {"rows": _ROWS, "bytes": path.stat().st_size}

    def _run_sandboxed(self, session: Session, data: Path, column: str) -> dict[str, Any]:
        """Python in another process: isolated mode, empty environment. It claims no security."""
        done = subprocess.run(
            [sys.executable, "-I", "-c", with_preamble(_ANALYSIS), str(data), column],
            env={},
            cwd=data.parent,
            capture_output=True,
            timeout=30,
            check=False,
        )
        output = SandboxOutput(session, tool_name="analyse")
        printed = output.feed(done.stdout) + output.finish()
        if done.returncode:
            raise ToolFailedError(done.stderr.decode().strip().splitlines()[-1])
        return {"output": printed.decode().strip().splitlines()}

    def _report(self, session: Session) -> dict[str, Any]:
        """What the sandbox found, out of the journal: no variable was passed from tool to tool."""
        statistics = session.read(event_types="STATISTICS", last=1).all()
        if not statistics:
            raise ToolFailedError("no STATISTICS in the journal")
        found = statistics[0].details
        return {
            "text": f"{found['outliers']} of the orders have an outlying {found['column']}",
            "found_in_entry": statistics[0].id,
            "flushed_to_the_journal_yet": bool(session.read(journal_only=True).all()),
        }


def _since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 1)
