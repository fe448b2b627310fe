"""The sandbox: a tool call in, a result out, by way of script, guest and frame."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from wasm_sandbox.config import SandboxConfig
from wasm_sandbox.decode.interpret import failed_before_running, interpret, tool_file_name
from wasm_sandbox.errors import PackageError
from wasm_sandbox.files import GivenFiles, HostDir, check_files
from wasm_sandbox.images.image import Image
from wasm_sandbox.limits import Limits
from wasm_sandbox.results import ErrorKind, ToolError, ToolExecutionResult
from wasm_sandbox.sandbox.base import AsyncToolSandboxBase
from wasm_sandbox.sandbox.executors import Isolation, check_isolation, start_guest
from wasm_sandbox.script.arguments import BadArguments, ValuesApart
from wasm_sandbox.script.generate import ExecutionScript, UnsupportedToolError
from wasm_sandbox.tool.definition import Tool
from wasm_sandbox.tracing import trace_method, traced

if TYPE_CHECKING:
    from wasm_sandbox.outcome import Outcome

INLINE_BYTES = 64 << 10
"""Standard output up to this size is interpreted on the event loop: tens of milliseconds at the very worst."""


class _Call(NamedTuple):
    """A call that is ready to run."""

    script: ExecutionScript
    environ: dict[str, str]
    agent_state: Any
    fingerprint: str | None
    image: Image | None
    given: GivenFiles | None


class WasmToolSandbox(AsyncToolSandboxBase):
    """Runs a tool in a fresh CPython on WASI, inside this process.

    Args: as `AsyncToolSandboxBase`, and
        limits: what the run may use, `Limits` or a mapping of its fields; the defaults if not given.
        image: the image to run in, or its name; by default that of the configuration, else one that
            was built for just the ``pip_requirements`` of the tool, else the default image.
        files: absolute path -> content, for a file system in memory that the tool can read and write; ``{}`` for
            an empty one. What the tool leaves changed there is in the result's ``files``.
        mounts: absolute path -> `HostDir`, a directory of the host that the tool may see, through wasmtime's WASI.
            With neither, there is no file system at all.
        build_images: whether an image that meets the tool's ``pip_requirements`` is built when there is none: that
            downloads what the tool asks for, and takes a minute. Otherwise the tool is refused, with the
            command that builds it.
        isolation: where the guest runs, on a ``"thread"`` of this process or in a ``"process"`` of a pool, which
            runs the default image only and has no ``mounts``.

    Raises:
        UnsupportedIsolation: there is no such isolation, or a worker process cannot do what is asked for.
        ValueError: limits are out of range (`pydantic.ValidationError`).
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
        limits: Limits | Mapping[str, Any] | None = None,
        image: Image | str | None = None,
        files: Mapping[str, bytes] | None = None,
        mounts: Mapping[str, HostDir] | None = None,
        build_images: bool = False,
        isolation: Isolation = "thread",
    ) -> None:
        check_isolation(isolation, image=image, mounts=mounts)
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
        self.limits = Limits.default() if limits is None else Limits.model_validate(limits)
        self.image = image
        self.files = files
        self.mounts = mounts
        self.build_images = build_images
        self.isolation: Isolation = isolation

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
            ValueError: there is no such tool, or no organisation to look it up for.
            InvalidEnvironment: an environment variable is not usable.
            UnsupportedIsolation: the configuration names an image, and a worker process is to run the tool.
            InvalidFiles: files or mounts have a wrong path or content, are too large, or are not there.
            StoreError: the stored tools or variables cannot be read.
            ImageNotFound: there is no image of that name.
            HostError: this host cannot run guests; the message says what to do.
        """
        import asyncio  # a third of this library's own import time, and only needed here

        await self._init_async()
        config = await self._configuration()
        environ = await self._gather_env_vars(agent_state, additional_env_vars, _id_of(config), is_local=False)
        if self._has_default_image(config):
            call = self._prepare(agent_state, environ, config)
        else:  # files are read, perhaps packages downloaded
            call = await asyncio.to_thread(self._prepare, agent_state, environ, config)
        if isinstance(call, ToolExecutionResult):
            return call
        future, cancel = self._start(call, abandoned=asyncio.get_running_loop().is_closed)
        try:
            outcome = await _delivered(future)
        except BaseException:  # cancelled, or thrown away
            future.cancel()
            cancel()
            raise
        if len(outcome.stdout) > INLINE_BYTES:  # seconds, if a tool means it: not on the event loop
            return await asyncio.to_thread(self._interpret, call, outcome)
        return self._interpret(call, outcome)

    @trace_method
    def run_sync(
        self, agent_state: Any = None, additional_env_vars: Mapping[str, str] | None = None
    ) -> ToolExecutionResult:
        """`run` for callers without an event loop, and for those inside one; it blocks the calling thread.

        ``KeyboardInterrupt`` stops the guest and goes on to the caller. Raises as `run`.
        """
        self._init_sync()
        config = self._configuration_sync()
        environ = self._gather_env_vars_sync(agent_state, additional_env_vars, _id_of(config), is_local=False)
        call = self._prepare(agent_state, environ, config)
        if isinstance(call, ToolExecutionResult):
            return call
        from wasm_sandbox.engine.threads.guest_threads import wait_for

        future, cancel = self._start(call)
        try:
            return self._interpret(call, wait_for(future))
        except BaseException:
            cancel()
            raise

    def _prepare(
        self, agent_state: Any, environ: dict[str, str], config: SandboxConfig | None
    ) -> _Call | ToolExecutionResult:
        """The call, or the result that refuses it."""
        given = check_files(self.files, self.mounts, self.limits)
        fingerprint = config.fingerprint() if config else None
        try:
            with traced(self, self.generate_execution_script):
                script = self._script(agent_state, markers=True, apart=ValuesApart(self.limits.deterministic))
            image = None if self._has_default_image(config) else self._chosen_image(config)
            if image is not None and script.values and not image.has_own_guest:
                script = self._script(agent_state, markers=True)
        except (BadArguments, UnsupportedToolError, PackageError) as error:
            refusal = ToolError(kind=ErrorKind.BAD_ARGUMENTS, message=str(error), exception_name=type(error).__name__)
            return failed_before_running(self.tool_name, refusal, fingerprint)
        return _Call(script, environ, agent_state, fingerprint, image, given)

    def _has_default_image(self, config: SandboxConfig | None) -> bool:
        """Whether there is nothing to choose."""
        return self._named_image(config) is None and not getattr(self.tool, "pip_requirements", None)

    def _named_image(self, config: SandboxConfig | None) -> Image | str | None:
        """What was asked for by name. A configuration of an agent server's own may know no images."""
        return self.image or getattr(config, "image", None)

    def _chosen_image(self, config: SandboxConfig | None) -> Image | None:
        """The image to run in; raises as `choose_image`."""
        from wasm_sandbox.images.selection import choose_image

        requirements = getattr(self.tool, "pip_requirements", None)
        image, only_default = self._named_image(config), self.isolation == "process"
        check_isolation(self.isolation, image=image)
        return choose_image(image, requirements, may_build=self.build_images, only_default=only_default)

    def _start(
        self, call: _Call, abandoned: Callable[[], bool] | None = None
    ) -> tuple[Future[Outcome], Callable[[], None]]:
        """Start the guest: a future of its outcome, and how to stop it."""
        from wasm_sandbox.request import ExecutionRequest

        request = ExecutionRequest(
            call.script.text,
            call.environ,
            self.limits,
            tool_name=tool_file_name(self.tool_name),
            tool_first_line=call.script.tool_first_line,
            tool_line_count=call.script.tool_line_count,
            given=call.given,
            values=call.script.values,
        )
        return start_guest(request, self.isolation, abandoned, call.image.source if call.image else None)

    def _interpret(self, call: _Call, outcome: Outcome) -> ToolExecutionResult:
        return interpret(
            outcome,
            self.limits,
            self.tool_name,
            marker=self.LOCAL_SANDBOX_RESULT_START_MARKER,
            agent_state=call.agent_state,
            injects_agent_state=call.script.injects_agent_state,
            fingerprint=call.fingerprint,
            argument_lines=call.script.argument_lines,
        )


def _id_of(config: SandboxConfig | None) -> str | None:
    return config.id if config else None


def _delivered(future: Future[Outcome]) -> Awaitable[Outcome]:
    """`asyncio.wrap_future`, except that a loop closed meanwhile is no error in the guest's thread."""
    import asyncio

    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[Outcome] = loop.create_future()

    def deliver() -> None:
        if waiter.done() or future.cancelled():
            return
        if error := future.exception():
            waiter.set_exception(error)
        else:
            waiter.set_result(future.result())

    def notify(_: Future[Outcome]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(deliver)

    future.add_done_callback(notify)
    return waiter


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
    limits: Limits | Mapping[str, Any] | None = None,
    image: Image | str | None = None,
    files: Mapping[str, bytes] | None = None,
    mounts: Mapping[str, HostDir] | None = None,
    build_images: bool = False,
    isolation: Isolation = "thread",
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
        image,
        files,
        mounts,
        build_images,
        isolation,
    )
    return sandbox.run_sync(agent_state, additional_env_vars)
