"""What a process has one of, through a fork: its locks, and its singletons, some of which are daemon threads."""

from __future__ import annotations

import _thread
import atexit
import mmap
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import asyncio

_MADV_WIPEONFORK = 18

T = TypeVar("T")


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


_stack_size_lock = process_lock(fork_waits=True)
"""Held while the stack size of new threads, which is one for the whole process, is another one: a child of a fork has
the usual one."""


# Guarantees:
# - a process makes one value, however many threads ask first;
# - the child of a fork never uses or frees the values of its ancestors: the threads that belong to them are gone,
#   whatever its id and whoever has forked.
# Locks: `_lock` is held while the value is made, which may take any other lock. It is free in a child.
class PerProcess(Generic[T]):
    """Singleton of each process.

    Args:
        make: makes the value.
        close: called with it at exit, by the process that made it; by default nothing is.
        disown: called with the parent's value in the child of a fork, at the fork or when the child first asks.
    """

    def __init__(
        self,
        make: Callable[[], T],
        close: Callable[[T], None] | None = None,
        disown: Callable[[T], None] | None = None,
    ) -> None:
        self._make, self._close, self._disown = make, close, disown
        self._value: T | None = None
        self._made_here = ForkMark()
        self._inherited: list[T] = []
        self._lock = process_lock()
        if close is not None:
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
        if self._close is not None and self._value is not None and self._made_here.is_set:
            self._close(self._value)


class Condition(threading.Condition):
    """Condition that a signal handler may raise in at any moment, for waits of the main thread.

    Where that is between `wait`'s release of the lock and its care for that, the standard one makes a ``RuntimeError``
    of what was raised: the lock is not held at the end of the block.
    """

    def wait(self, timeout: float | None = None) -> bool:
        try:
            return super().wait(timeout)
        finally:
            if not self._is_owned():  # type: ignore[attr-defined]  # typeshed lacks it
                self.acquire()


# Guarantees: work is begun in its order, on at most so many threads as are allowed; none of them holds up the
# interpreter's exit, as those of `concurrent.futures.ThreadPoolExecutor` do: a function may never return. Locks:
# `_counts` guards the counts, and is held while a thread is started.
class DaemonThreads(Executor):
    """Pool of daemon threads that grows with demand.

    Args:
        most: how many there are at most.
        name: of each.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._queue: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._counts = threading.Lock()
        self._threads = self._free = 0

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._counts:
            if self._free > 0:
                self._free -= 1
            elif self._threads < self._most:
                start_thread(threading.Thread(target=self._serve, name=self._name, daemon=True))
                self._threads += 1
            else:
                self._free -= 1  # whoever becomes free takes it
        self._queue.put(work)
        return future

    def _serve(self) -> None:
        while True:
            self._queue.get()()
            with self._counts:
                self._free += 1


# Guarantees: `threading` knows a thread that is started here from its first moment to its last, and the stack size of
# new threads is set back, whatever a signal handler raises meanwhile: handlers run on the main thread, so another one
# does both. Locks: `_stack_size_lock` while a thread is started.
def start_thread(thread: threading.Thread, stack_bytes: int | None = None) -> None:
    """Start a thread; it is started all the same if a signal handler raises meanwhile, which reaches the caller.

    `Thread.start` takes such an exception for a failure of its own, and forgets a thread that runs by then.

    Args:
        thread: the thread.
        stack_bytes: size of its native stack, in bytes; by default the usual one. Somebody may set another size at the
            very same time: a thread for which that matters has to look.

    Raises:
        RuntimeError, MemoryError: if the system gives no thread.
    """
    if threading.get_ident() != threading.main_thread().ident:
        _start_thread(thread, stack_bytes)
        return
    done, failures = _thread.allocate_lock(), list[BaseException]()
    done.acquire()

    def start() -> None:
        try:
            _start_thread(thread, stack_bytes)
        except BaseException as error:
            failures.append(error)
        finally:
            done.release()

    _thread.start_new_thread(start, ())
    done.acquire()
    if failures:
        raise failures.pop()


def _start_thread(thread: threading.Thread, stack_bytes: int | None) -> None:
    if stack_bytes is None:
        thread.start()
        return
    with _stack_size_lock:
        before = threading.stack_size(stack_bytes)
        try:
            thread.start()
        finally:
            found = threading.stack_size(before)
            if found != stack_bytes:  # somebody has set it meanwhile, and not for us
                threading.stack_size(found)


def daemon_loop(name: str) -> asyncio.AbstractEventLoop:
    """Event loop that runs on a daemon thread of its own, which has this name."""
    import asyncio  # lazy: 20 ms, only for what waits on an event loop of ours

    loop = asyncio.new_event_loop()

    def serve() -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()

    start_thread(threading.Thread(target=serve, name=name, daemon=True))
    return loop
