"""Microseconds that a tool's call pays for being journaled, start and end together, beside what others take.

Every case is one call of a tool that does nothing: its arguments bound, its result kept. What is timed is
the calling thread alone; sending happens outside of the timed loop, as in `emit`. Langfuse's decorator is
measured where langfuse can be imported; it is no dependency.

    .venv/bin/python -m venv VENV && VENV/bin/pip install langfuse
    echo "$PWD/.venv/lib/python3.11/site-packages" > VENV/lib/python3.11/site-packages/main.pth
    PYTHONPATH=. VENV/bin/python -m scripts.bench.spans
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from strands import Agent, tool
from strands.hooks import AfterToolCallEvent, BeforeInvocationEvent, BeforeToolCallEvent, HookRegistry
from strands.models import Model

from scripts.bench import measure, report
from scripts.bench.measure import Spent, Stopwatch
from streamjournal import Journal
from streamjournal.agents.strands import JournalHooks

SPAN = "OpenTelemetry span around the call"
FLOOR = "two emits (start and end)"
ARGUMENTS = {"path": "s3://bucket/data.csv", "rows": 1000}
RESULT = "1,000 rows, 12 columns"

Case = Callable[[], Spent]


def main() -> None:
    options = report.parser("spans", __doc__.partition("\n")[0], rounds=15)
    arguments = options.parse_args()
    calls = arguments.limit or 2000
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        journals = [stack.enter_context(Journal(home=Path(folder, str(n)), linger=3600.0)) for n in range(4)]
        cases: dict[str, Case] = {
            "the bare call": bare(calls),
            FLOOR: emits(journals[0], calls),
            "with session.tool(…)": context_manager(journals[1], calls),
            "@journal.traced": traced(journals[2], calls),
            "Strands, without hooks": strands_hooks(None, calls),
            "Strands, JournalHooks": strands_hooks(journals[3], calls),
            SPAN: stack.enter_context(opentelemetry(calls)),
        }
        if importlib.util.find_spec("langfuse") is not None:
            cases["Langfuse @observe"] = stack.enter_context(langfuse(calls))
        said = report.Report("spans", arguments, data=f"{calls} calls a round", rounds=arguments.rounds)
        for case in cases.values():
            case()  # threads start and caches fill here
        results = measure.in_rounds(cases, arguments.rounds)
    said.table("microseconds per tool call", rows_of(results, calls))


def rows_of(results: dict[str, list[Spent]], calls: int) -> list[report.Row]:
    """A row per case; the ratios are the medians of the rounds' own ratios, by the clock."""
    walls = {name: [it.wall * 1e6 / calls for it in runs] for name, runs in results.items()}
    return [
        {
            "case": name,
            "µs (median)": median(values),
            "µs (best)": min(values),
            "x two emits": ratio(values, walls[FLOOR]),
            "x span": ratio(values, walls[SPAN]),
        }
        for name, values in walls.items()
    ]


def ratio(values: Sequence[float], base: Sequence[float]) -> float:
    """The median of the ratios within each round."""
    return median([a / b for a, b in zip(values, base, strict=True)])


def load(path: str, rows: int) -> str:  # noqa: ARG001 - what is measured is what is around it
    """Do nothing."""
    return RESULT


def timed(call: Callable[..., Any], calls: int, after: Callable[[], None] = lambda: None) -> Case:
    """The case that makes so many calls."""

    def run() -> Spent:
        with Stopwatch(time.thread_time) as watch:
            for _ in range(calls):
                call(**ARGUMENTS)
        after()
        return watch.spent

    return run


def flushed(journal: Journal) -> None:
    """Have the stream take everything.

    Raises:
        RuntimeError: it did not.
    """
    delivery = journal.flush(60.0)
    if delivery.pending or delivery.dropped:
        raise RuntimeError(f"the stream did not take everything: {delivery}")


def bare(calls: int) -> Case:
    """What the loop itself costs."""
    return timed(load, calls)


def emits(journal: Journal, calls: int) -> Case:
    """The least: two entries with what a span says, written by hand."""

    def call(**arguments: Any) -> None:
        details = {"arguments": arguments}
        journal.emit("TOOL_START", session_id="s", tool_name="load", details=details, span_id="0" * 16)
        details = {"duration_ms": 0.001, "result": load(**arguments)}
        journal.emit("TOOL_END", session_id="s", tool_name="load", details=details, span_id="0" * 16)

    return timed(call, calls, lambda: flushed(journal))


def context_manager(journal: Journal, calls: int) -> Case:
    """`with session.tool(…)`."""
    session = journal.session("s")

    def call(**arguments: Any) -> None:
        with session.tool("load", **arguments) as span:
            span.result(load(**arguments))

    return timed(call, calls, lambda: flushed(journal))


def traced(journal: Journal, calls: int) -> Case:
    """`@journal.traced`."""
    return timed(journal.traced(session_id="s")(load), calls, lambda: flushed(journal))


class _NoModel(Model):
    """Is never asked."""

    def update_config(self, **_: Any) -> None:
        """Nothing to set."""

    def get_config(self) -> dict[str, Any]:
        """Nothing is set."""
        return {}

    def structured_output(self, *_: Any, **__: Any) -> Any:
        """Not asked."""
        raise NotImplementedError

    def stream(self, *_: Any, **__: Any) -> Any:
        """Not asked."""
        raise NotImplementedError


def strands_hooks(journal: Journal | None, calls: int) -> Case:
    """What Strands does for the hooks of one tool call: two events, made and given to every callback."""
    agent = Agent(model=_NoModel(), tools=[tool(load)], callback_handler=None)
    registry = HookRegistry()
    if journal is not None:
        registry.add_hook(JournalHooks(journal, session_id="s"))
    selected = agent.tool_registry.registry["load"]
    state: dict[str, Any] = {"event_loop_cycle_id": "c"}
    registry.invoke_callbacks(BeforeInvocationEvent(agent=agent, invocation_state=state))
    numbers = iter(range(10**9))

    def call(**arguments: Any) -> None:
        use: Any = {"toolUseId": f"t{next(numbers)}", "name": "load", "input": arguments}
        registry.invoke_callbacks(
            BeforeToolCallEvent(agent=agent, selected_tool=selected, tool_use=use, invocation_state=state)
        )
        result: Any = {
            "toolUseId": use["toolUseId"],
            "status": "success",
            "content": [{"text": load(**arguments)}],
        }
        registry.invoke_callbacks(
            AfterToolCallEvent(
                agent=agent, selected_tool=selected, tool_use=use, invocation_state=state, result=result
            )
        )

    return timed(call, calls, (lambda: flushed(journal)) if journal is not None else lambda: None)


class _NowhereExporter(SpanExporter):
    """Takes spans and keeps none: what exporting costs is nobody's measure here."""

    def export(self, spans: Any) -> SpanExportResult:  # noqa: ARG002 - the interface's
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing is open."""


@contextmanager
def opentelemetry(calls: int) -> Iterator[Case]:
    """A span with the arguments and the result as attributes, current during the call."""
    room = calls + 1
    processor = BatchSpanProcessor(
        _NowhereExporter(), max_queue_size=room, max_export_batch_size=room, schedule_delay_millis=3_600_000
    )
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("bench")

    def call(**arguments: Any) -> None:
        with tracer.start_as_current_span("load", attributes=arguments) as span:
            span.set_attribute("result", load(**arguments))

    try:
        yield timed(call, calls, lambda: bool(processor.force_flush()) and None)
    finally:
        provider.shutdown()


@contextmanager
def langfuse(calls: int) -> Iterator[Case]:
    """`@observe`, its client as it comes, with an exporter that goes nowhere."""
    os.environ["OTEL_BSP_MAX_QUEUE_SIZE"] = str(calls + 1)
    from langfuse import Langfuse, observe  # type: ignore[import-not-found,unused-ignore]

    client = Langfuse(
        public_key="pk-lf-bench",
        secret_key="sk-lf-bench",
        base_url="http://127.0.0.1:9",
        flush_at=calls + 1,
        flush_interval=3600,
        span_exporter=_NowhereExporter(),
    )
    try:
        yield timed(observe(load), calls, client.flush)
    finally:
        client.shutdown()


if __name__ == "__main__":
    main()
