"""From the outcome of a cell to its result: the frame, the value in it, the error it reports. Pure."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from wasm_sandbox.decode.interpret import (
    MEMORY_ERRORS,
    QUICK,
    QUICK_BYTES,
    TakesLonger,
    ending_error,
    framed_output,
    lines,
    memory_message,
    missing_frame,
    refusal_of,
    size_of,
    usage_of,
    with_remedy,
    without_message,
)
from wasm_sandbox.decode.pickle_decoder import DecodeLimits, loads
from wasm_sandbox.decode.plain_types import CorruptedPickle, DecodeError
from wasm_sandbox.events import mark
from wasm_sandbox.limits import Limits
from wasm_sandbox.results import CodeResult, ErrorKind, ToolError, made, tool_error

if TYPE_CHECKING:
    from wasm_sandbox.outcome import Outcome


MAX_EXIT_CODE = 2**63
_NO_CELL = "the pickle does not hold the result of a cell"
_UNSET = frozenset({"connections", "requests"})
_NO_VALUE, _VALUE = b"\0", 1
_TEXT_SIZE = struct.Struct("<BI")
"""Head of a value that is data: `_VALUE`, and the size of its text, which stands before its pickle."""


class _Reported(NamedTuple):
    """Content of a cell's frame, checked."""

    value: bytes | None
    text: str | None
    error: tuple[str, str, str, bool, int | None] | None
    is_paused: bool


def interpret_cell(outcome: Outcome, limits: Limits, quick: bool = False, may_exit: bool = False) -> CodeResult:
    """Turn the outcome of a cell's script into its result.

    Args:
        outcome: end of the run, and its raw output.
        limits: limits that it ran with.
        quick: whether an event loop waits: do it in a few milliseconds, or not at all.
        may_exit: whether the code is a program, which may end by an exit with code 0.

    Raises:
        TakesLonger: if it was to be quick, and may not be.
    """
    result, is_paused = interpret_session_cell(outcome, limits, quick, may_exit)
    if not is_paused:
        return result
    error = refusal_of(CorruptedPickle(_NO_CELL))
    return result.model_copy(update={"status": "error", "error": error, "files": None})


def interpret_session_cell(
    outcome: Outcome, limits: Limits, quick: bool = False, may_exit: bool = False
) -> tuple[CodeResult, bool]:
    """Turn the outcome of a session's cell into its result, and whether the cell is paused and has no result yet.

    The arguments and what is raised are those of `interpret_cell`.
    """
    if quick and size_of(outcome) > QUICK_BYTES:
        raise TakesLonger
    with mark("frame"):
        output = framed_output(outcome, limits)
    stdout = output.text[: limits.output_bytes]
    value = text = None
    is_paused = False
    error = (
        ending_error(outcome, limits, "the code") or _untold(outcome, limits) or missing_frame(outcome, output, limits)
    )
    if error is None and output.payload is not None:
        with mark("decode"):
            value, text, error, is_paused = _decoded(output.payload, limits, quick, may_exit)
    fields = {
        "status": "success" if error is None else "error",
        "value": value,
        "text": text,
        "stdout": lines(stdout),
        "stderr": lines(outcome.stderr),
        "displays": [],
        "files": outcome.files if error is None else None,
        "error": error,
        "usage": usage_of(outcome, output, stdout),
        "calls": [],
        "connections": [],
        "requests": [],
        "rolled_back": False,
    }
    return made(CodeResult, fields, _UNSET), is_paused


def _untold(outcome: Outcome, limits: Limits) -> ToolError | None:
    """Error of a cell that had an exception and could not tell of it, for want of memory mostly."""
    if (raised := outcome.exception) is None:
        return None
    return _reported_error(limits, raised.name, raised.message, raised.traceback, True, None)


def _decoded(
    payload: bytes, run_limits: Limits, quick: bool, may_exit: bool
) -> tuple[Any, str | None, ToolError | None, bool]:
    limits = QUICK if quick else DecodeLimits()
    try:
        reported = _short(payload) or _reported(loads(payload, limits=limits))
    except DecodeError as error:
        if quick:  # whoever has the time may find it good
            raise TakesLonger from None
        return None, None, refusal_of(CorruptedPickle(str(error))), False
    if reported.error is not None:
        if may_exit and reported.error[-1] == 0:
            return None, None, None, False
        return None, None, _reported_error(run_limits, *reported.error), False
    if reported.value is None:
        return None, reported.text, None, reported.is_paused
    try:
        return loads(reported.value, limits=limits), reported.text, None, False
    except DecodeError:
        if quick:
            raise TakesLonger from None
        return None, reported.text, None, False  # no data, such as a function: its text says what it is


def _short(payload: bytes) -> _Reported | None:
    """Content of a frame that is no pickle: of a cell without a last expression, or with a value that is data.

    Raises:
        CorruptedPickle: if it is not what a cell writes.
    """
    if payload == _NO_VALUE:
        return _Reported(None, None, None, False)
    if not payload or payload[0] != _VALUE:
        return None
    if len(payload) < _TEXT_SIZE.size:
        raise CorruptedPickle(_NO_CELL)
    end = _TEXT_SIZE.size + _TEXT_SIZE.unpack_from(payload)[1]
    if end > len(payload):
        raise CorruptedPickle(_NO_CELL)
    try:
        text = str(payload[_TEXT_SIZE.size : end], "utf-8")
    except UnicodeDecodeError:
        raise CorruptedPickle(_NO_CELL) from None
    return _Reported(payload[end:], text, None, False)


def _reported(content: Any) -> _Reported:
    """Check what a frame holds.

    Raises:
        CorruptedPickle: if it is not what a cell writes.
    """
    match content:
        case (None, None, None, True):
            return _Reported(None, None, None, True)
        case (bytes() | None as value, str() | None as text, None, False):
            return _Reported(value, text, None, False)
        case (
            None,
            None,
            (str() as name, str() as message, str() as traceback, bool() as is_compiled, code),
            False,
        ) if code is None or type(code) is int:
            return _Reported(None, None, (name, message, traceback, is_compiled, code), False)
    raise CorruptedPickle(_NO_CELL)


def _reported_error(
    limits: Limits, name: str, message: str, traceback: str, is_compiled: bool, code: int | None
) -> ToolError:
    if name.rpartition(".")[2] in MEMORY_ERRORS and is_compiled:
        kind = ErrorKind.OUT_OF_MEMORY
    elif is_compiled:
        kind = ErrorKind.TOOL_EXCEPTION
    else:
        kind = ErrorKind.SYNTAX_ERROR
    shown = name.rpartition(".")[2]
    if code is not None:
        exit_code = code if abs(code) < MAX_EXIT_CODE else "of very many digits"  # which str would refuse to print
        message = f"the code ended the interpreter with exit code {exit_code}: let it come to its end instead"
    elif not message.strip():
        is_memory = kind is ErrorKind.OUT_OF_MEMORY
        message = memory_message(limits) if is_memory else without_message(shown, traceback)
    return tool_error(kind, with_remedy(shown, message), exception_name=shown, traceback=traceback)
