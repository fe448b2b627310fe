"""Checkpoints that a worker in hostile hands sends back: bounded, checked, and harming their own session at most."""

from __future__ import annotations

import io
import json
import random
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hostile.test_process_isolation import needs_posix
from tests.hostile.test_worker_messages import OUTCOME, READY, packed
from wasm_sandbox import Limits, Sandbox, SandboxError, workers
from wasm_sandbox.engine import Checkpoint, Elapsed, PointHead, Rest
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.sandbox.session import Session
from wasm_sandbox.workers import messages
from wasm_sandbox.workers.pool import ProcessPool

LIMITS = Limits(timeout_seconds=10.0, fuel=2_000_000_000, memory_bytes=64 << 20, files_bytes=1 << 20, file_count=10)
BOX = Sandbox(isolation="process", files={}, limits=LIMITS)


@pytest.fixture(scope="module")
def before() -> Checkpoint:
    with BOX.session() as session:
        session.run_code("x = 1\nopen('/a', 'w').write('one')")
        return taken(session)


@pytest.fixture(scope="module")
def after(before: Checkpoint) -> Checkpoint:
    with BOX.session() as session:
        session._kept.go_back(before)
        session.run_code("x = 2\nopen('/b', 'w').write('two')")
        return taken(session)


def taken(session: Session) -> Checkpoint:
    point = session._kept.checkpoint()
    assert point is not None
    return point


def read(head: bytes, body: bytes, before: Checkpoint | None, limits: Limits = LIMITS) -> Checkpoint:
    return messages.read_point(io.BytesIO(packed(head, body)), limits, before)


# -- what is honest -----------------------------------------------------------------------------------------


def test_a_checkpoint_survives_the_way_with_and_without_one_before(before: Checkpoint, after: Checkpoint) -> None:
    for known in None, before, after:
        head, body = messages.encode_point(after, known)
        assert read(head, body, known) == after
    assert messages.encode_point(after, after)[1] == b""


def test_only_what_changed_crosses(before: Checkpoint, after: Checkpoint) -> None:
    assert 0 < len(messages.encode_point(after, before)[1]) < after.nbytes


def test_an_order_survives_the_way(before: Checkpoint) -> None:
    request = ExecutionRequest("1", {}, LIMITS, values=(b"v",))
    for point in None, before:
        rest = Rest(point, Elapsed(7, 8), 9, LIMITS)
        head, body = messages.encode_order(3, request, rest)
        assert messages.decode_order(head, body) == messages.Order(3, False, False, request, rest)


# -- what is not --------------------------------------------------------------------------------------------


def forged(changes: dict[str, Any], point: Checkpoint, known: Checkpoint | None) -> tuple[bytes, bytes]:
    head, body = messages.encode_point(point, known)
    return json.dumps({**json.loads(head), **changes}).encode(), body


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 65 << 20}, {"size": 2**40}, {"size": -1}, {"size": "1"}, {"size": (36 << 20) + 1},
        {"ranges": [[0, 4096]]}, {"ranges": [[4097, 4096]]}, {"ranges": [[-4096, 4096]]}, {"ranges": [[2**40, 4096]]},
        {"ranges": [[0, 64 << 20]] * 3}, {"ranges": None}, {"ranges": [[0]]},
        {"nodes": [[-1, "", None, 0, 0, 0], [0, "f", 2**40, 0, 0, 1]]}, {"nodes": [[0]]}, {"nodes": {}},
        {"elapsed": [-1, 0]}, {"elapsed": [2**63, 0]}, {"calls": -1}, {"calls": 1.5}, {"globals": {"a": 2**64}},
        {"old": []}, {"old": [-2]}, {"old": [10**6]}, {"old": ["0"]}, {"opened": [[0]]}, {"image": "x" * 201},
        {"more": 1}, {"image": None},
    ],
)  # fmt: skip
def test_a_head_that_lies_is_refused(changes: dict[str, Any], before: Checkpoint, after: Checkpoint) -> None:
    with pytest.raises(messages.MessageError):
        read(*forged(changes, after, before), before)


def test_ranges_that_overlap_are_refused(before: Checkpoint) -> None:
    head, body = messages.encode_point(before, None)
    ranges = json.loads(head)["ranges"]
    for wrong in ([ranges[0], *ranges[:-1]], [*ranges[:-1], ranges[0]]):
        sizes = sum(size for _, size in wrong)
        content = body[:sizes] + bytes(max(0, sizes - len(body)))
        with pytest.raises(messages.MessageError, match="damaged"):
            read(*(forged({"ranges": wrong}, before, None)[0], content), None)


def test_parts_that_the_worker_was_not_given_are_refused(before: Checkpoint, after: Checkpoint) -> None:
    old = json.loads(messages.encode_point(after, before)[0])["old"]
    shared = next(place for place, part in enumerate(old) if part >= 0)
    sizes = [len(part) for part in before.parts]
    other = next(place for place, size in enumerate(sizes) if size != sizes[old[shared]])
    for wrong in other, len(sizes):
        changed = [*old[:shared], wrong, *old[shared + 1 :]]
        with pytest.raises(messages.MessageError, match="was not given"):
            read(*forged({"old": changed}, after, before), before)
    with pytest.raises(messages.MessageError, match="was not given"):
        read(*messages.encode_point(after, before), None)


class Unread(io.BytesIO):
    """Stream that must not be read beyond the sizes of a message."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        assert data, "more was read than the sizes of the message"
        return data


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (messages.MAX_POINT_HEAD_BYTES + 1, 0),
        (2**32 - 1, 0),
        (10, LIMITS.memory_bytes + LIMITS.files_bytes + 1),
        (9, 2**63),
    ],
)
def test_a_message_longer_than_its_guest_may_be_is_not_read(head: int, body: int) -> None:
    with pytest.raises(messages.MessageError, match="are allowed"):
        messages.read_point(Unread(messages._SIZES.pack(head, body)), LIMITS, None)


def test_a_body_is_not_read_before_its_head_was_checked(before: Checkpoint) -> None:
    head, body = forged({"size": 65 << 20}, before, None)
    sizes = messages._SIZES.pack(len(head), len(body))
    with pytest.raises(messages.MessageError, match="the limit is"):
        messages.read_point(Unread(sizes + head), LIMITS, None)


@pytest.mark.long
@settings(max_examples=200)
@given(data=st.data())
def test_whatever_is_flipped_or_cut_is_refused_or_a_checkpoint(data: st.DataObject) -> None:
    point = _small()
    whole = bytearray(packed(*messages.encode_point(point, None)))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    del whole[data.draw(st.integers(len(whole) // 2, len(whole))) :]
    try:
        found = messages.read_point(io.BytesIO(whole), LIMITS, None)
    except (messages.MessageError, EOFError):
        return
    assert found.memory.size <= LIMITS.memory_bytes
    assert found.nbytes <= LIMITS.memory_bytes + LIMITS.files_bytes


def _small() -> Checkpoint:
    memory = PointHead(
        image="i", calls=1, elapsed=(1, 2), size=1 << 20, globals={"sp": 5}, ranges=[(0, 4), (8192, 2)],
        nodes=[(-1, "", None, 0, 0, 0), (0, "f", 3, 1, 2, 1)], opened=[(4, 1, True, False, 0, 1)],
    )  # fmt: skip
    return memory.point([b"abcd", b"ef", b"one"])


# -- a session at a worker's mercy --------------------------------------------------------------------------


@contextmanager
def at_the_mercy_of(program: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the next calls of sessions go to workers that hear of them, and do this."""
    ended = messages.encode_outcome(OUTCOME._replace(exit_code=0, exception=None, files=None, is_over=False))
    text = f"""
        import os, struct, sys, time
        def say(head, body=b''):
            data = struct.pack('>IQ', len(head), len(body)) + head + body
            while data:
                data = data[os.write(1, data):]
        def end():
            say(*{ended!r})
        say(*{READY!r})
        head_size, body_size = struct.unpack('>IQ', sys.stdin.buffer.read(12))
        sys.stdin.buffer.read(head_size + body_size)
    """
    fresh = ProcessPool(textwrap.dedent(text) + textwrap.dedent(program))
    with monkeypatch.context() as patch:
        patch.setattr(workers, "process_pool", lambda: fresh, raising=False)
        try:
            yield
        finally:
            fresh.close()


def says(point: Checkpoint, directory: Path) -> str:
    """Program that says that a run ended with this checkpoint."""
    path = directory / "message"
    path.write_bytes(packed(*messages.encode_point(point, None)))
    return f"""
        end()
        data = open({str(path)!r}, 'rb').read()
        while data:
            data = data[os.write(1, data):]
        time.sleep(60)
    """


@needs_posix
@pytest.mark.parametrize(
    "program",
    [
        "os._exit(1)",
        "end()\nos._exit(0)",
        "end()\nsay(b'{}')\ntime.sleep(60)",
        "end()\nend()\ntime.sleep(60)",
        "end()\nsay(b'[' * 100_000)\ntime.sleep(60)",
        "end()\nos.write(1, struct.pack('>IQ', 100, 1 << 60))\ntime.sleep(60)",
        "end()\nos.write(1, struct.pack('>IQ', 100, 0) + b'x')\nos._exit(0)",
    ],
)
def test_a_worker_that_answers_no_checkpoint_takes_the_session_back(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BOX.session() as session:
        session.set(x=1)
        with at_the_mercy_of(program, monkeypatch):
            result = session.run_code("x = 2")
        assert result.error is not None
        assert result.rolled_back
        assert session.get("x") == 1


@needs_posix
def test_a_checkpoint_of_another_image_takes_the_session_back(
    before: Checkpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = says(replace(before, image_id="0" * 64), tmp_path)
    with BOX.session() as session:
        session.set(x=1)
        with at_the_mercy_of(program, monkeypatch):
            assert session.run_code("x = 2").rolled_back
        assert session.get("x") == 1


@needs_posix
def test_clocks_run_backwards_for_no_workers_words(
    before: Checkpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = says(replace(before, elapsed=Elapsed(0, 0), calls=0), tmp_path)
    with BOX.session() as session:
        session.run_code("import time\nthen = time.monotonic()")
        had = taken(session)
        with at_the_mercy_of(program, monkeypatch):
            assert not session.run_code("x = 2").rolled_back
        forged_point = taken(session)
        assert forged_point.elapsed.monotonic_ns >= had.elapsed.monotonic_ns
        assert forged_point.calls == 2
        assert session.get("x") == 1  # what the worker said: it is its guest


@needs_posix
@pytest.mark.parametrize("seed", range(6))
def test_a_forged_memory_harms_its_own_guest_alone(
    seed: int, before: Checkpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    noise = random.Random(seed)
    changed = [(at, noise.randbytes(len(data)) if noise.random() < 0.7 else data) for at, data in before.memory.changed]
    point = replace(before, memory=replace(before.memory, changed=tuple(changed)))
    if seed == 5:
        point = replace(point, memory=replace(point.memory, globals={"nonsense": 1}))
    program = says(point, tmp_path)
    with BOX.session() as session, BOX.session() as other:
        session.set(x=1)
        other.set(x=7)
        with at_the_mercy_of(program, monkeypatch):
            session.run_code("x = 2")
        try:
            session.run_code("x", limits={"timeout_seconds": 2.0})
            session.dump()
        except SandboxError:
            pass
        assert other.get("x") == 7
