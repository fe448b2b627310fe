"""What the command prints: results, output streams, one-line errors. It works whatever a guest returned."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from wasm_sandbox.results import ToolError
    from wasm_sandbox.sandbox import Output

MAX_LINE_CHARACTERS = 600

_TERMINAL_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u2064\u2066-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f]"
)
"""Characters that a terminal obeys instead of showing them, or that change what others look like: controls but for line
feed and tab, direction and format but for joiners, separators of lines, lone surrogates."""

_BEYOND_ASCII = re.compile("[^\x00-\x7f]+")

_LIMIT_KINDS = frozenset({"out_of_fuel", "timeout", "out_of_memory", "stack_overflow"})
"""The kinds of error that are limits."""

_LIMIT = re.compile(r"\bLimits\.(\w+)")
_LIMIT_OPTIONS = {
    "fuel": "--fuel",
    "timeout_seconds": "--timeout",
    "memory_bytes": "--memory",
    "output_bytes": "--output-limit",
    "result_bytes": "--result-limit",
}
"""What raises a limit in the command, by its name in the library."""


def exit_code(error: ToolError | None) -> int:
    """Exit code of a run that ended: 0 success, 1 tool error, 2 bad arguments, 3 limit."""
    if error is None:
        return 0
    if error.kind.value == "bad_arguments":
        return 2
    return 3 if error.kind.value in _LIMIT_KINDS else 1


def show(output: Output, name: str, *, as_json: bool) -> int:
    """Print a result, and what the run printed itself; returns the exit code."""
    from wasm_sandbox.results import document, value_text  # lazy: loads pydantic

    result = output.result
    if as_json:
        write_json(document(result, output.code) + "\n")
        return exit_code(result.error)
    shows_value = result.error is None and output.has_value
    write(sys.stdout, _whole_lines(output.stdout) if shows_value else output.stdout)
    if output.stderr:
        write(sys.stderr, _whole_lines(output.stderr))
    if result.usage is not None:
        _tell_dropped("stdout", result.usage.stdout_dropped_bytes)
        _tell_dropped("stderr", result.usage.stderr_dropped_bytes)
    if result.error is not None:
        complain(f"{name}: {explain(result.error)}")
    elif shows_value:
        write(sys.stdout, value_text(result.func_return) + "\n")
    return exit_code(result.error)


def explain(error: ToolError) -> str:
    """One line about a failed run, with what to do where that is known."""
    message = error.message.strip().partition("\n")[0]
    message = _LIMIT.sub(lambda found: _LIMIT_OPTIONS.get(found[1], found[0]), message)
    parts = [error.kind.value, error.exception_name or "", message]
    return ": ".join(part for part in parts if part)


def complain(message: str) -> None:
    """Print one line on stderr. It may quote a guest: no control character of it reaches the terminal."""
    line = " ".join(message.split())
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    if len(line) > MAX_LINE_CHARACTERS:
        line = line[: MAX_LINE_CHARACTERS - 3] + "..."
    with contextlib.suppress(OSError):  # there is nowhere to say that stderr cannot be written
        write(sys.stderr, f"wasm-sandbox: {line}\n")


def for_terminal(text: str) -> str:
    """Text that a terminal only shows: what it would obey is spelled out, as in a string of JSON."""
    return _TERMINAL_CONTROLS.sub(_spelled, text.replace("\r\n", "\n"))


def _spelled(control: re.Match[str]) -> str:
    character = control[0]
    if character < " ":
        return f"\\x{ord(character):02x}"
    if "\ud800" <= character <= "\udfff":
        return f"\\u{ord(character):04x}"
    units = character.encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def write(stream: TextIO | None, data: str | bytes) -> None:
    """Write to a standard stream at once; a reader that has gone away is no error.

    What is written may be a stranger's words: to a terminal goes `for_terminal` of them, to all else the bytes.
    """
    if stream is None or not data:
        return
    if stream.isatty():
        data = for_terminal(data.decode(errors="replace") if isinstance(data, bytes) else data)
    _put(stream, _encoded(data, stream.encoding) if isinstance(data, str) else data)


def write_json(text: str) -> None:
    """Write a JSON document to stdout: in UTF-8, and where that is not the stream's encoding, all ASCII."""
    stream = sys.stdout
    if stream is None:
        return
    if stream.isatty():
        text = for_terminal(text)
    if codecs.lookup(stream.encoding or "utf-8").name != "utf-8":
        text = _BEYOND_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text)
    _put(stream, text.encode())


def _encoded(text: str, encoding: str | None) -> bytes:
    try:
        return text.encode(encoding or "utf-8", "backslashreplace")
    except UnicodeError:  # an encoding for other things than text, such as idna
        return text.encode("ascii", "backslashreplace")


def _put(stream: TextIO, data: bytes) -> None:
    try:
        stream.flush()
        stream.buffer.write(data)
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # so that the flush at exit is quiet too


def print_line(text: str) -> None:
    """Write a line to stdout, or several."""
    write(sys.stdout, text + "\n")


def print_row(text: str) -> None:
    """Write a row of a table to stdout: on a terminal it is one line, whatever is in it."""
    if sys.stdout is not None and sys.stdout.isatty():
        text = text.replace("\n", "\\n")
    print_line(text)


def print_json(value: Any) -> None:
    """Write plain data to stdout, as one JSON document."""
    write_json(json.dumps(value, indent=2) + "\n")


def _whole_lines(data: bytes) -> bytes:
    return data + b"\n" if data and not data.endswith(b"\n") else data


def _tell_dropped(stream: str, dropped: int) -> None:
    if dropped:
        complain(f"{dropped} bytes of {stream} were dropped; keep more with --output-limit")
