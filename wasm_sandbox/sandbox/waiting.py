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
        if error := future.exception():
            waiter.set_exception(error)
        else:
            waiter.set_result(future.result())

    def notify(_: Future[Outcome]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(deliver)

    future.add_done_callback(notify)
    return waiter
