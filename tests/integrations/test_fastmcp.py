"""FastMCP: a client's code calls the server's tools in code mode, with the real server and client."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integrations.groups import needs

pytestmark = needs("fastmcp")

fastmcp = pytest.importorskip("fastmcp", reason="needs fastmcp: pip install --group fastmcp")

from fastmcp.exceptions import ToolError  # noqa: E402 - after the look for it
from fastmcp.experimental.transforms.code_mode import CodeMode  # noqa: E402 - as above

from wasm_sandbox.integrations.fastmcp import WasmSandboxProvider  # noqa: E402 - as above


def server(**options: Any) -> Any:
    made = fastmcp.FastMCP("shop", transforms=[CodeMode(sandbox_provider=WasmSandboxProvider(**options))])

    @made.tool
    async def price(item: str, count: int = 1) -> int:
        """Price in cents."""
        if item == "gold":
            raise ToolError("there is no gold")
        return {"tea": 300, "cake": 450}[item] * count

    return made


async def executed(code: str, **options: Any) -> Any:
    async with fastmcp.Client(server(**options)) as client:
        result = await client.call_tool("execute", {"code": code}, raise_on_error=False)
        text = "\n".join(part.text for part in result.content if part.type == "text")
        return text if result.is_error else result.data if result.data is not None else text


async def test_code_calls_the_servers_tools_and_the_answer_comes_back() -> None:
    code = """
tea = await call_tool("price", {"item": "tea"})
cake = await call_tool("price", {"item": "cake", "count": 2})
return {"total": tea["result"] + cake["result"]}
"""
    assert "1200" in str(await executed(code))


async def test_the_last_expression_counts_where_nothing_is_returned() -> None:
    assert str(await executed("x = 20\nx + 1")) == "21"
    assert str(await executed("print('only this')")) == "only this\n"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("await call_tool('price', {'item': 'gold'})", "there is no gold"),
        ("await call_tool('price', {'item': 5, 'what': 1})", "Valid parameters for price"),
        ("await call_tool('nothing', {})", "Unknown tool: nothing"),
        ("x = 1\nreturn 1 / 0", "line 2"),
        ("def broken(:", "SyntaxError"),
        ("while True: pass", "timeout"),
        ("yield 1", "SyntaxError"),
    ],
)
async def test_what_goes_wrong_is_told_to_the_model(code: str, words: str) -> None:
    assert words in str(await executed(code, limits={"timeout_seconds": 0.5}))


async def test_the_server_bounds_the_calls() -> None:
    code = "for _ in range(100): await call_tool('price', {'item': 'tea'})"
    assert "at most 50" in str(await executed(code))


async def test_inputs_are_variables() -> None:
    assert await WasmSandboxProvider().run("return sum(rows) + more", inputs={"rows": [1, 2], "more": 3}) == 6


async def test_plain_functions_are_called_too() -> None:
    def double(n: int) -> int:
        return 2 * n

    assert await WasmSandboxProvider().run("twice(21)", external_functions={"twice": double}) == 42
