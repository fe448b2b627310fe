"""What is slow to decode counts as many values, so that no result costs the host more than some seconds."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.hostile.decoding import CASES, COLLIDING, ZONE, Repeated, decode, text
from tests.hostile.test_frames import FORGE
from wasm_sandbox import Limits, Tool, WasmToolSandbox
from wasm_sandbox.decode.frame import MARKER, encode_frame
from wasm_sandbox.decode.interpret import QUICK_BYTES, TakesLonger, interpret
from wasm_sandbox.decode.pickle_decoder import DecodeLimits, ForbiddenPickle, loads
from wasm_sandbox.decode.plain_types import pieces
from wasm_sandbox.outcome import Ending, GuestException, Outcome

pytestmark = pytest.mark.long

ITEMS = 20_000
LIMITS = DecodeLimits(max_items=ITEMS)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_what_takes_long_counts_as_many_values(case: Repeated) -> None:
    with pytest.raises(ForbiddenPickle, match=r"values|keys too large|copies"):
        loads(case.payload(1 << 24, 1 + ITEMS // case.cost), limits=LIMITS)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_as_many_as_are_allowed_are_accepted_or_refused_by_name(case: Repeated) -> None:
    with suppress(ForbiddenPickle):  # nothing else is raised, and it is said what to do
        loads(case.payload(1 << 24, ITEMS // case.cost // 4), limits=LIMITS)


@pytest.mark.parametrize("name", COLLIDING)
def test_keys_that_collide_cost_no_minutes(name: str) -> None:
    seconds, _ = decode(pickle.dumps(COLLIDING[name](), 4))
    assert seconds < 20  # half a second, where nothing else runs


def test_millions_of_plain_values_are_accepted() -> None:
    for value in ([1] * 4_990_000, [[n, "x"] for n in range(620_000)]):
        assert loads(pickle.dumps(value, 4)) == value


# -- on an event loop ----------------------------------------------------------------------------------------

QUICK_SECONDS = 0.02
ROOM = QUICK_BYTES - 200
FALSE_FRAME = MARKER + (200).to_bytes(4, "big") + b"0" * 32
NO_RESULTS = {
    "markers": MARKER * (ROOM // 16),
    "half markers": MARKER[:15] * (ROOM // 15),
    "false frames": FALSE_FRAME * (ROOM // len(FALSE_FRAME)),
    "frames": encode_frame(b"") * (ROOM // 52),
    "no UTF-8": b"\xff" * ROOM,
    "half characters": b"\xf0\x9f" * (ROOM // 2),
}
REPORTS = {
    "spaces": " " * ROOM,
    "lines": "\n" * ROOM,
    "places": '  File "script.py", line 1, in f\n' * (ROOM // 34),
    "a place without an end": '  File "' + "a" * ROOM,
    "many heads": "Traceback (most recent call last):\n" * (ROOM // 35),
    "line numbers": "(script.py, line " * (ROOM // 17),
    "what cannot be pickled": "cannot pickle 'coroutine' object" * (ROOM // 32),
}


def envelope(case: Repeated, size: int = ROOM) -> bytes:
    """A result of so many bytes that is a list of one piece again and again."""
    made = case.payload(size - 60, 1 << 30)[:-1]
    return encode_frame(b"(V" + b"results\n" + made + b"Vagent_state\nNd.")


def seconds(outcome: Outcome) -> float:
    """Processor time of interpreting an outcome quickly, or of finding out that it takes longer."""
    found = []
    for _ in range(3):  # the least: a machine may have other things to do
        began = time.thread_time()
        with suppress(TakesLonger):
            interpret(outcome, Limits(), "f", quick=True)
        found.append(time.thread_time() - began)
    return min(found)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_small_result_costs_an_event_loop_milliseconds_whatever_it_holds(case: Repeated) -> None:
    assert seconds(Outcome(Ending.EXITED, stdout=envelope(case))) < QUICK_SECONDS


@pytest.mark.parametrize("stdout", NO_RESULTS.values(), ids=NO_RESULTS.keys())
def test_small_output_costs_an_event_loop_milliseconds(stdout: bytes) -> None:
    assert seconds(Outcome(Ending.EXITED, stdout=stdout)) < QUICK_SECONDS
    assert seconds(Outcome(Ending.EXITED, stderr=stdout)) < QUICK_SECONDS


@pytest.mark.parametrize("words", REPORTS.values(), ids=REPORTS.keys())
def test_a_small_report_costs_an_event_loop_milliseconds(words: str) -> None:
    for report in (GuestException("ValueError", words, ""), GuestException("SyntaxError", "", words)):
        assert seconds(Outcome(Ending.EXITED, 1, exception=report)) < QUICK_SECONDS
    assert seconds(Outcome(Ending.TRAPPED, 1, detail=words)) < QUICK_SECONDS


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(Ending.EXITED, stdout=bytes(QUICK_BYTES + 1)),
        Outcome(Ending.EXITED, stderr=bytes(QUICK_BYTES + 1)),
        Outcome(Ending.EXITED, exception=GuestException("E", "m" * QUICK_BYTES, "")),
        Outcome(Ending.EXITED, exception=GuestException("E", "", "t" * QUICK_BYTES)),
        Outcome(Ending.TRAPPED, detail="d" * (QUICK_BYTES + 1)),
    ],
    ids=["stdout", "stderr", "message", "traceback", "detail"],
)
def test_whatever_is_large_is_left_to_a_thread(outcome: Outcome) -> None:
    with pytest.raises(TakesLonger):
        interpret(outcome, Limits(), "f", quick=True)


def test_an_ordinary_result_is_read_at_once() -> None:
    rows = [{"id": n, "name": f"item {n}", "price": 1.5, "tags": ["a", "b"]} for n in range(100)]
    payload = pickle.dumps({"results": rows, "agent_state": None}, 4)
    result = interpret(Outcome(Ending.EXITED, stdout=encode_frame(payload)), Limits(), "f", quick=True)
    assert result.func_return == rows


def test_the_time_zones_of_the_host_are_not_looked_for_on_an_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    zone = ZONE + text("Asia/Tokyo") + b"K\1\x86R"
    outcome = Outcome(Ending.EXITED, stdout=encode_frame(b"(Vresults\n" + zone + b"Vagent_state\nNd."))
    assert interpret(outcome, Limits(), "f").func_return == ZoneInfo("Asia/Tokyo")
    assert interpret(outcome, Limits(), "f", quick=True).func_return == ZoneInfo("Asia/Tokyo")
    monkeypatch.setattr("wasm_sandbox.decode.pickle_machine.zones_are_known", lambda: False)
    with pytest.raises(TakesLonger):
        interpret(outcome, Limits(), "f", quick=True)


COSTLY = ["shared wide fractions", "paths of many parts", "Windows paths of many parts as keys", "networks", "zones"]
LEAVE = f"{FORGE}\ndef f(data: str):\n    write(data.encode('latin-1'))\n    leave()\n"


@pytest.mark.parametrize("name", COSTLY)
async def test_an_event_loop_works_on_no_result_of_a_run_for_longer(name: str) -> None:
    """From end to end: of its own work the loop's thread does no more than milliseconds at a time."""
    data = envelope(CASES[name], 12 << 10)
    arguments = {"data": data.decode("latin-1")}
    tool = Tool.from_source(LEAVE)
    worst = []
    for _ in range(3):
        task = asyncio.create_task(WasmToolSandbox("f", arguments, None, "tool-1", tool_object=tool).run())
        await asyncio.sleep(0)  # preparing the call is another matter
        longest, before = 0.0, time.thread_time()
        while not task.done():
            await asyncio.sleep(0)
            now = time.thread_time()
            longest, before = max(longest, now - before), now
        worst.append(longest)
        assert task.result().usage is not None
    assert min(worst) < QUICK_SECONDS


@pytest.mark.parametrize("kind", [dict, OrderedDict, Counter, lambda pairs: defaultdict(int, pairs)])
def test_a_large_mapping_is_put_together_in_pieces_and_in_order(kind: Callable[[Any], Any]) -> None:
    value = kind({n * 3: n for n in range(9_001)})
    found = loads(pickle.dumps(value, 4))
    assert type(found) is type(value)
    assert list(found.items()) == list(value.items())


@pytest.mark.parametrize("kind", [set, frozenset])
def test_a_large_set_is_put_together_in_pieces(kind: type) -> None:
    value = kind(range(0, 27_003, 3))
    found = loads(pickle.dumps(value, 4))
    assert type(found) is kind
    assert found == value


def test_pieces_are_all_of_it_and_keep_pairs_together() -> None:
    for size in (0, 1, 4096, 4097, 10_000):
        parts = list(pieces(range(size)))
        assert [n for part in parts for n in part] == list(range(size))
        assert all(len(part) % 2 == 0 for part in parts[:-1])
        assert max(map(len, parts)) <= 4096
