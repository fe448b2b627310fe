"""The boundary holds in the image "science": what is refused there, and a guest that writes all over its own memory."""

from __future__ import annotations

import pytest

from tests.hostile.test_authority import DENIED, REFUSALS
from wasm_sandbox import ErrorKind, Limits, Tool, run_code, run_tool

HEAD = "import numpy as np, pandas as pd\n"


def body_of(text: str) -> Tool:
    lines = "\n    ".join(text.splitlines())
    return Tool(name="f", source_code=f"def f():\n    {lines}\n")


@pytest.mark.parametrize("name", DENIED)
def test_what_is_refused_in_the_default_image_is_refused_here(name: str) -> None:
    error = run_tool(body_of(DENIED[name]), image="science", limits=Limits(timeout_seconds=10)).error
    assert error is not None
    assert error.kind is ErrorKind.TOOL_EXCEPTION, error
    assert error.exception_name in REFUSALS, error


# numpy checks no bounds of what `as_strided` makes: any address of the guest is within reach, and no other one.
WILD = HEAD + "a = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), ({size},), (1,))\n"
AFTERWARDS = HEAD + "pd.DataFrame({'k': list('abc') * 3, 'v': np.arange(9)}).groupby('k').v.sum().tolist()"


@pytest.mark.parametrize(
    "work",
    [
        "a[:] = 0",
        "a[:] = 255",
        "a[::4096] = 1",
        "a[np.random.default_rng(0).integers(0, {size}, 10**5)] = 7",
        "a[-(np.arange(10**6) * 64 + 64)] = 3",
        "b = np.lib.stride_tricks.as_strided(a, (2**20,), (-64,))\nb[:] = 170",
        "found = int(a.sum())\nfound",
        "a.sort()",
        "np.copyto(a[: 2**24], a[2**23 : 2**23 + 2**24])",
    ],
)
@pytest.mark.parametrize("size", [2**20, 2**31 - 1])
def test_memory_written_to_at_random_is_the_guests_own(work: str, size: int) -> None:
    code = (WILD + work).format(size=size)
    error = run_code(code, image="science", limits=Limits(timeout_seconds=20, fuel=2_000_000_000)).error
    if error is not None:
        assert error.kind in {*ErrorKind}
        assert error.kind is not ErrorKind.TIMEOUT, error
    assert run_code(AFTERWARDS, image="science").value == [9, 12, 15]


NESTED = "x = np.empty(1, object)\nfor _ in range({depth}):\n    y = np.empty(1, object)\n    y[0] = x\n    x = y\n"
DEEP = {
    "lists as an array": "x = 1\nfor _ in range(100_000): x = [x]\nnp.array(x)",
    "lists as objects": "x = 1\nfor _ in range(100_000): x = [x]\nnp.array([x, 1], dtype=object)",
    "objects added": NESTED.format(depth=100_000) + "x + 1",
    "objects shown": NESTED.format(depth=100_000) + "repr(x)",
    "objects copied": NESTED.format(depth=50_000) + "import copy\ncopy.deepcopy(x)",
    "objects given up": NESTED.format(depth=300_000) + "del x, y",
    "a type of records": "t = np.dtype('i4')\nfor _ in range(20_000): t = np.dtype([('a', t)])\nnp.zeros(1, t)",
    "a table in json": "x = {}\nfor _ in range(50_000): x = {'a': x}\npd.json_normalize(x)",
    "a table to json": "x = {}\nfor _ in range(50_000): x = {'a': x}\npd.Series([x]).to_json()",
    "json that is read": "import io\npd.read_json(io.StringIO('[' * 10**6))",
    "an expression": "pd.eval('(' * 5000 + '1' + ')' * 5000)",
    "a query": "pd.DataFrame({'a': [1]}).query('a' + ' + a' * 20_000 + ' > 1')",
    "a series that holds itself": "s = pd.Series([None], dtype=object)\ns[0] = s\nrepr(s)",
}


@pytest.mark.parametrize("name", DEEP)
def test_what_nests_too_deeply_ends_in_words(name: str) -> None:
    result = run_code(HEAD + DEEP[name], image="science", limits=Limits(timeout_seconds=60, memory_bytes=512 << 20))
    kinds = (ErrorKind.TOOL_EXCEPTION, ErrorKind.STACK_OVERFLOW, ErrorKind.OUT_OF_MEMORY)
    assert result.error is None or result.error.kind in kinds, result.error
    assert run_code(AFTERWARDS, image="science").value == [9, 12, 15]
