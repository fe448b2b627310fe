"""What a worker process takes from itself before it runs the first guest: files, network, processes.

On Linux with the extra ``process`` (or with libseccomp's own Python binding, as distributions package it) an
allow-list of system calls: a worker computes, writes to the pipe that it has, and manages its own memory and
threads. Opening a file, a socket or a process fails with EPERM for it and for whatever has taken it over. On POSIX
in general, resource limits. See seccomp(2) and setrlimit(2).
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from wasm_sandbox.engine import PAGEMAP_SCAN

ALLOWED_CALLS = """
read readv write writev lseek close fstat fcntl dup dup2 dup3 poll ppoll select pselect6
mmap munmap mprotect mremap madvise brk mincore membarrier memfd_create ftruncate
futex futex_time64 sched_yield sched_getaffinity getcpu set_robust_list get_robust_list rseq set_tid_address
clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time
rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending sigaltstack restart_syscall
getpid gettid getppid getuid geteuid getgid getegid getrusage getrlimit uname sysinfo getrandom
exit exit_group
"""

MAX_DESCRIPTORS = 64

_CLONE_THREAD = 0x10000
_AT_EMPTY_PATH = 0x1000
_PR_SET_NAME, _PR_SET_VMA = 15, 0x53564D41


@dataclass(frozen=True)
class Restrictions:
    """What a process took from itself, and what it could not, in words."""

    done: list[str]
    lacking: list[str]


def restrict() -> Restrictions:
    """Restrict this process for good, as far as the platform goes."""
    seccomp = _binding() if sys.platform == "linux" else None  # looks for the library, for which it starts a process
    done = _limit_resources()
    if sys.platform != "linux":
        return Restrictions(done, [f"a filter of system calls: {sys.platform} has none"])
    if seccomp is None:
        return Restrictions(
            done, ["a seccomp filter: install wasm-sandbox[process], and libseccomp from the distribution"]
        )
    try:
        _load_filter(seccomp)
    except OSError as error:
        return Restrictions(done, [f"a seccomp filter: the kernel refuses it ({error.strerror or error})"])
    return Restrictions([*done, "seccomp filter"], [])


def _limit_resources() -> list[str]:
    if os.name != "posix":
        return []
    import resource  # lazy: POSIX has it

    # No core dump (it would hold arguments and variables), no file to write, few descriptors. No new processes
    # either; root is exempt from that one, and threads count as well: it is set when the first ones are there.
    limits = {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": 0, "RLIMIT_NOFILE": MAX_DESCRIPTORS, "RLIMIT_NPROC": 0}
    for name, most in limits.items():
        number = getattr(resource, name)
        hard = resource.getrlimit(number)[1]
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(number, (value, value))
    return ["resource limits"]


def _binding() -> Any:
    """libseccomp's own binding, or pyseccomp with the same interface; None without the library."""
    for name in ("seccomp", "pyseccomp"):
        with suppress(ImportError, OSError, RuntimeError):
            module = __import__(name)
            if hasattr(module, "SyscallFilter"):
                return module
    return None


def _load_filter(seccomp: Any) -> None:
    filter_ = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    filter_.set_attr(seccomp.Attr.CTL_TSYNC, 1)  # the threads that are there are bound by it too
    allow, arg = seccomp.ALLOW, seccomp.Arg
    for name in ALLOWED_CALLS.split():
        with suppress(ValueError, OSError):  # another processor, or an older libseccomp, does not know it
            filter_.add_rule(allow, name)
    # A thread may be started, a process not. The flags of clone3 are in memory, where no filter can look: glibc and
    # musl take clone when there is none.
    filter_.add_rule(allow, "clone", arg(0, seccomp.MASKED_EQ, _CLONE_THREAD, _CLONE_THREAD))
    filter_.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
    # What glibc asks about a descriptor, a limit, a thread's name or an abort; nothing about a path or a process.
    with suppress(ValueError, OSError):
        filter_.add_rule(allow, "newfstatat", arg(3, seccomp.EQ, _AT_EMPTY_PATH))
    filter_.add_rule(allow, "prlimit64", arg(0, seccomp.EQ, 0), arg(2, seccomp.EQ, 0))
    filter_.add_rule(allow, "ioctl", arg(1, seccomp.EQ, PAGEMAP_SCAN))  # which of its own pages it has written to
    filter_.add_rule(allow, "tgkill", arg(0, seccomp.EQ, os.getpid()))
    for option in (_PR_SET_NAME, _PR_SET_VMA):
        filter_.add_rule(allow, "prctl", arg(0, seccomp.EQ, option))
    filter_.load()
