"""Newer syntax than the host's (cpython 127428): refused as "does not parse", though the guest's Python has it.

What the guest accepts runs, whatever the host's Python; signature, docstring and schema come from the guest then.
"""

from __future__ import annotations

import ast
import sys

import pytest

from wasm_sandbox import Tool, ToolSourceError, run_tool
from wasm_sandbox.sandbox.reading import read_in_guest
from wasm_sandbox.tool.definition import GUEST_PYTHON
from wasm_sandbox.tool.skeleton import skeleton_of

HEAD = "def f(x, n: int = 2):\n    {doc}\n"
NEWER = {
    "PEP 695 function": "def f[T](x: T, n: int = 2) -> list[T]:\n    {doc}\n    return [x] * n\n",
    "PEP 695 bound": "def f[T: (int, str)](x: T, n: int = 2) -> list[T]:\n    {doc}\n    return [x] * n\n",
    "PEP 695 class": "class Box[T]:\n    pass\n\n{head}    return [x] * n\n",
    "PEP 695 alias": "type Count = int\n\ndef f(x, n: Count = 2):\n    {doc}\n    return [x] * n\n",
    "PEP 701 quotes": "{head}    y = {{'a': x}}\n    return [y['a'] for _ in f'{{'a' * n}}']\n",
    "PEP 701 backslash": "{head}    return [x for _ in f'{{'\\n' * n}}']\n",
    "PEP 701 comment": "{head}    f'''{{\n    n  # how many\n    }}'''\n    return [x] * n\n",
    "PEP 696 default": "def f[T = int](x: T, n: int = 2):\n    {doc}\n    return [x] * n\n",
    "async": "async def f[T](x: T, n: int = 2):\n    {doc}\n    return [x] * n\n",
}
DOC = '"""Repeat.\n\n    Args:\n        x: what\n        n: how often\n    """'
FRAMES = {
    "plain": "{}",
    "with a future import": "from __future__ import annotations\n{}",
    "with a document before it": '"""Doc."""\nfrom __future__ import annotations\nimport math\n{}',
    "with a guard": "{}\ndef main():\n    print(f(1))\n\nif __name__ == '__main__':\n    main()\n",
    "with a byte order mark": "\ufeff{}",
}


def sources() -> list[str]:
    return [
        frame.format(text.replace("{head}", HEAD).format(doc=DOC))
        for frame in FRAMES.values()
        for text in NEWER.values()
    ]


@pytest.mark.parametrize("source", sources())
def test_what_the_guest_accepts_runs_and_is_described(source: str) -> None:
    tool = Tool.from_source(source)
    assert (tool.name, tool.description, tool.derived) == ("f", "Repeat.", True)
    assert tool.json_schema is not None
    parameters = tool.json_schema["parameters"]
    assert parameters["required"] == ["x"]
    assert parameters["properties"]["n"] == {"type": "integer", "default": 2, "description": "how often"}
    assert parameters["properties"]["x"]["description"] == "what"
    result = run_tool(tool, {"x": 1, "n": "3"})
    assert (result.error, result.func_return, result.stdout) == (None, [1, 1, 1], [])


def test_positional_only_parameters_and_those_that_are_injected_are_seen() -> None:
    source = "def f[T](x: T, y: int = 2, /, *, agent_id=None) -> list:\n    return [x, y]\n"
    assert run_tool(Tool.from_source(source), {"x": 1, "y": 3}).func_return == [1, 3]


def test_types_of_the_source_are_read_from_the_guests_answer() -> None:
    source = (
        "from pydantic import BaseModel\n"
        "class Spot(BaseModel):\n    town: str\n    zoom: int = 3\n"
        "    def name(self):\n        return f'{self.town + 'x'}'\n"
        "def f(spot: Spot, other: int = len(f'{'a'}')):\n    return 1\n"
    )
    tool = Tool.from_source(source)
    assert tool.json_schema is not None
    assert [*tool.json_schema["parameters"]["properties"]["spot"]["properties"]] == ["town", "zoom"]
    assert tool.json_schema["parameters"]["required"] == ["spot"]


@pytest.mark.parametrize("source", ["def f(:\n    pass", "def f[T(x): pass", "x = = 1"])
def test_what_the_guest_cannot_parse_either_is_refused_with_its_line(source: str) -> None:
    with pytest.raises(ToolSourceError, match=r"the source does not parse: .+ \(line 1\)"):
        Tool.from_source(source)


@pytest.mark.parametrize("source", sources())
def test_the_guests_answer_parses_on_the_oldest_host(source: str) -> None:
    kept, entries, skeleton = read_in_guest(source.removeprefix("\ufeff"))
    assert kept.count("\n") == source.count("\n")
    assert entries == (frozenset({"main"}) if "def main" in source else frozenset())
    ast.parse(skeleton, feature_version=(3, 11))


def test_a_skeleton_has_nothing_that_runs() -> None:
    source = (
        "import os\nprint(1)\nfor x in []: pass\n@deco\ndef f(a=[b for b in c], *, k=1):\n    'Doc.'\n    return 1\n"
        "class A(B):\n    'Doc.'\n    x: int = f'{1}'\n    y = 3\n    def m(self): pass\n"
    )
    assert skeleton_of(ast.parse(source)) == (
        'import os\n\ndef f(a=_computed, *, k=1):\n    """Doc."""\n\n'
        'class A(B):\n    """Doc."""\n    x: int = _computed\n    y = 3'
    )


def test_the_version_is_the_guests() -> None:
    result = run_tool(Tool.from_source("def f():\n    import sys\n    return list(sys.version_info[:2])"))
    assert result.func_return == list(GUEST_PYTHON)
    assert sys.version_info >= (3, 11)
