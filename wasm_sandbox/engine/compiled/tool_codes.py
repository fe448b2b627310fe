"""Memoised code of tools that are called again and again: compiled in an instance of its own, kept by the host.

Half of what a guest computes for a short call is the compiler, and of the script only the arguments change from call to
call. So when the same lines come a second time, a fresh instance compiles them, and later runs get the code beside the
script. It is made from these lines alone: nothing else of a call, its arguments above all, is in that instance. Nothing
of them is executed meanwhile, and the code is only used for the same lines: whoever wrote them decides about nothing
but their own runs.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import NamedTuple

from wasm_sandbox.request import ExecutionRequest

MAX_TOOLS = 256
"""Size of the LRU."""

MAX_SOURCE_BYTES = 256 << 10
MAX_CODE_BYTES = 64 << 10
"""Largest source and code of one tool; what is larger is compiled each time."""


class ToolCode(NamedTuple):
    """Code of a script's lines from the tool's source on."""

    data: bytes
    """The code, as the guest wrote it."""
    fuel: int
    """Charge to a run that is spared the compiler: so the same call costs about the same each time."""


# Guarantees:
# - code is given out for the very lines that it was made of, and for no others;
# - of several runs that ask whether lines are wanted, one is told so: lines are compiled ahead once while they are
#   known.
# Locks: `_lock` guards the LRU; nothing is compiled while it is held.
class ToolCodes:
    """LRU of the codes of one image, by the hash of the lines that they were made of."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, ToolCode | bool] = OrderedDict()
        """Key -> code; True if the next call compiles the lines, False if they are being compiled or cannot be."""

    @property
    def known(self) -> dict[bytes, ToolCode]:
        """Key -> code, the least recently used first; without the lines that have no code."""
        with self._lock:
            return {key: code for key, code in self._known.items() if isinstance(code, ToolCode)}

    def __len__(self) -> int:
        """Number of keys, with code and without."""
        return len(self._known)

    def find(self, key: bytes) -> ToolCode | None:
        """Look the code of lines up, if there is any."""
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            code = self._known.get(key)
        return code if isinstance(code, ToolCode) else None

    def is_wanted(self, key: bytes) -> bool:
        """Note a call of lines; whether the caller should compile them ahead now."""
        with self._lock:
            if self._known.get(key) is True:
                self._known[key] = False
                return True
            self._known.setdefault(key, True)
            if len(self._known) > MAX_TOOLS:
                self._known.popitem(last=False)
            return False

    def keep(self, key: bytes, code: ToolCode | None) -> None:
        """Keep the code of lines; None if they cannot be compiled ahead."""
        with self._lock:
            if key in self._known:
                self._known[key] = code or False


def key_of(request: ExecutionRequest) -> bytes | None:
    """Key of a script's lines from the tool's source on; None if they are not to be compiled ahead."""
    if not request.tool_line_count or request.limits.fuel is None or request.limits.deterministic:
        return None
    lines = lines_of(request).encode()
    return hashlib.sha256(lines).digest() if len(lines) <= MAX_SOURCE_BYTES else None


def lines_of(request: ExecutionRequest) -> str:
    """A script's lines from the tool's source on."""
    return request.script.split("\n", request.tool_first_line - 1)[-1]
