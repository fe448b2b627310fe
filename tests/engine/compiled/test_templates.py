"""Scripts of the known shape run half prepared: nobody may be able to tell, except by the time it takes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.usage import counted
from wasm_sandbox.outcome import Outcome
from wasm_sandbox.script.generate import generate_script
from wasm_sandbox.tool.definition import Tool

RunScript = Callable[..., Outcome]

PARAMETERS = {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}}
ADD = "def add(x: int, y: int) -> int:\n    return x + y"

SOURCES = {
    "plain": ADD,
    "prints": ADD.replace("return", "print('said'); return"),
    "raises": ADD.replace("x + y", "x / 0"),
    "raises at the top": "1 / 0\n" + ADD,
    "raises a class of its own": ADD.replace("return x + y", "raise type('Own', (Exception,), {})('q')"),
    "chained": ADD.replace("return x + y", "try:\n        1 / 0\n    except Exception as e: raise OSError from e"),
    "syntax error": ADD + " +",
    "open quote": ADD + '\nz = """',
    "open parenthesis": ADD + "\nz = (",
    "open decorator": ADD + "\n@",
    "open block": ADD + "\nif True:",
    "open try": ADD + "\ntry:\n    pass",
    "continued line": ADD + "\nz = 1 + \\",
    "comment at the end": ADD + "\n# the end",
    "future import": "from __future__ import annotations\n" + ADD,
    "late future import": ADD + "\nfrom __future__ import annotations",
    "encoding cookie": "# -*- coding: latin-1 -*-\n" + ADD.replace("x + y", "'é'"),
    "carriage returns": ADD.replace("\n", "\r\n"),
    "form feed and tabs": "\f" + ADD.replace("    ", "\t"),
    "long": "\n" * 400 + ADD + "\n" * 50,
    "unpicklable result": ADD.replace("x + y", "lambda: 1"),
    "result whose dump fails": ADD.replace("x + y", "{frozenset(): {1: object}, 2: map(int, [])}"),
    "exits": ADD.replace("return x + y", "import sys; sys.exit(4)"),
    "shows its stack": ADD.replace("return x + y", "import traceback; traceback.print_stack(); return 1"),
    "shows its source": ADD.replace("return x + y", "import inspect; return inspect.getsource(add)"),
    "lists its globals": ADD.replace("x + y", "sorted(globals())"),
    "no pydantic": "import sys\nsys.modules['pydantic'] = None\n" + ADD,
    "another BaseModel": "import pydantic\npydantic.BaseModel = object\n" + ADD,
    "a broken model_dump": "import pydantic\npydantic.BaseModel.model_dump = lambda self: 1 / 0\n" + ADD,
    "another import": "import builtins\nbuiltins.__import__ = None\n" + ADD,
    "another typing.Any": "import typing\ntyping.Any = int\n" + ADD.replace("x + y", "'text'"),
    "returns a model": "from pydantic import BaseModel\nclass M(BaseModel):\n    a: int\n"
    + ADD.replace("x + y", "M(a=x)"),
    "returns a dataclass": "import dataclasses\n@dataclasses.dataclass\nclass D:\n    a: int\n"
    + ADD.replace("x + y", "D(x)"),
    "stack in a serializer": "import traceback\nfrom pydantic import BaseModel, model_serializer\n"
    "class M(BaseModel):\n    @model_serializer\n    def s(self):\n        traceback.print_stack()\n        return 1\n"
    + ADD.replace("x + y", "M()"),
    "exit function reads the globals": "import atexit\natexit.register(lambda: print(sorted(globals())))\n" + ADD,
}  # fmt: skip


def unrecognised(text: str) -> str:
    """The same script with a space more at the end of its second line."""
    return text.replace("import pickle\n", "import pickle \n", 1)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_a_prepared_script_does_what_the_whole_script_does(run_script: RunScript, source: str) -> None:
    tool = Tool(name="add", source_code=source, json_schema={"name": "add", "parameters": PARAMETERS})
    text = generate_script(tool, {"x": 2, "y": 3}).text
    prepared = run_script(text)
    whole = run_script(unrecognised(text))
    assert prepared.ending == whole.ending
    assert prepared.exit_code == whole.exit_code
    assert prepared.exception == whole.exception
    assert prepared.stdout == whole.stdout
    assert prepared.stderr == whole.stderr


@pytest.mark.parametrize("name", ["plain", "raises", "returns a model", "comment at the end"])
def test_the_usual_script_is_recognised(run_script: RunScript, name: str) -> None:
    """Fuel tells: compiling the whole and making the class takes most of it."""
    tool = Tool(name="add", source_code=SOURCES[name], json_schema={"name": "add", "parameters": PARAMETERS})
    text = generate_script(tool, {"x": 2, "y": 3}).text
    assert counted(run_script(text).fuel) < 0.7 * counted(run_script(unrecognised(text)).fuel)


STATEFUL = {
    "plain": "return len(agent_state)",
    "changes it": "agent_state.memo = 'x'; agent_state['n'] = [x]; return agent_state.id",
    "lacks a name": "return agent_state.nothing",
    "reads its class": "return sorted(agent_state.keys()), type(agent_state).__name__, type(agent_state).__module__",
    "breaks its class": "type(agent_state).__getitem__ = None; return agent_state.id",
    "returns it": "return agent_state",
    "lists its globals": "return sorted(globals())",
}  # fmt: skip


@pytest.mark.parametrize("parameters", ["x, agent_state", "agent_state, agent_id, x"])
@pytest.mark.parametrize("body", STATEFUL.values(), ids=STATEFUL.keys())
@pytest.mark.parametrize("state", [None, {"id": "a", "nested": {"k": [1]}}], ids=["no state", "a state"])
def test_a_prepared_script_with_agent_state_does_what_the_whole_does(
    run_script: RunScript, state: dict[str, object] | None, body: str, parameters: str
) -> None:
    source = f"def add({parameters}):\n    {body}"
    tool = Tool(name="add", source_code=source, json_schema={"name": "add", "parameters": PARAMETERS})
    text = generate_script(tool, {"x": 2}, agent_state=state, agent_id="agent-7").text
    prepared, whole = run_script(text), run_script(unrecognised(text))
    for what in ("ending", "exit_code", "exception", "stdout", "stderr"):
        assert getattr(prepared, what) == getattr(whole, what), what
    if state and "return len" in body:
        assert counted(prepared.fuel) < 0.7 * counted(whole.fuel)
