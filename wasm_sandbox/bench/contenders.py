"""The jobs, and who of this machine's own does them: this library, and Python in a subprocess."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import wasm_sandbox
from wasm_sandbox import Limits, Tool, WasmToolSandbox, run_tool
from wasm_sandbox.bench.measure import ContenderFailed, LocalContender, TimedContender
from wasm_sandbox.decode.frame import MARKER, split_frames
from wasm_sandbox.decode.pickle_decoder import decode_envelope
from wasm_sandbox.engine import GuestEngine, LiveSurroundings, process_engine
from wasm_sandbox.images import default_source
from wasm_sandbox.outcome import Ending, Outcome
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.script.generate import ExecutionScript, generate_script

OURS = "wasm-sandbox"
"""The contender that ratios are relative to."""

JOBS = {
    "trivial": "run 'pass' in a fresh interpreter",
    "print": "run 'print(1)' in a fresh interpreter",
    "tool": "call a tool: add(1, 2)",
    "import": "import the library",
    "cold": "a new process, until its first result",
}
"""Key and title of each job."""

TOOL = Tool.from_source("def add(a: int, b: int) -> int:\n    return a + b\n")
ARGUMENTS = {"a": 1, "b": 2}

ROOT = Path(wasm_sandbox.__file__).parents[1]

_COLD = f"""\
import wasm_sandbox
tool = wasm_sandbox.Tool.from_source({TOOL.source_code!r})
assert wasm_sandbox.run_tool(tool, {ARGUMENTS!r}).func_return == 3
"""


def local_contenders() -> list[LocalContender | TimedContender]:
    """Who needs nothing but this installation. The image must be ready."""
    script = tool_script()
    return [
        LocalContender("trivial", OURS, lambda: run_raw("pass")),
        LocalContender("trivial", "subprocess", lambda: _python("pass")),
        LocalContender("print", OURS, lambda: run_raw("print(1)")),
        LocalContender("print", "subprocess", lambda: _python("print(1)")),
        LocalContender("tool", OURS, _call_tool),
        TimedContender("tool", f"{OURS}, async", lambda: asyncio.run(_timed_call())),
        LocalContender(
            "tool", f"{OURS}, script only", lambda: run_generated(script), note="without writing and decoding"
        ),
        LocalContender("tool", "subprocess", lambda: _subprocess_call(script.text), note="the same script"),
        LocalContender("import", OURS, lambda: _python("import wasm_sandbox")),
        LocalContender("import", "python", lambda: _python("pass"), note="an empty process"),
        LocalContender("cold", OURS, lambda: _python(_COLD)),
        LocalContender("cold", "python", lambda: _python("import pydantic"), note="which only imports pydantic"),
    ]


def tool_script() -> ExecutionScript:
    """The generated script of the call that job ``tool`` makes."""
    return generate_script(TOOL, ARGUMENTS)


def run_raw(script: str, limits: Limits | None = None, engine: GuestEngine | None = None) -> Outcome:
    """Run a script in a fresh guest.

    Args:
        script: what to run.
        limits: the defaults if not given.
        engine: where; this process's own if not given.

    Raises:
        ContenderFailed: if it did not end well.
    """
    return _run(ExecutionRequest(script, {}, limits or Limits()), engine)


def run_generated(script: ExecutionScript) -> Outcome:
    """Run a generated script in a fresh guest, as the sandbox does. Raises as `run_raw`."""
    return _run(request_of(script))


def request_of(script: ExecutionScript) -> ExecutionRequest:
    """What runs a generated script with the default limits and no variables."""
    return ExecutionRequest(
        script.text,
        {},
        Limits(),
        tool_first_line=script.tool_first_line,
        tool_line_count=script.tool_line_count,
        values=script.values,
    )


def _run(request: ExecutionRequest, engine: GuestEngine | None = None) -> Outcome:
    outcome = (engine or process_engine()).start(request, LiveSurroundings(), default_source()).result()
    if outcome.ending is not Ending.EXITED or outcome.exit_code:
        reason = outcome.exception.traceback if outcome.exception else outcome.detail
        raise ContenderFailed(reason or f"it ended: {outcome.ending.value}")
    return outcome


def child_environment() -> dict[str, str]:
    """An environment in which this very library is found, installed or not."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def _call_tool() -> None:
    result = run_tool(TOOL, ARGUMENTS)
    if result.func_return != 3:
        raise ContenderFailed(f"the tool returned {result.func_return!r}")


async def _timed_call() -> float:
    started = time.perf_counter()
    result = await WasmToolSandbox(TOOL.name, ARGUMENTS, None, None, tool_object=TOOL).run()
    if result.func_return != 3:
        raise ContenderFailed(f"the tool returned {result.func_return!r}")
    return time.perf_counter() - started


def _python(program: str) -> bytes:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False, env=child_environment(), timeout=120
    )
    if done.returncode:
        raise ContenderFailed(done.stderr.decode(errors="replace").strip().rpartition("\n")[2])
    return done.stdout


def _subprocess_call(script: str) -> None:
    payload = split_frames(_python(script), max_payload=Limits().result_bytes, marker=MARKER).payload
    if payload is None or decode_envelope(payload).results != 3:
        raise ContenderFailed("the script returned another result")
