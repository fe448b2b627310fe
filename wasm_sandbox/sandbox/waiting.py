"""Waiting for a guest, on a thread and on an event loop."""

from __future__ import annotations

from collections.abc import Awaitable
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from wasm_sandbox.decode.interpret import TakesLonger
from wasm_sandbox.engine import on_guest_thread, wait_for
from wasm_sandbox.outcome import Outcome

if TYPE_CHECKING:
    from wasm_sandbox.results import CodeResult, ToolExecutionResult
    from wasm_sandbox.sandbox.streams import Run

R = TypeVar("R", bound="CodeResult | ToolExecutionResult")


def result_of(run: Run[R]) -> R:
    """Run it and wait for its result; an exception of the caller's stops the guest."""
    future, cancel = run.start()
    if run.events is not None:
        run.events.stop_with(cancel)
    try:
        outcome = wait_for(future)
        try:
            result = run.result(outcome, quick=True)
        except TakesLonger:  # elsewhere, so that this thread only waits: see `pass_on`
            result = on_guest_thread(lambda: run.result(outcome))
    except BaseException:
        cancel()
        raise
    finally:
        if run.calls is not None:
            run.calls.settle()
    if run.events is not None:
        run.events.finish(result)
    return result


async def result_of_async(run: Run[R]) -> R:
    """Run it as `result_of`, with the event loop free; cancelling the task stops the guest."""
    import asyncio  # lazy: 20 ms, only for async callers

    future, cancel = run.start(asyncio.get_running_loop().is_closed)
    if run.events is not None:
        run.events.stop_with(cancel)
    try:
        outcome = await delivered(future)
    except BaseException:  # cancelled, or thrown away
        future.cancel()
        cancel()
        raise
    finally:
        if run.calls is not None:
            await run.calls.settle_async()
    try:
        result = run.result(outcome, quick=True)
    except TakesLonger:  # seconds, if a tool means it: not on the event loop
        result = await asyncio.to_thread(run.result, outcome)
    if run.events is not None:
        await asyncio.to_thread(run.events.finish, result)
    return result


def delivered(future: Future[Outcome]) -> Awaitable[Outcome]:
    """Wrap a future as `asyncio.wrap_future`, without an error in the guest's thread if the loop is closed."""
    import asyncio  # lazy: 20 ms, only for async callers

    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[Outcome] = loop.create_future()

    def deliver() -> None:
        if waiter.done() or future.cancelled():
            return
        try:
            if error := future.exception():
                waiter.set_exception(error)
            else:
                waiter.set_result(future.result())
        except (SystemExit, KeyboardInterrupt):  # these end the loop
            raise
        except BaseException as error:  # a signal handler's: the loop would only log it, and nobody be woken
            if not waiter.done():
                waiter.set_exception(RuntimeError(repr(error)) if isinstance(error, StopIteration) else error)

    def notify(_: Future[Outcome]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(deliver)

    future.add_done_callback(notify)
    return waiter
