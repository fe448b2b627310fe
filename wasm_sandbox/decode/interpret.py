"""From the outcome of a run to the tool's result: the frame found, checked and decoded, errors named. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from wasm_sandbox.decode.frame import MARKER, FrameDamage, FramedOutput, Gap, head_bytes, split_frames
from wasm_sandbox.decode.pickle_decoder import DecodeLimits, decode_envelope
from wasm_sandbox.decode.plain_types import ADVICE, DecodeError, ForbiddenPickle
from wasm_sandbox.errors import pass_on
from wasm_sandbox.events import mark
from wasm_sandbox.limits import Limits
from wasm_sandbox.results import ErrorKind, ToolError, ToolExecutionResult, Usage, made, tool_error

if TYPE_CHECKING:
    from wasm_sandbox.outcome import Outcome

MAX_FRIENDLY_CHARACTERS = 1000
MAX_QUOTED_ERRORS = 20
KEPT_STATE_FIELDS = ("id", "secrets")
"""Of an agent state: a tool may read and change them, and what it changed is put back."""

_UNSET = frozenset({"calls", "connections", "requests", "rolled_back"})
_UNSET_USAGE = frozenset({"host_calls", "host_seconds", "host_bytes_in", "host_bytes_out"})

QUICK_BYTES = 16 << 10
"""Of output, and of an exception's report: so much is read in a few milliseconds, whatever it is."""
QUICK = DecodeLimits(max_items=4_000, max_expanded=32_000, max_int_bytes=1_024, max_copied_bytes=0)
"""Values that are decoded in a few milliseconds, whatever they are; what most tools return is far less."""

_OUTERMOST_FRAME = re.compile(
    r'Traceback \(most recent call last\):\n  File "script\.py", line (\d{1,9}), in <module>\n'
)
_SCRIPT_PLACE = re.compile(r" \(script\.py, line \d{1,9}\)$")
_FIRST_PLACE = re.compile(r'  File "([^"\n]{1,500})", line (\d{1,9})\n')
_NOTICE = b"Failed to serialize result with Pydantic wrapper: Error calling function `"
_LAST_PLACE = re.compile(r'^  File "([^"\n]{1,500})", line (\d{1,9})', re.MULTILINE)
_FATAL = re.compile(r"^(Fatal Python error: [^\n]{1,300})", re.MULTILINE)
_WORKER = "the worker process "
"""The engine's words begin with it where a worker ended instead of its guest (`workers.pool`)."""

_MORE_TIME = " Raise Limits.timeout_seconds, or do less in a run."
_RETURN_INSTEAD = "let it return instead of calling sys.exit or os._exit"
_LEAVE_THE_FRAME = "leave it to the script to write the result"
_PARSER_OVERFLOW = "Parser stack overflowed"
_COMPILER_ERRORS = {"SyntaxError", "IndentationError", "TabError", "RecursionError"}
MEMORY_ERRORS = {"MemoryError", "_ArrayMemoryError"}
"""Classes of exceptions that say that there is no memory: Python's, and numpy's."""
IN_IMAGES = dict.fromkeys(
    (
        "numpy",
        "pandas",
        "dateutil",
        "PIL",
        "matplotlib",
        "contourpy",
        "kiwisolver",
        "cycler",
        "pyparsing",
        "regex",
        "lxml",
        "orjson",
    ),
    "science",
)
"""Modules that the default image lacks -> image that has them, without anything being built."""
_NO_MODULE = re.compile(r"No module named '(\w{1,20})'")
_NOT_PICKLED = re.compile(
    r"maximum recursion depth exceeded while pickling|"
    r"[Cc]an(?:not|'t) pickle |Can't get local object |object async_generator can't be used in 'await'"
)
_NO_DATA = {
    "async_generator": "an async generator: return a list of its items",
    "SerializationIterator": "a generator or another iterator: return a list of its items",
    "coroutine": "a coroutine inside its value: await it",
}


class TakesLonger(Exception):
    """It is not certain that an outcome is interpreted in a few milliseconds."""


def friendly_error_message(function_name: str, exception_name: str, exception_message: str) -> str:
    """The text that a failed tool returns to its agent, at most 1,000 characters."""
    return f"Error executing function {function_name}: {exception_name}: {exception_message}"[:MAX_FRIENDLY_CHARACTERS]


def failed_before_running(tool_name: str, error: ToolError, fingerprint: str | None) -> ToolExecutionResult:
    """The result of a run that was refused before any guest was started."""
    return ToolExecutionResult.model_construct(
        status="error",
        func_return=friendly_error_message(tool_name, error.exception_name or error.kind, error.message),
        stdout=[],
        stderr=[],
        sandbox_config_fingerprint=fingerprint,
        error=error,
    )


def interpret(
    outcome: Outcome,
    limits: Limits,
    tool_name: str,
    *,
    marker: bytes = MARKER,
    agent_state: Any = None,
    injects_agent_state: bool = False,
    fingerprint: str | None = None,
    argument_lines: tuple[range, ...] = (),
    output: FramedOutput | None = None,
    quick: bool = False,
) -> ToolExecutionResult:
    """Turn an outcome into a result.

    Args:
        outcome: how the run ended, and its raw output.
        limits: the limits it ran with.
        tool_name: for the texts of errors.
        marker: what opens a frame.
        agent_state: what the caller passed; a pydantic model decides the class of what comes back.
        injects_agent_state: whether the tool was given the agent state. If not, none comes back.
        fingerprint: of the sandbox configuration.
        argument_lines: the lines of the script that check the arguments (`ExecutionScript.argument_lines`).
        output: standard output and the result, where that did not come in a frame.
        quick: whether an event loop waits: do it in a few milliseconds, or not at all.

    Raises:
        TakesLonger: if it was to be quick, and may not be.
    """
    if quick and size_of(outcome) > QUICK_BYTES:
        raise TakesLonger
    if output is None:
        with mark("frame"):
            output = framed_output(outcome, limits, marker)
    stdout = output.text[: limits.output_bytes]
    value = state = None
    error = (
        _exit_error(outcome, limits, tool_name, argument_lines)
        or ending_error(outcome, limits, f"Executing tool {tool_name}")
        or missing_frame(outcome, output, limits)
    )
    if error is None and output.payload is not None:
        with mark("decode"):
            value, state, error = _decode(
                output.payload, agent_state if injects_agent_state else None, injects_agent_state, quick
            )
    error = error or _failed_serializer(value, output.text)
    if error is not None:
        value, state = _friendly(error, tool_name), None
    fields = {
        "status": "success" if error is None else "error",
        "func_return": value,
        "agent_state": state,
        "stdout": lines(stdout),
        "stderr": lines(outcome.stderr),
        "sandbox_config_fingerprint": fingerprint,
        "error": error,
        "usage": usage_of(outcome, output, stdout),
        "files": outcome.files if error is None else None,
        "calls": None,
        "connections": None,
        "requests": None,
        "rolled_back": False,
    }
    return made(ToolExecutionResult, fields, _UNSET)


def size_of(outcome: Outcome) -> int:
    """Size of all that is read of an outcome."""
    report = outcome.exception
    texts = (outcome.detail, report.name, report.message, report.traceback) if report else (outcome.detail,)
    return len(outcome.stdout) + len(outcome.stderr) + len(outcome.answer or b"") + sum(map(len, texts))


def framed_output(outcome: Outcome, limits: Limits, marker: bytes = MARKER) -> FramedOutput:
    """Standard output of a run, and the result in it or beside it."""
    if outcome.answer_bytes is not None:
        is_missing = outcome.answer is None and outcome.answer_bytes
        damage = FrameDamage.OVERSIZED if is_missing else None
        return FramedOutput(outcome.answer, outcome.stdout, damage, outcome.answer_bytes)
    dropped = outcome.stdout_dropped_bytes
    head = min(head_bytes(limits.output_bytes, limits.result_bytes), len(outcome.stdout))
    gap = Gap(head, dropped) if dropped else None
    return split_frames(outcome.stdout, max_payload=limits.result_bytes, marker=marker, gap=gap)


def usage_of(outcome: Outcome, output: FramedOutput, stdout: bytes) -> Usage:
    """Usage of a run, of whose output ``stdout`` is kept."""
    dropped = outcome.stdout_dropped_bytes - output.frame_dropped_bytes + len(output.text) - len(stdout)
    fields = {
        "fuel": outcome.fuel,
        "wall_seconds": outcome.wall_seconds,
        "peak_memory_bytes": outcome.memory_bytes,
        "stdout_dropped_bytes": dropped,
        "stderr_dropped_bytes": outcome.stderr_dropped_bytes,
        "host_calls": 0,
        "host_seconds": 0.0,
        "host_bytes_in": 0,
        "host_bytes_out": 0,
    }
    return made(Usage, fields, _UNSET_USAGE)


def lines(data: bytes) -> list[str]:
    """Output as a result holds it: one item, or none."""
    return [data.decode("utf-8", "replace")] if data else []


def _friendly(error: ToolError, tool_name: str) -> str:
    if error.kind is ErrorKind.TIMEOUT:
        return error.message.removesuffix(_MORE_TIME)
    return friendly_error_message(tool_name, error.exception_name or error.kind, error.message)


def ending_error(outcome: Outcome, limits: Limits, subject: str) -> ToolError | None:
    """Error of a guest that did not end by itself.

    Args:
        outcome: end of the run.
        limits: limits that it ran with.
        subject: begin of the sentence that says that its time was over.
    """
    match outcome.ending.name:
        case "EXITED":
            return None
        case "DEADLINE":
            message = f"{subject} timed out after {limits.timeout_seconds:g} seconds."
            if outcome.fuel == 0 and outcome.detail:  # for want of a thread
                message = f"{message[:-1]}: {outcome.detail}: run fewer at once, or raise Limits.timeout_seconds"
                return tool_error(ErrorKind.TIMEOUT, message)
            return tool_error(ErrorKind.TIMEOUT, message + _MORE_TIME)
        case "OUT_OF_FUEL":
            message = f"the run used up its fuel of {limits.fuel}: raise Limits.fuel, or do less in a run"
            return tool_error(ErrorKind.OUT_OF_FUEL, message)
        case "OUT_OF_MEMORY":
            return tool_error(ErrorKind.OUT_OF_MEMORY, _memory_message(outcome, limits))
        case "CANCELLED":
            return tool_error(ErrorKind.CANCELLED, "the caller stopped the run: run it again for a result")
        case "STACK_OVERFLOW":
            message = "the tool recursed past the guest's native stack: use a loop, or data that is nested less deeply"
            return tool_error(ErrorKind.STACK_OVERFLOW, message)
        case _:
            return tool_error(ErrorKind.GUEST_TRAP, _trap_message(outcome))


def _trap_message(outcome: Outcome) -> str:
    """What is known of an abnormal end: the interpreter's last words, and the engine's."""
    detail = outcome.detail.strip().splitlines()
    reason = detail[-1].strip() if detail else "no reason is known"
    last_words = _FATAL.search(outcome.stderr[-QUICK_BYTES:].decode("utf-8", "replace"))
    if last_words is not None:
        reason = f"{last_words[1]}; {reason}"
    elif reason.startswith(_WORKER):
        return f"{reason}: run it again; if that ends it too, see stderr for what was called last"
    return (
        f"the guest's interpreter was aborted ({reason}): do without os.abort, waits that nothing can end, and what "
        "was called last (see stderr)"
    )


def without_message(name: str, traceback: str) -> str:
    """Sentence for an exception whose text is empty."""
    places = _LAST_PLACE.findall(traceback[-QUICK_BYTES:])
    place = " in {}, line {}".format(*places[-1]) if places else ""
    return f"{name} was raised{place} without a message: see the traceback"


def with_remedy(name: str, message: str) -> str:
    """The message of an exception; with what to do, where it is numpy's for want of memory, or an import failed that
    would work in an image of another flavour."""
    if name == "_ArrayMemoryError":
        return f"{message}: raise Limits.memory_bytes, or hold less at once"
    found = _NO_MODULE.fullmatch(message) if name == "ModuleNotFoundError" else None
    image = IN_IMAGES.get(found[1]) if found else None
    return f'{message} (it is in the image "{image}": image="{image}")' if image else message


def _exit_error(
    outcome: Outcome, limits: Limits, tool_name: str, argument_lines: tuple[range, ...]
) -> ToolError | None:
    if outcome.ending.name != "EXITED":
        return None
    exception = outcome.exception
    if exception is not None:
        is_compiled = exception.traceback.startswith("Traceback")  # else no frame: the script did not compile
        too_complex = exception.message.startswith(_PARSER_OVERFLOW)  # CPython makes it a MemoryError
        if exception.name.rpartition(".")[2] in MEMORY_ERRORS and not too_complex:
            kind = ErrorKind.OUT_OF_MEMORY
        elif not is_compiled and (exception.name in _COMPILER_ERRORS or too_complex):
            kind = ErrorKind.SYNTAX_ERROR
        elif _was_raised_on(argument_lines, exception.traceback, outcome.stderr):
            kind = ErrorKind.BAD_ARGUMENTS
        else:
            kind = ErrorKind.TOOL_EXCEPTION
        name = exception.name.rpartition(".")[2]  # of a nested class the guest says where it stands
        message = _advised(_in_toollines(exception.message, exception.traceback), exception.traceback, tool_name)
        if not message.strip():
            is_memory = kind is ErrorKind.OUT_OF_MEMORY
            message = memory_message(limits) if is_memory else without_message(name, exception.traceback)
        message = with_remedy(name, message)
        return tool_error(kind, message, exception_name=name, traceback=exception.traceback)
    if outcome.exit_code:
        message = f"the guest ended with exit code {outcome.exit_code}: {_RETURN_INSTEAD}"
        return tool_error(ErrorKind.NO_RESULT, message, exception_name="SystemExit")
    return None


def _in_toollines(message: str, traceback: str) -> str:
    """The message of a syntax error ends with its place in the script: say the place in the tool instead."""
    place = _SCRIPT_PLACE.search(message)
    found = _FIRST_PLACE.match(traceback) if place else None
    if place is None or found is None:
        return message
    return f"{message[: place.start()]} ({found[1]}, line {found[2]})"


def _advised(message: str, traceback: str, tool_name: str) -> str:
    """The message; where the script could not hand over the tool's value, with the reason in the tool's terms."""
    if not _NOT_PICKLED.match(message) or f'  File "{tool_file_name(tool_name)}", line ' in traceback:
        return message
    if message.startswith("maximum recursion depth exceeded while pickling"):
        return f"{message}: the tool returned a value that is nested too deeply: flatten it"
    reason = next((text for word, text in _NO_DATA.items() if word in message), f"what is no plain data: {ADVICE}")
    return f"{message}: the tool returned {reason}"


def tool_file_name(tool_name: str) -> str:
    """The file under which tracebacks show the tool's source; never that of the script."""
    return "script_.py" if tool_name == "script" else f"{tool_name}.py"


def _was_raised_on(lines: tuple[range, ...], traceback: str, stderr: bytes) -> bool:
    """Whether an exception left the script on one of these lines; all of the tool's run later."""
    # Of a very long traceback the report lacks the start; with nothing run before, stderr starts with it.
    outermost = _OUTERMOST_FRAME.match(traceback) or _OUTERMOST_FRAME.match(stderr[:200].decode("utf-8", "replace"))
    return outermost is not None and any(int(outermost[1]) in span for span in lines)


def _memory_message(outcome: Outcome, limits: Limits) -> str:
    if not outcome.memory_bytes and outcome.detail:
        return outcome.detail  # it was never started
    return memory_message(limits)


def memory_message(limits: Limits) -> str:
    """Sentence for a guest that needs more memory than it may have."""
    return (
        f"the guest needs more than its {limits.memory_bytes} bytes of memory: raise Limits.memory_bytes, or hold less "
        "at once"
    )


def missing_frame(outcome: Outcome, output: FramedOutput, limits: Limits) -> ToolError | None:
    """The error of a guest that ended well but left no valid frame."""
    if output.payload is not None:
        return None
    match output.damage:
        case None:
            message = f"the tool ended the interpreter before it returned a value (exit code {outcome.exit_code}): "
            message += _RETURN_INSTEAD
            if outcome.stdout_dropped_bytes:
                message = f"no result among the output, {outcome.stdout_dropped_bytes} bytes of which were dropped: "
                message += "print less, or raise Limits.output_bytes"
            return tool_error(ErrorKind.NO_RESULT, message)
        case FrameDamage.OVERSIZED:
            message = f"the result takes {output.declared_bytes} bytes, at most {limits.result_bytes} are accepted: "
            message += "raise Limits.result_bytes, or return less"
        case FrameDamage.CUT:
            message = f"the framed result is cut short: {_LEAVE_THE_FRAME}, and print less after it"
        case FrameDamage.CHECKSUM:
            message = f"the framed result does not match its checksum: {_LEAVE_THE_FRAME}"
        case FrameDamage.FLOOD:
            message = f"the output holds more false frames than are looked at: {_LEAVE_THE_FRAME}"
    return tool_error(ErrorKind.CORRUPTED_RESULT, message)


def _reason(error: Exception) -> str:
    """What a failed validation says, bounded: of a million wrong values it would quote a million."""
    if not isinstance(error, ValidationError):
        return type(error).__name__
    count = error.error_count()
    if count > MAX_QUOTED_ERRORS:
        return f"{count} validation errors"
    return str(error)[:MAX_FRIENDLY_CHARACTERS]


def refusal_of(error: DecodeError) -> ToolError:
    """Error of a result that was not decoded."""
    if isinstance(error, ForbiddenPickle):
        return tool_error(ErrorKind.FORBIDDEN_RESULT, str(error))
    return tool_error(ErrorKind.CORRUPTED_RESULT, f"{error}: {_LEAVE_THE_FRAME}")


def _with_kept_fields(state: Any, original: Any) -> Any:
    """A state that came back, with what a tool cannot change as it was handed in."""
    if not isinstance(state, dict):
        return state
    kept = {}
    for name in KEPT_STATE_FIELDS:
        if isinstance(original, Mapping):
            if name in original:
                kept[name] = original[name]
        elif hasattr(original, name):
            kept[name] = getattr(original, name)
    return {k: v for k, v in state.items() if k not in KEPT_STATE_FIELDS} | kept


def _decode(payload: bytes, agent_state: Any, wants_state: bool, quick: bool) -> tuple[Any, Any, ToolError | None]:
    try:
        envelope = decode_envelope(payload, limits=QUICK) if quick else decode_envelope(payload)
    except DecodeError as error:
        if quick:  # whoever has the time may find it good
            raise TakesLonger from None
        return None, None, refusal_of(error)
    state = _with_kept_fields(envelope.agent_state, agent_state) if wants_state else None
    if state is not None and isinstance(agent_state, BaseModel):
        try:
            state = type(agent_state).model_validate(state)
        except Exception as error:  # the caller's own validators, too, see what the tool made up
            pass_on(error)
            message = f"the agent state that came back is no {type(agent_state).__name__}: {_reason(error)}"
            return None, None, tool_error(ErrorKind.FORBIDDEN_RESULT, message)
    return envelope.results, state, None


def _failed_serializer(value: Any, stdout: bytes) -> ToolError | None:
    """Error of a value of which the script could only make a text, since a serializer of its class raised."""
    last = stdout[-QUICK_BYTES:].rpartition(_NOTICE)[2] if type(value) is str and _NOTICE in stdout else b""
    if not last:
        return None
    message = f"the result cannot be serialized: function `{last.decode('utf-8', 'replace').strip()}: "
    message += "correct its serializer, or return plain data"
    return tool_error(ErrorKind.TOOL_EXCEPTION, message, exception_name="PydanticSerializationError")
