"""What a worker in hostile hands answers: read within bounds, checked, and never of its own choosing."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import textwrap
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wasm_sandbox import ErrorKind, Limits, Tool, run_tool
from wasm_sandbox.files import GivenFiles
from wasm_sandbox.outcome import Ending, GuestException, Outcome
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.workers import messages, pool
from wasm_sandbox.workers.pool import PROGRAM, ProcessPool

needs_posix = pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")

OUTCOME = Outcome(
    ending=Ending.EXITED, exit_code=1, exception=GuestException("E", "m\0é", "t"), detail="", stdout=b"\0out",
    stderr=b"err", stdout_dropped_bytes=0, stderr_dropped_bytes=2, fuel=2**62, wall_seconds=0.5, memory_bytes=1,
    host_calls=3, files={"/a": b"one", "/b/ä": b""},
)  # fmt: skip
SMALL = Limits(output_bytes=1000, result_bytes=1000, file_count=4, files_bytes=99)


def packed(head: bytes, body: bytes = b"") -> bytes:
    """A message as it is sent."""
    return struct.pack(">IQ", len(head), len(body)) + head + body


def outcome(head: bytes, body: bytes = b"", limits: Limits = SMALL) -> Outcome:
    """What the host makes of a reply."""
    return messages.read_outcome(io.BytesIO(packed(head, body)), limits)


def changed(changes: dict[str, Any], body: bytes | None = None) -> tuple[bytes, bytes]:
    """An honest reply with some fields changed."""
    head, honest = messages.encode_outcome(OUTCOME)
    return json.dumps({**json.loads(head), **changes}).encode(), honest if body is None else body


# -- what is honest -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {}, {"exception": None, "stdout": b"", "stderr": b"", "files": None}, {"files": {}}, {"fuel": None},
        {"ending": Ending.TRAPPED, "detail": "é\ntrap"}, {"exception": GuestException("", "\ufffd", "\U0001f600")},
        {"answer": b"xyz", "answer_bytes": 3}, {"answer": b"", "answer_bytes": 0}, {"answer_bytes": 0},
        {"answer_bytes": 2**62},
    ],
)  # fmt: skip
def test_an_outcome_survives_the_way(change: dict[str, Any]) -> None:
    whole = OUTCOME._replace(**change)
    assert outcome(*messages.encode_outcome(whole)) == whole


def test_the_last_words_of_a_long_text_survive_the_way() -> None:
    detail = "x" * 10**6 + "\nlast"
    assert outcome(*messages.encode_outcome(OUTCOME._replace(detail=detail))).detail.endswith("x\nlast")


def test_the_largest_honest_outcome_is_allowed() -> None:
    limits = Limits(output_bytes=100, result_bytes=100, file_count=2, files_bytes=10)
    report = GuestException("", "\ufffd" * (1 << 20), "")
    path = ("/" + "x" * 255) * 4
    largest = OUTCOME._replace(
        exception=report,
        detail="é" * messages.MAX_TEXT_CHARACTERS,
        answer=bytes(100),
        answer_bytes=100,
        stdout=bytes(messages.max_stream_bytes(limits)),
        stderr=b"",
        files={path[:-1] + name: b"12345" for name in "ab"},
    )
    assert outcome(*messages.encode_outcome(largest), limits) == largest


def test_a_request_survives_the_way() -> None:
    limits = Limits(fuel=7, deterministic=True)
    request = ExecutionRequest(
        "print('é\ud800')",
        {"A": "ü"},
        limits,
        "s.py",
        "t.py",
        3,
        4,
        GivenFiles({"/a": b"1", "/ä": b""}, {}),
        (b"v", b""),
        b"call",
    )
    stream = io.BytesIO()
    messages.write_message(stream, *messages.encode_request(request))
    stream.seek(0)
    assert messages.decode_request(*messages.read_message(stream, 1 << 20, 1 << 20)) == request


def test_a_long_message_is_read_in_pieces() -> None:
    class Dripping(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 0, 1000))

    stream = Dripping(packed(b"head", bytes(range(256)) * 100))
    assert messages.read_message(stream, 4, 1 << 20) == (b"head", bytes(range(256)) * 100)


# -- what is not --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"fuel": -1}, {"fuel": 2**63}, {"fuel": "1"}, {"fuel": True}, {"wall_seconds": float("nan")}, {"ending": "x"},
        {"stdout_bytes": 5}, {"stdout_bytes": -1}, {"stdout_bytes": 2**62}, {"exception_bytes": [1, 2]},
        {"exception_bytes": [2, 4, 1]}, {"exception_bytes": {"name": 1}}, {"exception_bytes": None},
        {"detail_bytes": None}, {"more": 1}, {"kind": "pickle"}, {"kind": None}, {"kind": "ready"}, {"kind": "failed"},
        {"files": [["/a"]]}, {"files": -3}, {"files": 1}, {"files": 3}, {"files": 5}, {"files": None},
        {"files": {"/a": "one"}}, {"contents_bytes": 4}, {"paths_bytes": 0}, {"exit_code": 2**64},
        {"answer": -1}, {"answer": "x"}, {"answer_bytes": 0}, {"answer_bytes": 1}, {"answer": 1, "answer_bytes": 0},
    ],
)  # fmt: skip
def test_a_reply_that_is_none_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(messages.MessageError):
        outcome(*changed(change))


def test_an_answer_that_is_longer_than_allowed_is_refused() -> None:
    limits = Limits(result_bytes=100)
    honest = OUTCOME._replace(answer=bytes(100), answer_bytes=100)
    assert outcome(*messages.encode_outcome(honest), limits) == honest
    with pytest.raises(messages.MessageError, match="an answer of 101 bytes; 100 are allowed"):
        outcome(*messages.encode_outcome(OUTCOME._replace(answer=bytes(101), answer_bytes=101)), limits)


def listed(*files: tuple[bytes, int]) -> bytes:
    return b"".join(struct.pack(">HQ", len(path), size) + path for path, size in files)


LIES: dict[str, list[tuple[bytes, int]]] = {
    "upwards": [(b"../x", 3)],
    "upwards from the root": [(b"/../x", 3)],
    "upwards on the way": [(b"/a/../../x", 3)],
    "relative": [(b"x", 3)],
    "no name": [(b"/", 3)],
    "a name of nothing": [(b"/a//b", 3)],
    "a directory": [(b"/a/", 3)],
    "a NUL": [(b"/a\0b", 3)],
    "no text": [(b"/\xff", 3)],
    "half a character": [("/\ud800".encode("utf-8", "surrogatepass"), 3)],
    "too long a name": [(b"/" + b"x" * 256, 3)],
    "the same path twice": [(b"/a", 1), (b"/a", 2)],
    "more than there is": [(b"/a", 4)],
    "much more than there is": [(b"/a", 2**64 - 1), (b"/b", 4)],
    "less than there is": [(b"/a", 2)],
    "too many": [(b"/a", 3), (b"/b", 0), (b"/c", 0), (b"/d", 0), (b"/e", 0)],
}


def of_files(paths: bytes, count: int, contents: bytes, limits: Limits = SMALL) -> Outcome:
    """What the host makes of a reply with this list of files."""
    bare = OUTCOME._replace(stdout=b"", stderr=b"", exception=None, files={})
    head, _ = messages.encode_outcome(bare)
    sizes = {"files": count, "paths_bytes": len(paths), "contents_bytes": len(contents)}
    return outcome(json.dumps({**json.loads(head), **sizes}).encode(), paths + contents, limits)


@pytest.mark.parametrize("files", LIES.values(), ids=LIES.keys())
def test_files_that_no_guest_could_have_written_are_refused(files: list[tuple[bytes, int]]) -> None:
    with pytest.raises(messages.MessageError):
        of_files(listed(*files), len(files), b"xyz")


@pytest.mark.parametrize("cut", [1, 9, 10, 11])
def test_a_list_of_files_that_is_cut_is_refused(cut: int) -> None:
    with pytest.raises(messages.MessageError):
        of_files(listed((b"/a", 3))[:cut], 1, b"xyz")


def test_more_of_files_than_was_allowed_is_refused() -> None:
    assert of_files(listed((b"/a", 99)), 1, bytes(99)).files == {"/a": bytes(99)}
    with pytest.raises(messages.MessageError, match="more than was allowed"):
        of_files(listed((b"/a", 100)), 1, bytes(100))


@pytest.mark.parametrize("head", [b"", b"\x80\x04N.", b"[" * 4000, b"{}", b"null", b'"\xff"', b"1" * 4000])
def test_nonsense_is_refused(head: bytes) -> None:
    with pytest.raises(messages.MessageError):
        outcome(head)
    with pytest.raises(messages.MessageError):
        messages.read_ready(io.BytesIO(packed(head)))


READY = messages.encode_ready(["one"], ["two"])
FAILED = messages.encode_failure(ValueError("why"))


def test_only_what_is_due_is_read_at_each_moment() -> None:
    assert messages.read_ready(io.BytesIO(packed(*READY)))[0] == messages.Ready(restrictions=["one"], lacking=["two"])
    assert messages.read_ready(io.BytesIO(packed(*FAILED)))[1] == "why"
    with pytest.raises(messages.MessageError):
        messages.read_ready(io.BytesIO(packed(*messages.encode_outcome(OUTCOME._replace(stdout=b"")))))
    with pytest.raises(messages.MessageError):
        outcome(*READY)
    with pytest.raises(messages.WorkerFailed, match="ValueError: why"):
        outcome(*FAILED)


@pytest.mark.parametrize("reader", [messages.read_ready, lambda stream: messages.read_outcome(stream, Limits())])
@pytest.mark.parametrize(("head", "body"), [(4097, 0), (16 << 20, 0), (2**32 - 1, 0), (1, 2**64 - 1), (1, 1 << 30)])
def test_a_message_longer_than_allowed_is_not_read(reader: Callable[[Any], Any], head: int, body: int) -> None:
    stream = io.BytesIO(struct.pack(">IQ", head, body) + bytes(100))
    with pytest.raises(messages.MessageError, match="allowed"):
        reader(stream)
    assert stream.tell() == 12


@pytest.mark.parametrize("kind", ["ended", "failed"])
def test_of_a_lie_about_sizes_no_body_is_read(kind: str) -> None:
    head, body = changed({}, bytes(5_000_000)) if kind == "ended" else (FAILED[0], bytes(5_000_000))
    stream = io.BytesIO(packed(head, body))
    with pytest.raises(messages.MessageError):
        messages.read_outcome(stream, Limits())
    assert stream.tell() == 12 + len(head)


def costly_heads() -> Iterator[tuple[str, bytes]]:
    """Heads of the longest that is allowed, and of 16 MiB, that make a reader of models work."""
    honest = json.loads(messages.encode_outcome(OUTCOME)[0])
    for size in (messages.MAX_HEAD_BYTES, 16 << 20):
        for kind in ("ended", "ready", "failed"):
            start = json.dumps({**honest, "kind": kind})[:-1].encode()
            for name, item in (("numbers", b"0,"), ("lists", b"[],"), ("strings", b'"",'), ("objects", b"{},")):
                for field in ("files", "exception_bytes", "restrictions", "lacking", "name"):
                    lead = start + f', "{field}": ['.encode()
                    items = item * ((size - len(lead) - 2) // len(item))
                    yield f"{size} {kind} {field} {name}", lead + items[:-1] + b"]}"
            names = b"".join(b',"%d":0' % n for n in range(size // 10))[: size - len(start) - 1]
            yield f"{size} {kind} names", start + names.rpartition(b",")[0] + b"}"
            yield f"{size} {kind} depth", start + b',"files":' + b"[" * (size - len(start) - 9)


@contextmanager
def cheap() -> Iterator[None]:
    """What is done inside takes little of the host's time and memory."""
    tracemalloc.start()
    began = time.process_time()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
        assert time.process_time() - began < 1
    finally:
        tracemalloc.stop()


def test_the_costliest_heads_cost_little() -> None:
    for _, head in costly_heads():
        message = packed(head)
        for read in (messages.read_ready, lambda stream: messages.read_outcome(stream, Limits())):
            with cheap(), suppress(messages.MessageError):
                read(io.BytesIO(message))


def test_the_costliest_list_of_files_costs_little() -> None:
    """Of many files the first that is wrong is the last that is looked at."""
    limits = Limits(file_count=100_000)
    many = listed((b"/a", 0), (b"/a", 0), *[(b"x", 2**63)] * 99_998)
    with cheap(), pytest.raises(messages.MessageError, match="same path"):
        of_files(many, 100_000, b"", limits)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_an_end_or_refused(data: bytes) -> None:
    for read in (messages.read_ready, lambda stream: messages.read_outcome(stream, SMALL)):
        stream = io.BytesIO(data)
        with suppress(EOFError, messages.MessageError):
            read(stream)
        assert stream.tell() <= 12 + 200


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.sampled_from([*json.loads(messages.encode_outcome(OUTCOME)[0])]), VALUES, max_size=3),
    st.binary(max_size=60) | st.none(),
)
def test_any_fields_make_a_checked_outcome_or_are_refused(change: dict[str, Any], body: bytes | None) -> None:
    try:
        found = outcome(*changed(change, body))
    except messages.MessageError:
        return
    assert set(map(type, found)) <= {
        Ending, bool, int, float, str, bytes, dict, GuestException, type(None),
    }  # fmt: skip


@pytest.mark.parametrize("cut", [0, 3, 12, 20, -1])
def test_a_message_that_is_cut_is_an_end(cut: int) -> None:
    with pytest.raises(EOFError):
        messages.read_outcome(io.BytesIO(packed(*messages.encode_outcome(OUTCOME))[:cut]), SMALL)


# -- a pool with a traitor -------------------------------------------------------------------------------------


@contextmanager
def traitors(*replies: tuple[bytes, bytes], then: str = "time.sleep(60)") -> Iterator[ProcessPool]:
    """Pool of workers that say they are ready, and answer every request with these messages, or then do this."""
    program = f"""
        import os, signal, struct, sys, time
        def say(head, body):
            os.write(1, struct.pack('>IQ', len(head), len(body)) + head + body)
        say(*{READY!r})
        sys.stdin.buffer.read1(1)
        for reply in {replies!r}:
            say(*reply)
        {then}
    """
    fresh = ProcessPool(textwrap.dedent(program))
    try:
        yield fresh
    finally:
        fresh.close()


def outcome_of_one(workers: ProcessPool) -> Outcome:
    return workers.start(ExecutionRequest("pass", {}, Limits()))[0].result(timeout=20)


@needs_posix
def test_a_worker_that_reports_a_failure_of_its_own_is_replaced_and_its_run_trapped() -> None:
    """Whatever class it names: its texts are a guest's, not an exception of its choosing."""
    for name in ("Strange", "CacheError", "HostError", "KeyboardInterrupt"):
        failure = type(name, (Exception,), {})("no\nmore")
        with traitors(messages.encode_failure(failure)) as workers:
            found = outcome_of_one(workers)
            assert (found.ending, found.detail) == (Ending.TRAPPED, f"the worker process failed: {name}: no more")
            assert workers.workers == []


@needs_posix
def test_a_failure_of_a_worker_is_a_guest_trap_for_a_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    with traitors(messages.encode_failure(ValueError("of its choosing"))) as workers:
        monkeypatch.setattr(pool._pool, "get", lambda: workers)
        result = run_tool(Tool.from_source("def f() -> int:\n    return 1\n"), isolation="process")
    assert result.error is not None
    assert result.error.kind is ErrorKind.GUEST_TRAP
    assert result.error.message.startswith("the worker process failed: ValueError: of its choosing: run it again; ")


NONSENSE = {
    "no JSON": (b"\x80\x04N.", b""),
    "ready again": READY,
    "a head that is long": (b"0" * 5000, b""),
    "upwards": messages.encode_outcome(OUTCOME._replace(files={"/../x": b"x"})),
    "relative": messages.encode_outcome(OUTCOME._replace(files={"x": b"x"})),
    "another size": (messages.encode_outcome(OUTCOME)[0], b""),
}


@needs_posix
@pytest.mark.parametrize("reply", NONSENSE.values(), ids=NONSENSE.keys())
def test_a_worker_that_answers_nonsense_is_ended_and_its_run_trapped(reply: tuple[bytes, bytes]) -> None:
    with traitors(reply) as workers:
        found = outcome_of_one(workers)
        assert found.ending is Ending.TRAPPED
        assert found.detail.startswith("the worker process died (SIGKILL): ")
        assert found.files is None
        assert workers.workers == []


@needs_posix
def test_a_worker_that_spoke_before_it_was_asked_is_not_asked() -> None:
    honest = messages.encode_outcome(OUTCOME._replace(files=None))
    with traitors(honest, honest) as workers:
        assert outcome_of_one(workers).ending is Ending.EXITED
        (first,) = workers.workers
        while first.is_silent:
            time.sleep(0.01)
        assert outcome_of_one(workers).ending is Ending.EXITED
        assert first not in workers.workers


@needs_posix
def test_a_worker_that_closes_its_pipe_ends_no_host_that_lets_sigpipe_end_it() -> None:
    program = f"""
        import os, signal, struct
        from wasm_sandbox import Limits
        from wasm_sandbox.request import ExecutionRequest
        from wasm_sandbox.workers.pool import ProcessPool
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        head = {READY[0]!r}
        workers = ProcessPool(
            "import os, struct, time\\nos.close(0)\\n"
            f"os.write(1, struct.pack('>IQ', {{len(head)}}, 0) + {{head!r}})\\ntime.sleep(5)"
        )
        print(workers.start(ExecutionRequest("pass", {{}}, Limits()))[0].result(timeout=20).ending.name)
        workers.close()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "TRAPPED\n"), done.stderr


@needs_posix
def test_the_worker_that_there_is_says_that_it_failed_in_a_way_that_is_read() -> None:
    """A defect of a worker that is in nobody's hands, by the worker's own program."""
    program = (
        "from wasm_sandbox.engine import GuestEngine\nstart, calls = GuestEngine.start, []\n"
        "def refuse(*arguments):\n"
        "    calls.append(1)\n"
        "    if len(calls) <= 6: return start(*arguments)\n"
        "    from concurrent.futures import Future\n"
        "    failed = Future(); failed.set_exception(MemoryError('no \\ud800 room')); return failed\n"
        f"GuestEngine.start = refuse\n{PROGRAM}"
    )
    workers = ProcessPool(program)
    try:
        found = outcome_of_one(workers)
        assert (found.ending, found.detail) == (Ending.TRAPPED, "the worker process failed: MemoryError: no ? room")
    finally:
        workers.close()
