"""Call that runs code of a user's own: of the guest's ``_sandbox_live``, which the code is handed to.

Our own guest takes the call by itself, any other as a script.
"""

from __future__ import annotations

import keyword
import marshal
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from wasm_sandbox.decode.frame import MARKER
from wasm_sandbox.errors import BadArguments
from wasm_sandbox.script.arguments import argument_literal
from wasm_sandbox.script.blocks import WORD
from wasm_sandbox.script.wire import MARSHAL_VERSION, Untravelled, node

CODE_NAME = "<code>"
"""File name of code in tracebacks; of a cell of a session see `cell_name`."""


class CellScript(NamedTuple):
    """Script of a cell.

    Attributes:
        text: the whole source; empty for our own guest.
        call: what our own guest takes instead: name of what is called, and its arguments.
        values: what the script fetches, which is nothing.
    """

    text: str
    call: bytes = b""
    values: tuple[bytes, ...] = ()


def cell_name(number: int) -> str:
    """File name of a session's cell in tracebacks."""
    return f"<cell {number}>"


def cell_script(
    code: str,
    inputs: Mapping[str, Any] | None = None,
    functions: Collection[str] | None = None,
    *,
    name: str = CODE_NAME,
    preamble: str = "",
) -> CellScript:
    """Write the call that runs code.

    Args:
        code: Python source, of which the host reads nothing but words.
        inputs: name of a variable -> its value (see `wire.encode`).
        functions: names of host functions that can be called without an import; None if there is no host function.
        name: file name of the code in tracebacks.
        preamble: script that gives a guest of another build its side of this, which is then called by a script, too.

    Raises:
        TypeError: if the code is no text, or the inputs are no mapping.
        BadArguments: if the name of an input is no name, or its value cannot be handed to a guest.
    """
    request = _request(code, name, inputs, functions)
    if preamble:
        literal = argument_literal({}, request)
        return CellScript(f"{preamble}_module.run_cell({literal}, {MARKER!r})\n")
    return _called("run", request)


def session_cell_script(
    code: str,
    inputs: Mapping[str, Any] | None,
    functions: Collection[str] | None,
    *,
    name: str,
    is_fork: bool,
) -> CellScript:
    """Write the call that runs a cell of a session, whose names are kept for the next one.

    Args:
        code: Python source.
        inputs: name of a variable -> its value.
        functions: as of `cell_script`.
        name: file name of the cell in tracebacks.
        is_fork: whether the session was forked or loaded since its last cell.

    Raises:
        TypeError: as `cell_script`.
        BadArguments: as `cell_script`.
    """
    return _called("cell", (*_request(code, name, inputs, functions), is_fork))


def resume_script(answers: Iterable[tuple[int, int, bytes]], *, is_fork: bool) -> CellScript:
    """Write the call that goes on with a cell that was paused.

    Args:
        answers: number of a call, and kind and bytes of its answer (`request.Answer`).
        is_fork: as of `session_cell_script`.
    """
    return _called("resume", (list(answers), is_fork))


def _called(name: str, arguments: tuple[Any, ...]) -> CellScript:
    return CellScript("", marshal.dumps((name, arguments), MARSHAL_VERSION))


def _request(
    code: str, name: str, inputs: Mapping[str, Any] | None, functions: Collection[str] | None
) -> tuple[Any, ...]:
    if not isinstance(code, str):
        raise TypeError(f"code must be text, not {type(code).__name__}")
    mentioned = sorted({*WORD.findall(code)}.intersection(functions)) if functions is not None else None
    return code, name, _inputs(inputs or {}), mentioned


def _inputs(inputs: Mapping[str, Any]) -> Any:
    if not isinstance(inputs, Mapping):
        raise TypeError(f"inputs must map names to values, not be a {type(inputs).__name__}")
    pairs = []
    for name, value in inputs.items():
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
            raise BadArguments(f"the input {name!r:.100} is no name of a variable")
        try:
            pairs.append((name, node(value)))
        except Untravelled as error:
            raise BadArguments(f"it is or holds {error}; hand over plain data", name) from None
    return "dict", pairs
