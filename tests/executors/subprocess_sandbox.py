"""Another executor of the same script: a plain Python process, with nothing but `run` of its own.

It is no sandbox, and only here to see that the script means the same wherever it is run. What a tool returns is
read as carefully as from a guest.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wasm_sandbox import AsyncToolSandboxBase, ErrorKind, Limits, ToolError, ToolExecutionResult
from wasm_sandbox.arguments import BadArguments
from wasm_sandbox.guest.execution import Ending, GuestException, Outcome
from wasm_sandbox.interpretation import failed_before_running, interpret
from wasm_sandbox.script import UnsupportedToolError
from wasm_sandbox.stderr_traceback import exception_of

TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Ended:
    """How a process ended, and what it wrote."""

    exit_code: int
    stdout: bytes
    stderr: bytes


Execute = Callable[[str, Mapping[str, str]], Ended]


def execute_in_a_process(script: str, environ: Mapping[str, str]) -> Ended:
    """Run a script by an interpreter of its own."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "script.py"
        path.write_bytes(script.encode())
        done = subprocess.run(
            [sys.executable, "-I", "-X", "utf8", str(path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=dict(environ),
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    return Ended(done.returncode, done.stdout, done.stderr)


class ForkingInterpreter:
    """Runs scripts as `execute_in_a_process`, each in a fork of one interpreter: milliseconds and not a third of a
    second for each."""

    def __init__(self) -> None:
        server = Path(__file__).with_name("forking_interpreter.py")
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-X", "utf8", str(server)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __call__(self, script: str, environ: Mapping[str, str]) -> Ended:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as directory:
            out, err = Path(directory) / "out", Path(directory) / "err"
            order = {"script": script, "environ": dict(environ), "out": str(out), "err": str(err)}
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            exit_code = int(self._process.stdout.readline())
            return Ended(exit_code, out.read_bytes(), err.read_bytes())

    def close(self) -> None:
        """End the interpreter."""
        self._process.communicate()


class SubprocessToolSandbox(AsyncToolSandboxBase):
    """Runs tools by `execute`; see the module."""

    execute: Execute = staticmethod(execute_in_a_process)

    async def run(
        self, agent_state: Any = None, additional_env_vars: Mapping[str, str] | None = None
    ) -> ToolExecutionResult:
        """Run the script elsewhere and read its result."""
        config = await self._configuration()
        fingerprint = config.fingerprint() if config else None
        environ = await self._gather_env_vars(agent_state, additional_env_vars, config.id if config else None, False)
        try:
            script = await self.generate_execution_script(agent_state, wrap_print_with_markers=True)
        except (BadArguments, UnsupportedToolError) as error:
            refusal = ToolError(kind=ErrorKind.BAD_ARGUMENTS, message=str(error), exception_name=type(error).__name__)
            return failed_before_running(self.tool_name, refusal, fingerprint)
        ended = await asyncio.to_thread(self.execute, script, environ)
        return interpret(
            _outcome(ended),
            Limits(),
            self.tool_name,
            marker=self.LOCAL_SANDBOX_RESULT_START_MARKER,
            agent_state=agent_state,
            injects_agent_state=self.inject_agent_state,
            fingerprint=fingerprint,
        )


def _outcome(ended: Ended) -> Outcome:
    return Outcome(
        ending=Ending.EXITED if ended.exit_code >= 0 else Ending.TRAPPED,
        exit_code=max(ended.exit_code, 0),
        exception=_exception(ended),
        detail=f"ended by signal {-ended.exit_code}" if ended.exit_code < 0 else "",
        stdout=ended.stdout,
        stderr=ended.stderr,
        stdout_dropped_bytes=0,
        stderr_dropped_bytes=0,
        fuel=0,
        wall_seconds=0.0,
        memory_bytes=0,
        host_calls=0,
    )


def _exception(ended: Ended) -> GuestException | None:
    """The exception that ended a process, read from what Python prints of it."""
    found = exception_of(ended.stderr.decode("utf-8", "replace")) if ended.exit_code == 1 else None
    return GuestException(*found) if found else None


def can_fork() -> bool:
    """Whether this platform has the forking interpreter."""
    return hasattr(os, "fork")
