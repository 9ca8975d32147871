"""The benchmarks run, on a handful of entries, and say what their pages show; how fast is not asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENTRIES = 120


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three sessions' entries, one of them ending."""
    file = tmp_path / "entries.jsonl"
    lines = [
        {
            "timestamp": f"2026-11-22T13:12:{n // 3:02d}.000000Z",
            "session_id": f"smoke/{n % 3}",
            "event_type": "SESSION_END" if n == ENTRIES - 1 else "TOOL_END",
            "tool_name": "run",
            "level": "ERROR" if n % 7 == 0 else "INFO",
            "details": {"n": n, "text": "x" * (n * 10)},
        }
        for n in range(ENTRIES)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def run(name: str, *arguments: str | Path) -> dict[str, list[dict[str, Any]]]:
    """A program's rows by table, and what it says first under the empty name."""
    done = subprocess.run(
        [sys.executable, "-m", f"scripts.bench.{name}", "-o", "json", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    tables: dict[str, list[dict[str, Any]]] = {}
    for line in done.stdout.splitlines():
        fields = json.loads(line)
        assert fields.pop("bench") == name
        tables.setdefault(fields.pop("table", ""), []).append(fields)
    (about,) = tables[""]
    assert "cores" in about["machine"]
    assert "GiB" in about["machine"]
    return tables


def test_emit_stands_beside_floor_and_peers(data: Path) -> None:
    """Every way of taking an entry has a positive cost, and ratios to the floor and to the span."""
    rows = run("emit", data, "--rounds", "3")["microseconds per entry"]
    assert len(rows) == 8
    assert all(row["µs (median)"] >= row["µs (best)"] > 0 for row in rows)
    floor, *_, span = rows
    assert floor["x floor"] == 1
    assert span["x span"] == 1


def test_pipeline_moves_every_entry(data: Path) -> None:
    """Both sides, with the script first; the program itself refuses a round that lost an entry."""
    tables = run("pipeline", data, "--rounds", "1", "--copies", "2")
    for side in ("producer", "worker"):
        script, ours = tables[side]
        assert script["CPU x straight"] == 1
        assert ours["CPU µs/entry"] > 0
        assert ours["entries/s"] > 0


def test_more_seconds_between_flushes_mean_fewer_requests(data: Path) -> None:
    """Counts fall with the interval, and all of them stay under a request pair per entry."""
    tables = run("aws_requests", data, "--intervals", "1,30", "--no-emulator")
    for title, rows in tables.items():
        if title:
            often, seldom, peer = rows
            assert 0 < seldom["PUT"] <= often["PUT"] < peer["PUT"] == 1000
            assert 0 < seldom["S3 $/M"] < peer["S3 $/M"]
            assert seldom["records"] >= seldom["PutRecords"] > 0


@pytest.mark.aws
def test_the_models_count_as_the_emulator_does(data: Path) -> None:
    """The same drain makes the same requests on the models and over moto."""
    tables = run("aws_requests", data, "--intervals", "30")
    models, emulator = tables["everything emitted, then drained: models and emulator"]
    for what in ("PutRecords", "records", "PUT", "MB up"):
        assert models[what] == pytest.approx(emulator[what], rel=0.01), what


def test_reading_finds_what_was_written(data: Path) -> None:
    """The last entries and everything, by the script and by the merged read alike."""
    tables = run("read", data, "--rounds", "1", "--last-mb", "1", "--full-mb", "1,2")
    script, merged = tables["last 20 entries"]
    assert script["entries"] == merged["entries"] == 20
    rows = tables["everything"]
    assert [row["journal"] for row in rows] == [
        "1 MB, script",
        "1 MB, merged read",
        "2 MB, script",
        "2 MB, merged read",
    ]
    assert all(row["MB/s"] > 0 for row in rows)


def test_the_parser_stands_beside_a_search(data: Path) -> None:
    """Every kind of output has a speed, and those without markers a floor."""
    rows = run("markers", data, "--rounds", "1", "--mb", "1")["megabytes of output a second"]
    assert all(row["MB/s"] > 0 for row in rows)
    assert [row["floor MB/s"] is not None for row in rows] == [True, True, True, False, False]
