"""Check of the Python interpreter: guests run in the main one of a process, with a GIL."""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module

from wasm_sandbox.errors import HostError


def check_interpreter() -> None:
    """Refuse an interpreter in which host functions would not be safe.

    Raises:
        HostError: if the interpreter is a subinterpreter, or runs without its global lock.
    """
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        raise HostError(
            "this Python runs without its global interpreter lock, which guests have not been tested with: "
            "set PYTHON_GIL=1"
        )
    if _is_subinterpreter():
        # Host functions are called through ctypes, which always enters the main interpreter.
        raise HostError("guests run only in the main interpreter of a process, not in a subinterpreter")


def _is_subinterpreter() -> bool:
    """Whether this is a subinterpreter, asked without ctypes where that can be.

    CPython 3.12 has no ctypes in one, and in 3.11 loading it there spoils that of the main interpreter.
    """
    for name in ("_interpreters", "_xxsubinterpreters"):
        with suppress(ImportError):
            interpreters = import_module(name)
            return bool(interpreters.get_current() != interpreters.get_main())
    import ctypes  # lazy: in a subinterpreter of 3.11 it would spoil the main one's

    current, main = ctypes.pythonapi.PyInterpreterState_Get, ctypes.pythonapi.PyInterpreterState_Main
    current.restype = main.restype = ctypes.c_void_p
    return bool(current() != main())
