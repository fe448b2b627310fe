"""How an execution script ended in another executor than ours, and what that means in the terms of a guest's run."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wasm_sandbox.decode.frame import FrameDamage, FramedOutput
from wasm_sandbox.decode.interpret import tool_file_name

if TYPE_CHECKING:
    from wasm_sandbox.outcome import GuestException, Outcome
    from wasm_sandbox.script.generate import ExecutionScript

MAX_REPORT_BYTES = 1 << 20
"""So much of the end of standard error is searched for an exception."""

_TRACEBACK = "Traceback (most recent call last):\n"
_EXCEPTION = re.compile(r"^(?P<name>[A-Za-z_][\w.<>]*)(?:: (?P<message>.*))?\Z", re.MULTILINE | re.DOTALL)
_SUGGESTION = re.compile(r"\. Did you (?:mean|forget)[^\n]*\?$")  # the traceback's own words, not the exception's


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
    from wasm_sandbox.outcome import Ending, Outcome

    ending = Ending.DEADLINE if end.timed_out else Ending.EXITED if end.exit_code >= 0 else Ending.TRAPPED
    return Outcome(
        ending=ending,
        exit_code=max(end.exit_code, 0),
        exception=_exception(end, script, tool_name),
        detail=f"ended by signal {-end.exit_code}" if end.exit_code < 0 else "",
        stdout=end.stdout,
        stderr=end.stderr[:output_bytes],
        stdout_dropped_bytes=0,
        stderr_dropped_bytes=0,
        fuel=0,
        wall_seconds=0.0,
        memory_bytes=0,
        host_calls=0,
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
    from wasm_sandbox.outcome import GuestException

    text = end.stderr[-MAX_REPORT_BYTES:].decode("utf-8", "replace")
    text = text[max(text.rfind(_TRACEBACK), 0) :]
    if end.exit_code != 1 or "  File " not in text:
        return None
    found = _EXCEPTION.search(text[text.rindex("\n  File " if "\n  File " in text else "  File ") :].rstrip("\n"))
    if found is None:
        return None
    message = _SUGGESTION.sub("", found["message"] or "")
    name = found["name"] if "<locals>" in found["name"] else found["name"].rpartition(".")[2]
    return GuestException(name, message, _in_tool_lines(text, end, script, tool_name))


def _in_tool_lines(traceback: str, end: ScriptEnd, script: ExecutionScript, tool_name: str) -> str:
    """The traceback as a guest gives it: without the executor's frames, with the tool's own file and lines."""
    frame = re.compile(rf'^  File "{re.escape(end.file_name)}", line (\d{{1,9}})', re.MULTILINE)
    first = frame.search(traceback)
    if first is None:
        return traceback
    is_frame = traceback.startswith(", in ", first.end())  # else it is where the script does not compile
    head = _TRACEBACK if is_frame else ""
    last_line = script.tool_first_line + script.tool_line_count

    def shown(match: re.Match[str]) -> str:
        line = int(match[1])
        if script.tool_first_line <= line < last_line:
            return f'  File "{tool_file_name(tool_name)}", line {line - script.tool_first_line + 1}'
        return f'  File "script.py", line {line}'

    return head + frame.sub(shown, traceback[first.start() :])
