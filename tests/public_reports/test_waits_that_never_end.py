"""Waits that can never end trap: of a queue, a lock, an event, a future.

The kind: every way to wait for another thread, of which a guest has none. Each ends in an exception that says
"deadlock", in the tool's own line.
"""

from __future__ import annotations

import pytest

from wasm_sandbox import ErrorKind, Tool, run_tool

WAITS = {
    "a queue": "queue.Queue().get()",
    "a simple queue": "queue.SimpleQueue().get()",
    "a full queue": "q = queue.Queue(1); q.put(1); q.put(2)",
    "a queue's tasks": "q = queue.Queue(); q.put(1); q.join()",
    "a lock": "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "a lock of a block": "lock = threading.Lock(); lock.acquire(); lock.__enter__()",
    "a semaphore": "threading.Semaphore(0).acquire()",
    "an event": "threading.Event().wait()",
    "a condition": "c = threading.Condition(); c.acquire(); c.wait()",
    "a barrier": "threading.Barrier(2).wait()",
    "a future": "concurrent.futures.Future().result()",
    "a future's exception": "concurrent.futures.Future().exception()",
    "one of some futures": "concurrent.futures.wait([concurrent.futures.Future()])",
    "futures as they are done": "list(concurrent.futures.as_completed([concurrent.futures.Future()]))",
    "a task": "asyncio.run(asyncio.Event().wait())",
}


@pytest.mark.parametrize("wait", WAITS)
def test_it_says_deadlock_in_the_tools_line(wait: str) -> None:
    source = f"import asyncio, concurrent.futures, queue, threading\n\ndef f():\n    {WAITS[wait]}\n"
    result = run_tool(Tool.from_source(source), limits={"timeout_seconds": 20})
    assert result.error is not None
    assert result.error.kind is ErrorKind.TOOL_EXCEPTION
    assert "deadlock" in result.error.message
    assert 'File "f.py", line 4' in (result.error.traceback or "")


@pytest.mark.parametrize("wait", ["queue.Queue().get(timeout=0.01)", "threading.Event().wait(0.01)"])
def test_a_wait_with_an_end_ends_there(wait: str) -> None:
    source = f"import queue, threading\n\ndef f():\n    try: return {wait}\n    except queue.Empty: return 'empty'\n"
    assert run_tool(Tool.from_source(source)).func_return in ("empty", False)
