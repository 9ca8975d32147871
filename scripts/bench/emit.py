"""Microseconds that an agent pays per entry, beside the floor and what it would pay others.

What is timed is the call in the agent alone. Everybody's sending happens outside of the timed loop:
streamjournal's sender lingers until the round is over, and the span exporter's queue holds the whole
round. One case more has the sender at work meanwhile, since that is how an agent lives.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from scripts.bench import entries, measure, report
from scripts.bench.entries import Sample
from scripts.bench.measure import Spent, Stopwatch
from streamjournal import Journal

FLOOR = "floor: msgspec encode, append to a deque"
DURABLE = "emit, spool on"
PLAIN = "emit, spool on, redaction off"
FLOOR_BURSTS = "the floor in bursts"
STEADY = "emit in bursts, spool on, sender at work"
SPAN = "OpenTelemetry span, BatchSpanProcessor"
ID = "k3v9q2m8x1-17"
TIME = "2026-11-22T13:12:01.123456Z"
_BURST = 20  # entries between two pauses of the steady case
_PAUSE = 0.004

Case = Callable[[], Spent]  # runs once, over all entries; CPU is the calling thread's


def main() -> None:
    options = report.parser("emit", __doc__.partition("\n")[0], rounds=15)
    arguments = options.parse_args()
    samples, source = entries.load(arguments.file, limit=arguments.limit or 5000)
    said = report.Report(
        "emit", arguments, data=f"{source}, the first {len(samples)} entries", rounds=arguments.rounds
    )
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        cases = {
            FLOOR: stack.enter_context(floor(samples)),
            "emit, spool off": stack.enter_context(emitting(samples, Path(folder, "a"), spool="off")),
            PLAIN: stack.enter_context(emitting(samples, Path(folder, "d"), redact=False)),
            DURABLE: stack.enter_context(emitting(samples, Path(folder, "b"))),
            FLOOR_BURSTS: stack.enter_context(floor(samples, bursts=True)),
            STEADY: stack.enter_context(emitting(samples, Path(folder, "c"), steady=True)),
            "logging, JSON lines to a file": stack.enter_context(json_logging(samples, Path(folder, "log"))),
            SPAN: stack.enter_context(spans(samples)),
        }
        for case in cases.values():
            case()  # threads start and caches fill here
        results = measure.in_rounds(cases, arguments.rounds)
    note = "aims: ≤ 2 x the floor, ≤ 1/5 of the span"
    said.table("microseconds per entry", rows_of(results, len(samples)), note=note)


def rows_of(results: dict[str, list[Spent]], count: int) -> list[report.Row]:
    """A row per case; the ratios are the medians of the rounds' own ratios, by the clock."""
    walls = {name: [it.wall * 1e6 / count for it in runs] for name, runs in results.items()}
    return [
        {
            "case": name,
            "µs (median)": median(values),
            "µs (best)": min(values),
            "CPU µs (median)": median([it.cpu * 1e6 / count for it in results[name]]),
            "x floor": ratio(values, walls[FLOOR]),
            "x span": ratio(values, walls[SPAN]),
        }
        for name, values in walls.items()
    ]


def ratio(values: Sequence[float], base: Sequence[float]) -> float:
    """The median of the ratios within each round."""
    return median([a / b for a, b in zip(values, base, strict=True)])


class _Line(msgspec.Struct):
    """What `emit` writes, with id and time as given: the floor has neither to make."""

    id: str
    timestamp: str
    session_id: str
    event_type: str
    tool_name: str | None
    level: str
    details: Any
    source: str


@contextmanager
def floor(samples: Sequence[Sample], *, bursts: bool = False) -> Iterator[Case]:
    """The least that can be done: one struct, one encoding, one append."""
    encode = msgspec.json.Encoder().encode

    def run() -> Spent:
        queue: deque[bytes] = deque()
        append = queue.append
        watch = Stopwatch(time.thread_time)
        for part in in_bursts(samples) if bursts else [samples]:
            with watch:
                for event_type, session_id, tool_name, details, level, _ in part:
                    append(
                        encode(_Line(ID, TIME, session_id, event_type, tool_name, level, details, "agent"))
                    )
        return watch.spent

    yield run


def in_bursts(samples: Sequence[Sample]) -> Iterator[Sequence[Sample]]:
    """As an agent lives: a few entries, then something else, after which the caches are cold."""
    for i in range(0, len(samples), _BURST):
        yield samples[i : i + _BURST]
        time.sleep(_PAUSE)


@contextmanager
def emitting(
    samples: Sequence[Sample],
    home: Path,
    *,
    spool: str | None = None,
    steady: bool = False,
    redact: bool = True,
) -> Iterator[Case]:
    """`Journal.emit`, embedded; the stream is flushed between rounds."""
    linger = 0.05 if steady else 3600.0
    with Journal(home=home, spool=spool, linger=linger, flush_interval=1.0, redact=redact) as journal:
        emit = journal.emit

        def run() -> Spent:
            watch = Stopwatch(time.thread_time)
            for part in in_bursts(samples) if steady else [samples]:
                with watch:
                    for event_type, session_id, tool_name, details, level, _ in part:
                        emit(
                            event_type,
                            session_id=session_id,
                            tool_name=tool_name,
                            details=details,
                            level=level,
                        )
            delivery = journal.flush(30.0)
            if delivery.pending or delivery.dropped:
                raise RuntimeError(f"the stream did not take everything: {delivery}")
            return watch.spent

        yield run


class _JsonFormatter(logging.Formatter):
    """As the usual formatters of JSON do it, with the standard library's encoder."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(
            {
                "timestamp": self.formatTime(record),
                "level": record.levelname,
                "event_type": record.getMessage(),
                "session_id": record.session_id,  # type: ignore[attr-defined]
                "tool_name": record.tool_name,  # type: ignore[attr-defined]
                "details": record.details,  # type: ignore[attr-defined]
            }
        )


@contextmanager
def json_logging(samples: Sequence[Sample], file: Path) -> Iterator[Case]:
    """The standard library's logging; each line is written before the call returns, as a spool's is."""
    logger = logging.getLogger("streamjournal.bench")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    handler = logging.FileHandler(file, mode="w", encoding="utf-8")
    handler.setFormatter(_JsonFormatter())
    logger.addHandler(handler)
    levels = logging.getLevelNamesMapping()
    calls = [(levels.get(it.level, logging.INFO), it.event_type, dict(_extra(it))) for it in samples]

    def run() -> Spent:
        with Stopwatch(time.thread_time) as watch:
            for level, event_type, extra in calls:
                logger.log(level, event_type, extra=extra)
        return watch.spent

    try:
        yield run
    finally:
        handler.close()


def _extra(it: Sample) -> dict[str, Any]:
    return {"session_id": it.session_id, "tool_name": it.tool_name, "details": it.details}


class _NowhereExporter(SpanExporter):
    """Takes spans and keeps none: what exporting costs is nobody's measure here."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002 - the interface's
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing is open."""


@contextmanager
def spans(samples: Sequence[Sample]) -> Iterator[Case]:
    """A span per entry, begun and ended; details are JSON text, since attributes hold no objects."""
    room = len(samples) + 1
    processor = BatchSpanProcessor(
        _NowhereExporter(), max_queue_size=room, max_export_batch_size=room, schedule_delay_millis=3_600_000
    )
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    start_span = provider.get_tracer("bench").start_span
    encode = msgspec.json.Encoder().encode

    def run() -> Spent:
        with Stopwatch(time.thread_time) as watch:
            for event_type, session_id, tool_name, details, level, _ in samples:
                start_span(
                    event_type,
                    attributes={
                        "session_id": session_id,
                        "tool_name": tool_name or "",
                        "level": level,
                        "details": encode(details).decode(),
                    },
                ).end()
        processor.force_flush()
        return watch.spent

    try:
        yield run
    finally:
        provider.shutdown()


if __name__ == "__main__":
    main()
