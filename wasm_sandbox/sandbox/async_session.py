"""`AsyncSession`: a session whose calls are awaited; its host functions run on the caller's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar, Unpack

from wasm_sandbox.decode.interpret import QUICK_BYTES, size_of
from wasm_sandbox.functions import RunCalls
from wasm_sandbox.options import RunOptions
from wasm_sandbox.outcome import Outcome
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.results import Call, CodeResult, ToolExecutionResult
from wasm_sandbox.sandbox.session import Paused, Session, SessionPoint, Steps, check_set, given_up, value_got, variable
from wasm_sandbox.sandbox.waiting import delivered
from wasm_sandbox.script.arguments import is_quickly_written
from wasm_sandbox.tool.definition import Tool

S = TypeVar("S")
T = TypeVar("T")


class AsyncSession:
    """Guest that stays, as `Session`, awaited. Made by `AsyncSandbox.session`.

    Cancelling a task stops the guest, and takes the session back to what it was before that call.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, or its time is over."""
        return self._session.is_closed

    async def run_code(
        self, code: str, inputs: Mapping[str, Any] | None = None, **overrides: Unpack[RunOptions]
    ) -> CodeResult:
        """Run a cell; see `Session.run_code`."""
        loop = asyncio.get_running_loop()
        steps = self._session.cell_steps(code, inputs, overrides, False, loop)
        found = await self._done(steps, is_quick=is_quickly_written(inputs))
        assert isinstance(found, CodeResult)
        return found

    async def start(
        self, code: str, inputs: Mapping[str, Any] | None = None, **overrides: Unpack[RunOptions]
    ) -> CodeResult | AsyncPaused:
        """Run a cell that may be paused; see `Session.start`."""
        loop = asyncio.get_running_loop()
        steps = self._session.cell_steps(code, inputs, overrides, True, loop)
        return wrapped(await self._done(steps, is_quick=is_quickly_written(inputs)))

    async def run_tool(
        self,
        tool: Tool | Callable[..., Any],
        args: Mapping[str, Any] | None = None,
        agent_state: Any = None,
        **overrides: Unpack[RunOptions],
    ) -> ToolExecutionResult:
        """Run a tool in the session's guest; see `Session.run_tool`."""
        loop = asyncio.get_running_loop()
        steps = self._session.tool_steps(tool, args, agent_state, overrides, loop)
        return await self._done(steps, is_quick=is_quickly_written(args, agent_state))

    async def set(self, **values: Any) -> None:
        """Set variables; see `Session.set`."""
        check_set(await self.run_code("", values))

    async def get(self, name: str) -> Any:
        """Value of a variable; see `Session.get`."""
        return value_got(name, await self.run_code(variable(name)))

    async def _done(self, steps: Steps[S], paused: Paused | None = None, *, is_quick: bool = True) -> S:
        """Take the steps of a call, and await the guest between them; the first one aside if it is not quick."""
        session = self._session
        await session.lock_async()
        with session.using(paused, is_held=True):
            begun = _begun(steps) if is_quick else await asyncio.to_thread(_begun, steps)
            if isinstance(begun, _End):
                return begun.value
            outcome = await self._outcome(*begun)
            if size_of(outcome) <= QUICK_BYTES:
                return _result(steps, outcome)
            decoding = asyncio.ensure_future(asyncio.to_thread(_result, steps, outcome))
            try:
                return await asyncio.shield(decoding)
            except asyncio.CancelledError:
                await _ended(decoding)  # it changes what the session knows of itself: no other call before that
                session.give_up()
                raise

    async def _outcome(self, request: ExecutionRequest, calls: RunCalls) -> Outcome:
        call = self._session.call(request.limits)
        try:
            return await delivered(self._session.begin(request, call))
        except BaseException:
            call.cancel()
            raise
        finally:
            await calls.settle_async()

    def fork(self) -> Opening:
        """Make another session that is what this one is now; see `Session.fork`. It is opened as the first one is."""
        return Opening(self._session.fork)

    async def checkpoint(self) -> SessionPoint:
        """Point to which `rollback` takes it back; see `Session.checkpoint`."""
        return await _on_a_thread(self._session.checkpoint)

    async def rollback(self, point: SessionPoint) -> None:
        """Take it back to a point; see `Session.rollback`."""
        await _on_a_thread(partial(self._session.rollback, point))

    async def dump(self, key: bytes | None = None) -> bytes:
        """Bytes of the session as it is; see `Session.dump`."""
        return await _on_a_thread(partial(self._session.dump, key))

    async def close(self) -> None:
        """Give its memory back; see `Session.close`."""
        await asyncio.to_thread(self._session.close)

    async def __aenter__(self) -> AsyncSession:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Opening:
    """Session that is about to be made: by ``await``, or for an ``async with`` block, which closes it.

    Args:
        make: makes it; called on a thread.
    """

    def __init__(self, make: Callable[[], Session]) -> None:
        self._make = make
        self._made: AsyncSession | None = None

    def __await__(self) -> Generator[Any, Any, AsyncSession]:
        return self._opened().__await__()

    async def _opened(self) -> AsyncSession:
        return AsyncSession(await _on_a_thread(self._make))

    async def __aenter__(self) -> AsyncSession:
        self._made = await self._opened()
        return self._made

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._made is not None:
            await self._made.close()


class AsyncPaused:
    """Program that waits for answers, as `Paused`, awaited."""

    def __init__(self, paused: Paused) -> None:
        self._paused = paused

    @property
    def calls(self) -> list[Call]:
        """Calls that it waits for; each has an ``id``."""
        return self._paused.calls

    @property
    def session(self) -> AsyncSession:
        """Session that it runs in."""
        return AsyncSession(self._paused.session)

    @property
    def stdout(self) -> list[str]:
        """What it printed since it was started or resumed."""
        return self._paused.stdout

    @property
    def stderr(self) -> list[str]:
        """What it wrote to standard error since then."""
        return self._paused.stderr

    @property
    def displays(self) -> list[dict[str, str | bytes]]:
        """What it showed since then."""
        return self._paused.displays

    async def resume(self, answers: Mapping[int, Any]) -> CodeResult | AsyncPaused:
        """Go on with answers; see `Paused.resume`."""
        paused = self._paused
        steps = paused.session.resume_steps(paused, paused.checked(answers), asyncio.get_running_loop())
        return wrapped(await AsyncSession(paused.session)._done(steps, paused))

    async def fork(self) -> AsyncPaused:
        """Make another program that waits for the same; see `Paused.fork`."""
        return AsyncPaused(await _on_a_thread(self._paused.fork))

    async def dump(self, key: bytes | None = None) -> bytes:
        """Bytes of the program as it waits; see `Paused.dump`."""
        return await _on_a_thread(partial(self._paused.dump, key))


@dataclass(frozen=True)
class _End(Generic[S]):
    """End of a call before it came to a guest."""

    value: S


async def _on_a_thread(act: Callable[[], T]) -> T:
    """Do something with a session on a thread; if it is cancelled before its turn has come it does not happen."""
    event, context = threading.Event(), contextvars.copy_context()
    context.run(given_up.set, event)
    try:
        return await asyncio.get_running_loop().run_in_executor(None, context.run, act)
    except BaseException:
        event.set()
        raise


async def _ended(future: asyncio.Future[Any]) -> None:
    """Wait for the end of what cannot be stopped, also while cancelled again."""
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])


def _begun(steps: Steps[S]) -> tuple[ExecutionRequest, RunCalls] | _End[S]:
    try:
        return next(steps)
    except StopIteration as end:
        return _End(end.value)


def _result(steps: Steps[S], outcome: Outcome) -> S:
    try:
        steps.send(outcome)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # of this call's type
    raise AssertionError("a call has one guest")


def wrapped(found: CodeResult | Paused) -> CodeResult | AsyncPaused:
    """A result as it is; a paused program to be awaited."""
    return AsyncPaused(found) if isinstance(found, Paused) else found
