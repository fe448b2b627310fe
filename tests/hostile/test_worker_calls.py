"""Calls of host functions by way of a worker in hostile hands: bounded, one at a time, and none after the end."""

from __future__ import annotations

import asyncio
import io
import json
import struct
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hostile.test_process_isolation import needs_posix, until
from tests.hostile.test_worker_messages import OUTCOME, READY, VALUES, packed
from wasm_sandbox import Limits, Sandbox, run_code
from wasm_sandbox.functions import Functions, RunCalls
from wasm_sandbox.outcome import Ending, Outcome
from wasm_sandbox.request import Answer, ExecutionRequest, Wait
from wasm_sandbox.workers import messages, pool
from wasm_sandbox.workers.pool import ProcessPool, process_pool

pytestmark = pytest.mark.long

ENDED = messages.encode_outcome(OUTCOME)
called: list[int] = []
cancelled = threading.Event()


def add(a: int) -> int:
    called.append(a)
    return a + 1


def large() -> bytes:
    return bytes(4 << 20)


async def forever() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        cancelled.set()


FUNCTIONS = Functions([add, large, forever])
NUMBERS = {name: struct.pack("<I", number) for name, number in FUNCTIONS.plain.items()}
ADD, LARGE, FOREVER = NUMBERS["add"] + b'{"a":1}', NUMBERS["large"] + b"{}", NUMBERS["forever"] + b"{}"
"""Payloads of a call of each."""


@contextmanager
def traitor(program: str) -> Iterator[ProcessPool]:
    """Pool of workers that say they are ready, hear of a run, and do this."""
    text = f"""
        import os, struct, sys, time
        def say(head, body=b''):
            data = struct.pack('>IQ', len(head), len(body)) + head + body
            while data:
                data = data[os.write(1, data):]
        def take(size):
            return sys.stdin.buffer.read(size)
        def hear():
            head, body = struct.unpack('>IQ', take(12))
            return take(head), take(body)
        def call(op, ident=0, payload=b'', run=1):
            head = '{{"kind":"called","run":%d,"op":%d,"ident":%d}}' % (run, op, ident)
            say(head.encode(), payload)
        def end():
            say(*{ENDED!r})
        say(*{READY!r})
        hear()
    """
    fresh = ProcessPool(textwrap.dedent(text) + textwrap.dedent(program))
    try:
        yield fresh
    finally:
        fresh.close()


def outcome_of(workers: ProcessPool, calls: RunCalls | None, **limits: Any) -> Outcome:
    request = ExecutionRequest("pass", {}, Limits(**limits), peer=calls)
    outcome: Outcome = workers.start(request)[0].result(timeout=20)
    return outcome


def calls_of(**limits: Any) -> RunCalls:
    called.clear()
    cancelled.clear()
    return RunCalls(FUNCTIONS, Limits(**limits))


# -- what it may do -----------------------------------------------------------------------------------------


@needs_posix
def test_a_call_is_answered_and_the_outcome_follows() -> None:
    with traitor(f"call(0, 7, {ADD!r})\nassert hear()[1]\nend()\nhear()") as workers:
        assert outcome_of(workers, calls_of()).ending is Ending.EXITED
    assert called == [1]


@needs_posix
@pytest.mark.parametrize("payload", [b"", b"\0", b"\xff\xff\xff\xff{}", b"\0\0\0\0", b"\0\0\0\0" + b"[" * 10**5])
@pytest.mark.parametrize("op", [0, 1, 2, 3, 4, 5, 7, 8, 9, 255])
def test_nonsense_is_answered_in_words_and_calls_nothing(op: int, payload: bytes) -> None:
    with traitor(f"call({op}, 7, {payload!r})\nhear()\nend()\nhear()") as workers:
        assert outcome_of(workers, calls_of()).ending is Ending.EXITED
    assert called == []


# -- what it may not ----------------------------------------------------------------------------------------

WAITS = f"call(1, 1, {FOREVER!r})\nhear()\ncall(2, 0, b'\\xff' * 8)\n"
"""A call of what does not end, and a wait for it."""

REFUSED = {
    "a call before the last one was answered": f"{WAITS}call(2)",
    "a call of an earlier run": f"call(0, 1, {ADD!r}, run=0)",
    "a call of a later run": f"call(0, 1, {ADD!r}, run=2)",
    "a number of no byte": f"call(256, 1, {ADD!r})",
    "a number of no four bytes": f"call(0, 2**32, {ADD!r})",
    "one below nothing": f"call(-1, 1, {ADD!r})",
    "more bytes than a run may hand over": "call(0, 1, bytes(70_000))",
    "a size that is a lie": "os.write(1, struct.pack('>IQ', 50, 2**63))",
    "a size that is a lie of a request too long": 'say(b\'{"kind":"called","run":1,"op":0,"ident":0,"too_long":-1}\')',
    "a field more": 'say(b\'{"kind":"called","run":1,"op":0,"ident":0,"x":1}\')',
    "a pickle": "say(b'\\x80\\x04N.')",
}


@needs_posix
@pytest.mark.parametrize("program", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_due_ends_the_worker_and_traps_its_run(program: str) -> None:
    small = {"host_bytes": 1000, "output_bytes": 100, "result_bytes": 100, "files_bytes": 100, "file_count": 0}
    with traitor(f"{program}\ntime.sleep(60)") as workers:
        found = outcome_of(workers, calls_of(**small), **small)
        assert found.ending is Ending.TRAPPED
        assert found.detail.startswith("the worker process died (SIGKILL)")
        assert workers.workers == []
    assert called == []


@needs_posix
def test_a_call_where_there_is_no_channel_ends_the_worker() -> None:
    with traitor(f"call(0, 1, {ADD!r})\ntime.sleep(60)") as workers:
        assert outcome_of(workers, None).ending is Ending.TRAPPED
        assert workers.workers == []


@needs_posix
def test_a_call_after_the_end_is_not_served_and_the_worker_is_not_asked_again() -> None:
    with traitor(f"end()\ncall(0, 1, {ADD!r})\ntime.sleep(60)") as workers:
        assert outcome_of(workers, calls_of()).ending is Ending.EXITED
        (first,) = workers.workers
        until(lambda: not first.is_silent)
        assert outcome_of(workers, calls_of()).ending is Ending.EXITED
        assert first not in workers.workers
    assert called == []


@needs_posix
def test_a_worker_that_does_not_read_its_answer_delays_nobody() -> None:
    """Its answer fills the pipe: the news of the end is heard all the same, and the worker is ended."""
    program = f"call(0, 1, {LARGE!r})\ntake(13)\ntime.sleep(0.1)\nend()\ntime.sleep(60)"
    with traitor(program) as workers:
        assert outcome_of(workers, calls_of()).ending is Ending.EXITED
        assert until(lambda: workers.workers == [])


@needs_posix
def test_a_flood_of_calls_ends_with_the_time_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "OVERDUE_SECONDS", 0.2)
    flood = f"while True:\n    call(0, 1, {ADD!r})\n    hear()"
    with traitor(flood) as workers:
        calls = calls_of(host_calls=50)
        assert outcome_of(workers, calls, timeout_seconds=0.3).ending is Ending.DEADLINE
    assert len(called) == len(calls.calls) == 50


@needs_posix
@pytest.mark.parametrize("dies", ["os._exit(1)", "os.kill(os.getpid(), 9)", "os.close(1)\ntime.sleep(60)"])
def test_of_a_worker_that_dies_nothing_goes_on(dies: str) -> None:
    with traitor(f"{WAITS}time.sleep(0.1)\n{dies}") as workers:
        calls = calls_of()
        assert outcome_of(workers, calls).ending is Ending.TRAPPED
        calls.settle()
    assert cancelled.wait(10)
    assert [call.outcome for call in calls.calls] == ["cancelled"]


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(["kind", "run", "op", "ident", "too_long", "x"]), VALUES, max_size=3))
def test_any_head_is_a_call_within_bounds_or_refused(change: dict[str, Any]) -> None:
    class Asked:
        max_request_bytes = 10
        requests: list[messages.Called]

        def ask(self, request: messages.Called, payload: bytes) -> None:
            self.requests.append(request)

    asked = Asked()
    asked.requests = []
    head = json.dumps({**json.loads(messages.encode_call(1, 2, 3)[0]), **change}).encode()
    with pytest.raises((messages.MessageError, EOFError)):
        messages.read_outcome(io.BytesIO(packed(head, b"12345")), Limits(), asked)
    for request in asked.requests:
        assert 0 <= request.op < 256
        assert 0 <= request.ident < 2**32
        assert type(request.run) is int


# -- an honest worker, and a host in trouble --------------------------------------------------------------------


def test_a_function_that_blocks_delays_no_outcome_and_its_late_answer_reaches_no_other_run() -> None:
    released, begun = threading.Event(), threading.Event()

    def block() -> str:
        begun.set()
        released.wait(60)
        return "of the first run"

    def quick() -> str:
        released.set()
        time.sleep(0.0005)  # so that the late answer comes while there is one to be waited for
        return "of the second run"

    box = Sandbox(functions=[block, quick], isolation="process")
    box.run_code("1")
    before = {worker.pid for worker in process_pool().workers}
    began = time.monotonic()
    result = box.run_code("print('before')\nblock()", limits={"timeout_seconds": 0.5})
    assert time.monotonic() - began < 10
    assert (result.error and result.error.kind, result.stdout) == ("timeout", ["before\n"])
    assert begun.is_set()
    found = box.run_code("[quick() for _ in range(300)]")
    assert found.value == ["of the second run"] * 300
    assert {worker.pid for worker in process_pool().workers} == before


def test_the_kill_timer_stands_still_while_host_time_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "OVERDUE_SECONDS", 0.0)

    def nap() -> int:
        time.sleep(0.8)
        return 1

    limits = {"timeout_seconds": 0.7, "host_time_counts": False}
    assert run_code("nap() + nap()", functions=[nap], limits=limits, isolation="process").value == 2


def test_a_defect_of_the_host_is_raised_and_not_told() -> None:
    class Broken:
        max_request_bytes = 1000
        holds_deadline = False

        def handle(self, op: int, ident: int, payload: bytes, wait: Wait) -> Answer:
            raise LookupError("a defect")

        def refuse(self, ident: int, size: int, wait: Wait) -> Answer:
            raise LookupError("another one")

        def close(self) -> None: ...

    script = "import _sandbox_live as live\nlive._exchange(0, 1, b'x' * {})"
    for size, words in ((10, "a defect"), (70_000, "another one")):
        request = ExecutionRequest(script.format(size), {}, Limits(host_bytes=1000), peer=Broken())
        with pytest.raises(LookupError, match=words):
            process_pool().start(request)[0].result(timeout=20)


def test_an_answer_of_megabytes_and_a_request_of_megabytes_cross() -> None:
    def echo(text: str) -> str:
        return text

    code = "text = 'é' * 3_000_000\necho(text) == text"
    assert run_code(code, functions=[echo], isolation="process").value is True
    result = run_code("echo('x' * 2000)", functions=[echo], isolation="process", limits={"host_bytes": 1000})
    assert result.error is not None
    assert "(Limits.host_bytes)" in result.error.message


def test_displays_come_from_workers_too() -> None:
    result = run_code("display({'text/html': '<b>'}, raw=True)\nprogress(1, 2, 'x')", isolation="process")
    assert result.displays == [{"text/html": "<b>"}]


def test_a_cancelled_run_in_a_worker_cancels_its_calls() -> None:
    async def main() -> None:
        from wasm_sandbox import AsyncSandbox

        cancelled.clear()
        box = AsyncSandbox(functions=[forever], isolation="process")
        task = asyncio.create_task(box.run_code("await forever()"))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cancelled.is_set()

    asyncio.run(main())


def test_what_the_host_sends_survives_the_way() -> None:
    answer = Answer(3, 2**32 - 1, b"\0data")
    assert messages.decode_order(*messages.encode_answer(2**40, answer)) == messages.Answered(2**40, answer)
    request = ExecutionRequest("print('é')", {"A": "b"}, Limits())
    assert messages.decode_order(*messages.encode_order(9, request)) == messages.Order(9, False, False, request, None)
    head = messages.encode_call(3, 255, 2**32 - 1, too_long=7)[0]
    assert messages.Called.model_validate_json(head).too_long == 7
    assert struct.pack(">IQ", 1, 0) + b"x" == packed(b"x")
