"""What a run starts from: the script, its environment and its limits."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from wasm_sandbox.files import GivenFiles
from wasm_sandbox.limits import Limits


@dataclass(frozen=True)
class ExecutionRequest:
    """A script to run and what to run it with."""

    script: str
    environ: Mapping[str, str]
    limits: Limits
    script_name: str = "script.py"
    tool_name: str = "tool.py"
    """File name for the tool's part of the script, in tracebacks."""
    tool_first_line: int = 0
    tool_line_count: int = 0
    given: GivenFiles | None = None
    """The guest's file system; with None it has none at all."""
    values: tuple[bytes, ...] = ()
    """What the script fetches instead of spelling it out (`ExecutionScript.values`); only our own guest has them."""

    def encode(self, code: bytes = b"") -> bytes:
        """The request as ``sandbox_run`` reads it (``struct request`` in ``reactor.c``).

        Args:
            code: of the script from the tool's source on, if there is any (`tool_codes`).
        """
        texts = [self.script.encode(), self.script_name.encode(), self.tool_name.encode()]
        values = [part for value in self.values for part in (len(value).to_bytes(4, "little"), value)]
        sizes = [*map(len, texts), self.tool_first_line, self.tool_line_count, sum(map(len, values)), len(code)]
        head = struct.pack("<7I", *sizes)
        return b"".join([head, *(part for text in texts for part in (text, b"\0")), *values, code])
