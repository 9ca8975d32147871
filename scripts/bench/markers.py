"""Megabytes a second of a sandbox's output through the marker parser, beside the floor.

The floor, for output without markers, is what cannot be left out: one search for a marker in each chunk.
Chunks are of a pipe's size, unless it says otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

from scripts.bench import entries, measure, report
from scripts.bench.measure import Spent, Stopwatch
from streamjournal.agents.markers import BEGIN, END, MarkerParser

FLOOR = "floor"
_CHUNK = 65_536
_MB = 64  # of output, in one round


def main() -> None:
    options = report.parser("markers", __doc__.partition("\n")[0], rounds=5)
    options.add_argument("--mb", type=int, default=_MB, help="of output, default %(default)s")
    arguments = options.parse_args()
    samples, source = entries.load(arguments.file, limit=arguments.limit or 5000)
    size = arguments.mb * 2**20
    texts = [json.dumps(sample.details) for sample in samples]
    log = "".join(f"2026-11-22 13:12:01 INFO {text}\n" for text in texts)
    bars = "".join(f"\r{'=' * (n % 60):<60}| {n % 100:>3} %" for n in range(5000))
    blocks = [f'{BEGIN}\n{{"event_type":"STEP","details":{text}}}\n{END}\n' for text in texts]
    mixed = "".join(f"{block}{log[n * 2000 : n * 2000 + 2000]}" for n, block in enumerate(blocks))
    outputs = {
        "log lines, no markers": chunks(log, size, _CHUNK),
        "progress bars of =, no markers": chunks(bars, size, _CHUNK),
        "log lines in chunks of 100 bytes": chunks(log, size // 16, 100),
        "entries amid 2,000 bytes of log each": chunks(mixed, size, _CHUNK),
        "nothing but entries": chunks("".join(blocks), size // 4, _CHUNK),
    }
    cases: dict[str, Callable[[], Spent]] = {}
    for name, output in outputs.items():
        cases[name] = partial(parsed, output)
        if not any(BEGIN.encode() in chunk for chunk in output):
            cases[f"{FLOOR}: {name}"] = partial(searched, output)
    said = report.Report("markers", arguments, data=f"details of {source}", rounds=arguments.rounds)
    results = measure.in_rounds(cases, arguments.rounds)
    rows = [row_of(name, output, results) for name, output in outputs.items()]
    said.table("megabytes of output a second", rows, note="aim: ≥ 200 MB/s where there are no markers")


def row_of(name: str, output: Sequence[bytes], results: dict[str, list[Spent]]) -> report.Row:
    size = sum(map(len, output)) / 1e6
    ours = median([size / spent.wall for spent in results[name]])
    floors = [size / spent.wall for spent in results.get(f"{FLOOR}: {name}", ())]
    floor = median(floors) if floors else None
    return {"output": name, "MB/s": ours, "floor MB/s": floor, "x floor": floor and floor / ours}


def chunks(text: str, size: int, length: int) -> list[bytes]:
    """Text again and again, until it is so many bytes, in chunks."""
    data = text.encode()
    data = (data * (size // len(data) + 1))[:size]
    return [data[i : i + length] for i in range(0, size, length)]


def parsed(output: Sequence[bytes]) -> Spent:
    parser = MarkerParser(max_entries=2**62)
    given = 0
    with Stopwatch() as watch:
        for chunk in output:
            given += len(parser.feed(chunk).output)
        given += len(parser.finish().output)
    assert given <= sum(map(len, output))
    return watch.spent


def searched(output: Sequence[bytes]) -> Spent:
    marker = BEGIN.encode()
    with Stopwatch() as watch:
        for chunk in output:
            chunk.find(marker)
    return watch.spent


if __name__ == "__main__":
    main()
