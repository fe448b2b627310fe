"""Forks of every kind, and children that have their parent's id."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from functools import cache

import pytest

IN_NAMESPACE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
"""Begins a command whose process has the id 1, in namespaces of its own."""

FORKS = {
    "the interpreter's": "os.fork()",
    "the library's": "ctypes.PyDLL(None).fork()",
    "the system's": "ctypes.PyDLL(None).syscall(ctypes.c_long(56), ctypes.c_long(17), 0, 0, 0, 0)",
}
"""Expressions that fork; only of the first one the interpreter knows."""

NEW_NAMESPACE = "assert ctypes.PyDLL(None).unshare(0x20000000) == 0"
"""Statement after which the next child has the id 1."""

SAME_ID = "a child with its parent's id"


@cache
def kinds_of_fork() -> list[str]:
    """The kinds of `FORKS` that there are here."""
    if sys.platform == "win32":
        return []
    if sys.platform != "linux":
        return ["the interpreter's"]
    return list(FORKS) if platform.machine() == "x86_64" else list(FORKS)[:2]


def in_namespace() -> list[str]:
    """Start of a command that runs as process 1; skips the test where there are no namespaces to be had."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        pytest.skip("there are no namespaces of processes here")
    tried = subprocess.run([*IN_NAMESPACE, "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"this system gives no namespace of processes: {tried.stderr.strip()}")
    return IN_NAMESPACE


def forking(program: str, kind: str, has_same_id: bool) -> list[str]:
    """Command that runs a program, in which ``fork()`` is the kind of fork, and the child may have its parent's id."""
    fork = f"{NEW_NAMESPACE}\n    assert os.getpid() == 1" if has_same_id else "pass"
    start = f"import ctypes, os, sys\ndef fork():\n    {fork}\n    return {FORKS[kind]}\n"
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", start + program]
    return [*in_namespace(), *command] if has_same_id else command
