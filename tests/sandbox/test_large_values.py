"""Large values on an event loop: it goes on while scripts are written."""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.support.loop_meter import longest_gap
from wasm_sandbox import AsyncSandbox
from wasm_sandbox.script.arguments import is_quickly_written
from wasm_sandbox.script.cells import cell_script

ROWS = [{"id": n, "name": "a name", "share": n / 7} for n in range(30_000)]


async def code(box: AsyncSandbox, rows: Any) -> Any:
    return (await box.run_code("len(rows)", {"rows": rows})).value


async def session(box: AsyncSandbox, rows: Any) -> Any:
    async with box.session() as kept:
        return (await kept.run_code("len(rows)", {"rows": rows})).value


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No collection of garbage meanwhile, which holds the interpreter lock for as long as there are objects."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("run", [code, session])
async def test_an_event_loop_goes_on_while_large_values_are_written(
    run: Callable[[AsyncSandbox, Any], Awaitable[Any]],
) -> None:
    box = AsyncSandbox()
    assert await run(box, []) == 0
    began = time.perf_counter()
    cell_script("len(rows)", {"rows": ROWS})
    writing = time.perf_counter() - began
    gaps = []
    for _ in range(5):  # on a busy machine there are other gaps; what is done on the loop is one of them every time
        with longest_gap() as meter:
            assert await run(box, ROWS) == len(ROWS)
        gaps.append(meter.longest)
    assert min(gaps) < writing / 2


@pytest.mark.parametrize("values", [(None,), ({},), ([1] * 1000, {"a": "x" * 10_000_000}), ([[1, 2]] * 300,)])
def test_few_values_are_written_at_once(values: tuple[Any, ...]) -> None:
    assert is_quickly_written(*values)


def test_many_values_are_not_and_a_circle_ends() -> None:
    circle: list[Any] = []
    circle += [circle, circle]
    many: list[Any] = [[0] * 2001, {n: dict.fromkeys(range(50), 0) for n in range(50)}, [[[]] * 50] * 50, circle]
    for value in many:
        assert not is_quickly_written(value)
