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
from streamjournal import Journal

FLOOR = "floor: msgspec encode, append to a deque"
DURABLE = "emit, spool on"
STEADY = "emit, spool on, sender at work"
SPAN = "OpenTelemetry span, BatchSpanProcessor"
_BURST = 20  # entries between two pauses of the steady case
_PAUSE = 0.004

Case = Callable[[], float]  # runs once and gives µs per entry


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
            DURABLE: stack.enter_context(emitting(samples, Path(folder, "b"))),
            STEADY: stack.enter_context(emitting(samples, Path(folder, "c"), steady=True)),
            "logging, JSON lines to a file": stack.enter_context(json_logging(samples, Path(folder, "log"))),
            SPAN: stack.enter_context(spans(samples)),
        }
        for case in cases.values():
            case()  # threads start and caches fill here
        results = measure.in_rounds(cases, arguments.rounds)
    said.table("microseconds per entry", rows_of(results), note="aims: ≤ 2 x the floor, ≤ 1/5 of the span")


def rows_of(results: dict[str, list[float]]) -> list[report.Row]:
    """A row per case; the ratios are the medians of the rounds' own ratios."""
    rows: list[report.Row] = []
    for name, values in results.items():
        rows.append(
            {
                "case": name,
                "µs (median)": median(values),
                "µs (best)": min(values),
                "x floor": ratio(values, results[FLOOR]),
                "x span": ratio(values, results[SPAN]),
            }
        )
    return rows


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
def floor(samples: Sequence[Sample]) -> Iterator[Case]:
    """The least that can be done: one struct, one encoding, one append."""
    encode = msgspec.json.Encoder().encode

    def run() -> float:
        queue: deque[bytes] = deque()
        append = queue.append
        begin = time.perf_counter()
        for event_type, session_id, tool_name, details, level, _ in samples:
            append(
                encode(
                    _Line(
                        "k3v9q2m8x1-17",
                        "2026-11-22T13:12:01.123456Z",
                        session_id,
                        event_type,
                        tool_name,
                        level,
                        details,
                        "agent",
                    )
                )
            )
        return per_entry(time.perf_counter() - begin, samples)

    yield run


@contextmanager
def emitting(
    samples: Sequence[Sample], home: Path, *, spool: str | None = None, steady: bool = False
) -> Iterator[Case]:
    """`Journal.emit`, embedded; the stream is flushed between rounds."""
    linger = 0.05 if steady else 3600.0
    with Journal(home=home, spool=spool, linger=linger, flush_interval=1.0) as journal:
        emit = journal.emit

        def run_through(part: Sequence[Sample]) -> float:
            begin = time.perf_counter()
            for event_type, session_id, tool_name, details, level, _ in part:
                emit(event_type, session_id=session_id, tool_name=tool_name, details=details, level=level)
            return time.perf_counter() - begin

        def run() -> float:
            if not steady:
                spent = run_through(samples)
            else:
                spent = 0.0
                for i in range(0, len(samples), _BURST):
                    spent += run_through(samples[i : i + _BURST])
                    time.sleep(_PAUSE)
            delivery = journal.flush(30.0)
            if delivery.pending or delivery.dropped:
                raise RuntimeError(f"the stream did not take everything: {delivery}")
            return per_entry(spent, samples)

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

    def run() -> float:
        begin = time.perf_counter()
        for level, event_type, extra in calls:
            logger.log(level, event_type, extra=extra)
        return per_entry(time.perf_counter() - begin, samples)

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

    def run() -> float:
        begin = time.perf_counter()
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
        spent = time.perf_counter() - begin
        processor.force_flush()
        return per_entry(spent, samples)

    try:
        yield run
    finally:
        provider.shutdown()


def per_entry(seconds: float, samples: Sequence[Sample]) -> float:
    """Microseconds per entry."""
    return seconds * 1e6 / len(samples)


if __name__ == "__main__":
    main()
