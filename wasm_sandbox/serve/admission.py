"""Admission: how many calls are under way and how many wait, fairly among clients; and the end of the server."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from wasm_sandbox.serve.problems import Problem
from wasm_sandbox.serve.settings import Settings
from wasm_sandbox.serve.tokens import Client

RETRY_SECONDS = 1.0


class _Line:
    """Calls of one client."""

    def __init__(self) -> None:
        self.running = 0
        self.waiting: deque[asyncio.Future[None]] = deque()


# Guarantees:
# - at most `Settings.concurrency` calls are under way, of a client at most its `max_calls`;
# - a free place goes to the clients that wait in turns, and to the calls of one in their order;
# - once `drain` was called no call begins, and those that wait are refused.
# Locks: none; it is used on the event loop only.
class Admission:
    """Places for calls.

    Args:
        settings: settings of the server.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lines: dict[Client, _Line] = {}
        self.running = 0
        self.is_draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def waiting(self) -> int:
        """Number of calls that wait."""
        return sum(len(line.waiting) for line in self._lines.values())

    def check(self) -> None:
        """Refuse whatever is new while the server ends.

        Raises:
            Problem: if it does.
        """
        if self.is_draining:
            raise Problem(
                "draining",
                "the server is about to end: try again at another one",
                retry_after=5,
                headers={"Connection": "close"},
            )

    @asynccontextmanager
    async def place(self, client: Client) -> AsyncIterator[None]:
        """Place for one call, which is held inside the block.

        Raises:
            Problem: if too many wait, the wait takes too long, or the server ends.
        """
        self.check()
        line = self._lines.setdefault(client, _Line())
        if line.waiting or not self._has_place(client, line):
            await self._wait(client, line)
        else:
            self._enter(line)
        try:
            yield
        finally:
            self.running -= 1
            line.running -= 1
            self._next()
            if not self.running:
                self._idle.set()

    def _has_place(self, client: Client, line: _Line) -> bool:
        is_free = self.running < self._settings.concurrency
        return is_free and (client.max_calls is None or line.running < client.max_calls)

    def _enter(self, line: _Line) -> None:
        self.running += 1
        line.running += 1
        self._idle.clear()

    async def _wait(self, client: Client, line: _Line) -> None:
        if len(line.waiting) >= self._settings.queue:
            raise Problem(
                "queue-full",
                f"{len(line.waiting)} calls of yours wait already: try again later",
                retry_after=RETRY_SECONDS,
            )
        turn = asyncio.get_running_loop().create_future()
        line.waiting.append(turn)
        try:
            async with asyncio.timeout(self._settings.queue_seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None:  # the place came at the same moment
                self.running -= 1
                line.running -= 1
                self._next()
            elif turn in line.waiting:
                line.waiting.remove(turn)
            if isinstance(error, TimeoutError):
                seconds = self._settings.queue_seconds
                raise Problem(
                    "queue-full",
                    f"no place was free within {seconds:g} seconds: try again later",
                    retry_after=RETRY_SECONDS,
                ) from None
            raise

    def _next(self) -> None:
        """Give free places to those that wait: the clients in turns, for the one served goes to the end."""
        served = True
        while served and not self.is_draining:
            served = False
            for client, line in list(self._lines.items()):
                if not line.waiting and not line.running:
                    del self._lines[client]
                elif line.waiting and self._has_place(client, line):
                    self._enter(line)
                    line.waiting.popleft().set_result(None)
                    self._lines[client] = self._lines.pop(client)
                    served = True
                    break

    async def drain(self, seconds: float) -> bool:
        """Let calls under way end, and no other begin.

        Args:
            seconds: longest wait for them.

        Returns:
            Whether they have ended.
        """
        self.is_draining = True
        for line in self._lines.values():
            while line.waiting:
                line.waiting.popleft().set_exception(
                    Problem("draining", "the server is about to end: try again at another one", retry_after=5)
                )
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True
