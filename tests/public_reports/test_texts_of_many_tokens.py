"""Compiling some 65,000 tokens on one line (CPython's own test_fstring) takes twenty times native.

The kind: the compiler's work, which its fuel counts, grows with the text and not with its square, whatever the text is
made of.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from wasm_sandbox import Limits, Tool, run_tool

TEXTS = {
    "f-strings": "'x = ' + \"f'{a}' \" * n",
    "one f-string": "'x = f\"' + '{a} ' * n + '\"'",
    "formats": "'x = f\"' + '{a:>{b}} ' * n + '\"'",
    "debugging": "'x = f\"' + '{a=} ' * n + '\"'",
    "conversions": "'x = f\"' + '{a!r} ' * n + '\"'",
    "nested f-strings": "'x = ' + 'f\"{f\\'{a}\\'}\" ' * n",
    "triple quotes": "'x = f\"\"\"' + '{a}\\n' * n + '\"\"\"'",
    "strings": "'x = (' + \"'a' \" * n + ')'",
    "bytes": "'x = (' + \"b'a' \" * n + ')'",
    "a list": "'x = [' + 'a, ' * n + ']'",
    "numbers": "'x = [' + '1, ' * n + ']'",
    "statements": "'a = 1; ' * n",
    "other letters": "'ä = \"ö\"; ' * n",
    "lines": "'a = 1\\n' * n",
    "calls": "'f(a); ' * n",
    "lambdas": "'x = [' + 'lambda: a, ' * n + ']'",
    "comparisons": "'x = [' + 'a < b, ' * n + ']'",
    "a dictionary": "'x = {' + '1: a, ' * n + '}'",
    "comments": "'a # b\\n' * n",
    "continued lines": "'x = a' + ' \\\\\\n, a' * n",
}
SIZES = (4_000, 8_000, 16_000)
MOST_GROWTH = 2.6
"""Of the work for a text twice as long."""


def work(expression: str, n: int) -> int:
    """Fuel that it takes to make the text and compile it."""
    tool = Tool.from_source(f"def f(n: int):\n    return compile({expression}, 'text', 'exec') is not None\n")
    result = run_tool(tool, {"n": n}, limits=Limits(fuel=10**12, timeout_seconds=60, memory_bytes=512 << 20))
    assert (result.error, result.func_return) == (None, True)
    assert result.usage is not None
    assert result.usage.fuel is not None
    return result.usage.fuel


@pytest.mark.parametrize("name", TEXTS)
def test_the_work_grows_with_the_text(name: str) -> None:
    idle = work("'pass'", 0)
    made = [work(TEXTS[name], n) - idle for n in SIZES]
    growth = [later / earlier for earlier, later in pairwise(made)]
    assert max(growth) < MOST_GROWTH, (made, growth)


def test_expressions_are_shown_as_they_stand() -> None:
    """What the parser keeps of an expression that prints itself."""
    source = (
        "def f():\n    a, w = 1, 5\n"
        "    return [f'{a=}', f'{ a = }', f'{a =!r:>4}', f'{a=:>{w}}', f'{(a, \"#\")=}', f'''{\n  a  # why\n  =}''',\n"
        "        f'{a:{w}}{a=}{w=}', f'{f\"{a=}\"=}', f'ü{a=}ä']\n"
    )
    result = run_tool(Tool.from_source(source))
    assert result.error is None
    assert result.func_return == [
        "a=1", " a = 1", "a =   1", "a=    1", "(a, \"#\")=(1, '#')", "\n  a  \n  =1", "    1a=1w=5",
        "f\"{a=}\"='a=1'", "üa=1ä",
    ]  # fmt: skip
