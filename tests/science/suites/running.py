"""One file of numpy's or pandas's tests, run in the guest to its end."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tests.cpython.running import ModuleResult, Tell, run_to_end
from wasm_sandbox import HostDir, Image, Limits, Sandbox, Tool, ToolExecutionResult

LIMITS = Limits(
    fuel=400_000_000_000,
    memory_bytes=2 << 30,
    timeout_seconds=3600,
    files_bytes=256 << 20,
    file_count=20_000,
    output_bytes=16 << 20,
    host_calls=1_000_000,
    host_bytes=1 << 30,
)
"""Of one guest. Fuel, and not time, ends a test that goes on for ever: the same one on each machine."""

REQUIREMENTS = ["pytest==9.1.0", "hypothesis==6.140.0"]
"""What the suites need; later versions of hypothesis are compiled."""

INI = b"""[pytest]
addopts =
markers =
    slow: not run
    network: not run
    db: not run
    single_cpu: run
    arm_slow: not run
    leaks_references: not run
    parallel_threads: not run
    thread_unsafe: run
    clipboard: not run
    skip_ubsan: run
    valgrind_error: run
    arraymanager: run
xfail_strict = False
filterwarnings =
"""

INSIDE = (Path(__file__).parent / "inside.py").read_text()


@cache
def image() -> Image:
    """The guest with what the suites need."""
    return Image.build(REQUIREMENTS, base="science", preload=["pytest"])


def run_file(name: str, source: Path, leave_out: Sequence[str] = (), limits: Limits = LIMITS) -> ModuleResult:
    """Run a file of tests.

    Args:
        name: its path in the source, such as ``numpy/fft/tests/test_helper.py``.
        source: directory of the source (`sources.directory_of`).
        leave_out: names of tests that are not started.
        limits: those of one guest.
    """
    tool = Tool.from_source(INSIDE)

    def start(tell: Tell, done: list[str]) -> ToolExecutionResult:
        files = {"/etc/pytest.ini": INI}
        mounts = {"/suite": HostDir(source)}
        box = Sandbox(image=image(), limits=limits, files=files, mounts=mounts, functions=[tell])
        return box.run_tool(tool, {"file": name, "leave_out": done})

    return run_to_end(name, start, leave_out)
