"""How the programs are called, and how they say what they found: a table, or JSON lines."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

Row = Mapping[str, str | float | int | None]


def parser(name: str, about: str, *, rounds: int) -> argparse.ArgumentParser:
    """The options that all programs share."""
    options = argparse.ArgumentParser(prog=f"scripts/bench/run {name}", description=about)
    options.add_argument("file", nargs="?", type=Path, help="entries as JSON lines, also .gz")
    options.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options.add_argument("--rounds", type=int, default=rounds, help="default %(default)s; medians are shown")
    options.add_argument("--limit", type=int, help="use only the first so many entries")
    return options


class Report:
    """Prints what a program finds. JSON: one object per line, the machine first."""

    def __init__(self, name: str, options: argparse.Namespace, **about: Any) -> None:
        self._name = name
        self._json = options.output == "json"
        self._console = Console(width=None if sys.stdout.isatty() else 140)
        about = {"machine": machine(), "date": f"{datetime.now(UTC):%Y-%m-%d}", **about}
        if self._json:
            self._line(about)
        else:
            for key, value in about.items():
                self._console.print(f"{key}: {value}", highlight=False, markup=False)

    def table(self, title: str, rows: Sequence[Row], *, note: str = "") -> None:
        """Rows with the same keys; the first key names the row."""
        if self._json:
            for row in rows:
                self._line({"table": title, **row})
            return
        table = Table(title=title, title_justify="left", caption=note or None, caption_justify="left")
        for i, key in enumerate(rows[0]):
            table.add_column(key, justify="right" if i else "left")
        for row in rows:
            table.add_row(*(_text(value) for value in row.values()))
        self._console.print()
        self._console.print(table)

    def _line(self, fields: Mapping[str, Any]) -> None:
        print(msgspec.json.encode({"bench": self._name, **fields}).decode(), flush=True)


def machine() -> str:
    """The machine's size, as far as it says."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    python = f"Python {platform.python_version()}"
    return f"{cores} cores, {_processor()}, {memory:.0f} GiB, {platform.system()}, {python}, load {load}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _text(value: str | float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 1000 or not value:
        return f"{value:,.0f}"
    if abs(value) < 0.1:
        return f"{value:.4f}"
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
