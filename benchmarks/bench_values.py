"""Big values in and out, beside a pipe to a subprocess with the same pickle."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from wasm_sandbox.bench.measure import ContenderFailed, LocalContender, side_by_side
from wasm_sandbox.limits import MIB, Limits
from wasm_sandbox.sandbox.wasm import run_tool
from wasm_sandbox.tool.definition import Tool

SIZES = {"1 KB": 1_000, "100 KB": 100_000, "1 MB": 1_000_000, "10 MB": 10_000_000}
LIMITS = Limits(memory_bytes=1024 * MIB, result_bytes=64 * MIB)
ROUNDS = 7


def cyrillic(size: int) -> str:
    """About that many bytes of text beyond ASCII."""
    return "".join(random.Random(size).choices("абвгдежзийклмнопрстуфхцчшщъыьэюя ", k=size // 2))


def records(size: int) -> list[dict[str, object]]:
    """About that many bytes of pickle in small records."""
    return [{"id": n, "name": f"user {n}", "score": n / 7} for n in range(max(1, size // 36))]


KINDS: dict[str, Callable[[int], Any]] = {"text": lambda size: "x" * size, "records": records}
_MAKE = {
    "text": "'x' * size",
    "records": "[{'id': n, 'name': f'user {n}', 'score': n / 7} for n in range(max(1, size // 36))]",
}
TAKE = Tool.from_source("def take(value: object) -> int:\n    return len(value)\n")
TAKE_STATE = Tool.from_source("def take(agent_state) -> int:\n    return len(agent_state.value)\n")
MAKERS = {kind: Tool.from_source(f"def make(size: int):\n    return {text}\n") for kind, text in _MAKE.items()}

_LOOP = """
import pickle, struct, sys
from sys import stdin, stdout
def make(kind, size):
    return {makers}
while head := stdin.buffer.read(4):
    question = pickle.loads(stdin.buffer.read(*struct.unpack('<I', head)))
    answer = make(*question[1:]) if question[0] == 'out' else len(question[1])
    data = pickle.dumps(answer)
    stdout.buffer.write(struct.pack('<I', len(data)) + data)
    stdout.buffer.flush()
""".replace("{makers}", f"({_MAKE['text']}) if kind == 'text' else ({_MAKE['records']})")


class Pipe:
    """A Python that is already running, at the other end of a pipe."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", _LOOP], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, *question: object) -> Any:
        """Send a pickle, wait for one."""
        assert self.process.stdin
        assert self.process.stdout
        data = pickle.dumps(question)
        self.process.stdin.write(len(data).to_bytes(4, "little") + data)
        self.process.stdin.flush()
        size = int.from_bytes(self.process.stdout.read(4), "little")
        return pickle.loads(self.process.stdout.read(size))

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def _fresh(*question: object) -> Any:
    pipe = Pipe()
    try:
        return pipe.ask(*question)
    finally:
        pipe.close()


def _tool(tool: Tool, arguments: dict[str, Any]) -> Any:
    result = run_tool(tool, arguments, limits=LIMITS)
    if result.error is not None:
        raise ContenderFailed(f"{result.error.kind}: {result.error.message or result.error.exception_name}")
    return result.func_return


@pytest.mark.parametrize("direction", ["in", "out"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def bench_value(benchmark: BenchmarkFixture, size: str, kind: str, direction: str) -> None:
    """A tool that takes or makes a value; a fresh subprocess, and one that runs already, do the same."""
    count = SIZES[size]
    value = KINDS[kind](count)
    expected = len(value)
    pipe = Pipe()
    question = ("in", value) if direction == "in" else ("out", kind, count)

    def check(answer: Any) -> None:
        assert (answer if direction == "in" else len(answer)) == expected

    tool, arguments = (TAKE, {"value": value}) if direction == "in" else (MAKERS[kind], {"size": count})
    job = f"{kind}, {size}, {direction}"
    contenders = [
        LocalContender(job, "wasm-sandbox", lambda: check(_tool(tool, arguments))),
        LocalContender(job, "fresh subprocess", lambda: check(_fresh(*question))),
        LocalContender(job, "running subprocess", lambda: check(pipe.ask(*question))),
    ]
    try:
        series, failed = benchmark.pedantic(side_by_side, (contenders, ROUNDS), rounds=1)
    finally:
        pipe.close()
    if failed:  # a limit of ours
        benchmark.extra_info["failed"] = failed[0].reason
        print(f"\n{job}: not possible: {failed[0].reason}")
        return
    ours, fresh, running = (s.median * 1000 for s in series)
    benchmark.extra_info |= {"ms": ours, "fresh_subprocess_ms": fresh, "running_subprocess_ms": running}
    print(
        f"\n{job}: {ours:.2f} ms; fresh subprocess {fresh:.2f} ms (x{ours / fresh:.2f}), "
        f"running subprocess {running:.2f} ms (x{ours / running:.2f})"
    )


STATES: dict[str, Callable[[int], Any]] = {**KINDS, "text beyond ASCII": cyrillic}


@pytest.mark.parametrize("kind", STATES)
def bench_state(benchmark: BenchmarkFixture, kind: str) -> None:
    """An agent state of 1 MB, which goes in and comes back, beside an argument of 1 MB that is returned."""
    value = STATES[kind](SIZES["1 MB"])
    returning = Tool.from_source("def take(value: object):\n    return value\n")

    def state() -> None:
        result = run_tool(TAKE_STATE, agent_state={"id": "agent-1", "value": value}, limits=LIMITS)
        assert result.agent_state["value"] == value

    contenders = [
        LocalContender(kind, "state", state),
        LocalContender(kind, "argument", lambda: _tool(returning, {"value": value})),
    ]
    series, failed = benchmark.pedantic(side_by_side, (contenders, ROUNDS), rounds=1)
    assert not failed
    ours, argument = (s.median * 1000 for s in series)
    benchmark.extra_info |= {"state_ms": ours, "argument_ms": argument}
    print(f"\n{kind}, 1 MB: as a state {ours:.1f} ms, as an argument {argument:.1f} ms (x{ours / argument:.2f})")
