"""Who makes the calls of a service: what it hands each one to, and its own way, in one sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, StrictStr

from wasm_sandbox import AsyncSandbox, CodeResult, Tool, ToolExecutionResult
from wasm_sandbox.mcp.answers import Refused
from wasm_sandbox.mcp.sessions import Sessions
from wasm_sandbox.mcp.tokens import NOBODY, OWNER
from wasm_sandbox.stores import LocalUser

Scope = Mapping[str, Any]
"""Scope of the HTTP request that a call came with; empty over stdio."""


MAX_CODE_CHARACTERS = 1_000_000

SessionName = Annotated[StrictStr, Field(pattern=r"^[\w.-]{1,64}$")]


class Program(BaseModel):
    """Arguments of ``run_python``."""

    model_config = ConfigDict(extra="forbid")

    code: Annotated[StrictStr, Field(max_length=MAX_CODE_CHARACTERS)]
    inputs: dict[str, Any] | None = None
    session: SessionName | None = None
    image: Annotated[StrictStr, Field(max_length=200)] | None = None


class Calls(Protocol):
    """Maker of the calls of a service. What it refuses is `Refused`; a call that nobody waits for is cancelled."""

    def box(self, scope: Scope) -> AsyncSandbox:
        """Sandbox that a client is told of."""

    async def images(self, scope: Scope) -> Sequence[str | None]:
        """Names of images that a client may choose of, and None if it need not; empty if there is no choice."""

    async def run_code(self, scope: Scope, program: Program, **more: Any) -> tuple[CodeResult, bool]:
        """Result of a program, and whether its session began with it."""

    async def run_tool(
        self, scope: Scope, tool: Tool, args: dict[str, Any], user: LocalUser, **more: Any
    ) -> ToolExecutionResult:
        """Result of a stored tool."""

    async def reset(self, scope: Scope, session: str) -> None:
        """Forget a session, and stop what runs in it."""

    async def warm(self) -> None:
        """Load what the first call would wait for."""

    async def close(self) -> None:
        """Close all sessions, and stop what runs in them."""


class BoxCalls:
    """Calls in one sandbox.

    Args:
        box: sandbox of all runs.
        max_sessions: most sessions of one owner at the same time.
        idle_seconds: seconds after its last call at which a session is closed.
    """

    def __init__(self, box: AsyncSandbox, *, max_sessions: int = 16, idle_seconds: float = 900.0) -> None:
        self._box, self.sessions = box, Sessions(box, max_sessions, idle_seconds)

    def box(self, scope: Scope) -> AsyncSandbox:
        """The one sandbox."""
        return self._box

    async def images(self, scope: Scope) -> Sequence[str | None]:
        """No choice."""
        return ()

    async def run_code(self, scope: Scope, program: Program, **more: Any) -> tuple[CodeResult, bool]:
        """Run a program.

        Raises:
            Refused: if there are too many sessions, or it was reset meanwhile.
            SandboxError: if it cannot be run.
        """
        code, inputs, session = program.code, program.inputs, program.session
        if program.image is not None:
            raise Refused("bad_arguments", "run_python: image: there is no choice of images here")
        if session is None:
            return await self._box.run_code(code, inputs, **more), False
        return await self.sessions.run(_owner(scope), session, lambda kept: kept.run_code(code, inputs, **more))

    async def run_tool(
        self, scope: Scope, tool: Tool, args: dict[str, Any], user: LocalUser, **more: Any
    ) -> ToolExecutionResult:
        """Run a stored tool, with the variables stored for it.

        Raises:
            SandboxError: if it cannot be run.
        """
        return await self._box.run_tool(tool, args, user=user, tool_id=tool.id, **more)

    async def reset(self, scope: Scope, session: str) -> None:
        """Forget a session.

        Raises:
            Refused: if there is none of the name.
        """
        await self.sessions.reset(_owner(scope), session)

    async def warm(self) -> None:
        """Load the image.

        Raises:
            SandboxError: if nothing can be run.
        """
        await self._box.run_code("None")

    async def close(self) -> None:
        """Close all sessions."""
        await self.sessions.close()


def _owner(scope: Scope) -> str:
    """Whose sessions a request may use: its token's, or those of all who have none."""
    return str(scope.get(OWNER, NOBODY))
