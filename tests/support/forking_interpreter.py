"""A Python that has loaded what scripts load and runs each of them in a fork of itself.

One order a line on stdin, as JSON: script, environ, and the files for its output. One line back: the exit code,
or the negative number of the signal.
"""

import asyncio  # noqa: F401 - what scripts import is loaded before the fork
import json
import os
import signal
import sys
import typing  # noqa: F401 - the same
from types import CodeType, ModuleType
from typing import Any

import pydantic


class _Warm(pydantic.BaseModel):
    """The first model of a process takes longest."""

    result: Any


def serve() -> CodeType | None:
    """Fork for every order; in the fork, the code to run."""
    while line := sys.stdin.buffer.readline():
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            return begin(order)
        _, status = os.waitpid(child, 0)
        sys.stdout.buffer.write(b"%d\n" % os.waitstatus_to_exitcode(status))
        sys.stdout.buffer.flush()
    return None


def begin(order: dict[str, Any]) -> CodeType:
    """Become the process of one script."""
    signal.alarm(30)
    for name, descriptor in (("out", 1), ("err", 2)):
        os.dup2(os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(order["environ"])
    sys.argv[:] = ["script.py"]
    try:
        return compile(order["script"], "script.py", "exec", dont_inherit=True)
    except SyntaxError as error:
        sys.excepthook(type(error), error.with_traceback(None), None)  # as it is printed where no frame is on the stack
        sys.exit(1)


code = serve()
if code is not None:
    sys.modules["__main__"] = main = ModuleType("__main__")
    exec(code, main.__dict__)
