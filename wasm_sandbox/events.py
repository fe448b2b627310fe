"""Events of a run: marks around its parts, for listeners.

The library marks the borders between its folders (`mark`). Nobody listens as a rule, and then a mark is one look-up.
Spans, ``bench --breakdown`` and tests listen; no result depends on it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, Protocol

from wasm_sandbox.forks import process_lock


class Mark:
    """Part of a run, while it goes on and after it."""

    __slots__ = ("began_ns", "ended_ns", "error", "name", "result", "subject")

    def __init__(self, name: str, subject: Any) -> None:
        self.name, self.subject = name, subject
        self.began_ns = self.ended_ns = 0
        """Begin and end on the clock of `time.perf_counter_ns`; 0 before that."""
        self.result: Any = None
        """Result of the part, where the code that is marked sets it."""
        self.error: BaseException | None = None
        """Exception that left the part."""


class Listener(Protocol):
    """Listener to marks, called on the thread of the run: in the order of listening at begins, in reverse at ends."""

    def began(self, mark: Mark) -> None:
        """Take note of the begin of a part."""

    def ended(self, mark: Mark) -> None:
        """Take note of the end of a part, also by an exception."""


# Guarantees:
# - a listener hears both ends of a mark, or neither: who listens is settled when it begins;
# - what a listener raises goes on to the run, and the listeners after it miss that end of the mark: they are the host's
#   own, and their defects are not hidden.
# Locks: `_lock` is held while the tuple of listeners is replaced, and never while one is called.
_listeners: tuple[Listener, ...] = ()
_lock = process_lock(fork_waits=True)


class _Heard(AbstractContextManager[Mark]):
    def __init__(self, name: str, subject: Any, listeners: tuple[Listener, ...]) -> None:
        self._mark, self._listeners = Mark(name, subject), listeners

    def __enter__(self) -> Mark:
        for listener in self._listeners:
            listener.began(self._mark)
        self._mark.began_ns = time.perf_counter_ns()
        return self._mark

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mark.ended_ns = time.perf_counter_ns()
        self._mark.error = error
        for listener in reversed(self._listeners):
            listener.ended(self._mark)


class _Unheard:
    """Mark without listeners: one for all, which keeps nothing."""

    __slots__ = ()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __setattr__(self, name: str, value: object) -> None:
        pass


_UNHEARD = _Unheard()


def mark(name: str, subject: Any = None) -> AbstractContextManager[Mark]:
    """Mark a part of a run; its ``result`` may be set inside.

    Args:
        name: name of the part.
        subject: object of the part, for the listeners.
    """
    return _Heard(name, subject, _listeners) if _listeners else _UNHEARD


def is_heard() -> bool:
    """Whether anybody listens: where even a mark that nobody hears would cost too much."""
    return bool(_listeners)


def listen(listener: Listener) -> None:
    """Add a listener to marks that begin from now on, until `leave`."""
    global _listeners  # noqa: PLW0603 - read without a lock at every mark
    with _lock:
        _listeners = (*_listeners, listener)


def leave(listener: Listener) -> None:
    """Remove a listener; it still hears the ends of marks that have begun."""
    global _listeners  # noqa: PLW0603 - as in `listen`
    with _lock:
        _listeners = tuple(other for other in _listeners if other is not listener)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Add a listener to marks that begin inside the block."""
    listen(listener)
    try:
        yield
    finally:
        leave(listener)
