"""`SandboxExecutor` keeps to the standard library's interface, and loses nothing when its workers die."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, as_completed
from pathlib import Path
from typing import Any

import pytest

from tests.support.rows import rows, values
from wasm_sandbox import ErrorKind, ImageNotFound, InvalidEnvironment, Limits, Tool, run_tool
from wasm_sandbox.parallel import SandboxExecutor

pytestmark = pytest.mark.long

ADD = Tool.from_source("def add(a: int, b: int) -> int:\n    return a + b")
SLEEP = Tool.from_source(
    "def sleep(seconds: float) -> float:\n    import time\n    time.sleep(seconds)\n    return seconds"
)

posix_only = pytest.mark.skipif(os.name != "posix", reason="workers are killed by a signal")


@pytest.fixture(scope="module")
def executor() -> Iterator[SandboxExecutor]:
    with SandboxExecutor(2) as made:
        yield made
    assert multiprocessing.active_children() == []


# --- The standard interface -----------------------------------------------------------------------------


def test_a_call_has_the_result_that_run_tool_gives(executor: SandboxExecutor) -> None:
    limits = Limits(deterministic=True)
    there = executor.submit(ADD, {"a": 1, "b": 2}, limits=limits).result()
    here = run_tool(ADD, {"a": 1, "b": 2}, limits=limits)
    assert (there.func_return, there.status) == (here.func_return, here.status) == (3, "success")
    assert there.usage is not None
    assert here.usage is not None
    assert there.usage.fuel == here.usage.fuel


def test_a_function_is_taken_by_its_source(executor: SandboxExecutor) -> None:
    def double(x: int) -> int:
        return 2 * x

    assert executor.submit(double, {"x": 21}).result().func_return == 42


def test_it_is_an_executor_and_its_futures_are_the_standard_ones(executor: SandboxExecutor) -> None:
    assert isinstance(executor, concurrent.futures.Executor)
    futures = {executor.submit(ADD, row): row["a"] + 1 for row in rows(20)}
    assert all(type(future) is Future for future in futures)
    assert {future: future.result().func_return for future in as_completed(futures)} == futures


def test_an_event_loop_awaits_it(executor: SandboxExecutor) -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        return values(await asyncio.gather(*[loop.run_in_executor(executor, ADD, row) for row in rows(5)]))  # type: ignore[arg-type]

    assert asyncio.run(main()) == [1, 2, 3, 4, 5]


def test_an_agent_state_and_options_go_along(executor: SandboxExecutor) -> None:
    source = "def f(agent_state):\n    import os\n    agent_state['n'] += 1\n    return os.environ['A']\n"
    tool = Tool(name="f", source_code=source)
    result = executor.submit(tool, {}, {"n": 1}, env={"A": "x"}).result()
    assert (result.func_return, result.agent_state) == ("x", {"n": 2})


@pytest.mark.parametrize("chunksize", [None, 1, 7, 1000])
def test_a_map_gives_results_in_the_order_of_the_rows(executor: SandboxExecutor, chunksize: int | None) -> None:
    assert values(executor.map(ADD, rows(200), chunksize)) == list(range(1, 201))


def test_what_a_tool_does_is_in_its_result_and_raises_nothing(executor: SandboxExecutor) -> None:
    div = Tool.from_source("def div(a: int, b: int) -> float:\n    return a / b")
    results = list(executor.map(div, [{"a": 1, "b": b} for b in (1, 0, 2)], chunksize=3))
    assert [result.status for result in results] == ["success", "error", "success"]
    assert results[1].error is not None
    assert results[1].error.exception_name == "ZeroDivisionError"


def test_a_map_over_nothing_is_over(executor: SandboxExecutor) -> None:
    assert list(executor.map(ADD, [])) == []


def test_a_map_over_endless_rows_takes_what_it_needs(executor: SandboxExecutor) -> None:
    taken = itertools.count()
    endless = ({"a": number, "b": 0} for number in iter(lambda: next(taken), None))
    results = executor.map(ADD, endless, chunksize=2)
    assert values(itertools.islice(results, 50)) == list(range(50))
    assert next(taken) <= 50 + 2 * 8 * 2 + 2
    results.close()


def test_a_buffer_bounds_the_rows_that_are_taken(executor: SandboxExecutor) -> None:
    taken = itertools.count()
    results = executor.map(ADD, ({"a": n, "b": 0} for n in iter(lambda: next(taken), None)), 3, buffersize=5)
    for number in range(20):
        assert next(results).func_return == number
    assert next(taken) <= 20 + 5 + 1
    results.close()


def test_what_the_rows_raise_comes_after_the_results_before_it(executor: SandboxExecutor) -> None:
    def some() -> Iterator[dict[str, int]]:
        yield from rows(5)
        raise LookupError("no more")

    results = executor.map(ADD, some(), chunksize=3)
    assert values(itertools.islice(results, 5)) == [1, 2, 3, 4, 5]
    with pytest.raises(LookupError, match="no more"):
        next(results)
    assert list(results) == []


@pytest.mark.parametrize("row", [5, None, [1, 2], {1: 2}, "text"])
def test_a_row_that_is_none_is_named_by_its_number(executor: SandboxExecutor, row: Any) -> None:
    results = executor.map(ADD, [*rows(2), row])
    assert values(itertools.islice(results, 2)) == [1, 2]
    with pytest.raises(TypeError, match=r"^row 3: "):
        next(results)


def test_a_row_that_cannot_be_pickled_fails_alone_and_the_map_goes_on(executor: SandboxExecutor) -> None:
    results = executor.map(ADD, [{"a": 1, "b": 1}, {"a": threading.Lock(), "b": 1}, {"a": 2, "b": 1}], chunksize=3)
    assert next(results).func_return == 2
    with pytest.raises(TypeError, match="argument 'a' of a call cannot be pickled"):
        next(results)
    assert values(results) == [3]


def test_an_exception_of_a_run_that_cannot_be_made_is_raised_for_it(executor: SandboxExecutor) -> None:
    future = executor.submit(ADD, {"a": 1, "b": 2}, env={"A=B": "x"})
    error = future.exception()
    assert isinstance(error, InvalidEnvironment)
    assert any("in a worker process" in note for note in error.__notes__)


def test_a_value_that_nests_deeply_arrives_or_is_refused_in_words(executor: SandboxExecutor) -> None:
    deep = Tool.from_source("def deep(n: int):\n    x = []\n    for _ in range(n):\n        x = [x]\n    return x")
    results = executor.map(deep, [{"n": 3}, {"n": 900}, {"n": 3}], chunksize=3)
    assert next(results).func_return == [[[[]]]]
    try:
        assert next(results) is not None
    except RuntimeError as error:
        assert "cannot be sent to the calling process" in str(error)  # noqa: PT017 - either is right
    assert next(results).func_return == [[[[]]]]


def test_a_map_waits_for_no_longer_than_its_timeout(executor: SandboxExecutor) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        list(executor.map(SLEEP, [{"seconds": 1.5}] * 2, timeout=0.1))
    assert time.monotonic() - began < 1.2


def test_a_call_that_waits_can_be_cancelled_and_one_that_runs_cannot(executor: SandboxExecutor) -> None:
    running = [executor.submit(SLEEP, {"seconds": 0.5}) for _ in range(2)]
    waiting = executor.submit(ADD, {"a": 1, "b": 2})
    while not all(future.running() for future in running):
        time.sleep(0.01)
    assert waiting.cancel()
    assert not running[0].cancel()
    with pytest.raises(CancelledError):
        waiting.result()
    assert values(future.result() for future in running) == [0.5, 0.5]


def test_a_guests_deadline_is_its_own(executor: SandboxExecutor) -> None:
    result = executor.submit(SLEEP, {"seconds": 30}, limits=Limits(timeout_seconds=0.2)).result()
    assert result.error is not None
    assert result.error.kind is ErrorKind.TIMEOUT


# --- Bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "2"])
def test_a_number_of_workers_that_is_none_is_refused(count: Any) -> None:
    with pytest.raises(ValueError, match="max_workers must be a whole number from 1"):
        SandboxExecutor(count)


def test_an_option_that_there_is_not_is_refused() -> None:
    with pytest.raises(TypeError, match="there is no option speed"):
        SandboxExecutor(1, speed=5)


def test_an_image_that_there_is_not_is_refused_before_any_process_starts(images_directory: Path) -> None:
    with pytest.raises(ImageNotFound, match="no image 'nowhere'"):
        SandboxExecutor(1, image="nowhere")


def test_an_option_that_cannot_be_pickled_is_named() -> None:
    with pytest.raises(TypeError, match="a Sandbox with this option 'gate' cannot be pickled"):
        SandboxExecutor(1, gate=lambda call: None)


@pytest.mark.parametrize(("tool", "args"), [(5, {}), (ADD, [1]), (ADD, {1: 2})])
def test_a_call_that_is_none_is_refused(executor: SandboxExecutor, tool: Any, args: Any) -> None:
    with pytest.raises(TypeError):
        executor.submit(tool, args)


@pytest.mark.parametrize("name", ["chunksize", "buffersize"])
def test_a_size_below_one_is_refused(executor: SandboxExecutor, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        executor.map(ADD, [], **{name: 0})  # type: ignore[arg-type]


def test_workers_load_their_engine_once(executor: SandboxExecutor) -> None:
    list(executor.map(SLEEP, [{"seconds": 0.2}] * 4, chunksize=1))
    before = executor.pids
    assert len(before) == 2
    assert values(executor.map(ADD, rows(50), chunksize=5)) == list(range(1, 51))
    assert executor.pids == before


# --- A bar ----------------------------------------------------------------------------------------------


def test_a_bar_is_shown_when_asked_for(executor: SandboxExecutor, capfd: pytest.CaptureFixture[str]) -> None:
    assert values(executor.map(ADD, rows(10), progress="adding")) == list(range(1, 11))
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "adding" in captured.err
    assert "10/10" in captured.err


def test_no_bar_is_shown_otherwise(executor: SandboxExecutor, capfd: pytest.CaptureFixture[str]) -> None:
    assert values(executor.map(ADD, rows(3))) == [1, 2, 3]
    assert capfd.readouterr() == ("", "")


def test_a_bar_without_rich_says_what_to_install(executor: SandboxExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with pytest.raises(ImportError, match=r"wasm-sandbox\[parallel\]"):
        executor.map(ADD, rows(3), progress=True)
