"""Bytes of sessions in hostile hands: whatever they say, they are refused in words, or harm their own guest alone."""

from __future__ import annotations

import hashlib
import json
import random
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasm_sandbox import HostFunction, Sandbox, SandboxError, SnapshotError
from wasm_sandbox.sandbox.snapshots import MAGIC

APPROVE = HostFunction.deferred("approve", question=str, returns=bool)
BOX = Sandbox(files={}, functions=[APPROVE], limits={"timeout_seconds": 10.0, "fuel": 2_000_000_000})


@pytest.fixture(scope="module")
def blob() -> bytes:
    with BOX.session() as session:
        session.run_code("x = [1, 2]\nf = open('/note', 'w'); f.write('ab'); f.flush()\nimport os; os.makedirs('/d/e')")
        return session.dump()


@pytest.fixture(scope="module")
def paused() -> bytes:
    with BOX.session() as session:
        found = session.start("await approve('x')")
        return found.dump()  # type: ignore[union-attr]


def taken_apart(blob: bytes) -> tuple[dict[str, Any], bytes]:
    at = len(MAGIC) + 4
    (size,) = struct.unpack_from("<I", blob, len(MAGIC))
    return json.loads(blob[at : at + size]), zlib.decompress(blob[at + size : -32])


def put_together(head: object, body: bytes) -> bytes:
    text = json.dumps(head).encode()
    whole = MAGIC + struct.pack("<I", len(text)) + text + zlib.compress(body, 1)
    return whole + hashlib.sha256(whole).digest()


def survives(blob: bytes) -> None:
    """Load bytes, use what comes of it, and see that another session is well."""
    try:
        with BOX.load_session(blob) as session:
            session.run_code("x")
            session.run_code("open('/note').read()")
            session.fork().close()
    except SandboxError:
        pass
    with BOX.session() as fresh:
        assert fresh.run_code("6 * 7").value == 42


def test_bytes_that_were_taken_apart_fit_together(blob: bytes) -> None:
    with BOX.load_session(put_together(*taken_apart(blob))) as session:
        assert session.get("x") == [1, 2]


@pytest.mark.parametrize("number", range(40))
def test_a_flipped_bit_is_found(number: int, blob: bytes) -> None:
    changed = bytearray(blob)
    start = 0 if number % 4 else len(blob) - 32  # every fourth is one of the checksum's, which nothing else sees
    changed[random.Random(number).randrange(start, len(blob))] ^= 1 << number % 8
    with pytest.raises(SnapshotError):
        BOX.load_session(bytes(changed))


@pytest.mark.parametrize("size", [0, 1, 20, 25, 60, 1000, -1, -33])
def test_bytes_that_are_cut_are_found(size: int, blob: bytes) -> None:
    with pytest.raises(SnapshotError, match="damaged"):
        BOX.load_session(blob[:size])


@pytest.mark.parametrize(
    "change",
    [
        lambda head: head.update(format=2),
        lambda head: head.update(image="0" * 64),
        lambda head: head.update(size=1 << 40),
        lambda head: head.update(size=1),
        lambda head: head.update(size=-1),
        lambda head: head.update(body_bytes=1 << 62),
        lambda head: head.update(ranges=[[0, 1 << 62]]),
        lambda head: head.update(ranges=[[4096, 4096], [0, 4096]]),
        lambda head: head.update(ranges=[[1, 4096]]),
        lambda head: head.update(ranges=[[1 << 40, 4096]]),
        lambda head: head.update(globals={"__stack_pointer": 5}),
        lambda head: head.update(globals={}),
        lambda head: head.update(elapsed=[-1, 0]),
        lambda head: head.update(calls="many"),
        lambda head: head.update(other=1),
        lambda head: head.update(nodes=[[5, "x", None, 0, 0, 9]]),
        lambda head: head.update(nodes=head["nodes"] * 1000),
        lambda head: head["nodes"].append([0, "..", None, 0, 0, 99]),
        lambda head: head["nodes"].append([0, "a/b", None, 0, 0, 99]),
        lambda head: head["nodes"].append([0, "x" * 5000, None, 0, 0, 99]),
        lambda head: head["nodes"].append([0, "\ud800", None, 0, 0, 99]),
        lambda head: head["nodes"].append([0, "again", None, 0, 0, 0]),
        lambda head: head["nodes"].append([0, "late", 1 << 50, 0, 0, 99]),
        lambda head: head.update(opened=[[1, 0, True, True, 0, 0]]),
        lambda head: head.update(opened=[[9, 99, True, True, 0, 0]]),
        lambda head: head.update(opened=[[n, 0, True, True, 0, 0] for n in range(4, 5000)]),
        lambda head: head.update(opened=[[5, 1, True, True, 255, 1 << 62]]),
        lambda head: head.update(pending=[{"id": 1, "name": "approve", "arguments": "{}"}]),
    ],
)
def test_a_head_that_lies_harms_nobody(change: Callable[[dict[str, Any]], None], blob: bytes) -> None:
    head, body = taken_apart(blob)
    change(head)
    began = time.process_time()
    survives(put_together(head, body))
    assert time.process_time() - began < 20


@pytest.mark.parametrize(
    "ranges", [[[4096, 4096], [0, 4096]], [[0, 8192], [4096, 4096]], [[1, 4096]], [[1 << 40, 4096]]]
)
def test_places_of_memory_that_overlap_or_lie_outside_are_refused(ranges: list[list[int]], blob: bytes) -> None:
    head, _ = taken_apart(blob)
    size = sum(length for _, length in ranges)
    head.update(ranges=ranges, body_bytes=size, nodes=None, opened=[])
    with pytest.raises(SnapshotError, match="damaged"):
        BOX.load_session(put_together(head, bytes(size)))


@pytest.mark.long
def test_a_body_that_expands_is_read_up_to_its_size(blob: bytes) -> None:
    head, body = taken_apart(blob)
    bomb = put_together(head, body + bytes(1 << 29))
    tracemalloc.start()
    try:
        with pytest.raises(SnapshotError):
            BOX.load_session(bomb)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
    head["body_bytes"] = 1 << 28
    with pytest.raises(SnapshotError):
        BOX.load_session(put_together(head, bytes(1 << 28)))


@pytest.mark.parametrize("size", [0, 1 << 24, (1 << 32) - 1])
def test_a_head_of_a_false_size_is_not_looked_for(size: int) -> None:
    with pytest.raises(SnapshotError, match="damaged"):
        BOX.load_session(MAGIC + struct.pack("<I", size) + bytes(200))


@pytest.mark.parametrize("kind", ["random", "zeros", "ones", "shuffled"])
def test_memory_of_any_content_harms_its_own_guest_alone(kind: str, blob: bytes) -> None:
    head, body = taken_apart(blob)
    files = sum(node[2] or 0 for node in head["nodes"])
    memory, rest = body[: len(body) - files], body[len(body) - files :]
    chance = random.Random(5)
    if kind == "shuffled":
        pages = [memory[at : at + 4096] for at in range(0, len(memory), 4096)]
        chance.shuffle(pages)
        memory = b"".join(pages)
    else:
        size = len(memory)
        memory = chance.randbytes(size) if kind == "random" else (b"\xff" if kind == "ones" else b"\0") * size
    survives(put_together(head, memory + rest))


@given(st.data())
@settings(max_examples=25)
def test_memory_with_some_words_changed_harms_its_own_guest_alone(blob: bytes, data: st.DataObject) -> None:
    head, body = taken_apart(blob)
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(1, 40))):
        at = data.draw(st.integers(0, len(changed) - 4))
        changed[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
    survives(put_together(head, bytes(changed)))


_VALUES = st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.text(max_size=5)


@given(st.data())
@settings(max_examples=60)
def test_any_field_of_any_value_is_refused_or_harmless(blob: bytes, data: st.DataObject) -> None:
    head, body = taken_apart(blob)
    for name in data.draw(st.lists(st.sampled_from(sorted(head)), min_size=1, max_size=3)):
        head[name] = data.draw(_VALUES)
    survives(put_together(head, body))


@pytest.mark.parametrize(
    "pending",
    [
        [{"id": 1, "name": "other", "arguments": "{}"}],
        [{"id": 1, "name": "approve", "arguments": '{"question": 5}'}],
        [{"id": 1, "name": "approve", "arguments": "[" * 1000}],
        [{"id": -1, "name": "approve", "arguments": '{"question": "x"}'}],
        [{"id": "1", "name": "approve", "arguments": '{"question": "x"}'}],
        [{"id": 1, "name": "approve", "arguments": '{"question": "x"}', "more": 1}],
    ],
)
def test_calls_that_nobody_made_are_refused(pending: Any, paused: bytes) -> None:
    head, body = taken_apart(paused)
    head["pending"] = pending
    with pytest.raises(SnapshotError):
        BOX.load_paused(put_together(head, body))


def test_a_call_that_the_guest_does_not_wait_for_is_answered_to_nobody(paused: bytes) -> None:
    head, body = taken_apart(paused)
    head["pending"].append({"id": 99, "name": "approve", "arguments": '{"question": "forged"}'})
    waiting = BOX.load_paused(put_together(head, body))
    assert [call.id for call in waiting.calls] == [1, 99]
    result = waiting.resume({99: True, 1: True})
    assert result.value is True  # type: ignore[union-attr]
    waiting.session.close()


def test_a_session_loaded_from_hostile_bytes_has_the_limits_of_its_box(blob: bytes) -> None:
    with BOX.load_session(blob) as session:
        assert session.run_code("y = bytearray(1 << 30)").error is not None
        assert session.run_code("open('/big', 'wb').write(bytes(100 << 20))").error is not None
        assert session.run_code("while True: pass", limits={"timeout_seconds": 0.3}).rolled_back


@pytest.mark.long
def test_loading_takes_no_more_memory_than_the_limits(blob: bytes) -> None:
    head, body = taken_apart(blob)
    head["ranges"] = [[n * 8192, 4096] for n in range(1 << 20)]
    head["size"] = 1 << 30
    many = put_together(head, body)
    tracemalloc.start()
    try:
        with pytest.raises(SnapshotError):
            BOX.load_session(many)
        assert tracemalloc.get_traced_memory()[1] < 1 << 29
    finally:
        tracemalloc.stop()
