"""Values of numpy and pandas as results, in the real guest: the host needs neither."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from wasm_sandbox import CodeResult, ErrorKind, Limits, Sandbox, Tool, ToolExecutionResult, run_code, run_tool

HEAD = "import numpy as np, pandas as pd\n"


def returned(expression: str, **options: Any) -> ToolExecutionResult:
    return run_tool(Tool.from_source(f"{HEAD}def f():\n    return {expression}"), image="science", **options)


def ended(expression: str, **options: Any) -> CodeResult:
    return run_code(HEAD + expression, image="science", **options)


SCALARS: dict[str, Any] = {
    "np.float64(1.5)": 1.5,
    "np.float32(0.5)": 0.5,
    "np.float16(0.5)": 0.5,
    "np.longdouble(2)": 2.0,
    "np.int8(-3)": -3,
    "np.uint64(2**64 - 1)": 2**64 - 1,
    "np.bool_(True)": True,
    "np.complex64(1 + 2j)": 1 + 2j,
    "np.clongdouble(1 + 2j)": 1 + 2j,
    "np.str_('é')": "é",
    "np.bytes_(b'y')": b"y",
    "np.datetime64('2024-01-02T03:04:05.123456789')": datetime(2024, 1, 2, 3, 4, 5, 123456),
    "np.datetime64('2024-01-02')": date(2024, 1, 2),
    "np.datetime64('20000-01-02')": "20000-01-02",
    "np.datetime64('NaT')": None,
    "np.timedelta64(1500, 'ms')": timedelta(seconds=1.5),
    "np.timedelta64(7)": 7,
    "np.ma.masked": None,
    "np.dtype('f4')": "float32",
    "pd.Timestamp('2024-01-02 03:04')": datetime(2024, 1, 2, 3, 4),
    "pd.Timestamp('2024-01-02 03:04', tz='UTC')": datetime(2024, 1, 2, 3, 4, tzinfo=UTC),
    "pd.Timestamp('2024-07-02', tz='Europe/Berlin')": datetime(2024, 7, 2, tzinfo=ZoneInfo("Europe/Berlin")),
    "pd.Timestamp(2024, 1, 2, tz=__import__('dateutil.tz').tz.tzoffset('x', 3600)).utcoffset()": timedelta(hours=1),
    "pd.Timedelta('1h')": timedelta(hours=1),
    "pd.NaT": None,
    "pd.NA": None,
    "pd.Period('2024-03')": "2024-03",
    "pd.Interval(1, 2)": {"left": 1, "right": 2, "closed": "right"},
    "pd.offsets.Day(2)": "2D",
}


@pytest.mark.parametrize("expression", SCALARS)
def test_a_scalar_is_the_python_value_that_it_stands_for(expression: str) -> None:
    tool, code = returned(expression), ended(expression)
    assert tool.status == "success", tool.error
    expected = SCALARS[expression]
    assert (tool.func_return, type(tool.func_return)) == (expected, type(expected))
    assert (code.value, type(code.value)) == (expected, type(expected))


def test_nan_and_infinities_stay_numbers() -> None:
    values = returned("[np.float64('nan'), np.float32('-inf'), np.array([np.nan])]").func_return
    assert math.isnan(values[0])
    assert values[1] == -math.inf
    assert math.isnan(values[2][0])


ARRAYS: dict[str, Any] = {
    "np.arange(6).reshape(2, 3)": [[0, 1, 2], [3, 4, 5]],
    "np.array(5)": 5,
    "np.zeros((0, 3))": [],
    "np.array([True, False])": [True, False],
    "np.array([1.5], dtype=np.longdouble)": [1.5],
    "np.array(['a', 'bc'])": ["a", "bc"],
    "np.array(['a', 'bc'], dtype=np.dtypes.StringDType())": ["a", "bc"],
    "np.array([[1, 'a'], [None, np.int8(3)]], dtype=object)": [[1, "a"], [None, 3]],
    "np.array(['2024-01-02', 'NaT'], dtype='M8[ns]')": [datetime(2024, 1, 2), None],
    "np.array(['2024-01-02', 'NaT', '20000-01-01'], dtype='M8[D]')": [date(2024, 1, 2), None, "20000-01-01"],
    "np.array([1, 2], dtype='m8[s]')": [timedelta(seconds=1), timedelta(seconds=2)],
    "np.ma.array([1, 2], mask=[0, 1])": [1, None],
    "np.ma.array(['2024-01-01', '2024-01-02'], dtype='M8[ns]', mask=[0, 1])": [datetime(2024, 1, 1), None],
    "np.array([(1, 0), (3, 'NaT')], dtype=[('a', 'i4'), ('b', 'M8[ns]')])": [
        {"a": 1, "b": datetime(1970, 1, 1)},
        {"a": 3, "b": None},
    ],
    "np.array([(1, 2.5)], dtype=[('a', 'i4'), ('b', 'f8')])[0]": {"a": 1, "b": 2.5},
    "np.matrix([[1, 2]])": [[1, 2]],
    "{np.int64(1): {'a': (np.array([1]), np.float64(2))}}": {1: {"a": ([1], 2.0)}},
    "(lambda a: {'dtype': a.dtype, 'shape': a.shape, 'data': a})(np.ones((2, 1), 'f4'))": {
        "dtype": "float32",
        "shape": (2, 1),
        "data": [[1.0], [1.0]],
    },
}


@pytest.mark.parametrize("expression", ARRAYS)
def test_an_array_is_nested_lists(expression: str) -> None:
    result = returned(expression)
    assert result.status == "success", result.error
    assert result.func_return == ARRAYS[expression]
    assert ended(expression).value == ARRAYS[expression]


TABLES: dict[str, list[Any]] = {
    "pd.DataFrame({'b': [1, 2], 'a': ['x', None]})": [{"b": 1, "a": "x"}, {"b": 2, "a": None}],
    "pd.DataFrame({'t': pd.to_datetime(['2024-01-01', None])})": [{"t": datetime(2024, 1, 1)}, {"t": None}],
    "pd.DataFrame({'t': pd.to_datetime(['2024-01-01', None], utc=True)})": [
        {"t": datetime(2024, 1, 1, tzinfo=UTC)},
        {"t": None},
    ],
    "pd.DataFrame({'i': pd.array([1, None], dtype='Int64')})": [{"i": 1}, {"i": None}],
    "pd.DataFrame({'c': pd.Categorical(['u', None])})": [{"c": "u"}, {"c": None}],
    "pd.DataFrame({'p': pd.PeriodIndex(['2024-01', None], freq='M')})": [{"p": "2024-01"}, {"p": None}],
    "pd.DataFrame({'s': pd.arrays.SparseArray([1.0, 0.0])})": [{"s": 1.0}, {"s": 0.0}],
    "pd.DataFrame({'a': [1, 2, 3]}).query('a > 2')": [{"a": 3}],
    "pd.DataFrame({'a': [1]}, index=['x'])": [{"index": "x", "a": 1}],
    "pd.DataFrame({'a': [1]}, index=pd.MultiIndex.from_tuples([('x', 7)]))": [{"level_0": "x", "level_1": 7, "a": 1}],
    "pd.DataFrame({'k': list('aba'), 'v': [1, 2, 3]}).groupby('k').agg(['sum'])": [
        {"k": "a", ("v", "sum"): 4},
        {"k": "b", ("v", "sum"): 2},
    ],
    "pd.DataFrame({'k': list('aba'), 'v': [1, 2, 3]}).groupby('k')['v'].sum()": [
        {"k": "a", "v": 4},
        {"k": "b", "v": 2},
    ],
    "pd.DataFrame({pd.Timestamp('2024-01-01'): [1]})": [{datetime(2024, 1, 1): 1}],
    "pd.DataFrame()": [],
    "pd.DataFrame(index=range(2))": [{}, {}],
    "pd.Series([1, 2])": [1, 2],
    "pd.Series([1.5], index=['a'])": [{"index": "a", "value": 1.5}],
    "pd.Series(['a', 'a']).value_counts()": [{"index": "a", "count": 2}],
    "pd.Index(['a', None])": ["a", None],
    "pd.MultiIndex.from_tuples([('x', pd.Timestamp(0))])": [("x", datetime(1970, 1, 1))],
    "pd.date_range('2024', periods=1)": [datetime(2024, 1, 1)],
    "pd.interval_range(0, 1)": [{"left": 0, "right": 1, "closed": "right"}],
    "pd.array([True, None])": [True, None],
}


@pytest.mark.parametrize("expression", TABLES)
def test_a_table_is_its_records_in_the_order_of_its_columns(expression: str) -> None:
    result = returned(expression)
    assert result.status == "success", result.error
    assert result.func_return == TABLES[expression]
    for found, expected in zip(result.func_return, TABLES[expression], strict=True):
        if isinstance(expected, dict):
            assert list(found) == list(expected)
    assert ended(expression).value == TABLES[expression]


def test_subclasses_of_a_tools_own_are_what_they_derive_from() -> None:
    source = HEAD + (
        "class Mine(pd.DataFrame):\n    pass\n"
        "class Array(np.ndarray):\n    pass\n"
        "def f():\n    return [Mine({'a': [1]}), np.ones(2).view(Array)]"
    )
    assert run_tool(Tool.from_source(source), image="science").func_return == [[{"a": 1}], [1.0, 1.0]]


@pytest.mark.parametrize("mode", ["fuel=None", "deterministic", "session", "fork"])
def test_values_are_the_same_in_every_mode(mode: str) -> None:
    code = HEAD + "pd.DataFrame({'a': np.arange(2)})"
    limits = {"fuel=None": Limits(fuel=None), "deterministic": Limits(deterministic=True)}.get(mode)
    if limits is not None:
        assert run_code(code, image="science", limits=limits).value == [{"a": 0}, {"a": 1}]
        return
    with Sandbox(image="science").session() as session:
        session.run_code(HEAD + "kept = pd.DataFrame({'a': np.arange(2)})")
        with session.fork() as twin:
            used = twin if mode == "fork" else session
            assert used.run_code("kept").value == [{"a": 0}, {"a": 1}]


@pytest.mark.parametrize(
    "expression",
    ["np.zeros((1000, 501))", "pd.DataFrame(np.zeros((1000, 501)))", "pd.Series(range(500_001))"],
)
def test_more_cells_than_are_returned_are_an_error_with_the_remedy(expression: str) -> None:
    error = returned(expression).error
    assert error is not None
    assert error.kind is ErrorKind.TOOL_EXCEPTION
    assert "at most 500000 of one are returned: return less of it" in error.message
    shown = ended(expression)  # of a cell the text is there all the same
    assert (shown.status, shown.value) == ("success", None)
    assert shown.text


def test_the_most_cells_are_returned() -> None:
    assert len(returned("pd.DataFrame({'a': np.arange(500_000)})").func_return) == 500_000


def test_two_columns_of_one_name_are_no_records() -> None:
    error = returned("pd.DataFrame([[1, 2]], columns=['a', 'a'])").error
    assert error is not None
    assert "two columns named 'a'" in error.message


def test_what_is_no_data_is_refused_as_ever() -> None:
    error = returned("np.random.default_rng()").error
    assert error is not None
    assert error.kind is ErrorKind.FORBIDDEN_RESULT


def test_a_table_is_shown_as_html_and_text() -> None:
    result = ended("pd.DataFrame({'a': [1, 2]})")
    (shown,) = result.displays
    assert shown["text/plain"] == result.text
    assert "<table" in shown["text/html"]
    assert len(ended("display(pd.DataFrame({'a': range(10_000)}))").displays[0]["text/html"]) < 10_000


def test_a_host_function_gets_plain_arguments() -> None:
    given: list[Any] = []

    def take(rows: list[Any], n: int) -> int:
        given.append((rows, n))
        return n

    items = "[pd.NaT, np.float64(2), pd.NA, pd.Timestamp(0)]"
    result = ended(f"take(pd.DataFrame({{'a': [1]}}), np.int64(5)) + take({items}, n=np.int8(1))", functions=[take])
    assert result.value == 6, result.error
    assert given == [([{"a": 1}], 5), ([None, 2.0, None, "1970-01-01T00:00:00"], 1)]
