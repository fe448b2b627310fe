"""A text is counted before any parser sees it: never too low, and cut only where statements begin."""

from __future__ import annotations

import ast
import io
import symtable
import tokenize
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.fuzz_sources import text_of
from wasm_sandbox import Tool, run_tool
from wasm_sandbox.tool import bounds
from wasm_sandbox.tool.bounds import Cost, TooCostly, cost_of
from wasm_sandbox.tool.parsing import parse_module, read_json
from wasm_sandbox.tool.scopes import global_names

FILES = [
    path
    for folder in ("ast", "asyncio", "json", "email")
    for path in sorted(Path(ast.__file__).parent.glob(f"{folder}/*.py"))
]
FILES += sorted(Path(ast.__file__).parent.glob("*.py"))[::3]
NOT_COUNTED = {tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}

BLOCKS = [
    "x = 1\n",
    "def f(a, *b, c=x, **d):\n    return a + y\n",
    "class A(B):\n    z = x\n    def g(self): return z, __p\n",
    "def f():\n    global x\n    x = [y for y in x if (w := y)]\n    return lambda q: q + x\n",
    "[v := u for u in x]\n",
    "def f():\n    x = 1\n    def g():\n        nonlocal x\n        x = len\n"
    "        def h():\n            global x\n            return lambda: x\n",
    "import os.path as p, sys\nfrom a import b as c, d\n",
    "for i, (j, *k) in x:\n    del i\n",
    "with a as b, c as (d, e): pass\n",
    "try:\n    pass\nexcept E as e:\n    print(e)\n",
    "match x:\n    case {'a': a, **rest}: pass\n    case [b, *c] | A(d=b) as c: pass\n",
    "x: int = 1\n(y): int\nz.w: str = x\n",
    "@deco\nasync def f(x: int) -> str:\n    async for a in b: await a\n",
    "class A:\n    __x = 1\n    def f(self, __y=1):\n        global __z\n        __z = __x\n"
    "        return __class__, [__x for __x in __y]\n",
    "x += y\n",
    "(lambda a, b=c: a(b, d))(e)\n",
    "class A:\n    x = 1\n    y = [x for _ in x]\n    def x(self): return x\n",
]


def tokens_of(text: str) -> int:
    return sum(token.type not in NOT_COUNTED for token in tokenize.generate_tokens(io.StringIO(text).readline))


def height_of(tree: ast.AST) -> int:
    height, level = 0, [tree]
    while level:
        height += 1
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return height


def cost_or_none(text: str) -> Cost | None:
    try:
        return cost_of(text)
    except TooCostly:
        return None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_standard_library_is_counted_and_cut_as_python_reads_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    cost = cost_or_none(text)
    if cost is None:
        assert len(text) > 50_000
        return
    assert cost.tokens >= tokens_of(text)
    tree = ast.parse(text)
    assert height_of(tree) <= 3 * cost.height + 10
    read = parse_module(text)
    assert [ast.dump(node) for node in read.body] == [ast.dump(node) for node in tree.body]
    assert [node.lineno for node in read.body] == [node.lineno for node in tree.body]


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.binary(max_size=30))
def test_whatever_parses_was_not_counted_too_low(data: bytes) -> None:
    text = text_of(data)[:20_000]
    cost = cost_or_none(text)
    if cost is None:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
        tokens = tokens_of(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError):
        return
    assert cost.tokens + 1 >= tokens  # a last line without an end has one for the reader
    assert height_of(tree) <= 4 * cost.height + 12


def test_the_guests_newer_python_counts_its_own_strings_right() -> None:
    """There the parts of an f-string may hold its own quotes."""
    source = Path(bounds.__file__).read_text(encoding="utf-8")
    texts = [
        'f"{x["a" + 1 + 1]:>{w + 1}}" + 1',
        "f'{f'{f'{1 + 1}'}'}{{}}'",
        'f"""{\n"a"}""" + rf"\\{a}"',
        "f'{a!r:{b}}{c=}'",
    ]
    code = (
        f"import ast, io, tokenize\nfrom typing import NamedTuple\nnames = {{'__name__': 'bounds'}}\n"
        f"def f(texts: list[str]) -> list[tuple[int, int, int]]:\n    exec({source!r}, names)\n    found = []\n"
        "    for text in texts:\n        ast.parse(text)\n        cost = names['cost_of'](text)\n"
        "        real = [t for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.string.strip()]\n"
        "        found.append((cost.tokens, sum(t.type not in (59, 60, 61, 62, 65) for t in real), len(cost.pieces)))\n"
        "    return found\n"
    )
    result = run_tool(Tool.from_source(code), {"texts": texts})
    assert result.error is None, result.error
    assert all(counted >= real // 2 and pieces == 1 for counted, real, pieces in result.func_return), result.func_return


def by_symtable(text: str) -> tuple[set[str], set[str]]:
    """Global names that are bound and read, as CPython's own table has them."""
    module = symtable.symtable(text, "<tool>", "exec")
    bound = {s.get_name() for s in module.get_symbols() if s.is_assigned() or s.is_declared_global()}
    reads = {symbol.get_name() for symbol in module.get_symbols() if symbol.is_referenced()}
    pending = module.get_children()
    while pending:
        scope = pending.pop()
        pending += scope.get_children()
        for symbol in scope.get_symbols():
            if symbol.is_declared_global() and symbol.is_assigned():
                bound.add(symbol.get_name())
            if symbol.is_global() and symbol.is_referenced():
                reads.add(symbol.get_name())
    return bound, reads


@settings(max_examples=200)
@given(blocks=st.lists(st.tuples(st.sampled_from(BLOCKS), st.integers(0, 2)), max_size=5))
def test_global_names_are_those_of_the_symbol_table(blocks: list[tuple[str, int]]) -> None:
    text, around = "", ["", "def outer(x, y):\n    z = 1\n", "class Outer:\n    x = 1\n"]
    for block, kind in blocks:
        lines = "".join(f"    {line}\n" for line in block.splitlines())
        text += around[kind] + lines if kind else block
    try:
        bound, reads = by_symtable(text)
    except SyntaxError:
        return
    found = global_names(ast.parse(text))
    # From Python 3.12 on comprehensions are written out where they stand, and their own names with them.
    assert found.binds <= bound | {"v"}
    assert bound - found.binds <= {"y", "u", "_", "__x"}
    assert found.reads - {"__class__"} == reads - {"__class__"} or bound - found.binds


@pytest.mark.parametrize("text", ["[" * 301 + "]" * 301, '{"a":' * 301 + "1" + "}" * 301, "[" * 5000, '{"]":[' * 151])
def test_json_that_nests_too_deeply_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"nested more than 300 levels deep"):
        read_json(text)


@pytest.mark.parametrize(
    "text", ['"' + "[" * 1000 + '"', "[" + "[]," * 999 + "[]]", '["\\"[", "]"]', "[" * 300 + "]" * 300]
)
def test_json_with_many_brackets_is_read_if_it_is_flat(text: str) -> None:
    assert read_json(text) == read_json(text.encode())
