"""Where each microsecond of one run goes, by the marks at the borders between the rooms (`wasm_sandbox.events`).

What listening costs is in the figures, about a microsecond a mark.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from wasm_sandbox import Tool, run_tool
from wasm_sandbox.bench.contenders import ARGUMENTS, run_raw
from wasm_sandbox.events import Mark, listening
from wasm_sandbox.outcome import Outcome
from wasm_sandbox.script.generate import generate_script

MARKED_TOOL = Tool.from_source(
    "from time import perf_counter\n\n"
    "def add(a: int, b: int) -> int:\n"
    "    perf_counter()\n"
    "    total = a + b\n"
    "    perf_counter()\n"
    "    return total\n"
)
"""A tool of two integers that reads the clock as its first and as its last act, which the host sees."""

# What happens from each mark until the next one.
_STEPS = {
    "run begin": "set up the call, gather the environment",
    "script begin": "write the script",
    "script end": "make the request",
    "submit begin": "hand it to a guest thread",
    "execute begin": "make its world: pipes, environment, watchdog",
    "take begin": "take a fresh instance",
    "take end": "set the limits, encode the request, enter",
    "place begin": "allocate in the guest, copy the script in",
    "guest begin": "guest: restore, read the tool's code, run up to it",
    "tool begin": "guest: the tool",
    "tool end": "guest: wrap, pickle, frame the result",
    "write begin": "write the frame (host call)",
    "write end": "guest: end the script",
    "guest end": "read the outcome",
    "deliver begin": "hand it back to the caller",
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
class Part:
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
    steps: list[Part]
    after: Part
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
    marks = _Marks()
    with listening(marks):
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
        steps=[Part(name, statistics.median(run.steps.get(name, 0.0) for run in runs)) for name in names],
        after=Part(_AFTER, statistics.median(run.after for run in runs)),
        host_calls=_host_calls(runs),
        probes=probes,
        fuel=runs[-1].outcome.fuel or 0,
        memory_bytes=runs[-1].outcome.memory_bytes,
    )


def _host_calls(runs: list[_Run]) -> list[HostCalls]:
    last = runs[-1]
    found = []
    for name, calls in sorted(last.calls.items()):
        median = statistics.median(run.call_times.get(name, 0.0) for run in runs)
        found.append(HostCalls(name, calls, median))
    refused = last.outcome.host_calls - last.calls.total()
    return [*found, HostCalls("refused (not capable)", refused, 0.0)] if refused else found


# --- Taking the time ------------------------------------------------------------------------------------


# Guarantees: marks come from the caller's thread and from the guest's; `settled` is set when that has nothing more
# to do for a run.
class _Marks:
    """What is heard during one run; times in nanoseconds."""

    def __init__(self) -> None:
        self.settled = threading.Event()
        self.clear()

    def clear(self) -> None:
        self.at: dict[str, int] = {}
        self.calls: list[tuple[str, int, int]] = []
        """Host calls: name, when, how long."""
        self.outcome: Outcome | None = None
        self.settled.clear()

    def began(self, mark: Mark) -> None:
        if mark.name == "deliver":
            self.outcome = mark.subject

    def ended(self, mark: Mark) -> None:
        if mark.name == "host call":
            self.calls.append((mark.subject, mark.began_ns, mark.ended_ns - mark.began_ns))
            return
        self.at.setdefault(f"{mark.name} begin", mark.began_ns)
        self.at.setdefault(f"{mark.name} end", mark.ended_ns)
        if mark.name == "execute":
            self.settled.set()


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
    began = time.perf_counter_ns()
    result = run_tool(MARKED_TOOL, ARGUMENTS)
    ended = time.perf_counter_ns()
    _wait_for_the_guest_thread(marks)
    if result.func_return != 3 or marks.outcome is None:
        raise RuntimeError(f"the tool that is measured failed: {result.error}")
    return _reckon(marks, marks.outcome, began, ended)


def _reckon(marks: _Marks, outcome: Outcome, began: int, ended: int) -> _Run:
    at = {**marks.at, "run begin": began, "run end": ended}
    writes = [(when, taken) for name, when, taken in marks.calls if name == "fd_write"]
    at["write begin"], at["write end"] = writes[-1][0], sum(writes[-1])
    reads = [when for name, when, _ in marks.calls if name == "clock_time_get" and when < at["write begin"]]
    at["tool begin"], at["tool end"] = reads[-2:]
    on_path = sorted((when, name) for name, when in at.items() if name in _STEPS or name == "run end")
    steps = {}
    for (when, name), (following, _) in pairwise(on_path):
        if name in _STEPS:
            steps[_STEPS[name]] = (following - when) / 1000
    times: dict[str, float] = {}
    for name, _, taken in marks.calls:
        times[name] = times.get(name, 0.0) + taken / 1000
    return _Run(
        whole=(ended - began) / 1000,
        steps=steps,
        after=(at["replace end"] - at["replace begin"]) / 1000,
        calls=Counter(name for name, _, _ in marks.calls),
        call_times=times,
        outcome=outcome,
    )


def _probe(marks: _Marks, name: str, text: str, rounds: int) -> Probe:
    taken = []
    for _ in range(max(3, rounds // 2)):
        marks.clear()
        outcome = run_raw(text)
        _wait_for_the_guest_thread(marks)
        taken.append((marks.at["guest end"] - marks.at["guest begin"]) / 1000)
    return Probe(name, statistics.median(taken), outcome.fuel or 0)


def _wait_for_the_guest_thread(marks: _Marks) -> None:
    """After the reply it tears down, and compiles a tool that was called twice: not beside the next run."""
    marks.settled.wait(timeout=5)
