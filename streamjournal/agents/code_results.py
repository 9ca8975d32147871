"""The results of code that ran in a code interpreter, as they arrive, without the entries in them.

A result says what was printed twice: as `content` (blocks, the text among them for the model) and as
`structuredContent.stdout`. Entries are taken out of both, and count once: those on stdout, or if the
service gives no stdout, those in the text.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, Final

from streamjournal.agents.markers import MarkerParser
from streamjournal.agents.sandbox_entries import SandboxOutput
from streamjournal.emit.spans import Span

_MAX_SHOWN_CHARS: Final = 8_000  # of stdout, and of stderr, in a call's result


class CodeFailedError(Exception):
    """What a TOOL_ERROR shows of code that failed; the SDK's client does not raise for it."""


class Outcome:
    """What the results of one call say, put together."""

    def __init__(self) -> None:
        self._results = 0
        self._failed = False
        self._exit_code: int | None = None
        self._notes: dict[str, Any] = {}
        self._shown: dict[str, str] = {}
        self._has_stdout = False

    def look_at(self, event: dict[str, Any]) -> None:
        """Take in an event."""
        result = event.get("result")
        if result is None:
            return
        self._results += 1
        self._failed = self._failed or bool(result.get("isError"))
        said = result.get("structuredContent") or {}
        if said.get("exitCode") is not None:
            self._exit_code = self._notes["exit_code"] = said["exitCode"]
        if said.get("executionTime") is not None:
            self._notes["execution_ms"] = said["executionTime"]
        for name, note in (("taskId", "task_id"), ("taskStatus", "task_status")):
            if said.get(name) is not None:
                self._notes[note] = said[name]
        for name in ("stdout", "stderr"):
            self._show(name, said.get(name))
        self._has_stdout = self._has_stdout or isinstance(said.get("stdout"), str)
        for block in result.get("content") or ():
            if block.get("type") == "text":
                self._show("text", block.get("text"))

    def end(self, span: Span, **notes: Any) -> None:
        """End the call's span by it."""
        span.note(**self._notes, **notes)
        shown = {
            name: text for name, text in self._shown.items() if not (name == "text" and self._has_stdout)
        }
        if shown:
            span.result(shown)
        if not self._results:
            span.end(CodeFailedError("the service ended its answer without a result"))
        elif self._failed or self._exit_code:
            span.note(output=shown)
            span.end(CodeFailedError(self._reason()))
        else:
            span.end()

    def _show(self, name: str, text: Any) -> None:
        if isinstance(text, str) and text:
            before = self._shown.get(name, "")
            self._shown[name] = before + text[: _MAX_SHOWN_CHARS - len(before)]

    def _reason(self) -> str:
        lines = self._shown.get("stderr", "").strip().splitlines()
        if lines:
            return lines[-1]
        return f"exit code {self._exit_code}" if self._exit_code else "the service says that it is an error"


class CodeResults:
    """An iterator over a call's events; stands where the SDK gives botocore's `EventStream`.

    An event whose text ends in what may become a block is given with the next one, or at the end.

    Args:
        stream: the service's events, each `{"result": …}`.
        span: the call's; it ends with the last event, or with what the service raises instead.
        output: takes the entries.
        on_end: called once the span has ended.
    """

    def __init__(
        self,
        stream: Any,
        span: Span,
        output: SandboxOutput,
        nonce: str | None,
        *,
        on_end: Callable[[CodeResults], object],
    ) -> None:
        self._stream = stream
        self._span = span
        self._stdout = output
        self._text = MarkerParser(nonce)
        self._has_stdout = False
        self._outcome = Outcome()
        self._on_end = on_end
        self._ended = False
        self._ahead: list[dict[str, Any]] = []  # read already, by `read_the_rest`
        self._events = self._read()
        self._reading = threading.Lock()
        self.begun = False  # whether anybody reads them

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        self.begun = True
        with self._reading:
            return self._ahead.pop(0) if self._ahead else next(self._events)

    def read_the_rest(self) -> None:
        """Read to the end now; the events can be had later."""
        with self._reading:
            self._ahead += self._events

    def close(self) -> None:
        """Read no more: the call ends here, as one whose results were not wanted."""
        self._events.close()
        if not self._ended:
            self._finish()
            self._end(lambda: self._outcome.end(self._span, closed=True))
        if hasattr(self._stream, "close"):
            self._stream.close()

    def _read(self) -> Generator[dict[str, Any], None, None]:
        held: dict[str, Any] | None = None
        try:
            for event in self._stream:
                clean = self._clean(event)
                if held is not None:
                    yield held
                held = clean
                if not (self._stdout.holds or self._text.holds):
                    yield held
                    held = None
        except GeneratorExit:
            raise
        except BaseException as problem:
            rest, error = self._finish(), problem
            self._end(lambda: self._span.end(error))
            if held is not None:
                yield _with_rest(held, *rest)
            raise
        rest = self._finish()
        self._end(lambda: self._outcome.end(self._span))
        if held is not None:
            yield _with_rest(held, *rest)

    def _clean(self, event: dict[str, Any]) -> dict[str, Any]:
        """The event without entries, which are emitted."""
        result = event.get("result")
        if result is not None:
            result = dict(result)
            said = result.get("structuredContent")
            if said and isinstance(said.get("stdout"), str):
                self._has_stdout = True
                result["structuredContent"] = {**said, "stdout": self._stdout.feed_text(said["stdout"])}
            if result.get("content"):
                result["content"] = [self._clean_block(block) for block in result["content"]]
            event = {**event, "result": result}
        self._outcome.look_at(event)
        return event

    def _clean_block(self, block: dict[str, Any]) -> dict[str, Any]:
        if block.get("type") != "text" or not isinstance(block.get("text"), str):
            return block
        parsed = self._text.feed(block["text"].encode("utf-8", "surrogatepass"))
        output = parsed.output if self._has_stdout else self._stdout.take(parsed)
        return {**block, "text": output.decode("utf-8", "surrogatepass")}

    def _finish(self) -> tuple[str, str]:
        """What was held back of stdout and of the text."""
        parsed = self._text.finish()
        text = parsed.output if self._has_stdout else self._stdout.take(parsed)
        return self._stdout.finish_text(), text.decode("utf-8", "surrogatepass")

    def _end(self, end_span: Callable[[], None]) -> None:
        self._ended = True
        if self._stdout.entries:
            self._span.note(entries=self._stdout.entries)
        end_span()
        self._on_end(self)


def _with_rest(event: dict[str, Any], stdout: str, text: str) -> dict[str, Any]:
    """An event with what was held back at its end."""
    result = dict(event.get("result") or {})
    if stdout:
        said = result.get("structuredContent") or {}
        result["structuredContent"] = {**said, "stdout": said.get("stdout", "") + stdout}
    if text:
        blocks = list(result.get("content") or ())
        before = blocks.pop()["text"] if blocks and blocks[-1].get("type") == "text" else ""
        result["content"] = [*blocks, {"type": "text", "text": before + text}]
    return {**event, "result": result}
