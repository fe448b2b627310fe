"""The options of a run: written down once, checked once, handed on whole."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest
from pydantic import ValidationError

from wasm_sandbox import HostDir, Limits, Tool, UnsupportedIsolation, WasmToolSandbox, run_tool
from wasm_sandbox.options import CallOptions, RunOptions, checked

TOOL = Tool.from_source("def one() -> int:\n    return 1\n")


def sandbox(**options: Any) -> WasmToolSandbox:
    return WasmToolSandbox("one", {}, None, None, tool_object=TOOL, **options)


def test_options_that_are_not_given_have_their_defaults() -> None:
    options: dict[str, Any] = {**checked({})}
    assert options.keys() == RunOptions.__annotations__.keys()
    assert (options.pop("limits"), options.pop("isolation"), options.pop("build_images")) == (Limits(), "thread", False)
    assert set(options.values()) == {None}


def test_options_are_frozen() -> None:
    options = checked({"limits": {"fuel": 5}})
    assert options["limits"] == Limits(fuel=5)
    with pytest.raises(TypeError):
        options["image"] = "other"


@pytest.mark.parametrize("name", sorted(RunOptions.__annotations__))
def test_a_sandbox_has_each_option_by_its_name(name: str) -> None:
    assert getattr(sandbox(), name) == checked({})[name]  # type: ignore[literal-required]


@pytest.mark.parametrize("call", [lambda **options: run_tool(TOOL, **options), sandbox])
def test_an_option_that_does_not_exist_is_refused_by_name(call: Any) -> None:
    with pytest.raises(
        TypeError, match=r"there is no option limit \(options: build_images, env, files, functions, gate, image, .*\)"
    ):
        call(limit=Limits())


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"limits": {"fuel": 0}}, ValidationError, "greater than 0"),
        ({"isolation": "container"}, UnsupportedIsolation, '"thread" or "process"'),
        ({"isolation": "process", "mounts": {"/d": HostDir("/")}}, UnsupportedIsolation, "no mounts"),
    ],
)
def test_an_option_that_cannot_be_is_refused_before_anything_runs(
    options: Any, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        sandbox(**options)


def test_a_call_takes_the_options_of_a_run_and_who_makes_it() -> None:
    assert get_type_hints(RunOptions).items() <= get_type_hints(CallOptions).items()


def test_no_attribute_is_made_up() -> None:
    with pytest.raises(AttributeError, match="'WasmToolSandbox' object has no attribute 'limit'"):
        _ = sandbox().limit
