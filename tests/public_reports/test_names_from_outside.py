"""A framework's decorator, module globals (smolagents 1345, langgraph-codeact 29): a bare NameError from the guest.

`Tool.from_function` takes a function's own text only, and says which names that takes from outside.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable
from typing import Any, Optional

import pytest

from wasm_sandbox import Sandbox, Tool, ToolSourceError, run_tool

LIMIT = 3
SUFFIX = "!"


class Server:
    """As a framework has it."""

    def tool(self, **_: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return lambda function: function


mcp = Server()


def helper(text: str) -> str:
    return text


def marked(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


def takes_a_constant(n: int) -> int:
    return n + LIMIT


def takes_several(text: str) -> str:
    return helper(text)[:LIMIT] + SUFFIX


def takes_one_deep_inside(n: int) -> Any:
    return [sorted(range(n), key=lambda k: k < LIMIT) for _ in range(n)]


def takes_a_module() -> str:
    return datetime.date.today().isoformat()


def takes_a_default(n: int = LIMIT) -> int:
    return n


def takes_an_annotation(day: datetime.date) -> str:
    return str(day)


async def takes_one_asynchronously(n: int) -> int:
    return n + LIMIT


@mcp.tool(name="add")
def has_a_framework(n: int) -> int:
    return n


@marked
def has_a_decorator(n: int) -> int:
    return n


REFUSED: list[tuple[Callable[..., Any], list[str]]] = [
    (takes_a_constant, ["LIMIT"]),
    (takes_several, ["LIMIT", "SUFFIX", "helper"]),
    (takes_one_deep_inside, ["LIMIT"]),
    (takes_a_module, ["datetime"]),
    (takes_a_default, ["LIMIT"]),
    (takes_an_annotation, ["datetime"]),
    (takes_one_asynchronously, ["LIMIT"]),
    (has_a_framework, ["mcp"]),
    (has_a_decorator, ["marked"]),
]


@pytest.mark.parametrize(("function", "names"), REFUSED, ids=lambda value: getattr(value, "__name__", None))
def test_the_names_that_a_function_takes_from_outside_are_said(function: Callable[..., Any], names: list[str]) -> None:
    for call in (Tool.from_function, run_tool, Sandbox().run_tool):
        with pytest.raises(ToolSourceError) as caught:
            call(function)
        assert f"{function.__name__} takes from outside itself" in str(caught.value)
        assert ", ".join(names) in str(caught.value)


def test_a_decorator_is_said_to_be_one() -> None:
    with pytest.raises(ToolSourceError, match="the decorator's mcp: pass the function without the decorator"):
        Tool.from_function(has_a_framework)


def own_names(text: Optional[str] = None, *rest: Any, **more: Any) -> Any:  # noqa: UP045 - a name that scripts have
    import json
    from pathlib import PurePath as Place

    def inner(n: int) -> int:
        return inner(n - 1) if n else len(names)

    class Own:
        size = 3

    names = list(range(3))
    try:
        pickle, y = sys.maxsize, os.sep  # type: ignore[name-defined]  # noqa: F821 - names that scripts have
    except ValueError as error:
        print(error)
    return [json.dumps(text), str(Place("a")), inner(2), Own.size, (z := 1), z, pickle > 0, y, __name__]


def test_names_of_its_own_and_of_every_script_are_none_from_outside() -> None:
    result = run_tool(own_names, {"text": "a"})
    assert result.func_return == ['"a"', "a", 3, 3, 1, 1, True, "/", "__main__"]


def test_host_functions_are_names_that_a_function_may_use() -> None:
    def host_twice(n: int) -> int:
        return 2 * n

    def f(n: int) -> Any:
        return host_twice(n)

    source = Tool.from_source("def f(n): return host_twice(n)")
    assert run_tool(source, {"n": 2}, functions=[host_twice]).func_return == 4
    assert run_tool(uses_a_host_function, {"n": 2}, functions=[host_twice]).func_return == 4
    with Sandbox(functions=[host_twice]).session() as session:
        assert session.run_tool(uses_a_host_function, {"n": 3}).func_return == 6
    with pytest.raises(ToolSourceError, match="host_twice"):
        run_tool(uses_a_host_function, {"n": 2})
    with pytest.raises(ToolSourceError, match="enclosing function"):
        run_tool(f, {"n": 2})


def uses_a_host_function(n: int) -> Any:
    return host_twice(n)  # type: ignore[name-defined]  # noqa: F821 - of the run
