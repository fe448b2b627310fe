"""Waiting for a guest on an event loop."""

from __future__ import annotations

from collections.abc import Awaitable
from concurrent.futures import Future
from contextlib import suppress

from wasm_sandbox.outcome import Outcome


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
