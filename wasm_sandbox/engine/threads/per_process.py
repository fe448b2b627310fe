"""Singletons of a process: made on first use, closed at exit, and made anew in the child of a fork."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


# Guarantees:
# - a process makes one value, however many threads ask first;
# - the child of a fork never uses or frees the values of its ancestors: the threads that belong to them are gone.
# Locks: `_lock` is held while the value is made, which may take any other lock. It is made anew in a child: a thread
# that the child lacks may have held it.
class PerProcess(Generic[T]):
    """Singleton of each process.

    Args:
        make: makes the value.
        close: called with it at exit, by the process that made it.
        disown: called with the parent's value in the child of a fork.
    """

    def __init__(
        self, make: Callable[[], T], close: Callable[[T], None], disown: Callable[[T], None] | None = None
    ) -> None:
        self._make, self._close, self._disown = make, close, disown
        self._value: T | None = None
        self._pid = 0
        self._inherited: list[T] = []
        self._lock = threading.Lock()
        atexit.register(self._at_exit)
        if hasattr(os, "register_at_fork"):
            # Not a function of ours, which the interpreter would keep, with all modules, until it is nearly gone: it
            # frees them slowly then.
            os.register_at_fork(after_in_child=self._lock._at_fork_reinit)  # type: ignore[attr-defined]  # typeshed lacks it
            if disown is not None:
                os.register_at_fork(after_in_child=self._in_child)

    def get(self) -> T:
        """The value of this process; what `make` raises goes on to the caller."""
        if self._value is None or self._pid != os.getpid():
            with self._lock:
                if self._value is None or self._pid != os.getpid():
                    made = self._make()
                    if self._value is not None:
                        self._inherited.append(self._value)
                    self._value, self._pid = made, os.getpid()
        return self._value

    def _in_child(self) -> None:
        if self._value is not None and self._disown is not None:
            self._disown(self._value)

    def _at_exit(self) -> None:
        if self._value is not None and self._pid == os.getpid():
            self._close(self._value)
