"""Sessions of this process: no more than there may be, and none past its time."""

from __future__ import annotations

import threading
import time
import weakref
from typing import Protocol

from wasm_sandbox.errors import SessionError
from wasm_sandbox.forks import ForkMark, process_lock, start_thread
from wasm_sandbox.switches import max_sessions


class Expiring(Protocol):
    """Session, as the registry sees it."""

    def expires(self) -> float:
        """When it is to be closed, on the clock of `time.monotonic`; it may become later."""

    def expire(self) -> None:
        """Close it if its time is over."""

    def rest_if_unused(self, now: float) -> None:
        """Give memory back that it does not need while nobody calls it."""


# Guarantees: a session that is over is closed, and one that nobody calls is at rest, within `_LOOK_SECONDS`; the thread
# ends when there is none any more. A child of a fork has no sessions.
# Locks: `_lock`, held for look-ups only; no session is called with it.
_LOOK_SECONDS = 0.5
_lock = process_lock(fork_waits=True)
_sessions: weakref.WeakSet[Expiring] = weakref.WeakSet()
_mark = ForkMark()
_thread: list[threading.Thread] = []


def register(session: Expiring) -> None:
    """Count a session, and close it when its time is over.

    Raises:
        SessionError: if there are as many as there may be.
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
        if not _thread:
            _thread.append(threading.Thread(target=_look_after, name="wasm-sandbox-sessions", daemon=True))
            start_thread(_thread[0])


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
        now = time.monotonic()
        for session in present:
            if session.expires() <= now:
                session.expire()
            else:
                session.rest_if_unused(now)
        del present
