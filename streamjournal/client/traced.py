"""`@journal.traced`: every call of a function as a span, whatever kind of function it is."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncGenerator, Callable, Generator
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from streamjournal.emit.redaction import bounded_json
from streamjournal.emit.spans import Span, at_place, current_place

if TYPE_CHECKING:
    from streamjournal.client.session import AsyncSession, Session

F = TypeVar("F", bound=Callable[..., Any])

MAX_ARGUMENT_BYTES: Final = 4_096  # of one argument's JSON; what is longer is shown in part
_UNFIT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # in the name of a tool, or of its session
_SELF: Final = ("self", "cls")


def traced(
    function: F, open_session: Callable[[str], Session | AsyncSession], *, tool_name: str | None = None
) -> F:
    """The function, journaled: TOOL_START before it runs, TOOL_END or TOOL_ERROR after.

    Args:
        function: sync or async, a generator or an async generator. A generator's span lasts from its
            first item to its end, and shows how many items it gave.
        open_session: gives the session for a call with none around it; its argument is the tool's name.
        tool_name: else the function's own name.
    """
    name = _UNFIT.sub("-", tool_name or str(getattr(function, "__name__", type(function).__name__)))[:80]
    bind = _binder(function)

    def span(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Span:
        session = current_place().session or open_session(name)
        return Span(session, session.journal.clock, name, bind(arguments, keywords))

    wrapped: Callable[..., Any]
    if inspect.isasyncgenfunction(function):
        wrapped = _async_generator(function, span)
    elif inspect.isgeneratorfunction(function):
        wrapped = _generator(function, span)
    elif inspect.iscoroutinefunction(function):
        wrapped = _coroutine(function, span)
    else:
        wrapped = _plain(function, span)
    return cast("F", wraps(function)(wrapped))


MakeSpan = Callable[[tuple[Any, ...], dict[str, Any]], Span]


def _plain(function: Callable[..., Any], make_span: MakeSpan) -> Callable[..., Any]:
    def call(*arguments: Any, **keywords: Any) -> Any:
        with make_span(arguments, keywords) as span:
            value = function(*arguments, **keywords)
            span.result(value)
            return value

    return call


def _coroutine(function: Callable[..., Any], make_span: MakeSpan) -> Callable[..., Any]:
    async def call(*arguments: Any, **keywords: Any) -> Any:
        with make_span(arguments, keywords) as span:
            value = await function(*arguments, **keywords)
            span.result(value)
            return value

    return call


def _generator(function: Callable[..., Any], make_span: MakeSpan) -> Callable[..., Any]:
    def call(*arguments: Any, **keywords: Any) -> Generator[Any, Any, Any]:
        """Be in the span while the function's code runs, and out of it while its caller's does."""
        span = make_span(arguments, keywords)
        items = 0
        sent: Any = None
        thrown: BaseException | None = None
        span.start()
        try:
            inner = function(*arguments, **keywords)
            while True:
                with at_place(span.session, span):
                    item = inner.send(sent) if thrown is None else inner.throw(thrown)
                items += 1
                sent = thrown = None
                try:
                    sent = yield item
                except GeneratorExit:
                    with at_place(span.session, span):
                        inner.close()
                    raise
                except BaseException as problem:  # noqa: BLE001  # it is the function's to handle
                    thrown = problem
        except StopIteration as end:
            span.note(items=items)
            span.end()
            return end.value
        except GeneratorExit:
            span.note(items=items, closed=True)
            span.end()
            raise
        except BaseException as problem:
            span.note(items=items)
            span.end(problem)
            raise

    return call


def _async_generator(function: Callable[..., Any], make_span: MakeSpan) -> Callable[..., Any]:
    async def call(*arguments: Any, **keywords: Any) -> AsyncGenerator[Any, Any]:
        """As for a generator; an async one gives no value at its end."""
        span = make_span(arguments, keywords)
        items = 0
        sent: Any = None
        thrown: BaseException | None = None
        span.start()
        try:
            inner = function(*arguments, **keywords)
            while True:
                with at_place(span.session, span):
                    item = await (inner.asend(sent) if thrown is None else inner.athrow(thrown))
                items += 1
                sent = thrown = None
                try:
                    sent = yield item
                except GeneratorExit:
                    with at_place(span.session, span):
                        await inner.aclose()
                    raise
                except BaseException as problem:  # noqa: BLE001  # it is the function's to handle
                    thrown = problem
        except StopAsyncIteration:
            span.note(items=items)
            span.end()
        except GeneratorExit:
            span.note(items=items, closed=True)
            span.end()
            raise
        except BaseException as problem:
            span.note(items=items)
            span.end(problem)
            raise

    return call


def _binder(function: Callable[..., Any]) -> Callable[[tuple[Any, ...], dict[str, Any]], dict[str, Any]]:
    """What gives a call's arguments by name, bounded; `self` and `cls` left out. It never raises."""
    try:
        signature: inspect.Signature | None = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have none
        signature = None

    def bind(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> dict[str, Any]:
        try:
            if signature is None:
                raise TypeError
            named = signature.bind(*arguments, **keywords).arguments
        except TypeError:  # the call itself will say what is wrong with them
            named = {"args": arguments, **keywords}
        return {
            name: bounded_json(value, MAX_ARGUMENT_BYTES)
            for name, value in named.items()
            if name not in _SELF
        }

    return bind
