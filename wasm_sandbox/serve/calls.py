"""Calls: admitted, counted, charged, and stopped when nobody waits for them any more."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request

from wasm_sandbox import AsyncSandbox, CodeResult, Limits, Tool, ToolExecutionResult
from wasm_sandbox.serve.admission import Admission
from wasm_sandbox.serve.bodies import Bodies, until_hung_up
from wasm_sandbox.serve.metrics import ABANDONED, Metrics
from wasm_sandbox.serve.settings import Settings
from wasm_sandbox.serve.shapes import FreshShape
from wasm_sandbox.serve.tokens import DEFAULT_IMAGE, Client
from wasm_sandbox.serve.visits import Visit, visit_of

Result = CodeResult | ToolExecutionResult
R = TypeVar("R", CodeResult, ToolExecutionResult)

KEPT_TOOLS = 256
KEPT_SOURCE_CHARACTERS = 16 << 10


@dataclass
class Call:
    """Call that is to be made.

    Attributes:
        name: one of `metrics.CALLS`.
        image: name of its image, None for the default one.
        limits: its limits.
    """

    name: str
    image: str | None
    limits: Limits


class Tools:
    """Tools of sources that were read lately: reading one takes as long as running it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str | None], Tool] = OrderedDict()

    async def read(self, source: str, name: str | None) -> Tool:
        """Tool of a source.

        Raises:
            ToolSourceError: if no tool can be made of it.
        """
        key = source, name
        if (found := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
            return found
        tool = await asyncio.to_thread(Tool.from_source, source, name)
        if len(source) <= KEPT_SOURCE_CHARACTERS:
            self._kept[key] = tool
            while len(self._kept) > KEPT_TOOLS:
                self._kept.popitem(last=False)
        return tool


class Desk:
    """What all handlers share.

    Args:
        settings: settings of the server.
        admission: places for calls.
        metrics: metrics.
    """

    def __init__(self, settings: Settings, admission: Admission, metrics: Metrics) -> None:
        self.settings, self.admission, self.metrics = settings, admission, metrics
        self.bodies, self.tools = Bodies(settings), Tools()

    def box(self, client: Client, shape: FreshShape) -> tuple[AsyncSandbox, Limits]:
        """Sandbox of a request, and the limits of its calls.

        Raises:
            Problem: if the client may not have the image or the limits.
            SandboxError: if an option is wrong.
        """
        return self.box_of(client, shape.image, client.within(shape.limits), env=shape.env, files=shape.files)

    def box_of(self, client: Client, image: str | None, limits: Limits, **options: Any) -> tuple[AsyncSandbox, Limits]:
        """Sandbox of an image; arguments and errors are those of `box`."""
        client.check_image(image)
        chosen = None if image == DEFAULT_IMAGE else image
        box = AsyncSandbox(image=chosen, limits=limits, isolation=self.settings.isolation, **options)
        return box, limits

    async def run(self, request: Request, call: Call, work: Callable[[], Awaitable[R]]) -> R:
        """Make a call as soon as there is a place for it; nobody's is stopped.

        Raises:
            Problem: if it is not admitted.
            HungUp: if the client hung up.
            SandboxError: if the run cannot be made.
        """

        async def admitted() -> R:
            async with self.counted(visit_of(request), call) as counted:
                result = counted.result = await work()
                return result

        return await until_hung_up(request, admitted())

    @asynccontextmanager
    async def counted(self, visit: Visit, call: Call) -> AsyncIterator[Counted]:
        """Place for a call, which is counted and charged at its end, also if nobody waits for that.

        Raises:
            Problem: if it is not admitted.
        """
        client, counted = visit.client, Counted()
        self.admission.check()
        client.check_budget()
        asked = time.monotonic()
        async with self.admission.place(client):
            client.check_budget()  # other calls may have used it up
            began = time.monotonic()
            self.metrics.waited(began - asked)
            try:
                yield counted
            except (asyncio.CancelledError, GeneratorExit):
                self._end(visit, call, counted.result, time.monotonic() - began)
                raise
            self._end(visit, call, counted.result, time.monotonic() - began)

    def _end(self, visit: Visit, call: Call, result: Result | None, seconds: float) -> None:
        usage = None if result is None else result.usage
        self.metrics.ended(call.name, call.image, result)
        is_over = result is not None and usage is None  # refused before a guest was made
        fuel = 0 if is_over else usage.fuel if usage is not None else None
        visit.client.charge(fuel, call.limits, seconds)
        visit.fuel = fuel
        visit.outcome = ABANDONED if result is None else "success" if result.error is None else str(result.error.kind)


class Counted:
    """Call that has a place; whoever makes it sets its ``result``."""

    result: Result | None = None
