"""What a guest says of its progress, as notifications to the client that asks for them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import Awaitable, Callable

from wasm_sandbox import Event

INTERVAL_SECONDS = 0.05
MAX_TEXT_CHARACTERS = 500

Report = Callable[[float, float | None, str | None], Awaitable[None]]


# Guarantees: a guest never waits for a client: what it says while a notification is on its way replaces what it said
# before. The protocol wants numbers that rise, so others are dropped.
# Locks: `_lock` guards `_latest` and `_is_sending`; nothing is called with it.
class Progress:
    """Listener to the events of one run, called on any thread; made on the event loop that the reports go out on.

    Args:
        report: sends one notification: done, total, and text.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._latest: tuple[float, float | None, str | None] | None = None
        self._is_sending = False
        self._sent = -math.inf
        self._sender: asyncio.Task[None] | None = None

    def __call__(self, event: Event) -> None:
        """Take an event of the run."""
        if event.kind != "progress" or event.data is None:
            return
        done, total = event.data["done"], event.data["total"]
        if not math.isfinite(done):
            return
        text = (event.text or "")[:MAX_TEXT_CHARACTERS].encode("utf-8", "replace").decode()
        with self._lock:
            self._latest = done, total if total is not None and math.isfinite(total) else None, text or None
            if self._is_sending:
                return
            self._is_sending = True
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._sender = self._loop.create_task(self._send())

    async def _send(self) -> None:
        while await self._send_latest():  # noqa: ASYNC110 - a pause between notifications, and no poll
            await asyncio.sleep(INTERVAL_SECONDS)

    async def _send_latest(self) -> bool:
        """Send what was said last; false if nothing was said since."""
        with self._lock:
            latest, self._latest = self._latest, None
            self._is_sending = latest is not None
        if latest is None:
            return False
        if latest[0] > self._sent:
            self._sent = latest[0]
            await self._report(*latest)
        return True

    async def finish(self) -> None:
        """Send what is left, once the run is over."""
        await asyncio.sleep(0)  # for a `_begin` that is on its way
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.wait([self._sender])
        await self._send_latest()
