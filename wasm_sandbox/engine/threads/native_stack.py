"""Native stacks of threads: how large one has to be for a guest, and how large it is.

The size that new threads get is a setting of the process, which anyone may change at any moment, also between our
setting it and the start of our thread. So a thread looks at what it got.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import partial

NATIVE_STACK_BYTES = 24 << 20
"""The guest's own 20 MiB (`configuration.WASM_STACK_BYTES`), host functions, and room to spare: more than the default
of any platform, which would overflow before wasmtime's check. What is not used takes address space only."""

ATTEMPTS = 20
"""Number of threads that are started until one has a stack that is large enough."""

_SLACK_BYTES = 1 << 20
"""Part of a stack that the system may keep for itself: guards, and what each thread has of its own."""

_KEPT_BYTES = 1 << 20
"""Part of a stack that ordinary runs use, which stays."""

_MADV_DONTNEED = 4

_ATTRIBUTES_BYTES = 256
"""More than a ``pthread_attr_t`` of any system has."""


def stack_bytes() -> int | None:
    """Size of the calling thread's native stack; None if the system does not tell."""
    if sys.platform == "win32":
        low, high = ctypes.c_size_t(), ctypes.c_size_t()
        ctypes.windll.kernel32.GetCurrentThreadStackLimits(ctypes.byref(low), ctypes.byref(high))
        return high.value - low.value
    library = ctypes.PyDLL(None)  # the interpreter lock is kept: a matter of microseconds
    own = library.pthread_self
    own.restype = ctypes.c_void_p
    try:
        if sys.platform == "darwin":
            of_thread = library.pthread_get_stacksize_np
            of_thread.restype, of_thread.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
            return int(of_thread(own()))
        attributes = ctypes.create_string_buffer(_ATTRIBUTES_BYTES)
        if library.pthread_getattr_np(ctypes.c_void_p(own()), attributes):
            return None
    except AttributeError:
        return None
    size = ctypes.c_size_t()
    library.pthread_attr_getstacksize(attributes, ctypes.byref(size))
    library.pthread_attr_destroy(attributes)
    return size.value


def has_stack(size: int) -> bool:
    """Whether the calling thread's native stack is about so large, as far as the system tells."""
    found = stack_bytes()
    return found is None or found >= size - min(_SLACK_BYTES, size // 4)


def stack_trimmer() -> Callable[[], None]:
    """Function that gives back what recursion took of the calling thread's stack, and only Linux keeps for the thread.

    It is for this thread alone, and for the outermost of its functions: what is below its frames is gone.
    """
    if sys.platform != "linux":
        return _nothing
    library = ctypes.PyDLL(None)
    attributes = ctypes.create_string_buffer(_ATTRIBUTES_BYTES)
    own = library.pthread_self
    own.restype = ctypes.c_void_p
    if library.pthread_getattr_np(ctypes.c_void_p(own()), attributes):
        return _nothing
    lowest, size = ctypes.c_size_t(), ctypes.c_size_t()
    library.pthread_attr_getstack(attributes, ctypes.byref(lowest), ctypes.byref(size))
    library.pthread_attr_destroy(attributes)
    start, length = ctypes.c_size_t(lowest.value), ctypes.c_size_t(size.value - _KEPT_BYTES)
    return partial(library.madvise, start, length, _MADV_DONTNEED)


def _nothing() -> None:
    """Give nothing back."""
