"""Calls of host functions in one run: read as hostile, checked, performed within budgets, answered."""

from __future__ import annotations

import asyncio
import builtins
import contextvars
import inspect
import marshal
import os
import re
import struct
import sys
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

from wasm_sandbox.forks import Condition
from wasm_sandbox.functions.catalogue import Functions
from wasm_sandbox.functions.declared import BadCall, HostFunction
from wasm_sandbox.functions.gates import Deny, Gate
from wasm_sandbox.functions.loops import private_loop, thread_pool
from wasm_sandbox.functions.requests import read_bundle, read_progress
from wasm_sandbox.limits import Limits
from wasm_sandbox.request import MAX_OWN_BYTES, MAX_SENT_BYTES, Answer, Connections, NetworkOperation, Wait
from wasm_sandbox.results import Call
from wasm_sandbox.script.wire import MARSHAL_VERSION, Untravelled, encode

CALL, SUBMIT, NEXT, CANCEL, MODULE, NAMES, MORE, DISPLAY, PROGRESS = range(9)
"""Operations of the channel (``_sandbox_live``); ``MORE`` is the channel's own."""
FAILED, TEXT, NOTHING, DEFERRED = 2, 3, 4, 5
"""Kinds of answers, beside those of `wire.encode`."""

MAX_MESSAGE = 2000
"""Most characters of an exception's message that a guest gets."""

MAX_NAMES = 1000

KEPT_ARGUMENT_BYTES = 1 << 20
"""Size up to which the arguments of calls that have ended are kept, as the guest sent them: as objects of Python they
take tens of times as much."""

BUNDLE_BYTES = 256
"""What a display counts for beside its bytes."""

SETTLE_SECONDS = 5.0
"""Longest wait for a coroutine that was cancelled at the end of a run."""

FOREVER = (1 << 63) - 1

_NOTHING = Answer(NOTHING, 0, b"")
_NUMBER = struct.Struct("<I")


class Deferred(NamedTuple):
    """Call that waits for whoever resumes the program."""

    function: HostFunction
    call: Call
    arguments: bytes
    """JSON of the arguments, as the guest sent them."""


class _Refused(Exception):
    """A call is refused before it is performed; its answer is in it."""

    def __init__(self, kind: str, message: str, outcome: str = "refused") -> None:
        super().__init__(message)
        self.kind, self.message, self.outcome = kind, message, outcome


# Guarantees:
# - a gate, if there is one, is asked before each call and after its arguments were checked;
# - each call that was begun has one answer, whatever the function does; after `close` nothing is answered, and no
#   coroutine of a call runs on. A function on a thread cannot be stopped: nobody waits for it;
# - answers in a deterministic run come in the order of the calls.
# Locks: `changed` guards the answers and what is under way; functions, gates and callbacks are never called with it.
class RunCalls:
    """Calls of one run: the other end of a guest's channel.

    Args:
        functions: what the guest may call.
        limits: budgets, of ``host_calls``, ``host_pending``, ``host_bytes`` and ``host_seconds``.
        gate: asked before each call.
        loop: event loop of the caller for async functions; by default one of this library's own.
        may_defer: whether a call of a deferred function may wait for whoever resumes the program.
        is_apart: tells, when the first one is called, whether plain functions run on threads of their own also while
            the guest waits for them: where one that blocks would hold up the outcome.
        on_display: called with each bundle that the guest shows.
        on_progress: called with what the guest says of its progress.
        on_call: called with each call, when it begins and when it has ended.
        network: connections of the run, which share the guest's channel.
    """

    def __init__(
        self,
        functions: Functions,
        limits: Limits,
        gate: Gate | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        may_defer: bool = False,
        is_apart: Callable[[], bool] = bool,
        on_display: Callable[[dict[str, str | bytes]], None] | None = None,
        on_progress: Callable[[float, float | None, str], None] | None = None,
        on_call: Callable[[Call], None] | None = None,
        network: Connections | None = None,
    ) -> None:
        self._functions, self._limits, self._gate, self._loop = functions, limits, gate, loop
        self._on_display, self._on_progress, self._on_call = on_display, on_progress, on_call
        self._may_defer, self._is_apart = may_defer, is_apart
        self.deferred: dict[int, Deferred] = {}
        """Number that the guest gave a call -> the call, of those that wait for whoever resumes the program."""
        self._context = contextvars.copy_context()
        self.calls: list[Call] = []
        """Calls in their order, those under way too."""
        self.displays: list[dict[str, str | bytes]] = []
        self._display_bytes = 0
        self._kept_bytes = 0
        self._gate_is_async = gate is not None and _is_async(gate)
        self.bytes_in = self.bytes_out = 0
        self.seconds = 0.0
        self.network = network
        self.changed = Condition() if network is None else network.changed
        self._answers: deque[Answer] = deque()
        self._order: deque[int] = deque()
        self._under_way: dict[int, Future[Answer]] = {}
        self._counts: dict[str, int] = {}
        self._limiters: dict[str, asyncio.Semaphore] = {}
        self._performing = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        if network is not None:
            network.begin_run(lambda: bool(self._answers) or not self._under_way)

    @cached_property
    def _runs_apart(self) -> bool:
        return self._is_apart()

    @property
    def max_request_bytes(self) -> int:
        """Most bytes of the next request: what the run may still hand over, and what every request needs."""
        least = MAX_OWN_BYTES if self.network is None else 2 * MAX_SENT_BYTES
        return max(self._limits.host_bytes - self.bytes_in, least)

    @property
    def holds_deadline(self) -> bool:
        """Whether the deadline stands still while host functions work."""
        return not self._limits.host_time_counts

    def refuse(self, ident: int, size: int, wait: Wait) -> Answer:
        """Answer to a request that is longer than the run may hand over."""
        message = f"{size} bytes: this run may hand {self._limits.host_bytes} to host functions (Limits.host_bytes)"
        return _failure(ident, "HostBudgetError", message)

    # -- the channel's end -----------------------------------------------------------------------

    def handle(self, op: int, ident: int, payload: bytes, wait: Wait) -> Answer:
        """Serve one request of the guest, on its thread.

        Args:
            op: operation.
            ident: number of the call, of the guest's choice.
            payload: bytes of the operation, hostile.
            wait: waits for answers, without the guest's turn.

        Returns:
            The answer; ``NOTHING`` where there is none yet.
        """
        if op >= NetworkOperation.OPEN and self.network is not None:
            return self.network.handle(op, ident, payload, wait)
        try:
            match op:
                case 0:
                    return self._called(payload, wait)
                case 1:
                    return self._submitted(ident, payload, wait)
                case 2:
                    return self._next(payload, wait)
                case 3:
                    self._cancel(ident)
                case 4:
                    return self._source(self._functions.module_source(_text(payload)))
                case 5:
                    return self._source(self._functions.names_source(_text(payload).split("\n")[:MAX_NAMES]))
                case 7:
                    self._count_bytes(len(payload))
                    self._show(read_bundle(payload))
                case 8:
                    if self._on_progress is not None:
                        self._on_progress(*read_progress(payload))
                case _:
                    raise _Refused("HostFunctionError", "there is no such operation")
        except _Refused as refused:
            return _failure(ident, refused.kind, refused.message)
        return _NOTHING

    def close(self) -> None:
        """Cancel what is under way; nothing is answered any more."""
        with self.changed:
            self._is_closed = True
            pending = list(self._under_way.values())
            self._answers.clear()
            self.changed.notify_all()
        for future in pending:
            future.cancel()
        if self.network is not None:
            self.network.end_run()

    def end_unused(self) -> None:
        """Settle where no request can have come: there is nothing to wait for."""
        self._is_closed = True
        if self.network is not None:
            self.network.end_run()

    def settle(self, seconds: float = SETTLE_SECONDS) -> None:
        """Cancel what is under way, and wait until no coroutine of a call runs any more.

        Args:
            seconds: longest wait, for a coroutine that does not let itself be cancelled.
        """
        self.close()
        with self.changed:
            self.changed.wait_for(lambda: not self._performing, seconds)
        if self.network is not None:
            self.network.settle(seconds)

    async def settle_async(self, seconds: float = SETTLE_SECONDS) -> None:
        """Settle as `settle`, on the event loop of the calls."""
        self.close()
        if tasks := {task for task in self._tasks if not task.done()}:
            await asyncio.wait(tasks, timeout=seconds)
        if self.network is not None and self.network.is_ending:
            await asyncio.to_thread(self.network.settle, seconds)
        elif self.network is not None:
            self.network.settle(0)

    # -- budgets ---------------------------------------------------------------------------------

    def _count_bytes(self, size: int) -> None:
        self.bytes_in += size
        if self.bytes_in > self._limits.host_bytes:
            raise _Refused(
                "HostBudgetError",
                f"this run may hand {self._limits.host_bytes} bytes to host functions (Limits.host_bytes)",
            )

    def _admit(self, function: HostFunction) -> None:
        """Count a call, or refuse it for want of a budget."""
        limits = self._limits
        count = self._counts[function.name] = self._counts.get(function.name, 0) + 1
        if len(self.calls) >= limits.host_calls:
            raise _Refused(
                "HostBudgetError", f"this run may call host functions {limits.host_calls} times (Limits.host_calls)"
            )
        if function.max_calls is not None and count > function.max_calls:
            raise _Refused("HostBudgetError", f"{function.name} may be called {function.max_calls} times in a run")
        if len(self._under_way) >= limits.host_pending:
            raise _Refused(
                "HostBudgetError",
                f"{limits.host_pending} calls are under way already, as many as there may be (Limits.host_pending)",
            )
        if self._seconds_left() <= 0:
            raise _Refused(
                "HostBudgetError",
                f"this run may spend {limits.host_seconds:g} seconds in host functions (Limits.host_seconds)",
            )

    def _seconds_left(self) -> float:
        most = self._limits.host_seconds
        return float("inf") if most is None else most - self.seconds

    # -- calls -----------------------------------------------------------------------------------

    def _begun(self, payload: bytes) -> tuple[HostFunction, Call, float]:
        """Look the function up, count the call, and check its arguments."""
        if self._is_closed:
            raise _Refused("HostFunctionError", "the run is over")
        self._count_bytes(len(payload))
        if len(payload) < _NUMBER.size:
            raise _Refused("HostFunctionError", "the request is cut")
        (number,) = _NUMBER.unpack_from(payload)
        function = self._functions.by_number.get(number)
        if function is None:
            raise _Refused("HostFunctionError", "there is no such host function in this run")
        began = time.monotonic()
        call = Call.begun(len(self.calls) + 1, function.name, len(payload) - _NUMBER.size)
        try:
            self._admit(function)
            if function.is_deferred and not self._may_defer:
                raise _Refused(
                    "HostFunctionError",
                    f"nobody answers {function.name} while this run lasts: it is for programs that can be paused "
                    "(Session.start)",
                )
            self._check(function, call, payload[_NUMBER.size :])
        except _Refused as refused:
            self._end(call, refused.outcome, began, refused)
            if len(self.calls) < self._limits.host_calls:
                self.calls.append(call)
            raise
        self.calls.append(call)
        if self._on_call is not None:
            self._on_call(call)
        return function, call, began

    def _check(self, function: HostFunction, call: Call, arguments: bytes) -> None:
        try:
            args, kwargs = function.arguments(arguments)
        except BadCall as error:
            call.cause = error.__cause__
            raise _Refused("HostArgumentsError", f"{function.name}: {error}"[:MAX_MESSAGE], "bad_arguments") from error
        except Exception as error:  # a validator of the caller's own
            call.cause = error
            raise _Refused("HostArgumentsError", f"{function.name}: its arguments were refused", "error") from error
        call.__dict__ |= {"args": args, "kwargs": kwargs}  # see `_end`

    def _called(self, payload: bytes, wait: Wait) -> Answer:
        """Perform a call for a guest that waits for it: on its own thread, where that is possible."""
        function, call, began = self._begun(payload)
        if function.is_async or function.timeout is not None or self._gate_is_async:
            future = self._start(0, function, call, began)
        elif self._runs_apart:
            future = thread_pool().submit(self._perform_inline, function, call, began)
            future.add_done_callback(lambda _: self._notify())
        else:
            return self._perform_inline(function, call, began)
        if wait(lambda: future if future.done() else None, self._seconds_left(), self.changed) is None:
            future.cancel()
            return _failure(0, "HostBudgetError", "the time for host functions is used up (Limits.host_seconds)")
        return future.result()

    def _perform_inline(self, function: HostFunction, call: Call, began: float) -> Answer:
        try:
            self._ask_gate(call)
            value = self._context.copy().run(cast("Callable[..., Any]", function.call), *call.args, **call.kwargs)
            answer = self._answer(0, function, value)
        except BaseException as error:  # also what is no Exception: the guest's run goes on
            answer = self._failed(0, function, call, error)
            self._end(call, _outcome(error), began, error)
            return answer
        self._end(call, "ok", began)
        return answer

    def _ask_gate_in_time(self, call: Call, wait: Wait) -> None:
        """Ask the gate while the guest waits, also one that is async."""
        if self._gate is None:
            return
        decision = self._context.copy().run(self._gate, call)
        if inspect.isawaitable(decision):
            asked = asyncio.run_coroutine_threadsafe(_awaited(decision), self._loop or private_loop())
            asked.add_done_callback(lambda _: self._notify())
            if wait(lambda: asked if asked.done() else None, self._seconds_left(), self.changed) is None:
                asked.cancel()
                raise _Refused("HostRefusedError", f"{call.name}: its gate did not answer in time")
            decision = asked.result()
        _heed(call, decision)

    def _notify(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def _ask_gate(self, call: Call) -> None:
        if self._gate is None:
            return
        decision = self._context.copy().run(self._gate, call)
        if inspect.isawaitable(decision):
            _drop(decision)
            raise _Refused("HostRefusedError", f"{call.name}: its gate has to be awaited: write it with async def")
        _heed(call, decision)

    def _submitted(self, ident: int, payload: bytes, wait: Wait) -> Answer:
        if not ident or ident in self._under_way or ident in self.deferred:  # 0 is that of the call without a number
            raise _Refused("HostFunctionError", "a call of this number is under way")
        function, call, began = self._begun(payload)
        if function.is_deferred:
            try:
                self._ask_gate_in_time(call, wait)
            except BaseException as error:
                self._end(call, _outcome(error), began, error)
                return self._failed(ident, function, call, error)
            call.id = ident
            self.deferred[ident] = Deferred(function, call, payload[_NUMBER.size :])
            return Answer(DEFERRED, ident, b"")
        self._order.append(ident)
        self._start(ident, function, call, began)
        return _NOTHING

    def _start(self, ident: int, function: HostFunction, call: Call, began: float) -> Future[Answer]:
        """Perform a call beside the guest, on the event loop; its answer is kept for `_next`, if it has a number."""
        loop = self._loop or private_loop()
        done: Future[Answer] = Future()

        def finish(answer: Answer) -> None:
            with self.changed:
                self._performing -= 1
                if self._under_way.get(ident) is done:
                    del self._under_way[ident]
                if not self._is_closed and ident and not done.cancelled():
                    self._answers.append(answer)
                if not done.cancelled():
                    done.set_running_or_notify_cancel()
                    done.set_result(answer)
                self.changed.notify_all()

        async def perform() -> None:
            try:
                answer = await self._perform(ident, function, call)
            except BaseException as error:  # cancelled, too
                answer = self._failed(ident, function, call, error)
                self._end(call, _outcome(error), began, error)
            else:
                self._end(call, "ok", began)
            finish(answer)

        task: list[asyncio.Task[None]] = []

        def begin() -> None:
            if self._is_closed or done.cancelled():
                self._end(call, "cancelled", began)
                finish(_failure(ident, "HostFunctionError", "the call was cancelled"))
                return
            task.append(loop.create_task(perform(), context=self._context.copy()))
            self._tasks.add(task[0])
            task[0].add_done_callback(self._tasks.discard)

        def stop(future: Future[Answer]) -> None:
            if future.cancelled():
                _soon(loop, lambda: task[0].cancel() if task else None)

        done.add_done_callback(stop)
        with self.changed:
            self._under_way[ident] = done
            self._performing += 1
        if not _soon(loop, begin):
            self._end(call, "error", began)
            finish(_failure(ident, "HostFunctionError", f"{function.name}: the event loop of the host is closed"))
        return done

    async def _perform(self, ident: int, function: HostFunction, call: Call) -> Answer:
        if self._gate is not None:
            decision = self._gate(call)
            _heed(call, await decision if inspect.isawaitable(decision) else decision)
        limiter = self._limiter(function)
        if limiter is None:
            value = await self._within_timeout(function, call)
        else:
            async with limiter:
                value = await self._within_timeout(function, call)
        return self._answer(ident, function, value)

    def _limiter(self, function: HostFunction) -> asyncio.Semaphore | None:
        if function.concurrency is None:
            return None
        return self._limiters.setdefault(function.name, asyncio.Semaphore(function.concurrency))

    async def _within_timeout(self, function: HostFunction, call: Call) -> Any:
        body = cast("Callable[..., Any]", function.call)
        work: Awaitable[Any]
        if function.is_async:
            work = cast("Coroutine[Any, Any, Any]", body(*call.args, **call.kwargs))
        else:
            context = contextvars.copy_context()
            loop = asyncio.get_running_loop()
            work = loop.run_in_executor(thread_pool(), lambda: context.run(body, *call.args, **call.kwargs))
        if function.timeout is None:
            return await work
        try:
            async with asyncio.timeout(function.timeout):
                return await work
        except TimeoutError:
            raise _Refused(
                "TimeoutError", f"{function.name} took longer than {function.timeout:g} seconds", "timeout"
            ) from None

    def _next(self, payload: bytes, wait: Wait) -> Answer:
        """Give the next answer of a submitted call, or ``NOTHING`` when the time is over or none is under way."""
        microseconds = int.from_bytes(payload[:8], "little")
        seconds = float("inf") if microseconds >= FOREVER else microseconds / 1e6
        if self._limits.deterministic and self._order:
            seconds = float("inf")  # answers come before any timer
        left = self._seconds_left()
        began = time.monotonic()
        found = wait(self._take, min(seconds, left), self.changed)
        if self._limits.host_seconds is not None and seconds > 0:
            self.seconds += 0 if found else time.monotonic() - began
        if found is None and left < seconds:
            self._abandon()
            found = self._take()
        return found or _NOTHING

    def _take(self) -> Answer | None:
        """Next answer, if there is one; ``NOTHING`` if none can come. The caller holds `changed`, or is alone."""
        if self._limits.deterministic:
            while self._order:
                found = next((answer for answer in self._answers if answer.ident == self._order[0]), None)
                if found is None:
                    return None
                self._answers.remove(found)
                self._order.popleft()
                return found
            return _NOTHING
        if self._answers:
            return self._answers.popleft()
        return None if self._under_way else _NOTHING

    def _abandon(self) -> None:
        """End all that is under way: the seconds of the run for host functions are over."""
        message = "the time for host functions is used up (Limits.host_seconds)"
        with self.changed:
            pending, self._under_way = self._under_way, {}
            self._answers += [_failure(ident, "HostBudgetError", message) for ident in pending]
        for future in pending.values():
            future.cancel()

    def _cancel(self, ident: int) -> None:
        if (deferred := self.deferred.pop(ident, None)) is not None:
            deferred.call.outcome = "cancelled"
        with self.changed:
            future = self._under_way.pop(ident, None)
            self._answers = deque(answer for answer in self._answers if answer.ident != ident)
            if ident in self._order:
                self._order.remove(ident)
        if future is not None:
            future.cancel()

    def _end(self, call: Call, outcome: str, began: float, cause: BaseException | None = None) -> None:
        seconds = time.monotonic() - began
        fields = call.__dict__  # without a model's own way to set them, which takes longer
        fields["outcome"], fields["seconds"] = outcome, seconds
        if cause is not None and call.cause is None:
            # What was refused needs no traceback, whose frames would keep all that the call had at hand.
            fields["cause"] = cause.with_traceback(None) if isinstance(cause, _Refused) else cause
        with self.changed:
            self.seconds += seconds
            self._kept_bytes += call.argument_bytes
        if self._on_call is not None:
            self._on_call(call)
        if self._kept_bytes > KEPT_ARGUMENT_BYTES:
            fields["args"], fields["kwargs"] = (), {}

    # -- answers ---------------------------------------------------------------------------------

    def _answer(self, ident: int, function: HostFunction, value: Any) -> Answer:
        try:
            kind, data = encode(value)
        except Untravelled:
            if not inspect.isawaitable(value):
                raise
            _drop(value)
            raise Untravelled("an awaitable: declare the function with async def") from None
        with self.changed:  # counted here, and not when the guest fetches it: until then it is in the host's memory
            self.bytes_out += len(data)
            is_too_much = self.bytes_out > self._limits.host_bytes
        if is_too_much:
            raise _Refused(
                "HostBudgetError",
                f"host functions may hand {self._limits.host_bytes} bytes to this run (Limits.host_bytes)",
                "error",
            )
        return Answer(kind, ident, data)

    def _failed(self, ident: int, function: HostFunction, call: Call, error: BaseException) -> Answer:
        """Answer for a call that failed: of the host's exception no more than the closed list says."""
        if isinstance(error, _Refused):
            return _failure(ident, error.kind, error.message)
        if isinstance(error, Untravelled):
            return _failure(ident, "HostFunctionError", f"{function.name} returned what cannot travel: {error}")
        if isinstance(error, asyncio.CancelledError):
            return _failure(ident, "HostFunctionError", f"{function.name} was cancelled")
        if isinstance(error, OSError):
            said = os.strerror(error.errno) if isinstance(error.errno, int) else "it failed"
            return _failure(ident, _builtin_name(error) or "OSError", f"{function.name}: {said}")
        if (name := _builtin_name(error)) is not None and isinstance(error, Exception):
            return _failure(ident, name, _scrubbed(_message(error)))
        return _failure(ident, "HostFunctionError", f"{function.name} failed")

    def _source(self, source: str | None) -> Answer:
        return _NOTHING if source is None else Answer(TEXT, 0, source.encode("utf-8", "replace"))

    def _show(self, bundle: dict[str, str | bytes] | None) -> None:
        if bundle is None:
            raise _Refused("HostFunctionError", "a display is malformed")
        self._display_bytes += BUNDLE_BYTES + sum(len(name) + len(shown) for name, shown in bundle.items())
        if self._display_bytes > self._limits.result_bytes:
            raise _Refused(
                "HostBudgetError",
                f"the displays of a run take {self._limits.result_bytes} bytes at most (Limits.result_bytes)",
            )
        self.displays.append(bundle)
        if self._on_display is not None:
            self._on_display(bundle)


def _text(payload: bytes) -> str:
    if len(payload) > MAX_OWN_BYTES:
        raise _Refused("HostFunctionError", "the names are too long")
    return payload.decode("utf-8", "replace")


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _drop(awaitable: Any) -> None:
    """Close what nobody awaits."""
    if callable(close := getattr(awaitable, "close", None)):
        close()


def _failure(ident: int, kind: str, message: str) -> Answer:
    return Answer(FAILED, ident, marshal.dumps((kind, message[:MAX_MESSAGE]), MARSHAL_VERSION))


def _heed(call: Call, decision: object) -> None:
    if decision is None:
        return
    reason = decision.reason if isinstance(decision, Deny) else "its gate gave no answer"
    raise _Refused("HostRefusedError", f"{call.name}: {reason}"[:MAX_MESSAGE])


def _outcome(error: BaseException) -> str:
    if isinstance(error, _Refused):
        return error.outcome
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "error"


def _builtin_name(error: BaseException) -> str | None:
    kind = type(error)
    if kind is MemoryError:  # which would be said of the guest's memory
        return None
    return kind.__name__ if kind.__module__ == "builtins" and getattr(builtins, kind.__name__, None) is kind else None


def _message(error: BaseException) -> str:
    try:
        if isinstance(error, KeyError) and len(error.args) == 1:
            return str(error.args[0])
        return str(error)
    except Exception:
        return type(error).__name__


_ROOTS = (
    "Applications|Library|System|Users|Volumes|app|bin|boot|data|dev|etc|home|lib|lib64|media|mnt|opt|private|proc|root|run"
    "|sbin|snap|srv|sys|tmp|usr|var|workspace"
)
_PLACE = re.compile(rf"""(?<![\w:/.])/(?:{_ROOTS})(?:/[^\s'"]*)?(?![\w-])|\b[A-Za-z]:\\[^\s'"]*|\\\\[^\s'"]+""")


def _host_places() -> list[str]:
    places = {os.getcwd(), str(Path.home()), sys.prefix, sys.base_prefix, tempfile.gettempdir()}
    return sorted((place for place in places if len(place) > 1), key=len, reverse=True)


def _scrubbed(message: str) -> str:
    """A message without what looks like a path of a host, and without paths of this one."""
    message = message[: 4 * MAX_MESSAGE]  # a path that begins in what the guest gets is whole in this
    for place in _host_places():
        message = re.sub(re.escape(place) + r"[^\s'\"]*", "<path>", message)
    return _PLACE.sub("<path>", message)


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _soon(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> bool:
    """Call on a loop from any thread; False if the loop is closed."""
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:
        return False
    return True
