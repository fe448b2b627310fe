"""Where each microsecond of one run goes, by marks at the borders between the rooms.

The library itself holds no clocks: for the time of the measurement the functions at the borders are replaced by
ones that note the time. What they cost is in the figures, about a microsecond a mark.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from wasm_sandbox.bench.contenders import ARGUMENTS, run_raw
from wasm_sandbox.decode import interpret as interpretation
from wasm_sandbox.engine import engine
from wasm_sandbox.engine.binding import capi as _capi
from wasm_sandbox.engine.binding.configuration import Progress
from wasm_sandbox.engine.compiled.instances import InstancePool
from wasm_sandbox.engine.compiled.loaded import ImageSource, LoadedImage
from wasm_sandbox.engine.compiled.loading import load_image
from wasm_sandbox.engine.engine import GuestEngine
from wasm_sandbox.engine.memory.trap_signals import TrapSignals
from wasm_sandbox.engine.run import execution
from wasm_sandbox.engine.threads.turns import Turn
from wasm_sandbox.engine.threads.watchdog import Watchdog
from wasm_sandbox.engine.world import host_functions
from wasm_sandbox.engine.world import world as wasi
from wasm_sandbox.engine.world.surroundings import Surroundings
from wasm_sandbox.outcome import Outcome
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.sandbox import wasm as sandbox
from wasm_sandbox.script.generate import generate_script
from wasm_sandbox.tool.definition import Tool

if TYPE_CHECKING:
    from rich.console import Console

MARKED_TOOL = Tool.from_source(
    "from time import perf_counter\n\n"
    "def add(a: int, b: int) -> int:\n"
    "    perf_counter()\n"
    "    total = a + b\n"
    "    perf_counter()\n"
    "    return total\n"
)
"""A tool of two integers that reads the clock as its first and as its last act, which the host sees."""

_BEGIN, _END = "begin", "end"

# What happens from each mark until the next one.
_STEPS = {
    "run begin": "set up the call, gather the environment",
    "script begin": "write the script",
    "script end": "make the request",
    "start begin": "hand it to a guest thread",
    "execute begin": "make its world: pipes, environment, watchdog",
    "take begin": "take a fresh instance",
    "take end": "set the limits, encode the request, enter",
    "alloc begin": "allocate in the guest",
    "alloc end": "copy the script in",
    "guest begin": "guest: restore, read the tool's code, run up to it",
    "tool begin": "guest: the tool",
    "tool end": "guest: wrap, pickle, frame the result",
    "write begin": "write the frame (host call)",
    "write end": "guest: end the script",
    "guest end": "read the outcome",
    "deliver": "hand it back to the caller",
    "interpret begin": "read how it ended",
    "frame begin": "find and check the frame",
    "frame end": "split the output",
    "decode begin": "decode the value",
    "decode end": "build the result",
}
_AFTER = "tear down and make the next instance, after the reply"

_PROBES = {
    "an empty script": "",
    "pass": "pass",
    "print(1)": "print(1)",
    "compile the tool": f"compile({MARKED_TOOL.source_code!r}, 'tool.py', 'exec')",
    "class A: pass": "class A: pass",
    "a pydantic model of one field": "from pydantic import BaseModel\nclass M(BaseModel):\n    x: int\n",
}


@dataclass
class Step:
    """One part of a run."""

    name: str
    microseconds: float
    """Median over the runs."""


@dataclass
class HostCalls:
    """What the guest asked of the host in one run, under one name."""

    name: str
    calls: int
    microseconds: float
    """Of all the calls together, without the crossing itself; median over the runs."""


@dataclass
class Probe:
    """A script on its own in a fresh guest, for comparison."""

    name: str
    microseconds: float
    """In the guest, without store, instance and teardown; median over the runs."""
    fuel: int


@dataclass
class Breakdown:
    """Where the time of a run goes, part by part."""

    whole_microseconds: float
    """Of the whole call, median."""
    steps: list[Step]
    after: Step
    host_calls: list[HostCalls]
    probes: list[Probe]
    fuel: int
    memory_bytes: int

    def document(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "whole_us": round(self.whole_microseconds, 1),
            "steps": [{"name": step.name, "us": round(step.microseconds, 1)} for step in self.steps],
            "after_the_reply": {"name": self.after.name, "us": round(self.after.microseconds, 1)},
            "host_calls": [{"name": c.name, "calls": c.calls, "us": round(c.microseconds, 1)} for c in self.host_calls],
            "probes": [{"name": p.name, "us": round(p.microseconds, 1), "fuel": p.fuel} for p in self.probes],
            "fuel": self.fuel,
            "memory_bytes": self.memory_bytes,
        }

    def print_to(self, console: Console) -> None:
        """Print it as tables."""
        from rich import box
        from rich.table import Table

        def table(title: str, *columns: str) -> Table:
            made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
            made.add_column("")
            for column in columns:
                made.add_column(column, justify="right")
            return made

        steps = table("one call of a tool, step by step", "µs", "%")
        steps.add_column("", style="cyan", no_wrap=True)
        for step in self.steps:
            share = step.microseconds / self.whole_microseconds
            bar = "█" * round(share * 40)
            steps.add_row(step.name, f"{step.microseconds:,.0f}", f"{share:.0%}", bar)
        total = sum(step.microseconds for step in self.steps)
        steps.add_section()
        steps.add_row("sum of the steps", f"{total:,.0f}", "")
        steps.add_row("the whole call, by itself", f"{self.whole_microseconds:,.0f}", "")
        steps.add_row(self.after.name, f"{self.after.microseconds:,.0f}", "")
        calls = table(f"host calls of that run ({sum(c.calls for c in self.host_calls)})", "calls", "µs")
        for call in self.host_calls:
            calls.add_row(call.name, str(call.calls), f"{call.microseconds:,.1f}")
        probes = table("other scripts, in the guest only", "µs", "fuel")
        for probe in self.probes:
            probes.add_row(probe.name, f"{probe.microseconds:,.0f}", f"{probe.fuel:,}")
        for made in (steps, calls, probes):
            console.print(made)
        console.print(
            f"medians; fuel of the call {self.fuel:,}, memory {self.memory_bytes / (1 << 20):.0f} MiB", style="dim"
        )


def take_breakdown(rounds: int, progress: Callable[[str], None] = lambda words: None) -> Breakdown:
    """Run a tool of two integers again and again, and say where its time goes.

    The image must be ready. Other runs of this process at the same time would be mixed up with it.
    """
    with _marks() as marks:
        runs = []
        for number in range(rounds + 2):  # the first two warm things up; after them the tool's code is kept
            progress(f"breakdown: run {number + 1} of {rounds + 2}")
            runs.append(_marked_run(marks))
        probes = [_probe(marks, name, text, rounds) for name, text in _PROBES.items()]
        unprepared = "# so that no template fits\n" + generate_script(MARKED_TOOL, ARGUMENTS).text
        probes.append(_probe(marks, "the whole generated script, unprepared", unprepared, rounds))
    runs = runs[2:]
    names = [name for name in _STEPS.values() if any(name in run.steps for run in runs)]
    return Breakdown(
        whole_microseconds=statistics.median(run.whole for run in runs),
        steps=[Step(name, statistics.median(run.steps.get(name, 0.0) for run in runs)) for name in names],
        after=Step(_AFTER, statistics.median(run.after for run in runs)),
        host_calls=_host_calls(runs),
        probes=probes,
        fuel=runs[-1].outcome.fuel or 0,
        memory_bytes=runs[-1].outcome.memory_bytes,
    )


def _host_calls(runs: list[_Run]) -> list[HostCalls]:
    last = runs[-1]
    found = [
        HostCalls(name, calls, statistics.median(run.call_times.get(name, 0.0) for run in runs))
        for name, calls in sorted(last.calls.items())
    ]
    refused = last.outcome.host_calls - last.calls.total()
    return [*found, HostCalls("refused (not capable)", refused, 0.0)] if refused else found


# --- Taking the time ------------------------------------------------------------------------------------


@dataclass
class _Marks:
    """What was noted during one run; times in nanoseconds."""

    at: dict[str, int] = field(default_factory=dict)
    calls: list[tuple[str, int, int]] = field(default_factory=list)
    """Host calls: name, when, how long."""
    outcome: Outcome | None = None

    def clear(self) -> None:
        self.at.clear()
        self.calls.clear()
        self.outcome = None

    def note(self, name: str) -> None:
        self.at.setdefault(name, time.perf_counter_ns())

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with a mark before and one after it."""
        begin, end = f"{name} {_BEGIN}", f"{name} {_END}"

        @wraps(function)
        def marked(*args: Any, **kwargs: Any) -> Any:
            self.note(begin)
            try:
                return function(*args, **kwargs)
            finally:
                self.note(end)

        return marked


@dataclass
class _Run:
    """One run's figures, in microseconds."""

    whole: float
    steps: dict[str, float]
    after: float
    calls: Counter[str]
    call_times: dict[str, float]
    outcome: Outcome


def _marked_run(marks: _Marks) -> _Run:
    marks.clear()
    marks.note("run begin")
    result = sandbox.run_tool(MARKED_TOOL, ARGUMENTS)
    marks.note("run end")
    _wait_for_the_guest_thread(marks)
    if result.func_return != 3 or marks.outcome is None:
        raise RuntimeError(f"the tool that is measured failed: {result.error}")
    return _reckon(marks, marks.outcome)


def _reckon(marks: _Marks, outcome: Outcome) -> _Run:
    at = dict(marks.at)
    writes = [(when, taken) for name, when, taken in marks.calls if name == "fd_write"]
    at["write begin"], at["write end"] = writes[-1][0], sum(writes[-1])
    reads = [when for name, when, _ in marks.calls if name == "clock_time_get" and when < at["write begin"]]
    at["tool begin"], at["tool end"] = reads[-2:]
    on_path = sorted((when, name) for name, when in at.items() if name in _STEPS or name == "run end")
    steps = {
        _STEPS[name]: (following - when) / 1000 for (when, name), (following, _) in pairwise(on_path) if name in _STEPS
    }
    times: dict[str, float] = {}
    for name, _, taken in marks.calls:
        times[name] = times.get(name, 0.0) + taken / 1000
    return _Run(
        whole=(at["run end"] - at["run begin"]) / 1000,
        steps=steps,
        after=(at["close end"] - at["close begin"]) / 1000,
        calls=Counter(name for name, _, _ in marks.calls),
        call_times=times,
        outcome=outcome,
    )


def _probe(marks: _Marks, name: str, text: str, rounds: int) -> Probe:
    taken = []
    for _ in range(max(3, rounds // 2)):
        marks.clear()
        outcome = run_raw(text)
        taken.append((marks.at["guest end"] - marks.at["guest begin"]) / 1000)
        _wait_for_the_guest_thread(marks)
    return Probe(name, statistics.median(taken), outcome.fuel or 0)


def _wait_for_the_guest_thread(marks: _Marks) -> None:
    """After the reply it tears down, and compiles a tool that was called twice: not beside the next run."""
    deadline = time.monotonic() + 5
    while "execute end" not in marks.at and time.monotonic() < deadline:
        time.sleep(0.0005)


class _MarkedEngine(GuestEngine):
    """An engine whose host functions note what is asked of them."""

    def __init__(self, marks: _Marks) -> None:
        super().__init__()
        with ExitStack() as stack:
            for name in host_functions.SERVED | host_functions.STREAM_FUNCTIONS:
                stack.enter_context(patch.object(wasi.World, name, _noted(marks, name)))
            self._marked_image = load_image(self._engine)

    def image(
        self, progress: Progress | None = None, source: ImageSource | None = None, counts_fuel: bool = True
    ) -> LoadedImage:
        return self._marked_image


def _noted(marks: _Marks, name: str) -> Callable[..., int]:
    serve: Callable[..., int] = getattr(wasi.World, name)

    @wraps(serve)
    def noted(world: wasi.World, *args: int) -> int:
        started = time.perf_counter_ns()
        try:
            return serve(world, *args)
        finally:
            marks.calls.append((name, started, time.perf_counter_ns() - started))

    return noted


@contextmanager
def _marks() -> Iterator[_Marks]:
    """Put the marks in place; taken away at the end."""
    marks = _Marks()
    execute, call = execution.execute, _capi.Instance.call
    guest_calls = {"sandbox_alloc": "alloc", "sandbox_run": "guest"}

    def marked_execute(
        image: LoadedImage,
        watchdog: Watchdog,
        trap_signals: TrapSignals,
        request: ExecutionRequest,
        surroundings: Surroundings,
        deliver: Callable[[Outcome], None],
        turn: Turn | None = None,
    ) -> None:
        marks.note("execute begin")

        def marked_deliver(outcome: Outcome) -> None:
            marks.outcome = outcome
            marks.note("deliver")
            deliver(outcome)

        try:
            execute(image, watchdog, trap_signals, request, surroundings, marked_deliver, turn)
        finally:
            marks.note("execute end")

    def marked_call(self: _capi.Instance, name: str, *arguments: int) -> int:
        label = guest_calls.get(name)
        if label is None:
            return call(self, name, *arguments)
        marks.note(f"{label} {_BEGIN}")
        try:
            return call(self, name, *arguments)
        finally:
            marks.note(f"{label} {_END}")

    measured = _MarkedEngine(marks)
    borders: list[tuple[Any, str, str]] = [
        (sandbox.WasmToolSandbox, "_script", "script"),
        (GuestEngine, "start", "start"),
        (InstancePool, "take", "take"),
        (InstancePool, "replace", "close"),
        (sandbox, "interpret", "interpret"),
        (interpretation, "split_frames", "frame"),
        (interpretation, "_decode", "decode"),
    ]
    with ExitStack() as stack:
        stack.callback(measured.shutdown)
        for owner, name, label in borders:
            stack.enter_context(patch.object(owner, name, marks.around(label, getattr(owner, name))))
        stack.enter_context(patch.object(engine, "execute", marked_execute))
        stack.enter_context(patch.object(_capi.Instance, "call", marked_call))
        stack.enter_context(patch.object(engine, "process_engine", lambda: measured))
        stack.enter_context(patch("wasm_sandbox.bench.contenders.process_engine", lambda: measured))
        yield marks
