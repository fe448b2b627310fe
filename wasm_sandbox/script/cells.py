"""Script that runs code of a user's own: a call of the guest's ``_sandbox_live``, which the code is handed to."""

from __future__ import annotations

import keyword
import marshal
from collections.abc import Collection, Mapping
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
        text: the whole source, the same for all cells of a kind.
        values: what it fetches: the code, its inputs, and the names of host functions that it mentions.
    """

    text: str
    values: tuple[bytes, ...]


def cell_name(number: int) -> str:
    """File name of a session's cell in tracebacks."""
    return f"<cell {number}>"


def cell_script(
    code: str,
    inputs: Mapping[str, Any] | None = None,
    functions: Collection[str] | None = None,
    *,
    name: str = CODE_NAME,
    keep: bool = False,
    preamble: str = "",
) -> CellScript:
    """Write the script that runs code.

    Args:
        code: Python source, of which the host reads nothing but words.
        inputs: name of a variable -> its value (see `wire.encode`).
        functions: names of host functions that can be called without an import; None if there is no host function.
        name: file name of the code in tracebacks.
        keep: whether its variables are kept for the next cell.
        preamble: script that gives a guest of another build its side of this; our own has it.

    Raises:
        TypeError: if the code is no text, or the inputs are no mapping.
        BadArguments: if the name of an input is no name, or its value cannot be handed to a guest.
    """
    if not isinstance(code, str):
        raise TypeError(f"code must be text, not {type(code).__name__}")
    mentioned = sorted({*WORD.findall(code)}.intersection(functions)) if functions is not None else None
    request = (code, name, _inputs(inputs or {}), mentioned)
    if preamble:
        literal = argument_literal({}, request)
        return CellScript(f"{preamble}_module.run_cell({literal}, {MARKER!r})\n", ())
    text = f"__import__('_sandbox_live').run_cell(__import__('_sandbox_guest').value(0), {MARKER!r}, {keep})\n"
    return CellScript(text, (marshal.dumps(request, MARSHAL_VERSION),))


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
