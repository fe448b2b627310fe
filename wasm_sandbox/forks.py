"""What a process has one of, through a fork: its locks, and whether something is its own."""

from __future__ import annotations

import mmap
import os
import sys
import threading
from contextlib import AbstractContextManager

_MADV_WIPEONFORK = 18


def process_lock(*, fork_waits: bool = False) -> AbstractContextManager[bool]:
    """Lock that is free in the child of a fork, though a thread that the child lacks may have held it.

    It is kept for as long as the process lives, so it is for what there is one of.

    Args:
        fork_waits: whether a fork waits until no other thread holds the lock, so that what it guards is whole in the
            child; for locks that are held for moments.
    """
    if fork_waits:
        lock = threading.RLock()  # a signal handler may fork while its thread holds it
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
        return lock
    plain = threading.Lock()
    if hasattr(os, "register_at_fork"):
        # Not a function of ours, which the interpreter would keep, with all modules, until it is nearly gone: it frees
        # them slowly then.
        os.register_at_fork(after_in_child=plain._at_fork_reinit)  # type: ignore[attr-defined]  # typeshed lacks it
    return plain


class ForkMark:
    """Mark that stays with the process that sets it: no child of a fork has it.

    An id alone would not do: a child has its parent's in a namespace of its own, and when ids come around again. On
    Linux the kernel takes the mark from any child, also of a fork that the interpreter knows nothing of. Elsewhere it
    is the interpreter's hook that does, and the id for a fork without it.
    """

    def __init__(self) -> None:
        self._pids: list[int] = []
        self._page = _page_of_no_child()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._pids.clear)  # not a function of ours: see `process_lock`

    def set(self) -> None:
        """Set the mark for this process."""
        self._pids[:] = [os.getpid()]
        if self._page is not None:
            self._page[0] = 1

    @property
    def is_set(self) -> bool:
        """Whether this very process has set the mark."""
        return self._pids == [os.getpid()] and (self._page is None or self._page[0] == 1)


def _page_of_no_child() -> mmap.mmap | None:
    """Page of memory that is zero in the child of any fork, where the system has such pages."""
    if sys.platform != "linux":
        return None
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        page.madvise(_MADV_WIPEONFORK)
    except OSError:
        return None
    return page


stack_size_lock = process_lock(fork_waits=True)
"""Held while the stack size of new threads, which is one for the whole process, is another one: a child of a fork has
the usual one."""
