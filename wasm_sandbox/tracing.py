"""OpenTelemetry spans around runs (extra ``tracing``): the course of a run, never its arguments or its value.

Whoever wants spans has imported ``opentelemetry.trace`` to set a provider. So we look for it among the loaded
modules and never import it: without it a run pays for one look-up in a dict.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, TypeVar, cast

from wasm_sandbox.events import Mark, listen, mark
from wasm_sandbox.forks import process_lock
from wasm_sandbox.results import ToolExecutionResult

if TYPE_CHECKING:
    from opentelemetry.trace import Span

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

SCOPE = "wasm_sandbox"


MAX_REFUSALS = 10
"""Refused connections and requests whose reasons a span has."""

TRACED = "traced call"
"""Name of the mark of a call that may be a span."""


class TracedCall(NamedTuple):
    """Subject of such a mark."""

    owner: object
    method: Callable[..., Any]


def trace_method(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Decorate a method, sync or async, so that each call of it is a span; see `traced`."""
    if iscoroutinefunction(method):

        @wraps(method)
        async def asynchronous(self: S, *args: P.args, **kwargs: P.kwargs) -> Any:
            with traced(self, method) as call:
                result = call.result = await method(self, *args, **kwargs)
            return result

        return cast(Callable[Concatenate[S, P], R], asynchronous)

    @wraps(method)
    def synchronous(self: S, *args: P.args, **kwargs: P.kwargs) -> Any:
        with traced(self, method) as call:
            result = call.result = method(self, *args, **kwargs)
        return result

    return cast(Callable[Concatenate[S, P], R], synchronous)


def traced(owner: object, method: Callable[..., Any]) -> AbstractContextManager[Mark]:
    """Mark a call, which is a span ``{class of owner}.{method}`` if this process uses OpenTelemetry.

    The ``result`` that is set inside decides what the span says. An exception that leaves the block is recorded by its
    type and goes on: its message, its traceback and the description of the status could quote arguments.
    """
    if "opentelemetry.trace" in sys.modules:
        _spans.listen()
    return mark(TRACED, TracedCall(owner, method))


# Guarantees:
# - a span is ended by the task or the thread that began it;
# - listening begins once, and never ends.
# Locks, in this order: `_lock`, held while listening begins; `events._lock`. Open spans are entered and removed by one
# operation each, which the interpreter lock keeps whole.
class _Spans:
    """Listener that makes spans of traced calls."""

    def __init__(self) -> None:
        self._open: dict[Mark, tuple[AbstractContextManager[Span], Span]] = {}
        self._is_listening = False
        self._lock = process_lock(fork_waits=True)

    def listen(self) -> None:
        """Begin to listen, at the first call."""
        with self._lock:
            if not self._is_listening:
                listen(self)
                self._is_listening = True

    def began(self, mark: Mark) -> None:
        if mark.name != TRACED:
            return
        from opentelemetry import trace  # lazy: an extra, and loaded by whoever wants spans

        owner, method = mark.subject
        attributes = {"code.function.name": f"{method.__module__}.{method.__qualname__}"}
        if isinstance(tool_name := getattr(owner, "tool_name", None), str):
            attributes["gen_ai.tool.name"] = tool_name
        current = trace.get_tracer(SCOPE).start_as_current_span(
            f"{type(owner).__name__}.{method.__name__}",
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        )
        self._open[mark] = current, current.__enter__()

    def ended(self, mark: Mark) -> None:
        if mark not in self._open:
            return
        current, span = self._open.pop(mark)
        if mark.error is not None:
            _describe_exception(span, mark.error)
        else:
            _describe(span, mark.result)
        current.__exit__(None, None, None)


_spans = _Spans()


def _describe_exception(span: Span, error: BaseException) -> None:
    from opentelemetry.trace import StatusCode  # lazy: as above

    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    event = {"exception.type": name}
    asyncio = sys.modules.get("asyncio")  # importing it takes a while, and without it nothing was cancelled
    if asyncio is not None and isinstance(error, asyncio.CancelledError):
        span.set_attribute("wasm_sandbox.outcome", "cancelled")
        with suppress(RuntimeError):  # there is no event loop
            if (task := asyncio.current_task()) is not None:
                event["asyncio.task.name"] = task.get_name()
    span.add_event("exception", event)
    span.set_attribute("error.type", name)
    span.set_status(StatusCode.ERROR)


def _describe(span: Span, result: object) -> None:
    """Put the outcome and the usage of a run on its span; for any other result, just success."""
    from opentelemetry.trace import StatusCode  # lazy: as above

    error = result.error if isinstance(result, ToolExecutionResult) else None
    if isinstance(result, ToolExecutionResult):
        span.set_attribute("wasm_sandbox.outcome", error.kind.value if error else result.status)
        if (usage := result.usage) is not None:
            span.set_attribute("wasm_sandbox.fuel", usage.fuel)
            span.set_attribute("wasm_sandbox.wall_seconds", usage.wall_seconds)
            span.set_attribute("wasm_sandbox.peak_memory_bytes", usage.peak_memory_bytes)
        if result.connections is not None:
            refused = [one for one in [*result.connections, *(result.requests or ())] if one.outcome == "refused"]
            span.set_attribute("wasm_sandbox.connections", len(result.connections))
            span.set_attribute("wasm_sandbox.requests", len(result.requests or ()))
            span.set_attribute("wasm_sandbox.network_refusals", [one.reason or "" for one in refused[:MAX_REFUSALS]])
    if error is not None:  # the kind and not the exception's name, which is the tool's to choose
        span.set_attribute("error.type", error.kind.value)
    span.set_status(StatusCode.ERROR if error is not None else StatusCode.OK)
