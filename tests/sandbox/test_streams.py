"""Events of a run while it goes on: what they are, their order, their bounds, and how a run ends with its listener."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wasm_sandbox import (
    AsyncSandbox,
    Call,
    CodeResult,
    ErrorKind,
    Event,
    HostDir,
    Limits,
    Sandbox,
    Tool,
    ToolExecutionResult,
    UnsupportedIsolation,
    run_code,
)
from wasm_sandbox.decode.frame import MARKER, encode_frame
from wasm_sandbox.engine import process_engine
from wasm_sandbox.events import Mark, listening

TAKERS = ("iterator", "async iterator", "callback", "callback of an async run")


def add(a: int, b: int) -> int:
    return a + b


async def aadd(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


def taken(code: str, taker: str = "iterator", inputs: dict[str, Any] | None = None, **options: Any) -> list[Event]:
    """Events of a program, however they are taken."""
    found: list[Event] = []

    async def iterate() -> None:
        async for event in AsyncSandbox(**options).stream_code(code, inputs):
            found.append(event)

    match taker:
        case "iterator":
            found += Sandbox(**options).stream_code(code, inputs)
        case "async iterator":
            asyncio.run(iterate())
        case "callback":
            run_code(code, inputs, on_event=found.append, **options)
        case _:
            asyncio.run(AsyncSandbox(**options).run_code(code, inputs, on_event=found.append))
    return found


def seen(events: list[Event]) -> list[tuple[str, Any]]:
    """What events say, pieces of the same output joined."""
    said: list[tuple[str, Any]] = []
    for event in events:
        if event.kind in ("stdout", "stderr") and said and said[-1][0] == event.kind:
            said[-1] = event.kind, said[-1][1] + event.text
        elif event.call is not None:
            said.append((event.kind, (event.call.name, event.call.outcome)))
        else:
            said.append((event.kind, event.text or event.data or (event.result and event.result.status)))
    return said


def text(events: list[Event], kind: str = "stdout") -> str:
    return "".join(event.text or "" for event in events if event.kind == kind)


PROGRAM = """
import sys
print('a', 1)
print('é', end='')
print('e', file=sys.stderr)
print(add(1, 2))
display('shown')
print('unfinished', end='')
progress(1, 2, 'half')
print(await aadd(1, 2), end='')
6 * 7
"""


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_events_come_in_order_and_the_result_last(taker: str, isolation: str) -> None:
    events = taken(PROGRAM, taker, functions=[add, aadd], isolation=isolation)
    assert seen(events) == [
        ("stdout", "a 1\né"),
        ("stderr", "e\n"),
        ("call", ("add", "pending")),
        ("call", ("add", "ok")),
        ("stdout", "3\n"),
        ("display", {"text/plain": "'shown'"}),
        ("stdout", "unfinished"),
        ("progress", "half"),
        ("call", ("aadd", "pending")),
        ("call", ("aadd", "ok")),
        ("stdout", "3"),
        ("result", "success"),
    ]
    result = events[-1].result
    assert isinstance(result, CodeResult)
    assert (result.value, result.stdout) == (42, [text(events)])
    assert not any(event.result for event in events[:-1])
    assert [event.data for event in events if event.kind == "progress"] == [{"done": 1.0, "total": 2.0}]
    assert [event.call.id for event in events if event.call] == [1, 1, 2, 2]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_tool_is_streamed_like_a_program(is_async: bool) -> None:
    tool = Tool.from_source(
        "def f(n: int) -> int:\n    print('n', n)\n    display(n)\n    progress(1)\n    return add(n, 1)\n"
    )

    async def iterate() -> list[Event]:
        return [event async for event in AsyncSandbox(functions=[add]).stream_tool(tool, {"n": 3})]

    events = asyncio.run(iterate()) if is_async else list(Sandbox(functions=[add]).stream_tool(tool, {"n": 3}))
    assert [kind for kind, _ in seen(events)] == ["stdout", "display", "progress", "call", "call", "result"]
    assert isinstance(events[-1].result, ToolExecutionResult)
    assert (events[-1].result.func_return, text(events)) == (4, "n 3\n")
    heard: list[Event] = []
    result = Sandbox(on_event=heard.append).run_tool(
        Tool.from_source("def f():\n    display(1)\n    return print(2)\n")
    )
    assert [event.kind for event in heard] == ["display", "stdout", "result"]
    assert (heard[-1].result, result.calls) == (result, None)


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize(
    ("code", "inputs", "kind"),
    [
        ("print('a')\n1 / 0", None, ErrorKind.TOOL_EXCEPTION),
        ("x = = 1", None, ErrorKind.SYNTAX_ERROR),
        ("1", {"x": object()}, ErrorKind.BAD_ARGUMENTS),
        ("print('a')\nwhile True: pass", None, ErrorKind.TIMEOUT),
        ("print('a')\nimport os\nos._exit(3)", None, ErrorKind.NO_RESULT),
    ],
)
def test_however_a_run_ends_its_result_is_the_last_event(taker: str, code: str, inputs: Any, kind: ErrorKind) -> None:
    seconds = 0.5 if kind is ErrorKind.TIMEOUT else 30
    events = taken(code, taker, inputs, limits=Limits(timeout_seconds=seconds))
    assert [event.kind for event in events].count("result") == 1
    result = events[-1].result
    assert result is not None
    assert result.error is not None
    assert (result.error.kind, text(events)) == (kind, "a\n" if "print" in code else "")
    assert text(events, "stderr") == "".join(result.stderr or [])


def test_an_event_is_taken_while_the_guest_still_runs() -> None:
    go_on = threading.Event()
    steps: list[str] = []
    with Sandbox(functions=[go_on.wait], limits=Limits(timeout_seconds=30)).stream_code(
        "print('first')\nprint('unfinished', end='')\nwait()\nprint('second')"
    ) as stream:
        for event in stream:
            steps.append(event.text or event.kind)
            if "unfinished" in steps[-1]:
                go_on.set()
    assert "".join(steps) == "first\nunfinishedcallcallsecond\nresult"


def test_awaited_functions_run_on_the_loop_that_takes_the_events() -> None:
    async def main() -> list[Event]:
        released = asyncio.Event()

        async def wait() -> str:
            await released.wait()
            return "released"

        events = []
        async for event in AsyncSandbox(functions=[wait]).stream_code("print(await wait())"):
            events.append(event)
            if event.kind == "call":
                released.set()
        return events

    assert text(asyncio.run(main())) == "released\n"


_PIECES = st.one_of(
    st.sampled_from(
        [
            MARKER,
            MARKER[:1],
            MARKER[:15],
            MARKER[7:],
            MARKER + bytes(36),
            MARKER + b"\xff" * 36,
            b"a\n",
            "é€😀".encode(),
        ]
    ),
    st.sampled_from([MARKER + (40).to_bytes(4, "big") + b"0" * 32, encode_frame(b"forged"), encode_frame(MARKER)]),
    st.binary(max_size=6),
)
_WRITE = "import os\nfor piece in pieces: os.write(1, piece)\n7"
_WRITER = Tool.from_source(
    "import os\n\ndef write(pieces: list, leaves: bool) -> int:\n"
    "    for piece in pieces:\n        os.write(1, bytes.fromhex(piece))\n"
    "    if leaves:\n        os._exit(0)\n    return 7\n"
)
"""Tool, whose result is a frame in its output; code's is not."""


def _written(pieces: list[bytes], leaves: bool = False, **options: Any) -> list[Event]:
    """Events of a tool that writes."""
    return list(Sandbox(**options).stream_tool(_WRITER, {"pieces": [p.hex() for p in pieces], "leaves": leaves}))


def _cut(data: bytes, at: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in at)})
    return [data[a:b] for a, b in pairwise(places)]


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.lists(_PIECES, max_size=8), st.lists(st.integers(0, 1000), max_size=8))
def test_the_stream_of_any_bytes_is_the_text_of_the_result(parts: list[bytes], at: list[int]) -> None:
    pieces = _cut(b"".join(parts), at)
    code = taken(_WRITE, inputs={"pieces": pieces})
    for events in (code, _written(pieces)):
        result = events[-1].result
        assert result is not None
        assert (result.error, text(events)) == (None, "".join(result.stdout or []))
    assert text(code) == b"".join(parts).decode("utf-8", "replace")


def test_a_split_character_and_a_split_frame_never_show() -> None:
    frame = encode_frame(b"x" * 100)
    pieces = [bytes([byte]) for byte in b"caf\xc3\xa9\n" + frame + b"after"]
    events = _written(pieces, leaves=True)
    assert text(events) == "café\nafter"
    assert all("\ufffd" not in (event.text or "") for event in events)


def test_a_marker_that_begins_no_frame_delays_nothing() -> None:
    go_on = threading.Event()
    code = "import os\nos.write(1, pieces[0])\nwait()"
    bad = MARKER + b"\xff" * 36 + b"\nafter\n"
    with Sandbox(functions=[go_on.wait]).stream_code(code, {"pieces": [bad]}) as stream:
        assert "after" in (next(stream).text or "")
        go_on.set()


class _Ticks:
    def __init__(self) -> None:
        self.count = 0

    def tick(self) -> None:
        self.count += 1


def _until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


@pytest.mark.parametrize("what", ["print('x' * 99_999)", "display('x' * 99_990)", "progress(1, 2, 'x' * 1000)"])
def test_a_slow_taker_slows_the_guest_down_and_nothing_is_lost(what: str) -> None:
    ticks = _Ticks()
    count = 3000 if "progress" in what else 100
    code = f"for _ in range({count}):\n    {what}\n    tick()"
    stream = Sandbox(functions=[ticks.tick], limits=Limits(host_calls=10_000)).stream_code(code)
    first = next(stream)
    before = -1
    while ticks.count != before:  # it goes on no more
        before = ticks.count
        time.sleep(0.2)
    assert 0 < before < count * 9 // 10
    events = [first, *stream]
    assert sum(event.kind == "call" for event in events) == 2 * count
    size = sum(len(event.text or "") + len(str(event.data or "")) for event in events)
    assert size >= count * (1000 if "progress" in what else 99_990)


def test_the_deadline_runs_on_while_the_guest_waits_for_its_taker() -> None:
    stream = Sandbox(limits=Limits(timeout_seconds=0.5)).stream_code("while True: print('x' * 9999)")
    next(stream)
    assert _until(lambda: process_engine().running_guests == 0)
    *_, last = stream
    assert last.result is not None
    assert last.result.error is not None
    assert last.result.error.kind is ErrorKind.TIMEOUT


def test_a_write_of_gigabytes_takes_no_more_of_the_host_than_others() -> None:
    code = "import os\nbig = bytes(64 << 20)\nfor _ in range(1000): os.write(1, big)"
    with Sandbox(limits=Limits(timeout_seconds=5)).stream_code(code) as stream:
        sizes = [len(next(stream).text or "") for _ in range(50)]
    assert max(sizes) <= 64 << 10


ENDLESS = "import time\nwhile True:\n    print('x')\n    time.sleep(.001)"


def _break(stream: Iterator[Event]) -> None:
    for _ in stream:
        break


def test_leaving_an_iterator_stops_the_guest() -> None:
    def forgotten() -> None:
        _break(Sandbox().stream_code(ENDLESS))

    def closed() -> None:
        stream = Sandbox().stream_code(ENDLESS)
        next(stream)
        stream.close()
        assert list(stream) == []

    def left() -> None:
        with Sandbox().stream_code(ENDLESS) as stream:
            next(stream)

    def failed() -> None:
        with suppress(KeyError), Sandbox().stream_code(ENDLESS) as stream:
            for _ in stream:
                raise KeyError

    for leave in (forgotten, closed, left, failed):
        leave()
        gc.collect()
        assert _until(lambda: process_engine().running_guests == 0), leave


def test_leaving_an_async_iterator_stops_the_guest_and_its_calls() -> None:
    ended: list[str] = []
    is_waiting = threading.Event()

    async def wait() -> None:
        is_waiting.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("cancelled")

    async def first(stream: AsyncIterator[Event]) -> None:
        async for event in stream:
            if event.kind in ("call", "stdout"):
                break

    async def main() -> None:
        box = AsyncSandbox(functions=[wait])
        async with box.stream_code("await wait()") as stream:
            await first(stream)
            assert await asyncio.to_thread(is_waiting.wait, 20)
        assert ended == ["cancelled"]
        stream = box.stream_code(ENDLESS)
        await first(stream)
        await stream.aclose()
        assert [event async for event in stream] == []
        await first(box.stream_code(ENDLESS))
        taking = asyncio.create_task(anext(aiter(box.stream_code("import time\ntime.sleep(60)"))))
        assert await asyncio.to_thread(_until, lambda: process_engine().running_guests > 0)
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        gc.collect()
        assert await asyncio.to_thread(_until, lambda: process_engine().running_guests == 0)

    asyncio.run(main())


class _Submitted:
    """Counts the runs that are started."""

    def __init__(self) -> None:
        self.count = 0

    def began(self, mark: Mark) -> None:
        self.count += mark.name == "submit"

    def ended(self, mark: Mark) -> None: ...


def test_an_iterator_that_is_not_begun_starts_nothing() -> None:
    submitted = _Submitted()
    with listening(submitted):
        stream = Sandbox().stream_code("1")
        stream.close()
        assert list(stream) == []
    assert submitted.count == 0
    with listening(submitted):
        assert list(Sandbox().stream_code("1"))
    assert submitted.count == 1


class Stopped(BaseException):
    """Raised by a listener."""


@pytest.mark.parametrize("kind", ["stdout", "stderr", "display", "progress", "call", "result"])
@pytest.mark.parametrize("is_async", [False, True])
def test_what_a_listener_raises_reaches_the_caller_and_stops_the_guest(kind: str, is_async: bool) -> None:
    told: list[str] = []

    def listen(event: Event) -> None:
        told.append(event.kind)
        if event.kind == kind:
            raise Stopped(kind)

    code = PROGRAM if kind == "result" else f"{PROGRAM}\nwhile True: print('x')"
    options: dict[str, Any] = {"functions": [add, aadd], "on_event": listen, "limits": Limits(timeout_seconds=60)}
    run: Callable[[], object] = lambda: run_code(code, **options)  # noqa: E731
    if is_async:
        run = lambda: asyncio.run(AsyncSandbox(**options).run_code(code))  # noqa: E731
    with pytest.raises(Stopped, match=kind):
        run()
    assert told.count(kind) == 1
    assert told[-1] == kind
    assert _until(lambda: process_engine().running_guests == 0)


def test_a_listener_that_raises_on_the_loop_of_an_async_function_stops_the_guest() -> None:
    def listen(event: Event) -> None:
        if event.call is not None and event.call.outcome == "ok":
            raise Stopped

    with pytest.raises(Stopped):
        run_code("await aadd(1, 2)\nwhile True: pass", functions=[aadd], on_event=listen)
    assert _until(lambda: process_engine().running_guests == 0)


def test_calls_in_events_are_as_they_were_then() -> None:
    events = taken("add(1, 2)", functions=[add])
    calls = [event.call for event in events if event.call]
    assert [(call.outcome, call.kwargs) for call in calls] == [(said, {"a": 1, "b": 2}) for said in ("pending", "ok")]
    assert isinstance(calls[0], Call)


def test_a_tool_that_a_guest_calls_tells_nothing_of_itself() -> None:
    inner = Tool.from_source("def inner() -> int:\n    print('inside')\n    return 1\n")
    heard: list[Event] = []
    assert run_code("inner()", functions=[inner], on_event=heard.append).value == 1
    assert [event.kind for event in heard] == ["call", "call", "result"]


def test_events_can_be_written_down_as_json() -> None:
    for event in taken(PROGRAM, functions=[add, aadd]):
        assert Event.model_validate_json(event.model_dump_json()).kind == event.kind


async def _listen(_: Event) -> None: ...


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"on_event": 3}, TypeError, "on_event must be callable"),
        ({"on_event": _listen}, TypeError, "plain function"),
    ],
)
def test_a_listener_that_cannot_be_one_is_refused(options: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        run_code("1", **options)


@pytest.mark.parametrize("kind", [Sandbox, AsyncSandbox])
def test_a_stream_refuses_what_it_cannot_do_before_it_begins(kind: Any) -> None:
    tool = Tool.from_source("def f():\n    return 1\n")

    def stream_code(**options: Any) -> object:
        return kind().stream_code("1", **options)

    def stream_tool(**options: Any) -> object:
        return kind().stream_tool(tool, **options)

    for begin in (stream_code, stream_tool):
        with pytest.raises(UnsupportedIsolation, match="no mounts"):
            begin(isolation="process", mounts={"/data": HostDir(".")})
        with pytest.raises(TypeError, match="leave out on_event"):
            begin(on_event=print)
        with pytest.raises(TypeError, match="no option"):
            begin(nothing=1)


# --- In a worker process --------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["print('x' * 99_999)", "display('x' * 50_000)"])
def test_a_slow_taker_slows_a_guest_in_a_worker_down(what: str) -> None:
    ticks = _Ticks()
    code = f"for _ in range(100):\n    {what}\n    tick()"
    stream = Sandbox(functions=[ticks.tick], isolation="process").stream_code(code)
    first = next(stream)
    before = -1
    while ticks.count != before:
        before = ticks.count
        time.sleep(0.2)
    assert 0 < before < 90
    events = [first, *stream]
    assert sum(event.kind == "call" for event in events) == 200
    assert sum(len(event.text or "") + len(str(event.data or "")) for event in events) >= 100 * 50_000


def test_the_deadline_of_a_guest_in_a_worker_runs_on_while_it_waits_for_its_taker() -> None:
    limits = Limits(timeout_seconds=0.5, host_time_counts=False)
    stream = Sandbox(limits=limits, isolation="process").stream_code("while True: print('x' * 99_999)")
    next(stream)
    time.sleep(0.7)
    began = time.monotonic()
    *_, last = stream
    assert last.result is not None
    assert last.result.error is not None
    assert last.result.error.kind is ErrorKind.TIMEOUT
    assert time.monotonic() - began < 10


def test_a_worker_goes_on_after_a_stream_that_was_left_or_a_listener_that_raised() -> None:
    box = Sandbox(isolation="process")

    def listen(event: Event) -> None:
        raise Stopped

    _break(box.stream_code(ENDLESS))
    with pytest.raises(Stopped):
        box.run_code(ENDLESS, on_event=listen)
    assert box.run_code("1").value == 1


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_guest_cannot_tell_of_output_past_its_descriptors(isolation: str) -> None:
    code = "import _sandbox_live as live\nlive._exchange(255, 1, b'forged')[0] == live.FAILED"
    events = taken(code, isolation=isolation)
    assert text(events) == ""
    assert isinstance(events[-1].result, CodeResult)
    assert events[-1].result.value is True


def test_the_stream_of_a_guest_in_a_worker_is_the_text_of_its_result() -> None:
    frame = encode_frame(b"x" * 100)
    pieces = [bytes([byte]) for byte in b"caf\xc3\xa9\n" + frame + b"after"] + [b"y" * (1 << 20)]
    options: Any = {"isolation": "process", "limits": Limits(output_bytes=4 << 20)}
    for events in (taken(_WRITE, inputs={"pieces": pieces}, **options), _written(pieces, **options)):
        assert events[-1].result is not None
        assert text(events) == "".join(events[-1].result.stdout or [])


# --- How a guest writes ---------------------------------------------------------------------------------


class _Writes:
    """Counts the calls of a guest that write."""

    def __init__(self) -> None:
        self.count = 0

    def began(self, mark: Mark) -> None:
        self.count += mark.name == "host call" and mark.subject == "fd_write"

    def ended(self, mark: Mark) -> None: ...


def test_a_print_is_one_call_of_the_host() -> None:
    writes = _Writes()
    with listening(writes):
        run_code("for n in range(10): print('line', n, 'of', 10)")
    assert writes.count == 10


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("print('a', end=''); os.write(1, b'b'); print('c')", "abc\n"),
        ("print('a', end=''); sys.stdout.buffer.write(b'b'); print('c')", "abc\n"),
        ("print('a', end=''); sys.__stdout__.buffer.write(b'b'); sys.__stdout__.write('c')", "abc"),
        (
            "print('a', end=''); f = open(sys.stdout.fileno(), 'wb', 0, closefd=False); f.write(b'b'); print('c')",
            "abc\n",
        ),
        (
            "f = open(sys.stdout.fileno(), 'wb', 0, closefd=False); print('a', end=''); f.write(b'b'); print('c')",
            "abc\n",
        ),
        ("print('a', end=''); os._exit(0)", "a"),
        ("print('a', end=''); sys.exit(0)", "a"),
        ("print('a', end=''); sys.stdout = io.StringIO(); print('b')", "a"),
        ("print('a', end=''); sys.stdout.close(); os.write(1, b'b')", "ab"),
        ("print('a', end=''); sys.stdout = None", "a"),
        ("print('a', end=''); 1 / 0", "a"),
        ("sys.stdout.write('a'); sys.stdout.flush(); sys.stdout.write('b')", "ab"),
        ("sys.stdout = io.TextIOWrapper(sys.stdout.buffer, write_through=True); print('a', end='')", "a"),
    ],
)
def test_what_is_written_keeps_its_order_and_comes_whole(code: str, expected: str) -> None:
    code = f"import io, os, sys\n{code}"
    assert "".join(run_code(code).stdout or []) == expected
    assert text(taken(code)) == expected


def test_what_was_printed_before_a_limit_is_there_as_far_as_lines_go() -> None:
    result = run_code("print('whole')\nprint('cut', end='')\nwhile True: pass", limits=Limits(timeout_seconds=0.5))
    assert result.stdout == ["whole\n"]
    assert run_code("print('a')\nwhile True: pass", limits=Limits(fuel=50_000_000)).stdout == ["a\n"]
    many = "import sys\nsys.stdout.buffer.write(b'binary')\nwhile True: pass"
    assert run_code(many, limits=Limits(timeout_seconds=0.5)).stdout == ["binary"]


def test_standard_error_comes_after_what_was_printed_before_it() -> None:
    events = taken("import sys\nprint('a', end='')\nprint('b', file=sys.stderr)\nprint('c')")
    assert seen(events)[:3] == [("stdout", "a"), ("stderr", "b\n"), ("stdout", "c\n")]
