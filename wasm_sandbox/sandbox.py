"""The sandbox: a tool call in, a result out, by way of script, guest and frame."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wasm_sandbox.arguments import BadArguments
from wasm_sandbox.base import AsyncToolSandboxBase
from wasm_sandbox.config import Limits, SandboxConfig
from wasm_sandbox.interpretation import failed_before_running, interpret
from wasm_sandbox.results import ErrorKind, ToolError, ToolExecutionResult
from wasm_sandbox.script import ExecutionScript, UnsupportedToolError
from wasm_sandbox.tool import Tool

if TYPE_CHECKING:
    from wasm_sandbox.guest.execution import Outcome

INTERRUPT_POLL_SECONDS = 0.1  # on some platforms a wait without an end cannot be interrupted by Ctrl-C


@dataclass(frozen=True)
class _Call:
    """A call that is ready to run."""

    script: ExecutionScript
    environ: dict[str, str]
    agent_state: Any


class WasmToolSandbox(AsyncToolSandboxBase):
    """Runs a tool in a fresh CPython on WASI, inside this process.

    Args: as `AsyncToolSandboxBase`, and
        limits: what the run may use; the defaults of `Limits` if not given.
    """

    def __init__(
        self,
        tool_name: str,
        args: Mapping[str, Any],
        user: Any,
        tool_id: str | None,
        agent_id: str | None = None,
        project_id: str | None = None,
        tool_object: Tool | None = None,
        sandbox_config: SandboxConfig | None = None,
        sandbox_env_vars: Mapping[str, str] | None = None,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(
            tool_name,
            args,
            user,
            tool_id,
            agent_id,
            project_id,
            tool_object,
            sandbox_config,
            sandbox_env_vars,
        )
        self.limits = limits or Limits()

    async def run(
        self, agent_state: Any = None, additional_env_vars: Mapping[str, str] | None = None
    ) -> ToolExecutionResult:
        """Run the tool on a guest thread; the event loop stays free.

        Cancelling the task stops the guest within 50 milliseconds.

        Args:
            agent_state: a pydantic model, a dataclass or a mapping, for a tool that takes ``agent_state``.
            additional_env_vars: variables that win over all stored ones.

        Returns:
            The result, whatever the tool did.

        Raises:
            ValueError: there is no such tool.
            InvalidEnvironment: an environment variable is not usable.
            HostError: this host cannot run guests; the message says what to do.
        """
        await self._init_async()
        environ = await self._gather_env_vars(agent_state, additional_env_vars, self._config_id, is_local=False)
        call = self._prepare(agent_state, environ)
        if isinstance(call, ToolExecutionResult):
            return call
        future, cancel = self._start(call)
        try:
            outcome = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            cancel()
            raise
        return self._interpret(call, outcome)

    def run_sync(
        self, agent_state: Any = None, additional_env_vars: Mapping[str, str] | None = None
    ) -> ToolExecutionResult:
        """`run` for callers without an event loop, and for those inside one; it blocks the calling thread.

        ``KeyboardInterrupt`` stops the guest and goes on to the caller. Raises as `run`.
        """
        self._init_from_tool()
        call = self._prepare(agent_state, self._environment(agent_state, additional_env_vars, {}))
        if isinstance(call, ToolExecutionResult):
            return call
        future, cancel = self._start(call)
        try:
            return self._interpret(call, _wait(future))
        except BaseException:
            cancel()
            raise

    @property
    def _config_id(self) -> str | None:
        return self.provided_sandbox_config.id if self.provided_sandbox_config else None

    @property
    def _fingerprint(self) -> str | None:
        return self.provided_sandbox_config.fingerprint() if self.provided_sandbox_config else None

    def _prepare(self, agent_state: Any, environ: dict[str, str]) -> _Call | ToolExecutionResult:
        """The call, or the result that refuses it."""
        try:
            script = self._script(agent_state, markers=True)
        except (BadArguments, UnsupportedToolError) as error:
            refusal = ToolError(kind=ErrorKind.BAD_ARGUMENTS, message=str(error), exception_name=type(error).__name__)
            return failed_before_running(self.tool_name, refusal, self._fingerprint)
        return _Call(script, environ, agent_state)

    def _start(self, call: _Call) -> tuple[Future[Outcome], Callable[[], None]]:
        """Start the guest: a future of its outcome, and how to stop it."""
        from wasm_sandbox.guest.engine import process_engine
        from wasm_sandbox.guest.request import ExecutionRequest
        from wasm_sandbox.guest.wasi import LiveSurroundings

        request = ExecutionRequest(
            call.script.text,
            call.environ,
            self.limits,
            tool_name=f"{self.tool_name}.py",
            tool_first_line=call.script.tool_first_line,
            tool_line_count=call.script.tool_line_count,
        )
        surroundings = LiveSurroundings()
        return process_engine().start(request, surroundings), surroundings.cancel

    def _interpret(self, call: _Call, outcome: Outcome) -> ToolExecutionResult:
        return interpret(
            outcome,
            self.limits,
            self.tool_name,
            marker=self.LOCAL_SANDBOX_RESULT_START_MARKER,
            agent_state=call.agent_state,
            injects_agent_state=call.script.injects_agent_state,
            fingerprint=self._fingerprint,
        )


def _wait(future: Future[Outcome]) -> Outcome:
    while True:
        try:
            return future.result(timeout=INTERRUPT_POLL_SECONDS)
        except FutureTimeout:
            if future.done():
                raise


def run_tool(
    tool: Tool | Callable[..., Any],
    args: Mapping[str, Any] | None = None,
    *,
    user: Any = None,
    tool_id: str | None = None,
    agent_id: str | None = None,
    project_id: str | None = None,
    sandbox_config: SandboxConfig | None = None,
    sandbox_env_vars: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    agent_state: Any = None,
    additional_env_vars: Mapping[str, str] | None = None,
) -> ToolExecutionResult:
    """Run a function or a `Tool` in the sandbox and wait for its result.

    A function is taken by its source (`Tool.from_function`): it must not use names from outside itself.

    Args: as `WasmToolSandbox` and its `run`.

    Returns:
        The result, whatever the tool did.

    Raises: as `WasmToolSandbox.run`, and
        ToolSourceError: the function's source cannot be had.
    """
    tool_object = tool if isinstance(tool, Tool) else Tool.from_function(tool)
    sandbox = WasmToolSandbox(
        tool_object.name,
        args or {},
        user,
        tool_id,
        agent_id,
        project_id,
        tool_object,
        sandbox_config,
        sandbox_env_vars,
        limits,
    )
    return sandbox.run_sync(agent_state, additional_env_vars)
