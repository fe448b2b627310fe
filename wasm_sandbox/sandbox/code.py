"""Code of a user's own: one run of it, from text and inputs to a `CodeResult`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from wasm_sandbox import images
from wasm_sandbox.decode.cells import interpret_cell
from wasm_sandbox.engine import live_script
from wasm_sandbox.environment import merge_environment
from wasm_sandbox.errors import BadArguments, pass_on
from wasm_sandbox.events import mark
from wasm_sandbox.files import check_files
from wasm_sandbox.functions import Functions, RunCalls
from wasm_sandbox.limits import Limits
from wasm_sandbox.options import RunOptions, check_network
from wasm_sandbox.outcome import Outcome
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.results import CodeResult, ErrorKind, tool_error
from wasm_sandbox.sandbox.executors import request_of, start_guest
from wasm_sandbox.sandbox.hosting import calls_of, with_calls
from wasm_sandbox.sandbox.streams import Events, events_of, listeners, told
from wasm_sandbox.sandbox.waiting import result_of, result_of_async
from wasm_sandbox.script.cells import cell_script

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from wasm_sandbox.images import Image


@dataclass(frozen=True)
class CodeRun:
    """Run of code that is ready to begin.

    Attributes:
        request: script and limits; its peer is `calls`.
        calls: calls of host functions.
        image: image to run it in; None for the default one.
        options: options of the run, checked.
        events: what is told of it, if anybody listens.
    """

    request: ExecutionRequest
    calls: RunCalls
    image: Image | None
    options: RunOptions
    events: Events | None = None

    def start(self, abandoned: Callable[[], bool] | None = None) -> tuple[Future[Outcome], Callable[[], None]]:
        """Start the guest: a future of its outcome, and a function that stops it."""
        source = self.image.source if self.image else None
        return start_guest(self.request, self.options["isolation"], abandoned, source)

    def result(self, outcome: Outcome, quick: bool = False) -> CodeResult:
        """Interpret the outcome; see `interpret_cell`."""
        with mark("interpret"):
            return with_calls(interpret_cell(outcome, self.request.limits, quick=quick), self.calls)


def prepare_code(
    code: str,
    inputs: Mapping[str, Any] | None,
    functions: Functions,
    options: RunOptions,
    loop: AbstractEventLoop | None = None,
    events: Events | None = None,
) -> CodeRun | CodeResult:
    """Prepare a run of code.

    Args:
        code: Python source.
        inputs: name of a variable -> its value.
        functions: host functions.
        options: options of the run, checked.
        loop: event loop of the caller, if it has one that is free.
        events: what is told of the run while it goes on; by default what the option ``on_event`` asks for.

    Returns:
        The run; or, if an input is refused, the result that says so.

    Raises:
        TypeError: if the code is no text, or the inputs are no mapping.
        SandboxError: if an option is refused, of the classes that `WasmToolSandbox.run` raises.
    """
    limits = cast(Limits, options["limits"])
    if events is None:
        events = events_of(options)
    given = check_files(options["files"], options["mounts"], limits)
    environ = merge_environment(options["env"])
    image = None if options["image"] is None else images.choose_image(options["image"], None, may_build=False)
    check_network(options["network"], image is None or image.has_own_guest)
    try:
        preamble = "" if image is None or image.has_own_guest else live_script()
        script = cell_script(code, inputs, functions.names if functions else None, preamble=preamble)
    except BadArguments as error:
        pass_on(error)
        return told(refused(error), events)
    calls = calls_of(functions, options, loop, **listeners(events))
    if events is not None and calls.network is not None:
        events.scrub = calls.network.scrub
    if events is not None and script.call:
        events.expect_no_frame()
    request = request_of(script, environ, limits, calls, given=given, tap=events)
    return CodeRun(request, calls, image, options, events)


def refused(error: BadArguments) -> CodeResult:
    """Result of code that was not run."""
    failure = tool_error(ErrorKind.BAD_ARGUMENTS, str(error), exception_name=type(error).__name__)
    return CodeResult.model_construct(status="error", error=failure, stdout=[], stderr=[], displays=[], calls=[])


def run(prepared: CodeRun | CodeResult) -> CodeResult:
    """Run code and wait for its result; an exception of the caller's stops the guest."""
    if isinstance(prepared, CodeResult):
        return prepared
    return result_of(prepared)


async def run_async(prepared: CodeRun | CodeResult) -> CodeResult:
    """Run code as `run`, with the event loop free; cancelling the task stops the guest."""
    if isinstance(prepared, CodeResult):
        return prepared
    return await result_of_async(prepared)
