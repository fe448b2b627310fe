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
from pathlib import Path
from typing import Any

from wasm_sandbox import AsyncToolSandboxBase, ToolExecutionResult
from wasm_sandbox.backends import ScriptEnd

TIMEOUT_SECONDS = 30


Execute = Callable[[str, Mapping[str, str]], ScriptEnd]


def execute_in_a_process(script: str, environ: Mapping[str, str]) -> ScriptEnd:
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
    return ScriptEnd(done.returncode, done.stdout, done.stderr, file_name=str(path))


class ForkingInterpreter:
    """Runs scripts as `execute_in_a_process`, each in a fork of one interpreter: milliseconds and not a third of a
    second for each."""

    def __init__(self) -> None:
        server = Path(__file__).with_name("forking_interpreter.py")
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-X", "utf8", str(server)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __call__(self, script: str, environ: Mapping[str, str]) -> ScriptEnd:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as directory:
            out, err = Path(directory) / "out", Path(directory) / "err"
            order = {"script": script, "environ": dict(environ), "out": str(out), "err": str(err)}
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            exit_code = int(self._process.stdout.readline())
            return ScriptEnd(exit_code, out.read_bytes(), err.read_bytes())

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
        call = await self.prepare_call(agent_state, additional_env_vars)
        if isinstance(call, ToolExecutionResult):
            return call
        return self.result_of(call, await asyncio.to_thread(self.execute, call.script.text, call.environ))


def can_fork() -> bool:
    """Whether this platform has the forking interpreter."""
    return hasattr(os, "fork")
