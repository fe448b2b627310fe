"""What every back-end of the execution script shares: look-up, script, environment."""

from __future__ import annotations

import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from wasm_sandbox.config import SandboxConfig
from wasm_sandbox.environment import merge_environment
from wasm_sandbox.frame import MARKER
from wasm_sandbox.results import ToolExecutionResult
from wasm_sandbox.script import (
    RESULT_VAR_NAME,
    ExecutionScript,
    detect_async,
    generate_script,
    parse_function_arguments,
)
from wasm_sandbox.tool import Tool


class AsyncToolSandboxBase(ABC):
    """One call of one tool by one user; a subclass says in `run` where the script is executed.

    Args:
        tool_name: name under which the tool is looked up when no ``tool_object`` is given.
        args: argument name -> JSON value; kept by reference, never changed.
        user: the acting user; its ``organization_id``, if any, scopes the look-ups.
        tool_id: the tool's id, shown to the tool as ``LETTA_TOOL_ID``.
        agent_id: the agent's id, shown to the tool as ``LETTA_AGENT_ID``.
        project_id: the project's id, shown to the tool as ``LETTA_PROJECT_ID``.
        tool_object: the tool itself.
        sandbox_config: where its variables and fingerprint come from.
        sandbox_env_vars: environment variables instead of the stored ones of the configuration.
    """

    NAMESPACE: ClassVar[uuid.UUID] = uuid.NAMESPACE_DNS
    LOCAL_SANDBOX_RESULT_START_MARKER: ClassVar[bytes] = MARKER
    LOCAL_SANDBOX_RESULT_VAR_NAME: ClassVar[str] = RESULT_VAR_NAME

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

    async def _init_async(self) -> None:
        """Look the tool up and look at its source, once per object; a failed attempt may be repeated.

        Raises:
            ValueError: there is no such tool.
        """
        self._init_from_tool()

    def _init_from_tool(self) -> Tool:
        if self.tool is None:
            organization = getattr(self.user, "organization_id", None)
            raise ValueError(
                f"Agent attempted to invoke tool {self.tool_name} that does not exist for organization {organization}"
            )
        if not self._initialized:
            names = self._parameter_names(self.tool)
            self.inject_agent_state = "agent_state" in names
            self.inject_agent_id = "agent_id" in names
            self.is_async_function = self._detect_async_function()
            self._initialized = True
        return self.tool

    @staticmethod
    def _parameter_names(tool: Tool) -> list[str]:
        try:
            return parse_function_arguments(tool.source_code, tool.name)
        except (SyntaxError, ValueError):
            return []  # the guest reports it, with the tool's own line

    def _detect_async_function(self) -> bool:
        return self.tool is not None and detect_async(self.tool.source_code, self.tool.name)

    def use_top_level_await(self) -> bool:
        """Whether the executor can await at the script's top level; by default it cannot."""
        return False

    async def generate_execution_script(self, agent_state: Any, wrap_print_with_markers: bool = False) -> str:
        """The execution script for this call.

        Args:
            agent_state: a pydantic model, a dataclass, a mapping or None; shipped only to a tool that takes it.
            wrap_print_with_markers: whether the script writes the framed result to stdout, or ends in an
                expression whose value is the pickled result in base64.

        Raises:
            BadArguments: an argument or the agent state cannot be handed to the tool.
            ValueError: there is no such tool.
        """
        await self._init_async()
        return self._script(agent_state, wrap_print_with_markers).text

    def _script(self, agent_state: Any, markers: bool) -> ExecutionScript:
        return generate_script(
            self._init_from_tool(),
            self.args,
            agent_state=agent_state,
            agent_id=self.agent_id,
            markers=markers,
            top_level_await=self.use_top_level_await(),
            marker=self.LOCAL_SANDBOX_RESULT_START_MARKER,
        )

    async def _gather_env_vars(
        self,
        agent_state: Any,
        additional_env_vars: Mapping[str, Any] | None,
        sbx_id: str | None,
        is_local: bool,
    ) -> dict[str, str]:
        """The variables for the guest; a later layer wins, and a final value of ``None`` drops its name.

        Layers: the host's environment (only if ``is_local``), the sandbox's variables, the agent's secrets,
        ``additional_env_vars``, the ids of agent, project and tool.

        Raises:
            InvalidEnvironment: a name or a value is not usable; names the variable, never its value.
        """
        return self._environment(agent_state, additional_env_vars, dict(os.environ) if is_local else {})

    def _environment(
        self, agent_state: Any, additional: Mapping[str, Any] | None, host: Mapping[str, str]
    ) -> dict[str, str]:
        ids = {"LETTA_TOOL_ID": self.tool_id}
        if self.agent_id:
            ids["LETTA_AGENT_ID"] = self.agent_id
        if self.project_id:
            ids["LETTA_PROJECT_ID"] = self.project_id
        return merge_environment(host, self.provided_sandbox_env_vars, _agent_variables(agent_state), additional, ids)

    @abstractmethod
    async def run(
        self, agent_state: Any = None, additional_env_vars: Mapping[str, str] | None = None
    ) -> ToolExecutionResult:
        """Run the tool and return its result."""


def _agent_variables(agent_state: Any) -> Mapping[str, Any]:
    """The agent's own variables, from the method that agent states have for them."""
    gather = getattr(agent_state, "get_agent_env_vars_as_dict", None)
    return gather() if callable(gather) else {}
