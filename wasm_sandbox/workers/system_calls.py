"""System calls that a restricted worker may still make, with which arguments, and why.

A call that only the worker itself can feel is free; of every other one the arguments that reach nobody else are named.
What is in memory, behind a pointer, no filter can look at: a call whose authority lies there is not allowed. That is
why there is no ``clone3``, and no ``newfstatat`` (it takes an empty path, and any other as well). There is no ``fcntl``
and no ``ioctl`` that would name a receiver of signals, a lease or a lock.

The numbers are those of Linux on every processor that wasmtime compiles for.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from wasm_sandbox.engine import PAGEMAP_SCAN

ALL_BITS = 2**64 - 1

_PROT_READ_WRITE = 0x3
_MAP_PRIVATE = 0x02
_MAP_FIXED, _MAP_ANONYMOUS, _MAP_NORESERVE, _MAP_STACK, _MAP_FIXED_NOREPLACE = 0x10, 0x20, 0x4000, 0x20000, 0x100000
_MREMAP_MAYMOVE = 0x1

_MADV_DONTNEED, _MADV_FREE, _MADV_HUGEPAGE, _MADV_NOHUGEPAGE = 4, 8, 14, 15
_MADV_GUARD_INSTALL, _MADV_GUARD_REMOVE = 102, 103

_FUTEX_WAIT, _FUTEX_WAKE, _FUTEX_REQUEUE, _FUTEX_CMP_REQUEUE, _FUTEX_WAKE_OP = 0, 1, 3, 4, 5
_FUTEX_BITSETS = 9, 10
_FUTEX_PRIVATE, _FUTEX_CLOCK_REALTIME = 0x80, 0x100

# CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS, PARENT_SETTID, CHILD_CLEARTID; musl sets DETACHED, too.
_CLONE_THREAD, _CLONE_DETACHED = 0x3D0F00, 0x400000

_PR_SET_NAME, _PR_SET_VMA, _PR_SET_VMA_ANON_NAME = 15, 0x53564D41, 0

_CLOCK_REALTIME, _CLOCK_MONOTONIC = 0, 1


class Only(NamedTuple):
    """Values that an argument may have."""

    argument: int
    """Its place, from 0."""
    values: tuple[int, ...] = (0,)
    free: int = 0
    """Bits that may have any value."""

    @property
    def mask(self) -> int:
        """Bits that are compared: of all 64, whatever the kernel makes of them."""
        return ALL_BITS & ~self.free


class Allowed(NamedTuple):
    """System calls that are allowed."""

    names: str
    why: str
    only: tuple[Only, ...] = ()
    otherwise: int = errno.EPERM
    """Error for other arguments."""


def allowed_calls(pid: int) -> list[Allowed]:
    """The allow-list of the process with this id."""
    copies = _MAP_FIXED | _MAP_ANONYMOUS | _MAP_NORESERVE | _MAP_STACK | _MAP_FIXED_NOREPLACE
    advice = _MADV_DONTNEED, _MADV_FREE, _MADV_HUGEPAGE, _MADV_NOHUGEPAGE, _MADV_GUARD_INSTALL, _MADV_GUARD_REMOVE
    locks = _FUTEX_WAIT, _FUTEX_WAKE, _FUTEX_REQUEUE, _FUTEX_CMP_REQUEUE, _FUTEX_WAKE_OP, *_FUTEX_BITSETS
    readable = Only(2, free=_PROT_READ_WRITE)
    return [
        # Descriptors: two pipes, /dev/null, the image's file (to be read), the list of its own pages.
        Allowed("read write writev", "requests and replies; every descriptor is the worker's own"),
        Allowed("close", "its own descriptors"),
        Allowed("dup2 dup3", "standard error becomes /dev/null; no other descriptor", (Only(0, (1,)), Only(1, (2,)))),
        Allowed("ioctl", "which of its pages it wrote to: no other file knows the number", (Only(1, (PAGEMAP_SCAN,)),)),
        # Memory: its own. Code was loaded before: none is made.
        Allowed("mmap", "not to be executed, shared, locked or huge", (readable, Only(3, (_MAP_PRIVATE,), copies))),
        Allowed("mprotect", "guards, poll pages, stacks, heaps; not to be executed", (readable,)),
        Allowed("mremap", "realloc", (Only(3, free=_MREMAP_MAYMOVE),)),
        Allowed("munmap brk", "its own memory"),
        Allowed("madvise", "pages given back, large pages, guards; no poison, no merging", (Only(2, advice),)),
        # Threads.
        Allowed("futex", "locks without priorities", (Only(1, locks, _FUTEX_PRIVATE | _FUTEX_CLOCK_REALTIME),)),
        Allowed("clone", "a thread: no process, namespace or tracer", (Only(0, (_CLONE_THREAD,), _CLONE_DETACHED),)),
        Allowed("set_robust_list rseq set_tid_address", "what a thread registers for itself when it starts"),
        Allowed("prctl", "the name of the calling thread", (Only(0, (_PR_SET_NAME,)),)),
        Allowed("prctl", "names of its memory", (Only(0, (_PR_SET_VMA,)), Only(1, (_PR_SET_VMA_ANON_NAME,)))),
        # glibc asks for that of another thread when it is asked for a stack, and goes on where there is no such call.
        Allowed("sched_getaffinity", "processors of the calling thread", (Only(0),), otherwise=errno.ENOSYS),
        Allowed("sched_yield", "gives its own turn away"),
        # Signals: a guest's traps.
        Allowed("rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack", "its own handlers, masks and stacks"),
        Allowed("tgkill", "abort, and signals to its own threads", (Only(0, (pid,)),)),
        # Time.
        Allowed("clock_gettime clock_getres", "no clock of another process, or of a device", (Only(0, free=0xF),)),
        Allowed("clock_nanosleep", "no alarm that wakes the machine", (Only(0, (_CLOCK_REALTIME, _CLOCK_MONOTONIC)),)),
        Allowed("nanosleep gettimeofday time restart_syscall", "the time, and sleeps"),
        Allowed("select pselect6", "how Python sleeps: on no descriptor", (Only(0),)),
        # Itself.
        Allowed("getpid gettid", "its own numbers"),
        Allowed("prlimit64", "reads a limit of its own", (Only(0), Only(2))),
        Allowed("getrandom", "random bytes"),
        Allowed("exit exit_group", "its end"),
    ]


REFUSED_AS_UNKNOWN = "clone3"
"""Its flags are in memory: glibc and musl take clone where there is none."""
