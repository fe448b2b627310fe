"""How an execution script ended in another executor than ours, and what that means in the terms of a guest's run."""

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
    """What an executor saw of one script.

    Attributes:
        exit_code: Of the interpreter; a negative number is that of the signal that ended it.
        stdout: All of its standard output, the framed result included.
        stderr: All of its standard error, where an uncaught exception is read from.
        value: For a script without markers, the value of its last line: the pickled result in base64. Quotes
            around it do not matter.
        timed_out: Whether the executor ended it because its time was up.
        file_name: The name under which the interpreter knows the script, as tracebacks show it.
    """

    exit_code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    value: str | None = None
    timed_out: bool = False
    file_name: str = "script.py"


def outcome_of(end: ScriptEnd, script: ExecutionScript, tool_name: str, output_bytes: int) -> Outcome:
    """The end of a script as an outcome. Its exception is read from the last traceback on standard error."""
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
    """The result of a script without markers: nothing in its standard output is one."""
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
