"""The sandbox: a tool call in, a result out, by way of script, guest and frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Unpack, cast

from wasm_sandbox import images
from wasm_sandbox.config import SandboxConfig
from wasm_sandbox.decode.interpret import tool_file_name
from wasm_sandbox.environment import merge_environment
from wasm_sandbox.errors import BadArguments, PackageError, UnsupportedToolError, naming_exhaustion, pass_on
from wasm_sandbox.files import GivenFiles, check_files
from wasm_sandbox.limits import Limits
from wasm_sandbox.options import CallOptions, RunOptions, check_network, checked
from wasm_sandbox.outcome import Outcome
from wasm_sandbox.results import ToolExecutionResult
from wasm_sandbox.sandbox.base import AsyncToolSandboxBase, PreparedCall
from wasm_sandbox.sandbox.executors import request_of, start_guest
from wasm_sandbox.sandbox.waiting import result_of, result_of_async
from wasm_sandbox.script.arguments import ValuesApart
from wasm_sandbox.script.generate import ExecutionScript
from wasm_sandbox.tool.definition import Tool
from wasm_sandbox.tracing import trace_method, traced

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from wasm_sandbox.functions import Functions, RunCalls
    from wasm_sandbox.images import Image
    from wasm_sandbox.sandbox.streams import Events


@dataclass(frozen=True)
class _WasmCall(PreparedCall):
    """Call that is ready to run in a guest.

    Attributes:
        image: image to run in; None for the default one.
        given: files and mounts of the caller.
    """

    image: Image | None = None
    given: GivenFiles | None = None


class WasmToolSandbox(AsyncToolSandboxBase):
    """Sandbox that runs a tool in a fresh CPython on WASI, inside this process.

    The arguments are those of `AsyncToolSandboxBase`, and as keywords `RunOptions`.

    Raises:
        TypeError: if there is no option of a name.
        UnsupportedIsolation: if there is no such isolation, or a worker process cannot do what is asked for.
        ValueError: if limits are out of range (`pydantic.ValidationError`).
    """

    sandbox_type: ClassVar[str] = "wasm"

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
        **options: Unpack[RunOptions],
    ) -> None:
        self.options = checked(options)
        self._functions = _functions(self.options["functions"]) if self.options["functions"] else None
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

    @property
    def _function_names(self) -> frozenset[str] | None:
        return self._functions.names if self._functions else None

    @property
    def limits(self) -> Limits:
        """Limits of the run."""
        return cast(Limits, self.options["limits"])

    def __getattr__(self, name: str) -> Any:
        """Option of a name."""
        if name not in RunOptions.__annotations__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self.options[name]  # type: ignore[literal-required]  # it is one of its keys

    @trace_method
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
            ValueError: if there is no such tool, or no organisation to look it up for.
            InvalidEnvironment: if an environment variable is not usable.
            UnsupportedIsolation: if a worker process is to run the tool, and cannot run its image.
            InvalidFiles: if files or mounts have a wrong path or content, are too large, or are not there.
            StoreError: if the stored tools or variables cannot be read.
            ImageNotFound: if there is no image of that name.
            HostError: if this host cannot run guests; the message says what to do.
        """
        with naming_exhaustion():
            return await self._run(agent_state, additional_env_vars)

    async def _run(self, agent_state: Any, additional_env_vars: Mapping[str, str] | None) -> ToolExecutionResult:
        import asyncio  # lazy: 20 ms, only for async callers

        call = await self.prepare_call(agent_state, additional_env_vars)
        if isinstance(call, ToolExecutionResult):
            return call
        assert isinstance(call, _WasmCall)
        return await result_of_async(self._tool_run(call, self._events(), asyncio.get_running_loop()))

    @trace_method
    @naming_exhaustion()
    def run_sync(
        self, agent_state: Any = None, additional_env_vars: Mapping[str, str] | None = None
    ) -> ToolExecutionResult:
        """Run the tool as `run`, for callers without an event loop and for those inside one; it blocks the thread.

        Arguments, result and errors are those of `run`. Whatever a signal handler raises meanwhile, such as
        ``KeyboardInterrupt``, stops the guest and reaches the caller.
        """
        call = self.prepare_call_sync(agent_state, additional_env_vars)
        if isinstance(call, ToolExecutionResult):
            return call
        assert isinstance(call, _WasmCall)
        return result_of(self._tool_run(call, self._events()))

    def streamed(
        self, agent_state: Any, additional_env_vars: Mapping[str, str] | None, events: Events
    ) -> ToolRun | ToolExecutionResult:
        """Prepare a run whose events are taken; the result instead, if the tool is refused."""
        with naming_exhaustion():
            call = self.prepare_call_sync(agent_state, additional_env_vars)
        if isinstance(call, ToolExecutionResult):
            return call
        assert isinstance(call, _WasmCall)
        return self._tool_run(call, events)

    async def streamed_async(
        self, agent_state: Any, additional_env_vars: Mapping[str, str] | None, events: Events
    ) -> ToolRun | ToolExecutionResult:
        """Prepare a run as `streamed`, whose async host functions run on the event loop."""
        import asyncio  # lazy: 20 ms, only for async callers

        with naming_exhaustion():
            call = await self.prepare_call(agent_state, additional_env_vars)
        if isinstance(call, ToolExecutionResult):
            return call
        assert isinstance(call, _WasmCall)
        return self._tool_run(call, events, asyncio.get_running_loop())

    def _events(self) -> Events | None:
        """Events of the run, if somebody listens."""
        if self.options["on_event"] is None:
            return None
        from wasm_sandbox.sandbox.streams import events_of  # lazy: only for runs that are listened to

        return events_of(self.options)

    def _tool_run(self, call: _WasmCall, events: Events | None, loop: AbstractEventLoop | None = None) -> ToolRun:
        if not self._functions and events is None and self.options["network"] is None:
            return ToolRun(self, call)
        from wasm_sandbox.sandbox.hosting import calls_of  # lazy: only with host functions, a network, or listeners
        from wasm_sandbox.sandbox.streams import listeners  # lazy: as above

        functions = self._functions or _functions(None)
        calls = calls_of(functions, self.options, loop, **listeners(events))
        if events is not None and calls.network is not None:
            events.scrub = calls.network.scrub
        return ToolRun(self, call, calls, events)

    def _result(
        self, call: _WasmCall, calls: RunCalls | None, outcome: Outcome, quick: bool = False
    ) -> ToolExecutionResult:
        result = self._interpreted(call, outcome, self.limits, quick=quick)
        if calls is None or (not self._functions and calls.network is None):
            return result
        from wasm_sandbox.sandbox.hosting import with_calls  # lazy: as above

        return with_calls(result, calls)

    def _prepared(
        self, agent_state: Any, environ: dict[str, str], config: SandboxConfig | None, markers: bool
    ) -> PreparedCall | ToolExecutionResult:
        given = check_files(self.options["files"], self.options["mounts"], self.limits)
        fingerprint = config.fingerprint() if config else None
        try:
            with traced(self, self.generate_execution_script):
                script = self._script(agent_state, markers, ValuesApart(self.limits.deterministic) if markers else None)
            image = None if self._has_default_image(config) else self._chosen_image(config)
            check_network(self.options["network"], image is None or image.has_own_guest)
            if image is not None and script.values and not image.has_own_guest:
                script = self._script(agent_state, markers)
        except (BadArguments, UnsupportedToolError, PackageError) as error:
            pass_on(error)
            return self.refused(error, fingerprint)
        if self.options["env"]:
            environ = merge_environment(self.options["env"], environ)
        return _WasmCall(script, environ, agent_state, fingerprint, markers, image, given)

    def session_script(self, agent_state: Any) -> ExecutionScript:
        """Script of the call for the guest of a session, which gives the script's memory back.

        Raises:
            BadArguments: as `generate_execution_script`.
            UnsupportedToolError: as `generate_execution_script`.
        """
        return self._script(agent_state, True, ValuesApart(self.limits.deterministic), releases=True)

    def _prepared_blocks(self, config: SandboxConfig | None) -> bool:
        return not self._has_default_image(config)  # files are read, perhaps packages downloaded

    def _has_default_image(self, config: SandboxConfig | None) -> bool:
        """Whether the call runs in the default image."""
        return self._named_image(config) is None and not getattr(self.tool, "pip_requirements", None)

    def _named_image(self, config: SandboxConfig | None) -> object:
        """Image of the options, else of the configuration, which may be of an agent server's own and know none."""
        return self.options["image"] or getattr(config, "image", None)

    def _chosen_image(self, config: SandboxConfig | None) -> Image | None:
        """Choose the image to run in.

        Raises:
            ImageNotFound: if there is no image of the name.
            PackageError: if the tool's requirements are malformed or not met.
        """
        requirements = getattr(self.tool, "pip_requirements", None)
        return images.choose_image(self._named_image(config), requirements, may_build=self.options["build_images"])

    def _start(
        self,
        call: _WasmCall,
        calls: RunCalls | None,
        abandoned: Callable[[], bool] | None = None,
        events: Events | None = None,
    ) -> tuple[Future[Outcome], Callable[[], None]]:
        """Start the guest: a future of its outcome, and a function that stops it."""
        request = request_of(
            call.script,
            call.environ,
            self.limits,
            calls,
            tool_name=tool_file_name(self.tool_name),
            tool_first_line=call.script.tool_first_line,
            tool_line_count=call.script.tool_line_count,
            given=call.given,
            tap=events,
        )
        source = call.image.source if call.image else None
        return start_guest(request, self.options["isolation"], abandoned, source)


@dataclass(frozen=True)
class ToolRun:
    """Run of a tool that is ready to begin.

    Attributes:
        sandbox: its sandbox.
        call: the tool's call.
        calls: calls of host functions, if it may call any or somebody listens.
        events: what is told of it, if somebody listens.
    """

    sandbox: WasmToolSandbox
    call: _WasmCall
    calls: RunCalls | None = None
    events: Events | None = None

    def start(self, abandoned: Callable[[], bool] | None = None) -> tuple[Future[Outcome], Callable[[], None]]:
        """Start the guest: a future of its outcome, and a function that stops it."""
        return self.sandbox._start(self.call, self.calls, abandoned, self.events)

    def result(self, outcome: Outcome, quick: bool = False) -> ToolExecutionResult:
        """Interpret the outcome."""
        return self.sandbox._result(self.call, self.calls, outcome, quick=quick)


def as_tool(tool: Tool | Callable[..., Any], functions: Any = None) -> Tool:
    """A tool as it is; a function by its source (`Tool.from_function`), which may use these host functions."""
    if isinstance(tool, Tool):
        return tool
    return Tool.from_function(tool, _functions(functions).names if functions else ())


def _functions(given: Any) -> Functions:
    from wasm_sandbox.sandbox.hosting import functions_of  # lazy: only for runs with host functions

    return functions_of(given, _run_function_tool)


def _run_function_tool(tool: Tool, args: Mapping[str, Any]) -> ToolExecutionResult:
    """Run a tool that a guest calls as a host function."""
    return run_tool(tool, args)


@naming_exhaustion()
def run_tool(
    tool: Tool | Callable[..., Any],
    args: Mapping[str, Any] | None = None,
    *,
    agent_state: Any = None,
    **options: Unpack[CallOptions],
) -> ToolExecutionResult:
    """Run a function or a `Tool` in the sandbox and wait for its result.

    A function is taken by its source (`Tool.from_function`): it must not use names from outside itself.

    Args:
        tool: the tool.
        args: argument name -> JSON value.
        agent_state: a pydantic model, a dataclass or a mapping, for a tool that takes ``agent_state``.
        options: `RunOptions`, and the caller: ``user``, ``tool_id``, ``agent_id``, ``project_id``,
            ``sandbox_config``, ``sandbox_env_vars``, ``additional_env_vars`` (see `WasmToolSandbox`).

    Returns:
        The result, whatever the tool did.

    Raises:
        TypeError: if there is no option of a name.
        ToolSourceError: if the function's source cannot be found.
        SandboxError: if the run cannot be made, of the classes that `WasmToolSandbox.run` raises.
        ValueError: if limits are out of range, or there is no organisation to look something up for.
    """
    tool_object = as_tool(tool, options.get("functions"))
    chosen: dict[str, Any] = {**options}
    additional = chosen.pop("additional_env_vars", None)
    user, tool_id = chosen.pop("user", None), chosen.pop("tool_id", None)
    sandbox = WasmToolSandbox(tool_object.name, args or {}, user, tool_id, tool_object=tool_object, **chosen)
    return sandbox.run_sync(agent_state, additional)
