"""How an executor ends, what it does when its workers die, and how they are started; nothing is left behind."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import python
from tests.support.rows import rows, values
from wasm_sandbox import Tool, run_tool
from wasm_sandbox.parallel import SandboxExecutor

pytestmark = pytest.mark.long

ADD = Tool.from_source("def add(a: int, b: int) -> int:\n    return a + b")
SLEEP = Tool.from_source(
    "def sleep(seconds: float) -> float:\n    import time\n    time.sleep(seconds)\n    return seconds"
)

posix_only = pytest.mark.skipif(os.name != "posix", reason="workers are killed by a signal")


@pytest.fixture(autouse=True)
def _leaves_no_process() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []


def die(number: int) -> int:
    """Host function that ends its process at the number 7, at each attempt."""
    if number == 7:
        os._exit(3)
    return number


def die_once(path: str) -> str:
    """Host function that ends its process when it is first called with a path."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "second"
    os._exit(3)


def whoami() -> int:
    return os.getpid()


# --- Shutting down --------------------------------------------------------------------------------------


def test_a_shutdown_waits_for_what_was_submitted_and_takes_no_more() -> None:
    executor = SandboxExecutor(1)
    futures = [executor.submit(ADD, row) for row in rows(5)]
    executor.shutdown()
    assert [future.done() for future in futures] == [True] * 5
    assert values(future.result() for future in futures) == [1, 2, 3, 4, 5]
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(ADD, {"a": 1, "b": 1})


def test_a_shutdown_can_cancel_what_waits() -> None:
    executor = SandboxExecutor(1)
    first = executor.submit(SLEEP, {"seconds": 0.3})
    waiting = [executor.submit(ADD, row) for row in rows(5)]
    while not first.running():
        time.sleep(0.01)
    executor.shutdown(cancel_futures=True)
    assert first.result().func_return == 0.3
    assert [future.cancelled() for future in waiting] == [True] * 5


def test_a_shutdown_need_not_wait() -> None:
    executor = SandboxExecutor(1)
    future = executor.submit(SLEEP, {"seconds": 0.3})
    executor.shutdown(wait=False)
    assert not future.done()
    assert future.result(60).func_return == 0.3
    executor.shutdown()


def test_killing_ends_what_runs_and_cancels_what_waits() -> None:
    executor = SandboxExecutor(1)
    running, waiting = executor.submit(SLEEP, {"seconds": 60}), executor.submit(ADD, {"a": 1, "b": 1})
    while not executor.pids:
        time.sleep(0.01)
    executor.kill_workers()
    with pytest.raises(BrokenProcessPool, match="were killed"):
        running.result(60)
    assert waiting.cancelled()
    executor.shutdown()
    with pytest.raises(BrokenProcessPool):
        executor.submit(ADD, {"a": 1, "b": 1})


def test_an_interrupt_in_the_block_does_not_wait_for_the_calls() -> None:
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), SandboxExecutor(1) as executor:  # noqa: PT012 - the block is what is left
        executor.submit(SLEEP, {"seconds": 60})
        raise KeyboardInterrupt
    assert time.monotonic() - began < 30


PROGRAM = """
import sys
from wasm_sandbox.parallel import SandboxExecutor

def sleep(seconds: float) -> float:
    import time
    time.sleep(seconds)
    return seconds

if __name__ == "__main__":
    executor = SandboxExecutor(1)
    future = executor.submit(sleep, {"seconds": float(sys.argv[1])})
    if sys.argv[2] == "told":
        while not executor.pids:
            pass
        print(*executor.pids, flush=True)
    future.add_done_callback(lambda done: print(done.result().func_return, flush=True))
"""


def test_a_program_that_forgets_the_shutdown_ends_after_its_calls(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py"), "0.2", "untold"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0.2\n", "")


@posix_only
def test_workers_end_with_a_parent_that_is_killed_even_in_the_middle_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    with python(str(tmp_path / "program.py"), "100", "told") as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        process.kill()
        process.wait()
        _wait_for_the_end(worker)


def test_a_main_program_without_a_guard_is_told_so(tmp_path: Path) -> None:
    text = "from wasm_sandbox import Tool\nfrom wasm_sandbox.parallel import SandboxExecutor\n"
    text += "tool = Tool.from_source('def f():\\n    pass')\n"
    text += "with SandboxExecutor(1) as executor:\n    executor.submit(tool).result()\n"
    (tmp_path / "program.py").write_text(text)
    command = [sys.executable, str(tmp_path / "program.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "BrokenProcessPool: worker processes end before they are ready" in done.stderr
    assert "if __name__ == '__main__'" in done.stderr.splitlines()[-1]


def _wait_for_the_end(pid: int) -> None:
    for _ in range(1000):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        status = Path(f"/proc/{pid}/stat")
        if status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z":
            return  # its new parent has not looked yet
        time.sleep(0.02)
    raise AssertionError(f"process {pid} goes on")


# --- Death ----------------------------------------------------------------------------------------------


@posix_only
def test_results_are_those_of_a_serial_run_though_workers_are_killed_in_the_middle() -> None:
    with SandboxExecutor(2) as executor:
        results: list[Any] = []
        killed: list[int] = []
        for result in executor.map(ADD, rows(600), chunksize=20):
            results.append(result.func_return)
            if len(results) in {50, 200, 350}:
                victim = next(pid for pid in executor.pids if pid not in killed)
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)
    assert results == values(run_tool(ADD, row) for row in rows(600))


@posix_only
def test_the_rows_of_a_worker_that_dies_once_all_come(tmp_path: Path) -> None:
    tool = Tool.from_source("def f(path: str) -> str:\n    return die_once(path)\n")
    paths = [str(tmp_path / str(number)) for number in range(3)]
    with SandboxExecutor(2, functions=[die_once]) as executor:
        assert values(executor.map(tool, [{"path": path} for path in paths], chunksize=3)) == ["second"] * 3
        assert executor.submit(tool, {"path": str(tmp_path / "x")}).result().func_return == "second"


@posix_only
def test_a_row_of_which_every_worker_dies_is_given_up_and_no_other_is_lost() -> None:
    tool = Tool.from_source("def f(number: int) -> int:\n    return die(number)\n")
    with SandboxExecutor(2, functions=[die]) as executor:
        results = executor.map(tool, [{"number": number} for number in range(12)], chunksize=4)
        seen: list[Any] = []
        while True:
            try:
                seen.append(next(results).func_return)
            except StopIteration:
                break
            except BrokenProcessPool as error:
                seen.append(str(error))
    assert seen[:7] + seen[8:] == [*range(7), *range(8, 12)]
    assert "3 workers died of it" in seen[7]
    assert "exited with status 3" in seen[7]


def fail_to_load() -> None:
    """What a worker finds instead of a sandbox."""
    raise LookupError("nothing of the sort here")


class _Unloadable:
    def __reduce__(self) -> Any:
        return fail_to_load, ()

    def __call__(self, call: object) -> None: ...


def test_workers_that_cannot_start_break_the_executor_with_their_reason() -> None:
    with SandboxExecutor(1, gate=_Unloadable()) as executor:
        with pytest.raises(BrokenProcessPool, match="cannot start: nothing of the sort here"):
            executor.submit(ADD, {"a": 1, "b": 1}).result()
        with pytest.raises(BrokenProcessPool):
            executor.submit(ADD, {"a": 1, "b": 1})


# --- Processes ------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_every_way_to_start_a_process_will_do_also_beside_an_engine_at_work(method: str) -> None:
    assert run_tool(ADD, {"a": 1, "b": 1}).func_return == 2
    context: Any = multiprocessing.get_context(method)
    with SandboxExecutor(2, mp_context=context, functions=[whoami]) as executor:
        tool = Tool.from_source("def f(n: int) -> list[int]:\n    return [n, whoami()]\n")
        results = values(executor.map(tool, [{"n": n} for n in range(40)], chunksize=2))
        assert [n for n, _ in results] == list(range(40))
        assert {pid for _, pid in results} <= set(executor.pids)
        assert os.getpid() not in {pid for _, pid in results}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_forked_worker_is_found_dead_though_others_have_copies_of_its_pipe() -> None:
    context: Any = multiprocessing.get_context("fork")
    with SandboxExecutor(2, mp_context=context) as executor:
        results = executor.map(ADD, rows(300), chunksize=10)
        seen = values(itertools.islice(results, 30))
        for victim in executor.pids:
            os.kill(victim, signal.SIGKILL)
        assert seen + values(results) == list(range(1, 301))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_the_child_of_a_fork_is_told_that_the_executor_is_not_its_own() -> None:
    code = "import os\nfrom wasm_sandbox.parallel import SandboxExecutor\nexecutor = SandboxExecutor(1)\n"
    code += "if os.fork() == 0:\n    try:\n        executor.map(print, [])\n    except RuntimeError as error:\n"
    code += "        print(error, flush=True)\n    executor.shutdown()\n    os._exit(0)\nos.wait()\n"
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "belongs to the process that made it" in done.stdout


def test_guests_of_workers_may_have_a_second_wall() -> None:
    with SandboxExecutor(1, isolation="process") as executor:
        assert values(executor.map(ADD, rows(3))) == [1, 2, 3]
