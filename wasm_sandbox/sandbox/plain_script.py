"""Run of a script that is no tool: any Python source, with output and exit code instead of a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wasm_sandbox.decode.cells import interpret_cell
from wasm_sandbox.decode.frame import MARKER
from wasm_sandbox.decode.interpret import framed_output, interpret
from wasm_sandbox.engine import live_script, wait_for
from wasm_sandbox.errors import naming_exhaustion
from wasm_sandbox.files import GivenFiles
from wasm_sandbox.functions import Functions, RunCalls
from wasm_sandbox.limits import Limits
from wasm_sandbox.network import Network
from wasm_sandbox.options import Isolation, checked
from wasm_sandbox.outcome import Ending, Outcome
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.results import CodeResult, ErrorKind, ToolExecutionResult, tool_error
from wasm_sandbox.sandbox.executors import environ_of, request_of, start_guest
from wasm_sandbox.sandbox.hosting import calls_of, with_calls
from wasm_sandbox.script.cells import cell_script

if TYPE_CHECKING:
    from wasm_sandbox.engine import ImageSource


@dataclass(frozen=True)
class Output:
    """Result with its raw output."""

    result: ToolExecutionResult
    stdout: bytes
    stderr: bytes
    has_value: bool = True
    """Whether a run that succeeded has a value to show; a script without a framed result has none."""
    code: CodeResult | None = None
    """Result with the value of the last expression, if that was asked for."""

    @classmethod
    def of(cls, result: ToolExecutionResult) -> Output:
        """Take the output from the result of a tool itself."""
        return cls(result, "".join(result.stdout or []).encode(), "".join(result.stderr or []).encode())


@naming_exhaustion()
def run_script(
    text: str,
    *,
    name: str,
    environ: Mapping[str, str],
    limits: Limits,
    given: GivenFiles | None = None,
    source: ImageSource | None = None,
    isolation: Isolation = "thread",
    network: Network | None = None,
) -> Output:
    """Run a script and wait for its end; what a signal handler raises stops the guest.

    Args:
        text: the script.
        name: file name of the script in tracebacks.
        environ: whole environment of the guest.
        limits: limits of the run.
        given: files and mounts, if there are any.
        source: source of the image to run it in; by default the default image.
        isolation: executor of the guest.
        network: what it may reach, if anything.

    Returns:
        The output, and a result whose value is that of a framed result, if the script wrote one.

    Raises:
        UnsupportedIsolation: if a worker process cannot do what is asked for.
        HostError: if this host cannot run guests; the message says what to do.
        InvalidNetwork: if the network is not for such a run.
    """
    calls = _calls(limits, network) if network is not None else None
    environ = environ_of(environ, calls)
    request = ExecutionRequest(
        text, environ, limits, script_name=name, given=given, peer=calls, has_network=calls is not None
    )
    outcome = _outcome_of(request, isolation, source)
    output = framed_output(outcome, limits)
    result = interpret(outcome, limits, name, output=output)
    has_frame = output.payload is not None or output.damage is not None
    if not has_frame and outcome.ending is Ending.EXITED and outcome.exception is None:
        result = _without_value(result, outcome)
    if calls is not None:
        result = with_calls(result, calls)
    stdout, stderr = _shown(output.text[: limits.output_bytes], calls), _shown(outcome.stderr, calls)
    return Output(result, stdout, stderr, has_frame)


@naming_exhaustion()
def run_program(
    text: str,
    *,
    name: str,
    environ: Mapping[str, str],
    limits: Limits,
    inputs: Mapping[str, Any] | None = None,
    given: GivenFiles | None = None,
    source: ImageSource | None = None,
    has_own_guest: bool = True,
    isolation: Isolation = "thread",
    network: Network | None = None,
) -> Output:
    """Run a script as `run_script`, and take the value of its last expression.

    Args:
        text: the script; one that writes a framed result of its own is run as by `run_script`.
        name: as of `run_script`.
        environ: as of `run_script`.
        limits: as of `run_script`.
        inputs: name of a variable that the script finds -> its value.
        given: as of `run_script`.
        source: as of `run_script`.
        has_own_guest: whether the image is of our own guest, which knows how to do it.
        isolation: as of `run_script`.
        network: as of `run_script`.

    Raises:
        BadArguments: if an input cannot be handed over.
        UnsupportedIsolation: as `run_script`.
        HostError: as `run_script`.
    """
    if not inputs and repr(MARKER) in text:
        return run_script(
            text,
            name=name,
            environ=environ,
            limits=limits,
            given=given,
            source=source,
            isolation=isolation,
            network=network,
        )
    script = cell_script(text, inputs, name=name, preamble="" if has_own_guest else live_script())
    calls = _calls(limits, network)
    request = request_of(script, environ, limits, calls, given=given)
    outcome = _outcome_of(request, isolation, source)
    code = with_calls(interpret_cell(outcome, limits, may_exit=True), calls)
    output = framed_output(outcome, limits)
    result = ToolExecutionResult.model_construct(**{name: getattr(code, name) for name in _SHARED})
    if output.payload is None and output.damage is None and outcome.ending is Ending.EXITED:
        result = _without_value(result, outcome)
    stdout, stderr = _shown(output.text[: limits.output_bytes], calls), _shown(outcome.stderr, calls)
    return Output(result, stdout, stderr, False, code)


_SHARED = ("status", "stdout", "stderr", "files", "error", "usage", "calls", "connections", "requests")
"""Fields that results of code and of tools have both."""


def _calls(limits: Limits, network: Network | None) -> RunCalls:
    """The other end of the channel of a guest that calls no functions."""
    return calls_of(Functions(), checked({"limits": limits, "network": network}))


def _shown(data: bytes, calls: RunCalls | None) -> bytes:
    """Output without the values of secrets."""
    return data if calls is None or calls.network is None else calls.network.scrub_bytes(data)


def _outcome_of(request: ExecutionRequest, isolation: Isolation, source: ImageSource | None) -> Outcome:
    future, cancel = start_guest(request, isolation, source=source)
    try:
        return wait_for(future)
    except BaseException:
        cancel()
        raise


def _without_value(result: ToolExecutionResult, outcome: Outcome) -> ToolExecutionResult:
    """Result by the exit code, for a script that ended by itself without a framed result."""
    if outcome.exit_code == 0:
        return result.model_copy(
            update={"status": "success", "func_return": None, "error": None, "files": outcome.files}
        )
    message = f"the script ended with exit code {outcome.exit_code}"
    error = tool_error(ErrorKind.TOOL_EXCEPTION, message, exception_name="SystemExit")
    return result.model_copy(update={"func_return": message, "error": error})
