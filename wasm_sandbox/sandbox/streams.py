"""Events of a run while it goes on: what the guest writes, shows and calls, in order, and its result at last."""

from __future__ import annotations

import codecs
import contextvars
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast

from wasm_sandbox.decode.frame import HEADER_BYTES, MARKER, Gap, could_be_frame, split_frames
from wasm_sandbox.forks import Condition
from wasm_sandbox.limits import Limits
from wasm_sandbox.options import RunOptions
from wasm_sandbox.request import Wait
from wasm_sandbox.results import Call, CodeResult, Event, ToolExecutionResult

if TYPE_CHECKING:
    from wasm_sandbox.functions import RunCalls
    from wasm_sandbox.outcome import Outcome

Pipe = Literal["stdout", "stderr"]
Result = CodeResult | ToolExecutionResult
R_co = TypeVar("R_co", bound=Result, covariant=True)
R = TypeVar("R", CodeResult, ToolExecutionResult)

MAX_WAITING_BYTES = 1 << 20
"""Most bytes of events that wait for whoever takes them; past that the guest waits."""

EVENT_BYTES = 500
"""Size of an event without its content, about."""

JOINED_CHARACTERS = 16 << 10
"""Longest text that pieces of output which nobody has taken yet are joined to."""

STDOUT = 1
_FIRST = MARKER[:1]


class _Text:
    """Text of a pipe that no frame comes in: a character that is not whole yet waits for its rest."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def text(self, data: bytes) -> str:
        return self._decoder.decode(data)

    def rest(self) -> str:
        return self._decoder.decode(b"", True)


# The problem: the result's frame comes in standard output, in pieces of any size, and must never show. What looks like
# a frame may be none, and only the end of the output tells which frame counts (`split_frames`). So from the first
# header on that could be a frame's, everything is held until the end; a guest of good will writes it last. A marker
# without such a header is text.
class _Output(_Text):
    """Text of standard output, without the frame.

    Args:
        limits: limits of the run, which bound what is held.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self._limits = limits
        self._most = HEADER_BYTES + limits.result_bytes + limits.output_bytes
        self._held = bytearray()
        """Bytes that may be part of a frame."""
        self._is_frame = False
        self._dropped_bytes = 0

    def text(self, data: bytes) -> str:
        if not self._held and _FIRST not in data:
            return self._decoder.decode(data)
        kept = data[: self._most - len(self._held)]  # past that it is dropped, as a result's is
        self._held += kept
        self._dropped_bytes += len(data) - len(kept)
        if self._is_frame:
            return ""
        size = self._text_bytes()
        data = bytes(self._held[:size])
        del self._held[:size]
        return self._decoder.decode(data)

    def _text_bytes(self) -> int:
        """Number of held bytes that are no part of a frame, whatever follows them."""
        at = self._held.find(MARKER)
        while at >= 0:
            if len(self._held) < at + HEADER_BYTES:
                return at
            if could_be_frame(bytes(self._held[at : at + HEADER_BYTES])):
                self._is_frame = True
                return at
            at = self._held.find(MARKER, at + 1)
        at = self._held.find(_FIRST, max(0, len(self._held) - len(MARKER) + 1))
        while at >= 0 and not MARKER.startswith(bytes(self._held[at:])):
            at = self._held.find(_FIRST, at + 1)
        return at if at >= 0 else len(self._held)

    def rest(self) -> str:
        gap = Gap(len(self._held), self._dropped_bytes) if self._dropped_bytes else None
        data = split_frames(bytes(self._held), max_payload=self._limits.result_bytes, gap=gap).text
        return self._decoder.decode(data, True)


# Guarantees:
# - events are taken, or `deliver` is called with them, one at a time and in the order in which they came; the result's
#   is the last;
# - what waits is bounded: the guest's own thread waits for room, without its turn and until its end; other threads add
#   no more than calls under way have (`Limits.host_pending`, `Limits.host_bytes`);
# - once `deliver` has raised, it is not called again: the run is stopped, and `finish` raises its exception.
# Locks: `changed` guards all fields; neither `deliver` nor a waker is called with it. The decoders are the guest's
# thread's own until the run is over, and are used with `_decoding` held after that.
class Events:
    """Events of one run, between the guest and whoever takes them.

    Args:
        limits: limits of the run.
        deliver: called with each event; by default they wait until they are taken.
    """

    def __init__(self, limits: Limits, deliver: Callable[[Event], object] | None = None) -> None:
        self._deliver = deliver
        self.scrub: Callable[[str], str] | None = None
        """Takes the values of secrets out of what the guest writes, piece by piece."""
        self._context = contextvars.copy_context()
        self._out: _Text = _Output(limits)
        self._err = _Text()
        self._decoding = threading.Lock()
        self.changed = Condition()
        self._waiting: deque[tuple[Event, int]] = deque()
        self._bytes = 0
        self._is_delivering = self._is_over = False
        self._error: BaseException | None = None
        self._stop: Callable[[], None] | None = None
        self._waker: Callable[[], object] | None = None
        self._wait: Wait | None = None
        self._guest_thread: int | None = None

    # -- the run's side --------------------------------------------------------------------------

    def expect_no_frame(self) -> None:
        """Take all output for text, before there is any: the result does not come in it."""
        self._out = _Text()

    def begin(self, wait: Wait) -> None:
        """Take note of the guest's way to wait, on its thread."""
        self._wait, self._guest_thread = wait, threading.get_ident()

    def output(self, fd: int, data: bytes) -> None:
        """Take what the guest has written, on its thread."""
        with self._decoding:
            text = "" if self._is_over else (self._out if fd == STDOUT else self._err).text(data)
        if text:
            self._tell_text("stdout" if fd == STDOUT else "stderr", self._scrubbed(text))

    def display(self, bundle: dict[str, str | bytes]) -> None:
        """Take a bundle that was shown."""
        self._tell(Event.model_construct(kind="display", data=bundle), sum(map(len, bundle.values())))

    def progress(self, done: float, total: float | None, text: str) -> None:
        """Take what the guest says of its progress."""
        self._tell(Event.model_construct(kind="progress", text=text, data={"done": done, "total": total}), len(text))

    def call(self, call: Call) -> None:
        """Take a call of a host function that begins, or has ended."""
        self._tell(Event.model_construct(kind="call", call=call.model_copy()), call.argument_bytes)

    def stop_with(self, stop: Callable[[], None]) -> None:
        """Set the function that stops the run."""
        with self.changed:
            self._stop, is_late = stop, self._error is not None
        if is_late:
            stop()

    def finish(self, result: Result) -> None:
        """Tell what is left, and the result; nothing is told after that.

        Raises:
            BaseException: if ``deliver`` raised it.
        """
        with self._decoding:
            texts: list[tuple[Pipe, str]] = [("stdout", self._out.rest()), ("stderr", self._err.rest())]
            self._is_over = True
        for kind, text in texts:
            if text:
                self._add(Event.model_construct(kind=kind, text=self._scrubbed(text)), len(text))
        self._add(Event.model_construct(kind="result", result=result), 0)
        self._hand_over()
        with self.changed:
            self.changed.wait_for(lambda: not self._is_delivering)
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Take no more events, and forget those that wait; the guest does not wait any more."""
        with self.changed:
            self._is_over = True
            self._waiting.clear()
            self._bytes = 0
            self.changed.notify_all()

    def _scrubbed(self, text: str) -> str:
        return text if self.scrub is None else self.scrub(text)

    def _tell_text(self, kind: Pipe, text: str) -> None:
        with self.changed:
            if self._waiting and not self._is_over:
                last, size = self._waiting[-1]
                if last.kind == kind and len(last.text or "") + len(text) <= JOINED_CHARACTERS:
                    event = Event.model_construct(kind=last.kind, text=(last.text or "") + text)
                    self._waiting[-1] = event, size + len(text)
                    self._bytes += len(text)
                    return
        self._tell(Event.model_construct(kind=kind, text=text), len(text))

    def _tell(self, event: Event, size: int) -> None:
        if self._is_over:
            return
        self._add(event, size)
        self._hand_over()
        if threading.get_ident() == self._guest_thread and self._wait is not None and self._bytes > MAX_WAITING_BYTES:
            self._wait(self._has_room, float("inf"), self.changed)

    def _has_room(self) -> bool | None:
        return True if self._bytes <= MAX_WAITING_BYTES or self._is_over else None

    def _add(self, event: Event, size: int) -> None:
        with self.changed:
            if self._error is not None:
                return
            self._waiting.append((event, size + EVENT_BYTES))
            self._bytes += size + EVENT_BYTES
            waker, self._waker = self._waker, None
            self.changed.notify_all()
        if waker is not None:
            waker()

    def _hand_over(self) -> None:
        """Deliver what waits, unless another thread is about it."""
        if self._deliver is None:
            return
        with self.changed:
            if self._is_delivering:
                return
            self._is_delivering = True
        while (event := self._next_or_done()) is not None:
            try:
                self._context.run(self._deliver, event)
            except BaseException as error:
                self._fail(error)

    def _next_or_done(self) -> Event | None:
        with self.changed:
            event = self._take()
            self._is_delivering = event is not None
            return event

    def _fail(self, error: BaseException) -> None:
        with self.changed:
            self._error, stop = error, self._stop
            self._waiting.clear()
            self._bytes = 0
            self.changed.notify_all()
        if stop is not None:
            stop()

    # -- the taker's side ------------------------------------------------------------------------

    def _take(self) -> Event | None:
        """Next event, if one waits; `changed` is held."""
        if not self._waiting:
            return None
        event, size = self._waiting.popleft()
        self._bytes -= size
        self.changed.notify_all()
        return event

    def take(self, is_over: Callable[[], bool]) -> Event | None:
        """Wait for the next event; None if none waits and ``is_over``, which `wake` looks at again."""
        with self.changed:
            while not self._waiting and not is_over():
                self.changed.wait(1.0)  # not for ever: a signal is heard on every system
            return self._take()

    def take_now(self, waker: Callable[[], object]) -> Event | None:
        """Take the next event; if none waits, ``waker`` is called once when one does, or by `wake`."""
        with self.changed:
            event = self._take()
            if event is None:
                self._waker = waker
            return event

    def wake(self) -> None:
        """Let whoever waits for an event look again."""
        with self.changed:
            waker, self._waker = self._waker, None
            self.changed.notify_all()
        if waker is not None:
            waker()


def events_of(options: RunOptions) -> Events | None:
    """Events for the option ``on_event``; None if nobody listens."""
    listener = options.get("on_event")
    return None if listener is None else Events(cast(Limits, options["limits"]), listener)


def told(result: R, events: Events | None) -> R:
    """A result, after it has been told as the last event of its run.

    Raises:
        BaseException: if the listener raised it.
    """
    if events is not None:
        events.finish(result)
    return result


def listeners(events: Events | None) -> dict[str, Any]:
    """Listeners of the calls of a run (`RunCalls`), if its events are told."""
    if events is None:
        return {}
    return {"on_display": events.display, "on_progress": events.progress, "on_call": events.call}


class Run(Protocol[R_co]):
    """Run that is ready to begin."""

    @property
    def calls(self) -> RunCalls | None:
        """Calls of host functions."""

    @property
    def events(self) -> Events | None:
        """What is told of it, if anybody listens."""

    def start(self, abandoned: Callable[[], bool] | None = None) -> tuple[Future[Outcome], Callable[[], None]]:
        """Start the guest: a future of its outcome, and a function that stops it."""

    def result(self, outcome: Outcome, quick: bool = False) -> R_co:
        """Interpret the outcome."""


class _UnderWay:
    """A run whose events are taken: it is stopped when this is closed or forgotten."""

    def __init__(self, run: Run[Result], events: Events, abandoned: Callable[[], bool] | None = None) -> None:
        self._run, self._events, self._result = run, events, None
        self.future, self._cancel = run.start(abandoned)
        events.stop_with(self._cancel)
        self.future.add_done_callback(lambda _: events.wake())

    @property
    def calls(self) -> RunCalls | None:
        return self._run.calls

    def finish(self) -> None:
        """Interpret the outcome, which is there, and tell the result."""
        self._events.finish(self._run.result(self.future.result()))

    def stop(self) -> None:
        """Stop the guest, and forget what it tells."""
        self._events.close()
        self.future.cancel()
        self._cancel()
        if self.calls is not None:
            self.calls.close()


class _Stream:
    """Events of one run, which begins with the first step.

    Args:
        limits: limits of the run.
    """

    def __init__(self, limits: Limits) -> None:
        self._events = Events(limits)
        self._under_way: _UnderWay | None = None
        self._is_over = False

    def _end(self) -> None:
        self._is_over = True
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.stop()

    def __del__(self) -> None:
        if not getattr(self, "_is_over", True):
            self._end()


class EventStream(_Stream, Iterator[Event]):
    """Iterator over the events of a run; leaving it, by `close`, the end of a ``with`` block or for good, stops it.

    Args:
        limits: limits of the run.
        prepare: gives the run, or the result of what is not run.
    """

    def __init__(self, limits: Limits, prepare: Callable[[Events], Run[Result] | Result]) -> None:
        self._prepare = prepare
        super().__init__(limits)

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> Event:
        if self._is_over:
            raise StopIteration
        try:
            return self._next()
        except BaseException:
            self._end()
            raise

    def _next(self) -> Event:
        if self._under_way is None:
            prepared = self._prepare(self._events)
            if isinstance(prepared, Result):
                self._end()
                return Event.model_construct(kind="result", result=prepared)
            self._under_way = _UnderWay(prepared, self._events)
        under_way = self._under_way
        event = self._events.take(under_way.future.done)
        if event is None:
            if under_way.calls is not None:
                under_way.calls.settle()
            under_way.finish()
            event = self._events.take(under_way.future.done)
        assert event is not None
        if event.kind == "result":
            self._end()
        return event

    def close(self) -> None:
        """Stop the run, if it has not ended."""
        self._end()
        self._events.close()

    def __enter__(self) -> EventStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncEventStream(_Stream, AsyncIterator[Event]):
    """Async iterator over the events of a run; leaving it, by `aclose`, the end of an ``async with`` block, a
    cancelled task or for good, stops it.

    Args:
        limits: limits of the run.
        prepare: gives the run, or the result of what is not run.
    """

    def __init__(self, limits: Limits, prepare: Callable[[Events], Awaitable[Run[Result] | Result]]) -> None:
        self._prepare = prepare
        super().__init__(limits)

    def __aiter__(self) -> AsyncEventStream:
        return self

    async def __anext__(self) -> Event:
        if self._is_over:
            raise StopAsyncIteration
        try:
            return await self._next()
        except BaseException:
            self._end()
            raise

    async def _next(self) -> Event:
        import asyncio  # lazy: 20 ms, only for async callers

        loop = asyncio.get_running_loop()
        if self._under_way is None:
            prepared = await self._prepare(self._events)
            if isinstance(prepared, Result):
                self._end()
                return Event.model_construct(kind="result", result=prepared)
            self._under_way = _UnderWay(prepared, self._events, loop.is_closed)
        under_way = self._under_way
        event = await self._taken(loop)
        if event is None:
            if under_way.calls is not None:
                await under_way.calls.settle_async()
            await asyncio.to_thread(under_way.finish)
            event = await self._taken(loop)
        assert event is not None
        if event.kind == "result":
            self._end()
        return event

    async def _taken(self, loop: Any) -> Event | None:
        """Next event; None if the run is over, and nothing waits."""
        while True:
            waiter = loop.create_future()

            def wake(waiter: Any = waiter) -> None:
                def settle() -> None:
                    if not waiter.done():
                        waiter.set_result(None)

                try:
                    loop.call_soon_threadsafe(settle)
                except RuntimeError:  # the loop is closed: nobody waits
                    self._end()

            event = self._events.take_now(wake)
            # Looked at last: whoever ends the run from now on calls the waker.
            if event is not None or self._under_way is None or self._under_way.future.done():
                return event
            await waiter

    async def aclose(self) -> None:
        """Stop the run, if it has not ended."""
        calls = None if self._under_way is None else self._under_way.calls
        self._end()
        self._events.close()
        if calls is not None:
            await calls.settle_async()

    async def __aenter__(self) -> AsyncEventStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
