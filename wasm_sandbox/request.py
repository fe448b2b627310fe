"""Request of a run: the script, its environment and its limits."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from wasm_sandbox.files import GivenFiles
from wasm_sandbox.limits import Limits


@dataclass(frozen=True)
class ExecutionRequest:
    """Script to run, with its environment, limits and files."""

    script: str
    environ: Mapping[str, str]
    limits: Limits
    script_name: str = "script.py"
    tool_name: str = "tool.py"
    """File name for the tool's part of the script, in tracebacks."""
    tool_first_line: int = 0
    tool_line_count: int = 0
    given: GivenFiles | None = None
    """Files and mounts of the guest; with None it has no file system."""
    values: tuple[bytes, ...] = ()
    """Values that the script fetches instead of spelling them out (`ExecutionScript.values`): only in our own guest."""

    def encode(self, code: bytes = b"") -> bytes:
        """Encode the request for ``sandbox_run`` (``struct request`` in ``reactor.c``).

        Args:
            code: compiled code of the script from the tool's source on; empty if there is none (`tool_codes`).
        """
        texts = [self.script.encode(), self.script_name.encode(), self.tool_name.encode()]
        values = [part for value in self.values for part in (len(value).to_bytes(4, "little"), value)]
        sizes = [*map(len, texts), self.tool_first_line, self.tool_line_count, sum(map(len, values)), len(code)]
        head = struct.pack("<7I", *sizes)
        return b"".join([head, *(part for text in texts for part in (text, b"\0")), *values, code])
