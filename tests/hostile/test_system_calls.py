"""The allow-list of a restricted worker: every call of it with hostile arguments, and every call that is not in it."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import textwrap
from itertools import product
from typing import Any

import pytest

from wasm_sandbox.workers.system_calls import ALL_BITS, REFUSED_AS_UNKNOWN, Allowed, Only, allowed_calls

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")

EPERM, ENOSYS, SIGSYS = 1, 38, 31
X32 = 0x4000_0000
"""Added to the numbers of x86-64's second ABI."""
LAST_NUMBER = 600
"""Beyond every system call that Linux has."""

IS_X86_64 = platform.machine() == "x86_64"
needs_x86_64 = pytest.mark.skipif(not IS_X86_64, reason="calls of x86-64")

PROBES = (335, 336) if IS_X86_64 else ()
"""uretprobe and uprobe: the kernel asks no filter about them, and ends whoever calls them without being probed."""

PREPARED = """
import ctypes, json, mmap, os, sys
import pyseccomp
from pyseccomp import resolve_syscall
arch = pyseccomp.system_arch()
from wasm_sandbox.workers.restriction import restrict
system_call = ctypes.CDLL(None, use_errno=True).syscall
system_call.restype = ctypes.c_long
def number(name):
    try:
        return resolve_syscall(arch, name)
    except ValueError:
        return -1
def call(number, *arguments):
    "0, or the error."
    ctypes.set_errno(0)
    whole = [ctypes.c_ulong(argument & (2**64 - 1)) for argument in arguments]
    return ctypes.get_errno() if system_call(ctypes.c_long(number), *whole) == -1 else 0
"""


def in_a_restricted_process(body: str, *data: Any) -> Any:
    """What the statements leave in ``seen``; they find the data in ``data``, and restrict the process themselves."""
    pytest.importorskip("pyseccomp")
    program = PREPARED + textwrap.dedent(body) + "\nprint(json.dumps([taken.lacking, seen]))\n"
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(data)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done
    lacking, seen = json.loads(done.stdout)
    if lacking:  # as in some containers
        pytest.skip(str(lacking))
    return seen


def fitting(call: Allowed) -> list[list[int]]:
    """Six arguments for each way in which the call is allowed; what is free is 0."""
    ways = []
    for values in product(*(only.values for only in call.only)):
        arguments = [0] * 6
        for only, value in zip(call.only, values, strict=True):
            arguments[only.argument] = value
        ways.append(arguments)
    return ways


def fits(call: Allowed, arguments: list[int]) -> bool:
    return all(arguments[only.argument] & only.mask in only.values for only in call.only)


def hostile(table: list[Allowed]) -> list[tuple[str, list[int], int]]:
    """Every call of the table with one bit of an argument wrong, as name, arguments and the error that it must give."""
    attempts = []
    for call in table:
        for arguments, only, bit in product(fitting(call), call.only, range(64)):
            wrong = arguments.copy()
            wrong[only.argument] ^= 1 << bit
            for name in call.names.split():
                if not any(fits(other, wrong) for other in table if name in other.names.split()):
                    attempts.append((name, wrong, call.otherwise))
    return attempts


def test_every_call_with_one_bit_of_an_argument_wrong_is_refused() -> None:
    pid = 0x7FFF_FFFF  # of nobody; the process puts its own in its place
    attempts = hostile(allowed_calls(pid))
    assert len(attempts) > 2000
    assert {name for name, _, _ in attempts} > {"mmap", "mprotect", "madvise", "clone", "futex", "ioctl", "tgkill"}
    seen = in_a_restricted_process(
        f"""
        attempts = [
            (number(name), [argument ^ {pid} ^ os.getpid() if name == "tgkill" and not at else argument
                            for at, argument in enumerate(arguments)], name, error)
            for name, arguments, error in json.loads(sys.argv[1])[0]
        ]
        taken = restrict()
        seen = [
            (name, arguments, found)
            for number, arguments, name, error in attempts
            if number >= 0 and (found := call(number, *arguments)) != error
        ]
        """,
        attempts,
    )
    assert seen == []


def test_every_call_that_is_not_in_the_list_is_refused() -> None:
    names = [name for call in allowed_calls(1) for name in call.names.split()]
    seen = in_a_restricted_process(
        f"""
        allowed = {{number(name) for name in {names!r}}}
        unknown = number({REFUSED_AS_UNKNOWN!r})
        taken = restrict()
        seen = [
            (number, found)
            for number in range({LAST_NUMBER})
            if number not in {{*allowed, *{PROBES!r}}}
            and (found := call(number, *[-1] * 6)) != ({ENOSYS} if number == unknown else {EPERM})
        ]
        """
    )
    assert seen == []


READ, WRITE, EXECUTE = 1, 2, 4
SHARED, PRIVATE, ANONYMOUS = 1, 2, 0x20
THREAD = 0x3D0F00

ATTACKS: dict[str, tuple[str, str]] = {
    "a signal to the host when a pipe is written: its receiver": ("fcntl", "1, 8, host"),
    "the same: which signal": ("fcntl", "1, 10, 9"),
    "the same: that there is one": ("fcntl", "1, 4, 0o20000 | 0o4000"),
    "the same by a group": ("fcntl", "1, 15, address"),
    "the same by an ioctl: the receiver": ("ioctl", "1, 0x8901, address"),
    "the same by an ioctl: that there is one": ("ioctl", "1, 0x5452, address"),
    "a lease on the image's file": ("fcntl", "0, 1024, 0"),
    "a lock on the image's file": ("fcntl", "0, 6, address"),
    "an open file's lock": ("fcntl", "0, 37, address"),
    "a notice of changes": ("fcntl", "0, 1026, 0x80000000"),
    "a pipe of another size": ("fcntl", "1, 1031, 1 << 20"),
    "more descriptors": ("fcntl", "0, 1030, 3"),
    "input for a terminal": ("ioctl", "0, 0x5412, address"),
    "a controlling terminal": ("ioctl", "0, 0x540E, 1"),
    "bytes that wait": ("ioctl", "0, 0x541B, address"),
    "memory to execute": ("mmap", f"0, 4096, {READ | EXECUTE}, {PRIVATE | ANONYMOUS}, -1, 0"),
    "memory to write and execute": ("mmap", f"0, 4096, {READ | WRITE | EXECUTE}, {PRIVATE | ANONYMOUS}, -1, 0"),
    "memory that is shared": ("mmap", f"0, 4096, {READ | WRITE}, {SHARED | ANONYMOUS}, -1, 0"),
    "large pages of the whole system": ("mmap", f"0, 2 << 20, 3, {PRIVATE | ANONYMOUS | 0x40000}, -1, 0"),
    "memory that cannot be swapped": ("mmap", f"0, 4096, 3, {PRIVATE | ANONYMOUS | 0x2000}, -1, 0"),
    "memory made executable": ("mprotect", f"address, 4096, {READ | EXECUTE}"),
    "the same with a key": ("pkey_mprotect", f"address, 4096, {READ | EXECUTE}, -1"),
    "a library": ("uselib", "path"),
    "a poisoned page": ("madvise", "address, 4096, 100"),
    "a page taken offline": ("madvise", "address, 4096, 101"),
    "pages merged with others'": ("madvise", "address, 4096, 12"),
    "a hole in a file": ("madvise", "address, 4096, 9"),
    "pages put out": ("madvise", "address, 4096, 21"),
    "another process's pages": ("process_madvise", "0, address, 1, 21, 0"),
    "a mapping moved over another": ("mremap", "address, 4096, 4096, 3, address"),
    "a file in memory": ("memfd_create", "path, 0"),
    "secret memory": ("memfd_secret", "0"),
    "a lock with priorities": ("futex", "address, 6, 0, 0, 0, 0"),
    "a futex as a descriptor": ("futex", "address, 2, 0, 0, 0, 0"),
    "many futexes": ("futex_waitv", "address, 1, 0, 0, 0"),
    "another's list of locks": ("get_robust_list", "host, address, address"),
    "another's affinity": ("sched_setaffinity", "host, 8, address"),
    "a real-time process": ("sched_setscheduler", "0, 1, address"),
    "attributes of scheduling": ("sched_setattr", "0, address, 0"),
    "a process": ("clone", "17, 0, 0, 0, 0"),
    "a process that shares memory": ("clone", "0x4111, 0, 0, 0, 0"),
    "a thread in a namespace": ("clone", f"{THREAD | 0x4000000}, 0, 0, 0, 0"),
    "a thread that is traced with its parent": ("clone", f"{THREAD | 0x2000}, 0, 0, 0, 0"),
    "a child of the host": ("clone", "0x8000 | 17, 0, 0, 0, 0"),
    "a fork": ("fork", ""),
    "a vfork": ("vfork", ""),
    "a signal to the host": ("kill", "host, 0"),
    "a signal to a group": ("kill", "-1, 0"),
    "a signal to the host's thread": ("tgkill", "host, host, 0"),
    "a signal to a thread of anyone": ("tkill", "host, 0"),
    "a queued signal": ("rt_sigqueueinfo", "host, 10, address"),
    "a queued signal to a thread": ("rt_tgsigqueueinfo", "host, host, 10, address"),
    "a signal by a descriptor": ("pidfd_send_signal", "0, 0, 0, 0"),
    "a descriptor of a process": ("pidfd_open", "host, 0"),
    "a descriptor out of a process": ("pidfd_getfd", "0, 0, 0"),
    "a timer with a signal": ("timer_create", "1, address, address"),
    "an alarm": ("setitimer", "0, address, 0"),
    "a sleep that wakes the machine": ("clock_nanosleep", "8, 0, address, 0"),
    "the host's processor time": ("clock_gettime", "(~host << 3) | 2, address"),
    "waiting for descriptors": ("select", "1, address, 0, 0, address"),
    "the limits of the host": ("prlimit64", "host, 7, 0, address"),
    "a limit raised": ("prlimit64", "0, 7, address, 0"),
    "a limit set": ("setrlimit", "7, address"),
    "a death signal": ("prctl", "1, 9"),
    "a dump": ("prctl", "4, 1"),
    "a filter": ("prctl", "22, 2, address"),
    "speculation": ("prctl", "53, 0, 0"),
    "who may trace it": ("prctl", "0x59616d61, host"),
    "another seccomp filter": ("seccomp", "1, 0, address"),
    "a path looked at": ("newfstatat", "-100, path, address, 0x1000"),
    "the same by statx": ("statx", "-100, path, 0x1000, 0x7ff, address"),
    "a file opened": ("openat", "-100, path, 0"),
    "a file opened, the new way": ("openat2", "-100, path, address, 24"),
    "a file opened by a handle": ("open_by_handle_at", "0, address, 0"),
    "another's memory read": ("process_vm_readv", "host, address, 1, address, 1, 0"),
    "another's memory written": ("process_vm_writev", "host, address, 1, address, 1, 0"),
    "another process compared": ("kcmp", "host, host, 0, 0, 0"),
    "a tracer": ("ptrace", "16, host, 0, 0"),
    "a ring of calls": ("io_uring_setup", "1, address"),
    "page faults served": ("userfaultfd", "0"),
    "a program in the kernel": ("bpf", "0, address, 8"),
    "counters": ("perf_event_open", "address, host, -1, -1, 0"),
    "a key": ("add_key", "path, path, address, 1, -3"),
    "namespaces": ("unshare", "0x10000000"),
    "another's namespaces": ("setns", "0, 0"),
    "descriptors of everyone": ("close_range", "0, 1000, 2"),
    "a socket": ("socket", "1, 1, 0"),
    "a thread, with flags in memory": ("clone3", "address, 88"),
}  # fmt: skip


def test_what_reaches_others_by_an_argument_is_refused() -> None:
    seen = in_a_restricted_process(
        """
        over, held = os.pipe()
        host = os.fork()  # another process of the same user, which may be lost
        if host == 0:
            os.close(held)
            os.read(over, 1)
            os._exit(0)
        page = mmap.mmap(-1, 65536)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        page.write(bytes.fromhex("01000000") + host.to_bytes(4, "little"))
        text = ctypes.create_string_buffer(b"/etc/passwd")
        path = ctypes.addressof(text)
        attempts = [(name, number(called), eval(f"[{arguments}]"))
                    for name, (called, arguments) in json.loads(sys.argv[1])[0].items()]
        taken = restrict()
        seen = {name: call(number, *arguments) for name, number, arguments in attempts if number >= 0}
        """,
        ATTACKS,
    )
    assert len(seen) > len(ATTACKS) - 10  # some have no such call on some processors
    expected = {name: ENOSYS if ATTACKS[name][0] == REFUSED_AS_UNKNOWN else EPERM for name in seen}
    assert seen == expected


@needs_x86_64
def test_the_numbers_of_another_abi_are_no_way_around_the_list() -> None:
    pytest.importorskip("pyseccomp")
    body = f"""
    path = ctypes.create_string_buffer(b"/etc/passwd")
    taken = restrict()
    if taken.lacking:
        os._exit(77)
    found = call({X32} + 2, ctypes.addressof(path), 0)  # open
    os._exit(100 + found)
    """
    done = subprocess.run([sys.executable, "-c", PREPARED + textwrap.dedent(body)], check=False)
    if done.returncode == 77:
        pytest.skip("there is no filter here")
    assert done.returncode in (-SIGSYS, 100 + EPERM, 100 + ENOSYS)


INT_0X80 = "b814000000cd80c3"  # mov eax, 20 (getpid of i386); int 0x80; ret


@needs_x86_64
def test_the_calls_of_32_bits_end_the_process() -> None:
    """Code that was there before: after the restriction there is no way to make some."""
    pytest.importorskip("pyseccomp")
    body = f"""
    code = mmap.mmap(-1, 4096, prot=7)
    code.write(bytes.fromhex({INT_0X80!r}))
    enter = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    taken = restrict()
    if taken.lacking:
        os._exit(77)
    enter()
    os._exit(0)
    """
    done = subprocess.run([sys.executable, "-c", PREPARED + textwrap.dedent(body)], check=False)
    if done.returncode == 77:
        pytest.skip("there is no filter here")
    assert done.returncode == -SIGSYS


def test_every_call_has_its_reason() -> None:
    for call in allowed_calls(1):
        assert call.why, call


def test_a_value_is_compared_with_all_of_its_bits() -> None:
    assert Only(0, (1,)).mask == ALL_BITS
    assert Only(0, free=3).mask == ALL_BITS - 3
