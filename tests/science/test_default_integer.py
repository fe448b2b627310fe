"""numpy in the guest of flavour "science": its integers are those of a 64-bit machine.

The same expressions are evaluated by the guest's numpy and by the one of this machine.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasm_sandbox import Limits, Tool, run_tool

np = pytest.importorskip("numpy")

LIMITS = Limits(memory_bytes=512 << 20)
EVALUATE = """
def evaluate(expressions: list, names: dict) -> list:
    import numpy as np
    values = {name: np.array(value, dtype) for name, (value, dtype) in names.items()}
    found = []
    for expression in expressions:
        try:
            with np.errstate(all="ignore"):
                value = np.asarray(eval(expression, {"np": np, **values}))
        except (OverflowError, ValueError, TypeError, IndexError) as error:
            found.append([type(error).__name__, None])
        else:
            found.append([value.dtype.name, value.tolist()])
    return found
"""
TOOL = Tool.from_source(EVALUATE, "evaluate")

EXPRESSIONS = (
    # made of Python's integers
    "np.array(n.tolist())", "np.array([n.tolist()])", "np.full(2, n.tolist())", "np.asarray([n.tolist(), 1.5])",
    "np.arange(5) * 2**31", "np.arange(100000)[-1] ** 2", "np.arange(3, dtype=int)", "np.arange(0, 9, 2)",
    "np.zeros(2, int)", "np.ones(2, 'int')", "np.empty(0, np.int_)", "np.dtype(int).itemsize",
    "np.dtype('uint').itemsize", "np.int_(5)", "np.uint(5)", "np.linspace(0, 4, 3, dtype=int)",
    "np.eye(2, dtype=int)", "np.indices((2, 2))", "np.identity(2, int)", "np.tri(2, dtype=int)",
    "np.fromiter([1, 2], int)", "np.array(['1', '22']).astype(int)", "np.array([1.5, -2.5]).astype(int)",
    "np.array([True]).astype(int)", "np.negative(5)", "np.abs(-5)", "np.square(70000)", "np.True_ + 1",
    "np.True_ * 3", "np.maximum(1, 2)", "np.result_type(int, 'i2').name", "np.promote_types(int, 'u4').name",
    "np.where([True, False], 1, 2)", "np.select([[True]], [[1]])", "np.concatenate([[1], [2]])", "np.median([1, 2])",
    # sums, products and counts
    "a.sum()", "a.prod()", "a.cumsum()", "a.cumprod()", "np.add.reduce(a)", "np.multiply.accumulate(a)",
    "a.sum(axis=0)", "np.trace(np.diag(a))", "(a > 0).sum()", "np.count_nonzero(a)",
    "np.count_nonzero(np.diag(a), axis=0)", "a.mean()", "np.bincount(np.abs(a % 7).astype(int))",
    "np.histogram(a.astype(float), 3, (-9.0, 9.0))[0]", "np.unique(a, return_counts=True)[1]", "np.ediff1d(a)",
    "np.diff(a)", "np.vdot(a, a)", "a.dot(a)", "np.einsum('i,i', a, a)", "np.inner(a, a)", "np.outer(a, a)",
    "a.max()", "np.ptp(a)",
    # with Python's integers
    "a + 1", "a * 2", "a - 1", "a // 3", "a % 5", "a ** 2", "a & 1", "a | 1", "a ^ 1", "a << 1", "a >> 1", "a / 2",
    "1 - a", "a == 1", "a > 2**40", "np.clip(a, 1, 5)", "a + n", "a * n", "np.add(a, 1)", "divmod(a, 4)[0]", "-a",
    "~a",
    # texts
    "np.strings.str_len(t)", "np.strings.find(t, 'b')", "np.strings.count(t, 'a')", "np.char.str_len(t)",
    "np.strings.find(t.astype('S'), b'b')",
)  # fmt: skip
INDICES = (
    "np.argsort(a, kind='stable')", "np.nonzero(a)[0]", "np.argmax(a)", "np.searchsorted(np.sort(a), 1)",
    "np.flatnonzero(a)", "np.unique(a, return_index=True)[1]", "np.lexsort((a, a))",
    "np.digitize(a.astype(float), [0.0, 1.0])",
)  # fmt: skip
"""Give indices, which are int32 in the guest: an array of it has less than 2**31 elements."""

DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool")


@st.composite
def arrays(draw: st.DrawFn) -> tuple[list[Any], str]:
    dtype = draw(st.sampled_from(DTYPES))
    if dtype == "bool":
        return draw(st.lists(st.booleans(), min_size=1, max_size=6)), dtype
    limits = np.iinfo(dtype)
    numbers = st.integers(int(limits.min), int(limits.max)) | st.integers(0, 100)
    return draw(st.lists(numbers, min_size=1, max_size=6)), dtype


def natively(expressions: tuple[str, ...], names: dict[str, Any]) -> list[Any]:
    namespace: dict[str, Any] = {}
    exec(EVALUATE, namespace)
    found: list[Any] = namespace["evaluate"](list(expressions), names)
    return found


def in_guest(expressions: tuple[str, ...], names: dict[str, Any]) -> list[Any]:
    result = run_tool(TOOL, {"expressions": list(expressions), "names": names}, image="science", limits=LIMITS)
    assert result.status == "success", result.error
    found: list[Any] = result.func_return
    return found


NUMBERS = st.integers(-(2**31) - 5, 2**31 + 5) | st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=60, deadline=None)
@given(a=arrays(), n=NUMBERS, t=st.lists(st.text("ab", max_size=4), min_size=1, max_size=3))
def test_integers_are_those_of_a_64_bit_machine(a: tuple[list[Any], str], n: int, t: list[str]) -> None:
    names = {"a": list(a), "n": [n, "int64"], "t": [t, "str"]}
    native, guest = natively(EXPRESSIONS, names), in_guest(EXPRESSIONS, names)
    for expression, expected, found in zip(EXPRESSIONS, native, guest, strict=True):
        assert str(found) == str(expected), f"{expression} of {names}"


@settings(max_examples=20, deadline=None)
@given(a=arrays())
def test_indices_have_the_same_values_and_32_bits(a: tuple[list[Any], str]) -> None:
    names = {"a": list(a)}
    native, guest = natively(INDICES, names), in_guest(INDICES, names)
    for expression, expected, found in zip(INDICES, native, guest, strict=True):
        assert found == ["int32", expected[1]], f"{expression} of {names}"


INDEXED = (
    "a[i]", "b[i, i]", "a.flat[i]", "a.take(i)", "a.take(i, mode='clip')", "np.take_along_axis(a, i, 0)",
    "np.choose(i, [7, 8, 9])", "np.choose(i, [7, 8, 9], mode='clip')", "np.delete(a, i)",
    "np.partition(b.ravel(), i)[i]", "[(c := a.copy()), c.__setitem__(i, 7), c][-1]",
    "[(c := a.copy()), np.put(c, i, 7), c][-1]", "[(c := a.copy()), np.put(c, i, 7, mode='clip'), c][-1]",
    "[(c := a.copy()), np.add.at(c, i, 7), c][-1]", "np.add.reduceat(a, i)",
    "np.stack(np.unravel_index(i, (2, 3))) + 0 * b[0, 0]", "np.ravel_multi_index((i, i), (4, 5)) + 0 * b[0, 0]",
    "np.ravel_multi_index((i, i), (4, 5), mode='clip') + 0 * b[0, 0]",
)  # fmt: skip
WRAPPED = (
    "a.take(i, mode='wrap')", "np.choose(i, [7, 8, 9, 10, 11], mode='wrap')",
    "[(c := a.copy()), np.put(c, i, 7, mode='wrap'), c][-1]",
    "np.ravel_multi_index((i, i), (5, 5), mode='wrap') + 0 * b[0, 0]",
)  # fmt: skip
"""Of five elements each. numpy subtracts until an index is one of them: of large ones that takes years natively."""
SMALL = (
    "np.repeat(a, i)", "np.bincount(i)", "np.searchsorted(a, 2, sorter=np.argsort(a).astype(i.dtype)) + 0 * a[0]",
    "np.argmax(b, axis=0, out=np.zeros(4, int))", "np.argmin(b, axis=1, out=np.zeros(4, int))",
    "np.insert(a, i, 7)", "np.argmax(b, axis=0, out=np.zeros(4, i.dtype))",
    "np.argmin(b, axis=0, out=np.zeros(4, '>i8'))",
    "np.argmax(b, axis=1, out=np.zeros(4))", "np.argmax(b, axis=1, out=np.zeros(4, bool))",
    "np.arange(10)[np.arange(10).reshape(5, 2).T].flags.f_contiguous * 1",
    "a[np.asfortranarray(np.outer(i, i)) % 5].flags.c_contiguous * 1",
)  # fmt: skip
"""Where a number that is too large is one of elements, and would be tried on this machine."""


@st.composite
def indices(draw: st.DrawFn, *far: int) -> tuple[list[int], str]:
    dtype = draw(st.sampled_from(("int8", "uint8", "int32", "uint32", "int64", "uint64")))
    limits = np.iinfo(dtype)
    numbers = st.integers(max(-6, int(limits.min)), 6)
    possible = [number for number in far if limits.min <= number <= limits.max]
    if possible:
        numbers |= st.sampled_from(possible)
    return draw(st.lists(numbers, min_size=1, max_size=5)), dtype


FAR = (2**31, 2**32 - 1, 2**32, 2**32 + 1, -(2**31) - 1, -(2**32), 2**40 + 2, 2**62 + 1)
SPECIMENS = {"a": [[5, 4, 3, 2, 1], "int64"], "b": [[[3, 1, 4, 1], [5, 9, 2, 6], [5, 3, 5, 8], [9, 7, 9, 3]], "int64"]}


@settings(max_examples=60, deadline=None)
@given(i=indices(*FAR))
def test_an_index_beyond_32_bits_is_out_of_bounds_and_not_another_one(i: tuple[list[int], str]) -> None:
    names = {**SPECIMENS, "i": list(i)}
    native, guest = natively(INDEXED, names), in_guest(INDEXED, names)
    for expression, expected, found in zip(INDEXED, native, guest, strict=True):
        assert str(found) == str(expected), f"{expression} of {names}"


@settings(max_examples=30, deadline=None)
@given(i=indices(*(number for number in FAR if abs(number) > 2**31)))
def test_an_index_beyond_32_bits_is_wrapped_as_a_whole(i: tuple[list[int], str]) -> None:
    numbers, dtype = i
    native = natively(WRAPPED, {**SPECIMENS, "i": [[number % 5 for number in numbers], dtype]})
    guest = in_guest(WRAPPED, {**SPECIMENS, "i": list(i)})
    for expression, expected, found in zip(WRAPPED, native, guest, strict=True):
        assert str(found) == str(expected), f"{expression} of {i}"


@settings(max_examples=30, deadline=None)
@given(i=indices())
def test_arrays_of_any_integers_count_and_order(i: tuple[list[int], str]) -> None:
    names = {**SPECIMENS, "i": list(i)}
    native, guest = natively(SMALL, names), in_guest(SMALL, names)
    for expression, expected, found in zip(SMALL, native, guest, strict=True):
        assert str(found) == str(expected), f"{expression} of {names}"


@pytest.mark.parametrize("expression", ["np.repeat(a, [2**32 + 1] * 5)", "np.bincount([2**32 + 1])"])
def test_more_elements_than_there_can_be_are_a_memory_error(expression: str) -> None:
    tool = Tool.from_source(f"def f():\n    import numpy as np\n    a = np.arange(5)\n    return {expression}")
    error = run_tool(tool, image="science", limits=LIMITS).error
    assert error is not None
    assert error.exception_name == "MemoryError"


@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(1, 9), terms=st.integers(0, 9), columns=st.integers(1, 9), seed=st.integers(0, 99),
    dtype=st.sampled_from(("int8", "uint16", "int32", "int64", "uint64", "float32", "float64", "bool")),
)  # fmt: skip
def test_products_of_matrices_are_those_of_this_machine(
    rows: int, terms: int, columns: int, seed: int, dtype: str
) -> None:
    """Whole numbers, so that no sum is rounded: its order may differ."""
    random = np.random.default_rng(seed)
    left, right = random.integers(-9, 9, (rows, terms)), random.integers(-9, 9, (terms, columns))
    names = {name: [value.astype(dtype).tolist(), dtype] for name, value in (("x", left), ("y", right))}
    reshaped = {"x": f"x.reshape({rows}, {terms})", "y": f"y.reshape({terms}, {columns})"}
    forms = ("{x} @ {y}", "np.dot({x}, {y})", "({y}.T @ {x}.T).T", "np.asfortranarray({x}) @ np.asfortranarray({y})",
             "{x}[::-1] @ {y}[:, ::2]", "{x} @ {y}[:, 0]", "{x}[0] @ {y}", "np.einsum('ij,jk', {x}, {y})")  # fmt: skip
    expressions = tuple(form.format(**reshaped) for form in forms)
    for expression, expected, found in zip(
        expressions, natively(expressions, names), in_guest(expressions, names), strict=True
    ):
        assert found == expected, f"{expression} of {names}"


LEGACY = (
    "r.randint(5, size=4)", "r.randint(2**40, size=4)", "r.randint(0, 100, 3, dtype='i2')",
    "r.random_integers(5, size=3)", "r.poisson(5, 4)", "r.poisson([1.0, 1e9])", "r.binomial(10, 0.5, 4)",
    "r.binomial([10, 2**40], 0.5)", "r.zipf(2.0, 4)", "r.geometric(0.01, 4)", "r.geometric(0.5, 4)",
    "r.hypergeometric(5, 5, 3, 4)", "r.logseries(0.6, 4)", "r.negative_binomial(5, 0.5, 4)",
    "r.multinomial(20, [0.2, 0.8], 2)", "r.tomaxint(3)", "r.permutation(6)", "r.choice(10, 4)",
    "r.choice(10, 4, replace=False)", "r.choice(5, 3, p=[0.1, 0.2, 0.3, 0.2, 0.2])", "r.normal(size=3)",
    "r.uniform(size=3)", "r.gamma(2.0, size=3)", "r.bytes(5)", "r.noncentral_chisquare(0.5, 2.0, 3)",
)  # fmt: skip
DRAW = """
def draw(expressions: list, seed: int) -> list:
    import warnings
    import numpy as np
    found = []
    for expression in expressions:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = np.asarray(eval(expression, {"r": np.random.RandomState(seed)}))
        found.append([value.dtype.name, value.tolist()])
    return found
"""


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_legacy_random_numbers_are_those_of_a_64_bit_machine(seed: int) -> None:
    namespace: dict[str, Any] = {}
    exec(DRAW, namespace)
    native = namespace["draw"](list(LEGACY), seed)
    tool = Tool.from_source(DRAW, "draw")
    result = run_tool(tool, {"expressions": list(LEGACY), "seed": seed}, image="science", limits=LIMITS)
    assert result.status == "success", result.error
    for expression, (dtype, expected), found in zip(LEGACY, native, result.func_return, strict=True):
        # Logarithms and powers of two C libraries may differ in the last place.
        nearly = pytest.approx(expected, rel=1e-13, abs=1e-15) if dtype == "float64" else expected
        assert found == [dtype, nearly], f"{expression}, seed {seed}"
