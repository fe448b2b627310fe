"""Compiled code of tools that are called again and again: made in a guest of its own, kept by the host.

Half of what a guest computes for a short call is the compiler, and of the script only the arguments change from call to
call. So when the same lines come a second time, a fresh instance compiles them, and later runs get the code beside the
script. It is made from these lines alone, nothing of them is executed meanwhile, and it is only used for the same
lines: whoever wrote them decides about nothing but their own runs.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import NamedTuple

from wasm_sandbox.request import ExecutionRequest

MAX_TOOLS = 256
"""Those that were not called the longest are forgotten."""

MAX_SOURCE_BYTES = 256 << 10
MAX_CODE_BYTES = 64 << 10
"""Of one tool. What is longer is compiled each time."""


class ToolCode(NamedTuple):
    """What a guest made of a script's lines from the tool's source on."""

    data: bytes
    fuel: int
    """What a run pays that is spared the compiler: the same call costs about the same each time."""


class ToolCodes:
    """The codes of one image, by the lines that they were made of."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, ToolCode | bool] = OrderedDict()
        """Without code: whether another call is what it takes; else they are being compiled, or cannot be."""

    @property
    def known(self) -> dict[bytes, ToolCode]:
        """What there is code of: key -> code, the one that was called last at the end."""
        with self._lock:
            return {key: code for key, code in self._known.items() if isinstance(code, ToolCode)}

    def __len__(self) -> int:
        """How many lines have been noted, with code and without."""
        return len(self._known)

    def find(self, key: bytes) -> ToolCode | None:
        """The code of lines, if there is any."""
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            code = self._known.get(key)
        return code if isinstance(code, ToolCode) else None

    def is_wanted(self, key: bytes) -> bool:
        """Notes that lines were called; whether they should be compiled ahead now, by whoever asks."""
        with self._lock:
            if self._known.get(key) is True:
                self._known[key] = False
                return True
            self._known.setdefault(key, True)
            if len(self._known) > MAX_TOOLS:
                self._known.popitem(last=False)
            return False

    def keep(self, key: bytes, code: ToolCode | None) -> None:
        """Give this code to all who have the same lines; None to have them compiled each time."""
        with self._lock:
            if key in self._known:
                self._known[key] = code or False


def key_of(request: ExecutionRequest) -> bytes | None:
    """Names the lines of a request's script from the tool's source on; None if they are not to be compiled ahead."""
    if not request.tool_line_count or request.limits.fuel is None or request.limits.deterministic:
        return None
    lines = request.script.split("\n", request.tool_first_line - 1)[-1].encode()
    return hashlib.sha256(lines).digest() if len(lines) <= MAX_SOURCE_BYTES else None
