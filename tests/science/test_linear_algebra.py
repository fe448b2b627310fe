"""Products of matrices and linear algebra in the image `science`: sums term by term, and what factors give back."""

from __future__ import annotations

from typing import Any

import pytest

from wasm_sandbox import Limits, run_code

LIMITS = Limits(memory_bytes=512 << 20)
HEAD = """
import itertools
import numpy as np
random = np.random.default_rng(0)
wrong = []

def some(dtype, *shape):
    a = random.standard_normal(shape)
    return (a + 1j * random.standard_normal(shape) if np.dtype(dtype).kind == "c" else a).astype(dtype)
"""

PRODUCTS = """
def laid(a):
    yield "rows", a
    yield "columns", np.asfortranarray(a)
    yield "every second", np.repeat(np.repeat(a, 2, 0), 2, 1)[::2, ::2]
    yield "backwards", a[::-1, ::-1].copy()[::-1, ::-1]

def in_turn(a, b):
    return np.add.accumulate(a[:, :, None] * b[None], axis=1)[:, -1]

shapes = [(2, 2, 2), (8, 8, 8), (5, 3, 70), (13, 300, 11), (67, 5, 41), (70, 33, 9), (3, 600, 530), (4, 8, 4)]
for m, k, n in shapes:
    a, b = some(dtype, m, k), some(dtype, k, n)
    expected = in_turn(a, b)
    close = np.finfo(dtype).eps * 40 * k
    for (x, left), (y, right) in itertools.product(laid(a), laid(b)):
        out = np.asfortranarray(np.full((m, n), 7, dtype))
        wide = np.full((m, 2 * n), 7, dtype)
        np.matmul(left, right, out=out)
        np.matmul(left, right, out=wide[:, ::2])
        for name, found in {"@": left @ right, "dot": left.dot(right), "out": out, "wide": wide[:, ::2]}.items():
            same = np.array_equal(found, expected) if np.dtype(dtype).kind == "f" else True
            if not same or not np.allclose(found, expected, close, close):
                wrong.append([name, x, y, m, k, n])
        if not (wide[:, 1::2] == 7).all():
            wrong.append(["beside", x, y, m, k, n])
stack = some(dtype, 3, 20, 9)
if not np.allclose(stack @ stack[0].T, [in_turn(a, stack[0].T) for a in stack], 1e-4, 1e-4):
    wrong.append(["stack"])
a = some(dtype, 20, 20)
a[3, 4], a[5, 6] = np.inf, np.nan
if not np.array_equal(np.isfinite(a @ np.ones((20, 20), dtype)).all(1), np.isfinite(a).all(1)):
    wrong.append(["not finite"])
wrong
"""

ALGEBRA = """
close = np.finfo(dtype).eps * 2000
H = lambda a: a.conj().T

def check(name, n, left, right):
    if not np.allclose(left, right, close, close * 30):
        wrong.append([name, n, float(np.abs(left - right).max())])

for n in (1, 3, 9, 20, 33, 70, 150):
    a, one = some(dtype, n, n) + 3 * np.eye(n, dtype=dtype), np.eye(n, dtype=dtype)
    b, tall = some(dtype, n, 40), some(dtype, n + 25, n)
    check("solve", n, a @ np.linalg.solve(a, b), b)
    check("solve of one", n, a @ np.linalg.solve(a, b[:, 0]), b[:, 0])
    check("inv", n, a @ np.linalg.inv(a), one)
    positive = H(tall) @ tall / n + one
    for upper in (False, True):
        root = np.linalg.cholesky(positive, upper=upper)
        check("cholesky", n, H(root) @ root if upper else root @ H(root), positive)
    q, r = np.linalg.qr(tall)
    check("qr", n, q @ r, tall)
    check("q", n, H(q) @ q, one)
    w, v = np.linalg.eigh(positive)
    check("eigh", n, (v * w) @ H(v), positive)
    w, v = np.linalg.eig(a)
    check("eig", n, a @ v, v * w)
    for full in (False, True):
        u, s, vh = np.linalg.svd(tall, full_matrices=full)
        check("svd", n, (u[:, :n] * s) @ vh, tall)
    check("lstsq", n, np.linalg.lstsq(tall, tall @ b, rcond=None)[0], b)
    check("pinv", n, np.linalg.pinv(tall) @ tall, one)
    if n < 40:  # of larger ones it is none of float32
        check("det", n, np.linalg.det(a / 3) * np.linalg.det(np.linalg.inv(a / 3)), 1)
    singular = a.copy()
    singular[:, -1] = 0
    try:
        np.linalg.inv(singular)
        wrong.append(["singular", n])
    except np.linalg.LinAlgError:
        pass
wrong
"""

WARNINGS = """
import warnings
import numpy as np

def said(expression):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            eval(expression)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return [f"{warning.category.__name__}: {warning.message}" for warning in caught]

[said(expression) for expression in expressions]
"""
EXPRESSIONS = [
    "np.array([5, 6]) // 0", "np.array([5, 6]) % 0", "np.int64(5) // np.int64(0)", "np.divmod(np.array([1]), 0)",
    "np.array([-(2**63)]) // -1", "np.array([7]) // 2",
    "np.linalg.inv(np.zeros((3, 3)))", "np.linalg.inv(np.eye(3))",
    "np.linalg.solve(np.ones((2, 2)), np.ones(2))", "np.linalg.cholesky(-np.eye(2))",
    "np.linalg.eigvalsh(np.full((3, 3), np.nan))", "np.linalg.svd(np.full((3, 3), np.nan))",
    "np.linalg.det(np.zeros((2, 2)))", "np.linalg.matrix_power(np.zeros((2, 2)), -1)",
    "np.errstate(divide='raise')(lambda: np.array([1]) // 0)()", "np.linalg.pinv(np.zeros((2, 2)))",
]  # fmt: skip

DTYPES = ("float32", "float64", "complex64", "complex128")


def test_what_cannot_be_solved_or_divided_is_said_as_on_this_machine() -> None:
    """Where numpy finds it by itself. A processor's flags, which tell it of the others, are not there."""
    pytest.importorskip("numpy")
    program = f"expressions = {EXPRESSIONS!r}\n{WARNINGS}"
    namespace: dict[str, Any] = {}
    exec(program, namespace)
    native = [namespace["said"](expression) for expression in EXPRESSIONS]
    result = run_code(program, image="science", limits=LIMITS)
    assert result.status == "success", result.error
    assert dict(zip(EXPRESSIONS, result.value, strict=True)) == dict(zip(EXPRESSIONS, native, strict=True))


def _wrong(program: str, dtype: str) -> object:
    result = run_code(f"{HEAD}dtype = {dtype!r}\n{program}", image="science", limits=LIMITS)
    assert result.status == "success", result.error
    return result.value


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_product_is_the_sum_of_its_terms_however_the_matrices_lie(dtype: str) -> None:
    """Of real numbers to the last bit: they are added in their order, by blocks as element by element."""
    assert _wrong(PRODUCTS, dtype) == []


@pytest.mark.parametrize("dtype", DTYPES)
def test_factors_and_solutions_give_back_what_they_are_of(dtype: str) -> None:
    assert _wrong(ALGEBRA, dtype) == []
