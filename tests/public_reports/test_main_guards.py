"""The main guard runs (adk-python 791, USACO 5, aideml 62): at every call, before the tool, and `main` was the tool.

What a source does under ``if __name__ == "__main__":`` is no part of the tool that `Tool.from_source` makes of it;
a tool that is given by hand keeps its source, as agent servers have it.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasm_sandbox import Tool, run_tool
from wasm_sandbox.tool.main_guard import without_main_guard

TOOL = 'def f(x=1):\n    """Tool."""\n    return x + 1\n'

TESTS = [
    '__name__ == "__main__"',
    "__name__ == '__main__'",
    '"__main__" == __name__',
    '(__name__ == "__main__")',
    '(\n    __name__\n    == "__main__"\n)',
    '__name__ \\\n  == "__main__"',
    '__name__ in ("__main__", "__mp_main__")',
    '__name__ is "__main__"',
    'not __name__ != "__main__"',
    '__name__ == "__main__" and len(__name__) > 3',
    'len("é") and __name__ == "__main__"',
]
DEEDS = [
    "print('deed')",
    "raise SystemExit(3)",
    "import sys; sys.exit(2)",
    "import argparse\nargparse.ArgumentParser().parse_args(['--no'])",
    "while True: pass",
    "x = '''\nmany\nlines'''\nprint(x)",
    "print('a'); # and so on\nprint('b');",
    "for i in range(3):\n    if i:\n        raise ValueError(i)\n    else:\n        pass",
    "global_state = f(2)\nassert False, 'é'",
]
FRAMES = [
    "{guard}",
    "try:\n{indented}\nexcept ImportError:\n    pass",
    "for _ in range(2):\n{indented}",
    "with __import__('contextlib').suppress(KeyError):\n    y = 1\n{indented}\n    z = 2",
    "if True:\n{indented}\nelse:\n    w = 1",
]


def indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))


def guarded(test: str, deed: str, rest: str, one_line: bool) -> str:
    body = f" {deed}" if one_line and "\n" not in deed and "while" not in deed else f"\n{indented(deed)}"
    return f"if {test}:{body}{rest}"


RESTS = ["", "\nelse:\n    kept = 5", "\nelif len(__name__) < 2:\n    pass\nelse:\n    kept = 5"]


@st.composite
def sources(draw: st.DrawFn) -> str:
    guard = guarded(
        draw(st.sampled_from(TESTS)), draw(st.sampled_from(DEEDS)), draw(st.sampled_from(RESTS)), draw(st.booleans())
    )
    frame = draw(st.sampled_from(FRAMES))
    if "'''" in guard and "{indented}" in frame:
        frame = "{guard}"
    block = frame.format(guard=guard, indented=indented(guard))
    before = draw(st.sampled_from(["", "import math\n", '"""Doc."""\n\n', "# é\n\n"]))
    text = draw(st.sampled_from([f"{before}{block}\n{TOOL}", f"{before}{TOOL}{block}\n", f"{before}{TOOL}\n\n{block}"]))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    mark = draw(st.sampled_from(["", "\ufeff"]))
    return mark + text.replace("\n", end)


@pytest.mark.filterwarnings("ignore::SyntaxWarning")  # of `is` with a literal
@given(source=sources())
@settings(max_examples=300)
def test_what_is_left_does_nothing_of_the_guard_and_keeps_its_lines(source: str) -> None:
    tool = Tool.from_source(source)
    assert tool.name == "f"
    left = tool.source_code.removeprefix("\ufeff")
    assert left.count("\n") + left.count("\r") == source.count("\n") + source.count("\r")
    namespace: dict[str, object] = {"__name__": "__main__"}
    exec(compile(left, "tool.py", "exec"), namespace)  # no deed: it would end or never end
    native: dict[str, object] = {"__name__": "imported"}
    exec(compile(source.removeprefix("\ufeff"), "tool.py", "exec"), native)
    assert {name for name in namespace if not name.startswith("__")} == {
        name for name in native if not name.startswith("__")
    }
    before = next(n for n in ast.walk(ast.parse(source.removeprefix("\ufeff"))) if isinstance(n, ast.FunctionDef))
    after = next(node for node in ast.walk(ast.parse(left)) if isinstance(node, ast.FunctionDef))
    assert ast.dump(before, include_attributes=True) == ast.dump(after, include_attributes=True)


@pytest.mark.parametrize(
    "line",
    [
        '__name__ == "__main__" and print("deed")',
        'print("deed") if __name__ == "__main__" else None',
        'IS_MAIN = __name__ == "__main__"\nif IS_MAIN: print("deed")',
        'while __name__ == "__main__" or __name__ == "__main__": print("deed")',
        'if len("a") < 1: pass\nelif __name__ == "__main__": print("deed")\nelse: pass',
        'if __name__ != "__main__":\n    pass\nelse:\n    print("deed")',
    ],
)
def test_other_ways_to_ask_are_answered_no(line: str) -> None:
    result = run_tool(Tool.from_source(f"{TOOL}\n{line}\n"), {"x": 1})
    assert (result.func_return, result.stdout) == (2, [])


@pytest.mark.parametrize("deed", DEEDS)
def test_a_run_does_nothing_of_the_guard(deed: str) -> None:
    result = run_tool(Tool.from_source(f"{TOOL}{guarded(TESTS[0], deed, '', False)}\n"), {"x": 1})
    assert (result.func_return, result.stdout, result.stderr) == (2, [], [])


@pytest.mark.parametrize(
    ("guard", "name"),
    [
        ("main()", "f"),
        ("sys.exit(main())", "f"),
        ("raise SystemExit(main())", "f"),
        ("asyncio.run(main())", "f"),
        ("print(main())", "f"),
        ("sys.exit(cli())", "f"),
        ("asyncio.run(cli())", "f"),
        ("cli()", "f"),
        ("print(cli(3))", "cli"),
        ("print(f(2))", "cli"),
    ],
)
def test_what_only_starts_the_program_is_no_tool(guard: str, name: str) -> None:
    entry = "main" if "main" in guard else "cli"
    program = f"def {entry}(*args):\n    return f(1)\n\nif __name__ == '__main__':\n    {guard}\n"
    source = f"import asyncio, sys\n{TOOL}\n{program}"
    assert Tool.from_source(source).name == name
    assert Tool.from_source(source, entry).name == entry


def test_a_program_that_is_nothing_but_its_main_function_is_that_tool() -> None:
    assert Tool.from_source("def main():\n    return 1\nif __name__ == '__main__':\n    main()\n").name == "main"


def test_an_error_keeps_its_line_behind_a_guard() -> None:
    source = 'if __name__ == "__main__":\n    print("a")\n    print("b")\n\ndef f():\n    raise ValueError("here")\n'
    result = run_tool(Tool.from_source(source))
    assert result.error is not None
    assert 'line 6, in f\n    raise ValueError("here")' in (result.error.traceback or "")


def test_a_long_source_has_its_guard_taken_out_too() -> None:
    filler = "\n".join(f"def g{number}(a, b):\n    return [a, b, {number}]" for number in range(500))
    source = f"{filler}\n{TOOL}\ntry:\n    if __name__ == '__main__':\n        print('é')\nfinally:\n    pass\n"
    tool = Tool.from_source(source)
    assert "é" not in tool.source_code
    assert (
        tool.source_code.replace("pass", "").split()
        == source.replace("pass", "").replace("if __name__ == '__main__':\n        print('é')", "").split()
    )


def test_a_function_that_asks_is_left_as_it_is() -> None:
    source = 'def f():\n    if __name__ == "__main__":\n        return 1\n    return 2\n'
    assert Tool.from_source(source).source_code == source


def test_a_tool_given_by_hand_runs_its_guard_as_agent_servers_do() -> None:
    source = f'{TOOL}\nif __name__ == "__main__":\n    print("deed")\n'
    result = run_tool(
        Tool(name="f", source_code=source, json_schema={"parameters": {"properties": {"x": {}}}}), {"x": 1}
    )
    assert (result.func_return, result.stdout) == (2, ["deed\n"])


def test_deep_and_odd_texts_are_taken_as_they_are() -> None:
    for test in ("not " * 90 + '__name__ == "__main__"', "(" * 50 + '__name__ == "__main__"' + ")" * 50):
        Tool.from_source(f"{TOOL}if {test}:\n    pass\n")
    text = f"{TOOL}x = f'{{__name__ == \"__main__\"}}'\n"
    assert without_main_guard(ast.parse(text), text)[0] == text


def test_the_command_does_nothing_of_the_guard(tmp_path: Path) -> None:
    file = tmp_path / "tool.py"
    file.write_text(f"{TOOL}\ndef main():\n    print('deed')\n\nif __name__ == '__main__':\n    main()\n")
    command = [sys.executable, "-m", "wasm_sandbox", "run", str(file), "--args", '{"x": 4}']
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "5\n", "")
