"""Locks of what a process has one of, which hold through a fork."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager


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
