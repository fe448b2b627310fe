"""Back-ends that run nothing, for the tests of what every back-end shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wasm_sandbox import AsyncToolSandboxBase, ToolExecutionResult


class IdleSandbox(AsyncToolSandboxBase):
    """Answers with the environment that it would have run with."""

    async def run(
        self, agent_state: Any = None, additional_env_vars: Mapping[str, str] | None = None
    ) -> ToolExecutionResult:
        """Gather as a back-end does, and run nothing."""
        await self._init_async()
        config = await self._configuration()
        environ = await self._gather_env_vars(agent_state, additional_env_vars, config.id if config else None, False)
        return ToolExecutionResult(status="success", func_return=environ)


class NotebookSandbox(IdleSandbox):
    """A back-end that can await at the top level."""

    def use_top_level_await(self) -> bool:
        """It can."""
        return True
