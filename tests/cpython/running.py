"""One module of CPython's tests, run in the guest to its end: whatever ends the guest costs one test, and is told."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wasm_sandbox import HostDir, Limits, Sandbox, Tool, ToolExecutionResult

LIMITS = Limits(
    fuel=120_000_000_000,
    memory_bytes=1 << 30,
    timeout_seconds=3600,
    files_bytes=256 << 20,
    file_count=20_000,
    host_calls=1_000_000,
    host_bytes=1 << 30,
)
"""Of one guest. Fuel, and not time, ends a test that goes on for ever: the same one on each machine."""

MAX_ENDED = 12
"""Guests that may be ended in one module: each costs up to the whole fuel."""

INSIDE = (Path(__file__).parent / "inside.py").read_text()

BAD = ("ended", "error", "failure")


@dataclass
class ModuleResult:
    """What the tests of a module came to.

    Attributes:
        module: its name, without ``test.``.
        tests: how many tests were started.
        skipped: names of those that skipped themselves, and of classes that did, with their reason.
        bad: names of those that failed, with ``error``, ``failure`` or ``ended`` (the guest) and what was said.
        fuel: units of work.
        seconds: wall time.
    """

    module: str
    tests: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    bad: dict[str, tuple[str, str]] = field(default_factory=dict)
    fuel: int = 0
    seconds: float = 0.0

    @classmethod
    def read(cls, path: Path) -> ModuleResult:
        """The result that `write` wrote."""
        return cls(**json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        """Keep this for later."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1))


class _Watched:
    """What the guest tells of its tests while it runs them."""

    def __init__(self, result: ModuleResult) -> None:
        self.running = ""
        self.seen: list[str] = []
        self._result = result

    def tell(self, finished: list[list[str]], started: str) -> None:
        """Take down what ended, and which test begins."""
        self.take(finished)
        self.running = started
        self._result.tests += 1

    def take(self, finished: list[list[str]]) -> None:
        """Take down what ended; a test that failed in several ways keeps the first one."""
        for name, outcome, detail in finished:
            if outcome == "stopped":
                self.running = ""
                self.seen.append(name)
            elif outcome == "skipped":
                self._result.skipped[name] = detail
            elif outcome in BAD:
                self._result.bad.setdefault(name, (outcome, detail))


ON_A_MOUNT = " on a mount"
"""Behind the name of a module: its files are in a directory of the host, and not in memory."""


def run_module(
    name: str, tests: Path, leave_out: Sequence[str] = (), has: Sequence[str] = (), limits: Limits = LIMITS
) -> ModuleResult:
    """Run a module or a package below ``test``.

    When the guest is ended, by a trap or a limit, the test that ran then is ``ended``, and the ones after it are run in
    another guest.

    Args:
        name: its name, without ``test.``, perhaps with `ON_A_MOUNT`.
        tests: directory of the package ``test`` (`sources.directory_of_tests`).
        leave_out: names of tests that are not started.
        has: what is there though CPython's tests take WASI not to have it (`inside.run_module`).
        limits: those of one guest.
    """
    tool = Tool.from_source(INSIDE)

    def start(tell: Tell, done: list[str]) -> ToolExecutionResult:
        mounts = {"/cpython/Lib/test": HostDir(tests)}
        with tempfile.TemporaryDirectory() as work:
            env = {}
            if name.endswith(ON_A_MOUNT):
                mounts["/tmp/work"] = HostDir(work, read_only=False)
                env["TMPDIR"] = "/tmp/work"
            box = Sandbox(limits=limits, files={}, mounts=mounts, env=env, functions=[tell])
            return box.run_tool(tool, {"module": name.removesuffix(ON_A_MOUNT), "leave_out": done, "has": list(has)})

    return run_to_end(name, start, leave_out)


Tell = Callable[[list[list[str]], str], None]
"""Host function by which a guest tells what ended, as name, outcome and detail, and which test begins."""


def run_to_end(
    name: str, start: Callable[[Tell, list[str]], ToolExecutionResult], leave_out: Sequence[str] = ()
) -> ModuleResult:
    """Run tests in a guest, and in another one those that come after a test which ended it.

    Args:
        name: module of the tests.
        start: runs them in a new guest, but for those that are named, and gives back what the guest did not tell.
        leave_out: names of tests that are not started.
    """
    result = ModuleResult(name)
    done = list(leave_out)
    for _ in range(MAX_ENDED):
        watched = _Watched(result)
        ran = start(watched.tell, done)
        if ran.usage is not None:
            result.fuel += ran.usage.fuel or 0
            result.seconds += ran.usage.wall_seconds
        if ran.error is None:
            value: dict[str, Any] = ran.func_return
            watched.take(value["finished"])
            return result
        said = f"{ran.error.kind}: {ran.error.message}\n{''.join(ran.stderr or [])[-1500:]}"
        if not watched.running:
            where = watched.seen[-1] if watched.seen else "the import"
            result.bad[f"(after {where})"] = ("ended", said)
            return result
        result.bad.setdefault(watched.running, ("ended", said))
        done += [*watched.seen, watched.running]
    result.bad["(the rest)"] = ("ended", f"the guest was ended {MAX_ENDED} times; what came then was not run")
    return result
