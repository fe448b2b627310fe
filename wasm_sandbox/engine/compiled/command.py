"""Running a script in a CPython that is a WASI command: a whole start for every run, with the script on argv."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from wasm_sandbox.decode.tracebacks import move_lines
from wasm_sandbox.files import GivenFiles, HostDir
from wasm_sandbox.request import ExecutionRequest

_STANDARD_MODEL = "from pydantic import BaseModel, ConfigDict\n"
_ANY_MODEL = "from _sandbox_results import BaseModel, ConfigDict\n"

# No site, no user's site, no bytecode files, no buffers, no warnings: as our own guest.
_OPTIONS = ("-S", "-s", "-B", "-u", "-W", "ignore", "-X", "utf8")

FAILED_EXIT_CODES = frozenset({1, 130})
"""What CPython exits with after an exception that nothing caught, and after ``KeyboardInterrupt``."""


class Command(NamedTuple):
    """How such a CPython finds its library, if that is not inside it."""

    library: str | None = None
    """Path of the standard library in the guest."""
    mounts: Mapping[str, HostDir] = MappingProxyType({})
    """What every run sees of the host."""

    def files(self, files: Mapping[str, bytes]) -> GivenFiles:
        """What every run finds: the files of the image, and the mounts."""
        return GivenFiles(files, self.mounts)

    def environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The environment of a run, with what the interpreter needs to know."""
        if self.library is None:
            return dict(environ)
        paths = [self.library, *filter(None, [environ.get("PYTHONPATH")])]
        return {**environ, "PYTHONHOME": self.library, "PYTHONPATH": ":".join(paths)}

    @staticmethod
    def arguments(request: ExecutionRequest) -> list[bytes]:
        """Its argv, each with the NUL that ends it. The script must hold none."""
        texts = ["python", *_OPTIONS, "-c", _start_text(), request.script_name, _with_any_model(request)]
        return [text.encode() + b"\0" for text in texts]

    @staticmethod
    def exception(stderr: bytes, request: ExecutionRequest) -> tuple[str, str, str] | None:
        """Class, message and traceback of what ended a run, as far as its standard error tells."""
        from wasm_sandbox.decode.tracebacks import exception_of

        found = exception_of(stderr.decode("utf-8", "replace"))
        if found is None:
            return None
        name, message, traceback = found
        first, count = request.tool_first_line, request.tool_line_count
        return name, message, move_lines(traceback, request.script_name, request.tool_name, first, count)


@cache
def _start_text() -> str:
    return (Path(__file__).parents[2] / "inside" / "start.py").read_text(encoding="utf-8")


def _with_any_model(request: ExecutionRequest) -> str:
    """The script, which passes its result through pydantic: or through what stands for it where there is none."""
    if not request.tool_line_count:
        return request.script
    lines = request.script.splitlines(keepends=True)
    end = request.tool_first_line - 1 + request.tool_line_count
    after = "".join(lines[end:]).replace(_STANDARD_MODEL, _ANY_MODEL, 1)
    return "".join(lines[:end]) + after
