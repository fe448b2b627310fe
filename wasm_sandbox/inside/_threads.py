"""Threads of a guest, which has one: each runs inside the call that starts it. Imported once before the snapshot.

A `Thread` runs inside ``start()``, a task of a pool inside ``submit()``: that is one of the orders that real threads
may take, as long as nobody waits for another. So a thread that would wait, for a lock, a queue, an event or a future,
is left by `_Unwound`, and the call that started it raises a RuntimeError in words. A wait of the main thread that can
never end raises one, too: nothing else runs. A sleep waits for nobody, and so everyone waits for it; only a daemon
thread, which is to go on beside the others, may not sleep.

Locks, `local` and `SimpleQueue` are Python's here, for those of C would stop the guest. What only a running thread
needs of `local` and of the event loop is looked after while one runs: nothing is slower before.
"""

import _queue
import _thread
import asyncio
import concurrent.futures.thread
import contextvars
import importlib.machinery
import itertools
import logging
import os
import queue
import sys
import threading
import time
import traceback
import types

import _sandbox_live

WOULD_WAIT = (
    "this thread would wait for another, and a guest has only one: a Thread runs inside start(), a task of a pool "
    "inside submit(). Start it when what it waits for is there, or use asyncio"
)
DEADLOCK = (
    "deadlock: this waits for another thread, and there is none that could end it: in a guest a Thread runs inside "
    "start(), a task of a pool inside submit()"
)

_MAIN = _thread.get_ident()
_new_ident = itertools.count(_MAIN + 4096, 4096).__next__
_flows = []
"""Threads that run now, each inside the one before; none while only the main thread does."""


class _Unwound(BaseException):
    """Leaves a thread that would wait for another."""


def _refusal():
    error = RuntimeError(WOULD_WAIT)
    error._is_refusal = True
    return error


def _is_refusal(error):
    return isinstance(error, _Unwound) or getattr(error, "_is_refusal", False)


def _wait(seconds, _sleep=time.sleep):
    """Wait for another thread, which there is not: at most a while, negative for ever. Always False."""
    if seconds == 0:
        return False
    if _flows:
        _flows[-1].is_refused = True
        raise _Unwound
    if seconds < 0:
        raise RuntimeError(DEADLOCK)
    _sleep(seconds)
    return False


def _sleep(seconds, /, _before=time.sleep):
    """Sleep in a thread: everyone waits, unless that is not what the thread is for."""
    if _flows and _flows[-1].is_daemon:
        _wait(-1)
    _before(seconds)


def get_ident():
    """Number of the thread that runs."""
    return _flows[-1].ident if _flows else _MAIN


# --- A thread -------------------------------------------------------------------------------------------


class _Flow:
    """What a thread has of its own: a number, a context, the values of each `local`, and no event loop yet."""

    def __init__(self, thread=None):
        self.ident = _new_ident()
        self.thread = thread
        self.is_refused = self.is_daemon = False
        self.locals = {}
        self._context = contextvars.Context()
        self._loops = None

    def call(self, function, /, *args, **kwargs):
        """Call a function in this thread.

        Raises:
            RuntimeError: if it would wait for another thread, whatever it made of that.
        """
        self._switch_in()
        try:
            value = self._context.run(function, *args, **kwargs)
        except BaseException as error:
            if not self.is_refused and not _is_refusal(error):
                raise
            self.is_refused = True
        finally:
            self._switch_out()
        if self.is_refused:
            self.is_refused = False
            raise _refusal() from None
        return value

    def _switch_in(self):
        if not _flows:
            _look_after(True)
        _flows.append(self)
        self._swap_locals()
        policy = asyncio.events._event_loop_policy
        self._outer = asyncio._get_running_loop(), policy, getattr(policy, "_local", None)
        asyncio._set_running_loop(None)
        if self._outer[2] is not None:
            self._loops = policy._local = self._loops or type(policy._local)()
        if self.thread is not None:
            threading._active[self.ident] = self.thread

    def _switch_out(self):
        threading._active.pop(self.ident, None)
        loop, policy, loops = self._outer
        asyncio._set_running_loop(loop)
        if loops is not None:
            policy._local = loops
        _flows.pop()
        self._swap_locals()
        if not _flows:
            _look_after(False)

    def _swap_locals(self):
        for key, (owner, values) in self.locals.items():
            self.locals[key] = owner, object.__getattribute__(owner, "__dict__")
            object.__setattr__(owner, "__dict__", values)


class _Handle:
    """What a `Thread` knows of its end."""

    def __init__(self, ident=0):
        self.ident, self.refusal, self._is_done = ident, None, False

    def is_done(self):
        return self._is_done

    def _set_done(self):
        self._is_done = True

    def join(self, timeout=None):
        if not self._is_done:
            _wait(-1 if timeout is None else timeout)


def start_joinable_thread(function, handle=None, daemon=True):
    """Run a function in a thread of its own, to its end."""
    handle = _Handle() if handle is None else handle
    flow = _Flow()
    handle.ident = flow.ident
    thread = getattr(function, "__self__", None)
    if isinstance(thread, threading.Thread):
        flow.is_daemon = thread.daemon
        show = thread._invoke_excepthook

        def unless_refused(thread):
            if _is_refusal(sys.exception()):
                flow.is_refused = True
            else:
                show(thread)

        thread._invoke_excepthook = unless_refused
    try:
        flow.call(function)
    except RuntimeError as error:
        if not _is_refusal(error):
            raise
        handle.refusal = error
    finally:
        handle._set_done()
    return handle


def start(self, _start=threading.Thread.start):
    """Run the thread, to its end.

    Raises:
        RuntimeError: if it would wait for another.
    """
    _start(self)
    refusal, self._handle.refusal = getattr(self._handle, "refusal", None), None
    if refusal is not None:
        raise _refusal() from None


def join(self, timeout=None, _join=threading.Thread.join):
    """Wait for the end of the thread, which has come; see `threading.Thread.join`."""
    if self is threading.current_thread() and self._started.is_set():
        raise RuntimeError("cannot join current thread: that is a deadlock")
    _join(self, timeout)


def start_new_thread(function, args, kwargs=None, /):
    """Run a function in a thread of its own, to its end; the thread's number."""
    if not callable(function):
        raise TypeError("first arg must be callable")
    if not isinstance(args, tuple):
        raise TypeError("2nd arg must be a tuple")
    flow = _Flow()
    try:
        flow.call(function, *args, **(kwargs or {}))
    except SystemExit:
        pass
    except BaseException as error:
        if _is_refusal(error):
            raise
        print(f"Exception ignored in thread started by {function!r}:", file=sys.stderr)
        traceback.print_exception(error)
    return flow.ident


# --- Locks ----------------------------------------------------------------------------------------------


def _seconds(blocking, timeout):
    """Longest wait for a lock; negative for ever."""
    if not blocking:
        if timeout != -1:
            raise ValueError("can't specify a timeout for a non-blocking call")
        return 0
    if timeout < 0 and timeout != -1:
        raise ValueError("timeout value must be a non-negative number")
    if timeout > _thread.TIMEOUT_MAX:
        raise OverflowError("timeout value is too large")
    return timeout


class lock:
    """As `threading.Lock`."""

    __slots__ = ("__weakref__", "_is_locked")

    def __init__(self):
        self._is_locked = False

    def acquire(self, blocking=True, timeout=-1):
        if timeout != -1:
            _seconds(blocking, timeout)
        if self._is_locked:
            return _wait(_seconds(blocking, timeout))
        self._is_locked = True
        return True

    __enter__ = acquire_lock = acquire

    def release(self):
        if not self._is_locked:
            raise RuntimeError("release unlocked lock")
        self._is_locked = False

    release_lock = release

    def __exit__(self, *_):
        self.release()

    def locked(self):
        return self._is_locked

    locked_lock = locked

    def _at_fork_reinit(self):
        self._is_locked = False

    def __repr__(self):
        return f"<{'locked' if self._is_locked else 'unlocked'} _thread.lock object at {id(self):#x}>"

    def __reduce_ex__(self, protocol):
        raise TypeError(f"cannot pickle '_thread.{type(self).__name__}' object")


class RLock:
    """As `threading.RLock`."""

    __slots__ = ("__weakref__", "_count", "_owner")

    def __init__(self):
        self._owner, self._count = None, 0

    def acquire(self, blocking=True, timeout=-1):
        if timeout != -1:
            _seconds(blocking, timeout)
        me = _flows[-1].ident if _flows else _MAIN
        if self._owner != me:
            if self._owner is not None:
                return _wait(_seconds(blocking, timeout))
            self._owner = me
        self._count += 1
        return True

    __enter__ = acquire

    def release(self):
        if self._owner != get_ident():
            raise RuntimeError("cannot release un-acquired lock")
        self._count -= 1
        if not self._count:
            self._owner = None

    def __exit__(self, *_):
        self.release()

    def _is_owned(self):
        return self._owner == get_ident()

    def _recursion_count(self):
        return self._count if self._is_owned() else 0

    def _release_save(self):
        if not self._count:
            raise RuntimeError("cannot release un-acquired lock")
        state = self._count, self._owner
        self._owner, self._count = None, 0
        return state

    def _acquire_restore(self, state):
        if self._owner is not None:
            _wait(-1)
        self._count, self._owner = state

    def _at_fork_reinit(self):
        self._owner, self._count = None, 0

    def __repr__(self):
        kind = "locked" if self._count else "unlocked"
        return f"<{kind} _thread.RLock object owner={self._owner or 0} count={self._count} at {id(self):#x}>"

    __reduce_ex__ = lock.__reduce_ex__


class SimpleQueue(_queue.SimpleQueue):
    """As `queue.SimpleQueue`."""

    __slots__ = ()

    def get(self, block=True, timeout=None):
        if block and timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        if block and self.empty():
            _wait(-1 if timeout is None else timeout)
        return super().get(False)


# --- Values of a thread's own ---------------------------------------------------------------------------


class local:
    """As `threading.local`. Each thread that looks finds attributes of its own; the others' are put aside meanwhile."""

    __slots__ = ("__dict__", "__weakref__", "_local__arguments")

    def __new__(cls, /, *args, **kwargs):
        if (args or kwargs) and cls.__init__ is object.__init__:
            raise TypeError("Initialization arguments are not supported")
        self = object.__new__(cls)
        object.__setattr__(self, "_local__arguments", (args, kwargs))
        for flow in _flows:  # the threads around this one know nothing of it
            flow.locals[id(self)] = self, {}
        return self

    __reduce_ex__ = lock.__reduce_ex__


def _own(owner):
    """See to it that a `local` shows the values of the thread that runs."""
    flow = _flows[-1]
    if id(owner) in flow.locals:
        return
    flow.locals[id(owner)] = owner, object.__getattribute__(owner, "__dict__")
    object.__setattr__(owner, "__dict__", {})
    if type(owner).__init__ is not object.__init__:
        args, kwargs = object.__getattribute__(owner, "_local__arguments")
        type(owner).__init__(owner, *args, **kwargs)


def _looked_up(self, name):
    _own(self)
    return object.__getattribute__(self, name)


def _assigned(self, name, value):
    _own(self)
    object.__setattr__(self, name, value)


def _deleted(self, name):
    _own(self)
    object.__delattr__(self, name)


_selector = type(asyncio.new_event_loop()._selector)


def _select(selector, timeout=None, _before=_selector.select, _calls=_sandbox_live._Calls):
    """Wait as the event loop of a thread does: for timers, and for answers that the host gives while it runs."""
    if timeout is None and len(_calls.futures) == len(_calls.deferred):
        _wait(-1)
    return _before(selector, timeout)


def _look_after(is_running, _before=_selector.select, _slept=time.sleep):
    """Look after each `local`, sleeps and event loops, while a thread runs that is not the main one."""
    _selector.select = _select if is_running else _before
    if time.sleep is (_slept if is_running else _sleep):  # nobody has put something else there
        time.sleep = _sleep if is_running else _slept
    if is_running:
        local.__getattribute__, local.__setattr__, local.__delattr__ = _looked_up, _assigned, _deleted
    else:
        del local.__getattribute__, local.__setattr__, local.__delattr__


# --- Pools ----------------------------------------------------------------------------------------------


class _Workers:
    """Threads of a pool: as many as have worked at a time, each inside another's task."""

    def __init__(self, name, initializer=None, initargs=()):
        self._name, self._initializer, self._initargs = name, initializer, initargs
        self._count, self.idle = 0, []

    def take(self):
        """A thread that does nothing; a new one has been through its initializer."""
        if self.idle:
            return self.idle.pop()
        thread = threading.Thread(name=f"{self._name}_{self._count}")
        self._count += 1
        worker = _Flow(thread)
        thread._ident = thread._handle.ident = worker.ident
        thread._started.set()
        if self._initializer is not None:
            worker.call(self._initializer, *self._initargs)
        return worker


def submit(self, fn, /, *args, **kwargs):
    """Run a task, to its end; a future of its value.

    Raises:
        RuntimeError: if it would wait for another thread.
    """
    if self._broken:
        raise concurrent.futures.thread.BrokenThreadPool(self._broken)
    if self._shutdown:
        raise RuntimeError("cannot schedule new futures after shutdown")
    future = concurrent.futures.Future()
    if (workers := self.__dict__.get("_workers")) is None:
        workers = self._workers = _Workers(self._thread_name_prefix or self, self._initializer, self._initargs)
    try:
        worker = workers.take()
    except BaseException as error:
        if _is_refusal(error):
            raise
        logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
        self._initializer_failed()
        future.set_exception(concurrent.futures.thread.BrokenThreadPool(self._broken))
        return future
    future.set_running_or_notify_cancel()
    try:
        value = worker.call(fn, *args, **kwargs)
    except BaseException as error:
        if _is_refusal(error):
            raise
        future.set_exception(error)
    else:
        future.set_result(value)
    finally:
        workers.idle.append(worker)
    return future


class _TaskQueue:
    """What a `ThreadPool` hands its tasks to, which does them at once."""

    def __init__(self, cache, workers):
        self._cache, self._workers = cache, workers

    def put(self, item):
        tasks, set_length = item
        worker, count = self._workers.take(), 0
        try:
            for job, place, function, args, kwargs in tasks:
                count += 1
                try:
                    result = True, worker.call(function, *args, **kwargs)
                except Exception as error:
                    if _is_refusal(error):
                        raise
                    result = False, error
                if job in self._cache:
                    self._cache[job]._set(place, result)
        finally:
            self._workers.idle.append(worker)
        if set_length:
            set_length(count)


def _change_pool(module):
    """Give `multiprocessing.pool` a `ThreadPool` that works here; it has no processes either way."""

    class ThreadPool(module.Pool):
        """As `multiprocessing.pool.ThreadPool`, one task after the other."""

        def __init__(self, processes=None, initializer=None, initargs=()):
            processes = os.process_cpu_count() or 1 if processes is None else processes
            if processes < 1:
                raise ValueError("Number of processes must be at least 1")
            if initializer is not None and not callable(initializer):
                raise TypeError("initializer must be a callable")
            self._processes, self._pool, self._state = processes, [None] * processes, module.RUN
            self._cache = {}
            self._taskqueue = _TaskQueue(self._cache, _Workers("ThreadPool", initializer, initargs))

        def close(self):
            if self._state == module.RUN:
                self._state = module.CLOSE

        def terminate(self):
            self._state = module.TERMINATE

        def join(self):
            if self._state == module.RUN:
                raise ValueError("Pool is still running")

        def __del__(self):
            pass

        def __repr__(self):
            return f"<{type(self).__module__}.ThreadPool state={self._state} pool_size={self._processes}>"

    ThreadPool.__module__, ThreadPool.__qualname__ = module.__name__, "ThreadPool"
    module.ThreadPool = ThreadPool


class _Finder:
    """Finder of a module that is changed when it is imported, and not before."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "multiprocessing.pool":
            return None
        spec = importlib.machinery.FrozenImporter.find_spec(name, path, target)
        if spec is not None:
            spec.loader = _Loader
        return spec


class _Loader(importlib.machinery.FrozenImporter):
    @staticmethod
    def exec_module(module):
        importlib.machinery.FrozenImporter.exec_module(module)
        _change_pool(module)


def install():
    """Put this in the place of the interpreter's own, before the snapshot."""
    # Imports go on with locks of C: one thread imports, and it is quicker.
    importlib._bootstrap._thread = types.SimpleNamespace(**vars(_thread))
    for name, value in {
        "get_ident": get_ident,
        "start_joinable_thread": start_joinable_thread,
        "start_new_thread": start_new_thread,
        "start_new": start_new_thread,
        "allocate_lock": lock,
        "allocate": lock,
        "LockType": lock,
        "lock": lock,
        "RLock": RLock,
        "_local": local,
    }.items():
        setattr(_thread, name, value)
    for name, kind in {"lock": lock, "RLock": RLock, "_local": local}.items():
        kind.__module__, kind.__name__, kind.__qualname__ = "_thread", name, name
    threading.get_ident, threading.local, threading.Lock = get_ident, local, lock
    threading._allocate_lock = threading._LockType = lock
    threading._CRLock = RLock
    threading._start_joinable_thread, threading._ThreadHandle = start_joinable_thread, _Handle
    threading._main_thread._handle = _Handle(_MAIN)
    threading.Thread.start, threading.Thread.join = start, join
    queue.SimpleQueue = _queue.SimpleQueue = SimpleQueue
    SimpleQueue.__module__ = "_queue"
    concurrent.futures.thread.ThreadPoolExecutor.submit = submit
    sys.meta_path.insert(0, _Finder)
