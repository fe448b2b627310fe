"""The native Python that guests are compared with, and the programs that both run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from wasm_sandbox.bench.contenders import run_raw
from wasm_sandbox.engine import GuestEngine

NATIVE_VARIABLE = "WASM_SANDBOX_NATIVE_PYTHON"
PROGRAMS = {file.stem: file.read_text() for file in sorted((Path(__file__).parent / "programs").glob("*.py"))}
REPEATS = 3

_TIMED = f"""
from time import perf_counter as _clock
_started = _clock()
for _ in range({REPEATS}):
    main()
print(_clock() - _started)
"""


@cache
def native_python() -> tuple[str, str]:
    """A native Python of the guest's version that has pydantic, else the running one; and what it is.

    ``WASM_SANDBOX_NATIVE_PYTHON``, ``WASM_SANDBOX_PEERS_PYTHON`` and ``python3.13`` are looked at, in this order.
    """
    named = (os.environ.get(NATIVE_VARIABLE), os.environ.get("WASM_SANDBOX_PEERS_PYTHON"), shutil.which("python3.13"))
    for python in filter(None, named):
        version = _output(python, "import sys, pydantic; print(sys.version.split()[0])")
        if version and (version.startswith("3.13") or python == named[0]):
            return python, f"native {version}"
    return sys.executable, f"native {sys.version.split()[0]} (the guest is 3.13: no such Python with pydantic found)"


def _output(python: str, program: str) -> str | None:
    try:
        done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def timed_program(name: str) -> str:
    """The source of a program that prints how many seconds its work took, without start and imports."""
    return PROGRAMS[name] + _TIMED


def seconds_in_guest(name: str, engine: GuestEngine | None = None) -> float:
    """Run a program in a fresh guest, of this process's engine or another; the seconds of its work by its own clock."""
    return float(run_raw(timed_program(name), engine=engine).stdout)


def seconds_natively(name: str) -> float:
    """Run a program in a fresh native process; the seconds of its work by its own clock."""
    output = _output(native_python()[0], timed_program(name))
    if output is None:
        raise RuntimeError(f"{name} does not run in {native_python()[0]}")
    return float(output)
