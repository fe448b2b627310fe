"""Clients of the SDK, each on an event loop of its own, for tests that wait."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp_types import CallToolResult

R = TypeVar("R")
WAIT_SECONDS = 60


class Conversation:
    """Connection of a client, as long as its block lasts.

    Args:
        server: what `Client` takes.
        options: options of `Client`.
    """

    def __init__(self, server: Any, **options: Any) -> None:
        self._client = Client(server, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._over = asyncio.Event()
        self._connected: Future[None] = Future()

    def __enter__(self) -> Conversation:
        self._thread.start()
        self._life = asyncio.run_coroutine_threadsafe(self._live(), self._loop)
        self._life.add_done_callback(self._failed)
        self._connected.result(WAIT_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._life.result(WAIT_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_SECONDS)
        self._loop.close()

    async def _live(self) -> None:
        async with self._client:
            self._connected.set_result(None)
            await self._over.wait()

    def _failed(self, life: Future[None]) -> None:
        if not self._connected.done():
            self._connected.set_exception(life.exception() or AssertionError("it ended"))

    def begin(self, work: Coroutine[Any, Any, R]) -> Future[R]:
        """Begin work on the client's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, tool: str, arguments: dict[str, Any] | None = None, **options: Any) -> CallToolResult:
        """Call a tool, and wait for its result."""
        return self.begin(self._client.call_tool(tool, arguments, **options)).result(WAIT_SECONDS)

    def begin_call(self, tool: str, arguments: dict[str, Any]) -> Future[CallToolResult]:
        """Call a tool; cancelling the future takes the call back."""
        return self.begin(self._client.call_tool(tool, arguments))

    def run(self, code: str, **arguments: Any) -> Any:
        """Structured result of some code."""
        return self.call("run_python", {"code": code, **arguments}).structured_content

    def tools(self) -> dict[str, Any]:
        """Name of each tool -> the tool."""
        return {tool.name: tool for tool in self.begin(self._client.list_tools()).result(WAIT_SECONDS).tools}


def text_of(result: CallToolResult) -> str:
    """Text of a result, as a model reads it."""
    return "\n".join(part.text for part in result.content if part.type == "text")


def command(*options: str) -> StdioServerParameters:
    """The server as an agent starts it."""
    return StdioServerParameters(
        command=sys.executable, args=["-m", "wasm_sandbox", "mcp", *options], env=dict(os.environ)
    )


@contextmanager
def http_server(*options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server over HTTP in a process of its own: its address, and the process."""
    arguments = [sys.executable, "-m", "wasm_sandbox", "mcp", "--http", "--port", "0", *options]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if "listening at " in line:
                    yield line.rpartition(" ")[2].strip(), process
                    return
            raise AssertionError(f"the server ended with exit code {process.wait()}")
        finally:
            process.terminate()
            process.stderr.read()
