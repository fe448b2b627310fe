"""Sessions of this process: no more than there may be, and none past its time."""

from __future__ import annotations

import ctypes
import threading
import time
import weakref
from collections.abc import Callable
from typing import Protocol, cast

from wasm_sandbox.errors import HostError, SessionError, pass_on
from wasm_sandbox.forks import ForkMark, process_lock, start_thread
from wasm_sandbox.switches import max_sessions


class Expiring(Protocol):
    """Session, as the registry sees it."""

    def expires(self) -> float:
        """When it is to be closed, on the clock of `time.monotonic`; it may become later."""

    def expire(self) -> None:
        """Close it if its time is over."""

    def rest_if_unused(self, now: float) -> int:
        """Give memory back that it does not need while nobody calls it; the number of bytes, of many small pieces."""


# Guarantees: a session that is over is closed, and one that nobody calls is at rest, within `_LOOK_SECONDS`; the thread
# ends when there is none any more. A child of a fork has no sessions.
# Locks: `_lock`, held for look-ups only; no session is called with it.
_LOOK_SECONDS = 0.5
_TRIMMED_BYTES = 4 << 20
"""Bytes that sessions gave back in one look, from which on the C library is asked for the pages of these: it keeps them
for the next checkpoints otherwise."""
_lock = process_lock(fork_waits=True)
_sessions: weakref.WeakSet[Expiring] = weakref.WeakSet()
_mark = ForkMark()
_thread: list[threading.Thread] = []


def register(session: Expiring) -> None:
    """Count a session, and close it when its time is over.

    Raises:
        SessionError: if there are as many as there may be.
        HostError: if the system gives no thread to look after them.
    """
    with _lock:
        if not _mark.is_set:
            _sessions.clear()
            _thread.clear()
            _mark.set()
        most = max_sessions()
        if len(_sessions) >= most:
            raise SessionError(
                f"there are {most} sessions in this process, as many as there may be: close some, or raise "
                "WASM_SANDBOX_MAX_SESSIONS"
            )
        _sessions.add(session)
        if not _thread or not _thread[0].is_alive():
            _thread[:] = [threading.Thread(target=_look_after, name="wasm-sandbox-sessions", daemon=True)]
            try:
                start_thread(_thread[0])
            except (RuntimeError, MemoryError) as error:
                pass_on(error)
                _sessions.discard(session)
                raise HostError(f"no thread can be started to look after sessions: {error}") from error


def are_ours() -> bool:
    """Whether the sessions are of this very process, and not of one that it was forked from."""
    return _mark.is_set


def unregister(session: Expiring) -> None:
    """Count a session no more."""
    with _lock:
        _sessions.discard(session)


def _look_after() -> None:
    while True:
        time.sleep(_LOOK_SECONDS)
        with _lock:
            present = list(_sessions)
            if not present:
                _thread.clear()
                return
        now, freed = time.monotonic(), 0
        for session in present:
            if session.expires() <= now:
                session.expire()
            else:
                freed += session.rest_if_unused(now)
        del present
        if freed >= _TRIMMED_BYTES:
            _trim()


def _c_trim() -> Callable[[int], int] | None:
    """Function of the C library that gives the system free pages between those that are in use; None if it has none."""
    try:
        return cast("Callable[[int], int]", ctypes.CDLL(None).malloc_trim)
    except (AttributeError, OSError, TypeError):  # it is not glibc
        return None


def _trim() -> None:
    if (trim := _c_trim()) is not None:
        trim(0)
