"""The channel in hostile hands: raw requests, floods, lies, and host functions that misbehave."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import struct
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from wasm_sandbox import Call, CodeResult, Deny, ErrorKind, HostDir, Limits, Sandbox, run_code
from wasm_sandbox.decode.frame import MARKER
from wasm_sandbox.functions import Functions, RunCalls
from wasm_sandbox.functions.calls import KEPT_ARGUMENT_BYTES
from wasm_sandbox.functions.requests import MAX_VALUES, has_few_values
from wasm_sandbox.request import Answer

pytestmark = pytest.mark.long

RAW = """
import io, struct, marshal
FILE = io.FileIO(1000, "rb", closefd=False)
def raw(buffer, file=FILE):
    return file.readinto(buffer)
def ask(op, ident=0, payload=b"", size=None, room=32 << 10):
    buffer = bytearray(max(room, 9))
    head = struct.pack("<IBI", len(payload) if size is None else size, op, ident)
    whole = (head + payload)[:len(buffer)]
    buffer[:len(whole)] = whole
    got = raw(buffer)
    kind, number, length = struct.unpack_from("<BII", buffer)
    return kind, number, length, bytes(buffer[9:9 + length])
def call(number, arguments):
    return ask(0, 0, struct.pack("<I", number) + arguments, room=9 + 4 + len(arguments) + 1000)
def said(answer):
    return marshal.loads(answer[3]) if answer[0] == 2 else answer
"""
CALL, SUBMIT, NEXT, CANCEL, MODULE, NAMES, MORE, DISPLAY, PROGRESS = range(9)
FOREVER = "b'\\xff' * 8"


class Point(BaseModel):
    x: int
    y: int
    z: int


called: list[Any] = []
ended: list[str] = []


def add(a: int, b: int = 2) -> int:
    called.append((a, b))
    return a + b


def many(xs: list[int]) -> int:
    return len(xs)


def points(ps: list[Point]) -> int:
    return len(ps)


def anything(value: Any = None, **more: Any) -> Any:
    return value


async def forever() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("forever")


async def soon(n: int = 0) -> int:
    await asyncio.sleep(0.01)
    return n


FUNCTIONS: list[Any] = [add, many, points, anything, forever, soon]
ADD, MANY, POINTS, ANYTHING, ENDLESS, SOON = Functions(FUNCTIONS).plain.values()
RAW += f"ADD, ANYTHING, ENDLESS = {ADD}, {ANYTHING}, {ENDLESS}\n"


def attack(code: str, functions: list[Any] | None = None, **limits: Any) -> CodeResult:
    """Result of code that has the channel in its hands; another run works after it."""
    called.clear()
    ended.clear()
    box = Sandbox(functions=FUNCTIONS if functions is None else functions, limits={"timeout_seconds": 60, **limits})
    result = box.run_code(RAW + textwrap.dedent(code))
    assert Sandbox(functions=FUNCTIONS).run_code("add(20, 22)").value == 42
    called.pop()
    return result


def said(result: CodeResult) -> str:
    assert result.error is not None
    return f"{result.error.exception_name}: {result.error.message}"


def calls_of(**limits: Any) -> RunCalls:
    called.clear()
    return RunCalls(Functions(FUNCTIONS), Limits(**limits))


def no_wait(ready: Callable[[], Any], seconds: float, changed: threading.Condition) -> Any:
    with changed:
        return ready()


# -- requests that are none -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        *("raw(bytearray(0))", "raw(bytearray(8))", "ask(0, size=1, room=9)", "ask(0, size=2**32 - 1)"),
        *("ask(0, size=(32 << 10) - 8)", "ask(6, 1, size=2**31)", "ask(255, size=2**32 - 9)"),
    ],
)
def test_a_request_that_is_cut_or_lies_about_its_size_is_an_error_of_the_descriptor(request_: str) -> None:
    result = attack(f"{request_}")
    assert said(result) in {"OSError: [Errno 28] Invalid argument"}
    assert called == []


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ("ask(0)", "the request is cut"),
        ("ask(0, 0, b'\\0\\0\\0')", "the request is cut"),
        ("ask(1, 5, b'')", "the request is cut"),
        ("call(6, b'{}')", "there is no such host function"),
        ("call(2**32 - 1, b'{}')", "there is no such host function"),
        *((f"ask({op}, 1, b'x')", "there is no such operation") for op in (9, 10, 127, 255)),
        ("ask(1, 0, bytes([5, 0, 0, 0]) + b'{}')", "a call of this number is under way"),
        ("call(ADD, b'')", "add: arguments: Invalid JSON"),
        ("call(ADD, b'{')", "add: arguments: Invalid JSON"),
        ("call(ADD, b'null')", "add: arguments: Input should be an object"),
        ("call(ADD, b'[1, 2]')", "add: arguments: Input should be an object"),
        ("call(ADD, b'{\"a\": 1} {}')", "add: arguments: Invalid JSON"),
        ("call(ADD, b'\\xff\\xfe')", "add: arguments: Invalid JSON"),
        ("call(ADD, b'{\"a\": ' + b'1' * 5000 + b'}')", "add: "),
        ('call(ADD, b\'{"a": 1, "p0": 2}\')', "add: p0: Extra inputs are not permitted"),
        ('call(ADD, b\'{"a": 1, "self": 2, "__class__": 3}\')', "Extra inputs are not permitted"),
        ("call(ADD, b'{\"a\": NaN}')", "add: a: "),
        ("call(ANYTHING, b'{\"value\": ' + b'[' * 1000 + b']' * 1000 + b'}')", "anything: arguments: Invalid JSON"),
        ("call(ANYTHING, b'{\"value\": ' + b'{\"a\":' * 100_000)", "anything: arguments: Invalid JSON"),
        ("ask(7, 0, b'xxx')", "a display is malformed"),
        ("ask(7, 0, struct.pack('<IBI', 1, 0, 2**32 - 1) + b'xy')", "a display is malformed"),
        ("ask(7, 0, struct.pack('<IBI', 2**32 - 1, 0, 1) + b'xy')", "a display is malformed"),
        (
            "ask(7, 0, b''.join(struct.pack('<IBI', 2, 0, 0) + b'%02d' % n for n in range(65)))",
            "a display is malformed",
        ),
        ("ask(5, 0, b'x' * 70_000, room=80_000)", "the names are too long"),
        ("ask(4, 0, b'x' * 70_000, room=80_000)", "the names are too long"),
    ],
)
def test_a_request_that_is_nonsense_is_answered_in_words_and_calls_nothing(request_: str, words: str) -> None:
    result = attack(f"kind, _, _, data = {request_}\n(kind, marshal.loads(data)[1])")
    assert result.error is None, result.error
    assert result.value[0] == 2
    assert words in result.value[1]
    assert called == []


@pytest.mark.parametrize(
    "request_",
    [
        *("ask(2)", "ask(2, 0, b'\\xff' * 8)", "ask(2, 0, b'\\0' * 8)", "ask(3, 99)", "ask(3, 2**32 - 1, b'x')"),
        *("ask(4, 0, b'\\xff\\n')", "ask(8, 0, b'[')", "ask(8, 0, b'[1e999, null, \"\"]')", "ask(8, 0, b'9' * 20_000)"),
    ],
)
def test_what_there_is_nothing_for_is_answered_with_nothing(request_: str) -> None:
    """A wait without calls among them: it would last for ever."""
    began = time.monotonic()
    assert attack(f"{request_}[0]").value == 4
    assert time.monotonic() - began < 30


def test_more_of_nothing_is_nothing_and_of_an_answer_no_more_than_there_is() -> None:
    code = """
    found = [ask(6, n)[2] for n in (0, 1, 2**32 - 1)]
    add_ = call(ADD, b'{"a": 1}')
    found.append(ask(6, 100)[2])
    text = b'{"value": "' + b'x' * 100_000 + b'"}'
    first = ask(0, 0, struct.pack("<I", ANYTHING) + text, room=200_000)
    found.append(first[2] > 100_000)
    buffer = bytearray(200_000)
    buffer[:13 + len(text)] = struct.pack("<IBI", 4 + len(text), 0, 0) + struct.pack("<I", ANYTHING) + text
    raw(memoryview(buffer)[:13 + len(text)])
    pieces = [ask(6, n, room=9 + 60_000)[2] for n in (1, 0, 2**32 - 1, 100_000, 5)]
    found + pieces
    """
    result = attack(code)
    assert result.error is None, result.error
    assert result.value[:5] == [0, 0, 0, 0, True]
    assert all(size <= 60_000 for size in result.value[5:])


def test_requests_over_several_buffers_at_the_end_of_memory_or_nowhere_are_errors() -> None:
    """What `readinto` never asks for: `fd_read` of a channel itself, with every pointer and count."""
    from wasm_sandbox.engine.world.channel import CHANNEL, Channel
    from wasm_sandbox.engine.world.preview1 import EINVAL, Fault
    from wasm_sandbox.engine.world.streams import Streams
    from wasm_sandbox.engine.world.surroundings import LiveSurroundings
    from wasm_sandbox.engine.world.world import World

    size = 1 << 16
    block = bytearray(size)
    held = (ctypes.c_char * size).from_buffer(block)

    class Instance:
        def memory(self) -> tuple[int, int]:
            return ctypes.addressof(held), size

    world = World(LiveSurroundings(), time.monotonic() + 60)
    world.instance = Instance()  # type: ignore[assignment]
    world.offer(Streams(world, None, None))  # type: ignore[arg-type]
    channel = Channel(world, calls_of(), lambda _: None)

    def read(*spans: tuple[int, int], count: int | None = None, at: int = 0, result: int = 512) -> int:
        struct.pack_into(f"<{2 * len(spans)}I", block, at, *(part for span in spans for part in span))
        return channel.fd_read(CHANNEL, at, len(spans) if count is None else count, result)

    assert read() == EINVAL
    assert read((1024, 100), (2048, 100)) == EINVAL
    assert read((1024, 8)) == EINVAL
    for spans in ([(size - 8, 9)], [(size, 9)], [(2**32 - 1, 2**32 - 1)], [(1024, size)]):
        with pytest.raises(Fault):
            read(*spans)
    for result in (size - 3, size, 2**32 - 1):
        with pytest.raises(Fault):
            read((1024, 100), result=result)
    with pytest.raises(Fault):
        channel.fd_read(CHANNEL, size - 7, 1, 512)
    struct.pack_into("<IBI", block, size - 9, 0, NEXT, 0)
    assert read((size - 9, 9)) == 0
    assert block[size - 9] == 4
    struct.pack_into("<IBI", block, 0, 0, NEXT, 0)
    assert read((8, 100), at=8, result=12) in (0, EINVAL)  # over its own vectors


def test_other_calls_with_the_descriptor_find_nothing() -> None:
    code = """
    import os
    found = []
    for what in (lambda: os.write(1000, b"x"), lambda: os.pread(1000, 5, 0), lambda: os.pwrite(1000, b"x", 0),
                 lambda: os.lseek(1000, 0, 0), lambda: os.close(1000), lambda: os.fsync(1000),
                 lambda: os.ftruncate(1000, 0), lambda: os.fdatasync(1000)):
        try:
            what()
        except OSError as error:
            found.append(error.errno)
    (len(found), call(ADD, b'{"a": 1}')[0])
    """
    assert attack(code).value == (8, 0)
    without = run_code("import io\nio.FileIO(1001, 'rb', closefd=False)", functions=[add])
    assert said(without).startswith("OSError")


# -- numbers, floods ---------------------------------------------------------------------------------------


def test_a_number_that_is_under_way_cannot_be_used_again_until_it_is_free() -> None:
    code = """
    arguments = struct.pack("<I", ENDLESS) + b"{}"
    first, second = ask(1, 7, arguments), ask(1, 7, arguments)
    ask(3, 7)
    third = ask(1, 7, arguments)
    (first[0], said(second)[1], third[0], ask(3, 7)[0], ask(3, 7)[0])
    """
    result = attack(code)
    assert result.value == (4, "a call of this number is under way", 4, 4, 4)
    assert [call.outcome for call in result.calls] == ["cancelled"] * 2


def test_what_was_submitted_without_a_number_does_not_outlive_its_run() -> None:
    result = attack('ask(1, 0, struct.pack("<I", ENDLESS) + b"{}")\ncall(ENDLESS, b"{}")', timeout_seconds=0.5)
    assert result.error is not None
    assert result.error.kind is ErrorKind.TIMEOUT
    assert ended == ["forever"]
    assert [call.outcome for call in result.calls] == ["cancelled"]


@pytest.mark.parametrize(
    ("flood", "kind"),
    [
        ("while True: call(ADD, b'{\"a\": 1}')", ErrorKind.OUT_OF_FUEL),
        ("while True: call(ADD, b'')", ErrorKind.OUT_OF_FUEL),
        ("while True: ask(2, 0, b'\\0' * 8)", ErrorKind.OUT_OF_FUEL),
        ("while True: ask(3, 1)", ErrorKind.OUT_OF_FUEL),
        ("while True: ask(5, 0, b'add\\n' * 10_000, room=50_000)", ErrorKind.OUT_OF_FUEL),
        ("while True: ask(6, 1)", ErrorKind.OUT_OF_FUEL),
        ("while True: ask(7)", ErrorKind.OUT_OF_FUEL),
        ("while True: ask(8, 0, b'[1, 2, \"\"]')", ErrorKind.OUT_OF_FUEL),
        ("n = 0\nwhile True:\n    n += 1\n    ask(1, n, struct.pack('<I', 5) + b'{}')", ErrorKind.OUT_OF_FUEL),
    ],
)
def test_a_flood_costs_fuel_and_leaves_little(flood: str, kind: ErrorKind) -> None:
    result = attack(flood, fuel=60_000_000, host_calls=500)
    assert result.error is not None
    assert result.error.kind is kind
    assert len(result.calls) <= 500
    assert len(called) <= 500


def test_displays_that_hold_nothing_are_bounded_too() -> None:
    result = attack("for _ in range(1000): ask(7)\nsaid(ask(7))", result_bytes=100_000)
    assert "(Limits.result_bytes)" in str(result.value)
    assert len(result.displays) < 500


def test_a_host_function_holds_no_more_for_a_guest_that_never_fetches_than_it_may_have() -> None:
    def large() -> bytes:
        return bytes(1 << 20)

    async def wanted() -> bytes:
        return large()

    (number,) = Functions([wanted]).plain.values()
    arguments = struct.pack("<I", number) + b"{}"
    code = f"for n in range(1, 300): ask(1, n, {arguments!r})\nimport time\ntime.sleep(0.5)"
    gc.collect()
    tracemalloc.start()
    try:
        result = attack(code, [wanted], host_bytes=8 << 20)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.error is None, result.error
    assert most < 40 << 20
    assert 1 <= sum(call.outcome == "ok" for call in result.calls) <= 8


# -- what a request costs ------------------------------------------------------------------------------------

COSTLY = {
    "many that are wrong": (MANY, b'{"xs":[' + b'"a",' * 3_000_000 + b"1]}"),
    "many keys too many": (ADD, b"{" + b",".join(b'"%d":0' % n for n in range(1_000_000)) + b"}"),
    "many empty objects": (POINTS, b'{"ps":[' + b"{}," * 1_000_000 + b"{}]}"),
    "many empty lists": (ANYTHING, b'{"value":[' + b"[]," * 3_000_000 + b"1]}"),
    "many texts": (ANYTHING, b'{"value":[' + b'"",' * 3_000_000 + b"1]}"),
    "nested": (ANYTHING, b'{"value":' + b"[" * 5_000_000),
    "quotes": (ANYTHING, b'{"value":"' + b'\\"' * 5_000_000),
    "nearly as many as there may be": (MANY, b'{"xs":[' + b'"a",' * (MAX_VALUES - 10) + b"1]}"),
}


@pytest.mark.parametrize(("number", "arguments"), COSTLY.values(), ids=COSTLY.keys())
def test_the_costliest_arguments_cost_little(number: int, arguments: bytes) -> None:
    calls = calls_of()
    began = time.process_time()
    answer = calls.handle(CALL, 0, struct.pack("<I", number) + arguments, no_wait)
    assert time.process_time() - began < 5
    assert answer.kind == 2
    assert len(answer.data) < 10_000
    assert calls.calls[0].outcome == "bad_arguments"
    assert len(str(calls.calls[0].cause)) < 10_000


def test_large_arguments_that_are_honest_pass() -> None:
    for honest in (
        {"value": 'a,b\\"[{' * 500_000},
        {"value": ["\\\\"] * 10_000},
        {"value": [{"x": n, "y": "a, b"} for n in range(50_000)]},
    ):
        calls = calls_of()
        answer = calls.handle(CALL, 0, struct.pack("<I", ANYTHING) + json.dumps(honest).encode(), no_wait)
        assert answer.kind < 2, answer
    assert has_few_values(b"[" + b"1," * (MAX_VALUES - 2) + b"1]")
    assert not has_few_values(b"[" + b"1," * MAX_VALUES + b"1]")
    assert not has_few_values(b"[" + b"{}," * (MAX_VALUES // 10) + b"1]", 10)


def test_of_the_arguments_of_many_calls_little_is_kept() -> None:
    calls = calls_of(host_bytes=1 << 30)
    payload = struct.pack("<I", ANYTHING) + json.dumps({"value": [[]] * 10_000}).encode()
    for _ in range(100):
        calls.handle(CALL, 0, payload, no_wait)
    kept = [call for call in calls.calls if call.kwargs]
    assert 1 <= len(kept) <= KEPT_ARGUMENT_BYTES // len(payload) + 1
    assert len(calls.calls) == 100


def test_what_may_be_handed_over_is_read_once_and_no_byte_more() -> None:
    calls = calls_of(host_bytes=200_000)
    assert calls.max_request_bytes == 200_000
    calls.handle(CALL, 0, struct.pack("<I", ANYTHING) + b'{"value":"' + b"x" * 190_000 + b'"}', no_wait)
    assert calls.max_request_bytes == 64 << 10  # for what hands nothing over
    result = attack(
        "text = b'{\"value\": \"' + b'x' * 90_000 + b'\"}'\n[said(call(ANYTHING, text))[1] for _ in range(2)][1]",
        host_bytes=100_000,
    )
    assert "this run may hand 100000" in str(result.value)


def test_with_its_budget_of_bytes_used_up_a_guest_still_gets_its_answers() -> None:
    async def later(text: str) -> int:
        await asyncio.sleep(0.05)
        return len(text)

    for budget in range(110, 150, 4):
        result = run_code("await later('x' * 100)", functions=[later], limits={"host_bytes": budget, "fuel": 10**9})
        assert result.value == 100 or "(Limits.host_bytes)" in said(result)


# -- any request ----------------------------------------------------------------------------------------------

KNOWN = [ADD, MANY, POINTS, ANYTHING, ENDLESS, SOON, 0, 2**32 - 1]
ARGUMENTS = [b"{}", b'{"a":1}', b'{"xs":[1]}', b'{"n":1}', b"[", b'{"value":[]}']
PAYLOADS = st.one_of(
    st.binary(max_size=40),
    st.tuples(st.sampled_from(KNOWN), st.sampled_from(ARGUMENTS)).map(
        lambda parts: struct.pack("<I", parts[0]) + parts[1]
    ),
    st.sampled_from([b"\xff" * 8, bytes(8), b"tools", b"add\nsoon\nnone", b'[1,2,"x"]']),
)
REQUESTS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4) | st.just(2**32 - 1), PAYLOADS), max_size=12)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(REQUESTS, st.booleans())
def test_any_requests_are_answered_and_leave_nothing_behind(
    requests: list[tuple[int, int, bytes]], deterministic: bool
) -> None:
    calls = calls_of(host_calls=8, host_pending=3, deterministic=deterministic)

    def wait(ready: Callable[[], Any], seconds: float, changed: threading.Condition) -> Any:
        with changed:
            return changed.wait_for(ready, min(seconds, 0.03))

    for op, ident, payload in requests:
        answer = calls.handle(op, ident, payload, wait)
        assert type(answer) is Answer
        assert answer.kind in range(6)
        assert 0 <= answer.ident < 2**32
    calls.settle()
    assert len(calls.calls) <= 8
    assert all(call.outcome != "pending" for call in calls.calls)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(REQUESTS, st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 64)), max_size=4))
def test_any_raw_requests_of_a_guest_end_in_a_result(
    requests: list[tuple[int, int, bytes]], lies: list[tuple[int, int]]
) -> None:
    code = """
    answers = []
    for op, ident, payload in requests:
        answers.append(ask(2 if op == 2 and payload == b'\\xff' * 8 else op, ident, payload)[0])
    for size, room in lies:
        try:
            answers.append(ask(0, 0, size=size, room=room)[0])
        except OSError as error:
            answers.append(error.errno)
    all(answer in (*range(6), 28) for answer in answers)
    """
    result = Sandbox(functions=[add, many, soon], limits={"timeout_seconds": 5}).run_code(
        RAW + textwrap.dedent(code), {"requests": requests, "lies": lies}
    )
    assert result.value is True, result.error


# -- host functions that misbehave ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["block()", "import asyncio\nawait asyncio.to_thread(block)", "await never()"])
def test_a_function_that_never_returns_holds_nobody_up(how: str) -> None:
    released = threading.Event()

    def block() -> None:
        released.wait(60)

    async def never() -> None:
        await asyncio.Event().wait()

    began = time.monotonic()
    result = run_code(f"print('before')\n{how}", functions=[block, never], limits={"timeout_seconds": 0.3})
    took = time.monotonic() - began
    released.set()
    assert result.error is not None
    assert (result.error.kind, result.stdout) == (ErrorKind.TIMEOUT, ["before\n"])
    assert took < 15


def test_a_function_that_never_returns_does_not_hold_up_the_exit() -> None:
    program = """
        import threading
        from wasm_sandbox import run_code
        def block():
            threading.Event().wait()
        for code in ("block()", "import asyncio\\nawait asyncio.to_thread(block)"):
            print(run_code(code, functions=[block], limits={"timeout_seconds": 0.2}).error.kind, flush=True)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (0, "timeout\ntimeout\n"), done.stderr


class Strange(BaseException):
    pass


@pytest.mark.parametrize("kind", [Strange, SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("how", ["f()", "import asyncio\nawait asyncio.to_thread(f)", "await g()"])
def test_whatever_a_function_raises_ends_its_call_alone(kind: type[BaseException], how: str) -> None:
    error = kind("hunter2")

    def f() -> None:
        raise error

    async def g() -> None:
        raise error

    indented = how.replace("\n", "\n    ")
    code = f"try:\n    {indented}\nexcept RuntimeError as error:\n    x = str(error)\nx"
    result = run_code(code, functions=[f, g])
    assert result.value in ("f failed", "g failed"), result.error
    assert "hunter2" not in result.model_dump_json()
    assert result.calls[0].cause is error
    assert run_code("await soon(4)", functions=[soon]).value == 4


def test_a_gate_that_misbehaves_denies() -> None:
    class Awaited:
        async def __call__(self, call: Call) -> Deny | None:
            return Deny("by an object") if call.kwargs["a"] == 1 else None

    result = run_code("x = add(2, 3)\nadd(1)", functions=[add], gate=Awaited())
    assert said(result) == "HostRefusedError: add: by an object"

    def strange(_: Call) -> None:
        raise Strange

    called.clear()
    assert said(run_code("add(1)", functions=[add], gate=strange)) == "HostFunctionError: add failed"
    hidden: Any = lambda call: soon()  # noqa: E731 - a coroutine, from what is no coroutine function
    assert "has to be awaited" in said(run_code("add(1)", functions=[add], gate=hidden))
    assert called == []


@pytest.mark.parametrize(
    "text",
    [
        *(
            "/etc/shadow",
            "/home/me/.ssh/id_rsa",
            "'/root/x y'",
            "/srv/app/config.toml",
            "/usr/lib/x.py",
            "/tmp",
        ),
        *("C:\\Users\\me\\key.pem", "\\\\server\\share\\x", "/proc/self/environ", "/Users/me/x", "/data/customers.db"),
    ],
)
def test_no_path_of_a_host_crosses_in_a_message(text: str) -> None:
    def f() -> None:
        raise ValueError(f"cannot read {text}: it is locked")

    message = said(run_code("f()", functions=[f]))
    assert "<path>" in message
    assert text.strip("'").split(" ")[0] not in message
    assert "cannot read" in message


@pytest.mark.parametrize("text", ["https://a.b/home/x", "no route /api/v1/users", "1/2 and/or 3/4", "GET /", "x/etc/y"])
def test_what_is_no_path_of_a_host_crosses(text: str) -> None:
    def f() -> None:
        raise ValueError(text)

    assert said(run_code("f()", functions=[f])) == f"ValueError: {text}"


def test_a_long_message_is_cut_before_it_is_looked_through() -> None:
    def f() -> None:
        raise ValueError("/etc/x " * 10_000_000)

    began = time.process_time()
    message = said(run_code("f()", functions=[f]))
    assert time.process_time() - began < 10
    assert len(message) < 2100
    assert "/etc" not in message


class Buffer(bytearray):
    pass


@pytest.mark.parametrize(
    "value",
    [object(), add, add.__code__, type, ..., iter([]), memoryview, [add.__code__], {"a": (threading.Lock(),)}, {add}],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_travel_never_does(value: Any) -> None:
    def give() -> Any:
        return value

    result = run_code("give()", functions=[give])
    assert said(result).startswith("HostFunctionError: give returned what cannot travel: ")
    assert __file__ not in said(result)


def test_what_has_a_buffer_travels_as_what_it_is() -> None:
    values: list[Any] = [bytearray(b"x"), memoryview(b"y"), [bytearray(b"z")], Buffer(b"w")]

    def give(n: int) -> Any:
        return values[n]

    result = run_code("[(type(give(n)).__name__, give(n)) for n in range(4)]", functions=[give])
    assert [kind for kind, _ in result.value] == ["bytearray", "bytearray", "list", "bytearray"]
    import array

    values[0] = array.array("d", [1.0])
    assert "a value of type array, which is no data" in said(run_code("give(0)", functions=[give]))


def test_a_function_that_calls_back_at_any_depth_ends() -> None:
    depth = 0

    def again(n: int) -> int:
        nonlocal depth
        depth = max(depth, n)
        return int(run_code("again(n + 1) if n < 6 else n", {"n": n}, functions=[again]).value)

    assert run_code("again(1)", functions=[again]).value == 6
    assert depth == 6


def test_a_long_answer_comes_in_one_piece_more() -> None:
    def text(size: int) -> str:
        return "abcdefg" * size

    code = "[text(size) == 'abcdefg' * size for size in (1, 4_678, 4_680, 4_682, 9_000, 100_000, 2_000_000)]"
    result = run_code(code, functions=[text])
    assert result.value == [True] * 7, result.error


# -- after the end -----------------------------------------------------------------------------------------------


def test_a_call_after_the_end_calls_nothing() -> None:
    calls = calls_of()
    calls.close()
    answer = calls.handle(CALL, 0, struct.pack("<I", ADD) + b'{"a":1}', no_wait)
    assert answer.kind == 2
    assert calls.handle(SUBMIT, 1, struct.pack("<I", SOON) + b"{}", no_wait).kind == 2
    calls.settle()
    assert called == []
    assert calls.calls == []


@pytest.mark.parametrize("wait", ["ask(2, 0, b'\\xff' * 8)", "call(ENDLESS, b'{}')", "import time\ntime.sleep(60)"])
@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_cancel_at_any_moment_ends_the_run_and_its_calls(wait: str, isolation: Any) -> None:
    from wasm_sandbox import AsyncSandbox

    async def main() -> None:
        begun = asyncio.Event()

        async def forever() -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("x")

        box = AsyncSandbox(functions=[add, many, points, anything, forever], isolation=isolation)
        begins = 'ask(1, 1, struct.pack("<I", ENDLESS) + b"{}")\n'
        task = asyncio.create_task(box.run_code(RAW + begins + wait))
        await asyncio.wait_for(begun.wait(), 60)
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert "x" in ended
        assert not [other for other in asyncio.all_tasks() if other is not asyncio.current_task()]

    ended.clear()
    asyncio.run(main())


def test_runs_with_calls_leave_nothing_behind() -> None:
    box = Sandbox(functions=[add, soon, forever])
    code = "import asyncio\nawait asyncio.gather(soon(1), soon(2), asyncio.to_thread(add, 1))\nadd(1)"
    lost = "import asyncio\nt = asyncio.ensure_future(forever())\nawait asyncio.sleep(0)\n1 / 0"

    def rounds(count: int) -> None:
        for _ in range(count):
            called.clear()
            ended.clear()
            assert box.run_code(code).value == 3
            box.run_code(lost)

    rounds(10)
    gc.collect()
    threads, descriptors = threading.active_count(), _descriptors()
    tracemalloc.start()
    try:
        rounds(10)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        rounds(60)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 300_000
    assert threading.active_count() <= threads + 2
    assert _descriptors() <= descriptors + 1


def _descriptors() -> int:
    with suppress(OSError):
        return len(os.listdir("/proc/self/fd"))
    return 0


# -- forged frames of cells ----------------------------------------------------------------------------------------

FORGED: dict[str, str] = {
    "nothing": "None",
    "a number": "5",
    "too few": "(None, None)",
    "too many": "(None, None, None, None, None, None)",
    "a value that is no bytes": "(5, 'x', None, False)",
    "a text that is none": "(None, 5, None, False)",
    "an error and a value": "(b'', 'x', ('E', 'm', 't', True, None), False)",
    "an error of numbers": "(None, None, (1, 2, 3, 4, 5), False)",
    "an error that is cut": "(None, None, ('E', 'm'), False)",
    "an exit code that is a truth": "(None, None, ('E', 'm', 't', True, True), False)",
    "an exit code that is a text": "(None, None, ('E', 'm', 't', True, 'x'), False)",
    "a call": "(None, Evil(), None, False)",
    "a pause of what is no session": "(None, None, None, True)",
}
FORGE = f"""
import hashlib, os, pickle, struct, _sandbox_live as live
class Evil:
    def __reduce__(self):
        return print, ("pwned",)
def answer(content):
    data = content if isinstance(content, bytes) else pickle.dumps(content, 4)
    live._payload = lambda *_: data
def frame(content):
    data = pickle.dumps(content, 4)
    os.write(1, {MARKER!r} + struct.pack(">I", len(data)) + hashlib.md5(data).hexdigest().encode() + data)
"""


@pytest.mark.parametrize("content", FORGED.values(), ids=FORGED.keys())
def test_a_forged_answer_of_a_cell_is_an_error_of_its_kind(content: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_code(f"{FORGE}\nanswer({content})")
    assert result.error is not None
    assert result.error.kind in {ErrorKind.CORRUPTED_RESULT, ErrorKind.FORBIDDEN_RESULT}
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("b''", "x"),
        ("b'cos\\nsystem\\n.'", "y"),
        ("pickle.dumps(Evil())", "z"),
        ("pickle.dumps([1] * 10**6)[:9]", ""),
    ],
)
def test_a_forged_value_is_no_value_and_its_text_stays(value: str, text: str) -> None:
    result = run_code(f"{FORGE}\nanswer(({value}, {text!r}, None, False))")
    assert (result.value, result.text, result.error) == (None, text, None)


@pytest.mark.parametrize("code", ["10 ** 5000", "-(10 ** 5000)", "2 ** 70", "True"])
def test_an_exit_code_of_any_size_is_told(code: str) -> None:
    forged = f"{FORGE}\nanswer((None, None, ('E', 'm', 't', True, {code}), False))"
    for program in (f"import sys\nsys.exit({code})", forged):
        result = run_code(program)
        assert result.error is not None


def test_a_frame_of_a_cell_is_output_and_an_answer_of_a_failed_run_is_none() -> None:
    result = run_code(f"{FORGE}\nframe((pickle.dumps(1), '1', None, False))\n2")
    assert result.value == 2
    assert result.stdout is not None
    assert len(result.stdout[0]) > 50  # the frame
    left = run_code(f"{FORGE}\nframe((pickle.dumps(1), '1', None, False))\nos._exit(0)")
    assert left.error is not None
    assert left.error.kind is ErrorKind.NO_RESULT
    failed = run_code(f"{FORGE}\nanswer((pickle.dumps(1), '1', None, False))\nwhile True: pass", limits={"fuel": 10**8})
    assert failed.error is not None
    assert failed.value is None


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=60))
def test_any_bytes_in_an_answer_of_a_cell_give_a_result(data: bytes) -> None:
    result = run_code(f"{FORGE}\nanswer(data)", {"data": data})
    assert result.status in ("success", "error")


def test_a_function_that_blocks_holds_up_no_outcome_beside_mounts(tmp_path: Path) -> None:
    let_go = threading.Event()

    def block() -> None:
        let_go.wait(30)

    began = time.monotonic()
    try:
        result = run_code(
            "block()",
            functions=[block],
            mounts={"/m": HostDir(tmp_path)},
            limits={"timeout_seconds": 0.5},
        )
        assert result.error is not None
        assert result.error.kind is ErrorKind.TIMEOUT
        assert time.monotonic() - began < 20
    finally:
        let_go.set()
