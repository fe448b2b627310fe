"""``Limits(deterministic=True)``: the same output and the same fuel, every time and everywhere."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.hostile import deterministic_tools
from tests.hostile.conftest import RunBody
from tests.hostile.deterministic_tools import BODIES, FAILING
from wasm_sandbox import ErrorKind, Limits, Tool, WasmToolSandbox, run_tool
from wasm_sandbox.engine.binding.version import wasmtime_version
from wasm_sandbox.engine.engine import process_engine

RUNS = 5

RECORD_VARIABLE = "WASM_SANDBOX_RECORD_COUNTS"  # as for tests/test_counts.py
FILE = Path(__file__).with_name("deterministic.json")
RECORDED: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {}


@pytest.fixture(scope="module")
def elsewhere() -> dict[str, Any]:
    """What another process makes of the tools, with another hash seed, time zone and locale."""
    environ = {"PYTHONHASHSEED": "12345", "TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, deterministic_tools.__file__],
        capture_output=True, text=True, check=False, env={**os.environ, **environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines())


def test_there_are_fifty_tools() -> None:
    assert len(BODIES) == 50


@pytest.mark.parametrize("name", BODIES)
def test_a_tool_does_the_same_every_time_and_in_another_process(name: str, elsewhere: dict[str, Any]) -> None:
    first = deterministic_tools.run(name)
    assert (first["error"] or {}).get("kind") == FAILING.get(name), first
    assert first["usage"]["fuel"] > 0
    for _ in range(RUNS - 1):
        assert deterministic_tools.run(name) == first
    assert elsewhere[name] == first


@pytest.fixture(scope="module")
def _recorded() -> None:
    image, engine = process_engine().image().id, wasmtime_version()
    how = f"{RECORD_VARIABLE}=1 python -m pytest tests/hostile/{Path(__file__).name}"
    if os.environ.get(RECORD_VARIABLE):
        results = {name: _digest(deterministic_tools.run(name)) for name in BODIES}
        FILE.write_text(json.dumps({"how": how, "image": image, "wasmtime": engine, **results}, indent=1) + "\n")
        pytest.skip(f"recorded {FILE.name}")
    if engine != RECORDED["wasmtime"]:
        pytest.skip(f"the record is of wasmtime {RECORDED['wasmtime']}")
    assert image == RECORDED["image"], f"the record is of another image; record it anew: {how}"


def _digest(result: dict[str, Any]) -> list[Any]:
    return [result["usage"]["fuel"], hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()[:16]]


@pytest.mark.usefixtures("_recorded")
@pytest.mark.parametrize("name", BODIES)
def test_a_tool_does_what_it_did_on_the_machine_of_the_record(name: str) -> None:
    """Fuel and output, as another machine had them."""
    assert _digest(deterministic_tools.run(name)) == RECORDED[name], f"if that is meant: {RECORDED['how']}"


def test_without_it_runs_differ() -> None:
    tool = Tool.from_source("def f() -> list:\n    import uuid, time\n    return [str(uuid.uuid4()), time.time()]\n")
    assert run_tool(tool).func_return != run_tool(tool).func_return


def test_the_clock_begins_at_its_origin_and_a_sleep_moves_it_at_once(run_body: RunBody) -> None:
    began = time.monotonic()
    body = "import time; a = time.time(); time.sleep(3600.5); return [a, time.time() - a, time.monotonic()]"
    result = run_body(body, deterministic=True)
    start, slept, monotonic = result.func_return
    assert 1_700_000_000 <= start < 1_700_000_001
    assert 3600.5 <= slept < 3600.51
    assert 3600.5 <= monotonic < 3601
    assert time.monotonic() - began < 30


def test_the_clock_steps_by_a_microsecond_at_every_look_and_at_nothing_else(run_body: RunBody) -> None:
    body = "import time\na = time.time_ns()\nsum(range(10**6))\nreturn [a, *(time.time_ns() for _ in range(5))]"
    first, *later = run_body(body, deterministic=True).func_return
    assert [moment - first for moment in later] == [1000, 2000, 3000, 4000, 5000]
    assert run_body(body, deterministic=True).func_return[0] == first


def test_random_numbers_are_seeded_and_hashes_are_fixed(run_body: RunBody) -> None:
    body = (
        "import random, os\nreturn [random.random(), os.urandom(8), hash('text'), hash(b'bytes'), [*{'a', 'b', 'c'}]]"
    )
    assert run_body(body, deterministic=True).func_return == run_body(body, deterministic=True).func_return
    assert run_body(body).func_return[2:] == run_body(body, deterministic=True).func_return[2:]  # fixed in every run


def test_a_guest_may_sleep_for_all_eternity(run_body: RunBody) -> None:
    body = "import time\nfor _ in range(100): time.sleep(9_000_000_000)\nreturn time.time_ns() == 2**63 - 1"
    assert run_body(body, deterministic=True).func_return is True


@pytest.mark.parametrize("body", ["while True: pass", "import time\nwhile True: time.sleep(1)"])
def test_the_deadline_is_one_of_real_time(run_body: RunBody, body: str) -> None:
    result = run_body(body, deterministic=True, timeout_seconds=0.3)
    assert result.error is not None
    assert result.error.kind is ErrorKind.TIMEOUT


@pytest.mark.parametrize("body", ["while True: pass", "import time\n    while True: time.sleep(1)"])
async def test_a_run_can_be_cancelled(body: str) -> None:
    tool = Tool(name="f", source_code=f"def f():\n    {body}\n")
    limits = Limits(deterministic=True, timeout_seconds=60)
    task = asyncio.create_task(WasmToolSandbox("f", {}, None, None, tool_object=tool, limits=limits).run())
    await asyncio.sleep(0.3)
    assert process_engine().running_guests == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(500):
        if not process_engine().running_guests:
            return
        await asyncio.sleep(0.01)
    pytest.fail("the guest goes on")


def test_the_ceiling_of_memory_holds(run_body: RunBody) -> None:
    result = run_body("return len(bytearray(200 << 20))", deterministic=True, memory_bytes=128 << 20)
    assert result.error is not None
    assert result.error.kind is ErrorKind.OUT_OF_MEMORY


def test_arguments_limits_and_source_still_decide() -> None:
    tool = Tool.from_source("def f(n: int) -> list:\n    import random\n    return [n, random.random()]\n")
    limits = Limits(deterministic=True)
    one, other = (run_tool(tool, {"n": n}, limits=limits).func_return for n in (1, 2))
    assert one[0] != other[0]
    assert one[1] == other[1]


def test_it_is_a_bool_and_off_by_default() -> None:
    assert Limits().deterministic is False
    with pytest.raises(ValueError, match="bool"):
        Limits.model_validate({"deterministic": 1})
