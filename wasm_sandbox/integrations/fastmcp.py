"""FastMCP: the sandbox of code mode, in which a client's code calls the server's tools.

``FastMCP(..., transforms=[CodeMode(sandbox_provider=WasmSandboxProvider())])``. What it cannot do: nothing is kept from
call to call, for code mode has no sessions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

from fastmcp.exceptions import FastMCPError, NotFoundError, ToolError

from wasm_sandbox import AsyncSandbox, HostFunction
from wasm_sandbox.integrations.offers import error_text, renamed, telling
from wasm_sandbox.options import RunOptions

# The code may `return` at its top level, as code mode tells the model; so it is made the body of a function, in the
# guest, for nothing of it is read here.
_PROGRAM = """
import ast, linecache

def _function():
    linecache.cache["<execute>"] = len(_source), None, _source.splitlines(True), "<execute>"
    body = ast.parse(_source, "<execute>").body
    if body and isinstance(body[-1], ast.Expr):
        body[-1] = ast.copy_location(ast.Return(body[-1].value), body[-1])
    module = ast.parse("async def _main(): pass")
    module.body[0].body = body or module.body[0].body
    names = globals()
    exec(compile(ast.fix_missing_locations(module), "<execute>", "exec"), names)
    return names["_main"]

await _function()()
"""


class WasmSandboxProvider:
    """Provider of sandboxes for ``CodeMode``.

    Args:
        options: `RunOptions` of the sandbox.
    """

    def __init__(self, **options: Unpack[RunOptions]) -> None:
        self._own: list[Any] = [*(options.pop("functions", None) or [])]
        self._box = AsyncSandbox(**options)

    async def run(
        self,
        code: str,
        *,
        inputs: dict[str, Any] | None = None,
        external_functions: dict[str, Callable[..., Any]] | None = None,
    ) -> Any:
        """Run code in a fresh guest.

        Args:
            code: Python source, which may await and return at its top level.
            inputs: variables that it finds.
            external_functions: functions that it may call.

        Returns:
            What it returns, or the value of its last expression; what it printed, if that is nothing.

        Raises:
            ToolError: if it fails, with the traceback.
        """
        given = (external_functions or {}).items()
        functions = [*self._own, *(renamed(name, telling(call, FastMCPError, NotFoundError)) for name, call in given)]
        imports = "".join(f"from tools import {function.name}\n" for function in map(HostFunction.of, functions))
        result = await self._box.run_code(imports + _PROGRAM, {**(inputs or {}), "_source": code}, functions=functions)
        if result.error is not None:
            raise ToolError(error_text(result))
        if result.value is None:
            return "".join(result.stdout or ()) or (None if result.text == "None" else result.text)
        return result.value
