"""Sessions by name, apart for each owner: as many as there may be, and none past its time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from wasm_sandbox import AsyncSandbox, AsyncSession
from wasm_sandbox.mcp.answers import Refused

LIFETIME_SECONDS = 86_400.0

R = TypeVar("R")


async def finished(task: asyncio.Task[R]) -> R:
    """Wait for a task of a run, which is cancelled once, and still waited for, when the caller is cancelled.

    A cancel scope of anyio cancels again and again, and what follows a cancel in the library has to be awaited.

    Raises:
        Refused: if it was cancelled by another, as by a reset.
    """
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        raise
    if task.cancelled():
        raise Refused("session_reset", "the session was reset while this ran")
    return task.result()


class _Entry:
    """Session of a name; it is being made until `made` is done."""

    def __init__(self, made: asyncio.Task[AsyncSession]) -> None:
        self.made = made
        self.running: set[asyncio.Task[Any]] = set()

    @property
    def is_over(self) -> bool:
        if not self.made.done():
            return False
        return self.made.cancelled() or self.made.exception() is not None or self.made.result().is_closed


# Guarantees: a name stands for one session, also if several calls begin it at once; what is reset or over is closed,
# and counts until its memory is given back. Used on one event loop, so there are no locks: nothing is awaited between a
# look-up and the change that follows from it.
class Sessions:
    """Sessions of a server.

    Args:
        box: sandbox of all sessions.
        most: most sessions of one owner at the same time.
        idle_seconds: seconds after its last call at which a session is closed.
    """

    def __init__(self, box: AsyncSandbox, most: int, idle_seconds: float) -> None:
        self._box, self._most, self._idle_seconds = box, most, idle_seconds
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._closing: dict[asyncio.Task[None], str] = {}

    def __len__(self) -> int:
        return len(self._entries) + len(self._closing)

    async def run(
        self, owner: str, name: str, call: Callable[[AsyncSession], Coroutine[Any, Any, R]]
    ) -> tuple[R, bool]:
        """Call the session of a name, which is made if there is none.

        Args:
            owner: whose it is.
            name: its name.
            call: makes the call.

        Returns:
            The result of the call, and whether the session is new.

        Raises:
            Refused: if there are as many as there may be, or it was reset meanwhile.
            SandboxError: if it cannot be made, or as of the call.
        """
        self._forget_ended()
        entry, is_new = self._entries.get((owner, name)), False
        if entry is None:
            self._check_room(owner)
            entry, is_new = _Entry(asyncio.ensure_future(self._make())), True
            self._entries[owner, name] = entry
        session = await asyncio.shield(entry.made)
        task = asyncio.ensure_future(call(session))
        entry.running.add(task)
        task.add_done_callback(entry.running.discard)
        return await finished(task), is_new

    async def reset(self, owner: str, name: str) -> None:
        """Forget a session, and stop what runs in it.

        Raises:
            Refused: if there is none of the name.
        """
        self._forget_ended()
        if (owner, name) not in self._entries:
            raise Refused(
                "unknown_session",
                f"there is no session {name!r}: it was never begun, was reset, or was not used for "
                f"{self._idle_seconds:g} seconds",
            )
        await asyncio.wait([self._close(owner, name)])

    async def close(self) -> None:
        """Close all sessions, and stop what runs in them."""
        for owner, name in list(self._entries):
            self._close(owner, name)
        if self._closing:
            await asyncio.wait(self._closing)

    async def _make(self) -> AsyncSession:
        return await self._box.session(idle_seconds=self._idle_seconds, lifetime_seconds=LIFETIME_SECONDS)

    def _close(self, owner: str, name: str) -> asyncio.Task[None]:
        entry = self._entries.pop((owner, name))

        async def close() -> None:
            while entry.running:
                for task in entry.running:
                    task.cancel()
                await asyncio.wait(set(entry.running))
            session = await entry.made
            await session.close()

        task = asyncio.ensure_future(close())
        self._closing[task] = owner
        task.add_done_callback(self._closed)
        return task

    def _closed(self, task: asyncio.Task[None]) -> None:
        del self._closing[task]
        task.cancelled() or task.exception()  # of one that could not be made: whoever began it was told

    def _forget_ended(self) -> None:
        for key in [key for key, entry in self._entries.items() if entry.is_over]:
            del self._entries[key]

    def _check_room(self, owner: str) -> None:
        present = sum(who == owner for who, _ in self._entries) + list(self._closing.values()).count(owner)
        if present >= self._most:
            raise Refused(
                "too_many_sessions",
                f"there are {self._most} sessions, as many as there may be: reset one, or use one that there is",
            )
