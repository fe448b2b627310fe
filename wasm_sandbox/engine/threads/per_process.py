"""What a process has one of: made on first use, closed at exit, and made anew in the child of a fork."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


# Guarantees:
# - a process makes one, however many threads ask first;
# - the child of a fork never uses or frees what its parent had: the threads of that are gone.
# Lock: `_lock` is held while it is made, and is a fresh one in a child: a thread that the child lacks may have held it.
class PerProcess(Generic[T]):
    """Holds the one of a process.

    Args:
        make: makes it.
        close: called at exit, by the process that made it.
        disown: called in the child of a fork, with the parent's.
    """

    def __init__(
        self, make: Callable[[], T], close: Callable[[T], None], disown: Callable[[T], None] | None = None
    ) -> None:
        self._make, self._close, self._disown = make, close, disown
        self._value: T | None = None
        self._pid = 0
        self._inherited: T | None = None
        self._lock = threading.Lock()
        atexit.register(self._at_exit)
        if hasattr(os, "register_at_fork"):
            # Not a function of ours, which the interpreter would keep, with all modules, until it is nearly gone: it
            # frees them slowly then.
            os.register_at_fork(after_in_child=self._lock._at_fork_reinit)  # type: ignore[attr-defined]  # typeshed lacks it
            if disown is not None:
                os.register_at_fork(after_in_child=self._in_child)

    def get(self) -> T:
        """The one of this process; raises what making it raises."""
        if self._value is None or self._pid != os.getpid():
            with self._lock:
                if self._value is None or self._pid != os.getpid():
                    made = self._make()
                    self._inherited = self._value
                    self._value, self._pid = made, os.getpid()
        return self._value

    def _in_child(self) -> None:
        if self._value is not None and self._disown is not None:
            self._disown(self._value)

    def _at_exit(self) -> None:
        if self._value is not None and self._pid == os.getpid():
            self._close(self._value)
