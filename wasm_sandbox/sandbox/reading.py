"""Sources in a newer syntax than this Python's, read in a guest: parsed there, never executed."""

from __future__ import annotations

from pathlib import Path

from wasm_sandbox.errors import ToolSourceError
from wasm_sandbox.limits import Limits
from wasm_sandbox.sandbox.boxes import run_code

_LIMITS = Limits(timeout_seconds=10.0)
_CODE = """\
import ast
from pathlib import Path
spaces = [{"__name__": "reading"} for _ in programs]
for space, program in zip(spaces, programs):
    exec(compile(program, "reading.py", "exec"), space)
try:
    module = ast.parse(text)
except SyntaxError as error:
    found = ["error", f"{error.msg} (line {error.lineno})"]
except (ValueError, RecursionError, MemoryError) as error:
    found = ["error", str(error)]
else:
    source, entries = spaces[0]["without_main_guard"](module, text)
    found = ["source", source, sorted(entries), spaces[1]["skeleton_of"](module)]
found
"""


def read_in_guest(text: str) -> tuple[str, frozenset[str], str]:
    """Parse a source in a guest.

    Returns:
        The source and the names that `without_main_guard` gives, and the text of its skeleton (`skeleton_of`).

    Raises:
        ToolSourceError: if the guest cannot parse it either.
        HostError: if this host cannot run guests.
    """
    tool = Path(__file__).parents[1] / "tool"
    programs = [(tool / name).read_text(encoding="utf-8") for name in ("main_guard.py", "skeleton.py")]
    result = run_code(_CODE, {"programs": programs, "text": text}, limits=_LIMITS)
    match result.value:
        case ["source", str(source), [*entries], str(skeleton)]:
            return source, frozenset(map(str, entries)), skeleton
        case ["error", str(message)]:
            raise ToolSourceError(f"the source does not parse: {message}")
        case _:
            why = result.error.message if result.error else "it gave no answer"
            raise ToolSourceError(f"the source cannot be read in a guest: {why}")
