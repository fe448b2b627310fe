"""End of an execution script in another executor than ours, and its translation into an outcome."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wasm_sandbox.decode.frame import FrameDamage, FramedOutput
from wasm_sandbox.decode.interpret import tool_file_name
from wasm_sandbox.decode.tracebacks import SCRIPT_NAME, exception_of, in_script, move_lines
from wasm_sandbox.outcome import Ending, GuestException, Outcome

if TYPE_CHECKING:
    from wasm_sandbox.script.generate import ExecutionScript


@dataclass(frozen=True)
class ScriptEnd:
    """End of a script, as its executor saw it.

    Attributes:
        exit_code: exit code of the interpreter; negative for the number of the signal that ended it.
        stdout: whole standard output, the framed result included.
        stderr: whole standard error, from which an uncaught exception is read.
        value: value of the last line of a script without markers: the pickled result in base64. Quotes around it do
            not matter.
        timed_out: whether the executor ended the script because its time was up.
        file_name: file name of the script in tracebacks.
    """

    exit_code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    value: str | None = None
    timed_out: bool = False
    file_name: str = "script.py"


def outcome_of(end: ScriptEnd, script: ExecutionScript, tool_name: str, output_bytes: int) -> Outcome:
    """Translate the end of a script; its exception is read from the last traceback on standard error."""
    ending = Ending.DEADLINE if end.timed_out else Ending.EXITED if end.exit_code >= 0 else Ending.TRAPPED
    return Outcome(
        ending=ending,
        exit_code=max(end.exit_code, 0),
        exception=_exception(end, script, tool_name),
        detail=f"ended by signal {-end.exit_code}" if end.exit_code < 0 else "",
        stdout=end.stdout,
        stderr=end.stderr[:output_bytes],
    )


def value_as_output(end: ScriptEnd, max_payload: int) -> FramedOutput:
    """Read the result of a script without markers, from its value and not from its standard output."""
    if end.value is None:
        return FramedOutput(None, end.stdout)
    try:
        payload = base64.b64decode(end.value)
    except (binascii.Error, ValueError):
        return FramedOutput(None, end.stdout, FrameDamage.CUT)
    if len(payload) > max_payload:
        return FramedOutput(None, end.stdout, FrameDamage.OVERSIZED, len(payload))
    return FramedOutput(payload, end.stdout)


def _exception(end: ScriptEnd, script: ExecutionScript, tool_name: str) -> GuestException | None:
    found = exception_of(end.stderr.decode("utf-8", "replace")) if end.exit_code == 1 else None
    if found is None:
        return None
    name, message, traceback = found
    shown = in_script(traceback, end.file_name)
    first, count = script.tool_first_line, script.tool_line_count
    return GuestException(name, message, move_lines(shown, SCRIPT_NAME, tool_file_name(tool_name), first, count))
