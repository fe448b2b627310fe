"""Report: a model whose serializer raises comes back as its text, and the run is a success.

The kind: every hook by which a model, a dataclass or a type decides how it is serialized, raising anything, anywhere
in the result. It is an error that names the field. A value that contains itself or is nested too deeply is an error
with a sentence that fits.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasm_sandbox import ErrorKind, Tool, run_tool

PRELUDE = """
import dataclasses
from typing import Annotated
from pydantic import (BaseModel, PlainSerializer, RootModel, WrapSerializer, computed_field, field_serializer,
                      model_serializer)
from pydantic.dataclasses import dataclass

def fails(*_):
    RAISE

"""

HOOKS = {
    "field_serializer": ("    when: str\n    @field_serializer('when')\n    def s(self, v): fails()", ".when"),
    "wrapping": ("    when: str\n    @field_serializer('when', mode='wrap')\n    def s(self, v, h): fails()", ".when"),
    "any field": ("    when: str\n    @field_serializer('*')\n    def s(self, v): fails()", ".when"),
    "plain": ("    when: Annotated[str, PlainSerializer(lambda v: fails())]", ".when"),
    "wrap": ("    when: Annotated[str, WrapSerializer(lambda v, handler: fails())]", ".when"),
    "computed": ("    when: str\n    @computed_field\n    @property\n    def s(self) -> int: fails()", ".s"),
    "model": ("    when: str\n    @model_serializer\n    def s(self): fails()", ""),
    "second field": ("    a: int = 1\n    when: Annotated[str, PlainSerializer(lambda v: fails())] = ''", ".when"),
}
RAISED = ["raise ValueError('bad')", "1 / 0", "raise KeyError", "None.foo", "raise RuntimeError('')"]
SHAPES = {
    "M(when='x')": "",
    "[1, M(when='x')]": "[1]",
    "{'a': (M(when='x'),)}": "['a'][0]",
    "Outer(n=[M(when='x')])": ".n[0]",
}


@settings(max_examples=40)
@given(st.data())
def test_a_serializer_that_raises_is_an_error_that_names_the_field(data: st.DataObject) -> None:
    body, field = HOOKS[data.draw(st.sampled_from(sorted(HOOKS)))]
    shape = data.draw(st.sampled_from(sorted(SHAPES)))
    base = data.draw(st.sampled_from(["class M(BaseModel):", "@dataclass\nclass M:"]))
    definition = data.draw(st.sampled_from(["def f():", "async def f():"]))
    guarded = data.draw(st.sampled_from(["", "    globals()['len'] = None\n"]))
    source = PRELUDE.replace("RAISE", data.draw(st.sampled_from(RAISED)))
    source += (
        f"{base}\n{body}\n\nclass Outer(BaseModel):\n    n: list[M]\n\n{definition}\n{guarded}    return {shape}\n"
    )
    result = run_tool(Tool(name="f", source_code=source))
    assert result.error is not None, source
    assert result.error.kind is ErrorKind.TOOL_EXCEPTION
    assert result.error.message.startswith(f"result{SHAPES[shape]}{field} cannot be serialized: "), result.error.message
    assert result.stdout == []


def test_a_serializer_that_the_source_does_not_show_is_an_error() -> None:
    body = "from pydantic import *\nclass M(BaseModel):\n    w: str\n    @field_serializer('w')\n    "
    body += "def s(self, v): 1 / 0\n"
    hidden = body.replace("serial", "SERIAL")
    source = f"exec({hidden!r}.replace('SERIAL', 'seria' + 'l'))\n\ndef f():\n    return M(w='soon')\n"
    result = run_tool(Tool(name="f", source_code=source))
    assert result.error is not None
    assert result.error.kind is ErrorKind.TOOL_EXCEPTION
    assert "function `s`: ZeroDivisionError: division by zero" in result.error.message


def test_a_serializer_that_works_changes_nothing() -> None:
    source = (
        PRELUDE
        + "class M(BaseModel):\n    w: Annotated[str, PlainSerializer(str.upper)]\ndef f():\n    return [M(w='a')]\n"
    )
    result = run_tool(Tool(name="f", source_code=source))
    assert (result.error, result.func_return, result.stdout) == (None, [{"w": "A"}], [])


CLASSES = """
import dataclasses
from typing import Any
from pydantic import BaseModel

class M(BaseModel):
    x: Any = None

@dataclasses.dataclass
class D:
    x: Any = None

def nested(depth, wrap):
    value = None
    for _ in range(depth):
        value = wrap(value)
    return value

"""


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        ("a = []\n    a.append(a)", "refers to itself: return data without cycles"),
        ("a = {}\n    a['a'] = [a]", "refers to itself: return data without cycles"),
        ("a = M()\n    a.x = [a]", "model that contains itself"),
        ("a = D()\n    a.x = {1: a}", "model that contains itself"),
        *(
            (f"a = nested({n}, lambda v: [v])", "nested (deeper than|too deeply)")
            for n in (201, 250, 400, 3000, 20_000)
        ),
        *((f"a = nested({n}, lambda v: {{1: v}})", "nested (deeper than|too deeply)") for n in (201, 400, 3000)),
        *((f"a = nested({n}, lambda v: M(x=v))", "nested (deeper than|too deeply)") for n in (201, 400, 3000)),
        *((f"a = nested({n}, D)", "nested (deeper than|too deeply)") for n in (201, 400, 3000)),
    ],
)
def test_cyclic_and_deep_values_get_a_sentence_that_fits(statements: str, words: str) -> None:
    result = run_tool(Tool(name="f", source_code=f"{CLASSES}def f():\n    {statements}\n    return a\n"))
    assert result.error is not None
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(result.error.message)
