"""`Sandbox` and `AsyncSandbox`: options once, for any number of tools and of code."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Unpack, cast

from wasm_sandbox.functions import Functions
from wasm_sandbox.limits import Limits
from wasm_sandbox.options import CallOptions, RunOptions, checked
from wasm_sandbox.results import CodeResult, ToolExecutionResult
from wasm_sandbox.sandbox.code import CodeRun, prepare_code, run, run_async
from wasm_sandbox.sandbox.hosting import functions_of
from wasm_sandbox.sandbox.session import (
    IDLE_SECONDS,
    LIFETIME_SECONDS,
    Paused,
    Session,
    load_paused,
    load_session,
)
from wasm_sandbox.sandbox.streams import AsyncEventStream, Events, EventStream
from wasm_sandbox.sandbox.wasm import WasmToolSandbox, as_tool, run_tool
from wasm_sandbox.script.arguments import is_quickly_written
from wasm_sandbox.tool.definition import Tool

if TYPE_CHECKING:
    from wasm_sandbox.sandbox.async_session import AsyncPaused, Opening


class _Box:
    """Options, checked; immutable, cheap, and shared by threads. Nothing is started before the first run.

    Args:
        options: `RunOptions`.

    Raises:
        TypeError: if there is no option of a name, or a host function is not callable.
        UnsupportedIsolation: if there is no such isolation, or a worker process cannot do what is asked for.
        ValueError: if limits are out of range (`pydantic.ValidationError`), or a host function cannot be offered.
    """

    __slots__ = ("_functions", "_given_functions", "_options")

    _functions: Functions
    _given_functions: Any
    _options: RunOptions

    def __init__(self, **options: Unpack[RunOptions]) -> None:
        settled = checked(options)
        functions = functions_of(settled["functions"], self.run_function_tool)
        object.__setattr__(self, "_functions", functions)
        object.__setattr__(self, "_given_functions", settled["functions"])
        object.__setattr__(self, "_options", MappingProxyType({**settled, "functions": functions}))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a {type(self).__name__} is immutable: make another one")

    @property
    def options(self) -> RunOptions:
        """Options, checked and read-only."""
        return self._options

    @property
    def functions(self) -> Functions:
        """Host functions; ``stubs()`` and ``schemas()`` are for prompts."""
        return self._functions

    def __reduce__(self) -> Any:
        """Parts of a pickle: the options as they were given; an image goes by its content hash.

        Raises:
            TypeError: if an option cannot be pickled; the message names it.
        """
        parts = {**self._options, "functions": self._given_functions}
        _check_picklable(type(self).__name__, parts)
        return _remade, (type(self), parts)

    def run_function_tool(self, tool: Tool, args: Mapping[str, Any]) -> ToolExecutionResult:
        """Run a tool that a guest calls as a host function: in the same image, with none itself."""
        options: dict[str, Any] = {**self._options, "functions": None, "gate": None, "on_event": None}
        return run_tool(tool, args, **options)

    def _merged(self, overrides: Mapping[str, Any]) -> tuple[Functions, RunOptions]:
        if not overrides:
            return self._functions, self._options
        options = checked(cast(RunOptions, {**self._options, **overrides}))
        if "functions" not in overrides:
            return self._functions, options
        return functions_of(overrides["functions"], self.run_function_tool), options

    def _tool_options(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        return {**self._options, **overrides}


def _remade(kind: type[_Box], options: dict[str, Any]) -> _Box:
    return kind(**options)


def _check_picklable(kind: str, options: Mapping[str, Any]) -> None:
    """Refuse an option that cannot be pickled, for the pickler's own message names no option.

    Where a cloudpickle is loaded, as in Dask, Ray and joblib, it may be the pickler that asks, and can do more than
    the standard one: then it is left to it.

    Raises:
        TypeError: if one cannot be.
    """
    if any(name.rpartition(".")[2] == "cloudpickle" for name in [*sys.modules]):
        return
    for name, value in options.items():
        try:
            pickle.dumps(value)
        except Exception as error:
            raise TypeError(
                f"a {kind} with this option {name!r} cannot be pickled ({error}): use functions and classes that a "
                f"module defines at its top level, or leave {name!r} out"
            ) from error


class Sandbox(_Box):
    __doc__ = f"Sandbox of certain options, for tools and for code.\n{(_Box.__doc__ or '').partition(chr(10))[2]}"

    __slots__ = ()

    def run_tool(
        self,
        tool: Tool | Callable[..., Any],
        args: Mapping[str, Any] | None = None,
        agent_state: Any = None,
        **overrides: Unpack[CallOptions],
    ) -> ToolExecutionResult:
        """Run a tool, as `wasm_sandbox.run_tool` with the options of this sandbox, of which ``overrides`` win."""
        options = cast(CallOptions, self._tool_options(overrides))
        return run_tool(tool, args, agent_state=agent_state, **options)

    def run_code(
        self, code: str, inputs: Mapping[str, Any] | None = None, **overrides: Unpack[RunOptions]
    ) -> CodeResult:
        """Run a Python program in a fresh guest.

        Args:
            code: Python source; it may ``await`` at its top level.
            inputs: name of a variable that the program finds -> its value: plain data, dates, decimals, models ...
            overrides: options that win over those of this sandbox.

        Returns:
            The result, whatever the program did; its ``value`` is that of the last expression.

        Raises:
            TypeError: if the code is no text, the inputs are no mapping, or there is no option of a name.
            SandboxError: if the run cannot be made, of the classes that `WasmToolSandbox.run` raises.
            ValueError: if limits are out of range.
        """
        functions, options = self._merged(overrides)
        return run(prepare_code(code, inputs, functions, options))

    def session(self, *, idle_seconds: float = IDLE_SECONDS, lifetime_seconds: float = LIFETIME_SECONDS) -> Session:
        """Make a session: a guest that stays, whose state is kept from call to call.

        Args:
            idle_seconds: time after its last call at which it is closed.
            lifetime_seconds: time after its making at which it is closed.

        Raises:
            SessionError: if there are as many in this process as there may be.
            UnsupportedIsolation: if the image is none of our own guest, or there are mounts.
            HostError: if the image cannot be loaded.
        """
        return Session(self, idle_seconds=idle_seconds, lifetime_seconds=lifetime_seconds)

    def load_session(
        self,
        blob: bytes,
        key: bytes | None = None,
        *,
        idle_seconds: float = IDLE_SECONDS,
        lifetime_seconds: float = LIFETIME_SECONDS,
    ) -> Session:
        """Make a session that is what another one was at its `Session.dump`.

        Args:
            blob: its bytes, which may come from anywhere: they can harm the session's own guest, and nothing else.
            key: key that they were signed with, if they were.
            idle_seconds: as of `session`.
            lifetime_seconds: as of `session`.

        Raises:
            SnapshotError: if they are damaged, of another image, beyond the limits, or not signed with the key.
        """
        return load_session(self, blob, key, idle_seconds=idle_seconds, lifetime_seconds=lifetime_seconds)

    def load_paused(
        self,
        blob: bytes,
        key: bytes | None = None,
        *,
        idle_seconds: float = IDLE_SECONDS,
        lifetime_seconds: float = LIFETIME_SECONDS,
    ) -> Paused:
        """Make a program that waits as it did at its `Paused.dump`; from the same bytes as often as wanted.

        Arguments and errors are those of `load_session`.
        """
        return load_paused(self, blob, key, idle_seconds=idle_seconds, lifetime_seconds=lifetime_seconds)

    def stream_code(
        self, code: str, inputs: Mapping[str, Any] | None = None, **overrides: Unpack[RunOptions]
    ) -> EventStream:
        """Run a program as `run_code`, and iterate over what it does: the result comes in the last event.

        The guest is started by the first step, and stopped when the iterator is left. If events are taken more slowly
        than they come, the guest waits, and its deadline runs on.

        Raises:
            TypeError: if there is no option of a name, or ``on_event`` is given.
            ValueError: if limits are out of range. The iterator raises what `run_code` raises.
        """
        functions, options = self._merged(_streamed(overrides, self._options))
        return EventStream(
            cast(Limits, options["limits"]),
            lambda events: prepare_code(code, inputs, functions, options, events=events),
        )

    def stream_tool(
        self,
        tool: Tool | Callable[..., Any],
        args: Mapping[str, Any] | None = None,
        agent_state: Any = None,
        **overrides: Unpack[CallOptions],
    ) -> EventStream:
        """Run a tool as `run_tool`, and iterate over what it does, as `stream_code`."""
        sandbox, additional = _tool_sandbox(tool, args, self._tool_options(_streamed(overrides, self._options)))
        return EventStream(sandbox.limits, lambda events: sandbox.streamed(agent_state, additional, events))


class AsyncSandbox(_Box):
    __doc__ = f"Sandbox of certain options, awaited.\n{(_Box.__doc__ or '').partition(chr(10))[2]}"

    __slots__ = ()

    async def run_tool(
        self,
        tool: Tool | Callable[..., Any],
        args: Mapping[str, Any] | None = None,
        agent_state: Any = None,
        **overrides: Unpack[CallOptions],
    ) -> ToolExecutionResult:
        """Run a tool as `Sandbox.run_tool`; the event loop stays free, and cancelling the task stops the guest."""
        sandbox, additional = _tool_sandbox(tool, args, self._tool_options(overrides))
        return await sandbox.run(agent_state, additional)

    async def run_code(
        self, code: str, inputs: Mapping[str, Any] | None = None, **overrides: Unpack[RunOptions]
    ) -> CodeResult:
        """Run a program as `Sandbox.run_code`; the event loop stays free, and async host functions run on it."""
        import asyncio  # lazy: 20 ms, only for async callers

        functions, options = self._merged(overrides)
        loop = asyncio.get_running_loop()
        if options["image"] is None and is_quickly_written(inputs):
            return await run_async(prepare_code(code, inputs, functions, options, loop))
        prepared = await asyncio.to_thread(prepare_code, code, inputs, functions, options, loop)
        return await run_async(prepared)

    def session(self, *, idle_seconds: float = IDLE_SECONDS, lifetime_seconds: float = LIFETIME_SECONDS) -> Opening:
        """Make a session; see `Sandbox.session`. It is an ``async with`` block's, or awaited and closed by hand."""
        from wasm_sandbox.sandbox.async_session import Opening  # lazy: it imports asyncio

        return Opening(lambda: Session(self, idle_seconds=idle_seconds, lifetime_seconds=lifetime_seconds))

    def load_session(
        self,
        blob: bytes,
        key: bytes | None = None,
        *,
        idle_seconds: float = IDLE_SECONDS,
        lifetime_seconds: float = LIFETIME_SECONDS,
    ) -> Opening:
        """Make a session out of bytes; see `Sandbox.load_session`. It is awaited, or an ``async with`` block's."""
        from wasm_sandbox.sandbox.async_session import Opening  # lazy: it imports asyncio

        seconds = {"idle_seconds": idle_seconds, "lifetime_seconds": lifetime_seconds}
        return Opening(lambda: load_session(self, blob, key, **seconds))

    async def load_paused(
        self,
        blob: bytes,
        key: bytes | None = None,
        *,
        idle_seconds: float = IDLE_SECONDS,
        lifetime_seconds: float = LIFETIME_SECONDS,
    ) -> AsyncPaused:
        """Make a program that waits out of bytes; see `Sandbox.load_paused`."""
        import asyncio  # lazy: 20 ms, only for async callers

        from wasm_sandbox.sandbox.async_session import AsyncPaused  # lazy: it imports asyncio

        seconds = {"idle_seconds": idle_seconds, "lifetime_seconds": lifetime_seconds}
        return AsyncPaused(await asyncio.to_thread(load_paused, self, blob, key, **seconds))

    def stream_code(
        self, code: str, inputs: Mapping[str, Any] | None = None, **overrides: Unpack[RunOptions]
    ) -> AsyncEventStream:
        """Run a program as `Sandbox.stream_code`: an async iterator over what it does."""
        functions, options = self._merged(_streamed(overrides, self._options))

        async def prepare(events: Events) -> CodeRun | CodeResult:
            import asyncio  # lazy: 20 ms, only for async callers

            loop = asyncio.get_running_loop()
            return await asyncio.to_thread(prepare_code, code, inputs, functions, options, loop, events)

        return AsyncEventStream(cast(Limits, options["limits"]), prepare)

    def stream_tool(
        self,
        tool: Tool | Callable[..., Any],
        args: Mapping[str, Any] | None = None,
        agent_state: Any = None,
        **overrides: Unpack[CallOptions],
    ) -> AsyncEventStream:
        """Run a tool as `Sandbox.stream_tool`: an async iterator over what it does."""
        sandbox, additional = _tool_sandbox(tool, args, self._tool_options(_streamed(overrides, self._options)))
        return AsyncEventStream(sandbox.limits, lambda events: sandbox.streamed_async(agent_state, additional, events))


def _streamed(overrides: Any, options: RunOptions) -> dict[str, Any]:
    """Overrides of a stream.

    Raises:
        TypeError: if there is an ``on_event`` besides.
    """
    if {**options, **overrides}.get("on_event") is not None:
        raise TypeError("a stream gives the events itself: leave out on_event")
    return dict(overrides)


def _tool_sandbox(
    tool: Tool | Callable[..., Any], args: Mapping[str, Any] | None, options: dict[str, Any]
) -> tuple[WasmToolSandbox, Mapping[str, str] | None]:
    """Sandbox of one call, and its own environment variables."""
    additional = options.pop("additional_env_vars", None)
    made = as_tool(tool, options.get("functions"))
    user, tool_id = options.pop("user", None), options.pop("tool_id", None)
    return WasmToolSandbox(made.name, args or {}, user, tool_id, tool_object=made, **options), additional


def run_code(code: str, inputs: Mapping[str, Any] | None = None, **options: Unpack[RunOptions]) -> CodeResult:
    """Run a Python program in a fresh guest and wait for its result; see `Sandbox.run_code`.

    Args:
        code: Python source; it may ``await`` at its top level.
        inputs: name of a variable that the program finds -> its value.
        options: `RunOptions`.
    """
    return Sandbox(**options).run_code(code, inputs)
