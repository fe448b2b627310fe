"""Base of every back-end of the execution script: look-up, script, environment."""

from __future__ import annotations

import contextlib
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from wasm_sandbox.config import SandboxConfig
from wasm_sandbox.decode.frame import MARKER, FramedOutput
from wasm_sandbox.decode.interpret import failed_before_running, interpret
from wasm_sandbox.directories import store_path
from wasm_sandbox.environment import agent_variables, merge_environment
from wasm_sandbox.errors import BadArguments, UnsupportedToolError, pass_on
from wasm_sandbox.events import mark
from wasm_sandbox.limits import Limits
from wasm_sandbox.outcome import Outcome
from wasm_sandbox.results import ErrorKind, ToolExecutionResult, tool_error
from wasm_sandbox.script.arguments import ValuesApart, is_quickly_written
from wasm_sandbox.script.generate import (
    RESULT_VAR_NAME,
    ExecutionScript,
    ToolReading,
    detect_async,
    generate_script,
    read_tool,
)
from wasm_sandbox.tool.definition import Tool
from wasm_sandbox.tool.source import is_quickly_read, read_source
from wasm_sandbox.tool.twins import async_twin
from wasm_sandbox.tracing import trace_method, traced

if TYPE_CHECKING:
    from wasm_sandbox.sandbox.script_end import ScriptEnd
    from wasm_sandbox.stores import SandboxConfigManager


@dataclass(frozen=True)
class PreparedCall:
    """Call that is ready: nothing is left to do but to execute its script.

    Attributes:
        script: execution script; ``script.text`` is the source.
        environ: whole environment to execute it with.
        agent_state: agent state as the caller passed it.
        fingerprint: fingerprint of the sandbox configuration, if there is one.
        has_markers: whether the script writes its result to stdout in a frame, or ends in an expression.
    """

    script: ExecutionScript
    environ: dict[str, str]
    agent_state: Any
    fingerprint: str | None
    has_markers: bool


class AsyncToolSandboxBase(ABC):
    """One call of one tool by one user; a subclass says in `run` where the script is executed.

    Args:
        tool_name: name under which the tool is looked up when no ``tool_object`` is given.
        args: argument name -> JSON value; kept by reference, never changed.
        user: the acting user; its ``organization_id`` scopes the look-ups. Without one nothing is looked up,
            so the tool itself must be given, and no stored variables are used.
        tool_id: the tool's id, shown to the tool as ``LETTA_TOOL_ID``.
        agent_id: the agent's id, shown to the tool as ``LETTA_AGENT_ID``.
        project_id: the project's id, shown to the tool as ``LETTA_PROJECT_ID``.
        tool_object: the tool itself.
        sandbox_config: configuration with the variables and the fingerprint; by default the stored one of
            ``sandbox_type``, if there is one.
        sandbox_env_vars: variables instead of the stored ones of the configuration; an empty mapping for none.
    """

    NAMESPACE: ClassVar[uuid.UUID] = uuid.NAMESPACE_DNS
    LOCAL_SANDBOX_RESULT_START_MARKER: ClassVar[bytes] = MARKER
    LOCAL_SANDBOX_RESULT_VAR_NAME: ClassVar[str] = RESULT_VAR_NAME

    sandbox_type: ClassVar[str] = "local"
    """Type of the stored configuration that is used when none is given."""

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
    ) -> None:
        self.tool_name = tool_name
        self.args = args
        self.user = user
        self.tool_id = tool_id
        self.agent_id = agent_id
        self.project_id = project_id
        self.tool: Tool | None = tool_object
        self.provided_sandbox_config = sandbox_config
        self.provided_sandbox_env_vars = sandbox_env_vars
        self.inject_agent_state = False
        self.inject_agent_id = False
        self.inject_letta_client = True
        self.is_async_function = False
        self._initialized = False
        self._reading: tuple[Tool, ToolReading] | None = None
        self._sandbox_config_manager: SandboxConfigManager | None = None

    @property
    def sandbox_config_manager(self) -> SandboxConfigManager:
        """Store of configurations and their variables, made on first access."""
        if self._sandbox_config_manager is None:
            from wasm_sandbox.stores import SandboxConfigManager  # lazy: only where something is stored

            self._sandbox_config_manager = SandboxConfigManager()
        return self._sandbox_config_manager

    def _init_sync(self) -> None:
        """Look the tool up and read its source, once per object; a failed attempt may be repeated.

        Raises:
            ValueError: if there is no such tool, or no organisation to look it up for.
            StoreError: if the store of tools cannot be used.
        """
        if self.tool is None:
            from wasm_sandbox.stores import ToolManager  # lazy: only for a tool that is looked up

            self.tool = ToolManager().get_tool_by_name(tool_name=self.tool_name, actor=self.user)
        tool = self._init_from_tool()
        with contextlib.suppress(UnsupportedToolError):  # it belongs to the script, which comes to it again
            if self._reading is None or self._reading[0] is not tool:
                self._reading = tool, read_tool(tool, self.args if isinstance(self.args, Mapping) else {})

    _init_async = async_twin(_init_sync, "_init_async", lambda self: self._init_blocks)

    @property
    def _init_blocks(self) -> bool:
        """Whether looking the tool up, or reading its source or its schema, may take long."""
        if self.tool is None or getattr(self.tool, "args_json_schema", None):
            return True
        source, name = getattr(self.tool, "source_code", None), getattr(self.tool, "name", None)
        return isinstance(source, str) and isinstance(name, str) and not is_quickly_read(source, name)

    def _init_from_tool(self) -> Tool:
        if self.tool is None:
            organization = getattr(self.user, "organization_id", None)
            raise ValueError(
                f"Agent attempted to invoke tool {self.tool_name} that does not exist for organization {organization}"
            )
        _check_has(self.tool, "tool_object", "Tool", ("name", "source_code", "json_schema", "args_json_schema"))
        if self.provided_sandbox_config is not None:
            _check_has(self.provided_sandbox_config, "sandbox_config", "SandboxConfig", ("id", "fingerprint"))
        if not self._initialized:
            source = read_source(self.tool.source_code, self.tool.name)
            # The script also injects by keyword, which the list of parameters does not show.
            names = [*(source.parameter_names or ()), *source.injected]
            self.inject_agent_state = "agent_state" in names
            self.inject_agent_id = "agent_id" in names
            self.is_async_function = self._detect_async_function()
            self._initialized = True
        return self.tool

    def _detect_async_function(self) -> bool:
        return self.tool is not None and detect_async(self.tool.source_code, self.tool.name)

    def use_top_level_await(self) -> bool:
        """Whether the executor can await at the script's top level; by default it cannot."""
        return False

    @trace_method
    async def generate_execution_script(self, agent_state: Any, wrap_print_with_markers: bool = False) -> str:
        """Generate the execution script of this call.

        Args:
            agent_state: a pydantic model, a dataclass, a mapping or None; passed only to a tool that takes it.
            wrap_print_with_markers: whether the script writes the framed result to stdout, or ends in an
                expression whose value is the pickled result in base64.

        Raises:
            BadArguments: if an argument or the agent state cannot be passed to the tool.
            UnsupportedToolError: if no script can be written for the tool.
            ValueError: if there is no such tool, or no organisation to look it up for.
            StoreError: if the store of tools cannot be used.
        """
        await self._init_async()
        return self._script(agent_state, wrap_print_with_markers).text

    def _script(
        self, agent_state: Any, markers: bool, apart: ValuesApart | None = None, releases: bool = False
    ) -> ExecutionScript:
        if not isinstance(self.args, Mapping):
            raise TypeError(f"args must map argument names to values, not be a {type(self.args).__name__}")
        for name in self.args:
            if not isinstance(name, str):
                raise TypeError(
                    f"args must map argument names to values; {name!r} is no name but {type(name).__name__}"
                )
        with mark("script"):
            tool = self._init_from_tool()
            return generate_script(
                tool,
                self.args,
                agent_state=agent_state,
                agent_id=self.agent_id,
                markers=markers,
                top_level_await=self.use_top_level_await(),
                marker=self.LOCAL_SANDBOX_RESULT_START_MARKER,
                apart=apart,
                functions=self._function_names,
                releases=releases,
                reading=self._reading[1] if self._reading is not None and self._reading[0] is tool else None,
            )

    @property
    def _function_names(self) -> frozenset[str] | None:
        """Names of host functions; None if there are none, as in other back-ends."""
        return None

    def _configuration_sync(self) -> SandboxConfig | None:
        """Configuration that was given, else the stored one of ``sandbox_type``, if any; nothing is created."""
        if self.provided_sandbox_config is not None or not self._has_store:
            return self.provided_sandbox_config
        return self.sandbox_config_manager.get_sandbox_config_by_type(self.sandbox_type, self.user)

    _configuration = async_twin(_configuration_sync, "_configuration", lambda self: self._has_store)

    def _gather_env_vars_sync(
        self,
        agent_state: Any,
        additional_env_vars: Mapping[str, Any] | None,
        sbx_id: str | None,
        is_local: bool,
    ) -> dict[str, str]:
        """Merge the variables for the guest; a later layer wins, and a final value of ``None`` drops its name.

        Layers: the host's environment (only if ``is_local``), the variables given to the constructor or, if none
        were given, the stored ones of the configuration ``sbx_id``, the agent's secrets,
        ``additional_env_vars``, the ids of agent, project and tool.

        Raises:
            InvalidEnvironment: if a name or a value is not usable; names the variable, never its value.
            ValueError: if ``sbx_id`` is no id of a configuration.
            StoreError: if the stored variables cannot be read.
        """
        variables = self.provided_sandbox_env_vars
        if variables is None and sbx_id is not None and self._has_store:
            variables = self.sandbox_config_manager.get_sandbox_env_vars_as_dict(sbx_id, self.user)
        host = dict(os.environ) if is_local else {}
        ids = {"LETTA_TOOL_ID": self.tool_id}
        if self.agent_id:
            ids["LETTA_AGENT_ID"] = self.agent_id
        if self.project_id:
            ids["LETTA_PROJECT_ID"] = self.project_id
        return merge_environment(host, variables, agent_variables(agent_state), additional_env_vars, ids)

    _gather_env_vars = async_twin(_gather_env_vars_sync, "_gather_env_vars", lambda self: self._has_store)

    @property
    def _has_store(self) -> bool:
        """Whether something may be stored for the user; otherwise no store is made or even imported."""
        # Not Path.exists, which raises where the directory may not be read: then nothing is stored for this user.
        return bool(getattr(self.user, "organization_id", None)) and os.path.exists(store_path())

    async def prepare_call(
        self,
        agent_state: Any = None,
        additional_env_vars: Mapping[str, Any] | None = None,
        *,
        wrap_print_with_markers: bool = True,
    ) -> PreparedCall | ToolExecutionResult:
        """Prepare a call up to the execution of its script, for `run` of any back-end.

        Returns:
            The call; or, if the tool or its arguments are refused, the result that says so.

        Raises:
            ValueError: if there is no such tool, or no organisation to look it up for.
            InvalidEnvironment: if an environment variable is not usable.
            StoreError: if the stored tools or variables cannot be read.
        """
        await self._init_async()
        config = await self._configuration()
        environ = await self._gather_env_vars(agent_state, additional_env_vars, _id_of(config), is_local=False)
        return await self._prepared_off_loop(agent_state, environ, config, wrap_print_with_markers)

    def prepare_call_sync(
        self,
        agent_state: Any = None,
        additional_env_vars: Mapping[str, Any] | None = None,
        *,
        wrap_print_with_markers: bool = True,
    ) -> PreparedCall | ToolExecutionResult:
        """Prepare a call as `prepare_call`, for callers without an event loop."""
        self._init_sync()
        config = self._configuration_sync()
        environ = self._gather_env_vars_sync(agent_state, additional_env_vars, _id_of(config), is_local=False)
        return self._prepared(agent_state, environ, config, wrap_print_with_markers)

    def _prepared(
        self, agent_state: Any, environ: dict[str, str], config: SandboxConfig | None, markers: bool
    ) -> PreparedCall | ToolExecutionResult:
        """Generate the script; the call, or the result that refuses it."""
        fingerprint = config.fingerprint() if config else None
        try:
            with traced(self, self.generate_execution_script):
                script = self._script(agent_state, markers)
        except (BadArguments, UnsupportedToolError) as error:
            pass_on(error)
            return self.refused(error, fingerprint)
        return PreparedCall(script, environ, agent_state, fingerprint, markers)

    def _prepared_blocks(self, config: SandboxConfig | None) -> bool:
        """Whether `_prepared` would hold up an event loop for another reason than its values, as by reading files."""
        return False

    async def _prepared_off_loop(
        self, agent_state: Any, environ: dict[str, str], config: SandboxConfig | None, markers: bool
    ) -> PreparedCall | ToolExecutionResult:
        if is_quickly_written(self.args, agent_state) and not self._prepared_blocks(config):
            return self._prepared(agent_state, environ, config, markers)
        import asyncio  # lazy: 20 ms, only for async callers

        return await asyncio.to_thread(self._prepared, agent_state, environ, config, markers)

    def refused(self, error: Exception, fingerprint: str | None = None) -> ToolExecutionResult:
        """Result of a call whose tool or arguments were refused."""
        is_source = isinstance(error, UnsupportedToolError) and error.in_source
        kind = ErrorKind.SYNTAX_ERROR if is_source else ErrorKind.BAD_ARGUMENTS
        refusal = tool_error(kind, str(error), exception_name=type(error).__name__)
        return failed_before_running(self.tool_name, refusal, fingerprint)

    def _interpreted(
        self,
        call: PreparedCall,
        outcome: Outcome,
        limits: Limits,
        output: FramedOutput | None = None,
        quick: bool = False,
    ) -> ToolExecutionResult:
        """Interpret the outcome of a call's script.

        Raises:
            TakesLonger: if it was to be quick, for an event loop, and may not be.
        """
        with mark("interpret"):
            return interpret(
                outcome,
                limits,
                self.tool_name,
                marker=self.LOCAL_SANDBOX_RESULT_START_MARKER,
                agent_state=call.agent_state,
                injects_agent_state=call.script.injects_agent_state,
                fingerprint=call.fingerprint,
                argument_lines=call.script.argument_lines,
                output=output,
                quick=quick,
            )

    def result_of(self, call: PreparedCall, end: ScriptEnd, limits: Limits | None = None) -> ToolExecutionResult:
        """Interpret an execution elsewhere, for `run` of another back-end.

        The result is read as carefully as a guest's: nothing in it is executed. It may be made to take seconds:
        code in an event loop calls this in a thread (``asyncio.to_thread``).

        Args:
            call: the call that `prepare_call` returned.
            end: end of its script.
            limits: limits, of which ``output_bytes`` and ``result_bytes`` are applied, and ``timeout_seconds`` is named
                if time was up.

        Returns:
            The result; its ``usage`` is ``None``, as nothing was measured.
        """
        from wasm_sandbox.sandbox.script_end import outcome_of, value_as_output  # lazy: for other back-ends only

        limits = limits or Limits.default()
        outcome = outcome_of(end, call.script, self.tool_name, limits.output_bytes)
        output = None if call.has_markers else value_as_output(end, limits.result_bytes)
        result = self._interpreted(call, outcome, limits, output)
        return result.model_copy(update={"usage": None})

    @abstractmethod
    async def run(
        self, agent_state: Any = None, additional_env_vars: Mapping[str, str] | None = None
    ) -> ToolExecutionResult:
        """Run the tool and return its result."""


def _id_of(config: SandboxConfig | None) -> str | None:
    return config.id if config else None


def _check_has(given: object, argument: str, kind: str, members: tuple[str, ...]) -> None:
    """Refuse an object without some members, and no other: agent servers have classes of their own for these."""
    missing = [name for name in members if not hasattr(given, name)]
    if missing:
        raise TypeError(f"{argument} must be a {kind}, not {type(given).__name__} (it lacks {', '.join(missing)})")
