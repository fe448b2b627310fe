"""Singletons of a process: made on first use, closed at exit, and made anew in the child of a fork."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from typing import Generic, TypeVar

from wasm_sandbox.forks import ForkMark, process_lock

T = TypeVar("T")


# Guarantees:
# - a process makes one value, however many threads ask first;
# - the child of a fork never uses or frees the values of its ancestors: the threads that belong to them are gone,
#   whatever its id and whoever has forked.
# Locks: `_lock` is held while the value is made, which may take any other lock. It is free in a child.
class PerProcess(Generic[T]):
    """Singleton of each process.

    Args:
        make: makes the value.
        close: called with it at exit, by the process that made it.
        disown: called with the parent's value in the child of a fork, at the fork or when the child first asks.
    """

    def __init__(
        self, make: Callable[[], T], close: Callable[[T], None], disown: Callable[[T], None] | None = None
    ) -> None:
        self._make, self._close, self._disown = make, close, disown
        self._value: T | None = None
        self._made_here = ForkMark()
        self._inherited: list[T] = []
        self._lock = process_lock()
        atexit.register(self._at_exit)
        if disown is not None and hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._in_child)

    def get(self) -> T:
        """The value of this process; what `make` raises goes on to the caller."""
        value = self._value
        if value is None or not self._made_here.is_set:
            with self._lock:
                value = self._value
                if value is None or not self._made_here.is_set:
                    self._in_child()  # of a fork that the interpreter knows nothing of
                    self._value = value = self._make()
                    self._made_here.set()
        return value

    def _in_child(self) -> None:
        """Let go of a parent's value, and keep it for ever: it must not be freed here."""
        value, self._value = self._value, None
        if value is not None:
            self._inherited.append(value)
            if self._disown is not None:
                self._disown(value)

    def _at_exit(self) -> None:
        if self._value is not None and self._made_here.is_set:
            self._close(self._value)
