"""`exit`, `quit` and `help` (empythoned 9) are missing, and `import pydoc` fails.

The kind: the builtins that Python has in a process and an embedded one often has not, and what they need.
"""

from __future__ import annotations

import pytest

from wasm_sandbox import Tool, run_tool

NAMES = ("exit", "quit", "help", "copyright", "credits", "license")


def value_of(body: str) -> object:
    result = run_tool(Tool.from_source("def f():\n" + "".join(f"    {line}\n" for line in body.splitlines())))
    assert result.error is None
    return result.func_return


@pytest.mark.parametrize("name", NAMES)
def test_the_builtin_is_there_and_says_what_it_is(name: str) -> None:
    assert value_of(f"import builtins\nreturn repr(builtins.{name}) == repr({name}) and len(repr({name})) > 20") is True


@pytest.mark.parametrize("arguments", ["", "0", "None", "3", "'a text'"])
@pytest.mark.parametrize("name", ["exit", "quit"])
def test_it_ends_the_tool_as_sys_exit_does(name: str, arguments: str) -> None:
    sources = [f"import sys\ndef f():\n    print('before')\n    {f}({arguments})\n" for f in (name, "sys.exit")]
    ended = [run_tool(Tool.from_source(source)) for source in sources]
    assert ended[0].error == ended[1].error
    assert (ended[0].stdout, ended[0].stderr) == (ended[1].stdout, ended[1].stderr) == (["before\n"], ended[1].stderr)


@pytest.mark.parametrize(
    ("subject", "said"),
    [
        ("len", "Return the number of items in a container."), ("'if'", "The \"if\" statement"),
        ("'json.dumps'", "Serialize ``obj``"), ("list", "append(self, object"), ("f", "Say it."),
        ("'keywords'", "nonlocal"), ("'topics'", "ASSERTION"), ("int.bit_length", "Number of bits"),
    ],
)  # fmt: skip
def test_help_helps(subject: str, said: str) -> None:
    result = run_tool(Tool.from_source(f'def f():\n    """Say it."""\n    help({subject})\n'))
    assert result.error is None
    assert said in "".join(result.stdout or [])


def test_pydoc_describes_modules() -> None:
    assert "JSON" in str(value_of("import pydoc, json\nreturn pydoc.plain(pydoc.render_doc(json))"))
