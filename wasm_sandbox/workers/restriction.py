"""What a worker process takes from itself before it runs the first guest: files, network, processes.

On Linux with the extra ``process`` (or with libseccomp's own Python binding, as distributions package it) an
allow-list of system calls and of their arguments (`system_calls`): a worker computes, writes to the pipe that it has,
and manages its own memory and threads. Opening a file, a socket or a process fails with EPERM for it and for whatever
has taken it over. On POSIX in general, resource limits. See seccomp(2) and setrlimit(2).
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any

from wasm_sandbox.workers.system_calls import REFUSED_AS_UNKNOWN, Allowed, allowed_calls

MAX_DESCRIPTORS = 64


@dataclass(frozen=True)
class Restrictions:
    """What a process took from itself, and what it could not, in words."""

    done: list[str]
    lacking: list[str]


def restrict() -> Restrictions:
    """Restrict this process for good, as far as the platform goes."""
    seccomp = _binding() if sys.platform == "linux" else None  # looks for the library, for which it starts a process
    _be_ended_first()
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


def _be_ended_first() -> None:
    """Let the system end this process, and not its host, where memory runs out because of what is in it."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:  # Linux has it
        score.write("1000")


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
    for call in allowed_calls(os.getpid()):
        for name in call.names.split():
            with suppress(ValueError, OSError):  # another processor, or an older libseccomp, does not know it
                _allow(seccomp, filter_, name, call)
    filter_.add_rule(seccomp.ERRNO(errno.ENOSYS), REFUSED_AS_UNKNOWN)
    filter_.load()


def _allow(seccomp: Any, filter_: Any, name: str, call: Allowed) -> None:
    for values in product(*(only.values for only in call.only)):
        fit = [
            seccomp.Arg(only.argument, seccomp.MASKED_EQ, only.mask, value)
            for only, value in zip(call.only, values, strict=True)
        ]
        filter_.add_rule(seccomp.ALLOW, name, *fit)
    if call.otherwise != errno.EPERM:
        (only,) = call.only
        filter_.add_rule(seccomp.ERRNO(call.otherwise), name, seccomp.Arg(only.argument, seccomp.NE, *only.values))
