"""orjson in the image "science": what it reads and writes, that Python's own `json` agrees, and its limits."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasm_sandbox import CodeResult, ErrorKind, Limits, Session, Tool, run_code, run_tool
from wasm_sandbox.results import ToolError

HEAD = """
import dataclasses, datetime, decimal, enum, uuid, zoneinfo
import numpy as np, orjson, pandas as pd
@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.5
class Colour(enum.Enum):
    RED = "red"
"""

CALLS = {
    "data": (
        "orjson.dumps({'a': [1, -2.5, None, True, 'é\\n\"\\\\', {}], 'b': []})",
        '{"a":[1,-2.5,null,true,"é\\n\\"\\\\",{}],"b":[]}'.encode(),
    ),
    "back": (
        'orjson.loads(\'{"a": [1, -2.5e3, null, true, "\\\\u00e9\\\\ud83d\\\\ude00"]}\')',
        {"a": [1, -2500.0, None, True, "é😀"]},
    ),
    "bytes": ("[orjson.loads(kind(b'[1]')) for kind in (bytes, bytearray, memoryview)]", [[1]] * 3),
    "integers": (
        "orjson.loads(orjson.dumps([2**63 - 1, -2**63, 2**64 - 1, 2**31, -2**31 - 1, 2**32]))",
        [2**63 - 1, -(2**63), 2**64 - 1, 2**31, -(2**31) - 1, 2**32],
    ),
    "floats": (
        "orjson.dumps([0.1, 1e300, 5e-324, -0.0, float('nan'), float('inf'), 1e16, 123456789.125])",
        b"[0.1,1e+300,5e-324,-0.0,null,null,1e+16,123456789.125]",
    ),
    "dates": (
        "orjson.dumps([datetime.datetime(2024, 2, 29, 1, 2, 3, 4), datetime.date(2024, 2, 29), datetime.time(1, 2),"
        " datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo('Europe/Oslo')),"
        " datetime.datetime(1, 1, 1, tzinfo=datetime.timezone.utc)])",
        b'["2024-02-29T01:02:03.000004","2024-02-29","01:02:00","2024-07-01T00:00:00+02:00",'
        b'"0001-01-01T00:00:00+00:00"]',
    ),
    "options of dates": (
        "orjson.dumps(datetime.datetime(2024, 1, 1, 0, 0, 0, 5), option=orjson.OPT_NAIVE_UTC |"
        " orjson.OPT_UTC_Z | orjson.OPT_OMIT_MICROSECONDS)",
        b'"2024-01-01T00:00:00Z"',
    ),
    "objects": (
        "orjson.dumps([Point(1), Colour.RED, uuid.UUID(int=5)])",
        b'[{"x":1,"y":0.5},"red","00000000-0000-0000-0000-000000000005"]',
    ),
    "indented": (
        "orjson.dumps({'b': [1], 'a': {}}, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS |"
        " orjson.OPT_APPEND_NEWLINE)",
        b'{\n  "a": {},\n  "b": [\n    1\n  ]\n}\n',
    ),
    "other keys": (
        "orjson.dumps({1: 1, None: 2, True: 3, 1.5: 4, datetime.date(2024, 1, 1): 5, Colour.RED: 6},"
        " option=orjson.OPT_NON_STR_KEYS)",
        b'{"1":3,"null":2,"1.5":4,"2024-01-01":5,"red":6}',
    ),
    "a default": (
        "orjson.dumps({'a': decimal.Decimal('1.5'), 'b': {1}}, default=lambda o: list(o) if isinstance(o, set)"
        " else str(o))",
        b'{"a":"1.5","b":[1]}',
    ),
    "a fragment": ("orjson.dumps([orjson.Fragment(b'{\"a\":1}'), orjson.Fragment('2')])", b'[{"a":1},2]'),
    "arrays": (
        "orjson.dumps([np.arange(6).reshape(2, 3), np.array([1.5, np.nan]), np.array([1, 2], 'int8'),"
        " np.array([True]), np.array([3], 'uint32'), np.array([0.1], 'float32'), np.array([0.5], 'float16')],"
        " option=orjson.OPT_SERIALIZE_NUMPY)",
        b"[[[0,1,2],[3,4,5]],[1.5,null],[1,2],[true],[3],[0.1],[0.5]]",
    ),
    "indices of arrays": (
        "orjson.dumps(np.argsort(np.array([3, 1, 2])), option=orjson.OPT_SERIALIZE_NUMPY)",
        b"[1,2,0]",
    ),
    "scalars of numpy": (
        "orjson.dumps([np.int64(-5), np.uint8(7), np.float64(0.5), np.bool_(False), np.int32(-3),"
        " np.datetime64('2024-02-29T01:02:03')], option=orjson.OPT_SERIALIZE_NUMPY)",
        b'[-5,7,0.5,false,-3,"2024-02-29T01:02:03"]',
    ),
    "a table": (
        "orjson.dumps(pd.DataFrame({'a': [1, 2], 'b': ['x', 'y']}).to_dict('records'))",
        b'[{"a":1,"b":"x"},{"a":2,"b":"y"}]',
    ),
    "subclasses": (
        "orjson.dumps([type('S', (str,), {})('s'), type('I', (int,), {})(1), type('D', (dict,), {})(a=2)])",
        b'["s",1,{"a":2}]',
    ),
    "long keys": (
        "orjson.loads(orjson.dumps({'k' * n: n for n in (1, 63, 64, 65, 300)}))",
        {"k" * n: n for n in (1, 63, 64, 65, 300)},
    ),
    "the version": ("orjson.__version__.split('.')[0]", "3"),
}


def ended(code: str, **limits: object) -> CodeResult:
    return run_code(HEAD + code, image="science", limits=Limits.model_validate(limits))


def failed(code: str, **limits: object) -> ToolError:
    error = ended(code, **limits).error
    assert error is not None
    return error


@pytest.mark.parametrize("name", CALLS)
def test_what_it_can_do(name: str) -> None:
    expression, value = CALLS[name]
    result = ended(expression)
    assert result.error is None, result.error
    assert result.value == value


@pytest.mark.parametrize(
    ("code", "name", "words"),
    [
        ("orjson.loads('[1,]')", "JSONDecodeError", "line 1 column 3"),
        ("orjson.loads('')", "JSONDecodeError", "empty"),
        ("orjson.loads(b'\\xff')", "JSONDecodeError", "UTF-8"),
        ("orjson.loads('[' * 5000 + ']' * 5000)", "JSONDecodeError", "depth limit"),
        ("orjson.loads('[' * 10**6)", "JSONDecodeError", ""),
        ("orjson.dumps(object())", "TypeError", "not JSON serializable: object"),
        ("orjson.dumps(2**64)", "TypeError", "64-bit"),
        ("orjson.dumps(2**53, option=orjson.OPT_STRICT_INTEGER)", "TypeError", "53-bit"),
        ("orjson.dumps('\\ud800')", "TypeError", "UTF-8"),
        ("a = []\na.append(a)\norjson.dumps(a)", "TypeError", "ecursion"),
        ("a = []\nfor _ in range(10**5): a = [a]\norjson.dumps(a)", "TypeError", "ecursion"),
        ("orjson.dumps(1, default=lambda o: o, option=10**9)", "TypeError", "opts"),
        ("orjson.dumps({1}, default=lambda o: o)", "TypeError", "recursion"),
        ("orjson.dumps()", "TypeError", "obj"),
    ],
)
def test_what_it_refuses_is_its_own_error(code: str, name: str, words: str) -> None:
    error = failed(code)
    assert (error.kind, error.exception_name) == (ErrorKind.TOOL_EXCEPTION, name), error
    assert words in error.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=70), inner, max_size=6),
    max_leaves=30,
)  # fmt: skip


@pytest.fixture(scope="module")
def session() -> Any:
    from wasm_sandbox import Sandbox

    with Sandbox(image="science").session() as session:
        yield session


@settings(max_examples=60, deadline=None)
@given(value=JSON)
def test_any_data_goes_through_it_as_through_json(session: Session, value: Any) -> None:
    text = json.dumps(value)
    result = session.run_code(
        f"import json, orjson\nt = {text!r}\nv = orjson.loads(t)\n(v, orjson.dumps(v) == "
        "json.dumps(v, separators=(',', ':'), ensure_ascii=False).encode(), v == json.loads(t))"
    )
    assert result.error is None, result.error
    read, _, same = result.value
    assert same
    assert read == value
    assert json.loads(json.dumps(read)) == value


def test_a_tool_takes_and_gives_bytes() -> None:
    tool = Tool.from_source(
        "import orjson\ndef double(data: bytes) -> bytes:\n    return orjson.dumps([2 * n for n in orjson.loads(data)])"
    )
    result = run_tool(tool, {"data": b"[1, 2.5]"}, image="science")
    assert result.status == "success", result.error
    assert result.func_return == b"[2,5.0]"


@pytest.mark.parametrize(
    "code",
    [
        "orjson.dumps(['x' * 10**6] * 500)",
        "orjson.dumps('\\x01' * 10**8)",
        "a = [0] * 10**7\nfor _ in range(200): a = [a]\norjson.dumps(a, option=orjson.OPT_INDENT_2)",
        "orjson.loads(b'[' + b'1,' * 2 * 10**7 + b'1]')",
        "t = b'[' + b'1.5,' * 10**6 + b'1]'\nkept = [orjson.loads(t) for _ in range(100)]",
        "t = b'[' + b'\"xyz\",' * 10**6 + b'1]'\nkept = [orjson.loads(t) for _ in range(100)]",
        "t = b'[' + b'{},' * 10**6 + b'1]'\nkept = [orjson.loads(t) for _ in range(100)]",
    ],
)
def test_want_of_memory_is_told_as_that(code: str) -> None:
    error = failed(code, timeout_seconds=60, memory_bytes=256 << 20)
    if error.kind is ErrorKind.TOOL_EXCEPTION:  # it says so itself where it makes room for what it reads
        assert (error.exception_name, "memory" in error.message) == ("JSONDecodeError", True), error
    else:
        assert error.kind is ErrorKind.OUT_OF_MEMORY, error


def test_long_work_ends_at_the_deadline_and_when_the_fuel_is_used_up() -> None:
    loop = "data = [{'a': 1.5, 'b': 'é' * 99}] * 10**4\nwhile True: orjson.loads(orjson.dumps(data))"
    assert failed(loop, timeout_seconds=0.5).kind is ErrorKind.TIMEOUT
    assert failed(loop, timeout_seconds=60, fuel=50_000_000).kind is ErrorKind.OUT_OF_FUEL
