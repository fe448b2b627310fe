"""Start of a script in a CPython that is a WASI command: a whole start-up for every run, with the script on argv."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import ClassVar

from wasm_sandbox.decode.tracebacks import exception_of, move_lines
from wasm_sandbox.engine.binding import capi
from wasm_sandbox.engine.start.base import Ended
from wasm_sandbox.engine.start.kind import StartKind
from wasm_sandbox.events import mark
from wasm_sandbox.files import GivenFiles, HostDir
from wasm_sandbox.outcome import GuestException
from wasm_sandbox.request import ExecutionRequest

_STANDARD_MODEL = "from pydantic import BaseModel, ConfigDict\n"
_ANY_MODEL = "from _sandbox_results import BaseModel, ConfigDict\n"

# No site, no user's site, no bytecode files, no buffers: as our own guest.
_OPTIONS = ("-S", "-s", "-B", "-u", "-X", "utf8")

FAILED_EXIT_CODES = frozenset({1, 130})
"""Exit codes of CPython after an exception that nothing caught, and after ``KeyboardInterrupt``."""


@dataclass(frozen=True)
class Command:
    """Start of a CPython that is a WASI command, with a standard library that may be outside of its module."""

    kind: ClassVar[StartKind] = StartKind.COMMAND

    library: str | None = None
    """Path of the standard library in the guest; None if it is inside the module."""
    mounts: Mapping[str, HostDir] = field(default_factory=dict)
    """Directories of the host that every run sees."""

    def files(self, files: Mapping[str, bytes]) -> GivenFiles:
        return GivenFiles(files, self.mounts)

    def environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        if self.library is None:
            return dict(environ)
        paths = [self.library, *filter(None, [environ.get("PYTHONPATH")])]
        return {**environ, "PYTHONHOME": self.library, "PYTHONPATH": ":".join(paths)}

    def arguments(self, request: ExecutionRequest) -> list[bytes]:
        texts = [
            "python",
            *_OPTIONS,
            "-c",
            _inside("start.py"),
            _inside("_sandbox_loop.py"),
            request.script_name,
            _with_any_model(request),
        ]
        return [text.encode() + b"\0" for text in texts]

    def run(self, instance: capi.Instance, request: ExecutionRequest, code: bytes, is_new: bool) -> Ended:
        if "\0" in request.script:  # which would end its argument
            message = "source code cannot contain null bytes"
            return Ended(1, GuestException("SyntaxError", message, f"SyntaxError: {message}\n"))
        with mark("guest"):
            instance.call("_start")
        return Ended(0, None)

    def exception(self, exit_code: int, stderr: bytes, request: ExecutionRequest) -> GuestException | None:
        found = exception_of(stderr.decode("utf-8", "replace")) if exit_code in FAILED_EXIT_CODES else None
        if found is None:
            return None
        name, message, traceback = found
        first, count = request.tool_first_line, request.tool_line_count
        return GuestException(
            name, message, move_lines(traceback, request.script_name, request.tool_name, first, count)
        )


@cache
def _inside(name: str) -> str:
    """The text of a module that runs in the guest."""
    return (Path(__file__).parents[2] / "inside" / name).read_text(encoding="utf-8")


def _with_any_model(request: ExecutionRequest) -> str:
    """The script, with a stand-in for pydantic, where there is none, to pass its result through."""
    if not request.tool_line_count:
        return request.script
    lines = request.script.splitlines(keepends=True)
    end = request.tool_first_line - 1 + request.tool_line_count
    after = "".join(lines[end:]).replace(_STANDARD_MODEL, _ANY_MODEL, 1)
    return "".join(lines[:end]) + after
