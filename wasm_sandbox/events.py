"""What is told while a run goes on: where its time goes, for whoever listens.

The library marks the borders between its rooms (`mark`). Nobody listens as a rule, and then a mark is one look-up.
Spans, ``bench --breakdown`` and tests listen; nothing of the library's own depends on it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, Protocol


class Mark:
    """A part of a run, while it goes on and after it."""

    __slots__ = ("began_ns", "ended_ns", "error", "name", "result", "subject")

    def __init__(self, name: str, subject: Any) -> None:
        self.name, self.subject = name, subject
        self.began_ns = self.ended_ns = 0
        """On the clock of `time.perf_counter_ns`; 0 before it."""
        self.result: Any = None
        """What came out, where whoever marks it says so."""
        self.error: BaseException | None = None
        """What left it instead."""


class Listener(Protocol):
    """Whoever wants to know. Called on the thread of the run, in the order of listening."""

    def began(self, mark: Mark) -> None:
        """A part of a run begins."""

    def ended(self, mark: Mark) -> None:
        """It has ended; also where an exception leaves it."""


# Guarantees:
# - a listener hears both ends of a mark, or neither: who listens is settled when it begins;
# - what a listener raises goes on to the run: listeners are the host's own, and their defects are not hidden.
# Lock: `_lock` is held while the tuple of listeners is replaced, and never while one is called.
_listeners: tuple[Listener, ...] = ()
_lock = threading.Lock()


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
    """A mark that nobody hears: one for all, which keeps nothing."""

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
        name: of the part.
        subject: what it is about, for the listeners.
    """
    return _Heard(name, subject, _listeners) if _listeners else _UNHEARD


def is_heard() -> bool:
    """Whether anybody listens: where even a mark that nobody hears would cost too much."""
    return bool(_listeners)


def listen(listener: Listener) -> None:
    """Tell a listener of every mark that begins from now on, until `leave`."""
    global _listeners  # noqa: PLW0603 - read without a lock at every mark
    with _lock:
        _listeners = (*_listeners, listener)


def leave(listener: Listener) -> None:
    """Tell a listener nothing more."""
    global _listeners  # noqa: PLW0603 - as in `listen`
    with _lock:
        _listeners = tuple(other for other in _listeners if other is not listener)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell a listener of every mark that begins meanwhile."""
    listen(listener)
    try:
        yield
    finally:
        leave(listener)
